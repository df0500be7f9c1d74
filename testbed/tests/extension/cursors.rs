//! Cursors of any session work as they do without pg_mask, which looks at each statement that starts and ends.

use testbed::cluster::Cluster;

/// A cursor whose rows are fetched through another one (`FETCH` as a query) still names where they went to, when that is gone. It
/// lies at the heap's end here, which the server gives back to the kernel before the first cursor is closed.
const FETCHED_THROUGH_ANOTHER: &str =
    "DO $$ DECLARE read refcursor := 'read'; through refcursor; large refcursor := 'large'; other refcursor; v int; BEGIN
        OPEN read FOR SELECT n FROM generate_series(1, 100000) AS n; FETCH read INTO v;
        FOR round IN 1..3 LOOP
            IF round = 3 THEN
                OPEN large FOR SELECT cardinality(array_agg(repeat(chr(65 + n % 26), 60000))) FROM generate_series(1, 1500) AS n;
                FETCH large INTO v;
            END IF;
            FOR n IN 1..400 LOOP other := 'other ' || n; OPEN other FOR SELECT 1; END LOOP;
            through := 'through'; OPEN through FOR EXECUTE 'FETCH 1 FROM read'; FETCH through INTO v;
            FOR n IN 1..150 LOOP other := 'other ' || n; CLOSE other; END LOOP;
            CLOSE through;
            FOR n IN REVERSE 400..151 LOOP other := 'other ' || n; CLOSE other; END LOOP;
            IF round = 3 THEN CLOSE large; END IF;
        END LOOP;
        CLOSE read; END $$";

/// Who may only log in ended all sessions of the server.
#[tokio::test]
async fn one_that_was_fetched_through_another_is_closed() {
    let cluster = Cluster::start(&["shared_preload_libraries = 'pg_mask'"]).await.unwrap();
    let admin = cluster.database("cursors").await.unwrap();
    admin.batch_execute("CREATE ROLE plain LOGIN").await.unwrap();
    let plain = cluster.connect_as("plain", "cursors").await.unwrap();
    plain.batch_execute(FETCHED_THROUGH_ANOTHER).await.unwrap();
    admin.batch_execute("SELECT 1").await.unwrap();
    assert!(!cluster.log().contains("was terminated by signal"));
}
