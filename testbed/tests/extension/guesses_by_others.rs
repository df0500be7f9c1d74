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
    // Nor is what a superuser has left over of the group's budget, of which a session takes a hundredth part at a time.
    admin
        .batch_execute("SET ROLE team; SELECT pgmask.mask_pii('10.8.0.0'); RESET ROLE; ANALYZE play.of_team")
        .await
        .unwrap();
    assert_eq!(count(&admin, "SELECT count(*) FROM play.loot").await, 0, "what is left over");
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
    // Nor where the group's function is called by a trigger that comes after the deletion.
    admin.batch_execute("INSERT INTO customers VALUES (1); INSERT INTO refers VALUES (1)").await.unwrap();
    analyst
        .batch_execute(
            "CREATE FUNCTION of_team() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT public.loots()'; ALTER FUNCTION of_team OWNER TO team;
             CREATE FUNCTION after_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.of_team(); RETURN NULL; END $$;
             GRANT EXECUTE ON FUNCTION of_team(), after_it() TO PUBLIC; SET ROLE team; DROP TRIGGER t ON refers;
             CREATE TRIGGER t AFTER DELETE ON refers FOR EACH ROW EXECUTE FUNCTION after_it(); RESET ROLE",
        )
        .await
        .unwrap();
    admin.batch_execute("ALTER TABLE customers OWNER TO keeper").await.unwrap();
    let before = ran(&admin).await;
    keeper.batch_execute("DELETE FROM customers").await.unwrap();
    assert!(ran(&admin).await > before, "the trigger never ran");
    nothing_was_masked(&admin, "after a row of somebody else's was deleted").await;
    analyst
        .batch_execute("SET ROLE team; DROP TRIGGER t ON refers; CREATE TRIGGER t BEFORE DELETE ON refers FOR EACH ROW EXECUTE FUNCTION removes(); RESET ROLE")
        .await
        .unwrap();
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

/// The role of SET ROLE was forgotten in a function with its owner's rights: in a session that people share by SET ROLE,
/// whose own role has no limit, it had nobody's.
#[tokio::test]
async fn who_acts_by_set_role_pays_for_a_function_with_its_owners_rights() {
    let (cluster, admin, _analyst) = used_up(&["autovacuum = off"]).await;
    admin
        .batch_execute(
            "CREATE FUNCTION of_superuser(n int) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgmask, pg_temp AS
                 $$ BEGIN RETURN mask_pii('10.9.0.0'::inet + n); END $$;
             CREATE ROLE pool LOGIN; GRANT analyst, second, pgmask_unlimited TO pool",
        )
        .await
        .unwrap();
    let pool = cluster.connect_as("pool", "guesses").await.unwrap();
    for client in [&pool, &admin] {
        client.batch_execute("SET ROLE analyst").await.unwrap();
        let refused = client.batch_execute("SELECT of_superuser(1)").await.unwrap_err();
        assert_eq!(refused.as_db_error().unwrap().code().code(), "53400", "{refused:?}");
        client.batch_execute("RESET ROLE").await.unwrap();
    }
    pool.batch_execute("SET ROLE second; SELECT of_superuser(1)").await.unwrap();
}

/// Who has made a group may administer it, and is no member (PostgreSQL 16 and later).
#[tokio::test]
async fn who_may_only_administer_a_group_does_not_pay_for_it() {
    let (cluster, admin, analyst) = used_up(&["autovacuum = off"]).await;
    if cluster.major() < 16 {
        return;
    }
    admin
        .batch_execute(
            "CREATE ROLE maker LOGIN CREATEROLE; ALTER DATABASE guesses OWNER TO maker;
             GRANT pgmask_analyst TO maker WITH ADMIN TRUE, INHERIT FALSE, SET FALSE",
        )
        .await
        .unwrap();
    let maker = cluster.connect_as("maker", "guesses").await.unwrap();
    maker.batch_execute("CREATE ROLE team IN ROLE pgmask_analyst; GRANT team TO analyst").await.unwrap();
    admin.batch_execute("GRANT CREATE ON SCHEMA public TO team").await.unwrap();
    analyst.batch_execute("ALTER TABLE play OWNER TO team").await.unwrap();
    maker.batch_execute("ANALYZE play").await.unwrap();
    nothing_was_masked(&admin, "who made the group").await;
    // Who may make itself a member, though it is none now, has had its code there.
    admin
        .batch_execute(
            "CREATE ROLE service LOGIN IN ROLE pgmask_analyst; GRANT CREATE ON SCHEMA public TO service;
             GRANT service TO analyst WITH ADMIN TRUE, INHERIT FALSE, SET FALSE; ALTER TABLE play OWNER TO service; ANALYZE play",
        )
        .await
        .unwrap();
    nothing_was_masked(&admin, "a role that somebody administers").await;
    // Nor is a person a group because somebody else made the role.
    maker.batch_execute("CREATE ROLE person LOGIN IN ROLE pgmask_analyst").await.unwrap();
    admin.batch_execute("GRANT CREATE ON SCHEMA public TO person").await.unwrap();
    let person = cluster.connect_as("person", "guesses").await.unwrap();
    person
        .batch_execute("CREATE MATERIALIZED VIEW of_person AS SELECT mask_pii('10.9.0.1'), clock_timestamp()")
        .await
        .unwrap();
    admin.batch_execute("REFRESH MATERIALIZED VIEW of_person").await.unwrap();
}

/// A function with its owner's rights that masks, and a trigger of such a kind, are often there for others to call. In
/// maintenance nobody knows who calls: what it masked counted for its owner alone, and for nobody if that is a superuser.
#[tokio::test]
async fn functions_with_their_owners_rights_mask_nothing_in_maintenance() {
    let (cluster, admin, analyst) = used_up(&["autovacuum_naptime = 1s"]).await;
    let second = cluster.connect_as("second", "guesses").await.unwrap();
    let lookup = |name: &str| {
        format!(
            "CREATE FUNCTION public.{name}(value text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgmask, pg_temp AS
                 $$ BEGIN RETURN mask_pii(value); END $$; GRANT EXECUTE ON FUNCTION public.{name} TO PUBLIC"
        )
    };
    admin.batch_execute("GRANT CREATE ON SCHEMA public TO second").await.unwrap();
    second.batch_execute(&lookup("of_colleague")).await.unwrap();
    admin
        .batch_execute(&format!(
            "{}; CREATE ROLE keeper LOGIN; ALTER DATABASE guesses OWNER TO keeper;
             CREATE TABLE customers (id int PRIMARY KEY); INSERT INTO customers VALUES (1); GRANT REFERENCES ON customers TO analyst;
             CREATE TABLE watched (value text, token text); GRANT INSERT ON watched TO PUBLIC;
             CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN NEW.token := pgmask.mask_pii(NEW.value); RETURN NEW; END $$;
             CREATE TRIGGER watch BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION watch()",
            lookup("of_superuser")
        ))
        .await
        .unwrap();
    let attempt = |name: &str, deed: &str| {
        format!(
            "CREATE FUNCTION {name}() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM nextval('public.ran'); {deed};
             EXCEPTION WHEN configuration_limit_exceeded OR insufficient_privilege THEN NULL; END $$"
        )
    };
    analyst
        .batch_execute(&format!(
            "{}; {}; {};
             CREATE FUNCTION borrow() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
                 IF session_user = 'analyst' THEN RETURN; END IF;
                 PERFORM public.by_colleague(); PERFORM public.by_superuser(); PERFORM public.by_trigger(); END $$;
             CREATE FUNCTION borrowing(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.borrow(); RETURN n; END $$;
             CREATE TABLE lent (n int) WITH (autovacuum_analyze_threshold = 1, autovacuum_analyze_scale_factor = 0, autovacuum_enabled = off);
             CREATE INDEX ON lent (borrowing(n)); INSERT INTO lent SELECT generate_series(1, 100);
             CREATE TABLE refers (id int REFERENCES customers ON DELETE CASCADE); INSERT INTO refers VALUES (1);
             CREATE FUNCTION removes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.borrow(); RETURN OLD; END $$;
             CREATE TRIGGER t BEFORE DELETE ON refers FOR EACH ROW EXECUTE FUNCTION removes()",
            attempt("by_colleague", "INSERT INTO public.loot SELECT public.of_colleague('10.9.0.1')"),
            attempt("by_superuser", "INSERT INTO public.loot SELECT public.of_superuser('10.9.0.2')"),
            attempt("by_trigger", "INSERT INTO public.watched VALUES ('10.9.0.3')"),
        ))
        .await
        .unwrap();
    let nothing = async |what: &str, before: i64| {
        assert!(ran(&admin).await > before, "{what}: it never ran");
        for table in ["loot", "watched"] {
            assert_eq!(count(&admin, &format!("SELECT count(*) FROM {table}")).await, 0, "{what}: {table}");
        }
    };
    let keeper = cluster.connect_as("keeper", "guesses").await.unwrap();
    for (client, statement) in [
        (&admin, "ANALYZE lent"),
        (&keeper, "ANALYZE lent"),
        (&admin, "REINDEX TABLE lent"),
        (&admin, "DELETE FROM customers"),
    ] {
        let before = ran(&admin).await;
        client.batch_execute(statement).await.unwrap();
        nothing(statement, before).await;
    }
    let before = ran(&admin).await;
    analyst
        .batch_execute(
            "ALTER TABLE lent SET (autovacuum_enabled = on); INSERT INTO lent SELECT generate_series(1, 500)",
        )
        .await
        .unwrap();
    wait_until("autovacuum has run it", || async { ran(&admin).await > before }).await.unwrap();
    nothing("autovacuum", before).await;
    // Who has a budget may call them, and pays.
    second
        .batch_execute("SELECT public.of_superuser('x'); INSERT INTO public.watched VALUES ('y')")
        .await
        .unwrap();
    let refused = analyst.batch_execute("SELECT public.of_superuser('x')").await.unwrap_err();
    assert_eq!(refused.as_db_error().unwrap().code().code(), "53400", "{refused:?}");
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
