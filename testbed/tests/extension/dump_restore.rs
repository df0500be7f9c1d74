//! A dump holds no key. However it is restored: beside its own keyring the tokens go on, beside another
//! one nothing is masked, and `key_status()` says why.

use crate::common::{cluster, count, message, texts, unseal_all, write_keyring};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use testbed::cluster::Cluster;
use testbed::installation::output;
use tokio_postgres::Client;

/// A login and a message for the quarantine.
const INGEST: &str = "SELECT inserted + quarantined FROM pgmask.ingest_login_batch('{a, b}',
    '{\"{\\\"user_id\\\":1,\\\"ip\\\":\\\"203.0.113.7\\\"}\", nonsense}',
    ARRAY['2026-11-20 12:00+00', '2026-11-20 12:00+00']::timestamptz[], '{1, 1}')";
const KEY_CHECK: &str =
    "SELECT concat_ws(' ', generation, seal_id, check_value, created_at) FROM pgmask.key_check ORDER BY 1";
const BAD_STATES: &str = "SELECT kind || ' ' || number || ' ' || state FROM pgmask.key_status()
    WHERE state NOT IN ('ok', 'waiting') ORDER BY 1";

/// Dumps of one database in every form, in a folder that the server's user may write to.
struct Dumps {
    folder: PathBuf,
    key_check: Vec<String>,
    token: String,
}

impl Dumps {
    fn of(cluster: &Cluster, database: &str, folder: &str, key_check: Vec<String>, token: String) -> Self {
        let folder = cluster.data().join(folder);
        std::fs::create_dir(&folder).unwrap();
        if let Some(user) = testbed::installation::shared().unwrap().user {
            std::os::unix::fs::chown(&folder, Some(user.uid), Some(user.gid)).unwrap();
        }
        let dumps = Self { folder, key_check, token };
        for (name, options) in [
            ("plain", &["--format=plain"] as &[&str]),
            ("inserts", &["--format=plain", "--inserts"]),
            ("custom", &["--format=custom"]),
            ("folder", &["--format=directory", "--jobs=2"]),
            ("schema", &["--format=plain", "--schema-only"]),
            ("data", &["--format=plain", "--data-only"]),
            ("data_disabling", &["--format=plain", "--data-only", "--disable-triggers"]),
        ] {
            let mut dump = cluster.command("pg_dump");
            dump.args(options).arg("--file").arg(dumps.file(name)).arg(cluster.url("postgres", database));
            output(&mut dump).unwrap();
        }
        dumps
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// One way to restore: what it is called, what was there before, and the programs with their options, in
/// order. psql reads plain dumps; pg_restore the others.
struct Way {
    name: &'static str,
    before: Before,
    steps: &'static [(&'static str, &'static [&'static str])],
}

#[derive(Clone, Copy, PartialEq)]
enum Before {
    Empty,
    /// A database with sql/ applied.
    Prepared,
    /// The same, used: what is called there makes nothing that the dump's rows would have to replace.
    Used,
}

const WAYS: &[Way] = &[
    Way { name: "plain", before: Before::Empty, steps: &[("plain", &[])] },
    Way { name: "inserts", before: Before::Empty, steps: &[("inserts", &[])] },
    Way { name: "custom", before: Before::Empty, steps: &[("custom", &[])] },
    Way { name: "custom_jobs", before: Before::Empty, steps: &[("custom", &["--jobs=3"])] },
    Way { name: "folder_jobs", before: Before::Empty, steps: &[("folder", &["--jobs=3"])] },
    Way {
        name: "sections",
        before: Before::Empty,
        steps: &[
            ("custom", &["--section=pre-data"]),
            ("custom", &["--section=data"]),
            ("custom", &["--section=post-data"]),
        ],
    },
    Way {
        name: "sections_jobs_disabling",
        before: Before::Empty,
        steps: &[
            ("folder", &["--section=pre-data"]),
            ("folder", &["--section=data", "--jobs=3", "--disable-triggers"]),
            ("folder", &["--section=post-data", "--jobs=3"]),
        ],
    },
    Way { name: "two_dumps", before: Before::Empty, steps: &[("schema", &[]), ("data", &[])] },
    Way {
        name: "two_dumps_disabling",
        before: Before::Empty,
        steps: &[("schema", &[]), ("data_disabling", &[])],
    },
    Way {
        name: "schema_then_data",
        before: Before::Empty,
        steps: &[("custom", &["--schema-only"]), ("custom", &["--data-only"])],
    },
    Way {
        name: "schema_then_data_disabling",
        before: Before::Empty,
        steps: &[("custom", &["--schema-only"]), ("custom", &["--data-only", "--disable-triggers"])],
    },
    Way { name: "clean", before: Before::Prepared, steps: &[("custom", &["--clean", "--if-exists"])] },
    Way { name: "data_into_prepared", before: Before::Prepared, steps: &[("custom", &["--data-only"])] },
    Way {
        name: "data_into_prepared_disabling",
        before: Before::Prepared,
        steps: &[("folder", &["--data-only", "--disable-triggers", "--jobs=3"])],
    },
    Way { name: "plain_data_into_prepared", before: Before::Prepared, steps: &[("data", &[])] },
    Way { name: "data_into_used", before: Before::Used, steps: &[("custom", &["--data-only"])] },
    Way {
        name: "data_into_used_disabling",
        before: Before::Used,
        steps: &[("custom", &["--data-only", "--disable-triggers"])],
    },
    Way { name: "plain_data_into_used", before: Before::Used, steps: &[("data_disabling", &[])] },
];

impl Way {
    async fn restore(&self, cluster: &Cluster, dumps: &Dumps, database: &str) -> Client {
        let template = if self.before == Before::Empty { "template0" } else { "prepared" };
        let create = format!("CREATE DATABASE {database} TEMPLATE {template} STRATEGY wal_log");
        cluster.connect("postgres").await.unwrap().batch_execute(&create).await.unwrap();
        if self.before == Before::Used {
            let client = cluster.connect(database).await.unwrap();
            let use_it = "SELECT * FROM pgmask.maintain(); SELECT mask_pii('before'), mask_pii('::1'::inet);
                SELECT * FROM pgmask.ingest_login_batch('{}', '{}', '{}', '{}'); SELECT * FROM pgmask.key_status()";
            client.batch_execute(use_it).await.unwrap();
        }
        for (dump, options) in self.steps {
            let file = dumps.file(dump);
            let mut program = match *dump {
                "custom" | "folder" => {
                    let mut restore = cluster.command("pg_restore");
                    restore.args(["--exit-on-error", "--dbname", &cluster.url("postgres", database)]);
                    restore
                }
                _ => {
                    let mut psql = cluster.psql(database);
                    psql.args(["--quiet", "--file"]);
                    psql
                }
            };
            output(program.args(*options).arg(file)).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        }
        cluster.connect(database).await.unwrap()
    }
}

/// Beside its own keyring: the same rows, the same tokens, messages known, the quarantine open.
async fn goes_on(client: &Client, dumps: &Dumps, name: &str) {
    assert_eq!(texts(client, KEY_CHECK).await, dumps.key_check, "{name}");
    assert_eq!(texts(client, BAD_STATES).await, [""; 0], "{name}");
    let token = texts(client, "SELECT mask_pii('203.0.113.7')").await;
    assert_eq!(token, [&dumps.token[..]], "{name}");
    let again = INGEST.replace("inserted + quarantined", "duplicate");
    assert_eq!(count(client, &again).await, 2, "{name}");
    assert_eq!(unseal_all(client).await, [b"nonsense"], "{name}");
    let stored = "SELECT count(*) FROM user_logins WHERE masked_ip = mask_pii('203.0.113.7')";
    assert_eq!(count(client, stored).await, 1, "{name}");
}

/// Beside another keyring: the same rows, nothing masked, nothing sealed, nothing opened.
async fn is_refused(client: &Client, dumps: &Dumps, name: &str) {
    assert_eq!(texts(client, KEY_CHECK).await, dumps.key_check, "{name}");
    assert_eq!(texts(client, BAD_STATES).await, ["mask 1 differs", "seal 1 differs"], "{name}");
    for sql in [
        "SELECT mask_pii('x')",
        INGEST,
        "SELECT * FROM pgmask.ingest_login_batch('{}', '{}', '{}', '{}')",
        "SELECT ingest_login('{\"user_id\": 2}')",
        "SELECT pgmask.replay_quarantine()",
        "CALL pgmask.unseal_quarantine(1, 'a test')",
    ] {
        let error = message(&client.query(sql, &[]).await.expect_err(sql));
        assert!(
            error.starts_with("F0000 generation 1 of the server's keyring is not the key"),
            "{name}: {error}"
        );
        assert!(error.contains("keyring of the server that this database comes from"), "{name}: {error}");
    }
    assert_eq!(count(client, "SELECT count(*) FROM user_logins").await, 1, "{name}");
    assert_eq!(count(client, "SELECT count(*) FROM pgmask.quarantine").await, 1, "{name}");
}

/// A cluster to restore into, with a keyring of its own or the given one, and a prepared database.
async fn target(keyring: Option<&[u8]>) -> Cluster {
    let cluster = Cluster::start(&["max_connections = 50"]).await.unwrap();
    if let Some(keyring) = keyring {
        write_keyring(&cluster.data().join("pg_mask.keyring"), keyring);
    }
    cluster.database("prepared").await.unwrap();
    cluster
}

fn with_another_generation(keyring: &[u8]) -> Vec<u8> {
    let mut ring: Value = serde_json::from_slice(keyring).unwrap();
    let second = json!({"generation": 2, "key": "ab01".repeat(16), "created_at": "2026-11-21T00:00:00Z"});
    ring["generations"].as_array_mut().unwrap().push(second);
    ring.to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_restore_ends_with_the_dumps_keys() {
    let old = Cluster::start(&[]).await.unwrap();
    let client = old.database("logins").await.unwrap();
    assert_eq!(count(&client, INGEST).await, 2);
    let token = texts(&client, "SELECT mask_pii('203.0.113.7')").await.remove(0);
    let key_check = texts(&client, KEY_CHECK).await;
    assert_eq!(key_check.len(), 2, "{key_check:?}");
    let keyring = std::fs::read(old.data().join("pg_mask.keyring")).unwrap();
    let dumps = Dumps::of(&old, "logins", "dumps", key_check, token);
    let plain = std::fs::read_to_string(dumps.file("plain")).unwrap();
    holds_nothing_secret(&plain, &keyring);

    // The keyring has grown since: a database that CREATE EXTENSION makes there begins with generation 2,
    // one that comes from a dump goes on with 1.
    let own = async {
        let cluster = target(Some(&with_another_generation(&keyring))).await;
        let prepared = cluster.connect("prepared").await.unwrap();
        let token = texts(&prepared, "SELECT mask_pii('203.0.113.7')").await;
        assert!(token[0].starts_with("m2_"), "{token:?}");
        drop(prepared);
        for way in WAYS {
            let client = way.restore(&cluster, &dumps, way.name).await;
            goes_on(&client, &dumps, way.name).await;
        }
        // What was restored is dumped as it came.
        let key_check = dumps.key_check.clone();
        let again = Dumps::of(&cluster, "sections", "again", key_check, dumps.token.clone());
        for way in WAYS.iter().filter(|way| ["plain", "inserts", "data_into_used"].contains(&way.name)) {
            let name = format!("{}_again", way.name);
            let client = way.restore(&cluster, &again, &name).await;
            goes_on(&client, &again, &name).await;
        }
    };
    let foreign = async {
        let cluster = target(None).await;
        for way in WAYS {
            let client = way.restore(&cluster, &dumps, way.name).await;
            is_refused(&client, &dumps, way.name).await;
        }
        // As soon as the right keyring is there all is well, without a restart.
        write_keyring(&cluster.data().join("pg_mask.keyring"), &keyring);
        for way in WAYS {
            goes_on(&cluster.connect(way.name).await.unwrap(), &dumps, way.name).await;
        }
        // A database of this server's own is refused now, and a dump restored over it makes no difference
        // to that: rows that contradict each other fit no keyring.
        let client = cluster.connect("prepared").await.unwrap();
        assert!(message(&client.query("SELECT mask_pii('x')", &[]).await.unwrap_err()).starts_with("F0000"));
    };
    tokio::join!(own, foreign);
}

fn holds_nothing_secret(dump: &str, keyring: &[u8]) {
    let keys: Value = serde_json::from_slice(keyring).unwrap();
    for kind in ["generations", "seal"] {
        assert!(!dump.contains(keys[kind][0]["key"].as_str().unwrap()), "the dump holds a key");
    }
    assert!(!dump.contains("203.0.113.7") && !dump.contains("nonsense"));
}

#[tokio::test]
async fn a_second_dump_over_a_first_one_is_refused_unless_they_agree() {
    let [one, two] = [Cluster::start(&[]).await.unwrap(), Cluster::start(&[]).await.unwrap()];
    for cluster in [&one, &two] {
        cluster.connect("postgres").await.unwrap().batch_execute("CREATE EXTENSION pg_mask").await.unwrap();
    }
    let dump = |cluster: &Cluster, file: &Path| {
        let mut dump = one.command("pg_dump");
        dump.args(["--data-only", "--format=custom", "--file"]).arg(file);
        output(dump.arg(cluster.url("postgres", "postgres"))).unwrap();
    };
    let [first, second] = ["first", "second"].map(|name| one.data().join(name));
    dump(&one, &first);
    dump(&two, &second);
    let restore = |file: &Path| {
        let url = one.url("postgres", "postgres");
        output(one.command("pg_restore").args(["--exit-on-error", "--dbname", &url]).arg(file)).unwrap();
    };
    let client = one.connect("postgres").await.unwrap();
    restore(&first);
    restore(&first);
    client.query_one("SELECT mask_pii('x')", &[]).await.unwrap();
    restore(&second);
    let error = message(&client.query("SELECT mask_pii('x')", &[]).await.unwrap_err());
    assert!(error.starts_with("F0000 generation 1 of the server's keyring is not the key"), "{error}");
}

/// What is in quarantine and ledger does not go by accident: a view of sql/01 is in the way.
#[tokio::test]
async fn the_extension_goes_and_comes_back() {
    let client = crate::common::cluster().await.database("goes_and_comes").await.unwrap();
    let token: String = client.query_one("SELECT mask_pii('x')", &[]).await.unwrap().get(0);
    client.batch_execute("DROP SCHEMA logins CASCADE").await.unwrap();
    let error = client.batch_execute("DROP EXTENSION pg_mask").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!((error.code().code(), error.severity()), ("2BP01", "ERROR"));
    assert!(error.detail().unwrap().contains("view quarantined_logins depends on"), "{error:?}");
    client.batch_execute("DROP EXTENSION pg_mask CASCADE; CREATE EXTENSION pg_mask").await.unwrap();
    let again: String = client.query_one("SELECT mask_pii('x')", &[]).await.unwrap().get(0);
    assert_eq!(again, token);
}

/// Whoever may write there can stop the masking, and not make it go on under other keys.
#[tokio::test]
async fn a_key_check_that_was_tampered_with_stops_the_masking() {
    let cluster = crate::common::cluster().await;
    let client = cluster.database("tampered_keys").await.unwrap();
    for (tamper, expected) in [
        ("DELETE FROM pgmask.key_check", "F0000 pgmask.key_check does not say"),
        ("DELETE FROM pgmask.key_check WHERE generation = 1", "F0000 pgmask.key_check does not say"),
        ("TRUNCATE pgmask.key_check_restored", "F0000 pgmask.key_check does not say"),
        (
            "UPDATE pgmask.key_check SET check_value = '0011223344556677'",
            "F0000 generation 1 of the server's keyring is not",
        ),
        (
            "UPDATE pgmask.key_check SET check_value = '0011223344556677' WHERE seal_id = 1",
            "F0000 seal key 1 of the server's keyring is not the key that this database was sealed with",
        ),
        (
            "UPDATE pgmask.key_check SET seal_id = 7 WHERE seal_id = 1",
            "F0000 the server's keyring has no seal key 7",
        ),
        ("UPDATE pgmask.key_check SET generation = 2 WHERE generation = 1", "none of generation 1"),
        (
            "INSERT INTO pgmask.key_check VALUES (1, '0011223344556677', now())",
            "F0000 generation 1 of the server's keyring is not",
        ),
        ("INSERT INTO pgmask.key_check VALUES (2, '0011223344556677', now())", "none of generation 1"),
        (
            "ALTER TABLE pgmask.key_check_own RENAME TO moved; CREATE VIEW pgmask.key_check_own AS TABLE pgmask.moved",
            "42P01 the tables of pgmask.key_check are not there",
        ),
    ] {
        client
            .batch_execute(&format!("BEGIN; {tamper}"))
            .await
            .unwrap_or_else(|error| panic!("{tamper}: {error:?}"));
        for sql in ["SELECT mask_pii('x')", INGEST] {
            client.batch_execute("SAVEPOINT before").await.unwrap();
            let error = message(&client.query(sql, &[]).await.expect_err(tamper));
            assert!(error.contains(expected), "{tamper}: {error}");
            client.batch_execute("ROLLBACK TO before").await.unwrap();
        }
        client.batch_execute("ROLLBACK").await.unwrap();
        client.query_one("SELECT mask_pii('x')", &[]).await.unwrap();
    }
}

/// A dump of a database whose keys were rotated brings their generations along, and goes on from there.
#[tokio::test]
async fn a_rotation_comes_back_with_a_dump() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = cluster.database("rotated").await.unwrap();
    let ingest = INGEST;
    client.batch_execute(ingest).await.unwrap();
    client.batch_execute("SELECT pgmask.rotate_key(), pgmask.rotate_seal_key()").await.unwrap();
    client.batch_execute(&ingest.replace("{a, b}", "{c, d}")).await.unwrap();
    let file = cluster.data().join("rotated.dump");
    let mut dump = cluster.command("pg_dump");
    dump.args(["--format=custom", "--file"]).arg(&file);
    output(dump.arg(cluster.url("postgres", "rotated"))).unwrap();
    // The server goes on meanwhile: what is restored still uses what the dump used.
    client
        .batch_execute("SELECT pgmask.rotate_key(), pgmask.add_key(), pgmask.rotate_seal_key()")
        .await
        .unwrap();

    cluster.connect("postgres").await.unwrap().batch_execute("CREATE DATABASE restored").await.unwrap();
    let mut restore = cluster.command("pg_restore");
    restore.args(["--exit-on-error", "--dbname", &cluster.url("postgres", "restored")]);
    output(restore.arg(&file)).unwrap();
    let restored = cluster.connect("restored").await.unwrap();
    let current = "SELECT concat_ws(' ', kind, number) FROM pgmask.key_status() WHERE current";
    assert_eq!(texts(&restored, current).await, ["mask 2", "seal 2"]);
    assert_eq!(texts(&restored, BAD_STATES).await, [""; 0]);
    let generations =
        "SELECT string_agg(DISTINCT pgmask.mask_generation(masked_ip)::text, ' ') FROM user_logins";
    assert_eq!(texts(&restored, generations).await, ["1 2"]);
    assert_eq!(
        count(&restored, "SELECT kept FROM pgmask.replay_quarantine()").await,
        2,
        "bodies of both seal keys are opened"
    );
    assert_eq!(count(&restored, "SELECT pgmask.rotate_key()::bigint").await, 3, "the key that waits for it");
    restored.batch_execute("CALL pgmask.remask('user_logins')").await.unwrap();
    let right = "SELECT count(*) FROM user_logins WHERE masked_ip = mask_pii('203.0.113.7')";
    assert_eq!(count(&restored, right).await, 2);
}

/// Whoever masks reads them: with a few rows of hundreds of megabytes, or very many, a role that may write to all tables ended
/// the server where memory was short.
#[tokio::test]
async fn what_says_which_keys_are_in_use_is_bounded() {
    let admin = cluster().await.database("many_checks").await.unwrap();
    for table in ["own", "restored"] {
        let long = format!(
            "INSERT INTO pgmask.key_check_{table} (generation, check_value, created_at) VALUES (1, repeat('x', 65), now())"
        );
        assert!(message(&admin.batch_execute(&long).await.unwrap_err()).starts_with("23514 "));
    }
    admin
        .batch_execute(
            "INSERT INTO pgmask.key_check_own (generation, check_value, created_at) SELECT 1, check_value, now()
             FROM pgmask.key_check_own, generate_series(1, 10000) WHERE generation = 1",
        )
        .await
        .unwrap();
    let refused = message(&admin.batch_execute("SELECT mask_pii('x')").await.unwrap_err());
    assert!(refused.starts_with("42P01 "), "{refused}");
}

/// What a restore makes, it makes in one session: it may have called functions whose look-up PostgreSQL keeps, and it has policies
/// off. Stored results are filled all the same, as nothing of the login table runs code of others then.
#[tokio::test]
async fn stored_results_come_back_with_range_types_and_policies() {
    let cluster = Cluster::start(&["shared_preload_libraries = 'pg_mask'"]).await.unwrap();
    let of_types = "CREATE FUNCTION public.time_subtype_diff(x time, y time) RETURNS float8 LANGUAGE sql STRICT IMMUTABLE AS 'SELECT EXTRACT(EPOCH FROM (x - y))';
         CREATE TYPE public.timerange AS RANGE (subtype = time, subtype_diff = public.time_subtype_diff);
         CREATE TABLE public.shifts (at public.timerange);
         INSERT INTO public.shifts SELECT public.timerange('08:00'::time, '08:00'::time + n * interval '1 second') FROM generate_series(1, 3000) AS n;
         CREATE INDEX ON public.shifts USING gist (at)";
    let policies = "ALTER TABLE public.user_logins ENABLE ROW LEVEL SECURITY;
         CREATE POLICY writes ON public.user_logins FOR INSERT TO pgmask_writer WITH CHECK (true);
         CREATE POLICY reads ON public.user_logins FOR SELECT TO pgmask_refresher USING (locale IS DISTINCT FROM 'XX')";
    for (database, made) in [("with_ranges", of_types), ("with_policies", policies)] {
        let client = cluster.database(database).await.unwrap();
        cluster.apply_file(database, "05_dashboards.sql").unwrap();
        client.batch_execute(made).await.unwrap();
        client.batch_execute(INGEST).await.unwrap();
        let refresh = cluster.connect(database).await.unwrap();
        refresh.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap();
        let stored = "SELECT sum(logins)::bigint FROM logins.stored_logins_by_day";
        assert_eq!(count(&client, stored).await, 1);
        let file = cluster.data().join(format!("{database}.dump"));
        let mut dump = cluster.command("pg_dump");
        dump.args(["--format=custom", "--file"]).arg(&file).arg(cluster.url("postgres", database));
        output(&mut dump).unwrap();
        for how in ["--exit-on-error", "--single-transaction"] {
            let copy = format!("{database}_{}", if how == "--exit-on-error" { "drill" } else { "moved" });
            client.batch_execute(&format!("CREATE DATABASE {copy}")).await.unwrap();
            let mut restore = cluster.command("pg_restore");
            restore.arg(how).arg("--dbname").arg(cluster.url("postgres", &copy)).arg(&file);
            output(&mut restore).unwrap();
            assert_eq!(count(&cluster.connect(&copy).await.unwrap(), stored).await, 1, "{copy}");
        }
    }
}
