//! Who drops the extension, and what goes on meanwhile.

use super::{INGEST, is_refused};
use crate::common::{count, message, texts};
use testbed::cluster::Cluster;
use testbed::guardian::wait_until;
use testbed::installation::output;
use testbed::pipeline::send_at_once;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

/// An extension of the server's, in a schema `other`, that belongs to olga: it may be one that she could make herself, or not.
async fn olgas_extension(admin: &Client) -> String {
    let any = "SELECT min(name::text) FROM pg_available_extensions WHERE name IN ('hstore', 'vector')";
    let name = texts(admin, any).await.remove(0);
    admin
        .batch_execute(&format!(
            "CREATE SCHEMA other AUTHORIZATION olga; CREATE EXTENSION {name} SCHEMA other;
             UPDATE pg_catalog.pg_extension SET extowner = 'olga'::regrole WHERE extname = '{name}'"
        ))
        .await
        .unwrap();
    name
}

/// The owner of the schema that CREATE EXTENSION was given could drop the extension with it, and put a schema pgmask of their own in
/// its place, whose functions and views ran in the midst of pg_mask's, with a superuser's rights.
#[tokio::test]
async fn who_owns_the_schema_does_not_drop_the_extension() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("schemas_owner").await.unwrap();
    cluster.apply_file("schemas_owner", "05_dashboards.sql").unwrap();
    admin
        .batch_execute(
            "CREATE ROLE olga LOGIN IN ROLE pgmask_operator; ALTER DATABASE schemas_owner OWNER TO olga; CREATE ROLE carl LOGIN;
             GRANT CREATE ON DATABASE schemas_owner TO carl",
        )
        .await
        .unwrap();
    let other = olgas_extension(&admin).await;
    let by_another = format!("ALTER EXTENSION {other} ADD SCHEMA public");
    admin
        .batch_execute("ALTER EXTENSION plpgsql DROP LANGUAGE plpgsql; ALTER LANGUAGE plpgsql OWNER TO olga")
        .await
        .unwrap();
    for drops in [
        "DROP SCHEMA public CASCADE",
        "DROP EXTENSION pg_mask CASCADE",
        "DO $$ BEGIN DROP SCHEMA public CASCADE; END $$",
        "ALTER SCHEMA public RENAME TO was_public; CREATE SCHEMA public; DROP SCHEMA was_public CASCADE",
        "DROP LANGUAGE plpgsql CASCADE",
        &by_another,
    ] {
        let olga = cluster.connect_as("olga", "schemas_owner").await.unwrap();
        is_refused(&olga, drops).await;
    }
    admin.batch_execute("ALTER SCHEMA public OWNER TO olga").await.unwrap();
    let olga = cluster.connect_as("olga", "schemas_owner").await.unwrap();
    is_refused(&olga, "DROP OWNED BY olga CASCADE").await;
    olga.batch_execute("CREATE SCHEMA mine; CREATE TABLE mine.t (n int); DROP SCHEMA mine CASCADE")
        .await
        .unwrap();
    admin.batch_execute(INGEST).await.unwrap();

    // Once a superuser has dropped it, nothing is left that would call what others make.
    admin.batch_execute("DROP EXTENSION pg_mask CASCADE").await.unwrap();
    let carl = cluster.connect_as("carl", "schemas_owner").await.unwrap();
    carl.batch_execute(
        "CREATE SCHEMA pgmask; GRANT USAGE ON SCHEMA pgmask TO PUBLIC;
         CREATE FUNCTION pgmask.refresh_stored(oid, boolean) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'as %', current_user; END $$;
         CREATE FUNCTION pgmask.refresh_dashboards() RETURNS interval LANGUAGE plpgsql AS $$ BEGIN RAISE 'as %', current_user; END $$",
    )
    .await
    .unwrap();
    let gone = message(&olga.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap_err());
    assert!(gone.starts_with("42883 "), "{gone}");
}

/// A session that began before, and that nobody looks at, could drop the extension as it commits.
#[tokio::test]
async fn the_extension_waits_for_who_is_about_to_take_its_schema_along() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.connect("postgres").await.unwrap();
    admin.batch_execute("CREATE ROLE olga LOGIN").await.unwrap();
    admin.batch_execute("CREATE DATABASE early OWNER olga").await.unwrap();
    let olga = cluster.connect_as("olga", "early").await.unwrap();
    let client = cluster.connect("early").await.unwrap();
    let other = olgas_extension(&client).await;
    olga.batch_execute(&format!("BEGIN; ALTER EXTENSION {other} ADD SCHEMA public")).await.unwrap();
    let create = "SET lock_timeout = '200ms'; CREATE EXTENSION pg_mask SCHEMA public";
    let waits = message(&client.batch_execute(create).await.unwrap_err());
    assert!(waits.starts_with("55P03 "), "{waits}");
    olga.batch_execute("COMMIT").await.unwrap();
    let refused = message(&client.batch_execute(create).await.unwrap_err());
    assert!(
        refused.starts_with(&format!("42501 schema public is a member of extension {other}")),
        "{refused}"
    );
    olga.batch_execute(&format!("ALTER EXTENSION {other} DROP SCHEMA public")).await.unwrap();
    client.batch_execute(create).await.unwrap();
    let comment = "SELECT count(*) FROM pg_namespace WHERE obj_description(oid, 'pg_namespace') = 'standard public schema'";
    assert_eq!(count(&client, comment).await, 1);
    is_refused(&olga, &format!("ALTER EXTENSION {other} ADD SCHEMA public")).await;
    // Its function goes with a table, the extension with the function, and the schema with the extension, which no command says.
    let at_commit = format!(
        "BEGIN; CREATE TEMPORARY TABLE x (n int) ON COMMIT DROP;
        CREATE FUNCTION other.f(pg_temp.x) RETURNS int LANGUAGE sql AS 'SELECT 1';
        ALTER EXTENSION {other} ADD FUNCTION other.f(pg_temp.x); ALTER EXTENSION {other} ADD SCHEMA public"
    );
    let olga = cluster.connect_as("olga", "early").await.unwrap();
    is_refused(&olga, &at_commit).await;
}

/// One that is open since before the extension was made knows of no event trigger of it.
#[tokio::test]
async fn no_rights_are_given_beside_transactions_from_before() {
    let cluster = Cluster::start(&["max_prepared_transactions = 1"]).await.unwrap();
    let admin = cluster.connect("postgres").await.unwrap();
    admin.batch_execute("CREATE ROLE olga LOGIN").await.unwrap();
    admin.batch_execute("CREATE DATABASE from_before OWNER olga").await.unwrap();
    let olga = cluster.connect_as("olga", "from_before").await.unwrap();
    olga.batch_execute("CREATE SCHEMA s; BEGIN; SELECT 1").await.unwrap();
    let refused = cluster.apply_sql("from_before").unwrap_err().to_string();
    assert!(
        refused.contains("(of role olga) has a transaction open since before these rights were given"),
        "{refused}"
    );
    let client = cluster.connect("from_before").await.unwrap();
    let may = "SELECT count(*) FROM pg_roles WHERE rolname = 'pgmask_ingester' AND has_function_privilege(oid, 'pgmask.maintain()', 'EXECUTE')";
    // Nor by a psql that goes back to before the statement that fails, and on from there.
    let mut psql = cluster.command("psql");
    psql.args(["--set=ON_ERROR_ROLLBACK=on", "--no-psqlrc", "--quiet"]);
    psql.args(["--dbname", &cluster.url("postgres", "from_before")]);
    psql.stdin(std::fs::File::open(testbed::root().join("sql/02_rights.sql")).unwrap());
    output(&mut psql).unwrap();
    assert_eq!(count(&client, may).await, 0);
    // That they are there says nothing: a dump may have brought them, beside such a transaction. A superuser's may be in code of others.
    client.batch_execute("GRANT EXECUTE ON FUNCTION pgmask.maintain() TO pgmask_ingester").await.unwrap();
    olga.batch_execute("COMMIT").await.unwrap();
    let session = cluster.connect("from_before").await.unwrap();
    session.batch_execute("BEGIN; SELECT 1").await.unwrap();
    let refused = cluster.apply_sql("from_before").unwrap_err().to_string();
    assert!(refused.contains("(of role postgres) has a transaction open since before"), "{refused}");
    session.batch_execute("COMMIT").await.unwrap();
    // PostgreSQL lets a role be dropped while it is logged in.
    admin.batch_execute("CREATE ROLE gone LOGIN").await.unwrap();
    let gone = cluster.connect_as("gone", "from_before").await.unwrap();
    gone.batch_execute("BEGIN; SELECT 1").await.unwrap();
    admin.batch_execute("DROP ROLE gone").await.unwrap();
    let refused = cluster.apply_sql("from_before").unwrap_err().to_string();
    assert!(refused.contains("(of no role) has a transaction open since before"), "{refused}");
    gone.batch_execute("COMMIT").await.unwrap();
    // What is prepared is open, and in no process.
    olga.batch_execute("BEGIN; SELECT 1; PREPARE TRANSACTION 'later'").await.unwrap();
    let refused = cluster.apply_sql("from_before").unwrap_err().to_string();
    assert!(refused.contains("transaction 'later' of role olga is prepared since before"), "{refused}");
    olga.batch_execute("COMMIT PREPARED 'later'").await.unwrap();
    cluster.apply_sql("from_before").unwrap();
    assert_eq!(count(&client, may).await, 1);
    // Once they have been waited for, nobody else is.
    let session = cluster.connect("from_before").await.unwrap();
    session.batch_execute("BEGIN; SELECT 1").await.unwrap();
    cluster.apply_sql("from_before").unwrap();
    olga.batch_execute("BEGIN; SELECT 1").await.unwrap();
    is_refused(&olga, "DROP SCHEMA public CASCADE").await;
}

/// Functions that have the rights of the extension's owner find what they need by its name. They wait for whoever is about to drop the
/// extension, and then go no further: the names may be others' by then.
#[tokio::test]
async fn nothing_goes_on_in_a_schema_of_that_name_once_the_extension_is_dropped() {
    let cluster = Cluster::start(&["pgmask.vault = on"]).await.unwrap();
    let admin = cluster.database("dropped").await.unwrap();
    cluster.apply_file("dropped", "05_dashboards.sql").unwrap();
    admin.batch_execute("CREATE ROLE olga; ALTER DATABASE dropped OWNER TO olga").await.unwrap();
    admin.batch_execute(INGEST).await.unwrap();
    let calls = [
        INGEST,
        "SELECT pgmask.ingest_login_batch_bytes('{b}', '{x}', ARRAY[now()], '{1}')",
        "SELECT pgmask.ingest_login('{\"user_id\": 1}')",
        "SELECT public.ingest_login('{\"user_id\": 1}')",
        "SELECT pgmask.try_login('{\"user_id\": 1}')",
        "SELECT pgmask.replay_quarantine()",
        "SELECT pgmask.reseal_quarantine()",
        "SELECT pgmask.add_key()",
        "SELECT pgmask.rotate_key()",
        "SELECT pgmask.rotate_seal_key()",
        "SELECT pgmask.remask_vault(0, 0)",
        "SELECT pgmask.verify_audit()",
        "SELECT pgmask.maintain()",
        "SELECT pgmask.health_items()",
        "SELECT pgmask.refresh_dashboards()",
    ];
    let with_owners_rights = "SELECT p.proname::text FROM pg_proc AS p
        JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
        JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'pg_mask' WHERE p.prosecdef";
    for function in texts(&admin, with_owners_rights).await {
        assert!(
            calls.iter().any(|call| call.contains(&format!(".{function}("))),
            "{function} is not called here"
        );
    }
    let procedures = [
        "CALL pgmask.unseal_quarantine(1, 'why')",
        "CALL pgmask.recover_pii('m1_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef', 'why')",
        "CALL pgmask.forget('m1_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef', 'why')",
        "CALL pgmask.remask('public.user_logins')",
    ];
    // They would wait for two seconds alone, and all of them are to wait at once.
    admin.batch_execute("ALTER FUNCTION pgmask.maintain() SET lock_timeout = 0; ALTER FUNCTION pgmask.health_items() SET lock_timeout = 0").await.unwrap();
    let held = count(&admin, "SELECT 'pgmask.database_id'::regclass::oid::bigint").await;
    let drops = cluster.connect("dropped").await.unwrap();
    drops
        .batch_execute("BEGIN; DROP EXTENSION pg_mask CASCADE; SET LOCAL ROLE olga; CREATE SCHEMA pgmask")
        .await
        .unwrap();
    let mut called = Vec::new();
    for call in calls.into_iter().chain(procedures) {
        let client = cluster.connect("dropped").await.unwrap();
        called.push((call, tokio::spawn(async move { client.batch_execute(call).await })));
    }
    let waiting = format!("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND relation = {held}");
    wait_until("all of them wait", || async {
        let all = called.len() as i64;
        count(&drops, &waiting).await == all || called.iter().any(|(_, answer)| answer.is_finished())
    })
    .await
    .unwrap();
    drops.batch_execute("COMMIT").await.unwrap();
    for (call, answer) in called {
        is_gone(call, answer).await;
    }
}

/// A procedure looks names up anew after each of its commits: it went on with what others had put into a schema pgmask meanwhile.
#[tokio::test]
async fn a_procedure_has_the_extension_until_it_ends() {
    let cluster = Cluster::start(&["pgmask.vault = on"]).await.unwrap();
    let admin = cluster.database("dropped_between").await.unwrap();
    let held = count(&admin, "SELECT 'pgmask.database_id'::regclass::oid::bigint").await;
    admin
        .batch_execute("SELECT pgmask.ingest_login('{\"user_id\": 1, \"ip\": \"192.0.2.1\"}')")
        .await
        .unwrap();
    let token = texts(&admin, "SELECT masked_ip FROM user_logins").await.remove(0);
    let locks = format!("SELECT count(*) FROM pg_locks WHERE relation = {held}");
    let caller = cluster.connect("dropped_between").await.unwrap();
    let recover = "CALL pgmask.recover_pii($1, 'why')";
    for failing in ["CALL pgmask.remask('pg_catalog.pg_am')", "BEGIN; CALL pgmask.remask('user_logins')"] {
        caller.batch_execute(failing).await.unwrap_err();
        caller.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(count(&admin, &locks).await, 0, "{failing}");
    }
    caller.query_one(recover, &[&token]).await.unwrap();
    for call in [
        "CALL pgmask.remask('user_logins')",
        "CALL pgmask.remask('pgmask.vault')",
        "DO $$ DECLARE l bigint; a bigint; BEGIN CALL pgmask.remask('user_logins', lifted => l, left_alone => a); END $$",
        "BEGIN; SELECT pgmask.remask_begins(); COMMIT",
    ] {
        caller.batch_execute(call).await.unwrap();
    }
    assert_eq!(count(&admin, &locks).await, 0);

    // Whoever may connect has it wait so, without any right to the table.
    admin
        .batch_execute(
            "CREATE ROLE carl; CREATE SCHEMA trap AUTHORIZATION carl; CREATE TABLE trap.ran (n int);
             CREATE FUNCTION trap.remask_parts(relation regclass) RETURNS oid[] LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO pgmask.ran VALUES (1); RETURN ARRAY[relation::oid]; END $$",
        )
        .await
        .unwrap();
    let writes = cluster.connect("dropped_between").await.unwrap();
    writes.batch_execute("BEGIN; PREPARE p AS DELETE FROM user_logins").await.unwrap();
    let remask = tokio::spawn(async move { caller.batch_execute("CALL pgmask.remask('user_logins')").await });
    wait_until("it holds the extension", || async {
        count(&admin, &locks).await > 0 || remask.is_finished()
    })
    .await
    .unwrap();
    let drops = cluster.connect("dropped_between").await.unwrap();
    let drop = "DROP EXTENSION pg_mask CASCADE; ALTER SCHEMA trap RENAME TO pgmask";
    let dropped = tokio::spawn(async move { drops.batch_execute(drop).await });
    let waits = format!("{locks} AND NOT granted");
    wait_until("the drop waits", || async { count(&admin, &waits).await == 1 || dropped.is_finished() })
        .await
        .unwrap();
    writes.batch_execute("COMMIT").await.unwrap();
    // The drop may have what the procedure needs next: then PostgreSQL ends one of them.
    let (remask, dropped) = (remask.await.unwrap(), dropped.await.unwrap());
    for error in [&remask, &dropped].into_iter().filter_map(|done| done.as_ref().err()) {
        assert_eq!(error.code(), Some(&tokio_postgres::error::SqlState::T_R_DEADLOCK_DETECTED), "{error:?}");
    }
    assert!(remask.is_ok() || dropped.is_ok());
    let ran = if dropped.is_ok() { "pgmask.ran" } else { "trap.ran" };
    assert_eq!(count(&admin, &format!("SELECT count(*) FROM {ran}")).await, 0);
}

/// What drops the extension reaches a standby with locks on tables alone: PostgreSQL writes no other ones for it.
#[tokio::test]
async fn nothing_goes_on_in_a_schema_of_that_name_on_a_standby() {
    let mut primary = Cluster::start(&[]).await.unwrap();
    let admin = primary.database("dropped_there").await.unwrap();
    admin.batch_execute("ALTER FUNCTION pgmask.health_items() SET lock_timeout = 0").await.unwrap();
    let held = count(&admin, "SELECT 'pgmask.database_id'::regclass::oid::bigint").await;
    let standby = primary.standby().await.unwrap();
    let reader = standby.connect("dropped_there").await.unwrap();
    // No procedure holds it there over its commits, which replay would wait for.
    let refused = message(&reader.batch_execute("SELECT pgmask.remask_begins()").await.unwrap_err());
    assert!(refused.starts_with("25006 cannot execute a procedure of pg_mask during recovery"), "{refused}");
    admin.batch_execute("BEGIN; DROP EXTENSION pg_mask CASCADE; CREATE SCHEMA pgmask").await.unwrap();
    let locked = format!(
        "SELECT count(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock' AND relation = {held}"
    );
    wait_until("the standby has its locks", || async { count(&reader, &locked).await == 1 }).await.unwrap();
    let mut called = Vec::new();
    for call in ["SELECT FROM pgmask.health_items()", "SELECT FROM pgmask.verify_audit()"] {
        let client = standby.connect("dropped_there").await.unwrap();
        called.push((call, tokio::spawn(async move { client.batch_execute(call).await })));
    }
    let waiting = format!("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND relation = {held}");
    wait_until("both wait", || async { count(&reader, &waiting).await == 2 }).await.unwrap();
    admin.batch_execute("COMMIT").await.unwrap();
    for (call, answer) in called {
        is_gone(call, answer).await;
    }
}

/// That call has ended with the error that says so.
async fn is_gone(call: &str, answer: JoinHandle<Result<(), tokio_postgres::Error>>) {
    let answer = answer.await.unwrap().map_err(|error| message(&error));
    let gone = |error: &String| error.starts_with("55000 extension pg_mask was dropped meanwhile");
    assert!(answer.as_ref().is_err_and(gone), "{call}: {answer:?}");
}

/// Dropping a table took the language along by way of what its extension's former owner had added to that, and pg_mask with it.
#[tokio::test]
async fn the_extension_does_not_go_with_the_language_that_its_functions_are_in() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("language").await.unwrap();
    let make = "CREATE EXTENSION pg_mask";
    admin.batch_execute("DROP EXTENSION pg_mask CASCADE; CREATE ROLE olga LOGIN").await.unwrap();
    admin
        .batch_execute("CREATE TABLE t (n int); CREATE VIEW of_t AS TABLE t; ALTER TABLE t OWNER TO olga; ALTER EXTENSION plpgsql ADD VIEW of_t")
        .await
        .unwrap();
    let refused = message(&admin.batch_execute(make).await.unwrap_err());
    assert!(refused.starts_with("42501 the extension plpgsql has view public.of_t as a member"), "{refused}");
    admin.batch_execute("ALTER EXTENSION plpgsql DROP VIEW of_t").await.unwrap();

    let owner = "UPDATE pg_extension SET extowner = (SELECT oid FROM pg_roles WHERE rolname = 'NAME') WHERE extname = 'plpgsql'";
    admin.batch_execute(&owner.replace("NAME", "olga")).await.unwrap();
    let refused = message(&admin.batch_execute(make).await.unwrap_err());
    assert!(
        refused.starts_with("42501 the extension plpgsql belongs to a role that is no superuser"),
        "{refused}"
    );
    admin.batch_execute(&owner.replace("NAME", "postgres")).await.unwrap();
    admin.batch_execute("ALTER LANGUAGE plpgsql OWNER TO olga").await.unwrap();
    let refused = message(&admin.batch_execute(make).await.unwrap_err());
    assert!(
        refused.starts_with("42501 the language plpgsql belongs to a role that is no superuser"),
        "{refused}"
    );
    admin.batch_execute("ALTER LANGUAGE plpgsql OWNER TO postgres").await.unwrap();
    admin.batch_execute(make).await.unwrap();
}

/// A lock of the session's outlived a parallel worker, and a session that ended outside of a transaction: whoever wanted all of the table waited
/// until the server was restarted, and everybody else behind that.
#[tokio::test]
async fn nothing_is_held_once_its_session_has_ended() {
    let cluster = Cluster::start(&["max_prepared_transactions = 2"]).await.unwrap();
    let admin = cluster.database("ended").await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE oper LOGIN IN ROLE pgmask_operator; CREATE SCHEMA oper AUTHORIZATION oper",
        )
        .await
        .unwrap();
    let oper = cluster.connect_as("oper", "ended").await.unwrap();
    let force = if cluster.major() >= 16 { "debug_parallel_query" } else { "force_parallel_mode" };
    oper.batch_execute(&format!(
        "CREATE FUNCTION oper.begins(n int) RETURNS int PARALLEL SAFE LANGUAGE plpgsql AS $$ BEGIN PERFORM pgmask.remask_begins(); RETURN n; END $$;
         SELECT FROM pgmask.key_status(); SET {force} = on"
    ))
    .await
    .unwrap();
    let refused = message(
        &oper.batch_execute("SELECT oper.begins(n) FROM generate_series(1, 2) AS n").await.unwrap_err(),
    );
    assert!(
        refused.starts_with("25000 cannot execute a procedure of pg_mask during a parallel operation"),
        "{refused}"
    );
    drop(oper);
    let begins = "DO $$ BEGIN PERFORM pgmask.remask_begins(); COMMIT; END $$";
    for (name, ends) in
        [("prepared", "PREPARE TRANSACTION 'x'"), ("committed", "COMMIT"), ("rolled_back", "ROLLBACK")]
    {
        for user in ["oper", "postgres"] {
            let error = send_at_once(&cluster, user, "ended", &[begins, "BEGIN", ends]).await.unwrap();
            assert_eq!(error, None, "{name}");
            admin
                .batch_execute("BEGIN; SET LOCAL lock_timeout = '5s'; LOCK TABLE pgmask.database_id; COMMIT")
                .await
                .unwrap();
            if ends.starts_with("PREPARE") {
                admin.batch_execute("ROLLBACK PREPARED 'x'").await.unwrap();
            }
        }
    }
    // The session ends in the midst.
    let oper = cluster.connect_as("oper", "ended").await.unwrap();
    let waits = tokio::spawn(async move {
        oper.batch_execute(
            "DO $$ BEGIN PERFORM pgmask.remask_begins(); COMMIT; PERFORM pg_catalog.pg_sleep(600); END $$",
        )
        .await
    });
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename = 'oper'";
    wait_until("it sleeps", || async { count(&admin, sleeping).await == 1 }).await.unwrap();
    admin
        .batch_execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'oper'")
        .await
        .unwrap();
    waits.await.unwrap().unwrap_err();
    admin
        .batch_execute("BEGIN; SET LOCAL lock_timeout = '5s'; LOCK TABLE pgmask.database_id; COMMIT")
        .await
        .unwrap();
}
