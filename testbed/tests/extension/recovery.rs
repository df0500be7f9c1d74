//! A value comes back to who may ask for it, one at a time, for a reason, and on the record; nobody else, and no
//! other way.

mod by_others;
mod forgetting;
mod vault;

use crate::common::{cluster, count, ingest, message, texts};
use testbed::cluster::Cluster;
use testbed::pipeline::send_at_once;
use tokio_postgres::{Client, Error};

const IP: &str = "203.0.113.7";
const ON: &str = "pgmask.vault = on";
const PRELOADED: &str = "shared_preload_libraries = 'pg_mask'";

/// A login with an address and a device.
fn login(ip: &str, device: &str) -> String {
    format!(r#"{{"user_id":"u","ip":"{ip}","device_id":"{device}"}}"#)
}

/// Takes logins in, as many as there are bodies; each call with other message ids.
async fn take_in(client: &Client, bodies: &[String]) {
    let start = count(client, "SELECT count(*) FROM pgmask.ledger").await;
    let messages: Vec<_> = (start..).map(|n| format!("message {n}")).zip(bodies).collect();
    assert_eq!(ingest(client, &messages).await, [bodies.len() as i64, 0, 0]);
}

/// A server with the vault on, a database of that name, and `recovers`, who may ask.
async fn server(database: &str, settings: &[&str]) -> (Cluster, Client, Client) {
    let cluster = Cluster::start_with_clock(&[&[PRELOADED, ON], settings].concat()).await.unwrap();
    let admin = cluster.database(database).await.unwrap();
    admin.batch_execute("CREATE ROLE recovers LOGIN IN ROLE pgmask_recoverer").await.unwrap();
    let recoverer = cluster.connect_as("recovers", database).await.unwrap();
    (cluster, admin, recoverer)
}

async fn recover(client: &Client, token: &str, reason: &str) -> Result<String, Error> {
    let row = client.query_one("CALL pgmask.recover_pii($1, $2)", &[&token, &reason]).await?;
    Ok(row.get(0))
}

async fn forget(client: &Client, token: &str, reason: &str) -> Result<(), Error> {
    client.execute("CALL pgmask.forget($1, $2)", &[&token, &reason]).await.map(|_| ())
}

async fn token_of(client: &Client, value: &str) -> String {
    client.query_one("SELECT mask_pii($1)", &[&value]).await.unwrap().get(0)
}

async fn kept(client: &Client) -> i64 {
    count(client, "SELECT count(*) FROM pgmask.vault").await
}

async fn audited(client: &Client) -> Vec<String> {
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

/// It names the token of a hash, which may be that of a guess; who recovers need not be an analyst.
#[tokio::test]
async fn the_line_in_the_log_is_not_sent_to_who_asks() {
    let (cluster, admin, _recoverer) = server("vault_line_unsent", &[]).await;
    take_in(&admin, &[login(IP, "d")]).await;
    let hash = texts(&admin, &format!("SELECT encode(sha256('{IP}'), 'hex')")).await.remove(0);
    let mut psql = cluster.command("psql");
    psql.args(["--no-psqlrc", "--command", "SET client_min_messages = debug5", "--command"]);
    psql.arg(format!("CALL pgmask.recover_pii('{hash}', 'a guess')"));
    let said = psql.arg(cluster.url("recovers", "vault_line_unsent")).output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(String::from_utf8_lossy(&said.stdout).contains(IP), "{text}");
    assert!(!text.contains("m1_") && !text.contains("MAC"), "{text}");
    assert!(cluster.log().contains("asks for the value of token m1_"));
}

/// What a client sends behind it at once, and fails, undid the erasure that it was told of.
#[tokio::test]
async fn a_value_that_was_said_to_be_forgotten_is() {
    let (cluster, admin, _) = server("vault_pipeline", &[]).await;
    take_in(&admin, &[login(IP, "d")]).await;
    let forgets = format!("CALL pgmask.forget('{}', 'asked for it')", token_of(&admin, IP).await);
    let before = kept(&admin).await;
    let error =
        send_at_once(&cluster, "recovers", "vault_pipeline", &[&forgets, "SELECT 1/0"]).await.unwrap();
    assert_eq!(error.as_deref(), Some("22012 division by zero"));
    let values = "SELECT count(*) FROM pgmask.vault WHERE sealed_value IS NOT NULL";
    assert_eq!(count(&admin, values).await, before - 1);
}
