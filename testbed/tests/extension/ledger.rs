//! The ledger gives each message its effect once, for as long as SQS may bring it again.

use crate::common::{cluster, count, ingest, message, texts, try_ingest};
use tokio::task::JoinSet;

fn login(n: usize) -> (String, String) {
    (format!("id {n}"), format!(r#"{{"user_id":"{n}"}}"#))
}

#[tokio::test]
async fn a_message_twice_in_a_batch_is_taken_in_once() {
    let client = cluster().await.database("twice_in_a_batch").await.unwrap();
    let body = |user| format!(r#"{{"user_id":{user}}}"#);
    let messages =
        [("b", body(1)), ("a", body(2)), ("b", body(3)), ("c", String::new()), ("c", String::new())];
    assert_eq!(ingest(&client, &messages).await, [2, 2, 1]);
    assert_eq!(ingest(&client, &messages).await, [0, 5, 0]);
    let rows = "SELECT count(*) FROM user_logins WHERE user_id IN ('1', '2') AND create_date = '2026-11-20'";
    assert_eq!(count(&client, rows).await, 2);
}

#[tokio::test]
async fn ids_are_told_apart_whatever_they_are() {
    let client = cluster().await.database("odd_ids").await.unwrap();
    let long = "x".repeat(100_000);
    let ids = [
        "d1d1d1d1-0000-4000-8000-000000000001",
        "D1D1D1D1-0000-4000-8000-000000000001",
        "d1d1d1d1000040008000000000000001",
        "{d1d1d1d1-0000-4000-8000-000000000001}",
        "d1d1d1d1-0000-8000-8000-000000000001",
        "",
        " ",
        "a",
        "A",
        "ä",
        "'; DROP TABLE user_logins; --",
        &long,
    ];
    let messages = ids.map(|id| (id, r#"{"user_id":"u"}"#));
    assert_eq!(ingest(&client, &messages).await, [ids.len() as i64, 0, 0]);
    assert_eq!(ingest(&client, &messages).await, [0, ids.len() as i64, 0]);
}

/// What the forwarder can't believe it leaves out; others may give anything.
#[tokio::test]
async fn clocks_may_say_anything() {
    let client = cluster().await.database("mad_clocks").await.unwrap();
    let mad = [
        "1970-01-01 00:00:00+00",
        "1969-12-31 23:59:59+00",
        "1970-01-21 18:40:48.000123+00", // seconds taken for milliseconds
        "0001-01-01 BC",
        "4713-01-01 BC",
        "infinity",
        "-infinity",
        "294276-12-31 23:59:59.999999+00",
        "56000-01-01", // milliseconds taken for seconds
    ];
    for (n, sent_at) in mad.into_iter().enumerate() {
        assert_eq!(try_ingest(&client, &[login(n)], sent_at).await.unwrap(), [1, 0, 0], "{sent_at}");
        assert_eq!(try_ingest(&client, &[login(n)], sent_at).await.unwrap(), [0, 1, 0], "{sent_at}");
    }
    let today = "SELECT count(*) FROM user_logins WHERE create_date = (now() AT TIME ZONE 'UTC')::date";
    assert_eq!(count(&client, today).await, mad.len() as i64);
    // The date is UTC's, whatever the session's time zone.
    client.batch_execute("TRUNCATE user_logins; SET TimeZone = 'Pacific/Kiritimati'").await.unwrap();
    try_ingest(&client, &[("late", r#"{"user_id":"u"}"#)], "2026-11-20 23:59:59.999999+00").await.unwrap();
    try_ingest(&client, &[("early", r#"{"user_id":"u"}"#)], "2026-11-20 00:00:00+00").await.unwrap();
    assert_eq!(texts(&client, "SELECT DISTINCT create_date::text FROM user_logins").await, ["2026-11-20"]);
}

#[tokio::test]
async fn maintenance_makes_days_ahead_and_drops_old_ones() {
    let client = cluster().await.database("maintained_days").await.unwrap();
    let day = |ago: i64| {
        let sql = format!("SELECT ((now() AT TIME ZONE 'UTC')::date - {ago})::text");
        let client = &client;
        async move { texts(client, &sql).await.remove(0) }
    };
    // Before any partition is there, all goes to the default one.
    for (n, ago) in [(0, 0), (1, 10), (2, 20)] {
        assert_eq!(try_ingest(&client, &[login(n)], &day(ago).await).await.unwrap(), [1, 0, 0]);
    }
    let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'pgmask.ledger'::regclass";
    assert_eq!(count(&client, partitions).await, 1);
    let run = async || {
        let row = client.query_one("SELECT created, dropped FROM pgmask.maintain()", &[]).await.unwrap();
        (row.get::<_, i32>(0), row.get::<_, i32>(1))
    };
    assert_eq!(run().await, (4, 0));
    assert_eq!(run().await, (0, 0));
    // What was taken in today is remembered, however old it is: it was moved, not forgotten.
    for (n, ago) in [(0, 0), (1, 10), (2, 20)] {
        assert_eq!(
            try_ingest(&client, &[login(n)], &day(ago).await).await.unwrap(),
            [0, 1, 0],
            "{ago} days ago"
        );
    }
    assert_eq!(try_ingest(&client, &[login(4)], &day(-1).await).await.unwrap(), [1, 0, 0]);
    let in_default = "SELECT count(*) FROM pgmask.ledger_default";
    assert_eq!(count(&client, in_default).await, 2);

    // Days go by: as if all of it had been made and taken in 16 days earlier.
    let rename = "SELECT format('ALTER TABLE pgmask.ledger DETACH PARTITION mask_ledger.%1$I; DELETE FROM mask_ledger.%1$I;
            ALTER TABLE mask_ledger.%1$I RENAME TO %2$I;
            ALTER TABLE pgmask.ledger ATTACH PARTITION mask_ledger.%2$I FOR VALUES FROM (%3$L) TO (%4$L)',
            relname, 'day_' || to_char(d - 16, 'YYYYMMDD'), d - 16, d - 15)
        FROM pg_class, LATERAL to_date(substr(relname, 5), 'YYYYMMDD') d
        WHERE relnamespace = 'mask_ledger'::regnamespace AND relkind = 'r' ORDER BY relname";
    for sql in texts(&client, rename).await {
        client.batch_execute(&sql).await.unwrap();
    }
    client.batch_execute("UPDATE pgmask.ledger_default SET taken_day = taken_day - 16").await.unwrap();
    assert_eq!(run().await, (4, 1)); // the day 16 ago; the one 15 ago may still be wanted
    assert_eq!(count(&client, in_default).await, 0);
    client.batch_execute("SET pgmask.ledger_days = 12").await.unwrap();
    assert_eq!(run().await, (0, 3));
    // A message of today is still known after all that, if it was taken in since.
    try_ingest(&client, &[login(5)], &day(0).await).await.unwrap();
    run().await;
    assert_eq!(try_ingest(&client, &[login(5)], &day(0).await).await.unwrap(), [0, 1, 0]);
}

#[tokio::test]
async fn a_partition_that_could_not_tell_duplicates_is_found() {
    let client = cluster().await.database("loose_partition").await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE loose PARTITION OF pgmask.ledger FOR VALUES FROM ('2020-01-01') TO ('2020-02-01')",
        )
        .await
        .unwrap();
    let error = message(&client.batch_execute("SELECT pgmask.maintain()").await.unwrap_err());
    assert!(
        error.contains("partition \"loose\"") && error.contains("primary key (message_id, sent_day)"),
        "{error}"
    );
    for useless in ["(message_id) WHERE false", "(message_id, taken_day)", "((message_id::text))"] {
        client.batch_execute(&format!("CREATE UNIQUE INDEX useless ON loose {useless}")).await.unwrap();
        let error = message(&client.batch_execute("SELECT pgmask.maintain()").await.unwrap_err());
        assert!(error.contains("partition \"loose\""), "{useless}: {error}");
        client.batch_execute("DROP INDEX useless").await.unwrap();
    }
    client.batch_execute("ALTER TABLE loose ADD PRIMARY KEY (message_id, sent_day)").await.unwrap();
    client.batch_execute("SELECT pgmask.maintain()").await.unwrap();
}

/// Two forwarders carry the same messages in whatever order, and both go on at once.
#[tokio::test(flavor = "multi_thread")]
async fn parallel_writers_never_double_and_never_deadlock() {
    const WRITERS: usize = 6;
    const ROUNDS: usize = 15;
    const MESSAGES: usize = 300;
    let cluster = cluster().await;
    let admin = cluster.database("parallel_writers").await.unwrap();
    admin
        .batch_execute("SELECT pgmask.maintain(); ALTER TABLE user_logins ADD UNIQUE (user_id)")
        .await
        .unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let client = cluster.connect("parallel_writers").await.unwrap();
        client.batch_execute("SET deadlock_timeout = '10ms'").await.unwrap();
        writers.spawn(async move {
            let mut inserted = 0;
            for round in 0..ROUNDS {
                let mut messages: Vec<_> = (0..MESSAGES).map(|n| login(round * MESSAGES + n)).collect();
                messages.rotate_left(writer * 47);
                if writer % 2 == 1 {
                    messages.reverse();
                }
                for part in messages.chunks(MESSAGES / (1 + writer % 3)) {
                    let [new, duplicate, quarantined] = ingest(&client, part).await;
                    assert_eq!((new + duplicate, quarantined), (part.len() as i64, 0));
                    inserted += new;
                }
            }
            inserted
        });
    }
    let inserted: i64 = writers.join_all().await.into_iter().sum();
    let all = (ROUNDS * MESSAGES) as i64;
    assert_eq!(inserted, all);
    assert_eq!(count(&admin, "SELECT count(*) FROM user_logins").await, all);
    assert_eq!(
        count(&admin, "SELECT deadlocks FROM pg_stat_database WHERE datname = 'parallel_writers'").await,
        0
    );
}

#[tokio::test]
async fn maintenance_leaves_partitions_of_others_alone() {
    let client = cluster().await.database("others_partitions").await.unwrap();
    client
        .batch_execute(
            "DO $$ DECLARE p record; BEGIN
                 FOR p IN VALUES ('live', '2027-01-01', '2027-02-01'), ('odd99991231', '2027-02-01', '2027-02-02'),
                     ('month_202612', '2027-03-01', '2027-04-01'), ('day_20200101', '2027-04-01', '2027-04-02') LOOP
                     EXECUTE format('CREATE TABLE mask_ledger.%I (LIKE pgmask.ledger, PRIMARY KEY (message_id, sent_day));
                         ALTER TABLE pgmask.ledger ATTACH PARTITION mask_ledger.%1$I FOR VALUES FROM (%2$L) TO (%3$L)', p.column1, p.column2, p.column3);
                 END LOOP; END $$",
        )
        .await
        .unwrap();
    let row = client.query_one("SELECT created, dropped FROM pgmask.maintain()", &[]).await.unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1)), (4, 0));
    // One that covers days to come: those are left to it.
    client
        .batch_execute(
            "DO $$ BEGIN EXECUTE format('ALTER TABLE pgmask.ledger DETACH PARTITION mask_ledger.%I',
        'day_' || to_char((now() AT TIME ZONE 'UTC')::date + 3, 'YYYYMMDD')); END $$",
        )
        .await
        .unwrap();
    let row = client.query_one("SELECT created, dropped FROM pgmask.maintain()", &[]).await.unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1)), (0, 0));
}

/// A session that has not used pg_mask yet takes any text for the setting; cron's is such a one.
#[tokio::test]
async fn a_setting_out_of_range_drops_nothing() {
    let client = cluster().await.database("odd_setting").await.unwrap();
    client.batch_execute("SELECT pgmask.maintain()").await.unwrap();
    try_ingest(&client, &[login(1)], "now").await.unwrap();
    for odd in ["-3", "0", "x", "", "100000000"] {
        let cron = cluster().await.connect("odd_setting").await.unwrap();
        cron.batch_execute(&format!("SET pgmask.ledger_days = '{odd}'")).await.unwrap();
        let row = cron.query_one("SELECT created, dropped FROM pgmask.maintain()", &[]).await.unwrap();
        assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1)), (0, 0), "{odd:?}");
    }
    assert_eq!(try_ingest(&client, &[login(1)], "now").await.unwrap(), [0, 1, 0]);
}
