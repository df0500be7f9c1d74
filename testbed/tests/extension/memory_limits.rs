//! However large an argument is, and however little memory there is: an error for one session, and the server
//! goes on. (An allocation of Rust's that fails ends the process, and PostgreSQL then ends all others.)

use crate::common::{cluster, count, message, texts};
use testbed::cluster::Cluster;
use tokio_postgres::Client;

/// A body of `$size` bytes, and what has it taken in, for each way in which it is large.
const BATCHES: &[(&str, &str)] = &[
    ("no JSON", "ARRAY[repeat('x', $size)]"),
    ("a long user id", r#"ARRAY['{"user_id":"' || repeat('x', $size) || '"}']"#),
    ("escapes", r#"ARRAY['{"user_id":"' || repeat('\u00e4', $size / 6) || '"}']"#),
    ("a long value that is masked", r#"ARRAY['{"user_id":1,"ip":"' || repeat('\n', $size / 2) || '"}']"#),
    ("a long key", r#"ARRAY['{"' || repeat('\t', $size / 2) || '":1}']"#),
    ("many members", r#"ARRAY['{"user_id":1' || repeat(',"a":[]', $size / 7) || '}']"#),
    ("deep", r#"ARRAY['{"user_id":1,"a":' || repeat('[', $size / 2) || repeat(']', $size / 2) || '}']"#),
    ("an envelope", r#"ARRAY['{"detail-type":"x","detail":"' || repeat('\\', $size / 2) || '"}']"#),
    ("a long number", r#"ARRAY['{"user_id":' || repeat('1', $size) || '}']"#),
    ("many bodies", "array_fill(repeat('x', 1000), ARRAY[$size / 1000])"),
    ("many empty bodies", "array_fill(''::text, ARRAY[$size / 10])"),
    (
        "many logins",
        r#"array_fill('{"user_id":"u","ip":"192.0.2.1","device_id":"d"}'::text, ARRAY[$size / 50])"#,
    ),
];

/// Statements of others, with one argument that is large.
const OTHERS: &[(&str, &str)] = &[
    (
        "pgmask_ingester",
        r#"SELECT pgmask.ingest_login(('{"user_id":1,"x":"' || repeat('x', $size) || '"}')::jsonb)"#,
    ),
    (
        "pgmask_ingester",
        r#"SELECT pgmask.ingest_login(('{"user_id":1,"ip":"' || repeat('\n', $size / 2) || '"}')::jsonb)"#,
    ),
    (
        "pgmask_ingester",
        r#"SELECT * FROM pgmask.ingest_login_batch(ARRAY[repeat('i', $size)], ARRAY['{"user_id":1}'], ARRAY[now()], '{1}')"#,
    ),
    ("pgmask_analyst", "SELECT length(pgmask.mask_pii(repeat('x', $size)))"),
    ("pgmask_analyst", "SELECT length(pgmask.mask_pii(repeat(' ', $size)))"),
    ("pgmask_analyst", "SELECT length(pgmask.mask_pii('x', repeat('d', $size)))"),
    ("pgmask_analyst", "SELECT length(pgmask.current_mask(repeat('m', $size)))"),
    ("pgmask_operator", "SELECT pgmask.replay_quarantine(repeat('r', $size))"),
    (
        "pgmask_operator",
        "CREATE TEMP TABLE IF NOT EXISTS mine (masked_x text); COMMIT; SELECT pgmask.remask_blocks('mine'::regclass, NULL, repeat('d', $size), 0, 1)",
    ),
    (
        "pgmask_operator",
        "CREATE TEMP TABLE IF NOT EXISTS mine (masked_x text); COMMIT; SELECT pgmask.remask_blocks('mine'::regclass, ARRAY[repeat('c', $size)], NULL, 0, 1)",
    ),
    (
        "pgmask_operator",
        "CREATE TEMP TABLE IF NOT EXISTS mine (masked_x text); COMMIT; SELECT pgmask.remask_blocks('mine'::regclass, array_fill('c'::text, ARRAY[$size / 8]), NULL, 0, 1)",
    ),
    ("pgmask_recoverer", "CALL pgmask.unseal_quarantine(1, repeat('r', $size))"),
    ("pgmask_recoverer", "CALL pgmask.recover_pii(repeat('m', $size), 'x')"),
    ("pgmask_recoverer", "CALL pgmask.recover_pii('m1_' || repeat('0', 64), repeat('r', $size))"),
    ("pgmask_recoverer", "CALL pgmask.forget(repeat('m', $size), 'x')"),
    ("postgres", "SELECT * FROM pgmask.verify_audit(1, repeat('m', $size))"),
    ("postgres", "CALL pgmask.remask('pgmask.vault')"),
    ("pgmask_operator", "SELECT pgmask.replay_quarantine()"),
    ("pgmask_recoverer", "CALL pgmask.unseal_quarantine(1, 'what was kept')"),
];

/// Runs a statement: it may succeed, or be refused for its size or for want of memory.
async fn survives(client: &Client, statement: &str) -> bool {
    match client.batch_execute(statement).await {
        Ok(()) => true,
        Err(error) => {
            let Some(db) = error.as_db_error() else { panic!("the server is gone: {statement}: {error}") };
            let code = db.code().code();
            // 22023, 42703 and P0002 say what is wrong besides.
            assert!(
                ["53200", "54000", "22023", "P0002", "55000", "42703"].contains(&code),
                "{statement}: {db:?}"
            );
            false
        }
    }
}

#[tokio::test]
async fn the_server_outlives_every_size() {
    let mut refused = 0;
    // Enough for the first sizes, not for the last.
    let cluster =
        Cluster::start_with_memory(320, &["shared_buffers = 16MB", "pgmask.vault = on"]).await.unwrap();
    let admin = cluster.database("memory").await.unwrap();
    let started = "SELECT pg_postmaster_start_time()::text || ' ' || pg_backend_pid()";
    let before = texts(&admin, started).await;
    for mebibytes in [9, 25, 100] {
        let client = cluster.connect("memory").await.unwrap();
        // Loading a library takes memory, too, and that it can't be loaded is PostgreSQL's to say.
        client.batch_execute("LOAD 'pg_mask'").await.unwrap();
        let of = |statement: &str| statement.replace("$size", &(mebibytes << 20).to_string());
        for (what, bodies) in BATCHES {
            let sql = format!(
                "SET ROLE pgmask_ingester; SELECT b.* FROM (SELECT {} AS bodies) AS a,
                 pgmask.ingest_login_batch((SELECT array_agg('{what} {mebibytes} ' || n) FROM generate_subscripts(bodies, 1) AS n), bodies,
                     array_fill(now(), ARRAY[cardinality(bodies)]), array_fill(1, ARRAY[cardinality(bodies)])) AS b",
                of(bodies)
            );
            refused += i32::from(!survives(&client, &sql).await);
        }
        for (role, statement) in OTHERS {
            let client = cluster.connect("memory").await.unwrap();
            client.batch_execute(&format!("SET ROLE {role}")).await.unwrap();
            refused += i32::from(!survives(&client, &of(statement)).await);
        }
        client
            .batch_execute("RESET ROLE; TRUNCATE pgmask.quarantine, user_logins, pgmask.ledger, pgmask.vault")
            .await
            .unwrap();
        assert_eq!(texts(&admin, started).await, before, "the server started anew after {mebibytes} MiB");
    }
    assert!(refused > 20, "{refused}: there was memory enough for most of it");
}

#[tokio::test]
async fn what_is_taken_in_at_once_is_bounded() {
    let client = cluster().await.database("bounds").await.unwrap();
    let batch = |messages: &str, body: &str| {
        format!(
            "SELECT inserted + quarantined FROM pgmask.ingest_login_batch((SELECT array_agg(n::text) FROM generate_series(1, {messages}) n),
                 array_fill({body}, ARRAY[{messages}]), array_fill(now(), ARRAY[{messages}]), array_fill(1, ARRAY[{messages}]))"
        )
    };
    let refused = async |sql: &str| message(&client.batch_execute(sql).await.unwrap_err());
    assert_eq!(count(&client, &batch("100000", "''::text")).await, 100_000);
    assert!(
        refused(&batch("100001", "''::text")).await.starts_with("54000 a batch may have 100000 messages")
    );
    client.batch_execute("TRUNCATE pgmask.ledger, pgmask.quarantine").await.unwrap();
    assert_eq!(count(&client, &batch("1", "repeat('x', 64 * 1048576 - 1)")).await, 1);
    let large = refused(&batch("1", "repeat('x', 64 * 1048576)")).await;
    assert!(large.starts_with("54000 what is taken in at once may have 67108864 bytes"), "{large}");
    assert!(refused(&batch("70", "repeat('x', 1048576)")).await.starts_with("54000 "));
    let login =
        r#"SELECT pgmask.ingest_login(('{"user_id":1,"x":"' || repeat('x', 64 * 1048576) || '"}')::jsonb)"#;
    assert!(refused(login).await.starts_with("54000 "));
    // What was just small enough comes out again.
    let kept = "SELECT kept FROM pgmask.replay_quarantine()";
    assert_eq!(count(&client, kept).await, 1);
    let id = count(&client, "SELECT max(id) FROM pgmask.quarantine").await;
    let body = crate::common::unseal(&client, Some(id), Some("a test")).await.unwrap();
    assert_eq!(body.len(), 64 * 1_048_576 - 1);
}

/// Fills the session's memory with settings of its own, to pieces of `$least` bytes, and has a call site change its
/// domain again and again: each is kept in Rust's memory, and there is none.
const TO_THE_BRIM: &str = "DO $$
    DECLARE
        filled int := 0; size int; token text;
        domains text[] := ARRAY(SELECT repeat('d', 100 + n) FROM generate_series(1, 800) n);
    BEGIN
        FOR pass IN 0..1 LOOP
            IF pass = 1 THEN
                FOREACH size IN ARRAY ARRAY[10000000, 1000000, 100000, 10000, 1000, 100] LOOP
                    CONTINUE WHEN size < $least;
                    LOOP
                        BEGIN
                            filled := filled + 1;
                            PERFORM set_config('fill.a' || filled, repeat('x', size), false);
                        EXCEPTION WHEN out_of_memory THEN EXIT;
                        END;
                    END LOOP;
                END LOOP;
            END IF;
            FOR n IN 1..400 LOOP
                token := mask_pii('  ', domains[pass * 400 + n]);
            END LOOP;
        END LOOP;
    END $$";

/// An analyst ended the server in this way, and had a new budget of guesses.
#[tokio::test]
async fn a_session_without_memory_is_the_only_one_that_suffers() {
    let settings = ["shared_buffers = 16MB", "shared_preload_libraries = 'pg_mask'"];
    let cluster = Cluster::start_with_memory(320, &settings).await.unwrap();
    let admin = cluster.database("brim").await.unwrap();
    admin.batch_execute("CREATE ROLE analyst LOGIN; GRANT pgmask_analyst TO analyst").await.unwrap();
    let started = "SELECT pg_postmaster_start_time()::text || ' ' || pg_backend_pid()";
    let before = texts(&admin, started).await;
    let client = cluster.connect_as("analyst", "brim").await.unwrap();
    let mut refused_by_us = 0;
    for least in ["100", "1000", "10000"] {
        let filled = client.batch_execute(&TO_THE_BRIM.replace("$least", least)).await;
        let log = cluster.log();
        assert!(!log.contains("terminated by signal"), "{filled:?}\n{log}");
        // What larger pieces leave between them may be enough, once in a while.
        if let Err(error) = filled {
            let text = message(&error);
            assert!(text.starts_with("53200 "), "{text}");
            refused_by_us += i32::from(text.contains("pg_mask has no memory for this"));
        }
        // The settings are gone with the transaction, and the session goes on.
        assert_eq!(count(&client, "SELECT length(mask_pii('x'))::bigint").await, 67);
        assert_eq!(texts(&admin, started).await, before, "the server started anew");
    }
    assert!(refused_by_us > 0, "it was PostgreSQL's own memory each time");
}

/// The texts of an error of the table's code were copied once more on their way, and where there was no memory for that, the
/// server ended.
#[tokio::test]
async fn an_error_of_any_size_ends_no_server() {
    let cluster = Cluster::start_with_memory(500, &["shared_buffers = 16MB"]).await.unwrap();
    let admin = cluster.database("long_errors").await.unwrap();
    admin
        .batch_execute(
            "INSERT INTO user_logins (user_id, masked_ip) VALUES ('u', repeat('0', 64)); CREATE TABLE how (part text, size int);
             GRANT SELECT ON how TO pgmask_writer;
             CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE how record; BEGIN
                 SELECT * INTO how FROM public.how;
                 CASE how.part
                     WHEN 'message' THEN RAISE EXCEPTION '%', repeat('x', how.size);
                     WHEN 'detail' THEN RAISE EXCEPTION 'x' USING DETAIL = repeat('x', how.size);
                     WHEN 'all' THEN RAISE EXCEPTION '%', repeat('x', how.size / 3) USING DETAIL = repeat('x', how.size / 3), HINT = repeat('x', how.size / 3);
                     WHEN 'context' THEN EXECUTE 'SELECT 1 / 0 /*' || repeat('x', how.size) || '*/';
                 END CASE; END $$;
             CREATE TRIGGER fails BEFORE INSERT OR UPDATE ON user_logins FOR EACH ROW EXECUTE FUNCTION fails()",
        )
        .await
        .unwrap();
    let started = "SELECT pg_postmaster_start_time()::text || ' ' || pg_backend_pid()";
    let before = texts(&admin, started).await;
    let mut without_memory = 0;
    for part in ["message", "detail", "all", "context"] {
        for mebibytes in [60, 100, 140] {
            let how = format!("DELETE FROM how; INSERT INTO how VALUES ('{part}', {mebibytes} << 20)");
            admin.batch_execute(&how).await.unwrap();
            let client = cluster.connect("long_errors").await.unwrap();
            for statement in
                ["SELECT pgmask.ingest_login('{\"user_id\": \"u\"}')", "CALL pgmask.remask('user_logins')"]
            {
                let error = client.batch_execute(statement).await.unwrap_err();
                let Some(db) = error.as_db_error() else {
                    panic!("{part} {mebibytes}: {statement}: {error}")
                };
                let [of_the_code, memory] = ["P0001", "53200"].map(|code| db.code().code() == code);
                assert!(
                    of_the_code || memory || db.code().code() == "22012",
                    "{part} {mebibytes}: {}",
                    db.code().code()
                );
                assert!(
                    db.message().len() <= 8 << 10 && db.detail().is_none_or(|text| text.len() <= 8 << 10)
                );
                without_memory += i32::from(memory);
            }
            assert_eq!(
                texts(&admin, started).await,
                before,
                "the server started anew after {part} of {mebibytes} MiB"
            );
        }
    }
    assert!((1..20).contains(&without_memory), "{without_memory}");
}
