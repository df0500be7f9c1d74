//! `CALL pgmask.remask(…)` lifts what a table holds, whatever the table is like and whatever goes on beside it.

use crate::common::{cluster, count, ingest, kill_backend, message, texts};
use testbed::cluster::Cluster;
use testbed::guardian::wait_until;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

/// A cluster of its own, whose database has a table of plain hashes and one with their plain values:
/// the rows of `legacy` are `id`, `masked_ip` and `masked_device_id`.
async fn legacy(name: &str, rows: usize) -> (Cluster, Client) {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = cluster.database(name).await.unwrap();
    let sql = format!(
        "CREATE TABLE plain AS SELECT id, '10.0.' || id / 250 % 250 || '.' || id % 250 AS ip, 'device ' || id % 97 AS device
         FROM generate_series(1, {rows}) id;
         CREATE TABLE legacy AS SELECT id, encode(sha256(ip::bytea), 'hex') AS masked_ip,
             encode(sha256(device::bytea), 'hex') AS masked_device_id FROM plain"
    );
    client.batch_execute(&sql).await.unwrap();
    (cluster, client)
}

/// How many rows of a table hold just the tokens that masking their plain values gives now.
async fn right(client: &Client, table: &str) -> i64 {
    let sql = format!(
        "SELECT count(*) FROM {table} JOIN plain USING (id)
         WHERE masked_ip = mask_pii(ip) AND masked_device_id = mask_pii(device)"
    );
    count(client, &sql).await
}

/// `lifted` and `left_alone` of a call.
pub(super) async fn remask(client: &Client, arguments: &str) -> [i64; 2] {
    let rows = client.simple_query(&format!("CALL pgmask.remask({arguments})")).await;
    let rows = rows.unwrap_or_else(|error| panic!("{arguments}: {error:?}"));
    let row = rows.iter().find_map(|row| match row {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    ["lifted", "left_alone"].map(|name| row.unwrap().get(name).unwrap().parse().unwrap())
}

#[tokio::test]
async fn every_shape_of_table_is_lifted() {
    let (_cluster, client) = legacy("shapes", 5000).await;
    client
        .batch_execute(
            "CREATE TABLE indexed (LIKE legacy); CREATE INDEX ON indexed (masked_ip); CREATE INDEX ON indexed (masked_device_id);
             CREATE TABLE by_range (LIKE legacy) PARTITION BY RANGE (id);
             CREATE TABLE by_range_1 PARTITION OF by_range FOR VALUES FROM (MINVALUE) TO (2000);
             CREATE TABLE by_range_2 PARTITION OF by_range DEFAULT PARTITION BY LIST ((id % 3));
             CREATE TABLE by_range_2a PARTITION OF by_range_2 FOR VALUES IN (0, 1);
             CREATE TABLE by_range_2b PARTITION OF by_range_2 DEFAULT;
             CREATE TABLE by_token (LIKE legacy) PARTITION BY HASH (masked_ip);
             CREATE TABLE by_token_0 PARTITION OF by_token FOR VALUES WITH (MODULUS 3, REMAINDER 0);
             CREATE TABLE by_token_1 PARTITION OF by_token FOR VALUES WITH (MODULUS 3, REMAINDER 1);
             CREATE TABLE by_token_2 PARTITION OF by_token FOR VALUES WITH (MODULUS 3, REMAINDER 2);
             CREATE TABLE parent (LIKE legacy); CREATE TABLE child (more text) INHERITS (parent);
             CREATE TABLE generated (LIKE legacy, masked_ip_start text GENERATED ALWAYS AS (left(masked_ip, 8)) STORED);
             CREATE TABLE \"Odd \"\"name\"\"\" (id bigint, masked_ip varchar(256), masked_device_id char(80));
             CREATE TABLE watched (LIKE legacy); CREATE TABLE seen (role name);
             CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (current_user); RETURN NEW; END $$;
             CREATE TRIGGER watch BEFORE UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION watch();
             CREATE TABLE moved (role name); GRANT INSERT ON moved TO PUBLIC;
             CREATE FUNCTION moves() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.moved VALUES (current_user); RETURN NEW; END $$;
             CREATE UNLOGGED TABLE unlogged (LIKE legacy);
             CREATE ROLE keeper; CREATE SCHEMA closed AUTHORIZATION keeper; CREATE TYPE closed.kind AS ENUM ('x');
             CREATE TABLE closed.away (LIKE legacy, kind closed.kind DEFAULT 'x', CHECK (masked_ip <> '')); ALTER TABLE closed.away OWNER TO keeper;
             INSERT INTO closed.away SELECT * FROM legacy;
             CREATE TABLE secured (LIKE legacy); ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
             CREATE POLICY hides ON secured USING (false);
             INSERT INTO secured SELECT * FROM legacy; INSERT INTO unlogged SELECT * FROM legacy;
             INSERT INTO indexed SELECT * FROM legacy; INSERT INTO by_range SELECT * FROM legacy;
             INSERT INTO by_token SELECT * FROM legacy; INSERT INTO parent SELECT * FROM legacy WHERE id <= 2500;
             INSERT INTO child SELECT * FROM legacy WHERE id > 2500; INSERT INTO generated SELECT * FROM legacy;
             INSERT INTO \"Odd \"\"name\"\"\" SELECT * FROM legacy; INSERT INTO watched SELECT * FROM legacy",
        )
        .await
        .unwrap();
    client
        .batch_execute(
            "CREATE TRIGGER moves BEFORE INSERT ON by_token_1 FOR EACH ROW EXECUTE FUNCTION moves()",
        )
        .await
        .unwrap();
    for generation in [1, 2] {
        for table in [
            "legacy",
            "indexed",
            "by_range",
            "by_token",
            "parent",
            "generated",
            "watched",
            "unlogged",
            "secured",
            "closed.away",
            "\"Odd \"\"name\"\"\"",
        ] {
            let lifted = remask(&client, &format!("'{table}'")).await;
            assert_eq!(lifted, [5000, 0], "{table}");
            assert_eq!(right(&client, table).await, 5000, "{table} in generation {generation}");
            assert_eq!(remask(&client, &format!("'{table}'")).await, [0, 0], "{table} again");
        }
        client.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    }
    let sql = "SELECT count(*) FROM generated WHERE masked_ip_start = left(masked_ip, 8)";
    assert_eq!(count(&client, sql).await, 5000);
    assert_eq!(count(&client, "SELECT count(*) FROM seen WHERE role = 'postgres'").await, 10_000);
    // A partition that rows move to is not locked before they do: whoever may make triggers there would have the owner's rights.
    assert_eq!(
        crate::common::texts(&client, "SELECT DISTINCT role::text FROM moved").await,
        ["pgmask_nobody"]
    );
}

#[tokio::test]
async fn what_is_no_token_is_left_alone_and_nothing_is_written_twice() {
    let (_cluster, client) = legacy("left_alone", 1000).await;
    client
        .batch_execute(
            "UPDATE legacy SET masked_ip = '10.0.0.' || id WHERE id <= 10;
             UPDATE legacy SET masked_device_id = NULL WHERE id <= 20;
             UPDATE legacy SET masked_ip = 'm9_' || masked_ip WHERE id = 11;
             INSERT INTO legacy SELECT id, mask_pii(ip), mask_pii(device) FROM plain WHERE id <= 100;
             CREATE TABLE before AS SELECT id, ctid::text AS place FROM legacy",
        )
        .await
        .unwrap();
    // The first ten rows have neither token; the eleventh has one of a generation that is not in use yet.
    assert_eq!(remask(&client, "'legacy'").await, [989 - 9 + 9, 11]);
    let sql =
        "SELECT count(*) FROM legacy JOIN before ON place = legacy.ctid::text AND before.id = legacy.id";
    assert_eq!(count(&client, sql).await, 111, "rows that need nothing are not written");
    client
        .batch_execute("DROP TABLE before; CREATE TABLE before AS SELECT ctid::text AS place FROM legacy")
        .await
        .unwrap();
    assert_eq!(remask(&client, "'legacy'").await, [0, 11]);
    let sql = "SELECT count(*) FROM legacy JOIN before ON place = legacy.ctid::text";
    assert_eq!(count(&client, sql).await, 1100);
    // Of a domain of its own.
    client
        .batch_execute("CREATE TABLE emails AS SELECT encode(sha256('x'), 'hex') AS hash, 1 AS other")
        .await
        .unwrap();
    assert_eq!(remask(&client, "'emails', columns => '{hash}', domain => 'email'").await, [1, 0]);
    assert_eq!(texts(&client, "SELECT (hash = mask_pii('x', 'email'))::text FROM emails").await, ["true"]);
    client
        .batch_execute(
            "SELECT mask_network('192.0.2.7') AS masked_ip_network INTO networks; SELECT pgmask.rotate_key()",
        )
        .await
        .unwrap();
    remask(&client, "'networks'").await;
    let sql = "SELECT (masked_ip_network = mask_network('192.0.2.7'))::text FROM networks";
    assert_eq!(texts(&client, sql).await, ["true"], "networks have a domain of their own");
}

#[tokio::test]
async fn what_can_not_be_lifted_is_said() {
    let (_cluster, client) = legacy("not_lifted", 10).await;
    client
        .batch_execute(
            "CREATE VIEW a_view AS TABLE legacy; CREATE TABLE plain_only (a int); CREATE TABLE narrow (masked_ip varchar(64));
             CREATE TABLE numbers (masked_ip bytea); CREATE SEQUENCE a_sequence;
             CREATE TABLE made (a text, masked_ip text GENERATED ALWAYS AS (a) STORED);
             CREATE TABLE hidden (LIKE legacy); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; ALTER TABLE hidden FORCE ROW LEVEL SECURITY;
             CREATE ROLE other_owner; ALTER TABLE hidden OWNER TO other_owner; GRANT USAGE ON SCHEMA public TO other_owner",
        )
        .await
        .unwrap();
    for (arguments, expected) in [
        ("'a_view'", "42809 public.a_view holds no rows"),
        ("'a_sequence'", "42809 public.a_sequence holds no rows"),
        ("NULL", "42809 "),
        ("'plain_only'", "42703 table public.plain_only has no column whose name begins with \"masked_\""),
        ("'made'", "42703 "),
        ("'made', '{masked_ip}'", "428C9 column \"masked_ip\" of table public.made is generated"),
        ("'legacy', '{masked_ip,nothing}'", "42703 table public.legacy has no column \"nothing\""),
        ("'narrow'", "42804 column \"masked_ip\" of table public.narrow has no room for a token of 67"),
        ("'numbers'", "42804 column \"masked_ip\" of table public.numbers is no text"),
        ("'hidden'", "42501 query would be affected by row-level security"),
    ] {
        let error = client.simple_query(&format!("CALL pgmask.remask({arguments})")).await.unwrap_err();
        let text = message(&error);
        assert!(text.starts_with(expected), "{arguments}: {text}");
    }
}

/// Lifts the table after a rotation until some rows are lifted, and gives the call that goes on meanwhile, with
/// its backend.
async fn in_the_midst(cluster: &Cluster, client: &Client, database: &str) -> (JoinHandle<bool>, i64) {
    let generation = count(client, "SELECT pgmask.rotate_key()::bigint").await;
    let worker = cluster.connect(database).await.unwrap();
    let pid = count(&worker, "SELECT pg_backend_pid()::bigint").await;
    let call = "CALL pgmask.remask('legacy', batch_blocks => 2)";
    let working = tokio::spawn(async move { worker.simple_query(call).await.is_ok() });
    let lifted =
        format!("SELECT count(*) FROM legacy WHERE pgmask.mask_generation(masked_ip) = {generation}");
    wait_until("some rows are lifted", || async { count(client, &lifted).await > 0 }).await.unwrap();
    (working, pid)
}

/// It is stopped in the midst, by a cancel and by the backend's death, and goes on where it was.
#[tokio::test]
async fn it_may_be_stopped_and_called_again() {
    const ROWS: i64 = 40_000;
    let (cluster, client) = legacy("stopped", ROWS as usize).await;
    for how in ["pg_cancel_backend", "pg_terminate_backend", "pg_cancel_backend"] {
        let (working, pid) = in_the_midst(&cluster, &client, "stopped").await;
        client.batch_execute(&format!("SELECT {how}({pid}::int)")).await.unwrap();
        assert!(!working.await.unwrap(), "it was stopped");
        assert!(right(&client, "legacy").await < ROWS, "in the midst");
    }
    let before = right(&client, "legacy").await;
    assert_eq!(remask(&client, "'legacy'").await, [ROWS - before, 0], "each row is written once");
    assert_eq!(right(&client, "legacy").await, ROWS);
}

/// A process that is busy, or waits for a lock of a killed one, does not notice that its postmaster was killed, too.
#[tokio::test]
async fn a_killed_server_leaves_no_process_in_the_way() {
    let mut cluster = Cluster::start(&[]).await.unwrap();
    let client = cluster.connect("postgres").await.unwrap();
    let busy = cluster.connect("postgres").await.unwrap();
    let busy = tokio::spawn(async move {
        busy.batch_execute("DO $$ BEGIN FOR n IN 1..2000000000 LOOP END LOOP; END $$").await
    });
    let is_busy = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO %'";
    wait_until("it is busy", || async { count(&client, is_busy).await == 1 }).await.unwrap();
    cluster.stop("KILL").unwrap();
    cluster.restart().await.unwrap();
    busy.await.unwrap().unwrap_err();
}

/// The server is killed in the midst, many times: each token is whole, lifted or as it was, and the next call
/// goes on.
#[tokio::test]
async fn the_server_may_be_killed_meanwhile() {
    const ROWS: i64 = 40_000;
    const ROUNDS: usize = 12;
    let (mut cluster, mut client) = legacy("killed", ROWS as usize).await;
    let whole = "SELECT count(*) FROM legacy JOIN plain USING (id)
        WHERE pgmask.current_mask(masked_ip) = mask_pii(ip)
          AND pgmask.current_mask(masked_device_id) = mask_pii(device)";
    for round in 0..ROUNDS {
        let (working, pid) = in_the_midst(&cluster, &client, "killed").await;
        kill_backend(pid);
        cluster.stop("KILL").unwrap();
        assert!(!working.await.unwrap(), "killed in the midst, in round {round}");
        cluster.restart().await.unwrap();
        client = cluster.connect("killed").await.unwrap();
        assert_eq!(count(&client, whole).await, ROWS, "in round {round}");
    }
    let before = right(&client, "legacy").await;
    assert!(before > 0 && before < ROWS, "{before} rows were lifted in the last round");
    assert_eq!(remask(&client, "'legacy'").await, [ROWS - before, 0], "each row is written once");
    assert_eq!(right(&client, "legacy").await, ROWS);
}

/// Others change and delete the same rows meanwhile: nothing of theirs is lost, and all is lifted in the end.
#[tokio::test]
async fn others_lose_nothing() {
    let (cluster, client) = legacy("others", 20_000).await;
    client.batch_execute("ALTER TABLE legacy ADD touched int DEFAULT 0, ADD PRIMARY KEY (id)").await.unwrap();
    let worker = cluster.connect("others").await.unwrap();
    let working = remask(&worker, "'legacy', batch_blocks => 8");
    let changing = async {
        for round in 0..40 {
            // The later rows first: their new versions may fill gaps that remask has passed.
            let sql = format!(
                "UPDATE legacy SET touched = touched + 1 WHERE id % 40 = {}; DELETE FROM legacy WHERE id = {}",
                39 - round,
                round * 13 + 1
            );
            client.batch_execute(&sql).await.unwrap();
        }
    };
    let (lifted, ()) = tokio::join!(working, changing);
    assert!(lifted[0] >= 19_960, "{lifted:?}");
    let left = count(&client, "SELECT count(*) FROM legacy").await;
    assert_eq!(left, 20_000 - 40);
    assert_eq!(right(&client, "legacy").await, left);
    assert_eq!(count(&client, "SELECT count(*) FROM legacy WHERE touched <> 1").await, 0);
}

/// A row that somebody keeps locked is waited for, and neither side is in the other's way.
#[tokio::test]
async fn locked_rows_are_come_back_to() {
    let (cluster, client) = legacy("locked", 2000).await;
    client.batch_execute("BEGIN; SELECT * FROM legacy WHERE id % 100 = 0 FOR UPDATE").await.unwrap();
    let worker = cluster.connect("locked").await.unwrap();
    let watcher = cluster.connect("locked").await.unwrap();
    let working = tokio::spawn(async move { remask(&worker, "'legacy'").await });
    let others_done = || async { right(&watcher, "legacy").await == 1980 };
    wait_until("all other rows are lifted", others_done).await.unwrap();
    assert_eq!(
        count(&watcher, "SELECT count(*) FROM pg_locks WHERE NOT granted").await,
        0,
        "it waits for no lock"
    );
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(working.await.unwrap(), [2000, 0]);
    assert_eq!(right(&watcher, "legacy").await, 2000);
}

/// Who began to write under the older generation is waited for.
#[tokio::test]
async fn older_writers_are_waited_for() {
    let (cluster, client) = legacy("writers", 10).await;
    let writer = cluster.connect("writers").await.unwrap();
    writer.batch_execute("BEGIN").await.unwrap();
    ingest(&writer, &[("a", r#"{"user_id":1,"ip":"10.0.0.1"}"#)]).await;
    client.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    let worker = cluster.connect("writers").await.unwrap();
    let working = tokio::spawn(async move { remask(&worker, "'user_logins'").await });
    let waits = || async {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL pgmask.remask%' AND wait_event = 'PgSleep'";
        count(&client, sql).await == 1
    };
    wait_until("remask waits", waits).await.unwrap();
    writer.batch_execute("COMMIT").await.unwrap();
    assert_eq!(working.await.unwrap(), [1, 0]);
    assert_eq!(
        texts(&client, "SELECT (masked_ip = mask_pii('10.0.0.1'))::text FROM user_logins").await,
        ["true"]
    );
}

/// Lifting a hash without a key would be a way to try guesses, and the table's code a way to rights.
#[tokio::test]
async fn it_is_no_way_to_guess_and_gives_no_rights() {
    let shared = cluster().await;
    let admin = shared.database("remask_rights").await.unwrap();
    admin
        .batch_execute(
            "DO $$ BEGIN CREATE ROLE remask_guesser LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             GRANT pgmask_analyst TO remask_guesser; GRANT CREATE, USAGE ON SCHEMA public TO remask_guesser;
             GRANT EXECUTE ON PROCEDURE pgmask.remask(regclass, text[], text, bigint, bigint, bigint) TO remask_guesser;
             GRANT EXECUTE ON FUNCTION pgmask.remask_blocks(oid, text[], text, bigint, bigint), pgmask.remask_left(oid, text[], text),
                 pgmask.remask_begins(), pgmask.remask_parts(regclass), pgmask.wait_for_writers(regclass), pgmask.remask_progress(oid, timestamptz, bigint, bigint)
                 TO remask_guesser;
             CREATE TABLE not_mine (masked_ip text);
             INSERT INTO user_logins (user_id, masked_ip) VALUES ('old', encode(sha256('10.0.0.1'), 'hex'))",
        )
        .await
        .unwrap();
    let guesser = shared.connect_as("remask_guesser", "remask_rights").await.unwrap();
    guesser
        .batch_execute("CREATE TABLE guesses AS SELECT encode(sha256('10.0.0.1'), 'hex') AS masked_ip")
        .await
        .unwrap();
    assert_eq!(remask(&guesser, "'guesses'").await, [0, 1], "a guess is left alone");
    for arguments in
        ["'not_mine'", "'pg_class'", "'user_logins', '{user_id}'", "'user_logins', domain => 'x'"]
    {
        let error = guesser.simple_query(&format!("CALL pgmask.remask({arguments})")).await.unwrap_err();
        assert!(message(&error).starts_with("42501 "), "{arguments}: {}", message(&error));
    }
    // The login table's hashes were there before: anybody who may run it may have them lifted.
    assert_eq!(remask(&guesser, "'user_logins'").await, [1, 0]);
    // A superuser lifts a table of the guesser's, whose code runs as the guesser and can't get out.
    guesser
        .batch_execute(
            "CREATE TABLE trap (masked_ip text); INSERT INTO trap VALUES (encode(sha256('x'), 'hex'));
             CREATE TABLE caught (role name);
             CREATE FUNCTION spring() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO public.caught VALUES (current_user);
                 RETURN NEW; END $$;
             CREATE TRIGGER now BEFORE UPDATE ON trap FOR EACH ROW EXECUTE FUNCTION spring();
             CREATE CONSTRAINT TRIGGER later AFTER UPDATE ON trap DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION spring()",
        )
        .await
        .unwrap();
    assert_eq!(remask(&admin, "'trap'").await, [1, 0]);
    assert_eq!(texts(&admin, "SELECT role::text FROM caught").await, ["remask_guesser"; 2]);
}

/// A hash was lifted for anybody, where another column of its row held an older token.
#[tokio::test]
async fn a_hash_beside_an_older_token_is_left_alone() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("beside").await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE guesser LOGIN; GRANT pgmask_analyst, pgmask_operator TO guesser; GRANT CREATE ON SCHEMA public TO guesser",
        )
        .await
        .unwrap();
    let guesser = cluster.connect_as("guesser", "beside").await.unwrap();
    guesser
        .batch_execute("CREATE TABLE guesses AS SELECT encode(sha256('10.0.0.1'), 'hex') AS masked_ip, mask_pii('x') AS masked_device_id")
        .await
        .unwrap();
    admin.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    assert_eq!(remask(&guesser, "'guesses'").await, [1, 1]);
    let generations = "SELECT pgmask.mask_generation(masked_ip) || ' ' || pgmask.mask_generation(masked_device_id) FROM guesses";
    assert_eq!(texts(&guesser, generations).await, ["0 2"]);
}

/// Who may only have tokens lifted is not shown the rows that the server's own errors hold.
#[tokio::test]
async fn an_error_shows_no_row_to_an_operator() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("shows_no_row").await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE lifts LOGIN IN ROLE pgmask_operator;
             SELECT pgmask.ingest_login('{\"user_id\": \"somebody\", \"ip\": \"203.0.113.7\"}');
             ALTER TABLE user_logins ADD CHECK (masked_ip LIKE 'm1%'); SELECT pgmask.rotate_key()",
        )
        .await
        .unwrap();
    let operator = cluster.connect_as("lifts", "shows_no_row").await.unwrap();
    let call = "CALL pgmask.remask('user_logins')";
    let error = operator.batch_execute(call).await.unwrap_err();
    assert!(
        message(&error)
            .starts_with("23514 tokens in table public.user_logins could not be lifted: SQLSTATE 23514"),
        "{error:?}"
    );
    for shown in ["somebody", "m1_", "m2_"] {
        assert!(!format!("{error:?}").contains(shown), "{error:?}");
    }
    let error = format!("{:?}", admin.batch_execute(call).await.unwrap_err());
    assert!(error.contains("m2_"), "a superuser is: {error}");
    admin.batch_execute("ALTER TABLE user_logins DROP CONSTRAINT user_logins_masked_ip_check").await.unwrap();
    operator.batch_execute(call).await.unwrap();
    // Nor where it is looked at what is left, which plans with code of the table's.
    admin
        .batch_execute(
            "CREATE FUNCTION public.shows() RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
                 IF current_user = 'pgmask_writer' THEN RAISE EXCEPTION 'somebody'; END IF; RETURN 'z'; END $$;
             CREATE INDEX ON user_logins (user_id) WHERE user_id <> public.shows()",
        )
        .await
        .unwrap();
    let left = "SELECT pgmask.remask_left('user_logins'::regclass, NULL, NULL)";
    let error = message(&operator.batch_execute(left).await.unwrap_err());
    assert!(
        error.starts_with("P0001 tokens in table public.user_logins could not be lifted: SQLSTATE P0001"),
        "{error}"
    );
    assert!(!error.contains("somebody"), "{error}");
}
