//! Whatever is wrong with the keyring: a clear error with a hint, nothing written, and all is well again
//! as soon as it is mended, in every session and without a restart.

use crate::common::{count, message, texts, write_keyring};
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
        "SELECT * FROM pgmask.ingest_login_batch('{a, b}', '{\"{\\\"user_id\\\": 1}\", x}', ARRAY[now(), now()], '{1, 1}')",
        "INSERT INTO user_logins (masked_ip) SELECT mask_pii('203.0.113.7')",
    ] {
        let error = client.query(sql, &[]).await.expect_err(sql);
        let text = message(&error);
        assert!(text.starts_with("F0000 ") && text.contains(expected), "expected {expected:?}: {text}");
        let error = error.as_db_error().unwrap();
        assert!(error.hint().is_some(), "no hint: {text}");
        assert_eq!(error.detail(), None, "servers of tests run with RUST_BACKTRACE set");
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
        damages.push(("it belongs to user id 54321", Box::new(|| chown(&path, Some(54321), None).unwrap())));
        damages.push((
            "it can't be opened: Permission denied",
            Box::new(|| chown(&path, Some(0), None).unwrap()),
        ));
    }
    for (expected, damage) in &damages {
        damage();
        all_fails(&client, expected).await;
        remove();
        write(&good);
        let again: String = client.query_one("SELECT mask_pii('x')", &[]).await.unwrap().get(0);
        assert_eq!(again, token, "after: {expected}");
    }

    // A second generation waits until it is put to use, whatever is called meanwhile.
    changed(&|ring| ring["generations"].as_array_mut().unwrap().push(other(&second)));
    client
        .batch_execute(
            "SELECT * FROM pgmask.ingest_login_batch('{}', '{}', '{}', '{}');
             SELECT ingest_login('{\"user_id\": 1}'); SELECT * FROM pgmask.maintain()",
        )
        .await
        .unwrap();
    let again: String = client.query_one("SELECT mask_pii('x')", &[]).await.unwrap().get(0);
    assert_eq!(again, token);
    let status = "SELECT concat_ws(' ', kind, number, current, state) FROM pgmask.key_status()";
    assert_eq!(texts(&client, status).await, ["mask 1 t ok", "mask 2 f waiting", "seal 1 t ok"]);
    client.batch_execute("DELETE FROM user_logins; DELETE FROM pgmask.ledger").await.unwrap();
    assert_eq!(count(&client, "SELECT pgmask.rotate_key()::bigint").await, 2);
    let newer: String = client.query_one("SELECT mask_pii('x')", &[]).await.unwrap().get(0);
    assert!(newer.starts_with("m2_"), "{newer}");
    assert_eq!(texts(&client, status).await, ["mask 1 f ok", "mask 2 t ok", "seal 1 t ok"]);
    // An older keyring is put back: the database is masked by nobody.
    write(&good);
    all_fails(&client, "has no generation 2").await;
    assert_eq!(texts(&client, status).await, ["mask 1 f ok", "mask 2 t missing", "seal 1 t ok"]);
}

/// Another seal key is no keyring of this database, either.
#[tokio::test]
async fn seal_keys_are_checked_as_mask_keys_are() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = cluster.database("seal_keys").await.unwrap();
    let path = cluster.data().join("pg_mask.keyring");
    let good = fs::read(&path).unwrap();
    let with_seal = |seal: Value| {
        let mut ring: Value = serde_json::from_slice(&good).unwrap();
        ring["seal"] = seal;
        write_keyring(&path, ring.to_string().as_bytes());
    };
    let key = |id: i32| json!({"id": id, "key": "ab01".repeat(16), "created_at": "2026-11-21T00:00:00Z"});
    let status = "SELECT concat_ws(' ', kind, number, current, state) FROM pgmask.key_status()";
    with_seal(json!([key(1)]));
    all_fails(&client, "seal key 1 of the server's keyring is not the key").await;
    assert_eq!(texts(&client, status).await, ["mask 1 t ok", "seal 1 t differs"]);
    for without in [json!([]), json!([key(2)])] {
        with_seal(without);
        all_fails(&client, "the server's keyring has no seal key 1").await;
    }
    assert_eq!(texts(&client, status).await, ["mask 1 t ok", "seal 1 t missing", "seal 2 f waiting"]);
    write_keyring(&path, &good);
    client.query_one("SELECT mask_pii('x')", &[]).await.unwrap();
}

/// As mounted secrets are: links that lead from one to the next, and a file of root's that the server's
/// group may read.
#[tokio::test]
async fn a_mounted_secret_can_be_the_keyring() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = cluster.database("mounted").await.unwrap();
    let path = cluster.data().join("pg_mask.keyring");
    let token: String = client.query_one("SELECT mask_pii('x')", &[]).await.unwrap().get(0);
    let good = fs::read(&path).unwrap();
    let masks =
        async || client.query_one("SELECT mask_pii('x')", &[]).await.map(|row| row.get::<_, String>(0));
    for version in ["..2026_01", "..2026_02"] {
        fs::create_dir(cluster.data().join(version)).unwrap();
        if let Some(user) = testbed::installation::shared().unwrap().user {
            chown(cluster.data().join(version), Some(user.uid), Some(user.gid)).unwrap();
        }
        write_keyring(&cluster.data().join(version).join("keyring.json"), &good);
        let _ = fs::remove_file(cluster.data().join("..data"));
        symlink(version, cluster.data().join("..data")).unwrap();
        let _ = fs::remove_file(&path);
        symlink("..data/keyring.json", &path).unwrap();
        assert_eq!(masks().await.unwrap(), token);
    }
    // It is written behind its links.
    assert_eq!(count(&client, "SELECT pgmask.add_key()::bigint").await, 2);
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    let file = cluster.data().join("..2026_02/keyring.json");
    let grown: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(grown["generations"].as_array().unwrap().len(), 2);

    let Some(user) = testbed::installation::shared().unwrap().user else { return };
    let set = |mode: u32| {
        chown(&file, Some(0), Some(user.gid)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    };
    set(0o640);
    assert_eq!(masks().await.unwrap(), token);
    let error = message(&client.query("SELECT pgmask.add_key()", &[]).await.unwrap_err());
    assert!(error.contains("belongs to root") && error.contains("Have its owner add a key"), "{error}");
    assert_eq!(count(&client, "SELECT pgmask.rotate_key()::bigint").await, 2);
    for mode in [0o644, 0o660, 0o650] {
        set(mode);
        let error = message(&masks().await.unwrap_err());
        assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
    }
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
        &analyst
            .query("SELECT * FROM pgmask.ingest_login_batch('{}','{}','{}','{}')", &[])
            .await
            .unwrap_err(),
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
