//! Nothing is shown before it is written down who asked for it and why, and it is the one who asked that is
//! named. Whatever is rolled back, whatever the log leaves out, whoever's code runs in whose session.

use crate::common::{cluster, commits_wait, count, ingest, message, nobody_waits, texts, unseal};
use testbed::cluster::Cluster;
use testbed::guardian::wait_until;
use tokio_postgres::Client;

const MESSAGES: [(&str, &str); 2] = [("a", "canary one"), ("b", "canary two")];
const CALL: &str = "CALL pgmask.unseal_quarantine(1, 'ticket 4711')";

async fn audited(client: &Client) -> i64 {
    count(client, "SELECT count(*) FROM pgmask.audit").await
}

/// Two quarantined messages, and mallory, who may open them and make whatever she likes.
async fn with_mallory(database: &str) -> (Client, Client) {
    let cluster = cluster().await;
    let admin = cluster.database(database).await.unwrap();
    assert_eq!(ingest(&admin, &MESSAGES).await, [0, 0, 2]);
    admin
        .batch_execute(&format!(
            "CREATE ROLE {database}_mallory LOGIN IN ROLE pgmask_recoverer; GRANT CREATE ON DATABASE {database} TO PUBLIC;
             GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC; GRANT TEMP ON DATABASE {database} TO PUBLIC"
        ))
        .await
        .unwrap();
    let mallory = cluster.connect_as(&format!("{database}_mallory"), database).await.unwrap();
    mallory.batch_execute("CREATE SCHEMA mallory; GRANT USAGE ON SCHEMA mallory TO PUBLIC").await.unwrap();
    (admin, mallory)
}

#[tokio::test]
async fn it_works_only_where_it_can_commit_first() {
    let (admin, mallory) = with_mallory("audit_commits").await;
    mallory
        .batch_execute(
            "CREATE FUNCTION mallory.opens() RETURNS text LANGUAGE plpgsql AS
             $$ DECLARE body text; BEGIN CALL pgmask.unseal_quarantine(1, 'x', body); RETURN body; END $$;
             CREATE PROCEDURE mallory.opens_too(INOUT body text DEFAULT NULL) LANGUAGE plpgsql AS
             $$ BEGIN CALL pgmask.unseal_quarantine(1, 'x', body); END $$;
             CREATE PROCEDURE mallory.commits_and_opens(INOUT body text DEFAULT NULL) LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pgmask.audit_unseal(1, 'x'); COMMIT; body := pgmask.unsealed(1); END $$;
             CREATE PROCEDURE mallory.rolls_back_and_opens(INOUT body text DEFAULT NULL) LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pgmask.audit_unseal(1, 'x'); ROLLBACK; body := pgmask.unsealed(1); END $$;
             CREATE TABLE mallory.t (x int);
             CREATE FUNCTION mallory.triggered() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM mallory.opens(); RETURN NEW; END $$;
             CREATE TRIGGER t BEFORE INSERT ON mallory.t FOR EACH ROW EXECUTE FUNCTION mallory.triggered()",
        )
        .await
        .unwrap();
    for statement in [
        &format!("BEGIN; {CALL}")[..],
        &format!("BEGIN; SAVEPOINT s; {CALL}"),
        &format!("SELECT 1; {CALL}"),
        &format!("{CALL}; SELECT 1"),
        "SELECT mallory.opens()",
        "CALL mallory.opens_too()",
        "CALL mallory.commits_and_opens()",
        "CALL mallory.rolls_back_and_opens()",
        "INSERT INTO mallory.t VALUES (1)",
        "DO $$ DECLARE body text; BEGIN CALL pgmask.unseal_quarantine(1, 'x', body); END $$",
        "SELECT pgmask.audit_unseal(1, 'x')",
        "SELECT pgmask.unsealed(1)",
        "SELECT pgmask.audit_unseal(1, 'x'), pgmask.unsealed(1)",
        "DO $$ BEGIN PERFORM pgmask.audit_unseal(1, 'x'); COMMIT; PERFORM pgmask.unsealed(1); END $$",
    ] {
        for client in [&mallory, &admin] {
            let error = message(&client.batch_execute(statement).await.expect_err(statement));
            assert!(
                error.starts_with("55000 pgmask.unseal_quarantine has to be called by itself"),
                "{statement}: {error}"
            );
            client.batch_execute("ROLLBACK").await.unwrap();
            // Nor does anything of it help later.
            let error =
                message(&client.batch_execute("SELECT pgmask.unsealed(1)").await.expect_err(statement));
            assert!(error.starts_with("55000 "), "{statement}: {error}");
        }
    }
    assert_eq!(audited(&admin).await, 0);
    assert_eq!(unseal(&mallory, Some(1), Some("ticket 4711")).await.unwrap(), b"canary one");
    mallory.batch_execute(CALL).await.unwrap();
    assert_eq!(audited(&admin).await, 2);
}

/// Code of mallory's that runs in the session of a DBA, who did not ask for anything.
#[tokio::test]
async fn nobody_opens_a_message_in_the_name_of_another() {
    let (admin, mallory) = with_mallory("audit_names").await;
    mallory
        .batch_execute(
            "CREATE TABLE mallory.loot (body text); GRANT INSERT ON mallory.loot TO PUBLIC;
             CREATE FUNCTION mallory.steal() RETURNS boolean LANGUAGE plpgsql AS $$
             DECLARE step text; body text;
             BEGIN
                 FOREACH step IN ARRAY ARRAY['CALL pgmask.unseal_quarantine(1, ''x'', NULL)', 'SELECT pgmask.audit_unseal(1, ''x'')',
                     'SELECT pgmask.audit_unseal(2, ''x'')', 'SELECT pgmask.unsealed(1)', 'SELECT pgmask.unsealed(2)'] LOOP
                     BEGIN
                         EXECUTE step INTO body;
                         IF body LIKE '%canary%' THEN INSERT INTO mallory.loot VALUES (body); END IF;
                     EXCEPTION WHEN OTHERS THEN NULL;
                     END;
                 END LOOP;
                 RETURN true;
             END $$;
             CREATE FUNCTION mallory.steal(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM mallory.steal(); RETURN $1; END';
             CREATE FUNCTION mallory.steal_as_definer() RETURNS boolean LANGUAGE sql SECURITY DEFINER AS 'SELECT mallory.steal()';
             CREATE VIEW mallory.v AS SELECT mallory.steal() AS x; GRANT SELECT ON mallory.v TO PUBLIC;
             CREATE TABLE mallory.t (x int); INSERT INTO mallory.t SELECT generate_series(1, 100); CREATE INDEX ON mallory.t (mallory.steal(x));
             GRANT ALL ON mallory.t TO PUBLIC;
             CREATE FUNCTION mallory.triggered() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM mallory.steal(); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER late AFTER INSERT ON mallory.t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mallory.triggered();
             CREATE FUNCTION mallory.loud_number() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM pgmask.audit_unseal(2, 'not hers'); RETURN 1; END $$;
             CREATE FUNCTION mallory.quiet_number() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN PERFORM mallory.steal(); RETURN 1; END'",
        )
        .await
        .unwrap();
    let before = audited(&admin).await;
    for statement in [
        "SELECT mallory.steal()",
        "SELECT mallory.steal_as_definer()",
        "TABLE mallory.v",
        "ANALYZE mallory.t",
        "REINDEX TABLE mallory.t",
        "INSERT INTO mallory.t VALUES (1)",
        "BEGIN; INSERT INTO mallory.t VALUES (1); SAVEPOINT s; SELECT mallory.steal(); ROLLBACK TO s; SELECT mallory.steal(); COMMIT",
        "PREPARE p AS SELECT mallory.steal(); EXECUTE p",
        "DECLARE c CURSOR WITH HOLD FOR SELECT mallory.steal(); FETCH c; CLOSE c",
    ] {
        admin.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    assert_eq!(audited(&admin).await, before);
    // In the arguments of a CALL that the DBA makes herself: written down is what she called.
    let body = admin
        .query_one("CALL pgmask.unseal_quarantine(mallory.quiet_number(), 'my own')", &[])
        .await
        .unwrap();
    assert_eq!(body.get::<_, &str>(0), "canary one");
    let named = admin.batch_execute("CALL pgmask.unseal_quarantine(mallory.loud_number(), 'my own')").await;
    assert!(
        message(&named.unwrap_err()).starts_with("55000 pgmask.unseal_quarantine has to be called by itself")
    );
    assert_eq!(audited(&admin).await, before + 1, "mallory's function has left no row in her name");
    admin.batch_execute("SELECT mallory.steal()").await.unwrap();
    let kept = "SELECT login_role || ' ' || quarantine_id || ' ' || reason FROM pgmask.audit WHERE reason = 'my own'";
    assert_eq!(texts(&admin, kept).await, ["postgres 1 my own"]);
    assert_eq!(count(&admin, "SELECT count(*) FROM mallory.loot").await, 0);
}

#[tokio::test]
async fn the_row_is_durable_whatever_the_session_asks_for() {
    // Without being asked, the server would write out what it has for the log only much later.
    let mut cluster =
        Cluster::start(&["wal_writer_delay = '10s'", "synchronous_commit = off"]).await.unwrap();
    let admin = cluster.database("audit_durable").await.unwrap();
    ingest(&admin, &MESSAGES).await;
    admin.batch_execute("CREATE ROLE opens LOGIN IN ROLE pgmask_recoverer; CHECKPOINT").await.unwrap();
    admin
        .batch_execute(
            "ALTER ROLE opens SET log_min_messages = fatal; ALTER ROLE opens SET synchronous_commit = off",
        )
        .await
        .unwrap();
    let opens = cluster.connect_as("opens", "audit_durable").await.unwrap();
    assert_eq!(unseal(&opens, Some(2), Some("ticket 4711")).await.unwrap(), b"canary two");
    let after = texts(&opens, "SHOW synchronous_commit").await;
    assert_eq!(after, ["off"]);
    drop(opens);
    drop(admin);
    cluster.stop("KILL").unwrap();
    cluster.restart().await.unwrap();
    let admin = cluster.connect("audit_durable").await.unwrap();
    let kept = "SELECT login_role || ' ' || quarantine_id || ' ' || reason FROM pgmask.audit";
    assert_eq!(texts(&admin, kept).await, ["opens 2 ticket 4711"]);
}

/// Nor is anything shown before the row is on the synchronous standby: a cancel ends PostgreSQL's wait for it, and no more.
#[tokio::test]
async fn a_cancel_shows_nothing_before_the_standby_has_the_row() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("audit_standby").await.unwrap();
    ingest(&admin, &MESSAGES).await;
    admin.batch_execute("CREATE ROLE opens LOGIN IN ROLE pgmask_recoverer").await.unwrap();
    let opens = cluster.connect_as("opens", "audit_standby").await.unwrap();
    commits_wait(&cluster, "audit_standby", &admin).await;
    let opening = tokio::spawn(async move {
        let error = unseal(&opens, Some(2), Some("ticket 4711")).await.map_err(|error| message(&error));
        (opens, error)
    });
    let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'opens'";
    wait_until("it is cancelled", || async {
        count(&admin, cancel).await;
        opening.is_finished()
    })
    .await
    .unwrap();
    let (opens, opened) = opening.await.unwrap();
    let refused = opened.unwrap_err();
    assert!(
        refused.starts_with("57014 what this call wrote into pgmask.audit may not have reached"),
        "{refused}"
    );
    assert_eq!(audited(&admin).await, 1);
    nobody_waits(&admin).await;
    assert_eq!(unseal(&opens, Some(2), Some("ticket 4711")).await.unwrap(), b"canary two");
}

#[tokio::test]
async fn a_reason_that_shows_nothing_is_none() {
    let (admin, mallory) = with_mallory("audit_reasons").await;
    for nothing in [
        "",
        " ",
        "\t\r\n",
        "\u{a0}",
        "\u{200b}\u{200d}\u{2060}\u{feff}",
        "\u{3164}",
        "\u{115f}\u{1160}",
        "\u{2800}",
        "\u{202e}",
        "\u{e0041}",
        "…",
        "-",
    ] {
        let error = message(&unseal(&mallory, Some(1), Some(nothing)).await.unwrap_err());
        assert!(
            error.starts_with("22023 a quarantined message is opened for a reason only"),
            "{nothing:?}: {error}"
        );
    }
    let error = message(&unseal(&mallory, Some(1), None).await.unwrap_err());
    assert!(error.starts_with("22023 "), "{error}");
    let error = message(&unseal(&mallory, Some(1), Some(&"x".repeat(4001))).await.unwrap_err());
    assert!(error.starts_with("54000 a reason may have 4000 bytes"), "{error}");
    assert_eq!(audited(&admin).await, 0);
    for reason in ["Nr. 7", "装", "причина", "1", &"x".repeat(4000)] {
        unseal(&mallory, Some(1), Some(reason)).await.unwrap();
    }
    assert_eq!(audited(&admin).await, 5);
}

/// Who may write every table moves a sealed body to where somebody may open it.
#[tokio::test]
async fn a_body_that_was_moved_to_another_database_does_not_open() {
    let (admin, _) = with_mallory("audit_from").await;
    let (other, mallory) = with_mallory("audit_into").await;
    let row = admin.query_one("SELECT id, message_id, sent_at::text, quarantined_at::text, encode(sealed_body, 'hex') FROM pgmask.quarantine WHERE id = 1", &[]).await.unwrap();
    other
        .execute(
            "UPDATE pgmask.quarantine SET message_id = $2, sent_at = $3::text::timestamptz, quarantined_at = $4::text::timestamptz,
                 sealed_body = decode($5::text, 'hex') WHERE id = $1",
            &[&row.get::<_, i64>(0), &row.get::<_, &str>(1), &row.get::<_, &str>(2), &row.get::<_, &str>(3), &row.get::<_, &str>(4)],
        )
        .await
        .unwrap();
    let error = message(&unseal(&mallory, Some(1), Some("moved")).await.unwrap_err());
    assert!(error.starts_with("XX001 message 1 of the quarantine can't be opened"), "{error}");
    assert_eq!(unseal(&mallory, Some(2), Some("its own")).await.unwrap(), b"canary two");
}

/// Roles are the whole server's, and the name of one that was made in a database of another encoding need be no text in this
/// one: the audit of it could be dumped, and not be restored.
#[tokio::test]
async fn a_name_of_another_encoding_is_written_in_its_bytes() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("odd_names").await.unwrap();
    ingest(&admin, &[("a", "bad")]).await;
    let postgres = cluster.connect("postgres").await.unwrap();
    let made = "CREATE DATABASE made_elsewhere ENCODING SQL_ASCII TEMPLATE template0 LOCALE 'C'";
    postgres.batch_execute(made).await.unwrap();
    let elsewhere = cluster.connect("made_elsewhere").await.unwrap();
    elsewhere
        .batch_execute(
            r"DO $$ BEGIN EXECUTE format('CREATE ROLE %I LOGIN; GRANT pgmask_recoverer TO %1$I', 'j' || convert_from('\xfc', 'SQL_ASCII') || 'rgen'); END $$",
        )
        .await
        .unwrap();
    // Who is called so can't be named in this database, but has an id.
    let become_him = "DO $$ BEGIN EXECUTE format('ALTER DATABASE odd_names SET role = %L', (SELECT rolname FROM pg_roles WHERE rolname LIKE 'j%rgen')); END $$";
    elsewhere.batch_execute(become_him).await.unwrap();
    let him = cluster.connect("odd_names").await.unwrap();
    him.batch_execute("CALL pgmask.unseal_quarantine((1), 'ticket 1')").await.unwrap();
    assert_eq!(texts(&admin, "SELECT acting_role FROM pgmask.audit").await, [r"j\xfcrgen"]);
    assert_eq!(count(&admin, "SELECT count(*) FROM pgmask.verify_audit()").await, 0);
}

/// PostgreSQL looks at memberships when a session says SET ROLE: a session that stays open went on after REVOKE.
#[tokio::test]
async fn nobody_opens_a_message_as_a_role_that_was_taken_back() {
    let (admin, _mallory) = with_mallory("audit_taken_back").await;
    admin
        .batch_execute("DROP ROLE IF EXISTS nadia; CREATE ROLE nadia LOGIN IN ROLE pgmask_recoverer")
        .await
        .unwrap();
    let nadia = cluster().await.connect_as("nadia", "audit_taken_back").await.unwrap();
    nadia.batch_execute("SET ROLE pgmask_recoverer").await.unwrap();
    let open = "CALL pgmask.unseal_quarantine(1, 'after')";
    nadia.batch_execute(open).await.unwrap();
    admin.batch_execute("REVOKE pgmask_recoverer FROM nadia").await.unwrap();
    let before = audited(&admin).await;
    let refused = message(&nadia.batch_execute(open).await.unwrap_err());
    assert!(
        refused.starts_with("42501 the role that this session logged in as may not act as pgmask_recoverer"),
        "{refused}"
    );
    assert_eq!(audited(&admin).await, before);
    admin.batch_execute("DROP ROLE nadia").await.unwrap();
}
