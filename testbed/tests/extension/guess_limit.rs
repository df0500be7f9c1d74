//! An analyst can't find a value by trying: past the budget nothing is masked, whatever is tried.
//!
//! Each test has a server of its own whose roles have the budget that the test needs. They run with the library
//! loaded at the server's start, and on PostgreSQL 17 and later once more without.

mod hours;
mod lifted_hashes;
mod taken_back;

use crate::common::{count, kill_backend, message};
use testbed::cluster::Cluster;
use tokio_postgres::Client;

pub(super) const PRELOADED: &str = "shared_preload_libraries = 'pg_mask'";

/// A server with that limit, a superuser's session, and analysts to log in as.
pub(super) async fn server(settings: &[&str]) -> (Cluster, Client) {
    let cluster = Cluster::start_with_clock(settings).await.unwrap();
    let admin = cluster.database("guesses").await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE analyst LOGIN; GRANT pgmask_analyst TO analyst; GRANT CREATE ON SCHEMA public TO analyst;
             CREATE ROLE second LOGIN; GRANT pgmask_analyst TO second;
             CREATE ROLE bulk LOGIN; GRANT pgmask_analyst, pgmask_unlimited TO bulk",
        )
        .await
        .unwrap();
    (cluster, admin)
}

/// Masks so many values, other ones at each `from`.
fn masking(from: u32, values: u32) -> String {
    format!(
        "SELECT count(mask_pii('10.0.0.0'::inet + n)) FROM generate_series({from}, {from} + {values} - 1) n"
    )
}

async fn is_stopped(client: &Client, sql: &str) {
    let Err(error) = client.batch_execute(sql).await else { panic!("masked: {sql}") };
    let text = message(&error);
    assert!(
        text.starts_with("53400 role \"") && text.contains(":00 UTC") && text.contains("pgmask_unlimited"),
        "{sql}: {text}"
    );
}

/// How many of so many values can be masked, one statement each, before the limit stops it.
pub(super) async fn masked_one_by_one(client: &Client, from: u32, most: u32) -> u32 {
    let statement = client.prepare("SELECT mask_pii('10.0.0.0'::inet + $1::bigint)").await.unwrap();
    for done in 0..most {
        if client.query_one(&statement, &[&i64::from(from + done)]).await.is_err() {
            return done;
        }
    }
    most
}

#[tokio::test]
async fn ten_thousand_values_and_not_one_more() {
    let (cluster, admin) = server(&[PRELOADED]).await;
    let analyst = cluster.connect_as("analyst", "guesses").await.unwrap();
    is_stopped(&analyst, &masking(0, 10_001)).await;
    // The statement that failed has used the budget up, and a new session has no other.
    is_stopped(&analyst, "SELECT mask_pii('y')").await;
    let again = cluster.connect_as("analyst", "guesses").await.unwrap();
    for sql in [
        "SELECT mask_pii('x')",
        "SELECT mask_pii('x', 'other domain')",
        "SELECT mask_pii('::1'::inet)",
        "SELECT mask_pii(gen_random_uuid())",
        "SELECT mask_network('192.0.2.1')",
        "SELECT pgmask.current_mask(encode(sha256('x'), 'hex'))",
        "BEGIN; SELECT mask_pii('z'); ROLLBACK",
        "EXPLAIN ANALYZE SELECT mask_pii('z')",
        "CREATE TABLE made AS SELECT mask_pii('z')",
        "PREPARE tried AS SELECT mask_pii('z'); EXECUTE tried",
        "DO $$ BEGIN PERFORM mask_pii('z'); END $$",
    ] {
        let _ = again.batch_execute("ROLLBACK").await;
        is_stopped(&again, sql).await;
    }
    again.batch_execute("ROLLBACK").await.unwrap();
    // What needs no masking goes on, and so do others.
    again
        .batch_execute(
            "TABLE logins.shared_ips; SELECT pgmask.mask_generation('x'), pgmask.current_mask('x')",
        )
        .await
        .unwrap();
    let second = cluster.connect_as("second", "guesses").await.unwrap();
    assert_eq!(count(&second, &masking(0, 10_000)).await, 10_000);
    is_stopped(&second, &masking(20_000, 1)).await;
    for exempt in [&cluster.connect_as("bulk", "guesses").await.unwrap(), &admin] {
        assert_eq!(count(exempt, &masking(0, 30_000)).await, 30_000);
    }
    // Ingestion is no guess.
    let forwarder = cluster.connect_as("pgmask_forwarder", "guesses").await.unwrap();
    let sql = "SELECT inserted FROM pgmask.ingest_login_batch(
        ARRAY(SELECT n::text FROM generate_series(1, 12000) n),
        ARRAY(SELECT '{\"user_id\": 1, \"ip\": \"10.1.1.' || n || '\"}' FROM generate_series(1, 12000) n),
        array_fill(now(), ARRAY[12000]), array_fill(1, ARRAY[12000]))";
    assert_eq!(count(&forwarder, sql).await, 12_000);
}

#[tokio::test]
async fn the_same_value_costs_one() {
    let (cluster, _admin) = server(&[PRELOADED, "pgmask.guess_limit = 5"]).await;
    let analyst = cluster.connect_as("analyst", "guesses").await.unwrap();
    assert_eq!(
        count(&analyst, "SELECT count(mask_pii('x')) FROM generate_series(1, 1000000)").await,
        1_000_000
    );
    for _ in 0..20 {
        analyst.batch_execute("SELECT mask_pii('x')").await.unwrap();
    }
    analyst
        .batch_execute("DO $$ BEGIN FOR n IN 1..1000 LOOP PERFORM mask_pii('x'); END LOOP; END $$")
        .await
        .unwrap();
    assert_eq!(masked_one_by_one(&analyst, 0, 10).await, 4);
}

/// The value before is not counted again: with the budget used up, one guess after the other was tried against it for
/// nothing, whoever had masked it (a view of the DBA's over addresses, a superuser in the same session), until one gave
/// its token.
#[tokio::test]
async fn the_value_before_is_no_answer_to_guesses() {
    let (cluster, admin) = server(&[PRELOADED, "pgmask.guess_limit = 3"]).await;
    admin
        .batch_execute(
            "CREATE VIEW of_addresses AS SELECT pgmask.mask_pii(ip) FROM (VALUES ('10.9.0.1'::inet), ('10.9.0.2'), ('10.9.0.3')) AS t (ip);
             GRANT SELECT ON of_addresses TO analyst; CREATE ROLE pool LOGIN SUPERUSER",
        )
        .await
        .unwrap();
    let guesses = "DO $$ BEGIN
        FOR n IN 0..9 LOOP
            BEGIN
                PERFORM pgmask.mask_pii('10.9.0.0'::inet + n);
                RAISE 'found' USING ERRCODE = '22000';
            EXCEPTION WHEN configuration_limit_exceeded THEN NULL; END;
        END LOOP; END $$";
    let analyst = cluster.connect_as("analyst", "guesses").await.unwrap();
    assert_eq!(analyst.query("SELECT * FROM of_addresses", &[]).await.unwrap().len(), 3);
    analyst.batch_execute(guesses).await.unwrap();
    let pool = cluster.connect_as("pool", "guesses").await.unwrap();
    for before in [
        "SELECT pgmask.mask_pii('10.9.0.1')",
        "SET ROLE second; SELECT pgmask.mask_pii('10.9.0.1'); RESET ROLE",
    ] {
        pool.batch_execute(before).await.unwrap();
        pool.batch_execute("SET ROLE analyst").await.unwrap();
        pool.batch_execute(guesses).await.unwrap_or_else(|error| panic!("{before}: {error:?}"));
        pool.batch_execute("RESET ROLE").await.unwrap();
    }
}

/// Each of these begins no new budget and finds no other one.
#[tokio::test]
async fn no_way_around_it() {
    let (cluster, admin) = server(&[PRELOADED, "pgmask.guess_limit = 1000"]).await;
    admin
        .batch_execute(
            "CREATE FUNCTION by_dba(v inet) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
                 AS $$ SELECT pgmask.mask_pii(v) $$;
             CREATE VIEW seen_by_dba AS SELECT mask_pii('10.0.0.0'::inet + n) FROM generate_series(1, 100) n;
             GRANT SELECT ON seen_by_dba TO analyst; GRANT second TO analyst; GRANT pgmask_analyst TO analyst WITH ADMIN OPTION;
             ALTER ROLE analyst CREATEROLE",
        )
        .await
        .unwrap();
    let analyst = cluster.connect_as("analyst", "guesses").await.unwrap();
    analyst
        .batch_execute(
            "CREATE FUNCTION mine(v inet) RETURNS text LANGUAGE sql SECURITY DEFINER AS $$ SELECT mask_pii(v) $$;
             CREATE FUNCTION swallows(v inet) RETURNS text LANGUAGE plpgsql AS $$
                 BEGIN RETURN mask_pii(v); EXCEPTION WHEN OTHERS THEN RETURN NULL; END $$",
        )
        .await
        .unwrap();
    // Half of it is used before, in subtransactions that are rolled back, and in a statement that is cancelled.
    analyst
        .batch_execute(&format!(
            "BEGIN; SAVEPOINT a; {}; ROLLBACK TO a; ROLLBACK;
             DO $$ BEGIN PERFORM mask_pii('10.9.0.0'::inet + n) FROM generate_series(1, 200) n; RAISE EXCEPTION 'undo'; EXCEPTION WHEN OTHERS THEN END $$;
             SET statement_timeout = '100ms'",
            masking(0, 200)
        ))
        .await
        .unwrap();
    let sleeps = "SELECT mask_pii('10.8.0.0'::inet + n) FROM generate_series(1, 100) n UNION ALL SELECT pg_sleep(10)::text";
    analyst.batch_execute(sleeps).await.unwrap_err();
    analyst.batch_execute("RESET statement_timeout").await.unwrap();
    assert_eq!(masked_one_by_one(&analyst, 5000, 1000).await, 500);

    let limited = [
        "SELECT mine('10.0.0.77')",
        "SELECT by_dba('10.0.0.78')",
        "TABLE seen_by_dba",
        "SET ROLE second; SELECT mask_pii('10.0.0.79')",
        "SET ROLE pgmask_analyst; SELECT mask_pii('10.0.0.80')",
        "SET max_parallel_workers_per_gather = 4; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
         SET debug_parallel_query = on; SELECT mask_pii(host('10.0.0.81'::inet))",
    ];
    for sql in limited {
        let sql = match cluster.major() {
            ..16 => sql.replace("debug_parallel_query", "force_parallel_mode"),
            _ => sql.to_owned(),
        };
        is_stopped(&analyst, &sql).await;
        analyst.batch_execute("RESET ROLE; RESET ALL").await.unwrap();
    }
    let sql = "SELECT count(swallows('10.0.1.0'::inet + n)) FROM generate_series(1, 500) n";
    assert_eq!(count(&analyst, sql).await, 0, "errors that are swallowed give nothing");
    // Ten sessions at once have one budget.
    let others = (0..10).map(|_| async {
        let client = cluster.connect_as("analyst", "guesses").await.unwrap();
        masked_one_by_one(&client, 9000, 100).await
    });
    assert_eq!(futures_util::future::join_all(others).await.into_iter().sum::<u32>(), 0);
    // A role that is dropped and made again has the budget of its name.
    drop(analyst);
    admin
        .batch_execute(
            "DROP OWNED BY analyst; DROP ROLE analyst; CREATE ROLE analyst LOGIN; GRANT pgmask_analyst TO analyst",
        )
        .await
        .unwrap();
    let analyst = cluster.connect_as("analyst", "guesses").await.unwrap();
    is_stopped(&analyst, "SELECT mask_pii('10.0.0.82')").await;
}

/// A role's own limit held in its own sessions alone: an expression of its index that somebody's ANALYZE computed,
/// or a function of its that somebody else called, had the limit of that session.
#[tokio::test]
async fn a_role_s_own_limit_holds_wherever_its_code_runs() {
    let (cluster, admin) = server(&[PRELOADED]).await;
    admin
        .batch_execute(
            "ALTER ROLE analyst SET pgmask.guess_limit = 5; ALTER ROLE analyst IN DATABASE guesses SET pgmask.guess_limit = 20;
             ALTER ROLE bulk IN DATABASE guesses SET pgmask.guess_limit = 7",
        )
        .await
        .unwrap();
    let analyst = cluster.connect_as("analyst", "guesses").await.unwrap();
    analyst
        .batch_execute(
            "SET application_name = 'mine';
             CREATE TABLE tried (ip text); ALTER TABLE tried ALTER ip SET STATISTICS 10000;
             CREATE FUNCTION try(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
                 IF current_setting('application_name') = 'mine' THEN RETURN ''; END IF;
                 RETURN $1 || ' ' || pgmask.mask_pii($1); EXCEPTION WHEN OTHERS THEN RETURN $1 || ' none'; END $$;
             CREATE INDEX tried_x ON tried (try(ip)); ALTER INDEX tried_x ALTER COLUMN 1 SET STATISTICS 10000;
             INSERT INTO tried SELECT '10.0.0.' || n FROM generate_series(1, 200) n;
             CREATE FUNCTION mine(v text) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$ SELECT pgmask.mask_pii(v) $$",
        )
        .await
        .unwrap();
    let shown = "SELECT count(*) FROM pg_stats, unnest(histogram_bounds::text::text[]) v WHERE tablename = 'tried_x' AND v LIKE '% m1%'";
    for seen in [20, 0] {
        let analyzing = cluster.connect("guesses").await.unwrap();
        analyzing.batch_execute("ANALYZE tried").await.unwrap();
        assert_eq!(count(&admin, shown).await, seen);
    }
    assert_eq!(masked_one_by_one(&analyst, 0, 50).await, 0);
    let second = cluster.connect_as("second", "guesses").await.unwrap();
    is_stopped(&second, "SELECT mine('x')").await;
    assert_eq!(masked_one_by_one(&second, 0, 50).await, 50);
    // Lowered, it holds in the next transaction of a session that is open.
    admin.batch_execute("ALTER ROLE second SET pgmask.guess_limit = 60").await.unwrap();
    let masked = masked_one_by_one(&second, 100, 1000).await;
    assert!(masked <= 50, "{masked} of the portion that was drawn before");
    // Who is exempt has no limit of its own, either.
    let bulk = cluster.connect_as("bulk", "guesses").await.unwrap();
    assert_eq!(count(&bulk, &masking(0, 1000)).await, 1000);
}

/// The workers of a parallel query draw from the one budget, and give back what they don't use.
#[tokio::test]
async fn a_parallel_query_has_no_more() {
    let (cluster, admin) = server(&[PRELOADED]).await;
    admin
        .batch_execute(
            "CREATE TABLE tried AS SELECT '10.0.0.0'::inet + n AS ip FROM generate_series(1, 20000) n;
             GRANT SELECT ON tried TO PUBLIC; ANALYZE tried; ALTER ROLE analyst SET pgmask.guess_limit = 25000;
             ALTER ROLE second SET pgmask.guess_limit = 5000",
        )
        .await
        .unwrap();
    let parallel =
        "SET max_parallel_workers_per_gather = 4; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
        SET min_parallel_table_scan_size = 0";
    let all = "SELECT count(mask_pii(ip)) FROM tried";
    let analyst = cluster.connect_as("analyst", "guesses").await.unwrap();
    analyst.batch_execute(parallel).await.unwrap();
    let launched: Vec<String> = crate::common::texts(&analyst, &format!("EXPLAIN {all}")).await;
    assert!(launched.iter().any(|line| line.contains("Workers Planned")), "{launched:?}");
    assert_eq!(count(&analyst, all).await, 20_000);
    let rest = masked_one_by_one(&analyst, 1_000_000, 6000).await;
    assert!((4900..=5000).contains(&rest), "{rest} of the 5000 that are left");
    let second = cluster.connect_as("second", "guesses").await.unwrap();
    second.batch_execute(parallel).await.unwrap();
    is_stopped(&second, all).await;
    // What was used is used: at most what portions are taken at a time was lost with the workers, and none won.
    let rest = masked_one_by_one(&second, 2_000_000, 6000).await;
    assert!(rest <= 500, "{rest} after a query that was stopped");
    is_stopped(&second, all).await;
}

/// Many sessions of one role share one budget to the last value, and give back what they don't use.
#[tokio::test]
async fn sessions_share_and_give_back() {
    let (cluster, admin) = server(&[PRELOADED, "pgmask.guess_limit = 1000"]).await;
    for n in 0..200 {
        // Each session draws a portion of ten, and uses one.
        let client = cluster.connect_as("analyst", "guesses").await.unwrap();
        assert_eq!(masked_one_by_one(&client, n, 1).await, 1, "session {n}");
        let pid = count(&client, "SELECT pg_backend_pid()::bigint").await;
        drop(client);
        let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        testbed::guardian::wait_until("the session has ended", || async { count(&admin, &gone).await == 0 })
            .await
            .unwrap();
    }
    let others = (0..10).map(|n| {
        let cluster = &cluster;
        async move {
            let client = cluster.connect_as("analyst", "guesses").await.unwrap();
            masked_one_by_one(&client, 1000 * (n + 1), 1000).await
        }
    });
    let masked: u32 = futures_util::future::join_all(others).await.into_iter().sum();
    // A session that was stopped may have been stopped while another still had its portion.
    assert!(masked <= 800, "{masked} beyond the 200 before");
    let last = cluster.connect_as("analyst", "guesses").await.unwrap();
    let rest = masked_one_by_one(&last, 50_000, 1000).await;
    assert!(masked + rest <= 800 && masked + rest > 700, "{masked} and {rest}");
}

/// A limit that a superuser changes holds from the next portion on. A crash, which an analyst may be able to bring about,
/// begins no new budget; a restart does.
#[tokio::test]
async fn limits_change_and_restarts_but_no_crashes_begin_anew() {
    let (mut cluster, admin) = server(&[PRELOADED, "pgmask.guess_limit = 10"]).await;
    let analyst = cluster.connect_as("analyst", "guesses").await.unwrap();
    assert_eq!(masked_one_by_one(&analyst, 0, 50).await, 10);
    for sql in ["SET pgmask.guess_limit = 100", "SELECT set_config('pgmask.guess_limit', '100', false)"] {
        assert!(message(&analyst.batch_execute(sql).await.unwrap_err()).starts_with("42501 "));
    }
    admin.batch_execute("ALTER ROLE analyst SET pgmask.guess_limit = 30").await.unwrap();
    let more = cluster.connect_as("analyst", "guesses").await.unwrap();
    assert_eq!(masked_one_by_one(&more, 100, 50).await, 20);
    admin.batch_execute("ALTER ROLE analyst SET pgmask.guess_limit = -1").await.unwrap();
    let free = cluster.connect_as("analyst", "guesses").await.unwrap();
    assert_eq!(masked_one_by_one(&free, 200, 500).await, 500);
    admin.batch_execute("ALTER ROLE analyst SET pgmask.guess_limit = 0").await.unwrap();
    let none = cluster.connect_as("analyst", "guesses").await.unwrap();
    assert_eq!(masked_one_by_one(&none, 300, 5).await, 0);
    admin.batch_execute("ALTER ROLE analyst RESET pgmask.guess_limit").await.unwrap();
    drop((analyst, more, free, none, admin));
    // A backend that is killed takes all sessions and PostgreSQL's shared memory with it, as a crash does.
    let analyst = cluster.connect_as("analyst", "guesses").await.unwrap();
    let pid = count(&analyst, "SELECT pg_backend_pid()::bigint").await;
    kill_backend(pid);
    // Until the server has noticed, it takes connections that end with it.
    let starts = || cluster.log().matches("database system is ready to accept connections").count();
    testbed::guardian::wait_until("the server has started again", || async { starts() == 2 }).await.unwrap();
    let again = cluster.connect_as("analyst", "guesses").await.unwrap();
    assert_eq!(masked_one_by_one(&again, 0, 50).await, 0, "after a backend was killed");
    let admin = cluster.connect("guesses").await.unwrap();
    admin.batch_execute("ALTER ROLE analyst SET pgmask.guess_limit = 1000").await.unwrap();
    let more = cluster.connect_as("analyst", "guesses").await.unwrap();
    let left = masked_one_by_one(&more, 1000, 2000).await;
    assert!((850..1000).contains(&left), "{left}: what was used before the crash counts, and that alone");
    admin.batch_execute("ALTER ROLE analyst RESET pgmask.guess_limit").await.unwrap();
    drop((analyst, again, more, admin));
    for signal in ["INT", "KILL"] {
        cluster.stop(signal).unwrap();
        cluster.restart().await.unwrap();
        let analyst = cluster.connect_as("analyst", "guesses").await.unwrap();
        assert_eq!(masked_one_by_one(&analyst, 0, 50).await, 10, "after {signal}");
    }
}

/// Without the library at the server's start, PostgreSQL 17 and later still count all sessions together; older
/// ones count each by itself, and say so.
#[tokio::test]
async fn without_preloading_the_server_says_what_it_counts() {
    let (cluster, admin) = server(&["pgmask.guess_limit = 10"]).await;
    let is_shared: bool = admin.query_one("SELECT pgmask.guess_limit_is_shared()", &[]).await.unwrap().get(0);
    assert_eq!(is_shared, cluster.major() >= 17);
    let first = cluster.connect_as("analyst", "guesses").await.unwrap();
    assert_eq!(masked_one_by_one(&first, 0, 50).await, 10);
    is_stopped(&first, "SELECT mask_pii('y')").await;
    let second = cluster.connect_as("analyst", "guesses").await.unwrap();
    assert_eq!(masked_one_by_one(&second, 0, 50).await, if is_shared { 0 } else { 10 });
}

/// A library that is loaded in the midst of a parallel query has none of the DBA's settings: 10,000 guesses instead of
/// 1,000. Two ways to do that: the leader runs the plan itself, or its workers alone.
#[tokio::test]
async fn the_library_is_not_loaded_without_its_settings() {
    let (cluster, admin) = server(&["pgmask.guess_limit = 10"]).await;
    admin
        .batch_execute(
            "CREATE TABLE tried AS SELECT n FROM generate_series(1, 20000) n; GRANT SELECT ON tried TO PUBLIC;
             ALTER TABLE tried SET (parallel_workers = 2); ANALYZE tried",
        )
        .await
        .unwrap();
    let function = "(n int) RETURNS int LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$ BEGIN RETURN length(pgmask.mask_pii('x')); END $$";
    let owner = cluster.connect_as("analyst", "guesses").await.unwrap();
    owner.batch_execute(&format!("CREATE FUNCTION touch{function}")).await.unwrap();
    let parallel =
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0";
    let touching = "SELECT count(*) FROM tried WHERE n < 10 AND touch(n) > 0";
    let show = async |client: &Client| crate::common::texts(client, "SHOW pgmask.guess_limit").await;
    for workers in ["SET max_parallel_workers = 0", "SET parallel_leader_participation = off"] {
        let client = cluster.connect_as("analyst", "guesses").await.unwrap();
        client.batch_execute(&format!("{parallel}; {workers}")).await.unwrap();
        let plan = crate::common::texts(&client, &format!("EXPLAIN {touching}")).await;
        assert!(plan.iter().any(|line| line.contains("Workers Planned")), "{plan:?}");
        for _ in 0..2 {
            let error = message(&client.batch_execute(touching).await.unwrap_err());
            assert!(error.starts_with("55000 pg_mask can't be loaded in the midst of"), "{error}");
            assert!(error.contains("shared_preload_libraries"), "{error}");
        }
        // It is loaded with its settings then, and workers have them, too.
        assert_eq!(count(&client, "SELECT length(pgmask.mask_pii('x'))::bigint").await, 67);
        assert_eq!(show(&client).await, ["10"]);
        assert_eq!(count(&client, touching).await, 9);
    }
    // A parallel query that calls mask_pii itself has it loaded before, also as a session's first.
    let bulk = cluster.connect_as("bulk", "guesses").await.unwrap();
    bulk.batch_execute(&format!("{parallel}; SET parallel_leader_participation = off")).await.unwrap();
    assert_eq!(count(&bulk, "SELECT count(mask_pii('x' || n)) FROM tried").await, 20_000);
    assert_eq!(show(&bulk).await, ["10"]);
}
