//! Whatever is wrong with the keyring: a clear error with a hint, nothing written, and all is well again
//! as soon as it is mended, in every session and without a restart.

use crate::common::{count, message, write_keyring};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use testbed::cluster::Cluster;
use tokio_postgres::Client;

/// Everything that needs keys fails with `expected`, and writes nothing.
async fn all_fails(client: &Client, expected: &str) {
    for sql in [
        "SELECT mask_pii('203.0.113.7')",
        "SELECT mask_pii('203.0.113.7'::inet)",
        "SELECT mask_pii('203.0.113.7', 'email')",
        "SELECT ingest_login('{\"user_id\": 1, \"ip\": \"203.0.113.7\"}')",
        "SELECT * FROM ingest_login_batch('{a, b}', '{\"{\\\"user_id\\\": 1}\", x}', ARRAY[now(), now()], '{1, 1}')",
        "INSERT INTO user_logins (masked_ip) SELECT mask_pii('203.0.113.7')",
    ] {
        let error = client.query(sql, &[]).await.expect_err(sql);
        let text = message(&error);
        assert!(text.starts_with("F0000 ") && text.contains(expected), "expected {expected:?}: {text}");
        assert!(error.as_db_error().unwrap().hint().is_some(), "no hint: {text}");
        assert!(!text.contains("203.0.113.7"), "{text}");
    }
    for table in ["user_logins", "pgmask.ledger", "pgmask.quarantine"] {
        assert_eq!(count(client, &format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
}

#[tokio::test]
async fn whatever_is_wrong_is_said_and_mended_without_restart() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = cluster.database("keys").await.unwrap();
    let path = cluster.data().join("pg_mask.keyring");
    let good = fs::read(&path).unwrap();
    let parsed: Value = serde_json::from_slice(&good).unwrap();
    let token: String = client.query_one("SELECT mask_pii('x')", &[]).await.unwrap().get(0);

    let write = |text: &[u8]| write_keyring(&path, text);
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value = parsed.clone();
        change(&mut value);
        write_keyring(&path, value.to_string().as_bytes());
    };
    let remove = || match fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir(&path).unwrap(),
        Ok(_) => fs::remove_file(&path).unwrap(),
        Err(_) => {}
    };
    let other = |key: &str| json!({"generation": 2, "key": key, "created_at": "2026-11-21T00:00:00Z"});
    let second = "ab01".repeat(16);

    type Damage<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let mut damages: Vec<Damage<'_>> = vec![
        ("it does not exist", Box::new(remove)),
        ("not JSON of the expected shape", Box::new(|| write(b""))),
        ("not JSON of the expected shape", Box::new(|| write(&good[..good.len() / 2]))),
        ("not JSON of the expected shape", Box::new(|| write(b"{}"))),
        ("not JSON of the expected shape", Box::new(|| write(b"[1, 2]"))),
        ("its format is not", Box::new(|| changed(&|ring| ring["format"] = json!("pg_mask keyring v9")))),
        ("it has no generation", Box::new(|| changed(&|ring| ring["generations"] = json!([])))),
        ("mode 0644", Box::new(|| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap())),
        ("mode 0640", Box::new(|| fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap())),
        (
            "a symbolic link",
            Box::new(|| {
                fs::rename(&path, path.with_extension("moved")).unwrap();
                symlink(path.with_extension("moved"), &path).unwrap();
            }),
        ),
        (
            "a directory",
            Box::new(|| {
                remove();
                fs::create_dir(&path).unwrap();
            }),
        ),
        (
            "generation 3 where generation 2",
            Box::new(|| {
                changed(&|ring| {
                    let mut third = other(&second);
                    third["generation"] = json!(3);
                    ring["generations"].as_array_mut().unwrap().push(third);
                });
            }),
        ),
        (
            "generation 1 where generation 2",
            Box::new(|| {
                changed(&|ring| {
                    let first = ring["generations"][0].clone();
                    ring["generations"].as_array_mut().unwrap().push(first);
                });
            }),
        ),
        ("is not 64 hex digits", Box::new(|| changed(&|ring| ring["generations"][0]["key"] = json!("ab")))),
        ("is weak", Box::new(|| changed(&|ring| ring["generations"][0]["key"] = json!("0".repeat(64))))),
        (
            "is not an RFC 3339 time",
            Box::new(|| changed(&|ring| ring["generations"][0]["created_at"] = json!("now"))),
        ),
        (
            "is not the key that this database was masked with",
            Box::new(|| {
                changed(&|ring| ring["generations"][0]["key"] = json!(second));
            }),
        ),
    ];
    if testbed::installation::shared().unwrap().user.is_some() {
        damages.push(("it belongs to user id 0", Box::new(|| chown(&path, Some(0), Some(0)).unwrap())));
    }
    for (expected, damage) in &damages {
        damage();
        all_fails(&client, expected).await;
        remove();
        write(&good);
        let again: String = client.query_one("SELECT mask_pii('x')", &[]).await.unwrap().get(0);
        assert_eq!(again, token, "after: {expected}");
    }

    // A second generation is seen at once; without it, later, the database is masked by nobody.
    changed(&|ring| ring["generations"].as_array_mut().unwrap().push(other(&second)));
    let newer: String = client.query_one("SELECT mask_pii('x')", &[]).await.unwrap().get(0);
    assert!(newer.starts_with("m2_"), "{newer}");
    let states =
        "SELECT count(*) FROM pgmask.key_status() WHERE (number, current, state) = (2, true, 'not recorded')";
    assert_eq!(count(&client, states).await, 1);
    client.batch_execute("SELECT * FROM ingest_login_batch('{}', '{}', '{}', '{}')").await.unwrap();
    let states = "SELECT count(*) FROM pgmask.key_status() WHERE kind = 'mask' AND state = 'ok'";
    assert_eq!(count(&client, states).await, 2);
    write(&good);
    all_fails(&client, "has no generation 2").await;
    let states = "SELECT count(*) FROM pgmask.key_status() WHERE (number, state) = (2, 'missing')";
    assert_eq!(count(&client, states).await, 1);
}

#[tokio::test]
async fn may_lie_elsewhere_but_nowhere_odd() {
    let mut cluster = Cluster::start(&[]).await.unwrap();
    let client = cluster.database("elsewhere").await.unwrap();
    let token: String = client.query_one("SELECT mask_pii('x')", &[]).await.unwrap().get(0);
    let old = cluster.data().join("pg_mask.keyring");
    let new = cluster.data().join("elsewhere.json");
    fs::rename(&old, &new).unwrap();
    let set = async |path: &Path| {
        let sql = format!("ALTER SYSTEM SET pgmask.keyring_file = '{}'", path.display());
        client.batch_execute(&sql).await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        let shown = || async {
            let row = client.query_one("SHOW pgmask.keyring_file", &[]).await.unwrap();
            row.get::<_, String>(0) == path.display().to_string()
        };
        testbed::guardian::wait_until("the setting is seen", shown).await.unwrap();
    };
    set(&new).await;
    let again: String = client.query_one("SELECT mask_pii('x')", &[]).await.unwrap().get(0);
    assert_eq!(again, token);
    set(Path::new("elsewhere.json")).await; // from the data directory
    let again: String = client.query_one("SELECT mask_pii('x')", &[]).await.unwrap().get(0);
    assert_eq!(again, token);
    for odd in ["/dev/zero", "/dev/full", "/dev/null"] {
        set(Path::new(odd)).await;
        all_fails(&client, "a device or a pipe").await;
    }
    set(Path::new("/nonexistent/keyring")).await;
    all_fails(&client, "it does not exist").await;

    // Whoever is no superuser learns that it is wrong, not where it is.
    client.batch_execute("SET ROLE pgmask_analyst").await.unwrap();
    let analyst = cluster.connect_as("pgmask_forwarder", "elsewhere").await.unwrap();
    let error = message(
        &analyst.query("SELECT * FROM ingest_login_batch('{}','{}','{}','{}')", &[]).await.unwrap_err(),
    );
    assert!(error.contains("it does not exist") && !error.contains("/nonexistent"), "{error}");
    drop((client, analyst));

    // A server that starts without its keyring says so, and does not make another.
    cluster.stop("INT").unwrap();
    cluster.restart().await.unwrap();
    let client = cluster.connect("elsewhere").await.unwrap();
    assert!(
        message(&client.query("SELECT mask_pii('x')", &[]).await.unwrap_err()).contains("it does not exist")
    );
    assert!(!old.exists());
}

#[tokio::test]
async fn a_new_keyring_is_seen_by_long_lived_call_sites() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = cluster.database("call_sites").await.unwrap();
    let path = cluster.data().join("pg_mask.keyring");
    client
        .batch_execute(
            "CREATE FUNCTION in_plpgsql(value text) RETURNS text LANGUAGE plpgsql AS
             $$ DECLARE token text; BEGIN token := mask_pii(value); RETURN token; END $$",
        )
        .await
        .unwrap();
    client.batch_execute("BEGIN").await.unwrap();
    let prepared = client.prepare("SELECT mask_pii($1::text), in_plpgsql($1::text)").await.unwrap();
    let tokens = async || {
        let row = client.query_one(&prepared, &[&"x"]).await.unwrap();
        [row.get::<_, String>(0), row.get(1)]
    };
    let [one, two] = tokens().await;
    assert!(one.starts_with("m1_") && one == two, "{one} {two}");
    let mut ring: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let second = json!({"generation": 2, "key": "ab01".repeat(16), "created_at": "2026-11-21T00:00:00Z"});
    ring["generations"].as_array_mut().unwrap().push(second);
    write_keyring(&path, ring.to_string().as_bytes());
    // The same transaction, the same prepared statement, the same PL/pgSQL expression.
    let [one, two] = tokens().await;
    assert!(one.starts_with("m2_") && one == two, "{one} {two}");
}
