//! The ledger gives each message its effect once, for as long as SQS may bring it again.

use crate::common::{cluster, count, ingest, message, texts, try_ingest};
use testbed::guardian::wait_until;
use tokio::task::JoinSet;
use tokio_postgres::Client;

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
    let apart = "SELECT count(*) FROM pgmask.ledger_32";
    assert_eq!(count(&client, apart).await, mad.len() as i64);
    let none = "SELECT inserted FROM pgmask.ingest_login_batch('{none}', '{\"{\\\"user_id\\\":\\\"none\\\"}\"}', '{NULL}', '{1}')";
    assert_eq!([count(&client, none).await, count(&client, none).await], [1, 0]);
    client.batch_execute("DELETE FROM user_logins WHERE user_id = 'none'").await.unwrap();
    let today = "SELECT count(*) FROM user_logins WHERE create_date = (now() AT TIME ZONE 'UTC')::date";
    assert_eq!(count(&client, today).await, mad.len() as i64);
    // The date is UTC's, whatever the session's time zone.
    client.batch_execute("TRUNCATE user_logins; SET TimeZone = 'Pacific/Kiritimati'").await.unwrap();
    try_ingest(&client, &[("late", r#"{"user_id":"u"}"#)], "2026-11-20 23:59:59.999999+00").await.unwrap();
    try_ingest(&client, &[("early", r#"{"user_id":"u"}"#)], "2026-11-20 00:00:00+00").await.unwrap();
    assert_eq!(texts(&client, "SELECT DISTINCT create_date::text FROM user_logins").await, ["2026-11-20"]);
}

/// What `maintain()` did: how many slots it emptied, how many rows it deleted besides.
async fn maintain(client: &Client) -> (i32, i64) {
    let row =
        client.query_one("SELECT slots_emptied, rows_deleted FROM pgmask.maintain()", &[]).await.unwrap();
    (row.get(0), row.get(1))
}

/// Lets days go by: everything that is there is so much older.
async fn pass(client: &Client, days: i32) {
    let moved =
        |slot: &str| format!("CASE WHEN {slot} = 32 THEN 32 ELSE ({slot} + 32 - {days} % 32) % 32 END");
    let sql = format!(
        "UPDATE pgmask.ledger SET slot = {}, taken_day = taken_day - {days};
         UPDATE pgmask.ledger_slot AS s SET look_when_old = was.look_when_old - {days}
         FROM pgmask.ledger_slot AS was WHERE s.slot = {}",
        moved("slot"),
        moved("was.slot")
    );
    client.batch_execute(&sql).await.unwrap();
}

/// Takes in a message that was sent so many days ago: was it new?
async fn is_new(client: &Client, id: &str, days_ago: i32) -> bool {
    let sent_at = format!("SELECT ((now() AT TIME ZONE 'UTC')::date - {days_ago})::text || ' 12:00+00'");
    let sent_at = texts(client, &sent_at).await.remove(0);
    let [inserted, duplicate, _] = try_ingest(client, &[(id, r#"{"user_id":"u"}"#)], &sent_at).await.unwrap();
    assert_eq!(inserted + duplicate, 1);
    inserted == 1
}

const KNOWN: &str = "SELECT count(*) FROM pgmask.ledger";

#[tokio::test]
async fn the_ring_is_made_once_and_belongs_to_the_extension() {
    let client = cluster().await.database("ring").await.unwrap();
    let partitions = "SELECT string_agg(i.inhrelid::text, ' ' ORDER BY i.inhrelid) FROM pg_inherits i
        JOIN pg_depend d ON d.objid = i.inhrelid AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass
        JOIN pg_extension e ON e.oid = d.refobjid AND i.inhrelid = ANY (e.extconfig)
        JOIN pg_index x ON x.indrelid = i.inhrelid AND x.indisprimary AND x.indkey::text = '1'
        WHERE i.inhparent = 'pgmask.ledger'::regclass";
    let before = texts(&client, partitions).await.remove(0);
    assert_eq!(before.split(' ').count(), 33);
    for days_ago in 0..40 {
        assert!(is_new(&client, &format!("id {days_ago}"), days_ago).await);
    }
    pass(&client, 20).await;
    assert_eq!(maintain(&client).await.0, 32);
    assert_eq!(texts(&client, partitions).await, [before]);
}

/// A little more than a year, in which `maintain()` is forgotten for months twice. Whatever SQS may bring
/// again is known, and the ledger does not grow.
#[tokio::test]
async fn years_go_by() {
    let client = cluster().await.database("years").await.unwrap();
    const DELAYS: [i32; 4] = [0, 1, 2, 13];
    let mut forgotten = 0;
    for day in 0..400 {
        if day == 150 || day == 151 {
            pass(&client, 100).await;
            forgotten = day;
        }
        pass(&client, 1).await;
        for delay in DELAYS {
            assert!(is_new(&client, &format!("{day} {delay}"), delay).await, "{day} {delay}");
        }
        let without_time = format!(
            "SELECT inserted FROM pgmask.ingest_login_batch('{{{day} x}}', '{{\"{{\\\"user_id\\\":1}}\"}}', '{{NULL}}', '{{1}}')"
        );
        assert_eq!(count(&client, &without_time).await, 1);
        maintain(&client).await;
        // SQS brings it for the last time: it keeps a message for 14 days, whenever it was first received.
        let first = day - (14 - DELAYS[day as usize % 4]);
        if first >= forgotten.max(0) {
            let delay = DELAYS[day as usize % 4];
            assert!(!is_new(&client, &format!("{first} {delay}"), 14).await, "{first} {delay} on {day}");
        }
        let left = count(&client, KNOWN).await;
        assert!(left <= (DELAYS.len() as i64 + 1) * 19, "{left} rows on day {day}");
    }
    assert_eq!(count(&client, "SELECT count(*) FROM user_logins").await, 400 * 5);
    pass(&client, 1000).await;
    maintain(&client).await;
    assert_eq!(count(&client, KNOWN).await, 0);
    assert_eq!(maintain(&client).await, (0, 0));
}

#[tokio::test]
async fn rows_are_forgotten_after_their_days_and_not_before() {
    let client = cluster().await.database("forgets").await.unwrap();
    // Of one day of sending: taken in on that day, and late.
    assert!(is_new(&client, "first", 0).await);
    pass(&client, 12).await;
    assert!(is_new(&client, "late", 12).await);
    pass(&client, 3).await;
    assert_eq!(maintain(&client).await, (0, 0));
    assert_eq!(count(&client, KNOWN).await, 2);
    pass(&client, 1).await;
    assert_eq!(maintain(&client).await, (0, 1));
    pass(&client, 11).await;
    assert_eq!(maintain(&client).await, (0, 0));
    assert!(!is_new(&client, "late", 27).await);
    // Its day comes again while it is there.
    pass(&client, 5).await;
    assert!(is_new(&client, "next", 0).await);
    assert_eq!(maintain(&client).await, (0, 1));
    assert!(!is_new(&client, "next", 0).await);
    client.batch_execute("SET pgmask.ledger_days = 5").await.unwrap();
    pass(&client, 6).await;
    assert_eq!(maintain(&client).await, (1, 0));
    // Rows of the day after: they wait for each other and are truncated together.
    assert!(is_new(&client, "before midnight", 0).await);
    pass(&client, 1).await;
    assert!(is_new(&client, "after midnight", 1).await);
    pass(&client, 5).await;
    assert_eq!(maintain(&client).await, (0, 0));
    pass(&client, 1).await;
    assert_eq!(maintain(&client).await, (1, 0));
    for out_of_range in ["0", "31"] {
        let set = format!("SET pgmask.ledger_days = {out_of_range}");
        client.batch_execute(&set).await.unwrap_err();
    }
}

/// The server's clock was ahead, or behind. Nothing is forgotten too early for it, and nothing stays for ever
/// that is old by a clock that is right.
#[tokio::test]
async fn clocks_jump() {
    let client = cluster().await.database("clocks_jump").await.unwrap();
    for days_ago in 0..3 {
        assert!(is_new(&client, &format!("right {days_ago}"), days_ago).await);
    }
    // A year ahead, it looked.
    client
        .batch_execute("UPDATE pgmask.ledger_slot SET look_when_old = (now() AT TIME ZONE 'UTC')::date + 365")
        .await
        .unwrap();
    pass(&client, 16).await;
    assert!(is_new(&client, "ahead", 0).await);
    client
        .batch_execute("UPDATE pgmask.ledger SET taken_day = taken_day + 365 WHERE slot = (SELECT max(slot) FROM pgmask.ledger WHERE taken_day = (now() AT TIME ZONE 'UTC')::date)")
        .await
        .unwrap();
    assert_eq!(maintain(&client).await, (3, 0));
    assert!(!is_new(&client, "ahead", 0).await);
    // Among rows of the right time, it does not keep them.
    assert!(is_new(&client, "beside", 0).await);
    pass(&client, 16).await;
    assert_eq!(maintain(&client).await, (0, 1));
    assert!(!is_new(&client, "ahead", 16).await);
    pass(&client, 400).await;
    assert_eq!(maintain(&client).await, (1, 0));
}

/// From PostgreSQL 18 on, the names of time zones are looked up in the session's own first: a session whose UTC was a week
/// ahead had messages forgotten that long before their time.
#[tokio::test]
async fn no_time_zone_of_a_session_makes_messages_old() {
    let client = cluster().await.database("odd_time_zone").await.unwrap();
    let now = "SELECT inserted FROM pgmask.ingest_login_batch('{a, b}', '{\"{\\\"user_id\\\": 1}\", bad}', ARRAY[now(), now()], '{1, 1}')";
    let days = "SELECT day::text FROM pgmask.quarantine_summary";
    client.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
    assert_eq!(count(&client, now).await, 1);
    let before = texts(&client, days).await;
    client.batch_execute("SET pgmask.ledger_days = 5; SET TimeZone = 'UTC-167'").await.unwrap();
    assert_eq!(maintain(&client).await, (0, 0));
    assert_eq!(count(&client, now).await, 0);
    assert_eq!(texts(&client, days).await, before);
    assert_eq!(maintain(&client).await, (0, 0));
}

/// A message goes into a slot that is all old, and that `maintain()` is about to truncate.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_looked_at_again_once_it_is_locked() {
    let cluster = cluster().await;
    let admin = cluster.database("maintained").await.unwrap();
    assert!(is_new(&admin, "old", 0).await);
    pass(&admin, 16).await;
    let ingesting = cluster.connect("maintained").await.unwrap();
    ingesting.batch_execute("BEGIN").await.unwrap();
    assert!(is_new(&ingesting, "new", 16).await);
    let maintaining = tokio::spawn(async move { (maintain(&admin).await, admin) });
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'maintained' AND wait_event_type = 'Lock'";
    wait_until("maintenance waits", || async { count(&ingesting, waiting).await == 1 }).await.unwrap();
    ingesting.batch_execute("COMMIT").await.unwrap();
    let (done, admin) = maintaining.await.unwrap();
    assert_eq!(done, (0, 0));
    assert_eq!(maintain(&admin).await, (0, 1));
    assert!(!is_new(&admin, "new", 16).await);
}

/// Whoever holds a slot for long does not hold `maintain()` up, nor other batches by it.
#[tokio::test(flavor = "multi_thread")]
async fn maintenance_does_not_wait_for_long() {
    let cluster = cluster().await;
    let admin = cluster.database("held_up").await.unwrap();
    for days_ago in 0..10 {
        assert!(is_new(&admin, &format!("old {days_ago}"), days_ago).await);
    }
    pass(&admin, 30).await;
    let reading = cluster.connect("held_up").await.unwrap();
    reading.batch_execute("BEGIN; SELECT count(*) FROM pgmask.ledger").await.unwrap();
    let started = std::time::Instant::now();
    assert_eq!(maintain(&admin).await, (0, 0));
    assert!(started.elapsed() < std::time::Duration::from_secs(10), "{:?}", started.elapsed());
    reading.batch_execute("COMMIT").await.unwrap();
    // One that does its part while another is at it, and one after it.
    admin.batch_execute("BEGIN").await.unwrap();
    assert_eq!(maintain(&admin).await, (10, 0));
    assert_eq!(maintain(&reading).await, (0, 0));
    admin.batch_execute("COMMIT").await.unwrap();
    assert_eq!(maintain(&reading).await, (0, 0));
}

/// Many forwarders start at the same moment: each slot is emptied once, and none of them fails.
#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_share_the_work() {
    let cluster = cluster().await;
    let admin = cluster.database("many_at_once").await.unwrap();
    for days_ago in 0..10 {
        assert!(is_new(&admin, &format!("old {days_ago}"), days_ago).await);
    }
    pass(&admin, 30).await;
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let client = cluster.connect_as("pgmask_forwarder", "many_at_once").await.unwrap();
        calls.spawn(async move { maintain(&client).await });
    }
    let done = calls.join_all().await;
    assert_eq!(done.iter().map(|(slots, rows)| i64::from(*slots) + rows).sum::<i64>(), 10, "{done:?}");
    assert_eq!(count(&admin, KNOWN).await, 0);
}

/// A dump reads the ledger for long: neither it nor `maintain()` waits for the other, and both get through.
#[tokio::test(flavor = "multi_thread")]
async fn a_dump_and_maintenance_are_not_in_each_others_way() {
    let cluster = cluster().await;
    let admin = cluster.database("beside_a_dump").await.unwrap();
    assert!(is_new(&admin, "new", 0).await);
    let old = "INSERT INTO pgmask.ledger SELECT gen_random_uuid(), n % 32, now()::date - 20 FROM generate_series(1, 20000) AS n;
        UPDATE pgmask.ledger_slot SET look_when_old = NULL";
    let mut emptied = 0;
    for _ in 0..3 {
        admin.batch_execute(old).await.unwrap();
        let mut dump = cluster.command("pg_dump");
        dump.args(["--format=custom", "--dbname"]).arg(cluster.url("postgres", "beside_a_dump"));
        let mut dump = dump.stdout(std::process::Stdio::null()).spawn().unwrap();
        let status = loop {
            let started = std::time::Instant::now();
            let (slots, rows) = maintain(&admin).await;
            emptied += i64::from(slots) + rows;
            assert!(started.elapsed() < std::time::Duration::from_secs(10), "{:?}", started.elapsed());
            if let Some(status) = dump.try_wait().unwrap() {
                break status;
            }
        };
        assert!(status.success());
    }
    maintain(&admin).await;
    assert!(emptied > 0);
    assert_eq!(count(&admin, KNOWN).await, 1, "what is new stays");
}

/// In a transaction with one snapshot, what others have committed since can't be seen, so nothing is truncated.
#[tokio::test]
async fn an_old_snapshot_truncates_nothing() {
    let cluster = cluster().await;
    let admin = cluster.database("old_snapshot").await.unwrap();
    let other = cluster.connect("old_snapshot").await.unwrap();
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        assert!(is_new(&admin, &format!("old {level}"), 16).await);
        let age = "UPDATE pgmask.ledger SET taken_day = taken_day - 20; UPDATE pgmask.ledger_slot SET look_when_old = NULL";
        admin.batch_execute(age).await.unwrap();
        admin.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; SELECT 1")).await.unwrap();
        assert!(is_new(&other, level, 16).await);
        let (slots_emptied, rows_deleted) = maintain(&admin).await;
        assert!(slots_emptied == 0 && rows_deleted > 0, "{rows_deleted}");
        admin.batch_execute("COMMIT").await.unwrap();
        assert!(!is_new(&admin, level, 16).await);
    }
}

/// Batches and maintenance side by side: every message once, in slots old and new.
#[tokio::test(flavor = "multi_thread")]
async fn prunes_while_ingest_runs() {
    let cluster = cluster().await;
    let admin = cluster.database("prunes").await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..2 {
        let client = cluster.connect("prunes").await.unwrap();
        writers.spawn(async move {
            for n in 0..150 {
                // Half of them into slots that are truncated until the first one comes.
                let days_ago = if n % 2 == 0 { 0 } else { 16 + n / 30 };
                assert!(is_new(&client, &format!("{writer} {n}"), days_ago).await);
            }
        });
    }
    let (mut emptied, mut deleted) = (0, 0);
    let old = "INSERT INTO pgmask.ledger SELECT gen_random_uuid(), (today - 16 - n - '2000-01-01') % 32, today - 20
        FROM generate_series(0, 4) AS n, generate_series(1, 20), (SELECT (now() AT TIME ZONE 'UTC')::date) AS t(today)";
    while !writers.is_empty() {
        admin.batch_execute(old).await.unwrap();
        admin.batch_execute("UPDATE pgmask.ledger_slot SET look_when_old = NULL").await.unwrap();
        let done = maintain(&admin).await;
        (emptied, deleted) = (emptied + done.0, deleted + done.1);
        while let Some(ended) = writers.try_join_next() {
            ended.unwrap();
        }
    }
    assert!(emptied > 0 && deleted > 0, "{emptied} {deleted}");
    assert_eq!(count(&admin, "SELECT count(*) FROM user_logins").await, 300);
    assert_eq!(
        count(&admin, "SELECT count(*) FROM pgmask.ledger WHERE taken_day > now() - interval '3 days'").await,
        300
    );
    for (writer, n) in [(0, 0), (0, 1), (1, 148), (1, 149), (0, 91)] {
        let days_ago = if n % 2 == 0 { 0 } else { 16 + n / 30 };
        assert!(!is_new(&admin, &format!("{writer} {n}"), days_ago).await);
    }
}

/// What the database answers and can't be read would otherwise count as "not new", and the message be deleted.
#[tokio::test]
async fn an_answer_that_cannot_be_read_fails_the_batch() {
    let client = cluster().await.database("unreadable").await.unwrap();
    ingest(&client, &[login(1)]).await;
    let other_type = "BEGIN; ALTER TABLE pgmask.ledger ALTER message_id TYPE text";
    if cluster().await.major() >= 18 {
        // PostgreSQL 18 itself refuses to change the type of a column that partitions inherit as NOT NULL.
        let error = client.batch_execute(other_type).await.unwrap_err();
        assert!(
            message(&error).starts_with("55000 cannot create not-null constraint"),
            "{}",
            message(&error)
        );
        return;
    }
    client.batch_execute(other_type).await.unwrap();
    let error = try_ingest(&client, &[login(1), login(2)], "2026-11-20 12:00+00").await.unwrap_err();
    assert!(message(&error).starts_with("XX000 pg_mask can't read what"), "{}", message(&error));
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(ingest(&client, &[login(1), login(2)]).await, [1, 1, 0]);
}

/// Two forwarders carry the same messages in whatever order, and both go on at once.
#[tokio::test(flavor = "multi_thread")]
async fn parallel_writers_never_double_and_never_deadlock() {
    const WRITERS: usize = 6;
    const ROUNDS: usize = 15;
    const MESSAGES: usize = 300;
    let cluster = cluster().await;
    let admin = cluster.database("parallel_writers").await.unwrap();
    admin.batch_execute("ALTER TABLE user_logins ADD UNIQUE (user_id)").await.unwrap();
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

/// A session that has not used pg_mask yet takes any text for the setting; cron's is such a one.
#[tokio::test]
async fn a_setting_out_of_range_forgets_nothing() {
    let client = cluster().await.database("odd_setting").await.unwrap();
    assert!(is_new(&client, "kept", 0).await);
    pass(&client, 10).await;
    for odd in ["-3", "0", "x", "", "100000000"] {
        let cron = cluster().await.connect("odd_setting").await.unwrap();
        cron.batch_execute(&format!("SET pgmask.ledger_days = '{odd}'")).await.unwrap();
        assert_eq!(maintain(&cron).await, (0, 0), "{odd:?}");
    }
    assert!(!is_new(&client, "kept", 10).await);
}
