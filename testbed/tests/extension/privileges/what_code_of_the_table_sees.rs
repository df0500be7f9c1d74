//! Code of the login table sees the row, and nothing of the message; what the server says of other commands stays as it is.

use super::code_of_the_table::{mallory, times};
use super::{INGEST, member};
use crate::common::{cluster, count, texts};
use testbed::cluster::Cluster;

/// However a message is sent, code of the table is not shown it.
#[tokio::test]
async fn code_of_the_table_sees_no_message() {
    let cluster = cluster().await;
    let admin = cluster.database("sees_no_message").await.unwrap();
    admin
        .batch_execute(
            "CREATE TABLE seen (what text); GRANT INSERT ON seen TO pgmask_writer;
             CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS
             $$ DECLARE context text; BEGIN
                 GET DIAGNOSTICS context = PG_CONTEXT;
                 INSERT INTO public.seen VALUES (context);
                 INSERT INTO public.seen SELECT current_query() UNION ALL SELECT query FROM pg_stat_activity
                     UNION ALL SELECT statement FROM pg_cursors
                     UNION ALL SELECT row_to_json(NEW)::text;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER spy BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION spy()",
        )
        .await
        .unwrap();
    member(&admin, "sends_messages", "pgmask_ingester").await;
    let client = cluster.connect_as("sends_messages", "sees_no_message").await.unwrap();
    let sql = "SELECT * FROM pgmask.ingest_login_batch('{a, b}', '{\"{\\\"user_id\\\":1,\\\"ip\\\":\\\"203.0.113.77\\\"}\", bad}',
        '{NULL, NULL}', '{1, 1}')";
    client.batch_execute(sql).await.unwrap();
    client.query(&sql.replace("{a, b}", "{c, d}"), &[]).await.unwrap();
    client
        .batch_execute("SELECT pgmask.ingest_login('{\"user_id\":1,\"ip\":\"203.0.113.77\"}')")
        .await
        .unwrap();
    client
        .batch_execute(
            "DO $$ BEGIN PERFORM pgmask.ingest_login('{\"user_id\":1,\"ip\":\"203.0.113.77\"}'); END $$",
        )
        .await
        .unwrap();
    client
        .batch_execute(&format!("BEGIN; DECLARE c CURSOR FOR {}; FETCH c", sql.replace("{a, b}", "{e, f}")))
        .await
        .unwrap();
    // Another cursor, not the one that runs; and parameters, which an error would show.
    client.batch_execute("SELECT pgmask.ingest_login('{\"user_id\":1}')").await.unwrap();
    client.batch_execute("SET log_parameter_max_length_on_error = -1").await.unwrap();
    let parameter: &(dyn tokio_postgres::types::ToSql + Sync) = &"{\"user_id\":1,\"ip\":\"203.0.113.77\"}";
    client.query("SELECT pgmask.ingest_login($1::text::jsonb)", &[parameter]).await.unwrap();
    let there = "SELECT count(*) FROM pg_cursors WHERE name = 'c' AND statement LIKE '%203.0.113.77%'";
    assert_eq!(count(&client, there).await, 1, "its client sees it again");
    client.batch_execute("COMMIT").await.unwrap();
    assert!(count(&admin, "SELECT count(*) FROM seen").await >= 5);
    assert_eq!(count(&admin, "SELECT count(*) FROM seen WHERE what LIKE '%203.0.113.77%'").await, 0);
    // After an error it is there again, for the log.
    let current = "SELECT count(*) FROM (SELECT current_query() LIKE '%shown again%') AS q(so) WHERE q.so";
    assert_eq!(count(&client, &format!("{current} -- shown again")).await, 1);
}

/// Nor can it be found out by a command that compares its own text with it: where a function's body can't be parsed, the error
/// says where in the client's statement it is.
#[tokio::test]
async fn code_of_the_table_guesses_no_message() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "guesses_no_message").await;
    admin.batch_execute("GRANT TRIGGER ON user_logins TO mallory").await.unwrap();
    mallory
        .batch_execute(
            r#"CREATE TABLE mallory.said (what text);
             CREATE FUNCTION mallory.tries() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ DECLARE context text; BEGIN
                 FOR n IN 1..9 LOOP
                     BEGIN
                         EXECUTE format('CREATE FUNCTION mallory.x() RETURNS void LANGUAGE plpgsql AS %L', format('{"user_id":"u","ip":"10.0.0.%s"}', n));
                     EXCEPTION WHEN OTHERS THEN
                         GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
                         INSERT INTO mallory.said VALUES (context);
                     END;
                 END LOOP;
                 RETURN NEW; END $$;
             CREATE TRIGGER t BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.tries()"#,
        )
        .await
        .unwrap();
    admin.batch_execute(r#"SELECT pgmask.ingest_login('{"user_id":"u","ip":"10.0.0.5"}')"#).await.unwrap();
    assert_eq!(count(&admin, "SELECT count(*) FROM mallory.said").await, 9);
    let different = "SELECT count(DISTINCT regexp_replace(what, '10.0.0.[0-9]', '')) FROM mallory.said";
    assert_eq!(count(&admin, different).await, 1);
}

/// A cursor of the client's says by WHERE CURRENT OF which row it is at, and what columns it has.
#[tokio::test]
async fn code_of_the_table_learns_nothing_of_the_clients_cursor() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "at_a_row").await;
    admin.batch_execute("GRANT TRIGGER ON user_logins TO mallory").await.unwrap();
    mallory
        .batch_execute(
            "GRANT USAGE ON SCHEMA mallory TO PUBLIC; CREATE TABLE mallory.said (what text); GRANT INSERT ON mallory.said TO PUBLIC;
             CREATE TABLE mallory.t (n integer); INSERT INTO mallory.t SELECT generate_series(1, 5); GRANT SELECT, UPDATE ON mallory.t TO PUBLIC;
             CREATE FUNCTION mallory.asks() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE step text; said text; BEGIN
                 PERFORM nextval('mallory.ran');
                 FOREACH step IN ARRAY ARRAY['UPDATE mallory.t SET n = n WHERE CURRENT OF its RETURNING n',
                     'SELECT cursor_to_xmlschema(''its'', false, false, '''')'] LOOP
                     BEGIN
                         EXECUTE step INTO said;
                         INSERT INTO mallory.said VALUES (step || ': ' || said);
                     EXCEPTION WHEN OTHERS THEN NULL; END;
                 END LOOP;
                 RETURN NEW; END $$;
             CREATE TRIGGER t BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.asks()",
        )
        .await
        .unwrap();
    for locks in ["", "FOR UPDATE"] {
        let opens =
            format!("BEGIN; DECLARE its CURSOR FOR SELECT n FROM mallory.t WHERE n = 3 {locks}; FETCH its");
        admin.batch_execute(&opens).await.unwrap();
        admin.batch_execute("SELECT pgmask.ingest_login('{\"user_id\": \"u\"}')").await.unwrap();
        // It is the client's again.
        let row = "UPDATE mallory.t SET n = n WHERE CURRENT OF its RETURNING n::text";
        assert_eq!(texts(&admin, row).await, ["3"]);
        admin.batch_execute("COMMIT").await.unwrap();
    }
    assert_eq!(times(&admin).await, 2);
    assert_eq!(texts(&admin, "SELECT what FROM mallory.said").await, [""; 0]);
}

/// Commands pass through pg_mask on their way; their errors keep the fields that a client reads, and a procedure may
/// commit.
#[tokio::test]
async fn what_other_commands_say_stays_as_it_is() {
    let client = cluster().await.database("other_commands").await.unwrap();
    client.batch_execute(INGEST).await.unwrap();
    let error = client
        .batch_execute("ALTER TABLE user_logins ADD CONSTRAINT of_nobody CHECK (user_id = 'nobody')")
        .await
        .unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!([error.constraint(), error.table()], [Some("of_nobody"), Some("user_logins")]);
    let error = client.batch_execute("CREATE VIEW v AS SELECT no_such_column").await.unwrap_err();
    let at = tokio_postgres::error::ErrorPosition::Original(25);
    assert_eq!(error.as_db_error().unwrap().position(), Some(&at));
    client
        .batch_execute(
            "CREATE TABLE kept (n int);
             CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO kept VALUES (1); COMMIT; INSERT INTO kept VALUES (1 / 0);
             END $$",
        )
        .await
        .unwrap();
    let error = client.batch_execute("CALL commits()").await.unwrap_err();
    assert!(error.as_db_error().unwrap().where_().unwrap().contains("commits()"));
    assert_eq!(count(&client, "SELECT count(*) FROM kept").await, 1);
    // What a refresh makes that has nothing to do with pg_mask, it may.
    client
        .batch_execute(
            "CREATE FUNCTION makes() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
                 DROP TYPE IF EXISTS public.made; CREATE TYPE public.made AS ENUM ('a'); RETURN 1; END $$;
             CREATE MATERIALIZED VIEW made_by AS SELECT makes(); REFRESH MATERIALIZED VIEW made_by;
             CREATE MATERIALIZED VIEW of_analysts AS SELECT 1 AS a; ALTER MATERIALIZED VIEW of_analysts OWNER TO pgmask_analyst;
             REFRESH MATERIALIZED VIEW of_analysts",
        )
        .await
        .unwrap();
}
