//! A value comes back to who may ask for it, one at a time, for a reason, and on the record; nobody else, and no
//! other way. What is forgotten is gone.

use crate::common::{cluster, count, ingest, message, texts, write_keyring};
use testbed::cluster::Cluster;
use testbed::installation::output;
use tokio_postgres::{Client, Error};

pub(super) const IP: &str = "203.0.113.7";
const ON: &str = "pgmask.vault = on";
const PRELOADED: &str = "shared_preload_libraries = 'pg_mask'";

/// A login with an address and a device.
pub(super) fn login(ip: &str, device: &str) -> String {
    format!(r#"{{"user_id":"u","ip":"{ip}","device_id":"{device}"}}"#)
}

/// Takes logins in, as many as there are bodies; each call with other message ids.
pub(super) async fn take_in(client: &Client, bodies: &[String]) {
    let start = count(client, "SELECT count(*) FROM pgmask.ledger").await;
    let messages: Vec<_> = (start..).map(|n| format!("message {n}")).zip(bodies).collect();
    assert_eq!(ingest(client, &messages).await, [bodies.len() as i64, 0, 0]);
}

/// A server with the vault on, a database of that name, and `recovers`, who may ask.
pub(super) async fn server(database: &str, settings: &[&str]) -> (Cluster, Client, Client) {
    let cluster = Cluster::start(&[&[PRELOADED, ON], settings].concat()).await.unwrap();
    let admin = cluster.database(database).await.unwrap();
    admin.batch_execute("CREATE ROLE recovers LOGIN IN ROLE pgmask_recoverer").await.unwrap();
    let recoverer = cluster.connect_as("recovers", database).await.unwrap();
    (cluster, admin, recoverer)
}

pub(super) async fn recover(client: &Client, token: &str, reason: &str) -> Result<String, Error> {
    let row = client.query_one("CALL pgmask.recover_pii($1, $2)", &[&token, &reason]).await?;
    Ok(row.get(0))
}

async fn forget(client: &Client, token: &str, reason: &str) -> Result<(), Error> {
    client.execute("CALL pgmask.forget($1, $2)", &[&token, &reason]).await.map(|_| ())
}

pub(super) async fn token_of(client: &Client, value: &str) -> String {
    client.query_one("SELECT mask_pii($1)", &[&value]).await.unwrap().get(0)
}

async fn kept(client: &Client) -> i64 {
    count(client, "SELECT count(*) FROM pgmask.vault").await
}

pub(super) async fn audited(client: &Client) -> Vec<String> {
    texts(client, "SELECT concat_ws(' ', login_role, acting_role, action, left(token, 6), reason) FROM pgmask.audit ORDER BY id").await
}

#[tokio::test]
async fn it_is_off_unless_asked_for() {
    let cluster = cluster().await;
    let client = cluster.database("vault_off").await.unwrap();
    assert_eq!(
        texts(&client, "SELECT current_setting('pgmask.vault', true) FROM pgmask.key_status() LIMIT 1").await,
        ["off"]
    );
    assert_eq!(texts(&client, "SHOW pgmask.recover_limit").await, ["100"]);
    take_in(&client, &[login(IP, "d")]).await;
    assert_eq!(kept(&client).await, 0);
    let error = message(&recover(&client, &token_of(&client, IP).await, "x").await.unwrap_err());
    assert!(error.starts_with("P0002 the vault has no value of this token"), "{error}");
    client
        .batch_execute("DROP ROLE IF EXISTS turns_on; CREATE ROLE turns_on LOGIN IN ROLE pgmask_ingester")
        .await
        .unwrap();
    let ingester = cluster.connect_as("turns_on", "vault_off").await.unwrap();
    ingester
        .batch_execute("SET pgmask.vault = on; SELECT ingest_login('{\"user_id\": 1, \"ip\": \"::1\"}')")
        .await
        .unwrap();
    for sql in ["SET pgmask.vault = on", "SET pgmask.recover_limit = -1"] {
        assert!(message(&ingester.batch_execute(sql).await.unwrap_err()).starts_with("42501 "), "{sql}");
    }
    assert_eq!(kept(&client).await, 0, "who ingests does not decide");
}

#[tokio::test]
async fn each_value_is_kept_once_and_comes_back_in_its_canonical_form() {
    let (cluster, admin, recoverer) = server("vault_kept", &[]).await;
    admin.batch_execute("ALTER TABLE user_logins ADD COLUMN masked_ip_network text").await.unwrap();
    let long = "d".repeat(5_000);
    let bodies = [
        login(IP, "device ä 😀"),
        login(&format!(" ::ffff:{IP}"), "device ä 😀"),
        login(&format!("{IP}:443"), &long),
        login("2001:DB8::1", "x"),
        login("203.0.113.99", " x "),
        r#"{"user_id":"none"}"#.to_owned(),
        r#"{"user_id":"blank","ip":" ","device_id":""}"#.to_owned(),
    ];
    take_in(&admin, &bodies).await;
    take_in(&admin, &bodies).await;
    let one = r#"SELECT ingest_login('{"user_id":"one","ip":"198.51.100.1"}')"#;
    admin.batch_execute(one).await.unwrap();
    // Three networks: two of IPv4, one of IPv6.
    assert_eq!(kept(&admin).await, 4 + 3 + 3);
    for (value, canonical) in [
        (IP, IP),
        ("device ä 😀", "device ä 😀"),
        (&long, &long),
        ("2001:db8::1", "2001:db8::1"),
        ("203.0.113.99", "203.0.113.99"),
        ("x", "x"),
        ("198.51.100.1", "198.51.100.1"),
    ] {
        let token = token_of(&admin, value).await;
        assert_eq!(recover(&recoverer, &token, "ticket").await.unwrap(), canonical);
    }
    let network = &texts(&admin, "SELECT mask_network('203.0.113.7')").await[0];
    assert_eq!(recover(&recoverer, network, "ticket").await.unwrap(), "203.0.113.0/24");
    // All that a row is stored with comes back, and nothing of it is in the clear or shows by its length.
    let stored = "SELECT count(*) FROM (SELECT unnest(ARRAY[masked_ip, masked_device_id, masked_ip_network]) AS token FROM user_logins) s
        WHERE token IS NOT NULL AND NOT EXISTS (SELECT FROM pgmask.vault v WHERE v.token = s.token)";
    assert_eq!(count(&admin, stored).await, 0);
    let lengths = "SELECT count(DISTINCT octet_length(sealed_value)) FROM pgmask.vault";
    assert_eq!(count(&admin, lengths).await, 2);
    let clear = format!("SELECT count(*) FROM pgmask.vault WHERE position('{IP}'::bytea IN sealed_value) > 0 OR v::text LIKE '%{IP}%'").replace("pgmask.vault WHERE", "pgmask.vault v WHERE");
    assert_eq!(count(&admin, &clear).await, 0);
    // What the table refuses lies in the quarantine, and is kept once it is taken in.
    admin
        .batch_execute("ALTER TABLE user_logins ADD CONSTRAINT c CHECK (user_id <> 'u') NOT VALID")
        .await
        .unwrap();
    let before = kept(&admin).await;
    let messages =
        [("bad", login("192.0.2.1", "bad")), ("good", r#"{"user_id":"v","ip":"192.0.2.2"}"#.to_owned())];
    assert_eq!(ingest(&admin, &messages).await, [1, 0, 1]);
    let new =
        "SELECT count(*) FROM pgmask.vault WHERE token = mask_pii('192.0.2.1') OR token = mask_pii('bad')";
    assert_eq!(count(&admin, new).await, 0);
    admin
        .batch_execute("ALTER TABLE user_logins DROP CONSTRAINT c; SELECT pgmask.replay_quarantine()")
        .await
        .unwrap();
    assert_eq!(count(&admin, new).await, 2);
    assert_eq!(kept(&admin).await, before + 4, "two addresses, a device, a network");
    // A transaction that is rolled back leaves nothing.
    admin
        .batch_execute(&format!("BEGIN; {}; ROLLBACK", one.replace("198.51.100.1", "192.0.2.9")))
        .await
        .unwrap();
    assert_eq!(kept(&admin).await, before + 4);
    take_in(&admin, &[login("192.0.2.9", "x")]).await;
    assert_eq!(recover(&recoverer, &token_of(&admin, "192.0.2.9").await, "x").await.unwrap(), "192.0.2.9");
    // Nor does a session take for kept what it has seen of its own before it was rolled back.
    let seen = one.replace("198.51.100.1", "192.0.2.20");
    for undone in [
        format!("BEGIN; {seen}; {seen}; {seen}; ROLLBACK"),
        format!(
            "BEGIN; SAVEPOINT a; {seen}; {seen}; ROLLBACK TO a; SAVEPOINT b; {seen}; ROLLBACK TO b; COMMIT"
        ),
    ] {
        admin.batch_execute(&undone).await.unwrap();
        assert_eq!(
            count(&admin, "SELECT count(*) FROM pgmask.vault WHERE token = mask_pii('192.0.2.20')").await,
            0
        );
    }
    admin.batch_execute(&seen).await.unwrap();
    assert_eq!(recover(&recoverer, &token_of(&admin, "192.0.2.20").await, "x").await.unwrap(), "192.0.2.20");
    // What somebody deletes by hand is kept again, by a session that has not seen it.
    admin
        .batch_execute(&format!("{seen}; DELETE FROM pgmask.vault WHERE token = mask_pii('192.0.2.20')"))
        .await
        .unwrap();
    let fresh = cluster.connect("vault_kept").await.unwrap();
    fresh.batch_execute(&seen).await.unwrap();
    assert_eq!(recover(&recoverer, &token_of(&admin, "192.0.2.20").await, "x").await.unwrap(), "192.0.2.20");
    // Off again: what is there stays to be recovered.
    admin.batch_execute("SET pgmask.vault = off").await.unwrap();
    let before = kept(&admin).await;
    take_in(&admin, &[login("192.0.2.10", "y")]).await;
    assert_eq!(kept(&admin).await, before);
    let log = cluster.log();
    assert!(
        !log.contains(IP)
            || log.lines().filter(|line| line.contains(IP)).all(|line| line.contains("STATEMENT"))
    );
}

#[tokio::test]
async fn who_asked_and_why_is_written_down_before_the_answer() {
    let (cluster, admin, recoverer) = server("vault_audit", &[]).await;
    take_in(&admin, &[login(IP, "d")]).await;
    let token = token_of(&admin, IP).await;
    for reason in [None, Some(""), Some(" \n"), Some("…")] {
        for (call, deed) in [("recover_pii", "a value is recovered"), ("forget", "a value is forgotten")] {
            let call = format!("CALL pgmask.{call}($1, $2)");
            let error = message(&recoverer.query(&call, &[&token, &reason]).await.unwrap_err());
            assert!(error.starts_with(&format!("22023 {deed} for a reason only")), "{error}");
        }
    }
    let long = "x".repeat(4001);
    assert!(message(&recover(&recoverer, &token, &long).await.unwrap_err()).starts_with("54000 "));
    for no_token in ["", IP, "m0_00", "m01_", &token[1..], &token.to_uppercase(), &format!("{token} ")] {
        let error = message(&recover(&recoverer, no_token, "x").await.unwrap_err());
        assert!(error.starts_with("22023 what was given is no token"), "{no_token}: {error}");
        assert!(no_token.is_empty() || !error.contains(no_token), "{error}");
    }
    let error = message(&recoverer.query("CALL pgmask.recover_pii(NULL, 'x')", &[]).await.unwrap_err());
    assert!(error.starts_with("22023 "), "{error}");
    assert_eq!(audited(&admin).await, [""; 0]);

    assert_eq!(recover(&recoverer, &token, "ticket 4711\nforged").await.unwrap(), IP);
    let line = format!(
        "pg_mask: role \"recovers\" (logged in as \"recovers\") asks for the value of token {token}; reason: ticket 4711\\nforged; audit 1, MAC "
    );
    assert!(cluster.log().contains(&line), "{}", cluster.log());
    // That there is none is an answer, too.
    let none = format!("m1_{}", "0".repeat(64));
    let error = message(&recover(&recoverer, &none, "ticket 4712").await.unwrap_err());
    assert!(error.starts_with("P0002 ") && !error.contains(&none), "{error}");
    let later = format!("m7_{}", &token[3..]);
    assert!(message(&recover(&recoverer, &later, "later").await.unwrap_err()).starts_with("P0002 "));
    admin.batch_execute("SET ROLE recovers").await.unwrap();
    assert_eq!(recover(&admin, &token, "as another").await.unwrap(), IP);
    admin.batch_execute("RESET ROLE").await.unwrap();
    assert_eq!(
        audited(&admin).await,
        [
            format!("recovers recovers recover_pii {} ticket 4711\nforged", &token[..6]),
            "recovers recovers recover_pii m1_000 ticket 4712".to_owned(),
            format!("recovers recovers recover_pii {} later", &later[..6]),
            format!("postgres recovers recover_pii {} as another", &token[..6]),
        ]
    );
    assert_eq!(count(&admin, "SELECT count(*) FROM pgmask.verify_audit()").await, 0);

    // By itself, or not at all.
    for call in ["recover_pii", "forget"].map(|name| format!("CALL pgmask.{name}('{token}', 'x')")) {
        let inside = call
            .replace("recover_pii(", "recover_pii(value => v, token => ")
            .replace("', 'x'", "', reason => 'x'");
        for statement in [
            format!("BEGIN; {call}"),
            format!("BEGIN; SAVEPOINT s; {call}"),
            format!("SELECT 1; {call}"),
            format!("{call}; SELECT 1"),
            format!("DO $$ DECLARE v text; BEGIN {inside}; END $$"),
        ] {
            let error = message(&recoverer.batch_execute(&statement).await.expect_err(&statement));
            assert!(error.starts_with("55000 pgmask."), "{statement}: {error}");
            recoverer.batch_execute("ROLLBACK").await.unwrap();
        }
    }
    for step in ["audit_recover($1, 'x')", "recovered($1)", "audit_forget($1, 'x')", "forgotten($1)"] {
        let error = message(
            &recoverer.query(&format!("SELECT pgmask.{step}::text"), &[&token]).await.expect_err(step),
        );
        assert!(error.starts_with("55000 "), "{step}: {error}");
    }
    assert_eq!(audited(&admin).await.len(), 4);
    assert_eq!(recover(&recoverer, &token, "it is still there").await.unwrap(), IP);
}

#[tokio::test]
async fn an_hour_has_a_limit_for_all_sessions_of_a_role() {
    let (cluster, admin, recoverer) = server("vault_limit", &["pgmask.recover_limit = 5"]).await;
    take_in(&admin, &[login(IP, "d")]).await;
    let token = token_of(&admin, IP).await;
    admin
        .batch_execute("CREATE ROLE second LOGIN IN ROLE pgmask_recoverer; CREATE ROLE bulk LOGIN IN ROLE pgmask_recoverer, pgmask_unlimited; GRANT second TO recovers")
        .await
        .unwrap();
    for n in 0..3 {
        recover(&recoverer, &token, "x").await.unwrap_or_else(|error| panic!("{n}: {error:?}"));
    }
    // What is refused for want of a reason costs nothing; what finds nothing costs one, in any session.
    recover(&recoverer, &token, "").await.unwrap_err();
    let again = cluster.connect_as("recovers", "vault_limit").await.unwrap();
    recover(&again, &format!("m1_{}", "0".repeat(64)), "x").await.unwrap_err();
    recover(&again, &token, "x").await.unwrap();
    for (client, before) in [
        (&again, ""),
        (&recoverer, ""),
        (&recoverer, "SET ROLE second"),
        (&recoverer, "SET ROLE pgmask_recoverer"),
    ] {
        client.batch_execute(before).await.unwrap();
        let error = message(&recover(client, &token, "x").await.unwrap_err());
        assert!(error.starts_with("53400 role \"recovers\" has recovered as many values as pgmask.recover_limit allows in an hour, 5; it may go on at "), "{error}");
        client.batch_execute("RESET ROLE").await.unwrap();
    }
    assert_eq!(audited(&admin).await.len(), 5, "what is refused is no answer");
    // Others have their own budget; masking without a budget is not recovering without one; a superuser has none.
    let second = cluster.connect_as("second", "vault_limit").await.unwrap();
    let bulk = cluster.connect_as("bulk", "vault_limit").await.unwrap();
    for (client, allowed) in [(&second, 5), (&bulk, 5), (&admin, 20)] {
        let mut got = 0;
        while got < 20 && recover(client, &token, "x").await.is_ok() {
            got += 1;
        }
        assert_eq!(got, allowed);
    }
    // Masking and recovering are counted apart.
    admin.batch_execute("GRANT pgmask_analyst TO recovers").await.unwrap();
    again.batch_execute("SELECT mask_pii('x')").await.unwrap();
    admin.batch_execute("ALTER ROLE recovers SET pgmask.recover_limit = -1").await.unwrap();
    let free = cluster.connect_as("recovers", "vault_limit").await.unwrap();
    for _ in 0..10 {
        recover(&free, &token, "x").await.unwrap();
    }
    // To forget is not to learn.
    forget(&again, &token, "erasure request 9").await.unwrap();
}

#[tokio::test]
async fn a_row_that_was_changed_or_moved_does_not_open() {
    let (cluster, admin, recoverer) = server("vault_tampered", &[]).await;
    take_in(&admin, &[login(IP, "canary")]).await;
    let (ip, device) = (token_of(&admin, IP).await, token_of(&admin, "canary").await);
    admin.batch_execute("CREATE TABLE saved AS TABLE pgmask.vault").await.unwrap();
    for tampering in [
        "sealed_value = set_byte(sealed_value, octet_length(sealed_value) - 1, get_byte(sealed_value, octet_length(sealed_value) - 1) # 1)",
        "sealed_value = set_byte(sealed_value, 0, 2)",
        "sealed_value = set_byte(sealed_value, 7, get_byte(sealed_value, 7) # 128)",
        "sealed_value = substr(sealed_value, 1, 20)",
        "sealed_value = ''",
        "domain = 'network'",
        "domain = 'ipi'",
        "domain = ''",
        "sealed_value = (SELECT s.sealed_value FROM saved s WHERE s.token <> vault.token)",
    ] {
        let sql = format!("UPDATE pgmask.vault SET {tampering} WHERE token = '{ip}'");
        admin.batch_execute(&sql).await.unwrap();
        let error = message(&recover(&recoverer, &ip, "x").await.expect_err(tampering));
        assert!(error.starts_with("XX001 the value of this token can't be opened"), "{tampering}: {error}");
        assert!(!error.contains(IP) && !error.contains("canary") && !error.contains(&ip), "{error}");
        admin.batch_execute("TRUNCATE pgmask.vault; INSERT INTO pgmask.vault TABLE saved").await.unwrap();
    }
    admin
        .batch_execute(&format!(
            "UPDATE pgmask.vault SET sealed_value = set_byte(sealed_value, 4, 9) WHERE token = '{ip}'"
        ))
        .await
        .unwrap();
    let error = message(&recover(&recoverer, &ip, "x").await.unwrap_err());
    assert!(error.starts_with("F0000 ") && error.contains("seal key 9"), "{error}");
    // The two change places.
    admin
        .batch_execute(&format!(
            "TRUNCATE pgmask.vault; INSERT INTO pgmask.vault SELECT CASE token WHEN '{ip}' THEN '{device}' ELSE '{ip}' END, domain, sealed_value, kept_at FROM saved"
        ))
        .await
        .unwrap();
    for token in [&ip, &device] {
        assert!(message(&recover(&recoverer, token, "x").await.unwrap_err()).starts_with("XX001 "));
    }
    // To another database beside the same keyring, where somebody may ask.
    let other = cluster.database("vault_elsewhere").await.unwrap();
    let row = texts(&admin, "SELECT format('INSERT INTO pgmask.vault VALUES (%L, %L, %L)', token, domain, sealed_value) FROM saved").await;
    other.batch_execute(&row.join(";")).await.unwrap();
    let elsewhere = cluster.connect_as("recovers", "vault_elsewhere").await.unwrap();
    assert!(message(&recover(&elsewhere, &ip, "x").await.unwrap_err()).starts_with("XX001 "));
}

#[tokio::test]
async fn what_is_forgotten_is_gone_for_good() {
    let (cluster, admin, recoverer) = server("vault_forgotten", &[]).await;
    let bodies = [login(IP, "keeps"), login("198.51.100.1", "forgets")];
    take_in(&admin, &bodies).await;
    let token = token_of(&admin, IP).await;
    forget(&recoverer, &token, "erasure request 7").await.unwrap();
    let line = format!("has the value of token {token} forgotten; reason: erasure request 7; audit 1, MAC ");
    assert!(cluster.log().contains(&line));
    for again in [recover(&recoverer, &token, "x").await.map(|_| ()), forget(&recoverer, &token, "x").await] {
        assert!(message(&again.unwrap_err()).starts_with("P0002 "));
    }
    assert_eq!(audited(&admin).await.len(), 3, "that there is no value is an answer, too");
    assert_eq!(recover(&recoverer, &token_of(&admin, "keeps").await, "x").await.unwrap(), "keeps");
    // The rows keep their tokens, and the next login with the value does not bring it back.
    let rows = format!("SELECT count(*) FROM user_logins WHERE masked_ip = '{token}'");
    assert_eq!(count(&admin, &rows).await, 1);
    take_in(&admin, &bodies).await;
    assert_eq!(count(&admin, &rows).await, 2);
    assert!(message(&recover(&recoverer, &token, "x").await.unwrap_err()).starts_with("P0002 "));

    // Nor does a rotation: before the vault is lifted, and after.
    admin.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    let second = token_of(&admin, IP).await;
    assert!(second.starts_with("m2_"));
    take_in(&admin, &bodies).await;
    assert_eq!(kept(&admin).await, 4);
    for token in [&token, &second] {
        assert!(message(&recover(&recoverer, token, "x").await.unwrap_err()).starts_with("P0002 "));
    }
    // By a token of a newer generation than the vault has, and of an older one.
    forget(&recoverer, &token_of(&admin, "forgets").await, "newer").await.unwrap();
    assert_eq!(kept(&admin).await, 5, "it is marked under its token in use, too, until the vault is lifted");
    admin.batch_execute("CALL pgmask.remask('pgmask.vault')").await.unwrap();
    let keeps_1 =
        texts(&admin, "SELECT masked_device_id FROM user_logins WHERE masked_device_id LIKE 'm1%'").await;
    for older in keeps_1 {
        let _ = forget(&recoverer, &older, "older").await;
    }
    take_in(&admin, &bodies).await;
    assert_eq!(kept(&admin).await, 4);
    assert_eq!(count(&admin, "SELECT count(*) FROM pgmask.vault WHERE token LIKE 'm2\\_%'").await, 4);
    let left = "SELECT count(*) FROM pgmask.vault WHERE sealed_value IS NOT NULL";
    assert_eq!(count(&admin, left).await, 1);
    assert_eq!(
        recover(&recoverer, &token_of(&admin, "198.51.100.1").await, "x").await.unwrap(),
        "198.51.100.1"
    );
    assert_eq!(count(&admin, "SELECT count(*) FROM pgmask.verify_audit()").await, 0);

    // A plain hash is a guess: it may be asked for, within the limit and on the record, but not tried by forgetting.
    let hash = &texts(&admin, "SELECT encode(sha256('198.51.100.1'), 'hex')").await[0];
    let error = message(&forget(&recoverer, hash, "x").await.unwrap_err());
    assert!(error.starts_with("22023 what was given is no token"), "{error}");
    assert_eq!(recover(&recoverer, hash, "an old table").await.unwrap(), "198.51.100.1");
    let said = texts(&admin, "SELECT token FROM pgmask.audit ORDER BY id DESC LIMIT 1").await;
    assert_eq!(
        said,
        [token_of(&admin, "198.51.100.1").await],
        "the hash gives away the address, and is not kept"
    );
    assert!(!cluster.log().lines().any(|line| line.contains("pg_mask: ") && line.contains(hash.as_str())));
    forget(&admin, hash, "a superuser may").await.unwrap();
    assert_eq!(count(&admin, left).await, 0);
}

#[tokio::test]
async fn a_rotation_leaves_every_value_to_be_found_at_every_moment() {
    let (cluster, admin, recoverer) = server("vault_rotated", &[]).await;
    let bodies: Vec<_> =
        (0..300).map(|n| login(&format!("10.0.{}.{}", n / 200, n % 200), &format!("device {n}"))).collect();
    take_in(&admin, &bodies[..200]).await;
    assert_eq!(kept(&admin).await, 400);
    let first = token_of(&admin, "10.0.0.7").await;
    let asks = async |tokens: &[&String]| {
        for token in tokens {
            assert_eq!(recover(&recoverer, token, "x").await.unwrap(), "10.0.0.7", "{token}");
        }
    };
    asks(&[&first]).await;
    admin.batch_execute("SELECT pgmask.rotate_key(), pgmask.rotate_seal_key()").await.unwrap();
    let second = token_of(&admin, "10.0.0.7").await;
    asks(&[&first, &second]).await;
    // New values are kept under the new keys; known ones are known.
    take_in(&admin, &bodies).await;
    assert_eq!(kept(&admin).await, 600);
    let health = "SELECT state || ': ' || value FROM pgmask.health WHERE item = 'vault'";
    assert_eq!(texts(&admin, health).await, ["warning: it holds tokens of an older generation"]);

    // Whoever operates it lifts it, beside ingestion that goes on, and learns nothing.
    admin.batch_execute("CREATE ROLE operates LOGIN IN ROLE pgmask_operator").await.unwrap();
    let operator = cluster.connect_as("operates", "vault_rotated").await.unwrap();
    let before = kept(&admin).await;
    let more: Vec<_> =
        (0..400).map(|n| login(&format!("10.1.{}.{}", n / 200, n % 200), &format!("other {n}"))).collect();
    let goes_on = async {
        for some in more.chunks(20).chain(bodies.chunks(20)) {
            take_in(&admin, some).await;
        }
    };
    let lifts = async { operator.query_one("CALL pgmask.remask('pgmask.vault')", &[]).await.unwrap() };
    let ((), lifted) = tokio::join!(goes_on, lifts);
    assert_eq!((lifted.get::<_, i64>(0), lifted.get::<_, i64>(1)), (400, 0));
    assert_eq!(kept(&admin).await, before + 800);
    let current =
        "SELECT count(*) FROM pgmask.vault WHERE token LIKE 'm2\\_%' AND get_byte(sealed_value, 4) = 2";
    assert_eq!(count(&admin, current).await, before + 800);
    assert_eq!(texts(&admin, health).await, ["ok: on"]);
    asks(&[&first, &second]).await;
    // Again: nothing to do. Only the seal is older: it is sealed anew.
    let again = "CALL pgmask.remask('pgmask.vault')";
    assert_eq!(operator.query_one(again, &[]).await.unwrap().get::<_, i64>(0), 0);
    admin.batch_execute("SELECT pgmask.rotate_seal_key()").await.unwrap();
    assert_eq!(texts(&admin, health).await, ["warning: it holds values that were sealed under an older key"]);
    assert_eq!(operator.query_one(again, &[]).await.unwrap().get::<_, i64>(0), before + 800);
    asks(&[&first, &second]).await;
    // A row that does not open is left alone.
    let broken = token_of(&admin, "device 3").await;
    let breaks = format!("UPDATE pgmask.vault SET sealed_value = sha256('') WHERE token = '{broken}'");
    assert_eq!(admin.execute(&breaks, &[]).await.unwrap(), 1);
    admin.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    let done = operator.query_one(again, &[]).await.unwrap();
    assert_eq!((done.get::<_, i64>(0), done.get::<_, i64>(1)), (before + 799, 1));
    asks(&[&first, &second, &token_of(&admin, "10.0.0.7").await]).await;
    assert!(message(&recover(&recoverer, &broken, "x").await.unwrap_err()).starts_with("XX001 "));
    for wrong in ["columns => '{token}'", "domain => 'pii'"] {
        let error = message(
            &admin.query(&format!("CALL pgmask.remask('pgmask.vault', {wrong})"), &[]).await.unwrap_err(),
        );
        assert!(error.starts_with("22023 "), "{error}");
    }
}

#[tokio::test]
async fn it_comes_back_with_a_dump_and_opens_beside_its_keyring_alone() {
    let (cluster, admin, _recoverer) = server("vault_dumped", &[]).await;
    take_in(&admin, &[login(IP, "d"), login("198.51.100.1", "e")]).await;
    let (token, forgotten) = (token_of(&admin, IP).await, token_of(&admin, "e").await);
    forget(&admin, &forgotten, "request").await.unwrap();
    let file = cluster.data().join("vault.dump");
    let mut dump = cluster.command("pg_dump");
    dump.args(["--format=custom", "--file"]).arg(&file);
    output(dump.arg(cluster.url("postgres", "vault_dumped"))).unwrap();
    let dumped = std::fs::read(&file).unwrap();
    assert!(!dumped.windows(IP.len()).any(|part| part == IP.as_bytes()));

    cluster.connect("postgres").await.unwrap().batch_execute("CREATE DATABASE vault_restored").await.unwrap();
    let mut restore = cluster.command("pg_restore");
    restore.args(["--exit-on-error", "--dbname", &cluster.url("postgres", "vault_restored")]);
    output(restore.arg(&file)).unwrap();
    let restored = cluster.connect_as("recovers", "vault_restored").await.unwrap();
    let admin = cluster.connect("vault_restored").await.unwrap();
    assert_eq!(recover(&restored, &token, "x").await.unwrap(), IP);
    take_in(&admin, &[login(IP, "e"), login("192.0.2.1", "new")]).await;
    assert!(message(&recover(&restored, &forgotten, "x").await.unwrap_err()).starts_with("P0002 "));
    assert_eq!(recover(&restored, &token_of(&admin, "new").await, "x").await.unwrap(), "new");
    assert_eq!(count(&admin, "SELECT count(*) FROM pgmask.verify_audit()").await, 0);
    admin.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    admin.batch_execute("CALL pgmask.remask('pgmask.vault')").await.unwrap();
    assert_eq!(recover(&restored, &token, "x").await.unwrap(), IP);

    // Beside another keyring nothing is kept, shown or forgotten, and nothing is written down.
    let path = cluster.data().join("pg_mask.keyring");
    let good = std::fs::read_to_string(&path).unwrap();
    let mut other: serde_json::Value = serde_json::from_str(&good).unwrap();
    other["seal"][0]["key"] = "5f2c".repeat(16).into();
    write_keyring(&path, other.to_string().as_bytes());
    let before = audited(&admin).await.len();
    for again in [recover(&restored, &token, "x").await.map(|_| ()), forget(&restored, &token, "x").await] {
        assert!(message(&again.unwrap_err()).starts_with("F0000 "));
    }
    assert!(
        message(&admin.batch_execute("CALL pgmask.remask('pgmask.vault')").await.unwrap_err())
            .starts_with("F0000 ")
    );
    let login = r#"SELECT ingest_login('{"user_id":1,"ip":"192.0.2.3"}')"#;
    assert!(message(&admin.batch_execute(login).await.unwrap_err()).starts_with("F0000 "));
    assert_eq!(audited(&admin).await.len(), before);
    write_keyring(&path, good.as_bytes());
    assert_eq!(recover(&restored, &token, "x").await.unwrap(), IP);
}

/// Many sessions take in the same new values, in other orders, while a value is forgotten and the vault lifted.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_at_once_keep_each_value_once() {
    let (cluster, admin, _) = server("vault_at_once", &["deadlock_timeout = '100ms'"]).await;
    let cluster = &cluster;
    let round = async |n: usize| {
        let mut bodies: Vec<String> =
            (0..200).map(|i| login(&format!("10.0.0.{i}"), &format!("device {i}"))).collect();
        bodies.rotate_left(25 * n % 200);
        let client = cluster.connect("vault_at_once").await.unwrap();
        for (at, some) in bodies.chunks(50).enumerate() {
            let messages: Vec<_> = (0..).map(|id| format!("{n} {at} {id}")).zip(some).collect();
            assert_eq!(ingest(&client, &messages).await, [50, 0, 0]);
        }
    };
    futures_util::future::join_all((0..8).map(round)).await;
    assert_eq!(kept(&admin).await, 400);
    admin.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    let lifts = async {
        let client = cluster.connect("vault_at_once").await.unwrap();
        client.batch_execute("CALL pgmask.remask('pgmask.vault')").await.unwrap();
    };
    let forgets = async {
        let client = cluster.connect("vault_at_once").await.unwrap();
        for n in 0..200 {
            let token = token_of(&client, &format!("device {n}")).await;
            forget(&client, &token, "at once").await.unwrap_or_else(|error| panic!("{n}: {error:?}"));
        }
    };
    tokio::join!(futures_util::future::join_all((10..14).map(round)), lifts, forgets);
    assert_eq!(kept(&admin).await, 400);
    let left = "SELECT count(*) FROM pgmask.vault WHERE sealed_value IS NOT NULL AND token LIKE 'm2\\_%'";
    assert_eq!(count(&admin, left).await, 200, "the addresses");
    assert_eq!(count(&admin, "SELECT count(*) FROM pgmask.verify_audit()").await, 0);
}

/// A transaction that began before a rotation, or a restore, may leave two rows of one value.
#[tokio::test]
async fn where_two_rows_of_a_value_meet_the_forgotten_one_counts() {
    let (cluster, admin, recoverer) = server("vault_two_rows", &[]).await;
    let bodies = [login("192.0.2.1", "a"), login("192.0.2.2", "b"), login("192.0.2.3", "c")];
    take_in(&admin, &bodies).await;
    let first = [
        token_of(&admin, "192.0.2.1").await,
        token_of(&admin, "192.0.2.2").await,
        token_of(&admin, "192.0.2.3").await,
    ];
    admin
        .batch_execute(
            "CREATE TABLE older AS TABLE pgmask.vault; SELECT pgmask.rotate_key(); TRUNCATE pgmask.vault",
        )
        .await
        .unwrap();
    let fresh = cluster.connect("vault_two_rows").await.unwrap();
    take_in(&fresh, &bodies).await;
    // The first is forgotten in its newer row, the second in its older one, the third in neither.
    let meet = format!(
        "INSERT INTO pgmask.vault TABLE older; UPDATE pgmask.vault SET sealed_value = NULL WHERE token IN (mask_pii('192.0.2.1'), '{}')",
        first[1]
    );
    admin.batch_execute(&meet).await.unwrap();
    assert_eq!(kept(&admin).await, 12);
    let row = admin.query_one("CALL pgmask.remask('pgmask.vault')", &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (6, 0));
    assert_eq!(kept(&admin).await, 6);
    for (token, is_there) in first.iter().zip([false, false, true]) {
        assert_eq!(recover(&recoverer, token, "x").await.is_ok(), is_there, "{token}");
    }
    // Two older rows of one value: the same, where both are lifted at once.
    admin
        .batch_execute("CREATE TABLE newer AS TABLE pgmask.vault; SELECT pgmask.rotate_key()")
        .await
        .unwrap();
    let live = "UPDATE older SET sealed_value = NULL WHERE token = $1";
    admin.execute(live, &[&first[2]]).await.unwrap();
    admin.batch_execute("TRUNCATE pgmask.vault; INSERT INTO pgmask.vault TABLE newer; INSERT INTO pgmask.vault TABLE older").await.unwrap();
    admin.query_one("CALL pgmask.remask('pgmask.vault')", &[]).await.unwrap();
    assert_eq!(kept(&admin).await, 6);
    for token in &first {
        assert!(
            message(&recover(&recoverer, token, "x").await.unwrap_err()).starts_with("P0002 "),
            "{token}"
        );
    }
    assert_eq!(recover(&recoverer, &token_of(&admin, "a").await, "x").await.unwrap(), "a");
    // To forget erases all rows of a value.
    admin.batch_execute("SELECT pgmask.rotate_key(); TRUNCATE pgmask.vault; INSERT INTO pgmask.vault TABLE newer; INSERT INTO pgmask.vault TABLE older").await.unwrap();
    forget(&recoverer, &token_of(&admin, "b").await, "all of it").await.unwrap();
    let left = "SELECT count(*) FROM pgmask.vault WHERE sealed_value IS NOT NULL AND pgmask.current_mask(token) = mask_pii('b')";
    assert_eq!(count(&admin, left).await, 0);
    assert_eq!(count(&admin, &left.replace("IS NOT NULL", "IS NULL")).await, 3);
}

/// A vault of any size is lifted whole, in one part or in many, and a part that there is not holds nothing.
#[tokio::test]
async fn every_size_is_lifted_whole() {
    let (_cluster, admin, recoverer) = server("vault_sizes", &["fsync = off"]).await;
    let sql = "SELECT (pgmask.ingest_login_batch(array_agg(n::text), array_agg(format('{\"user_id\":1,\"ip\":\"%s\"}', host('10.0.0.0'::inet + n))),
            array_agg(now()), array_agg(1))).inserted FROM generate_series($1::int, $2::int) n HAVING count(*) > 0";
    let lift = "CALL pgmask.remask('pgmask.vault')";
    let (mut there, mut sizes) = (0, Vec::new());
    for values in [0, 1, 300, 9_000, 90_000] {
        admin.query(sql, &[&(there + 1), &values]).await.unwrap();
        there = values;
        admin.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
        let row = admin.query_one(lift, &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (values.into(), 0));
        let size = count(&admin, "SELECT pg_relation_size('pgmask.vault')").await;
        sizes.push(size);
        assert_eq!(kept(&admin).await, i64::from(values));
    }
    assert!(sizes[2] < 1_000_000 && sizes[3] > 1_000_000 && sizes[4] > 16_000_000, "{sizes:?}");
    for (part, digits) in
        [(-1, 0), (1, 0), (16, 1), (4096, 3), (4096, 9), (i32::MAX, i32::MAX), (0, i32::MIN)]
    {
        admin.query_one("SELECT * FROM pgmask.remask_vault($1, $2)", &[&part, &digits]).await.unwrap();
    }
    assert_eq!(recover(&recoverer, &token_of(&admin, "10.0.0.77").await, "x").await.unwrap(), "10.0.0.77");
}

/// What is known already is neither sealed nor written again.
#[tokio::test]
async fn known_values_are_not_written() {
    let (_cluster, admin, _) = server("vault_known", &[]).await;
    let bodies: Vec<_> =
        (0..1000).map(|n| login(&format!("10.0.{}.{}", n / 200, n % 200), &format!("d{n}"))).collect();
    take_in(&admin, &bodies).await;
    let rows = "SELECT string_agg(xmin::text || ctid::text, ' ' ORDER BY token) FROM pgmask.vault";
    let before = texts(&admin, rows).await;
    for _ in 0..5 {
        take_in(&admin, &bodies).await;
    }
    assert_eq!(texts(&admin, rows).await, before);
}

/// The value may stand in the CALL: then PostgreSQL logged it beside the token, with the audit's line.
#[tokio::test]
async fn the_line_in_the_log_is_without_the_statement() {
    let (cluster, admin, _recoverer) = server("vault_line", &[]).await;
    take_in(&admin, &[login(IP, "d")]).await;
    for call in ["recover_pii", "forget"] {
        admin
            .batch_execute(&format!("CALL pgmask.{call}(mask_pii('{IP}'), 'the value is in the statement')"))
            .await
            .unwrap();
    }
    let log = cluster.log();
    assert_eq!(log.matches("the value is in the statement; audit").count(), 2, "{log}");
    assert!(!log.contains(IP), "{log}");
}

/// Who may write to key_check can have an older key put to use, of which they may have a copy. What was sealed under the
/// newer one stays so, and monitoring sees it.
#[tokio::test]
async fn a_rotation_that_is_taken_back_seals_nothing_anew() {
    let (_cluster, admin, recoverer) = server("vault_taken_back", &[]).await;
    admin.batch_execute("SELECT pgmask.rotate_key(), pgmask.rotate_seal_key()").await.unwrap();
    take_in(&admin, &[login(IP, "d")]).await;
    let token = token_of(&admin, IP).await;
    assert_eq!(ingest(&admin, &[("q", "no login")]).await, [0, 0, 1]);
    assert_eq!(recover(&recoverer, &token, "before").await.unwrap(), IP);
    let keys = "SELECT state || ': ' || value FROM pgmask.health WHERE item = 'keys'";
    let sealed = "SELECT encode(sealed_value, 'hex') FROM pgmask.vault UNION ALL SELECT encode(sealed_body, 'hex') FROM pgmask.quarantine ORDER BY 1";
    let before = texts(&admin, sealed).await;
    assert_eq!(texts(&admin, keys).await, ["ok: generation 2 is in use, 0 wait"]);
    for taken_back in ["seal_id = 2", "generation = 2"] {
        admin.batch_execute(&format!("CREATE TABLE kept AS SELECT * FROM pgmask.key_check_own WHERE {taken_back}; DELETE FROM pgmask.key_check_own WHERE {taken_back}")).await.unwrap();
        assert_eq!(texts(&admin, keys).await, ["failed: an older key is in use than before"], "{taken_back}");
        for seals in ["CALL pgmask.remask('pgmask.vault')", "SELECT pgmask.reseal_quarantine()"] {
            admin.batch_execute(seals).await.unwrap();
            assert_eq!(texts(&admin, sealed).await, before, "{taken_back}: {seals}");
        }
        admin.batch_execute("INSERT INTO pgmask.key_check_own TABLE kept; DROP TABLE kept").await.unwrap();
    }
    // Nor is anything opened, to be sealed anew, nor with tokens to be lifted: those are left alone.
    admin.batch_execute("DELETE FROM pgmask.key_check_own WHERE seal_id = 2").await.unwrap();
    for opens in [
        format!("CALL pgmask.recover_pii('{token}', 'x')"),
        "CALL pgmask.unseal_quarantine(1, 'x')".to_owned(),
        "SELECT pgmask.replay_quarantine()".to_owned(),
    ] {
        let error = message(&admin.batch_execute(&opens).await.unwrap_err());
        assert!(error.contains("an older one is in use now"), "{opens}: {error}");
    }
    admin.batch_execute("DELETE FROM pgmask.key_check_own WHERE 2 IN (seal_id, generation)").await.unwrap();
    assert_eq!(texts(&admin, keys).await, ["failed: an older key is in use than before"]);
    admin.batch_execute("SELECT pgmask.rotate_key(), pgmask.rotate_key()").await.unwrap();
    let lifted = admin.query_one("CALL pgmask.remask('pgmask.vault')", &[]).await.unwrap();
    assert_eq!((lifted.get::<_, i64>(0), lifted.get::<_, i64>(1)), (0, 2));
    assert_eq!(texts(&admin, sealed).await, before);
    assert_eq!(texts(&admin, keys).await, ["failed: an older key is in use than before"]);
    // What the hint says.
    admin.batch_execute("SELECT pgmask.rotate_seal_key(), pgmask.rotate_key()").await.unwrap();
    assert_eq!(texts(&admin, keys).await, ["ok: generation 4 is in use, 0 wait"]);
    admin.batch_execute("CALL pgmask.remask('pgmask.vault')").await.unwrap();
    assert_eq!(recover(&recoverer, &token, "after").await.unwrap(), IP);
    assert_eq!(count(&admin, "SELECT count(*) FROM pgmask.verify_audit()").await, 0);
}
