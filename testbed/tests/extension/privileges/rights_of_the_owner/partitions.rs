//! Partitions that come and go while a table is lifted, and those on other servers.

use super::mallory;
use crate::common::{cluster, count, message, texts};
use testbed::cluster::Cluster;
use testbed::guardian::wait_until;

/// A lock keeps others from adding partitions, but not code in the same transaction: a foreign one got rows with the rights of
/// the owner of the whole table.
#[tokio::test]
async fn no_partition_is_added_in_the_midst() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "in_the_midst", "pgmask_operator").await;
    admin
        .batch_execute(
            "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere; GRANT USAGE ON FOREIGN SERVER nowhere TO mallory;
             DROP TABLE user_logins CASCADE;
             CREATE TABLE user_logins (user_id text, device_type text, masked_ip text, masked_device_id text, locale text,
                 app_version integer, create_date date) PARTITION BY LIST (left(masked_ip, 3));
             CREATE TABLE hashes PARTITION OF user_logins FOR VALUES IN ('000'); INSERT INTO user_logins (masked_ip) VALUES (repeat('0', 64));
             CREATE TABLE tokens PARTITION OF user_logins FOR VALUES IN ('m1_'); CREATE TABLE others PARTITION OF user_logins DEFAULT PARTITION BY LIST (user_id);
             ALTER TABLE tokens OWNER TO mallory; ALTER TABLE others OWNER TO mallory; GRANT INSERT ON user_logins TO pgmask_writer",
        )
        .await
        .unwrap();
    for (n, command) in [
        "CREATE FOREIGN TABLE mallory.elsewhere PARTITION OF public.others FOR VALUES IN ('x') SERVER nowhere",
        "CREATE TABLE mallory.elsewhere PARTITION OF public.others FOR VALUES IN ('x')",
        "ALTER TABLE public.others ATTACH PARTITION mallory.ready FOR VALUES IN ('x')",
    ]
    .into_iter()
    .enumerate()
    {
        mallory
            .batch_execute(&format!(
                "CREATE TABLE IF NOT EXISTS mallory.ready (LIKE public.others);
                 CREATE OR REPLACE FUNCTION mallory.adds() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
                     PERFORM nextval('mallory.ran'); {command}; RETURN NEW; END $$;
                 CREATE OR REPLACE TRIGGER t BEFORE INSERT ON public.tokens FOR EACH ROW EXECUTE FUNCTION mallory.adds()"
            ))
            .await
            .unwrap();
        for call in [
            "CALL pgmask.remask('public.user_logins')".to_owned(),
            format!("SELECT pgmask.ingest_login('{{\"user_id\": \"u{n}\", \"ip\": \"203.0.113.7\"}}')"),
        ] {
            let error = message(&admin.batch_execute(&call).await.expect_err(&call));
            assert!(error.starts_with("42501 "), "{command}: {call}: {error}");
        }
    }
    assert_eq!(
        count(&admin, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'others'::regclass").await,
        0
    );
}

/// Partitions that are exchanged while their parent's lock is waited for are as many as before, and others.
#[tokio::test]
async fn partitions_that_are_exchanged_are_held() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, _mallory) = mallory(&cluster, "held", "pgmask_operator").await;
    admin
        .batch_execute(
            "CREATE TABLE parts (masked_ip text, n int) PARTITION BY LIST (masked_ip); CREATE TABLE ordinary PARTITION OF parts DEFAULT;
             INSERT INTO parts VALUES (repeat('0', 64), 1);
             CREATE TABLE below PARTITION OF parts FOR VALUES IN ('x') PARTITION BY LIST (n);
             CREATE TABLE a PARTITION OF below FOR VALUES IN (1) PARTITION BY LIST (n); CREATE TABLE b (LIKE parts) PARTITION BY LIST (n)",
        )
        .await
        .unwrap();
    let exchanges = cluster.connect("held").await.unwrap();
    exchanges
        .batch_execute("BEGIN; ALTER TABLE below DETACH PARTITION a; ALTER TABLE below ATTACH PARTITION b FOR VALUES IN (1)")
        .await
        .unwrap();
    let caller = cluster.connect("held").await.unwrap();
    let calls = tokio::spawn(async move {
        caller.batch_execute("BEGIN").await.unwrap();
        caller
            .batch_execute("SELECT pgmask.remask_blocks('ordinary'::regclass, NULL, NULL, 0, 1)")
            .await
            .unwrap();
        caller
    });
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    wait_until("it waits", || async { count(&admin, waits).await == 1 }).await.unwrap();
    exchanges.batch_execute("COMMIT").await.unwrap();
    let _caller = calls.await.unwrap();
    let held =
        "SELECT count(*) FROM pg_locks WHERE relation = 'b'::regclass AND mode = 'ShareUpdateExclusiveLock'";
    assert_eq!(count(&admin, held).await, 1);
}

/// Whoever owns a part of the login table may add one on another server, which is asked in the name of whoever reads; as a
/// superuser, a wrapper may need no password.
#[tokio::test]
async fn no_other_server_is_asked_with_the_owners_rights() {
    let admin = cluster().await.database("foreign_parts").await.unwrap();
    admin
        .batch_execute(
            "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
             DROP TABLE user_logins CASCADE;
             CREATE TABLE user_logins (user_id text, device_type text, masked_ip text, masked_device_id text, locale text,
                 app_version integer, create_date date) PARTITION BY LIST (masked_ip);
             CREATE TABLE ordinary PARTITION OF user_logins DEFAULT;
             INSERT INTO user_logins (masked_ip) VALUES (repeat('0', 64));
             CREATE TABLE below PARTITION OF user_logins FOR VALUES IN ('x') PARTITION BY LIST (user_id);
             CREATE FOREIGN TABLE public.elsewhere PARTITION OF below DEFAULT SERVER nowhere",
        )
        .await
        .unwrap();
    let tokens = "SELECT value FROM pgmask.health WHERE item = 'older_tokens'";
    assert_eq!(texts(&admin, tokens).await, ["1 of 1 sampled rows"]);
    let error = message(&admin.batch_execute("CALL pgmask.remask('user_logins')").await.unwrap_err());
    assert!(error.starts_with("42809 partition public.elsewhere is on another server"), "{error}");
    admin.batch_execute("ALTER TABLE below DETACH PARTITION elsewhere").await.unwrap();
    admin.batch_execute("CALL pgmask.remask('user_logins')").await.unwrap();
    assert_eq!(texts(&admin, tokens).await, ["0 of 1 sampled rows"]);
}

/// Who owns one partition could have rows written into others: remask updates the root where tokens decide about partitions, with the
/// rights of its owner, and a trigger of the partition's changed the row, and with it where it goes.
#[tokio::test]
async fn who_owns_a_partition_has_no_rows_moved_into_others() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("movers").await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE pat; CREATE SCHEMA pat AUTHORIZATION pat; GRANT USAGE ON SCHEMA pat TO PUBLIC",
        )
        .await
        .unwrap();
    for (key, first, second) in [
        ("RANGE ((extract(year FROM create_date)))", "FROM (2025) TO (2026)", "FROM (2026) TO (2027)"),
        ("RANGE (masked_ip)", "", ""),
        ("RANGE ((lower(masked_ip)))", "", ""),
    ] {
        let tokens = key.contains("masked");
        let current = count(&admin, "SELECT max(generation)::bigint FROM pgmask.key_check").await;
        let (first, second) = match tokens {
            true => (
                format!("FROM ('m{current}_') TO ('m{current}_z')"),
                format!("FROM ('m{0}_') TO ('m{0}_z')", current + 1),
            ),
            false => (first.to_owned(), second.to_owned()),
        };
        admin
            .batch_execute(&format!(
                "DROP TABLE public.user_logins CASCADE;
                 CREATE TABLE public.user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256), masked_device_id varchar(256),
                     locale varchar(32), app_version integer, create_date date) PARTITION BY {key};
                 CREATE TABLE public.first PARTITION OF public.user_logins FOR VALUES {first};
                 CREATE TABLE public.second PARTITION OF public.user_logins FOR VALUES {second};
                 GRANT INSERT ON public.user_logins TO pgmask_writer; ALTER TABLE public.first OWNER TO pat;
                 INSERT INTO public.user_logins (user_id, masked_ip, create_date) VALUES ('alice', pgmask.mask_pii('192.0.2.1'), '2025-03-01');
                 CREATE OR REPLACE FUNCTION pat.forges() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     NEW.user_id := 'forged'; NEW.create_date := '2026-02-02'; NEW.locale := 'XX'; RETURN NEW; END $$;
                 ALTER FUNCTION pat.forges() OWNER TO pat;
                 CREATE TRIGGER forges BEFORE UPDATE ON public.first FOR EACH ROW EXECUTE FUNCTION pat.forges();
                 SELECT pgmask.rotate_key()"
            ))
            .await
            .unwrap();
        let refused =
            message(&admin.batch_execute("CALL pgmask.remask('public.user_logins')").await.unwrap_err());
        let expected =
            if tokens { "0A000 table public.first is not changed: its trigger forges " } else { "23514 " };
        assert!(refused.starts_with(expected), "{key}: {refused}");
        assert_eq!(count(&admin, "SELECT count(*) FROM public.second").await, 0, "{key}");
        // A trigger of the root's is its owner's, and rows go where their tokens say.
        admin
            .batch_execute(
                "DROP TRIGGER forges ON public.first; CREATE OR REPLACE FUNCTION public.touches() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     NEW.locale := 'touched'; RETURN NEW; END $$;
                 CREATE TRIGGER touches BEFORE UPDATE ON public.user_logins FOR EACH ROW EXECUTE FUNCTION public.touches()",
            )
            .await
            .unwrap();
        // But who has TRIGGER on all of them may have made it.
        if tokens {
            admin.batch_execute("ALTER FUNCTION public.touches() OWNER TO pat").await.unwrap();
            let refused =
                message(&admin.batch_execute("CALL pgmask.remask('public.user_logins')").await.unwrap_err());
            assert!(
                refused.starts_with("0A000 table public.first is not changed: its trigger touches "),
                "{key}: {refused}"
            );
            admin.batch_execute("ALTER FUNCTION public.touches() OWNER TO postgres").await.unwrap();
        }
        admin.batch_execute("CALL pgmask.remask('public.user_logins')").await.unwrap();
        let stays = i64::from(!tokens);
        assert_eq!(
            count(&admin, "SELECT count(*) FROM public.first WHERE user_id = 'alice' AND locale = 'touched'")
                .await,
            stays,
            "{key}"
        );
        assert_eq!(
            count(&admin, "SELECT count(*) FROM public.second WHERE user_id = 'alice'").await,
            1 - stays,
            "{key}"
        );
    }
}

/// Nor by a trigger that is made in the midst: planning the update looks at checks of the partition, whose functions may act as their
/// owner.
#[tokio::test]
async fn no_trigger_is_made_in_the_midst_that_moves_rows_into_others() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("movers_made_late").await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE pat LOGIN; CREATE SCHEMA pat AUTHORIZATION pat; GRANT USAGE ON SCHEMA pat TO PUBLIC;
             DROP TABLE public.user_logins CASCADE;
             CREATE TABLE public.user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256), masked_device_id varchar(256),
                 locale varchar(32), app_version integer, create_date date) PARTITION BY RANGE (locale, masked_ip);
             CREATE TABLE public.first PARTITION OF public.user_logins FOR VALUES FROM ('A', MINVALUE) TO ('B', MINVALUE);
             CREATE TABLE public.second PARTITION OF public.user_logins FOR VALUES FROM ('B', MINVALUE) TO ('C', MINVALUE);
             GRANT INSERT ON public.user_logins TO pgmask_writer; ALTER TABLE public.first OWNER TO pat;
             INSERT INTO public.user_logins (user_id, locale, masked_ip) VALUES ('alice', 'A', pgmask.mask_pii('192.0.2.1'));
             SELECT pgmask.rotate_key()",
        )
        .await
        .unwrap();
    let pat = cluster.connect_as("pat", "movers_made_late").await.unwrap();
    pat.batch_execute(
        "CREATE FUNCTION pat.forges() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.user_id := 'forged'; NEW.locale := 'B'; RETURN NEW; END $$;
         CREATE TABLE pat.seen (error text);
         CREATE FUNCTION pat.makes() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$ BEGIN
             IF session_user = 'pat' THEN RETURN; END IF;
             BEGIN
                 EXECUTE 'CREATE TRIGGER forges BEFORE UPDATE ON public.first FOR EACH ROW EXECUTE FUNCTION pat.forges()';
             EXCEPTION WHEN OTHERS THEN INSERT INTO pat.seen VALUES (SQLERRM); END; END $$;
         CREATE FUNCTION pat.plain(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM pat.makes(); RETURN true; END $$;
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pat TO PUBLIC;
         ALTER TABLE public.first ADD CHECK (pat.plain('x'))",
    )
    .await
    .unwrap();
    admin.batch_execute("CALL pgmask.remask('public.user_logins')").await.unwrap();
    assert_eq!(count(&admin, "SELECT count(*) FROM public.second").await, 0);
    assert_eq!(
        count(&admin, "SELECT count(*) FROM public.first WHERE user_id = 'alice' AND masked_ip LIKE 'm2%'")
            .await,
        1
    );
    assert!(
        count(&admin, "SELECT count(*) FROM pat.seen WHERE error LIKE '%CREATE TRIGGER%'").await > 0,
        "it never tried"
    );
}
