//! What others call by the names that pg_mask uses is never meant.

use super::member;
use crate::common::{cluster, count, message, texts};
use testbed::cluster::Cluster;

#[tokio::test]
async fn a_search_path_full_of_traps_catches_nothing() {
    let cluster = cluster().await;
    let admin = cluster.database("search_path").await.unwrap();
    admin.batch_execute("CREATE SCHEMA traps; GRANT ALL ON SCHEMA traps TO PUBLIC; GRANT TEMP ON DATABASE search_path TO PUBLIC").await.unwrap();
    member(&admin, "sets_traps", "pgmask_ingester").await;
    let client = cluster.connect_as("sets_traps", "search_path").await.unwrap();
    client
        .batch_execute(
            "CREATE FUNCTION traps.trap() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'caught as %', current_user; END $$;
             CREATE FUNCTION traps.nextval(text) RETURNS bigint LANGUAGE sql AS $$ SELECT traps.trap()::bigint $$;
             CREATE FUNCTION traps.nextval(regclass) RETURNS bigint LANGUAGE sql AS $$ SELECT traps.trap()::bigint $$;
             CREATE FUNCTION traps.generate_series(int, int) RETURNS SETOF int LANGUAGE sql AS $$ SELECT traps.trap()::int $$;
             CREATE FUNCTION traps.unnest(anyarray) RETURNS SETOF anyelement LANGUAGE sql AS $$ SELECT $1[1] WHERE traps.trap() = '' $$;
             CREATE FUNCTION traps.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT traps.trap()::timestamptz $$;
             CREATE FUNCTION traps.date_eq(date, date) RETURNS boolean LANGUAGE sql AS $$ SELECT traps.trap() = '' $$;
             CREATE OPERATOR traps.= (LEFTARG = date, RIGHTARG = date, FUNCTION = traps.date_eq);
             CREATE FUNCTION traps.uuid_eq(uuid, uuid) RETURNS boolean LANGUAGE sql AS $$ SELECT traps.trap() = '' $$;
             CREATE OPERATOR traps.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = traps.uuid_eq);
             CREATE DOMAIN traps.text AS pg_catalog.text CHECK (traps.trap() = '');
             CREATE TABLE traps.user_logins (user_id text);
             CREATE TEMP TABLE user_logins (user_id text);
             CREATE TEMP TABLE ledger (x int); CREATE TEMP TABLE quarantine (x int); CREATE TEMP TABLE key_check (x int);
             SET search_path = pg_temp, traps, pg_catalog, public",
        )
        .await
        .unwrap();
    let sql = "SELECT * FROM pgmask.ingest_login_batch('{a, b}', '{\"{\\\"user_id\\\":1,\\\"ip\\\":\\\"::1\\\"}\", bad}', NULL::timestamptz[] || ARRAY[NULL, NULL]::timestamptz[], '{1, 1}')";
    client.batch_execute(sql).await.unwrap();
    client.batch_execute("SELECT public.ingest_login('{\"user_id\": 1}')").await.unwrap();
    assert_eq!(count(&admin, "SELECT count(*) FROM user_logins").await, 2);
    assert_eq!(count(&admin, "SELECT count(*) FROM pgmask.quarantine").await, 1);
    assert_eq!(count(&client, "SELECT count(*) FROM pg_temp.user_logins").await, 0);
}

#[tokio::test]
async fn no_source_holds_a_secret_and_every_definer_pins_its_search_path() {
    let client = cluster().await.database("sources").await.unwrap();
    let keyring = std::fs::read_to_string(cluster().await.data().join("pg_mask.keyring")).unwrap();
    let keyring: serde_json::Value = serde_json::from_str(&keyring).unwrap();
    let key = keyring["generations"][0]["key"].as_str().unwrap();
    let sources = client.query(
        "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE prokind = 'f' AND proname ~ 'mask|ingest'",
        &[],
    );
    for row in sources.await.unwrap() {
        assert!(!row.get::<_, &str>(0).contains(key));
    }
    let loose = "SELECT count(*) FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid
        JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_mask'
        WHERE prosecdef AND NOT coalesce(proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false)";
    assert_eq!(count(&client, loose).await, 0);
}

/// Anybody may have PL/pgSQL compile a function in the search path of the moment (plpgsql_validator), whatever the function says
/// of its own path. What it declares has to mean the same in each.
#[tokio::test]
async fn no_function_is_compiled_with_names_of_others() {
    let cluster = Cluster::start(&["pgmask.vault = on"]).await.unwrap();
    let admin = cluster.database("compiled").await.unwrap();
    cluster.apply_file("compiled", "05_dashboards.sql").unwrap();
    let body = "{\"user_id\": \"u\", \"ip\": \"192.0.2.1\"}";
    admin
        .batch_execute(&format!("SELECT pgmask.ingest_login('{body}'); SELECT pgmask.rotate_key()"))
        .await
        .unwrap();
    admin
        .batch_execute(
            "CREATE SCHEMA evil; CREATE FUNCTION evil.evil() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil as %', current_user; END $$;
             DO $$ DECLARE t pg_catalog.text; BEGIN
                 FOR t IN SELECT typname FROM pg_catalog.pg_type WHERE typnamespace = 'pg_catalog'::pg_catalog.regnamespace
                     AND typtype = 'b' AND typelem = 0 AND typname !~ '^pg_' LOOP
                     EXECUTE pg_catalog.format('CREATE DOMAIN evil.%1$I AS pg_catalog.%1$I CHECK (evil.evil())', t);
                 END LOOP; END $$;
             CREATE TYPE evil.record AS (a pg_catalog.int4);
             SET search_path = evil, pg_catalog;
             SELECT plpgsql_validator(p.oid) FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
             WHERE l.lanname = 'plpgsql' AND p.pronamespace IN ('pgmask'::pg_catalog.regnamespace, 'logins'::pg_catalog.regnamespace);
             SET search_path = pg_catalog",
        )
        .await
        .unwrap();
    for sql in [
        "SELECT FROM pgmask.maintain()",
        "SELECT FROM pgmask.health",
        "SELECT logins.refresh_dashboards()",
        "CALL pgmask.remask('public.user_logins')",
        "CALL pgmask.remask('pgmask.vault')",
        "CALL pgmask.recover_pii(pgmask.mask_pii('192.0.2.1'), 'why')",
        "CALL pgmask.forget(pgmask.mask_pii('192.0.2.1'), 'why')",
        "SELECT pgmask.reseal_quarantine()",
    ] {
        admin.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {}", message(&error)));
    }
    let health =
        texts(&admin, "SELECT item || value || hint FROM pgmask.health WHERE value LIKE 'SQLSTATE%'").await;
    assert_eq!(health, [""; 0]);
}
