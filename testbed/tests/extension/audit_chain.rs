//! The audit shows tampering: whatever is changed in it, taken out of it or missing at its end is found, and
//! the server's log says what the end was.

use crate::common::{cluster, count, ingest, message, texts, unseal};
use testbed::cluster::Cluster;
use testbed::installation::output;
use tokio_postgres::Client;

/// A database with a quarantined message that was opened so many times.
async fn opened(cluster: &Cluster, database: &str, times: usize) -> Client {
    let client = cluster.database(database).await.unwrap();
    assert_eq!(ingest(&client, &[("a", "no login")]).await, [0, 0, 1]);
    open(&client, times).await;
    client
}

async fn open(client: &Client, times: usize) {
    for n in 0..times {
        assert_eq!(unseal(client, Some(1), Some(&format!("ticket {n}"))).await.unwrap(), b"no login");
    }
}

/// What is found, as `id problem`.
async fn findings(client: &Client) -> Vec<String> {
    texts(client, "SELECT id || ' ' || problem FROM pgmask.verify_audit()").await
}

/// The numbers and MACs that the server's log has of reasons that hold `about`.
fn logged(cluster: &Cluster, about: &str) -> Vec<(i64, String)> {
    let log = cluster.log();
    let lines = log.lines().filter(|line| line.contains(" opens message ") && line.contains(about));
    lines
        .map(|line| {
            let (_, end) = line.rsplit_once("; audit ").unwrap();
            let (id, mac) = end.split_once(", MAC ").unwrap();
            (id.parse().unwrap(), mac.to_owned())
        })
        .collect()
}

async fn findings_beside_the_log(client: &Client, (id, mac): &(i64, String)) -> Vec<String> {
    let sql = "SELECT id || ' ' || problem FROM pgmask.verify_audit($1, $2)";
    client.query(sql, &[id, mac]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn an_untouched_audit_has_nothing_to_report_and_the_log_anchors_it() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = opened(&cluster, "chain_untouched", 0).await;
    assert_eq!(findings(&client).await, [""; 0]);
    open(&client, 5).await;
    // More than are read at a time.
    for _ in 0..3 {
        open(&client, 100).await;
    }
    unseal(&client, Some(1), Some("forged; audit 7, MAC 00")).await.unwrap();
    assert_eq!(findings(&client).await, [""; 0]);
    let numbers = "SELECT count(*) FROM pgmask.audit WHERE id BETWEEN 1 AND 306 HAVING max(id) = 306";
    assert_eq!(count(&client, numbers).await, 306);
    let logged = logged(&cluster, "");
    assert_eq!(logged.len(), 306);
    let kept = texts(&client, "SELECT id || ' ' || encode(mac, 'hex') FROM pgmask.audit ORDER BY id").await;
    let said: Vec<String> = logged.iter().map(|(id, mac)| format!("{id} {mac}")).collect();
    assert_eq!(kept, said);
    assert_eq!(findings_beside_the_log(&client, &logged[305]).await, [""; 0]);
    assert_eq!(findings_beside_the_log(&client, &(3, logged[3].1.clone())).await, ["3 changed"]);
    assert_eq!(findings_beside_the_log(&client, &(307, logged[3].1.clone())).await, ["307 missing_end"]);
}

#[tokio::test]
async fn what_is_changed_or_missing_is_found() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = opened(&cluster, "chain_tampered", 3).await;
    client.batch_execute("CREATE TABLE old_end AS TABLE pgmask.audit_end").await.unwrap();
    open(&client, 3).await;
    client
        .batch_execute(
            "CREATE TABLE rows AS TABLE pgmask.audit; CREATE TABLE last AS TABLE pgmask.audit_end;
             CREATE TABLE tampered AS TABLE pgmask.audit WITH NO DATA",
        )
        .await
        .unwrap();
    let audit = "INSERT INTO pgmask.audit SELECT * FROM rows";
    for (tampering, expected) in [
        ("UPDATE pgmask.audit SET login_role = 'mallory' WHERE id = 3", &["3 changed"] as &[&str]),
        ("UPDATE pgmask.audit SET acting_role = 'mallory' WHERE id = 1", &["1 changed"]),
        ("UPDATE pgmask.audit SET action = 'forget' WHERE id = 6", &["6 changed"]),
        ("UPDATE pgmask.audit SET quarantine_id = 2 WHERE id = 2", &["2 changed"]),
        ("UPDATE pgmask.audit SET quarantine_id = NULL WHERE id = 2", &["2 changed"]),
        ("UPDATE pgmask.audit SET token = '' WHERE id = 2", &["2 changed"]),
        ("UPDATE pgmask.audit SET reason = reason || ' ' WHERE id = 2", &["2 changed"]),
        ("UPDATE pgmask.audit SET done_at = done_at + interval '1 microsecond' WHERE id = 4", &["4 changed"]),
        ("UPDATE pgmask.audit SET generation = 2 WHERE id = 4", &["4 changed"]),
        ("UPDATE pgmask.audit SET generation = -1 WHERE id = 4", &["4 changed"]),
        ("UPDATE pgmask.audit SET mac = sha256(mac) WHERE id = 4", &["4 changed", "5 changed"]),
        ("UPDATE pgmask.audit SET mac = '' WHERE id = 6", &["6 changed"]),
        // Two rows change places.
        (
            "UPDATE pgmask.audit SET id = 100 WHERE id = 2; UPDATE pgmask.audit SET id = 2 WHERE id = 3; UPDATE pgmask.audit SET id = 3 WHERE id = 100",
            &["2 changed", "3 changed", "4 changed"],
        ),
        ("DELETE FROM pgmask.audit WHERE id = 1", &["1 cut"]),
        ("DELETE FROM pgmask.audit WHERE id IN (2, 3, 5)", &["2 cut", "5 cut"]),
        // The rest moves up.
        (
            "DELETE FROM pgmask.audit WHERE id = 3; UPDATE pgmask.audit SET id = 3 WHERE id = 4;
             UPDATE pgmask.audit SET id = 4 WHERE id = 5; UPDATE pgmask.audit SET id = 5 WHERE id = 6",
            &["3 changed", "4 changed", "5 changed", "6 missing_end"],
        ),
        ("DELETE FROM pgmask.audit WHERE id = 6", &["6 missing_end"]),
        ("DELETE FROM pgmask.audit", &["1 missing_end"]),
        ("DELETE FROM pgmask.audit WHERE id = 6; DELETE FROM pgmask.audit_end", &["6 missing_end"]),
        (
            "DELETE FROM pgmask.audit WHERE id > 3; UPDATE pgmask.audit_end SET id = 3, mac = (SELECT mac FROM rows WHERE id = 3)",
            &["3 changed"],
        ),
        ("UPDATE pgmask.audit_end SET id = 5", &["5 changed"]),
        ("UPDATE pgmask.audit_end SET id = 0, mac = '', proof = ''", &["0 changed"]),
        ("UPDATE pgmask.audit_end SET proof = sha256(proof)", &["6 changed"]),
        ("UPDATE pgmask.audit_end SET generation = 9", &["6 changed"]),
        // A row that nobody has written: no MAC of another serves.
        (
            "INSERT INTO pgmask.audit SELECT 7, done_at, login_role, acting_role, action, quarantine_id, token, reason, generation, mac FROM rows WHERE id = 6",
            &["7 changed"],
        ),
        (
            "INSERT INTO pgmask.audit SELECT 9, done_at, login_role, acting_role, action, quarantine_id, token, reason, generation, mac FROM rows WHERE id = 6",
            &["7 cut", "7 changed"],
        ),
        // Looking further than the largest id there is was an error.
        (
            "UPDATE pgmask.audit SET id = 9223372036854775807 WHERE id = 6; DELETE FROM pgmask.audit_end",
            &["6 cut", "9223372036854775807 missing_end"],
        ),
    ] {
        client.batch_execute(tampering).await.unwrap_or_else(|error| panic!("{tampering}: {error:?}"));
        assert_eq!(findings(&client).await, expected, "{tampering}");
        client
            .batch_execute(&format!(
                "TRUNCATE pgmask.audit, pgmask.audit_end; {audit}; INSERT INTO pgmask.audit_end TABLE last"
            ))
            .await
            .unwrap();
        assert_eq!(findings(&client).await, [""; 0], "put back after {tampering}");
    }

    // Who saved the end before and puts it back, or takes everything away, leaves no trace here: the log has it.
    let last = logged(&cluster, "").pop().unwrap();
    assert_eq!(last.0, 6);
    for (tampering, expected) in [
        (
            "DELETE FROM pgmask.audit WHERE id > 3; TRUNCATE pgmask.audit_end; INSERT INTO pgmask.audit_end TABLE old_end",
            ["6 missing_end"],
        ),
        ("TRUNCATE pgmask.audit, pgmask.audit_end", ["6 missing_end"]),
    ] {
        client.batch_execute(tampering).await.unwrap();
        assert_eq!(findings(&client).await, [""; 0], "{tampering}");
        assert_eq!(findings_beside_the_log(&client, &last).await, expected, "{tampering}");
    }
    // What is written then instead is another chain.
    open(&client, 6).await;
    assert_eq!(findings(&client).await, [""; 0]);
    assert_eq!(findings_beside_the_log(&client, &last).await, ["6 changed"]);
}

/// Who has the keyring as it was before a rotation can make any chain under its keys: but it ends under none that is in use.
#[tokio::test]
async fn an_older_keyring_makes_no_chain() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = opened(&cluster, "chain_older", 2).await;
    let keep = async |name: &str| {
        let sql = format!(
            "CREATE TABLE {name} AS TABLE pgmask.audit; CREATE TABLE {name}_end AS TABLE pgmask.audit_end"
        );
        client.batch_execute(&sql).await.unwrap();
    };
    let put = async |name: &str| {
        let sql = format!(
            "TRUNCATE pgmask.audit, pgmask.audit_end; INSERT INTO pgmask.audit TABLE {name}; INSERT INTO pgmask.audit_end TABLE {name}_end"
        );
        client.batch_execute(&sql).await.unwrap();
    };
    // What such a thief could make: the rows that are there, some fewer, or others.
    keep("fewer").await;
    open(&client, 1).await;
    keep("same").await;
    client.batch_execute("TRUNCATE pgmask.audit, pgmask.audit_end").await.unwrap();
    unseal(&client, Some(1), Some("another reason")).await.unwrap();
    keep("others").await;
    put("same").await;
    client.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    assert_eq!(findings(&client).await, [""; 0]);
    keep("rotated").await;
    for (name, found) in [("fewer", "2 changed"), ("same", "3 changed"), ("others", "1 changed")] {
        put(name).await;
        assert_eq!(findings(&client).await, [found], "{name}");
        let error = message(&unseal(&client, Some(1), Some("x")).await.unwrap_err());
        assert!(
            error.starts_with("XX001 the end of pgmask.audit is not as pg_mask left it"),
            "{name}: {error}"
        );
        // Nor does the next rotation take it for pg_mask's own.
        client.batch_execute("BEGIN; SELECT pgmask.rotate_key()").await.unwrap();
        assert_eq!(findings(&client).await, [found], "{name}, after a rotation");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    // Rows of older generations are as good as they were, and others follow.
    put("rotated").await;
    open(&client, 1).await;
    client
        .batch_execute("BEGIN; SELECT pgmask.rotate_key(); ROLLBACK; SELECT pgmask.rotate_key()")
        .await
        .unwrap();
    open(&client, 1).await;
    let generations = "SELECT string_agg(generation::text, ' ' ORDER BY id) FROM pgmask.audit";
    assert_eq!(texts(&client, generations).await, ["1 1 1 2 3"]);
    assert_eq!(findings(&client).await, [""; 0]);
}

/// A rotation while others open messages, and while somebody looks.
#[tokio::test(flavor = "multi_thread")]
async fn the_chain_is_whole_while_keys_are_rotated() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = opened(&cluster, "chain_rotates", 0).await;
    let writes = (0..4).map(async |_| open(&cluster.connect("chain_rotates").await.unwrap(), 25).await);
    let rotates = async {
        let client = cluster.connect("chain_rotates").await.unwrap();
        for _ in 0..10 {
            client.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
        }
    };
    let looks = async {
        for _ in 0..50 {
            assert_eq!(findings(&client).await, [""; 0]);
        }
    };
    tokio::join!(futures_util::future::join_all(writes), rotates, looks);
    assert_eq!(findings(&client).await, [""; 0]);
    assert_eq!(count(&client, "SELECT max(id) FROM pgmask.audit").await, 100);
}

/// Nothing is built on an end that was changed, and nothing is shown without an entry.
#[tokio::test]
async fn nothing_is_opened_where_the_end_was_changed() {
    let cluster = cluster().await;
    let client = opened(cluster, "chain_end", 3).await;
    client
        .batch_execute("CREATE TABLE last AS TABLE pgmask.audit_end; CREATE TABLE rows AS TABLE pgmask.audit")
        .await
        .unwrap();
    for tampering in [
        "DELETE FROM pgmask.audit WHERE id = 3; UPDATE pgmask.audit_end SET id = 2, mac = (SELECT mac FROM pgmask.audit WHERE id = 2)",
        "DELETE FROM pgmask.audit WHERE id = 3; UPDATE pgmask.audit_end SET id = 2",
        "UPDATE pgmask.audit_end SET proof = sha256(proof)",
        "UPDATE pgmask.audit_end SET generation = 2",
        "UPDATE pgmask.audit_end SET id = 2, mac = (SELECT mac FROM pgmask.audit WHERE id = 2)",
        "UPDATE pgmask.audit_end SET id = 0",
        "UPDATE pgmask.audit_end SET mac = ''",
        "DELETE FROM pgmask.audit_end",
        "UPDATE pgmask.audit_end SET id = 9223372036854775807",
    ] {
        client.batch_execute(tampering).await.unwrap();
        let error = message(&unseal(&client, Some(1), Some("x")).await.unwrap_err());
        assert!(
            error.starts_with("XX001 the end of pgmask.audit is not as pg_mask left it")
                && error.contains("verify_audit"),
            "{tampering}: {error}"
        );
        assert!(count(&client, "SELECT count(*) FROM pgmask.audit").await <= 3);
        client
            .batch_execute(
                "TRUNCATE pgmask.audit, pgmask.audit_end; INSERT INTO pgmask.audit_end TABLE last; INSERT INTO pgmask.audit TABLE rows",
            )
            .await
            .unwrap();
    }
    open(&client, 1).await;
    assert_eq!(findings(&client).await, [""; 0]);
    // What the hint says.
    client.batch_execute("DELETE FROM pgmask.audit_end").await.unwrap();
    client
        .batch_execute("CREATE TABLE kept AS TABLE pgmask.audit; TRUNCATE pgmask.audit, pgmask.audit_end")
        .await
        .unwrap();
    open(&client, 2).await;
    assert_eq!(findings(&client).await, [""; 0]);
    // Old rows that a DBA removes are rows that are missing.
    client.batch_execute("DELETE FROM pgmask.audit WHERE id = 1").await.unwrap();
    open(&client, 2).await;
    assert_eq!(findings(&client).await, ["1 cut"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_write_one_chain() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = opened(&cluster, "chain_at_once", 0).await;
    let sessions = (0..10).map(|n| {
        let cluster = &cluster;
        async move {
            let client = cluster.connect("chain_at_once").await.unwrap();
            if n == 9 {
                // In every isolation: it may be told to try again.
                client.batch_execute("SET default_transaction_isolation = 'serializable'").await.unwrap();
            }
            let mut done = 0;
            for _ in 0..20 {
                match unseal(&client, Some(1), Some("at once")).await {
                    Ok(_) => done += 1,
                    Err(error) => assert!(n == 9 && message(&error).starts_with("40001 "), "{error:?}"),
                }
            }
            done
        }
    });
    let done: i64 = futures_util::future::join_all(sessions).await.into_iter().sum();
    assert!(done >= 180);
    assert_eq!(findings(&admin).await, [""; 0]);
    assert_eq!(count(&admin, "SELECT max(id) FROM pgmask.audit").await, done);
    assert_eq!(logged(&cluster, "at once").len() as i64, done, "a line for each row that is committed");

    // It is looked at while others write.
    let writes = async {
        let client = cluster.connect("chain_at_once").await.unwrap();
        open(&client, 100).await;
    };
    let looks = async {
        for _ in 0..50 {
            assert_eq!(findings(&admin).await, [""; 0]);
        }
    };
    tokio::join!(writes, looks);
}

/// Somebody who holds the end for ever holds nobody up for ever.
#[tokio::test]
async fn nobody_waits_for_the_end_for_long() {
    let cluster = cluster().await;
    let client = opened(cluster, "chain_held", 1).await;
    let holder = cluster.connect("chain_held").await.unwrap();
    holder.batch_execute("BEGIN; SELECT FROM pgmask.audit_end FOR UPDATE").await.unwrap();
    let error = message(&unseal(&client, Some(1), Some("x")).await.unwrap_err());
    assert!(error.starts_with("55P03 "), "{error}");
    assert_eq!(texts(&client, "SHOW lock_timeout").await, ["0"], "the session's own setting");
    holder.batch_execute("ROLLBACK").await.unwrap();
    open(&client, 1).await;
    assert_eq!(findings(&client).await, [""; 0]);
}

#[tokio::test]
async fn the_chain_goes_on_through_rotations_dumps_and_beside_other_databases() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = opened(&cluster, "chain_from", 2).await;
    client.batch_execute("SELECT pgmask.rotate_key(), pgmask.rotate_seal_key()").await.unwrap();
    open(&client, 2).await;
    let generations = "SELECT string_agg(generation::text, ' ' ORDER BY id) FROM pgmask.audit";
    assert_eq!(texts(&client, generations).await, ["1 1 2 2"]);
    assert_eq!(findings(&client).await, [""; 0]);

    let file = cluster.data().join("audit.dump");
    let mut dump = cluster.command("pg_dump");
    dump.args(["--format=custom", "--file"]).arg(&file);
    output(dump.arg(cluster.url("postgres", "chain_from"))).unwrap();
    cluster.connect("postgres").await.unwrap().batch_execute("CREATE DATABASE chain_into").await.unwrap();
    let mut restore = cluster.command("pg_restore");
    restore.args(["--exit-on-error", "--dbname", &cluster.url("postgres", "chain_into")]);
    output(restore.arg(&file)).unwrap();
    let restored = cluster.connect("chain_into").await.unwrap();
    assert_eq!(findings(&restored).await, [""; 0]);
    open(&restored, 2).await;
    assert_eq!(findings(&restored).await, [""; 0]);
    assert_eq!(count(&restored, "SELECT max(id) FROM pgmask.audit").await, 6);

    // Another database beside the same keyring: rows of the one are no rows of the other.
    let other = opened(&cluster, "chain_other", 4).await;
    let rows: Vec<String> = texts(
        &client,
        "SELECT format('INSERT INTO pgmask.audit VALUES (%L, %L, %L, %L, %L, %L, %L, %L, %L, %L)',
            id, done_at, login_role, acting_role, action, quarantine_id, token, reason, generation, mac) FROM pgmask.audit",
    )
    .await;
    let end = texts(
        &client,
        "SELECT format('INSERT INTO pgmask.audit_end VALUES (true, %L, %L, %L, %L)', id, generation, mac, proof) FROM pgmask.audit_end",
    )
    .await;
    other.batch_execute("TRUNCATE pgmask.audit, pgmask.audit_end").await.unwrap();
    other.batch_execute(&[rows, end].concat().join(";")).await.unwrap();
    assert_eq!(findings(&other).await, ["1 changed"]);
}

#[tokio::test]
async fn nobody_looks_without_a_grant_and_with_one_sees_findings_alone() {
    let cluster = cluster().await;
    let client = opened(cluster, "chain_rights", 2).await;
    client
        .batch_execute(
            "DROP ROLE IF EXISTS audits; CREATE ROLE audits LOGIN; GRANT pgmask_operator TO audits",
        )
        .await
        .unwrap();
    let auditor = cluster.connect_as("audits", "chain_rights").await.unwrap();
    for sql in ["SELECT * FROM pgmask.verify_audit()", "TABLE pgmask.audit", "TABLE pgmask.audit_end"] {
        assert!(message(&auditor.batch_execute(sql).await.unwrap_err()).starts_with("42501 "), "{sql}");
    }
    client.batch_execute("GRANT EXECUTE ON FUNCTION pgmask.verify_audit(bigint, text) TO audits; DELETE FROM pgmask.audit WHERE id = 1").await.unwrap();
    assert_eq!(findings(&auditor).await, ["1 cut"]);
}
