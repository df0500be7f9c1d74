//! A bad message never harms its neighbours, whatever is bad about it.

use crate::common::{cluster, count, ingest, texts};

/// A table with opinions.
const TABLE: &str = "
    ALTER TABLE user_logins ADD UNIQUE (user_id), ADD CHECK (locale <> 'ZZ'), ADD seen integer NOT NULL DEFAULT 0;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.device_type = 'refused' THEN RAISE EXCEPTION 'no %', NEW.user_id; END IF;
        IF NEW.device_type = 'own code' THEN RAISE EXCEPTION 'no %', NEW.user_id USING ERRCODE = 'MY001'; END IF;
        IF NEW.device_type = 'reraised' THEN
            BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'MY002'; EXCEPTION WHEN OTHERS THEN RAISE; END;
        END IF;
        IF NEW.device_type = 'warned' THEN
            BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'MY003'; EXCEPTION WHEN OTHERS THEN RAISE WARNING 'hm'; RAISE; END;
        END IF;
        IF NEW.device_type = 'no case' THEN CASE NEW.locale WHEN 'DE' THEN NULL; END CASE; END IF;
        IF NEW.device_type = 'no action' THEN RAISE 'no' USING ERRCODE = 'triggered_action_exception'; END IF;
        IF NEW.device_type = 'two rows' THEN NEW.locale := (SELECT 'DE' FROM pg_class LIMIT 2); END IF;
        IF NEW.device_type = 'divided' THEN NEW.seen := 1 / NEW.seen; END IF;
        IF NEW.device_type = 'asserted' THEN ASSERT false, NEW.user_id; END IF;
        IF NEW.device_type = 'no return' THEN NULL; ELSE RETURN NEW; END IF; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION refuse();";

/// One of each kind, and where in the batch it is.
const BAD: &[(usize, &str, &str)] = &[
    (0, "not json", "invalid_json"),
    (1, "", "invalid_json"),
    (77, "[]", "not_an_object"),
    (78, r#"{"foo":"bar"}"#, "missing:user_id"),
    (79, r#"{"user_id":"\u0000"}"#, "invalid:user_id"),
    (200, r#"{"user_id":"b","ip":[]}"#, "invalid:ip"),
    (201, r#"{"user_id":"b","device_id":[]}"#, "invalid:device_id"),
    (301, r#"{"user_id":"b","app_version":"x"}"#, "invalid:app_version"),
    (302, r#"{"user_id":"b","locale":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#, "too_long:locale"),
    (303, r#"{"user_id":"b","device_type":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#, "too_long:device_type"),
    (499, r#"{"user_id":"u3"}"#, "rejected:23505"),
    (500, r#"{"user_id":"c1","locale":"ZZ"}"#, "rejected:23514"),
    (501, r#"{"user_id":"c2","device_type":"refused"}"#, "rejected:P0001"),
    (502, r#"{"user_id":"c3","device_type":"own code"}"#, "rejected:MY001"),
    (503, r#"{"user_id":"c4","device_type":"reraised"}"#, "rejected:MY002"),
    (504, r#"{"user_id":"c5","device_type":"divided"}"#, "rejected:22012"),
    (505, r#"{"user_id":"c7","device_type":"warned"}"#, "rejected:MY003"),
    (506, r#"{"user_id":"c8","device_type":"no case"}"#, "rejected:20000"),
    (507, r#"{"user_id":"c9","device_type":"no action"}"#, "rejected:09000"),
    (508, r#"{"user_id":"c10","device_type":"two rows"}"#, "rejected:21000"),
    (509, r#"{"user_id":"c11","device_type":"no return"}"#, "rejected:2F005"),
    (998, r#"{"user_id":"c6","device_type":"asserted"}"#, "rejected:P0004"),
    (999, r#"{"user_id":"#, "invalid_json"),
];

#[tokio::test]
async fn one_of_each_kind_in_a_thousand() {
    let client = cluster().await.database("neighbours").await.unwrap();
    client.batch_execute(TABLE).await.unwrap();
    let mut messages: Vec<(String, String)> = (0..1000)
        .map(|n| (format!("m{n:03}"), format!(r#"{{"user_id":"u{n}","ip":"10.0.0.{n}"}}"#)))
        .collect();
    for (at, body, _) in BAD {
        messages[*at].1 = (*body).to_owned();
    }
    let bad = BAD.len() as i64;
    assert_eq!(ingest(&client, &messages).await, [1000 - bad, 0, bad]);
    let good =
        "SELECT count(DISTINCT user_id) FROM user_logins WHERE user_id ~ '^u' AND masked_ip IS NOT NULL";
    assert_eq!(count(&client, good).await, 1000 - bad);
    let kept =
        texts(&client, "SELECT message_id || ' ' || reason FROM pgmask.quarantine ORDER BY message_id").await;
    let expected: Vec<String> = BAD.iter().map(|(at, _, reason)| format!("m{at:03} {reason}")).collect();
    assert_eq!(kept, expected);
    // All of them are known now.
    assert_eq!(ingest(&client, &messages).await, [0, 1000, 0]);
}

#[tokio::test]
async fn a_batch_of_nothing_but_bad_ones() {
    let client = cluster().await.database("all_bad").await.unwrap();
    client.batch_execute("ALTER TABLE user_logins ADD CHECK (false)").await.unwrap();
    let messages: Vec<(String, &str)> = (0..300).map(|n| (n.to_string(), r#"{"user_id":"u"}"#)).collect();
    assert_eq!(ingest(&client, &messages).await, [0, 0, 300]);
    assert_eq!(ingest(&client, &messages).await, [0, 300, 0]);
}

/// The set-up is wrong then, not the message, and a quarantine full of good ones would hide it.
#[tokio::test]
async fn what_is_wrong_with_a_trigger_itself_fails_the_batch() {
    for (name, body, code) in [
        ("recursion", "PERFORM public.recurse(); RETURN NEW;", "54001"),
        ("missing_table", "INSERT INTO public.nowhere VALUES (1); RETURN NEW;", "42P01"),
        ("missing_right", "PERFORM pg_catalog.pg_read_file('x'); RETURN NEW;", "42501"),
        (
            "internal",
            "BEGIN RAISE 'x' USING ERRCODE = 'XX000'; EXCEPTION WHEN OTHERS THEN
            BEGIN RAISE unique_violation; EXCEPTION WHEN OTHERS THEN NULL; END; RAISE; END; RETURN NEW;",
            "XX000",
        ),
        ("disk_full", "RAISE 'x' USING ERRCODE = 'disk_full'; RETURN NEW;", "53100"),
    ] {
        let client = cluster().await.database(&format!("trigger_{name}")).await.unwrap();
        let sql = format!(
            "DROP ROLE IF EXISTS owns_{name}; CREATE ROLE owns_{name}; GRANT ALL ON SCHEMA public TO owns_{name};
             CREATE FUNCTION recurse() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM public.recurse(); END $$;
             CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
             CREATE TRIGGER f BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION f();
             ALTER FUNCTION f() OWNER TO owns_{name}; ALTER TABLE user_logins OWNER TO owns_{name};
             ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
             CREATE POLICY p ON user_logins WITH CHECK (true)"
        );
        client.batch_execute(&sql).await.unwrap();
        let error = crate::common::try_ingest(&client, &[("a", r#"{"user_id":"u"}"#)], "2026-11-20").await;
        assert_eq!(error.unwrap_err().code().unwrap().code(), code, "{name}");
        assert_eq!(count(&client, "SELECT count(*) FROM pgmask.quarantine").await, 0, "{name}");
    }
}
