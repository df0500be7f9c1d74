//! What users set counts for nothing that pg_mask protects.

use super::{INGEST, is_refused, member};
use crate::common::{cluster, count, message};
use testbed::cluster::Cluster;
use tokio_postgres::NoTls;

#[tokio::test]
async fn what_a_user_sets_before_the_library_is_loaded_does_not_count() {
    let cluster = cluster().await;
    let admin = cluster.database("set_before").await.unwrap();
    member(&admin, "sets_before", "pgmask_ingester").await;
    let client = cluster.connect_as("sets_before", "set_before").await.unwrap();
    // No session knows these settings until the library is loaded; then they are refused.
    client
        .batch_execute("SET pgmask.login_table = 'public.mine'; SET pgmask.keyring_file = 'mine.json'")
        .await
        .unwrap();
    client.batch_execute(INGEST).await.unwrap();
    assert_eq!(count(&admin, "SELECT count(*) FROM user_logins").await, 1);
}

/// Until the library is loaded, a session takes any value for its settings; one that a client gave as it connected
/// counted more than postgresql.conf's, and with the library came the built-in default instead of that.
#[tokio::test]
async fn what_a_client_sets_as_it_connects_does_not_displace_what_the_dba_set() {
    let cluster = Cluster::start_with_clock(&["pgmask.login_table = 'public.elsewhere'"]).await.unwrap();
    let admin = cluster.database("displaced").await.unwrap();
    admin
        .batch_execute(
            "CREATE TABLE elsewhere (LIKE user_logins); GRANT INSERT ON elsewhere TO pgmask_writer;
             CREATE ROLE ingests LOGIN IN ROLE pgmask_ingester;
             CREATE ROLE guesses LOGIN IN ROLE pgmask_analyst; ALTER ROLE guesses SET pgmask.guess_limit = 3;
             CREATE ROLE trusted LOGIN IN ROLE pgmask_analyst; GRANT SET ON PARAMETER pgmask.guess_limit TO trusted",
        )
        .await
        .unwrap();
    let connect = async |user: &str, setting: &str| {
        let url = format!("{}?options=-c%20{setting}", cluster.url(user, "displaced"));
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    };
    let mask = "SELECT count(mask_pii(n::text)) FROM generate_series(1, 5) AS n";
    for setting in
        ["pgmask.login_table%3dpublic.user_logins", "PgMask.Login_Table%3dx", "pgmask.ledger_days%3d1"]
    {
        let ingests = connect("ingests", setting).await;
        is_refused(&ingests, INGEST).await;
        is_refused(&ingests, "SELECT ingest_login('{\"user_id\": 1}')").await;
        is_refused(&ingests, INGEST).await; // the library is asked for again
    }
    let guesses = connect("guesses", "pgmask.guess_limit%3d1000").await;
    is_refused(&guesses, mask).await;
    let guesses = connect("guesses", "application_name%3dx").await;
    let error = message(&guesses.batch_execute(mask).await.unwrap_err());
    assert!(error.starts_with("53400 "), "{error}");
    // Who may set it may do so here, too.
    connect("trusted", "pgmask.guess_limit%3d4").await.batch_execute("SELECT mask_pii('x')").await.unwrap();
    connect("postgres", "pgmask.login_table%3dpublic.user_logins").await.batch_execute(INGEST).await.unwrap();
    assert_eq!(count(&admin, "SELECT count(*) FROM user_logins").await, 1);
    assert_eq!(count(&admin, "SELECT count(*) FROM elsewhere").await, 0);
    cluster
        .connect_as("ingests", "displaced")
        .await
        .unwrap()
        .batch_execute("SELECT ingest_login('{\"user_id\": 1}')")
        .await
        .unwrap();
    assert_eq!(count(&admin, "SELECT count(*) FROM elsewhere").await, 1);
}

#[tokio::test]
async fn settings_that_code_of_the_table_changes_are_put_back() {
    let cluster = cluster().await;
    let admin = cluster.database("put_back").await.unwrap();
    admin
        .batch_execute(
            "DROP ROLE IF EXISTS sets_things; CREATE ROLE sets_things LOGIN;
             ALTER TABLE user_logins OWNER TO sets_things;
             CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM set_config('search_path', 'traps', false), set_config('work_mem', '64kB', false),
                  set_config('synchronous_commit', 'off', false); RETURN NEW; END $$;
             CREATE TRIGGER meddle BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION meddle();",
        )
        .await
        .unwrap();
    admin.batch_execute(INGEST).await.unwrap();
    admin.batch_execute("SELECT ingest_login('{\"user_id\": 2}')").await.unwrap();
    let changed = "SELECT count(*) FROM pg_settings
        WHERE name IN ('search_path', 'work_mem', 'synchronous_commit') AND source = 'session'";
    assert_eq!(count(&admin, changed).await, 0);
}
