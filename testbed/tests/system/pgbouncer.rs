//! A pooler in transaction mode may stand between, as it comes.

use crate::common::{Way, cluster, counts};
use testbed::forwarder;
use testbed::pgbouncer::PgBouncer;

#[tokio::test]
async fn many_writers_share_few_connections() {
    let way = Way::new("through_pgbouncer").await;
    // Slow enough for the writers to meet in the pooler.
    way.database
        .batch_execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(0.03); RETURN NULL; END $$;
             CREATE TRIGGER slow AFTER INSERT ON user_logins EXECUTE FUNCTION slow()",
        )
        .await
        .unwrap();
    let pooler = PgBouncer::start(cluster().await, 2, &["pgmask_forwarder"]).await.unwrap();
    let bodies: Vec<String> = (0..400).map(|n| format!(r#"{{"user_id":"u{n}"}}"#)).collect();
    way.queue.send(&bodies).await.unwrap();
    let mut command = way.drain().await;
    command.env("DATABASE_URL", pooler.url("pgmask_forwarder", way.name));
    command.args(["--writers=8", "--batch-messages=10"]);
    let ended = forwarder::run(command).await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(counts(&ended.summary), [400, 400, 0, 0, 400], "{}", ended.log);
    assert!(!ended.log.contains("trying again"), "{}", ended.log);
    assert_eq!(way.count("SELECT count(DISTINCT user_id) FROM user_logins").await, 400);

    let mut command = way.drain().await;
    command.env("DATABASE_URL", pooler.url("pgmask_forwarder", way.name)).args(["check", "--output=json"]);
    let ended = forwarder::run(command).await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.printed);
    // Nothing of the check stays behind in the sessions that others get next.
    let open =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
    assert_eq!(way.count(open).await, 0);
}
