//! A message that a table can't take does not stop its neighbours, whatever the error looks like: where others
//! pass, it is the message, and where none passes, the server or the set-up.

use crate::common::{cluster, count, ingest, message, texts, try_ingest};

/// What a trigger may raise or come across for one value, by the server's own classes of SQLSTATE.
const RAISED: &[&str] = &[
    "01000", "02000", "03000", "08006", "0A000", "0B000", "0F000", "0L000", "0P000", "0Z000", "10608",
    "20000", "21000", "22012", "23000", "23505", "24000", "25001", "25006", "26000", "27000", "28000",
    "2B000", "2D000", "2F000", "34000", "38000", "39000", "3B000", "3D000", "3F000", "40001", "40P01",
    "42501", "42601", "42703", "42883", "42P01", "44000", "53000", "53100", "53200", "53300", "53400",
    "54000", "54001", "54011", "55000", "55006", "55P03", "57000", "57014", "57P01", "57P02", "57P03",
    "57P04", "58000", "58030", "72000", "F0000", "HV000", "P0000", "P0001", "P0004", "XX000", "XX001",
    "XX002", "ZZ999",
];

/// And what it does for others, with the SQLSTATE that the server gives that.
const DONE: &[(&str, &str, &str)] = &[
    ("no table", "EXECUTE format('INSERT INTO public.%I DEFAULT VALUES', 'of_' || NEW.user_id);", "42P01"),
    ("no column", "EXECUTE format('SELECT %I', NEW.user_id);", "42703"),
    ("no function", "EXECUTE format('SELECT public.%I()', NEW.user_id);", "42883"),
    ("no schema", "EXECUTE format('SELECT %I.f()', NEW.user_id);", "3F000"),
    ("no right", "EXECUTE 'TABLE pg_catalog.pg_authid';", "42501"),
    ("no syntax", "EXECUTE NEW.user_id;", "42601"),
    ("no role", "PERFORM has_table_privilege(NEW.user_id, 'pg_class', 'SELECT');", "42704"),
    ("no command", "EXECUTE format('GRANT %I TO postgres', NEW.user_id);", "42501"),
    ("no end", "PERFORM public.recurse();", "54001"),
    ("no timeout", "PERFORM pg_catalog.set_config('statement_timeout', NEW.user_id, true);", "22023"),
    ("no setting", "PERFORM pg_catalog.set_config('role', 'postgres', true);", "42501"),
    ("no commit", "COMMIT;", "2D000"),
    ("no memory", "PERFORM pg_catalog.repeat('x', 1073741823) || 'x';", "54000"),
    ("no number", "NEW.app_version := NEW.user_id;", "22P02"),
    ("no cursor", "EXECUTE 'FETCH FROM nowhere';", "34000"),
];

async fn table(database: &str) -> tokio_postgres::Client {
    let client = cluster().await.database(database).await.unwrap();
    let done: String = DONE
        .iter()
        .map(|(kind, code, _)| format!("IF NEW.device_type = '{kind}' THEN {code} END IF; "))
        .collect();
    client
        .batch_execute(&format!(
            "CREATE FUNCTION recurse() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM public.recurse(); END $$;
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.device_type = 'raises' THEN RAISE 'because of %', NEW.user_id USING ERRCODE = NEW.locale; END IF;
                 {done} RETURN NEW; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION refuse()"
        ))
        .await
        .unwrap();
    client
}

fn raising() -> impl Iterator<Item = (String, String)> {
    RAISED.iter().map(|sqlstate| {
        (
            format!(r#"{{"user_id":"r{sqlstate}","device_type":"raises","locale":"{sqlstate}"}}"#),
            (*sqlstate).to_owned(),
        )
    })
}

fn doing() -> impl Iterator<Item = (String, String)> {
    DONE.iter().map(|(kind, _, sqlstate)| {
        (format!(r#"{{"user_id":"'no such thing'","device_type":"{kind}"}}"#), (*sqlstate).to_owned())
    })
}

#[tokio::test]
async fn one_of_each_kind_among_a_thousand() {
    let client = table("poison").await;
    let mut messages: Vec<(String, String)> = (0..1000)
        .map(|n| (format!("good {n}"), format!(r#"{{"user_id":"u{n}","ip":"10.0.0.{n}"}}"#)))
        .collect();
    let mut expected = Vec::new();
    for (n, (body, sqlstate)) in raising().chain(doing()).enumerate() {
        let id = format!("bad {n:03}");
        expected.push(format!("{id} rejected:{sqlstate}"));
        messages[n * 997 % 1000] = (id, body);
    }
    let bad = expected.len() as i64;
    assert_eq!(ingest(&client, &messages).await, [1000 - bad, 0, bad]);
    assert_eq!(count(&client, "SELECT count(DISTINCT user_id) FROM user_logins").await, 1000 - bad);
    let kept = "SELECT message_id || ' ' || reason FROM pgmask.quarantine ORDER BY message_id";
    assert_eq!(texts(&client, kept).await, expected);
    assert_eq!(ingest(&client, &messages).await, [0, 1000, 0]);
    // They stay where they are while the cause is there, and go in once it is gone.
    let replay = "SELECT inserted, kept FROM pgmask.replay_quarantine()";
    let row = client.query_one(replay, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, bad));
    assert_eq!(texts(&client, kept).await, expected);
    client.batch_execute("DROP TRIGGER refuse ON user_logins").await.unwrap();
    let row = client.query_one(replay, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (bad, 0));
}

/// Two are enough to tell.
#[tokio::test]
async fn one_beside_one_good_one() {
    let client = table("poison_pairs").await;
    for (n, (body, sqlstate)) in raising().chain(doing()).enumerate() {
        let messages = [(format!("bad {n}"), body), (format!("good {n}"), r#"{"user_id":"u"}"#.to_owned())];
        assert_eq!(ingest(&client, &messages).await, [1, 0, 1], "{sqlstate}");
    }
}

/// Nothing of them goes into the quarantine: they come again.
#[tokio::test]
async fn where_none_passes_it_is_the_server() {
    let client = table("poison_alone").await;
    for (kind, _, sqlstate) in DONE.iter().filter(|(_, _, sqlstate)| sqlstate.starts_with("42")) {
        let body = format!(r#"{{"user_id":"secret value","device_type":"{kind}"}}"#);
        let messages: Vec<(String, &str)> = (0..20).map(|n| (format!("{kind} {n}"), &body[..])).collect();
        let error = try_ingest(&client, &messages, "2026-11-20").await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), *sqlstate, "{kind}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
    for table in ["user_logins", "pgmask.ledger", "pgmask.quarantine"] {
        assert_eq!(count(&client, &format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
}

/// Partitions that are named after a value and missing: most of the batch may be of them.
#[tokio::test]
async fn most_of_a_batch_is_poison() {
    let client = table("poison_most").await;
    let messages: Vec<(String, String)> = (0..300)
        .map(|n| {
            let kind = if n == 217 { "good" } else { "no table" };
            (format!("m{n}"), format!(r#"{{"user_id":"u{n}","device_type":"{kind}"}}"#))
        })
        .collect();
    assert_eq!(ingest(&client, &messages).await, [1, 0, 299]);
}

/// What fails for a passing reason goes in at the second try, and is not quarantined.
#[tokio::test]
async fn a_row_that_fails_once_is_tried_again() {
    let client = cluster().await.database("poison_once").await.unwrap();
    client
        .batch_execute(
            "CREATE SEQUENCE tries; GRANT USAGE ON SEQUENCE tries TO pgmask_writer;
             CREATE FUNCTION once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.user_id = 'once' AND nextval('public.tries') < 4 THEN RAISE 'later' USING ERRCODE = 'lock_not_available'; END IF;
                 RETURN NEW; END $$;
             CREATE TRIGGER once BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION once()",
        )
        .await
        .unwrap();
    let messages = [
        ("a", r#"{"user_id":"1"}"#),
        ("b", r#"{"user_id":"once"}"#),
        ("c", r#"{"user_id":"2"}"#),
        ("d", r#"{"user_id":"3"}"#),
    ];
    assert_eq!(ingest(&client, &messages).await, [4, 0, 0]);
}

/// A cancel is nothing to experiment with.
#[tokio::test]
async fn a_timeout_ends_the_batch_at_once() {
    let client = cluster().await.database("poison_timeout").await.unwrap();
    client
        .batch_execute(
            "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF NEW.user_id = 'hangs' THEN PERFORM pg_sleep(3600); END IF; RETURN NEW; END $$;
             CREATE TRIGGER hang BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION hang();
             SET statement_timeout = '300ms'",
        )
        .await
        .unwrap();
    let messages: Vec<(String, String)> = (0..50)
        .map(|n| (n.to_string(), format!(r#"{{"user_id":"{}"}}"#, if n == 20 { "hangs" } else { "u" })))
        .collect();
    let started = std::time::Instant::now();
    let error = message(&try_ingest(&client, &messages, "2026-11-20").await.unwrap_err());
    assert!(error.starts_with("57014 "), "{error}");
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
}

/// PostgreSQL has no text with a NUL, nor with half a surrogate pair; emulators of SQS hand out the former.
#[tokio::test]
async fn a_body_that_no_text_can_be_is_kept_as_it_came() {
    let client = cluster().await.database("poison_bytes").await.unwrap();
    let ids = ["a", "b", "c", "d"];
    let bodies: [Option<&[u8]>; 4] = [
        Some(b"{\"user_id\":\"good\"}"),
        Some(b"{\"user_id\":\"a\0b\"}"),
        Some(b"{\"user_id\":\"\xed\xa0\x80\"}"),
        None,
    ];
    let no_times: [Option<std::time::SystemTime>; 4] = [None; 4];
    let counts = [1i32; 4];
    let sql = "SELECT inserted, duplicate, quarantined FROM pgmask.ingest_login_batch_bytes($1, $2, $3, $4)";
    for expected in [[1, 0, 3], [0, 4, 0]] {
        let row =
            client.query_one(sql, &[&&ids[..], &&bodies[..], &&no_times[..], &&counts[..]]).await.unwrap();
        assert_eq!([0, 1, 2].map(|at| row.get::<_, i64>(at)), expected);
    }
    assert_eq!(texts(&client, "SELECT user_id FROM user_logins").await, ["good"]);
    let kept = texts(&client, "SELECT message_id || ' ' || reason FROM pgmask.quarantine ORDER BY id").await;
    assert_eq!(kept, ["b invalid_json", "c invalid_json", "d invalid_json"]);
    let shown = crate::common::unseal_all(&client).await;
    let hex = |body: &[u8]| format!("\\x{}", hex::encode(body)).into_bytes();
    assert_eq!(shown, [hex(bodies[1].unwrap()), hex(bodies[2].unwrap()), Vec::new()]);
}
