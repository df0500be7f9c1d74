//! What the database's owner does, who is no superuser, gets neither a message nor the forwarder's rights.

use crate::common::{Way, cluster, ends_with, logins};
use rustix::process::Signal;
use testbed::forwarder::{self, Running};
use testbed::guardian::wait_until;
use tokio_postgres::Client;

/// Gives the database to a role of that name, and connects as it.
async fn owner_of(way: &Way, role: &str) -> Client {
    way.database
        .batch_execute(&format!(
            "DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN; ALTER DATABASE {} OWNER TO {role}",
            way.name
        ))
        .await
        .unwrap();
    cluster().await.connect_as(role, way.name).await.unwrap()
}

/// An operator without a schema is found by the search path, and that of a database is its owner's to set: the code
/// of such operators ran as pgmask_forwarder.
#[tokio::test]
async fn operators_and_types_of_the_owners_are_never_used() {
    let way = Way::new("own_operators").await;
    let owner = owner_of(&way, "owns_operators").await;
    // One of the owner's for each comparison of PostgreSQL's between the types of its catalogs.
    owner
        .batch_execute(
            r#"CREATE SCHEMA mine; GRANT USAGE ON SCHEMA mine TO PUBLIC;
            CREATE SEQUENCE mine.used; GRANT USAGE ON SEQUENCE mine.used TO PUBLIC;
            CREATE DOMAIN mine.text AS pg_catalog.text CHECK (pg_catalog.nextval('mine.used') > 0);
            CREATE DOMAIN mine.int8 AS pg_catalog.int8 CHECK (pg_catalog.nextval('mine.used') > 0);
            DO $$
            DECLARE o record;
            BEGIN
                FOR o IN
                    SELECT oprname, oprleft::regtype AS l, oprright::regtype AS r, oprcode::regproc::text AS f
                    FROM pg_operator
                    WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprresult = 'boolean'::regtype
                        AND oprleft = ANY ('{text,name,"char",oid,integer,bigint,smallint,boolean}'::regtype[])
                        AND oprright = ANY ('{text,name,"char",oid,integer,bigint,smallint,boolean}'::regtype[])
                LOOP
                    EXECUTE format('CREATE FUNCTION mine.%I(%s, %s) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS
                        $f$ BEGIN PERFORM nextval(''mine.used''); RETURN $1 OPERATOR(pg_catalog.%s) $2; END $f$',
                        o.f, o.l, o.r, o.oprname);
                    EXECUTE format('CREATE OPERATOR mine.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = mine.%I)',
                        o.oprname, o.l, o.r, o.f);
                END LOOP;
            END $$;
            ALTER DATABASE own_operators SET search_path = mine, pg_catalog, public"#,
        )
        .await
        .unwrap();
    let used = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM mine.used";
    // They are what a bare operator means now.
    let again = cluster().await.connect_as("owns_operators", way.name).await.unwrap();
    again.batch_execute("SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_mask'").await.unwrap();
    let before = way.count(used).await;
    assert!(before > 0);

    way.queue.send(&logins(0..20)).await.unwrap();
    way.drained().await;
    let mut check = way.forwarder().await;
    check.arg("check");
    let ended = forwarder::run(check).await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    way.holds_each_once(20).await;
    assert_eq!(way.count(used).await, before, "code of the owner's ran as pgmask_forwarder");
}

/// Who owns the database may make a schema pgmask of their own once a superuser has dropped the extension. A forwarder that ran
/// handed it the messages, and deleted them from the queue.
#[tokio::test]
async fn a_schema_in_the_place_of_the_extensions_gets_no_message() {
    let way = Way::new("own_schema").await;
    let owner = owner_of(&way, "owns_schema").await;
    let mut command = way.forwarder().await;
    command.args(["--writers=1", "--shutdown-grace=1s"]);
    let running = Running::start(command).unwrap();
    way.queue.send(&logins(0..10)).await.unwrap();
    way.rows(10).await;
    way.database
        .batch_execute(
            "BEGIN;
             DROP EXTENSION pg_mask CASCADE; DROP TABLE public.user_logins;
             SET LOCAL ROLE owns_schema;
             CREATE SCHEMA pgmask; GRANT USAGE ON SCHEMA pgmask TO PUBLIC;
             CREATE TABLE pgmask.got (body text);
             CREATE FUNCTION pgmask.ingest_login_batch(message_ids text[], bodies text[], sent_at timestamptz[], receive_counts int[],
                 OUT inserted bigint, OUT duplicate bigint, OUT quarantined bigint) LANGUAGE plpgsql SECURITY DEFINER AS $$
             BEGIN
                 INSERT INTO pgmask.got SELECT pg_catalog.unnest(bodies);
                 inserted := pg_catalog.cardinality(message_ids); duplicate := 0; quarantined := 0;
             END $$;
             COMMIT",
        )
        .await
        .unwrap();
    way.queue.send(&logins(10..20)).await.unwrap();
    let is_not = || async { !running.get("/readyz").await.contains("200 OK") };
    wait_until("it is not ready", is_not).await.unwrap();
    // One that PostgreSQL may call while it plans the statement, if nothing in its arguments keeps it from that.
    owner
        .batch_execute(
            "DROP FUNCTION pgmask.ingest_login_batch;
             CREATE SEQUENCE pgmask.called; GRANT USAGE ON SEQUENCE pgmask.called TO PUBLIC;
             CREATE TYPE pgmask.counts AS (inserted bigint, duplicate bigint, quarantined bigint);
             CREATE FUNCTION pgmask.ingest_login_batch(text[], text[], timestamptz[], int[]) RETURNS pgmask.counts
                 IMMUTABLE LANGUAGE plpgsql SET search_path = pg_catalog AS $$
             BEGIN
                 IF $2 IS NOT NULL THEN PERFORM nextval('pgmask.called'); END IF;
                 RETURN ROW(cardinality($1), 0, 0);
             END $$",
        )
        .await
        .unwrap();
    let failed = async || running.metric("pg_mask_forwarder_database_errors_total{class=\"08\"}").await;
    let before = failed().await;
    let fails_again = || async { failed().await > before + 2 };
    wait_until("more batches are refused", fails_again).await.unwrap();
    running.signal(Signal::TERM).unwrap();
    let ended = running.ended().await.unwrap();
    assert_eq!(ended.summary["deleted"], 10, "{}", ended.log);
    assert_eq!(way.count("SELECT count(*) FROM pgmask.got").await, 0);
    let called = "SELECT count(*) FROM pgmask.called WHERE is_called";
    assert_eq!(way.count(called).await, 0);
    let [visible, in_flight, delayed] = way.queue.depth().await.unwrap();
    assert_eq!(visible + in_flight + delayed, 10, "nothing is lost");
}

/// A transaction that reads the catalogs as they were would not see in time that the schema is another's.
#[tokio::test]
async fn no_message_is_handed_over_by_what_was_so_before() {
    let way = Way::new("read_as_it_was").await;
    way.database
        .batch_execute(
            "ALTER DATABASE read_as_it_was SET default_transaction_isolation = 'repeatable read';
             DROP ROLE IF EXISTS reads_as_it_was; CREATE ROLE reads_as_it_was LOGIN IN ROLE pgmask_ingester",
        )
        .await
        .unwrap();
    way.queue.send(&logins(0..5)).await.unwrap();
    let mut command = way.drain().await;
    command.env("DATABASE_URL", cluster().await.url("reads_as_it_was", way.name));
    ends_with(command, 78, "default_transaction_isolation").await;
    // sql/00_roles.sql sets it for the forwarder's own role.
    way.drained().await;
    way.holds_each_once(5).await;
}
