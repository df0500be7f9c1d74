//! Code of an analyst's that somebody else runs masks nothing beyond the analyst's budget, whoever that is and whatever
//! limit their session has. (Each of these gave tokens of other people's addresses, with the own budget used up.)

use super::guess_limit::{PRELOADED, masked_one_by_one, server};
use crate::common::count;
use testbed::cluster::Cluster;
use testbed::guardian::wait_until;
use tokio_postgres::Client;

/// Code of a group's ran in the maintenance that a superuser or autovacuum does, and counted for the group alone: each
/// group was one more budget for its members.
#[tokio::test]
async fn maintenance_is_no_way_to_a_groups_budget() {
    let (cluster, admin) = server(&[PRELOADED]).await;
    admin
        .batch_execute(
            "CREATE ROLE team IN ROLE pgmask_analyst; CREATE ROLE maker LOGIN; GRANT team TO maker; CREATE SCHEMA play;
             GRANT ALL ON SCHEMA play TO team, maker",
        )
        .await
        .unwrap();
    let maker = cluster.connect_as("maker", "guesses").await.unwrap();
    maker
        .batch_execute(
            "CREATE TABLE play.loot (token text); GRANT ALL ON play.loot TO PUBLIC; CREATE SEQUENCE play.ran; GRANT ALL ON play.ran TO PUBLIC;
             CREATE FUNCTION play.mask(n int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM nextval('play.ran');
                 INSERT INTO play.loot SELECT pgmask.mask_pii('10.9.0.0'::inet + n);
             EXCEPTION WHEN insufficient_privilege THEN NULL; END $$;
             CREATE FUNCTION play.definer(n int) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN PERFORM play.mask(n); END $$;
             ALTER FUNCTION play.definer OWNER TO team;
             CREATE FUNCTION play.index(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
                 $$ BEGIN IF session_user = 'postgres' THEN PERFORM play.mask(n); END IF; RETURN n; END $$;
             CREATE FUNCTION play.index_of_definer(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
                 $$ BEGIN IF session_user = 'postgres' THEN PERFORM play.definer(n); END IF; RETURN n; END $$;
             CREATE TABLE play.of_team (n int); CREATE INDEX ON play.of_team (play.index(n)); INSERT INTO play.of_team SELECT generate_series(1, 20);
             ALTER TABLE play.of_team OWNER TO team;
             CREATE TABLE play.of_maker (n int); CREATE INDEX ON play.of_maker (play.index_of_definer(n)); INSERT INTO play.of_maker SELECT generate_series(1, 20);
             CREATE FUNCTION play.once() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM play.mask(1); RETURN 1; END $$;
             CREATE MATERIALIZED VIEW play.view AS SELECT play.once() WITH NO DATA; ALTER MATERIALIZED VIEW play.view OWNER TO team;
             GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA play TO PUBLIC",
        )
        .await
        .unwrap();
    let times =
        async || count(&admin, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM play.ran").await;
    for maintenance in
        ["ANALYZE play.of_team", "ANALYZE play.of_maker", "REFRESH MATERIALIZED VIEW play.view"]
    {
        let before = times().await;
        admin.batch_execute(maintenance).await.unwrap();
        assert!(times().await > before, "{maintenance}: it ran");
        assert_eq!(count(&admin, "SELECT count(*) FROM play.loot").await, 0, "{maintenance}");
    }
    // A role without members has its own budget there, as everywhere.
    admin.batch_execute("CREATE ROLE alone LOGIN IN ROLE pgmask_analyst; GRANT USAGE ON SCHEMA play TO alone; ALTER TABLE play.of_team OWNER TO alone; ANALYZE play.of_team").await.unwrap();
    assert_eq!(count(&admin, "SELECT count(*) FROM play.loot").await, 20);
}

/// An analyst with a limit of ten, which is used up, and a function that masks as many values as it can.
async fn used_up(settings: &[&str]) -> (Cluster, Client, Client) {
    let (cluster, admin) = server(&[&[PRELOADED, "pgmask.guess_limit = 10"], settings].concat()).await;
    let analyst = cluster.connect_as("analyst", "guesses").await.unwrap();
    assert_eq!(masked_one_by_one(&analyst, 0, 50).await, 10);
    analyst
        .batch_execute(
            "CREATE TABLE loot (token text); GRANT ALL ON loot TO PUBLIC; CREATE SEQUENCE ran; GRANT ALL ON ran TO PUBLIC;
             CREATE FUNCTION loots() RETURNS int LANGUAGE plpgsql SET search_path = public AS $$ BEGIN
                 PERFORM nextval('ran');
                 FOR n IN 1..100 LOOP
                     BEGIN
                         INSERT INTO loot SELECT pgmask.mask_pii('10.9.0.0'::inet + n);
                     EXCEPTION WHEN configuration_limit_exceeded OR insufficient_privilege THEN RETURN n - 1; END;
                 END LOOP;
                 RETURN 100;
             END $$;
             CREATE FUNCTION tool() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT public.loots()';
             GRANT EXECUTE ON FUNCTION tool() TO PUBLIC;
             CREATE FUNCTION indexed(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
                 $$ BEGIN IF session_user <> 'analyst' THEN PERFORM public.loots(); END IF; RETURN n; END $$;
             CREATE TABLE play (n int); CREATE INDEX ON play (indexed(n)); INSERT INTO play SELECT generate_series(1, 100)",
        )
        .await
        .unwrap();
    (cluster, admin, analyst)
}

async fn ran(admin: &Client) -> i64 {
    count(admin, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM ran").await
}

async fn nothing_was_masked(admin: &Client, what: &str) {
    assert!(ran(admin).await > 0, "{what}: it never ran");
    assert_eq!(count(admin, "SELECT count(*) FROM loot").await, 0, "{what}");
}

/// The limit of a session is that of the role that logged in, and of no other.
#[tokio::test]
async fn a_higher_limit_of_somebody_elses_session_does_not_count() {
    let (cluster, admin, analyst) = used_up(&["autovacuum = off"]).await;
    admin
        .batch_execute("CREATE ROLE carl LOGIN; GRANT pgmask_analyst TO carl; ALTER ROLE carl SET pgmask.guess_limit = 5000")
        .await
        .unwrap();
    let carl = cluster.connect_as("carl", "guesses").await.unwrap();
    assert_eq!(count(&carl, "SELECT public.tool()::bigint").await, 0);
    nothing_was_masked(&admin, "a colleague").await;
    for limit in ["-1", "5000"] {
        admin.batch_execute(&format!("SET pgmask.guess_limit = {limit}; ANALYZE play")).await.unwrap();
        nothing_was_masked(&admin, limit).await;
    }
    // What stands in the file counts, also when it changes; and a limit of the role's own.
    let still = cluster.connect("guesses").await.unwrap();
    still.batch_execute("ALTER ROLE postgres SET pgmask.guess_limit = -1").await.unwrap();
    let still = cluster.connect("guesses").await.unwrap();
    still.batch_execute("ANALYZE play").await.unwrap();
    nothing_was_masked(&admin, "a role's setting").await;
    // Nor do what a parallel worker begins with, and what stands in the file without being in force.
    let force = if cluster.major() >= 16 { "debug_parallel_query" } else { "force_parallel_mode" };
    carl.batch_execute(&format!(
        "SET {force} = on; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0"
    ))
    .await
    .unwrap();
    let in_worker =
        "CREATE FUNCTION public.masks(n int) RETURNS text LANGUAGE plpgsql PARALLEL SAFE SECURITY DEFINER AS
        $$ BEGIN RETURN pgmask.mask_pii('10.9.0.0'::inet + n); END $$";
    analyst.batch_execute(in_worker).await.unwrap();
    let refused = carl.batch_execute("SELECT public.masks(1)").await.unwrap_err();
    let refused = refused.as_db_error().unwrap();
    assert_eq!(refused.code().code(), "53400", "{refused:?}");
    assert!(refused.where_().unwrap().contains("parallel worker"), "{refused:?}");
    still.batch_execute("SET pgmask.guess_limit = -1").await.unwrap();
    still.batch_execute("ALTER SYSTEM SET pgmask.guess_limit = 3000").await.unwrap();
    still.batch_execute("SELECT * FROM pg_file_settings").await.unwrap();
    still.batch_execute("ANALYZE play").await.unwrap();
    nothing_was_masked(&admin, "a value that is not in force").await;
    still.batch_execute("ALTER SYSTEM SET pgmask.guess_limit = 30").await.unwrap();
    still.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    wait_until("the file was read again", || async {
        let before = count(&admin, "SELECT count(*) FROM loot").await;
        still.batch_execute("ANALYZE play").await.unwrap();
        before > 0 || count(&admin, "SELECT count(*) FROM loot").await > 0
    })
    .await
    .unwrap();
    assert!(count(&admin, "SELECT count(*) FROM loot").await <= 20);
}

/// Nobody has to act: autovacuum has the settings of the role that made the cluster.
#[tokio::test]
async fn autovacuum_masks_nothing_beyond_the_budget() {
    let (_cluster, admin, analyst) = used_up(&["autovacuum_naptime = 1s"]).await;
    admin.batch_execute("ALTER ROLE postgres SET pgmask.guess_limit = -1").await.unwrap();
    analyst
        .batch_execute(
            "ALTER TABLE play SET (autovacuum_analyze_threshold = 1, autovacuum_analyze_scale_factor = 0);
             INSERT INTO play SELECT generate_series(1, 500)",
        )
        .await
        .unwrap();
    wait_until("autovacuum has run it", || async { ran(&admin).await > 0 }).await.unwrap();
    nothing_was_masked(&admin, "autovacuum").await;
}

/// A group is paid for by its members alone: not by the owner of the database, nor by a superuser who deletes a row that
/// a table of the group's refers to.
#[tokio::test]
async fn groups_are_used_by_their_members_alone() {
    let (cluster, admin, analyst) = used_up(&["autovacuum = off"]).await;
    admin
        .batch_execute(
            "CREATE ROLE team IN ROLE pgmask_analyst; GRANT team TO analyst; GRANT CREATE ON SCHEMA public TO team;
             CREATE ROLE keeper LOGIN; ALTER DATABASE guesses OWNER TO keeper;
             CREATE TABLE customers (id int PRIMARY KEY); INSERT INTO customers VALUES (1); GRANT REFERENCES ON customers TO team",
        )
        .await
        .unwrap();
    analyst
        .batch_execute(
            "CREATE FUNCTION removes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.loots(); RETURN OLD; END $$;
             ALTER TABLE play OWNER TO team; SET ROLE team;
             CREATE TABLE refers (id int REFERENCES customers ON DELETE CASCADE); INSERT INTO refers VALUES (1);
             RESET ROLE; ALTER TABLE refers OWNER TO analyst;
             CREATE TRIGGER t BEFORE DELETE ON refers FOR EACH ROW EXECUTE FUNCTION removes(); ALTER TABLE refers OWNER TO team",
        )
        .await
        .unwrap();
    let keeper = cluster.connect_as("keeper", "guesses").await.unwrap();
    keeper.batch_execute("ANALYZE play").await.unwrap();
    nothing_was_masked(&admin, "the owner of the database").await;
    let before = ran(&admin).await;
    admin.batch_execute("DELETE FROM customers").await.unwrap();
    assert!(ran(&admin).await > before, "the trigger never ran");
    nothing_was_masked(&admin, "a row that is deleted").await;
    // Nor a role that may not mask itself, or a member without a limit, or after the last member has left.
    admin
        .batch_execute(
            "INSERT INTO customers VALUES (1); INSERT INTO refers VALUES (1); ALTER TABLE customers OWNER TO keeper;
             CREATE ROLE free LOGIN IN ROLE team; ALTER ROLE free SET pgmask.guess_limit = -1",
        )
        .await
        .unwrap();
    keeper.batch_execute("DELETE FROM customers").await.unwrap();
    nothing_was_masked(&admin, "a row of somebody else's that is deleted").await;
    let free = cluster.connect_as("free", "guesses").await.unwrap();
    free.batch_execute("ANALYZE play").await.unwrap();
    nothing_was_masked(&admin, "a member without a limit").await;
    admin.batch_execute("DROP ROLE free; REVOKE team FROM analyst; ANALYZE play").await.unwrap();
    nothing_was_masked(&admin, "a group without members").await;
    // A member pays with its own budget, too.
    let second = cluster.connect_as("second", "guesses").await.unwrap();
    admin.batch_execute("GRANT team TO second").await.unwrap();
    second.batch_execute("ANALYZE play").await.unwrap();
    let masked = count(&admin, "SELECT count(*) FROM loot").await;
    assert!(masked <= 10, "{masked}");
}

/// A role that is dropped while its statement runs had a second budget, under its number.
#[tokio::test]
async fn a_role_that_is_dropped_masks_nothing_more() {
    let (cluster, admin, _analyst) = used_up(&["autovacuum = off"]).await;
    admin.batch_execute("CREATE ROLE short LOGIN; GRANT pgmask_analyst TO short").await.unwrap();
    let short = cluster.connect_as("short", "guesses").await.unwrap();
    admin.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
    let masking = tokio::spawn(async move {
        short
            .batch_execute(
                "DO $$ BEGIN
                     PERFORM pg_advisory_lock_shared(1);
                     FOR n IN 1..50 LOOP
                         BEGIN INSERT INTO loot SELECT pgmask.mask_pii('10.9.0.0'::inet + n);
                         EXCEPTION WHEN OTHERS THEN EXIT; END;
                     END LOOP;
                 END $$",
            )
            .await
    });
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    wait_until("it waits", || async { count(&admin, waits).await == 1 || masking.is_finished() })
        .await
        .unwrap();
    admin.batch_execute("DROP ROLE short").await.unwrap();
    admin.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
    let _ = masking.await.unwrap();
    assert_eq!(count(&admin, "SELECT count(*) FROM loot").await, 0);
}
