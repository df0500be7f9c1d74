//! Code of others that runs while rows are inserted may do nothing but insert a row, whichever way led to it
//! and whoever calls.

use super::{INGEST, member};
use crate::common::{count, ingest, message, texts};
use testbed::cluster::Cluster;
use testbed::guardian::wait_until;
use tokio_postgres::Client;

/// What somebody would do who runs with more rights than their own. Whatever of it works is in the error
/// that `climb` raises; that it ran at all is seen by the sequence.
const CLIMB: &str = r#"
    CREATE SEQUENCE mallory.ran; GRANT USAGE ON SCHEMA mallory TO PUBLIC; GRANT USAGE ON SEQUENCE mallory.ran TO PUBLIC;
    CREATE FUNCTION mallory.climb() RETURNS boolean LANGUAGE plpgsql AS $$
    DECLARE
        step text;
        worked text := '';
    BEGIN
        PERFORM pg_catalog.nextval('mallory.ran');
        FOREACH step IN ARRAY ARRAY[
            'ALTER ROLE mallory SUPERUSER', 'CREATE ROLE made', 'GRANT pgmask_writer TO mallory',
            'SET ROLE postgres', 'RESET ROLE', 'SET LOCAL ROLE postgres', 'SELECT set_config(''role'', ''postgres'', false)',
            'SET SESSION AUTHORIZATION postgres', 'RESET SESSION AUTHORIZATION',
            'TABLE public.user_logins', 'DELETE FROM public.user_logins', 'TRUNCATE public.user_logins',
            'TABLE pgmask.quarantine', 'TABLE pgmask.audit', 'TABLE pgmask.ledger', 'DELETE FROM pgmask.ledger',
            'TABLE pgmask.key_check', 'DELETE FROM pgmask.key_check_own', 'SELECT pgmask.mask_pii(''x'')',
            'SELECT pgmask.ingest_login(''{"user_id":1}'')', 'SELECT pgmask.maintain()', 'SELECT pgmask.key_status()',
            'SELECT pgmask.replay_quarantine()', 'LOAD ''pg_mask''; SET pgmask.login_table = ''mallory.mine''',
            'COPY (SELECT 1) TO PROGRAM ''true''', 'SELECT pg_read_file(''pg_mask.keyring'')',
            'CREATE TABLE mallory.mine()', 'CREATE TEMP TABLE mine()',
            'PREPARE left_behind AS SELECT 1', 'LISTEN left_behind', 'DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1'
        ] LOOP
            BEGIN
                EXECUTE step;
                worked := worked || step || '; ';
            EXCEPTION WHEN OTHERS THEN NULL;
            END;
        END LOOP;
        IF current_user <> 'pgmask_writer' THEN worked := worked || 'I am ' || current_user; END IF;
        IF current_query() LIKE '%user_id%' THEN worked := worked || 'saw the message'; END IF;
        IF worked <> '' THEN RAISE EXCEPTION 'climbed: %', worked; END IF;
        RETURN true;
    END $$;
    CREATE FUNCTION mallory.climbs() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM mallory.climb(); IF TG_LEVEL = 'ROW' AND TG_WHEN = 'BEFORE' THEN RETURN NEW; END IF; RETURN NULL; END $$;
    CREATE VIEW mallory.climbing AS SELECT '1'::text AS x WHERE mallory.climb();
    GRANT SELECT ON mallory.climbing TO PUBLIC;
"#;

/// A way to have code run: what a superuser did in good faith, then what mallory did.
struct Way {
    name: &'static str,
    in_good_faith: &'static str,
    by_mallory: &'static str,
}

pub(super) const OWNS: &str = "ALTER TABLE user_logins OWNER TO mallory";

const WAYS: &[Way] = &[
    Way {
        name: "trigger",
        in_good_faith: "GRANT TRIGGER ON user_logins TO mallory",
        by_mallory: "CREATE TRIGGER t BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.climbs()",
    },
    Way {
        name: "trigger_for_the_statement",
        in_good_faith: OWNS,
        by_mallory: "CREATE TRIGGER t AFTER INSERT ON user_logins REFERENCING NEW TABLE AS fresh
            FOR EACH STATEMENT EXECUTE FUNCTION mallory.climbs()",
    },
    Way {
        name: "trigger_when",
        in_good_faith: "GRANT TRIGGER ON user_logins TO mallory; CREATE FUNCTION honest() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        by_mallory: "CREATE TRIGGER t BEFORE INSERT ON user_logins FOR EACH ROW WHEN (mallory.climb()) EXECUTE FUNCTION honest()",
    },
    Way {
        name: "trigger_of_a_replica",
        in_good_faith: OWNS,
        by_mallory: "CREATE TRIGGER t BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.climbs();
            ALTER TABLE user_logins ENABLE ALWAYS TRIGGER t",
    },
    Way {
        name: "deferred_trigger",
        in_good_faith: OWNS,
        by_mallory: "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON user_logins DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION mallory.climbs()",
    },
    Way {
        name: "default",
        in_good_faith: OWNS,
        by_mallory: "ALTER TABLE user_logins ADD seen boolean DEFAULT true; ALTER TABLE user_logins ALTER seen SET DEFAULT mallory.climb()",
    },
    Way {
        name: "check",
        in_good_faith: OWNS,
        by_mallory: "ALTER TABLE user_logins ADD CHECK (mallory.climb())",
    },
    Way {
        name: "domain",
        in_good_faith: "ALTER TABLE user_logins OWNER TO mallory; DROP SCHEMA logins CASCADE",
        by_mallory: "CREATE DOMAIN mallory.kind AS varchar(32) CHECK (mallory.climb()); GRANT USAGE ON TYPE mallory.kind TO PUBLIC;
            ALTER TABLE user_logins ALTER device_type TYPE mallory.kind",
    },
    Way {
        name: "cast",
        in_good_faith: OWNS,
        by_mallory: "CREATE TYPE mallory.kind AS (t text);
            CREATE FUNCTION mallory.cast(text) RETURNS mallory.kind LANGUAGE sql AS 'SELECT ROW($1)::mallory.kind WHERE mallory.climb()';
            CREATE CAST (text AS mallory.kind) WITH FUNCTION mallory.cast AS ASSIGNMENT;
            ALTER TABLE user_logins DROP device_type CASCADE, ADD device_type mallory.kind",
    },
    Way {
        name: "generated_column",
        in_good_faith: OWNS,
        by_mallory: "CREATE FUNCTION mallory.quiet() RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN current_user = 'mallory' OR mallory.climb(); END $$;
            ALTER TABLE user_logins ADD seen boolean GENERATED ALWAYS AS (mallory.quiet()) STORED",
    },
    Way {
        name: "index",
        in_good_faith: OWNS,
        by_mallory: "CREATE FUNCTION mallory.quiet(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN current_user = 'mallory' OR mallory.climb(); END $$;
            CREATE INDEX ON user_logins (mallory.quiet(user_id)); CREATE INDEX ON user_logins (user_id) WHERE mallory.quiet(user_id)",
    },
    Way {
        name: "rule",
        in_good_faith: OWNS,
        by_mallory: "CREATE TABLE mallory.also (x boolean); CREATE RULE r AS ON INSERT TO user_logins DO ALSO INSERT INTO mallory.also SELECT mallory.climb()",
    },
    Way {
        name: "policy",
        in_good_faith: OWNS,
        by_mallory: "ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON user_logins WITH CHECK (mallory.climb())",
    },
    Way {
        name: "partition",
        in_good_faith: "ALTER TABLE user_logins RENAME TO old; CREATE TABLE user_logins (LIKE old) PARTITION BY LIST (user_id);
            CREATE TABLE part PARTITION OF user_logins DEFAULT; ALTER TABLE part OWNER TO mallory; GRANT INSERT ON user_logins TO pgmask_writer",
        by_mallory: "CREATE TRIGGER t BEFORE INSERT ON part FOR EACH ROW EXECUTE FUNCTION mallory.climbs();
            ALTER TABLE part ADD CHECK (mallory.climb())",
    },
    Way {
        name: "foreign_key",
        in_good_faith: OWNS,
        by_mallory: "CREATE TABLE mallory.users (id varchar(128) PRIMARY KEY); INSERT INTO mallory.users VALUES ('1');
            ALTER TABLE user_logins ADD FOREIGN KEY (user_id) REFERENCES mallory.users DEFERRABLE INITIALLY DEFERRED;
            CREATE TRIGGER t BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.climbs()",
    },
    Way {
        name: "a_view_that_an_honest_trigger_reads",
        in_good_faith: "CREATE FUNCTION honest() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM * FROM mallory.climbing; RETURN NEW; END $$;
            CREATE TRIGGER t BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION honest()",
        by_mallory: "",
    },
    Way {
        name: "refint",
        in_good_faith: "CREATE EXTENSION refint; GRANT TRIGGER ON user_logins TO mallory",
        by_mallory: "CREATE TRIGGER t BEFORE INSERT ON user_logins FOR EACH ROW
            EXECUTE FUNCTION check_primary_key('user_id', 'mallory.climbing', 'x')",
    },
];

pub(super) async fn mallory(cluster: &Cluster, database: &str) -> (Client, Client) {
    let admin = cluster.database(database).await.unwrap();
    admin
        .batch_execute(
            "DO $$ BEGIN CREATE ROLE mallory LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             CREATE SCHEMA AUTHORIZATION mallory; GRANT ALL ON SCHEMA public TO mallory; GRANT TEMP ON DATABASE postgres TO PUBLIC",
        )
        .await
        .unwrap();
    let mallory = cluster.connect_as("mallory", database).await.unwrap();
    mallory.batch_execute(CLIMB).await.unwrap();
    (admin, mallory)
}

pub(super) async fn times(admin: &Client) -> i64 {
    count(admin, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM mallory.ran").await
}

#[tokio::test]
async fn no_way_leads_to_more_than_a_row() {
    let cluster = Cluster::start(&[]).await.unwrap();
    for way in WAYS {
        let (admin, mallory) = mallory(&cluster, &format!("way_{}", way.name)).await;
        let has_refint = "SELECT count(*) FROM pg_available_extensions WHERE name = 'refint'";
        if way.name == "refint" && count(&admin, has_refint).await == 0 {
            continue;
        }
        admin
            .batch_execute(way.in_good_faith)
            .await
            .unwrap_or_else(|error| panic!("{}: {error:?}", way.name));
        mallory.batch_execute(way.by_mallory).await.unwrap_or_else(|error| panic!("{}: {error:?}", way.name));
        if way.name == "trigger_of_a_replica" {
            admin.batch_execute("SET session_replication_role = replica").await.unwrap();
        }
        // Making it may have run it, as mallory.
        let before = times(&admin).await;
        admin.batch_execute(INGEST).await.unwrap_or_else(|error| panic!("{}: {error:?}", way.name));
        admin
            .batch_execute("SELECT pgmask.ingest_login('{\"user_id\": 1, \"device_type\": \"x\"}')")
            .await
            .unwrap_or_else(|error| panic!("{}: {error:?}", way.name));
        assert!(times(&admin).await >= before + 2, "{}: it never ran", way.name);
        assert_eq!(texts(&admin, "SELECT reason FROM pgmask.quarantine").await, [""; 0], "{}", way.name);
        assert_eq!(count(&admin, "SELECT count(*) FROM user_logins").await, 2, "{}", way.name);
        let left = "SELECT (SELECT count(*) FROM pg_prepared_statements WHERE name = 'left_behind')
            + (SELECT count(*) FROM pg_cursors WHERE name = 'left_behind')
            + (SELECT count(*) FROM pg_listening_channels())";
        assert_eq!(count(&admin, left).await, 0, "{}", way.name);
    }
    let admin = cluster.connect("postgres").await.unwrap();
    assert_eq!(
        count(&admin, "SELECT count(*) FROM pg_roles WHERE rolname = 'mallory' AND rolsuper").await,
        0
    );
}

/// An ingester's temporary view answers to a bare name in code of an honest table.
#[tokio::test]
async fn temporary_objects_of_the_callers_mislead_nobody_to_more_than_a_row() {
    let cluster = Cluster::start(&[]).await.unwrap();
    for (name, honest) in [
        ("check", "ALTER TABLE user_logins ADD CHECK (honest())"),
        ("default", "ALTER TABLE user_logins ADD seen boolean DEFAULT honest()"),
        (
            "policy",
            "ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON user_logins WITH CHECK (honest())",
        ),
        (
            "trigger",
            "CREATE FUNCTION calls() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS
                 $$ BEGIN INSERT INTO login_counts VALUES (NEW.user_id); RETURN NEW; END $$;
             CREATE TRIGGER t BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION calls()",
        ),
    ] {
        let (admin, _mallory) = mallory(&cluster, &format!("temporary_{name}")).await;
        admin
            .batch_execute(&format!(
                "CREATE TABLE allowed (x boolean); GRANT SELECT ON allowed TO PUBLIC; INSERT INTO allowed VALUES (true);
                 CREATE TABLE login_counts (u text); GRANT INSERT ON login_counts TO pgmask_writer;
                 CREATE FUNCTION honest() RETURNS boolean LANGUAGE plpgsql SET search_path = public AS
                     $$ BEGIN RETURN (SELECT count(*) > 0 FROM allowed WHERE x); END $$;
                 {honest}"
            ))
            .await
            .unwrap();
        member(&admin, &format!("misleads_{name}"), "pgmask_ingester").await;
        let client =
            cluster.connect_as(&format!("misleads_{name}"), &format!("temporary_{name}")).await.unwrap();
        client.batch_execute(INGEST).await.unwrap();
        assert_eq!(times(&admin).await, 0, "{name}");
        client
            .batch_execute(
                "CREATE TEMP VIEW allowed AS SELECT mallory.climb() AS x; GRANT SELECT ON allowed TO PUBLIC;
                 CREATE TEMP TABLE login_counts (u text CHECK (mallory.climb())); GRANT INSERT ON login_counts TO PUBLIC",
            )
            .await
            .unwrap();
        for ingests in [&*INGEST.replace("'{a}'", "'{b}'"), "SELECT pgmask.ingest_login('{\"user_id\": 1}')"]
        {
            let refused = message(&client.batch_execute(ingests).await.unwrap_err());
            assert!(refused.starts_with("42501 this session has made allowed for itself"), "{refused}");
        }
        assert_eq!(times(&admin).await, 0, "{name}");
        assert_eq!(count(&admin, "SELECT count(*) FROM user_logins").await, 1, "{name}");
    }
}

/// A trigger of the caller's own, waiting for the commit, is fired early by a batch: as the writer, and from
/// PostgreSQL 18 on as the role that was at work when it began to wait. That is the caller, who gains nothing.
#[tokio::test]
async fn a_deferred_trigger_of_the_callers_gains_nothing() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "fired_in_the_midst").await;
    admin
        .batch_execute("GRANT TRIGGER, INSERT ON user_logins TO mallory; GRANT pgmask_ingester TO mallory")
        .await
        .unwrap();
    mallory
        .batch_execute(
            "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON user_logins DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION mallory.climbs();
             BEGIN; INSERT INTO user_logins (user_id) VALUES ('by hand')",
        )
        .await
        .unwrap();
    let before = times(&admin).await;
    if cluster.major() >= 18 {
        // It raises an error, as it does not run as the writer.
        let error = mallory.batch_execute(INGEST).await.unwrap_err();
        assert!(message(&error).starts_with("P0001 logins could not be inserted"), "{}", message(&error));
        mallory.batch_execute("ROLLBACK").await.unwrap();
        assert!(times(&admin).await > before, "it ran");
        let gained =
            "SELECT count(*) FROM pg_roles WHERE rolname = 'made' OR rolname = 'mallory' AND rolsuper";
        assert_eq!(count(&admin, gained).await, 0);
        return;
    }
    mallory.batch_execute(INGEST).await.unwrap();
    mallory.batch_execute("COMMIT").await.unwrap();
    assert!(times(&admin).await >= before + 2);
    assert_eq!(count(&admin, "SELECT count(*) FROM user_logins").await, 2);
}

/// Who owns the schema renames it after the table was looked up, and has another in its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_exchanged_in_the_midst_gets_nothing() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "exchanged").await;
    admin
        .batch_execute(
            "CREATE SCHEMA house; ALTER TABLE user_logins SET SCHEMA house; GRANT USAGE ON SCHEMA house TO pgmask_writer;
             ALTER SCHEMA house OWNER TO mallory; GRANT SELECT ON house.user_logins TO mallory; GRANT CREATE ON DATABASE exchanged TO mallory;
             ALTER DATABASE exchanged SET pgmask.login_table = 'house.user_logins'",
        )
        .await
        .unwrap();
    let holding = cluster.connect("exchanged").await.unwrap();
    holding.batch_execute("BEGIN").await.unwrap();
    holding.batch_execute(INGEST).await.unwrap();
    // The table is found; the id is another batch's for now.
    let ingesting = cluster.connect("exchanged").await.unwrap();
    let ingest = tokio::spawn(async move { ingesting.batch_execute(INGEST).await });
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'exchanged' AND wait_event_type = 'Lock'";
    wait_until("the batch waits", || async { count(&admin, waiting).await == 1 }).await.unwrap();
    mallory
        .batch_execute(
            "ALTER SCHEMA house RENAME TO old; CREATE SCHEMA house; GRANT USAGE ON SCHEMA house TO PUBLIC;
             CREATE TABLE house.user_logins (LIKE old.user_logins); GRANT INSERT ON house.user_logins TO PUBLIC;
             CREATE TRIGGER t BEFORE INSERT ON house.user_logins FOR EACH ROW EXECUTE FUNCTION mallory.climbs()",
        )
        .await
        .unwrap();
    holding.batch_execute("ROLLBACK").await.unwrap();
    let error = message(&ingest.await.unwrap().unwrap_err());
    assert!(error.starts_with("40001 the table was exchanged"), "{error}");
    for table in ["house.user_logins", "old.user_logins", "pgmask.ledger", "pgmask.quarantine"] {
        assert_eq!(count(&admin, &format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
    assert_eq!(times(&admin).await, 0, "nor does its code run");
}

/// A rule that does nothing instead is refused before a batch. Made in its midst, while rows are tried alone, it lost messages that were
/// counted as taken in.
#[tokio::test]
async fn no_rule_is_made_in_the_midst_that_loses_messages() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let (admin, mallory) = mallory(&cluster, "rule_in_the_midst").await;
    admin.batch_execute(OWNS).await.unwrap();
    mallory
        .batch_execute(
            "CREATE TABLE mallory.seen (error text);
             CREATE FUNCTION mallory.makes() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
                 EXECUTE 'CREATE RULE lost AS ON INSERT TO public.user_logins WHERE NEW.user_id = ''lost'' DO INSTEAD NOTHING';
             EXCEPTION WHEN OTHERS THEN INSERT INTO mallory.seen VALUES (SQLERRM); END $$;
             CREATE FUNCTION mallory.looks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.user_id = 'makes' THEN PERFORM mallory.makes(); END IF;
                 IF NEW.user_id = 'fails' THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER looks BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION mallory.looks()",
        )
        .await
        .unwrap();
    let messages =
        ["first", "makes", "lost", "fails"].map(|user| (user, format!("{{\"user_id\":\"{user}\"}}")));
    assert_eq!(ingest(&admin, &messages).await, [3, 0, 1]);
    assert_eq!(texts(&admin, "SELECT user_id FROM user_logins ORDER BY 1").await, ["first", "lost", "makes"]);
    assert!(
        texts(&admin, "SELECT error FROM mallory.seen")
            .await
            .iter()
            .all(|error| error.contains("CREATE RULE"))
    );
}
