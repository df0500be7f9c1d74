//! The hour that a budget is for: when it ends, and what a session had drawn before.

use super::{PRELOADED, masked_one_by_one};
use crate::common::{count, message};
use testbed::cluster::Cluster;

#[tokio::test]
async fn an_hour_ends_when_it_was_said_to() {
    let settings = [PRELOADED, "pgmask.guess_limit = 10"];
    let cluster = Cluster::start_with_clock(&settings).await.unwrap();
    let admin = cluster.database("guesses").await.unwrap();
    admin.batch_execute("CREATE ROLE analyst LOGIN; GRANT pgmask_analyst TO analyst").await.unwrap();
    let analyst = cluster.connect_as("analyst", "guesses").await.unwrap();
    let other = cluster.connect_as("analyst", "guesses").await.unwrap();
    assert_eq!(masked_one_by_one(&analyst, 0, 50).await, 10);
    for second in [601, 1800, 3590] {
        cluster.set_clock(second).unwrap();
        let again_at = crate::common::texts(
            &admin,
            "SELECT to_char(date_trunc('hour', clock_timestamp() AT TIME ZONE 'UTC') + interval '1 hour', 'HH24:MI') || ' UTC'",
        )
        .await;
        for client in [&analyst, &other] {
            let error = message(&client.batch_execute("SELECT mask_pii('x')").await.unwrap_err());
            assert!(error.contains(&format!("it may go on at {}", again_at[0])), "{error}");
        }
    }
    for hour in 1..4 {
        cluster.set_clock(hour * 3600 + 1).unwrap();
        assert_eq!(masked_one_by_one(&other, 100, 6).await, 6);
        assert_eq!(masked_one_by_one(&analyst, 200, 50).await, 4, "one budget for both, in hour {hour}");
    }
    for hour in [2, 1] {
        cluster.set_clock(hour * 3600 + 1).unwrap();
        assert_eq!(masked_one_by_one(&analyst, 300, 50).await, 0, "the clock was set back to hour {hour}");
    }
    // A clock that was days ahead for a moment does not keep anybody out until then.
    cluster.set_clock(60 * 3600 + 1).unwrap();
    assert_eq!(masked_one_by_one(&analyst, 400, 50).await, 10);
    cluster.set_clock(5 * 3600 + 1).unwrap();
    assert_eq!(masked_one_by_one(&analyst, 500, 50).await, 10);
}

/// What sessions had drawn before an hour's end they used in the next one, beside its whole budget: 16,930 values in one
/// hour.
#[tokio::test]
async fn a_portion_ends_with_its_hour() {
    let settings = [PRELOADED, "pgmask.guess_limit = 1000"];
    let cluster = Cluster::start_with_clock(&settings).await.unwrap();
    let admin = cluster.database("guesses").await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE analyst LOGIN; GRANT pgmask_analyst TO analyst; SELECT pg_advisory_lock(1)",
        )
        .await
        .unwrap();
    let mut idle = Vec::new();
    for n in 0..10 {
        let client = cluster.connect_as("analyst", "guesses").await.unwrap();
        assert_eq!(masked_one_by_one(&client, n, 1).await, 1);
        idle.push(client);
    }
    // One is in the midst of a statement when the hour ends.
    let midst = cluster.connect_as("analyst", "guesses").await.unwrap();
    let working = tokio::spawn(async move {
        let sql = "DO $$ DECLARE masked int := 0; BEGIN
            PERFORM mask_pii('10.9.0.0'); PERFORM pg_advisory_lock_shared(1);
            FOR n IN 1..20 LOOP
                BEGIN
                    PERFORM mask_pii('10.9.0.' || n);
                    masked := masked + 1;
                EXCEPTION WHEN configuration_limit_exceeded THEN NULL;
                END;
            END LOOP;
            PERFORM set_config('mine.masked', masked::text, false); END $$";
        midst.batch_execute(sql).await.unwrap();
        count(&midst, "SELECT current_setting('mine.masked')::bigint").await
    });
    let waits = || async { count(&admin, "SELECT count(*) FROM pg_locks WHERE NOT granted").await == 1 };
    testbed::guardian::wait_until("the statement waits", waits).await.unwrap();
    cluster.set_clock(3601).unwrap();
    let fresh = cluster.connect_as("analyst", "guesses").await.unwrap();
    assert_eq!(masked_one_by_one(&fresh, 1000, 1010).await, 1000);
    for client in &idle {
        assert_eq!(masked_one_by_one(client, 100, 20).await, 0);
    }
    admin.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
    assert_eq!(working.await.unwrap(), 0);
}
