//! A value that was masked is nowhere in the clear: not in the server's log at any setting, not in its
//! views, not in its write-ahead log, not in any of its files.

use crate::common::count;
use std::path::Path;
use std::time::SystemTime;
use testbed::cluster::Cluster;
use testbed::installation::{self, output};

const CANARY_IP: &str = "198.18.77.31";
const CANARY_DEVICE: &str = "canary-device-4f1c";

/// What a DBA might set, all at once.
const TELL_ALL: &[&str] = &[
    "log_statement = all",
    "log_min_duration_statement = 0",
    "log_min_error_statement = debug5",
    "log_min_messages = debug1",
    "log_error_verbosity = verbose",
    "log_lock_waits = on",
    "debug_print_plan = on",
    "wal_level = logical",
    "track_activity_query_size = 100000",
    // Values are kept, and they are nowhere in the clear nevertheless.
    "pgmask.vault = on",
];
/// What Debian's packages add.
const CONTRIB: &[&str] = &[
    "shared_preload_libraries = 'pg_stat_statements,auto_explain'",
    "pg_stat_statements.track = all",
    "auto_explain.log_min_duration = 0",
    "auto_explain.log_analyze = on",
    "auto_explain.log_verbose = on",
    "auto_explain.log_nested_statements = on",
];

fn bodies() -> Vec<String> {
    let login =
        |more: &str| format!(r#"{{"user_id":"u","ip":"{CANARY_IP}","device_id":"{CANARY_DEVICE}"{more}}}"#);
    vec![
        login(""),
        login(r#","locale":"refused by a constraint""#),
        login(r#","locale":"refused by a trigger""#),
        login(r#","app_version":"none""#),
        login(&format!(r#","device_type":"{}""#, "x".repeat(40))),
        login(r#","user_id":null"#),
        login("").replace('}', ""),
        login(r#","user_id":"\u0000""#),
        format!(r#"["{CANARY_IP}","{CANARY_DEVICE}"]"#),
        format!("{CANARY_IP} {CANARY_DEVICE}"),
    ]
}

fn holds_a_canary(text: &[u8]) -> bool {
    [CANARY_IP, CANARY_DEVICE]
        .iter()
        .any(|canary| text.windows(canary.len()).any(|part| part == canary.as_bytes()))
}

fn search(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => search(&path),
            Ok(kind) if kind.is_file() => {
                let text = std::fs::read(&path).unwrap_or_default();
                assert!(!holds_a_canary(&text), "a canary is in {}", path.display());
            }
            _ => {}
        }
    }
}

/// `forwarder check` said that the server logs no message of a role whose parameters `auto_explain` logs.
#[tokio::test]
async fn the_forwarder_sees_what_logs_its_messages() {
    const FIND: &str = include_str!("../../../forwarder/src/database/find_extension.sql");
    // auto_explain comes with it.
    let contrib = installation::shared().unwrap().extensions.join("pg_stat_statements.control").exists();
    for is_loaded in if contrib { &[false, true][..] } else { &[false] } {
        let mut settings = vec!["log_parameter_max_length_on_error = -1"];
        settings.extend(is_loaded.then_some("shared_preload_libraries = 'auto_explain'"));
        let cluster = Cluster::start(&settings).await.unwrap();
        let admin = cluster.database("seen_to_log").await.unwrap();
        let cure = |settings: &[&str]| {
            let one = |setting: &&str| format!("ALTER ROLE carrier SET {setting};");
            (!settings.is_empty()).then(|| settings.iter().map(one).collect::<Vec<_>>().join(" "))
        };
        admin.batch_execute("CREATE ROLE carrier LOGIN IN ROLE pgmask_ingester").await.unwrap();
        let mut settings = vec![
            "log_parameter_max_length = 0",
            "log_parameter_max_length_on_error = 0",
            "log_error_verbosity = terse",
            "plan_cache_mode = force_generic_plan",
        ];
        if *is_loaded && cluster.major() >= 16 {
            settings.push("auto_explain.log_parameter_max_length = 0");
        }
        while !settings.is_empty() {
            let carrier = cluster.connect_as("carrier", "seen_to_log").await.unwrap();
            let found: Option<String> = carrier.query_one(FIND, &[]).await.unwrap().get(1);
            assert_eq!(found, cure(&settings), "{is_loaded}");
            let set = settings.remove(0);
            admin.batch_execute(&format!("ALTER ROLE carrier SET {set}")).await.unwrap();
        }
        for role in ["carrier", "pgmask_forwarder"] {
            let client = cluster.connect_as(role, "seen_to_log").await.unwrap();
            let found: Option<String> = client.query_one(FIND, &[]).await.unwrap().get(1);
            assert_eq!(found, None, "{role}");
        }
    }
}

#[tokio::test]
async fn not_in_the_log_nor_in_views_nor_in_files() {
    let contrib = installation::shared().unwrap().extensions.join("pg_stat_statements.control").exists();
    let mut settings = TELL_ALL.to_vec();
    if contrib {
        settings.extend(CONTRIB);
    }
    let mut cluster = Cluster::start(&settings).await.unwrap();
    let admin = cluster.database("canaries").await.unwrap();
    if contrib {
        admin.batch_execute("CREATE EXTENSION pg_stat_statements").await.unwrap();
    }
    admin
        .batch_execute(
            "ALTER TABLE user_logins ADD CHECK (locale <> 'refused by a constraint');
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF NEW.locale = 'refused by a trigger' THEN RAISE EXCEPTION 'no: %', NEW; END IF; RETURN NEW; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION refuse();
             GRANT pgmask_analyst TO pgmask_forwarder;",
        )
        .await
        .unwrap();
    let slot = "SELECT pg_create_logical_replication_slot('canaries', 'pgoutput')";
    admin.batch_execute(slot).await.unwrap();

    let client = cluster.connect_as("pgmask_forwarder", "canaries").await.unwrap();
    let bodies = bodies();
    let ids: Vec<String> = (0..bodies.len()).map(|n| format!("m{n}")).collect();
    let sent = vec![SystemTime::now(); bodies.len()];
    let counts = vec![1i32; bodies.len()];
    let sql = "SELECT inserted, quarantined FROM pgmask.ingest_login_batch($1, $2, $3, $4)";
    let row = client.query_one(sql, &[&ids, &bodies, &sent, &counts]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, bodies.len() as i64 - 1));
    // A batch that fails whole, with the bodies among its parameters.
    assert!(client.query_one(sql, &[&ids, &bodies, &sent, &vec![1i32]]).await.is_err());
    let login = "SELECT ingest_login(jsonb_build_object('user_id', $1::text, 'ip', $2::text, 'device_id', $3::text, 'locale', $4::text))";
    for locale in ["DE", "refused by a constraint", "refused by a trigger", &"x".repeat(99)] {
        let done = client.execute(login, &[&"u", &CANARY_IP, &CANARY_DEVICE, &locale]).await;
        assert_eq!(done.is_ok(), locale == "DE");
    }
    for bad in [
        format!(r#"{{"user_id":"u","ip":"{CANARY_IP}","locale":"\u0000"}}"#),
        format!(r#"{{"ip":"{CANARY_IP}",}}"#),
    ] {
        assert!(client.execute("SELECT ingest_login($1::text::jsonb)", &[&bad]).await.is_err());
    }
    client
        .query_one("SELECT mask_pii($1::text), mask_pii($2::text, 'other')", &[&CANARY_IP, &CANARY_DEVICE])
        .await
        .unwrap();
    let from_inet = "SELECT mask_pii($1::text::inet)";
    client.query_one(from_inet, &[&CANARY_IP]).await.unwrap();
    assert!(client.query_one("SELECT mask_pii($1::text)::int", &[&CANARY_DEVICE]).await.is_err());

    // Values that are given back are shown to who asks, and nowhere else.
    let tokens = "SELECT DISTINCT unnest(ARRAY[masked_ip, masked_device_id]) FROM user_logins";
    for token in admin.query(tokens, &[]).await.unwrap() {
        let token: &str = token.get(0);
        let row = admin.query_one("CALL pgmask.recover_pii($1, 'a test')", &[&token]).await.unwrap();
        assert!([CANARY_IP, CANARY_DEVICE].contains(&row.get::<_, &str>(0)));
        admin.execute("CALL pgmask.forget($1, 'a test')", &[&token]).await.unwrap();
    }

    // Views that show statements.
    let activity = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query ~ '{}|{}'",
        "198.18.77", "canary-device"
    );
    assert_eq!(count(&admin, &activity).await, 0);
    if contrib {
        let statements = "SELECT count(*) FROM pg_stat_statements WHERE query ~ '198.18.77|canary-device' AND query !~ 'pg_stat_'";
        assert_eq!(count(&admin, statements).await, 0);
    }
    admin.batch_execute("CHECKPOINT").await.unwrap();

    // The log says much, this test's own questions about canaries too, so those lines are left out.
    let log = cluster.log();
    assert!(log.contains("ingest_login_batch"), "the log is silent");
    for line in log.lines().filter(|line| !line.contains("pg_stat_")) {
        assert!(!holds_a_canary(line.as_bytes()), "{line}");
    }
    // The write-ahead log, as pg_waldump tells it.
    let wal = cluster.data().join("pg_wal");
    let first = std::fs::read_dir(&wal)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| name.len() == 24)
        .min()
        .unwrap();
    let told = std::process::Command::new(installation::shared().unwrap().program("pg_waldump"))
        .arg(wal.join(first))
        .output()
        .unwrap();
    assert!(!told.stdout.is_empty() && !holds_a_canary(&told.stdout));
    // Every file, with everything flushed.
    drop((client, admin));
    cluster.stop("INT").unwrap();
    search(&cluster.data());
    let _ = output; // the helper is for programs that have to succeed; pg_waldump ends at the end of the log
}
