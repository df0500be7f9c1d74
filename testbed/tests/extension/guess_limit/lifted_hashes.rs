//! `remask` is no way to guess: hashes without a key count for who may have put them in.

use super::{PRELOADED, is_stopped, masking, server};
use crate::common::count;
use crate::extension::remask::remask;

/// Who may write into the login table puts in hashes of guesses, and somebody else's `remask` would lift them: they
/// count in the writer's budget. It lifted 10,000 of 10,000.
#[tokio::test]
async fn remask_lifts_no_guesses_for_who_may_write() {
    let (cluster, admin) = server(&[PRELOADED, "pgmask.guess_limit = 100"]).await;
    admin
        .batch_execute(
            "CREATE ROLE ops LOGIN; GRANT pgmask_operator TO ops; CREATE ROLE writers; GRANT INSERT, SELECT ON user_logins TO writers;
             CREATE ROLE third LOGIN NOINHERIT; GRANT pgmask_analyst TO third; GRANT writers TO third",
        )
        .await
        .unwrap();
    let ops = cluster.connect_as("ops", "guesses").await.unwrap();
    let analyst = cluster.connect_as("analyst", "guesses").await.unwrap();
    assert_eq!(count(&analyst, &masking(0, 100)).await, 100);
    let third = cluster.connect_as("third", "guesses").await.unwrap();
    third.batch_execute("SET ROLE pgmask_analyst").await.unwrap();
    assert_eq!(count(&third, &masking(0, 100)).await, 100);
    let put = "INSERT INTO user_logins (masked_ip) SELECT encode(sha256(host('10.0.0.0'::inet + n)::bytea), 'hex') FROM generate_series(1, 50) n";
    for (client, give, put, take) in [
        (&analyst, "GRANT INSERT ON user_logins TO analyst", put, "REVOKE INSERT ON user_logins FROM analyst"),
        (
            &analyst,
            "GRANT INSERT (masked_ip) ON user_logins TO analyst",
            put,
            "REVOKE INSERT (masked_ip) ON user_logins FROM analyst",
        ),
        (&analyst, "GRANT pg_write_all_data TO analyst", put, "REVOKE pg_write_all_data FROM analyst"),
        (
            &analyst,
            "INSERT INTO user_logins (user_id) SELECT n FROM generate_series(1, 50) n; GRANT UPDATE (masked_device_id) ON user_logins TO analyst",
            "UPDATE user_logins SET masked_device_id = encode(sha256(user_id::bytea), 'hex')",
            "REVOKE UPDATE (masked_device_id) ON user_logins FROM analyst",
        ),
        (
            &analyst,
            "CREATE VIEW in_front AS SELECT masked_ip FROM user_logins; GRANT INSERT ON in_front TO analyst",
            "INSERT INTO in_front SELECT encode(sha256(host('10.0.0.0'::inet + n)::bytea), 'hex') FROM generate_series(1, 50) n",
            "DROP VIEW in_front",
        ),
        (&third, "", "SET ROLE writers", ""),
        (&third, "", put, "DROP OWNED BY writers"),
        (
            &analyst,
            "ALTER TABLE user_logins RENAME TO before; CREATE TABLE user_logins (LIKE before) PARTITION BY LIST (locale);
             CREATE TABLE one PARTITION OF user_logins DEFAULT; GRANT SELECT, INSERT ON user_logins TO analyst",
            put,
            "DROP TABLE user_logins; ALTER TABLE before RENAME TO user_logins",
        ),
    ] {
        admin.batch_execute(give).await.unwrap();
        client.batch_execute(put).await.unwrap_or_else(|error| panic!("{put}: {error:?}"));
        let rows = count(&admin, "SELECT count(*) FROM user_logins").await;
        for caller in [&admin, &ops] {
            assert_eq!(remask(caller, "'user_logins'").await, [0, rows], "{give}; {put}");
        }
        admin.batch_execute("TRUNCATE user_logins").await.unwrap();
        admin.batch_execute(take).await.unwrap();
    }
    // Whoever may write counts, who need not be who reads; and whatever column it is, as a trigger may make the hash.
    admin
        .batch_execute(
            "CREATE FUNCTION hashes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 NEW.masked_ip = encode(sha256(convert_to(NEW.ip, 'UTF8')), 'hex'); RETURN NEW; END $$",
        )
        .await
        .unwrap();
    for (right, column, value) in [
        ("INSERT", "masked_ip", "encode(sha256(host('10.0.0.0'::inet + n)::bytea), 'hex')"),
        ("INSERT (ip)", "ip", "host('10.0.0.0'::inet + n)"),
    ] {
        admin
            .batch_execute(&format!(
                "CREATE TABLE listed (ip text, masked_ip text); GRANT {right} ON listed TO analyst; GRANT SELECT ON listed TO second"
            ))
            .await
            .unwrap();
        if column == "ip" {
            let trigger =
                "CREATE TRIGGER hashes BEFORE INSERT ON listed FOR EACH ROW EXECUTE FUNCTION hashes()";
            admin.batch_execute(trigger).await.unwrap();
        }
        let put = format!("INSERT INTO listed ({column}) SELECT {value} FROM generate_series(1, 50) AS n");
        analyst.batch_execute(&put).await.unwrap();
        assert_eq!(remask(&admin, "'listed'").await, [0, 50], "{right}");
        admin.batch_execute("DROP TABLE listed").await.unwrap();
    }
    // What a budget has left is lifted, each value counts once, and it is used up then.
    admin.batch_execute("GRANT INSERT ON user_logins TO second").await.unwrap();
    let second = cluster.connect_as("second", "guesses").await.unwrap();
    for _ in 0..2 {
        second.batch_execute(put).await.unwrap();
    }
    second.batch_execute(&put.replace("10.0.0.0", "10.1.0.0").replace("50", "80")).await.unwrap();
    assert_eq!(remask(&ops, "'user_logins'").await, [150, 30]);
    is_stopped(&second, &masking(5000, 1)).await;
    // What the DBA vouches for is one plain command; and so it is where no one else may write.
    admin.batch_execute("GRANT pgmask_unlimited TO second").await.unwrap();
    assert_eq!(remask(&ops, "'user_logins'").await, [30, 0]);
    admin
        .batch_execute("REVOKE pgmask_unlimited FROM second; REVOKE INSERT ON user_logins FROM second")
        .await
        .unwrap();
    admin.batch_execute(&put.replace("50", "500")).await.unwrap();
    assert_eq!(remask(&admin, "'user_logins'").await, [500, 0]);
    admin.batch_execute(&put.replace("50", "500")).await.unwrap();
    assert_eq!(remask(&ops, "'user_logins'").await, [500, 0]);
    // Who owns stored results of it does not write it.
    cluster.apply_file("guesses", "05_dashboards.sql").unwrap();
    admin.batch_execute(&put.replace("10.0.0.0", "10.2.0.0").replace("50", "500")).await.unwrap();
    assert_eq!(remask(&ops, "'user_logins'").await, [500, 0]);
    // Any other table is its owner's to write.
    admin
        .batch_execute("CREATE TABLE of_second (masked_ip text); ALTER TABLE of_second OWNER TO second")
        .await
        .unwrap();
    second.batch_execute(&put.replace("user_logins", "of_second")).await.unwrap();
    assert_eq!(remask(&admin, "'of_second'").await, [0, 50]);
}

/// Nor for whose code runs as rows are written, by `pgmask_writer` too: a trigger puts hashes into these rows, and so does a
/// function that others use for a trigger, and that its owner may exchange.
#[tokio::test]
async fn remask_lifts_no_guesses_for_who_has_code_in_the_table() {
    let (cluster, admin) = server(&[PRELOADED, "pgmask.guess_limit = 100"]).await;
    let analyst = cluster.connect_as("analyst", "guesses").await.unwrap();
    assert_eq!(count(&analyst, &masking(0, 100)).await, 100);
    let puts = "INSERT INTO public.user_logins (user_id, masked_ip, create_date)
        SELECT 'guess', encode(sha256(host('10.0.0.0'::inet + n)::bytea), 'hex'), '2025-01-01' FROM generate_series(1, 50) AS n";
    admin
        .batch_execute(
            "ALTER TABLE user_logins RENAME TO before; CREATE TABLE user_logins (LIKE before) PARTITION BY RANGE (create_date);
             CREATE TABLE past PARTITION OF user_logins FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
             CREATE TABLE present PARTITION OF user_logins FOR VALUES FROM ('2026-01-01') TO (MAXVALUE);
             GRANT SELECT ON user_logins TO pgmask_analyst; GRANT INSERT ON user_logins TO pgmask_writer",
        )
        .await
        .unwrap();
    analyst
        .batch_execute(
            "CREATE FUNCTION public.puts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 NEW.user_id = 'guess'; NEW.masked_ip = encode(sha256(host('10.0.0.0'::inet + NEW.locale::int)::bytea), 'hex'); RETURN NEW; END $$"
        )
        .await
        .unwrap();
    let trigger =
        "CREATE TRIGGER puts BEFORE INSERT ON public.present FOR EACH ROW EXECUTE FUNCTION public.puts()";
    for (give, take) in [
        (
            format!("ALTER TABLE present OWNER TO analyst; SET ROLE analyst; {trigger}; RESET ROLE"),
            "ALTER TABLE present OWNER TO postgres; DROP TRIGGER puts ON present",
        ),
        (
            format!("GRANT TRIGGER ON present TO analyst; SET ROLE analyst; {trigger}; RESET ROLE"),
            "REVOKE TRIGGER ON present FROM analyst; DROP TRIGGER puts ON present",
        ),
        (trigger.to_owned(), "DROP TRIGGER puts ON present"),
        // An owner gives back what was revoked, once tokens are lifted.
        (
            format!("ALTER TABLE present OWNER TO analyst; SET ROLE analyst; {trigger}; REVOKE ALL ON present FROM analyst; GRANT SELECT, UPDATE (user_id) ON present TO analyst; RESET ROLE;
                 ALTER FUNCTION puts() OWNER TO postgres"),
            "ALTER TABLE present OWNER TO postgres; DROP TRIGGER puts ON present",
        ),
    ] {
        admin.batch_execute(&give).await.unwrap();
        admin
            .batch_execute("SELECT pgmask.ingest_login(jsonb_build_object('user_id', 'u', 'locale', n::text)) FROM generate_series(1, 50) AS n")
            .await
            .unwrap();
        assert_eq!(
            count(&admin, "SELECT count(*) FROM user_logins WHERE user_id = 'guess'").await,
            50,
            "{give}"
        );
        assert_eq!(remask(&admin, "'user_logins'").await, [0, 50], "{give}");
        admin.batch_execute(&format!("TRUNCATE user_logins; {take}")).await.unwrap();
    }
    // Who has no right but to make a trigger need not read the table: the trigger is shown the row with its token.
    admin
        .batch_execute("CREATE ROLE blind LOGIN; GRANT TRIGGER ON past TO blind; ALTER ROLE blind SET pgmask.guess_limit = 0")
        .await
        .unwrap();
    admin.batch_execute(puts).await.unwrap();
    assert_eq!(remask(&admin, "'user_logins'").await, [0, 50]);
    admin.batch_execute("REVOKE TRIGGER ON past FROM blind").await.unwrap();
    assert_eq!(remask(&admin, "'user_logins'").await, [50, 0]);
}

/// Nor by what else its functions and rules are called for: a domain's check, the key of partitions, a rule, and rows that
/// others delete. What of it can't be told, counts at least for who calls.
#[tokio::test]
async fn remask_lifts_no_guesses_however_they_were_put_in() {
    const HASHES: &str =
        "SELECT encode(sha256(host('10.0.0.0'::inet + n)::bytea), 'hex') FROM generate_series(1, 50) AS n";
    let (cluster, admin) = server(&[PRELOADED, "pgmask.guess_limit = 100"]).await;
    admin
        .batch_execute(&format!(
            "CREATE ROLE calls_and_reads LOGIN IN ROLE pgmask_analyst, pgmask_operator; CREATE ROLE ops LOGIN IN ROLE pgmask_operator;
             CREATE TABLE hashes AS {HASHES}; DROP SCHEMA logins CASCADE; ALTER TABLE user_logins RENAME TO before"
        ))
        .await
        .unwrap();
    let analyst = cluster.connect_as("analyst", "guesses").await.unwrap();
    let both = cluster.connect_as("calls_and_reads", "guesses").await.unwrap();
    for session in [&analyst, &both] {
        assert_eq!(count(session, &masking(0, 100)).await, 100);
    }
    analyst
        .batch_execute(
            "CREATE FUNCTION public.checks(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
             CREATE FUNCTION public.part_of(text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
             CREATE DOMAIN public.checked AS varchar(32) CHECK (public.checks(VALUE))",
        )
        .await
        .unwrap();
    let like_it = "CREATE TABLE user_logins (LIKE before)";
    for (name, made) in [
        ("a domain", format!("{like_it}; ALTER TABLE user_logins ALTER locale TYPE checked")),
        (
            "the key of partitions",
            format!("{like_it} PARTITION BY LIST (part_of(user_id::text)); CREATE TABLE one PARTITION OF user_logins DEFAULT"),
        ),
        ("a rule", format!("{like_it}; CREATE RULE calls AS ON INSERT TO user_logins DO ALSO SELECT checks('')")),
        (
            "a rule of another table",
            format!("{like_it}; CREATE TABLE beside (h text); GRANT INSERT ON beside TO analyst;
                 CREATE RULE puts AS ON INSERT TO beside DO INSTEAD INSERT INTO user_logins (masked_ip) VALUES (NEW.h)"),
        ),
        (
            "rows that are deleted",
            format!("{like_it}; CREATE TABLE beside (h text); GRANT DELETE ON beside TO analyst;
                 CREATE RULE puts AS ON DELETE TO beside DO ALSO INSERT INTO user_logins (masked_ip) VALUES (OLD.h)"),
        ),
    ] {
        admin.batch_execute(&made).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        admin
            .batch_execute("GRANT SELECT ON user_logins TO pgmask_analyst; GRANT INSERT ON user_logins TO pgmask_writer; INSERT INTO user_logins (masked_ip) TABLE hashes")
            .await
            .unwrap();
        assert_eq!(remask(&admin, "'user_logins'").await, [0, 50], "{name}");
        admin.batch_execute("DROP TABLE IF EXISTS beside; DROP TABLE user_logins").await.unwrap();
    }
    // Who calls, and may read what comes of it. An operator who may not has all of it lifted.
    admin
        .batch_execute(&format!("{like_it}; GRANT SELECT ON user_logins TO pgmask_analyst; GRANT INSERT ON user_logins TO pgmask_writer; INSERT INTO user_logins (masked_ip) TABLE hashes"))
        .await
        .unwrap();
    assert_eq!(remask(&both, "'user_logins'").await, [0, 50]);
    admin
        .batch_execute("REVOKE SELECT ON user_logins FROM pgmask_analyst; CREATE MATERIALIZED VIEW stored AS TABLE user_logins; GRANT SELECT ON stored TO pgmask_analyst")
        .await
        .unwrap();
    assert_eq!(remask(&both, "'user_logins'").await, [0, 50]);
    admin
        .batch_execute("DROP MATERIALIZED VIEW stored; GRANT SELECT ON user_logins TO pgmask_analyst")
        .await
        .unwrap();
    let ops = cluster.connect_as("ops", "guesses").await.unwrap();
    assert_eq!(remask(&ops, "'user_logins'").await, [50, 0]);
    // A view that anybody may make is no way to write, whatever is granted on it: adoption goes on.
    admin
        .batch_execute("TRUNCATE user_logins; INSERT INTO user_logins (masked_ip) TABLE hashes")
        .await
        .unwrap();
    let anybody = "CREATE TEMP VIEW v AS SELECT masked_ip FROM public.user_logins; GRANT ALL ON v TO PUBLIC";
    analyst.batch_execute(anybody).await.unwrap();
    assert_eq!(remask(&ops, "'user_logins'").await, [50, 0]);
    analyst.batch_execute("DROP VIEW v").await.unwrap();
    // Who may switch to the writer is no writer by any right of its own, but writes.
    admin
        .batch_execute("TRUNCATE user_logins; INSERT INTO user_logins (masked_ip) TABLE hashes")
        .await
        .unwrap();
    let switches = match count(&admin, "SELECT current_setting('server_version_num')::bigint").await {
        ..160_000 => "ALTER ROLE analyst NOINHERIT; GRANT pgmask_writer TO analyst",
        _ => "GRANT pgmask_writer TO analyst WITH INHERIT FALSE, SET TRUE",
    };
    admin.batch_execute(switches).await.unwrap();
    assert_eq!(remask(&ops, "'user_logins'").await, [0, 50]);
    admin.batch_execute("REVOKE pgmask_writer FROM analyst; ALTER ROLE analyst INHERIT").await.unwrap();
    // An operator's and a domain's functions count for their owners, too, through whatever leads to them; and in another table
    // than the login table what pgmask_writer may write.
    for (name, made, listed) in [
        (
            "an operator",
            "CREATE FUNCTION public.op(text, text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1';
             CREATE OPERATOR public.@@@ (FUNCTION = public.op, LEFTARG = text, RIGHTARG = text)",
            "CREATE TABLE listed (masked_ip text, note text DEFAULT ('a' OPERATOR(public.@@@) 'b'))",
        ),
        (
            "a domain over a domain",
            "SELECT 1",
            "CREATE DOMAIN over_it AS checked; CREATE TABLE listed (masked_ip text, note over_it)",
        ),
        (
            "what the writer may write",
            "SELECT 1",
            "CREATE TABLE listed (masked_ip text); GRANT INSERT ON listed TO pgmask_writer; ALTER ROLE pgmask_writer SET pgmask.guess_limit = 0",
        ),
    ] {
        analyst.batch_execute(made).await.unwrap();
        admin.batch_execute(listed).await.unwrap();
        admin
            .batch_execute("GRANT SELECT ON listed TO analyst; INSERT INTO listed (masked_ip) TABLE hashes")
            .await
            .unwrap();
        assert_eq!(remask(&admin, "'listed'").await, [0, 50], "{name}");
        admin.batch_execute("DROP TABLE listed").await.unwrap();
    }
    admin.batch_execute("ALTER ROLE pgmask_writer RESET pgmask.guess_limit").await.unwrap();
    // Under two domains a hash is two values, and a member in name alone is not exempt.
    admin
        .batch_execute("ALTER TABLE user_logins ADD masked_ip_network varchar(256); TRUNCATE user_logins; GRANT INSERT ON user_logins TO second;
             INSERT INTO user_logins (masked_ip, masked_ip_network) SELECT h, h FROM hashes AS t(h)")
        .await
        .unwrap();
    if count(&admin, "SELECT current_setting('server_version_num')::bigint").await >= 160_000 {
        admin.batch_execute("GRANT pgmask_unlimited TO second WITH INHERIT FALSE, SET FALSE").await.unwrap();
    }
    let second = cluster.connect_as("second", "guesses").await.unwrap();
    assert_eq!(count(&second, &masking(1000, 30)).await, 30);
    remask(&admin, "'user_logins'").await;
    let lifted = "SELECT (count(*) FILTER (WHERE masked_ip LIKE 'm1%')) + (count(*) FILTER (WHERE masked_ip_network LIKE 'm1%')) FROM user_logins";
    assert_eq!(count(&admin, lifted).await, 70);
}
