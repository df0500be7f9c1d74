//! Code of others that runs while `pgmask.health` looks at the login table, which it does for the extension's owner.

use super::code_of_the_table::{OWNS, mallory, times};
use crate::common::{count, texts};
use testbed::cluster::Cluster;

/// What has the login table's place is looked at by `pgmask.health`, which has the rights of the extension's owner.
#[tokio::test]
async fn looking_at_the_health_runs_no_code_of_others_with_more_rights() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "health_of_a_view").await;
    admin.batch_execute("DROP SCHEMA logins CASCADE").await.unwrap();
    admin.batch_execute(OWNS).await.unwrap();
    mallory
        .batch_execute(
            "CREATE FUNCTION mallory.escalate() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM nextval('mallory.ran');
                 BEGIN EXECUTE 'ALTER ROLE mallory SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
                 RETURN true; END $$;
             CREATE TYPE mallory.kind AS (t text);
             CREATE FUNCTION mallory.cast(mallory.kind) RETURNS text LANGUAGE sql AS 'SELECT $1.t WHERE mallory.escalate()';
             CREATE CAST (mallory.kind AS text) WITH FUNCTION mallory.cast;
             ALTER TABLE user_logins DROP masked_ip, ADD masked_ip mallory.kind;
             INSERT INTO user_logins (masked_ip) VALUES (ROW('x'))",
        )
        .await
        .unwrap();
    let is_superuser = "SELECT count(*) FROM pg_roles WHERE rolname = 'mallory' AND rolsuper";
    admin.batch_execute("SELECT * FROM pgmask.health").await.unwrap();
    let ran = times(&admin).await;
    assert!(ran > 0, "the cast never ran");
    assert_eq!(count(&admin, is_superuser).await, 0);
    mallory
        .batch_execute(
            "ALTER TABLE user_logins RENAME TO old;
             CREATE VIEW public.user_logins AS SELECT 'x'::text AS masked_ip, 'y'::text AS masked_device_id WHERE mallory.escalate()",
        )
        .await
        .unwrap();
    admin.batch_execute("SELECT * FROM pgmask.health").await.unwrap();
    assert_eq!(times(&admin).await, ran, "a view is no login table");
    assert_eq!(count(&admin, is_superuser).await, 0);
}

/// An error that no block with EXCEPTION WHEN OTHERS catches had the whole view fail, with the text of whoever raised it.
#[tokio::test]
async fn an_error_of_code_leaves_the_other_rows_of_the_health() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "health_of_an_error").await;
    admin.batch_execute(OWNS).await.unwrap();
    admin
        .batch_execute("INSERT INTO user_logins (user_id) VALUES ('x'); GRANT pg_monitor TO mallory")
        .await
        .unwrap();
    mallory
        .batch_execute(
            "CREATE TABLE mallory.raises (code text); GRANT SELECT ON mallory.raises TO PUBLIC;
             CREATE FUNCTION mallory.fails(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ DECLARE code text; BEGIN
                 SELECT r.code INTO code FROM mallory.raises AS r;
                 IF current_user = 'pgmask_writer' THEN RAISE EXCEPTION 'mine' USING ERRCODE = code; END IF;
                 RETURN $1; END $$;
             CREATE INDEX fails ON user_logins (user_id) WHERE user_id <> mallory.fails('z')",
        )
        .await
        .unwrap();
    let all = count(&admin, "SELECT count(*) FROM pgmask.health").await;
    for (code, shown) in [("P0001", "P0001"), ("57014", "38000"), ("P0004", "38000")] {
        mallory
            .batch_execute(&format!(
                "DELETE FROM mallory.raises; INSERT INTO mallory.raises VALUES ('{code}')"
            ))
            .await
            .unwrap();
        for client in [&admin, &mallory] {
            let older =
                texts(client, "SELECT state || ': ' || value FROM pgmask.health WHERE item = 'older_tokens'")
                    .await;
            assert_eq!(older, [format!("failed: SQLSTATE {shown}")]);
            assert_eq!(count(client, "SELECT count(*) FROM pgmask.health").await, all);
        }
    }
}
