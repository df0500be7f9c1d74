//! A login table that can run no code is taken in faster, without what keeps such code and the session apart. So everything on a
//! table that can run code has to be known.

use crate::common::{ingest as ingest_batch, message};
use testbed::cluster::Cluster;

/// What a table may have that runs code, and how to take it off again.
const KINDS: [(&str, &str, &str); 14] = [
    (
        "a trigger",
        "CREATE TRIGGER t BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION app.passes()",
        "DROP TRIGGER t ON user_logins",
    ),
    (
        "a foreign key",
        "ALTER TABLE user_logins ADD CONSTRAINT f FOREIGN KEY (user_id) REFERENCES app.users",
        "ALTER TABLE user_logins DROP CONSTRAINT f",
    ),
    (
        "a rule",
        "CREATE RULE r AS ON INSERT TO user_logins DO ALSO INSERT INTO app.also VALUES (app.low(NEW.user_id))",
        "DROP RULE r ON user_logins",
    ),
    (
        "a policy",
        "ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON user_logins WITH CHECK (app.low(user_id) <> '')",
        "DROP POLICY p ON user_logins; ALTER TABLE user_logins DISABLE ROW LEVEL SECURITY",
    ),
    (
        "a check",
        "ALTER TABLE user_logins ADD CONSTRAINT c CHECK (app.low(user_id) <> '')",
        "ALTER TABLE user_logins DROP CONSTRAINT c",
    ),
    (
        "a default",
        "ALTER TABLE user_logins ADD more text DEFAULT app.low('X')",
        "ALTER TABLE user_logins DROP more",
    ),
    (
        "a generated column",
        "ALTER TABLE user_logins ADD more text GENERATED ALWAYS AS (app.low(user_id)) STORED",
        "ALTER TABLE user_logins DROP more",
    ),
    ("a domain", "ALTER TABLE user_logins ADD more app.kind", "ALTER TABLE user_logins DROP more"),
    ("an expression of an index", "CREATE INDEX i ON user_logins (app.low(user_id))", "DROP INDEX i"),
    (
        "an index of some rows",
        "CREATE INDEX i ON user_logins (user_id) WHERE app.low(user_id) <> ''",
        "DROP INDEX i",
    ),
    ("an operator class", "CREATE INDEX i ON user_logins (user_id app.texts)", "DROP INDEX i"),
    (
        "an excluding constraint",
        "ALTER TABLE user_logins ADD CONSTRAINT e EXCLUDE USING btree (app.low(user_id) WITH =)",
        "ALTER TABLE user_logins DROP CONSTRAINT e",
    ),
    (
        "extended statistics",
        "CREATE STATISTICS s ON (app.low(user_id)), create_date FROM user_logins",
        "DROP STATISTICS s",
    ),
    (
        "a table that it is a partition of",
        "CREATE TABLE whole (LIKE user_logins) PARTITION BY LIST (app.low(user_id)); ALTER TABLE whole ATTACH PARTITION user_logins DEFAULT",
        "ALTER TABLE whole DETACH PARTITION user_logins; DROP TABLE whole",
    ),
];

/// A session that has made something for itself is refused wherever code can run, and only there. One that has not goes on, batch after
/// batch: what pg_mask itself does beside the guarded work calls nothing of the table's.
#[tokio::test]
async fn each_kind_of_code_on_a_table_is_known() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("kinds").await.unwrap();
    admin
        .batch_execute(
            "CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC;
             CREATE FUNCTION app.low(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN lower($1); END $$;
             CREATE DOMAIN app.kind AS text DEFAULT 'x' CHECK (app.low(VALUE) <> ''); CREATE TABLE app.also (user_id text);
             CREATE TABLE app.users (id varchar(128) PRIMARY KEY);
             CREATE FUNCTION app.passes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
             CREATE OPERATOR CLASS app.texts FOR TYPE text USING btree AS
                 OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 bttextcmp(text, text);
             ALTER TABLE user_logins ADD CONSTRAINT later UNIQUE (masked_ip) DEFERRABLE; CREATE ROLE watches LOGIN IN ROLE pgmask_operator, pg_monitor",
        )
        .await
        .unwrap();
    let session = cluster.connect_as("pgmask_forwarder", "kinds").await.unwrap();
    session.batch_execute("CREATE TEMPORARY TABLE own (t text)").await.unwrap();
    for (number, (kind, add, take_off)) in KINDS.into_iter().enumerate() {
        let ingest = format!("SELECT pgmask.ingest_login('{{\"user_id\": \"user {number}\"}}')");
        admin
            .batch_execute(&format!(
                "TRUNCATE user_logins; INSERT INTO app.users VALUES ('user {number}'); {add}"
            ))
            .await
            .unwrap();
        let Err(error) = session.batch_execute(&ingest).await else { panic!("{kind} is no code") };
        let refused = message(&error);
        assert!(refused.starts_with("42501 this session has made own for itself"), "{kind}: {refused}");
        let service = cluster.connect_as("pgmask_forwarder", "kinds").await.unwrap();
        let watches = cluster.connect_as("watches", "kinds").await.unwrap();
        for round in 0..2 {
            assert_eq!(ingest_batch(&service, &[] as &[(&str, &str)]).await, [0, 0, 0], "{kind}");
            let message = (
                format!("{number} {round}"),
                format!("{{\"user_id\": \"user {number}\", \"ip\": \"192.0.{number}.{round}\"}}"),
            );
            let refused = i64::from(kind == "an excluding constraint" && round == 1);
            assert_eq!(
                ingest_batch(&service, &[message]).await,
                [1 - refused, 0, refused],
                "{kind}, {round}"
            );
            for work in ["SELECT FROM pgmask.health", "CALL pgmask.remask('public.user_logins')"] {
                watches.batch_execute(work).await.unwrap_or_else(|error| panic!("{kind}: {work}: {error:?}"));
            }
            admin.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
        }
        admin.batch_execute(take_off).await.unwrap();
        admin.batch_execute("VACUUM user_logins").await.unwrap(); // a table has rules, by its row in pg_class, until then
        session.batch_execute(&ingest).await.unwrap_or_else(|error| panic!("{kind} is gone: {error:?}"));
    }
}

/// Such a table is open, with its expression, as pg_mask looks at it.
#[tokio::test]
async fn a_table_that_is_partitioned_by_a_function_takes_logins() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("by_function").await.unwrap();
    admin
        .batch_execute(
            "CREATE FUNCTION low(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN pg_catalog.lower($1); END $$;
             ALTER TABLE user_logins RENAME TO old; CREATE TABLE user_logins (LIKE old) PARTITION BY LIST (low(user_id));
             CREATE TABLE part PARTITION OF user_logins DEFAULT; GRANT INSERT ON user_logins TO pgmask_writer;
             CREATE ROLE watches LOGIN IN ROLE pgmask_operator",
        )
        .await
        .unwrap();
    let service = cluster.connect_as("pgmask_forwarder", "by_function").await.unwrap();
    for round in ["a", "b"] {
        assert_eq!(
            ingest_batch(&service, &[(round, "{\"user_id\": \"u\", \"ip\": \"192.0.2.1\"}")]).await,
            [1, 0, 0]
        );
        admin.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
        let watches = cluster.connect_as("watches", "by_function").await.unwrap();
        watches.batch_execute("CALL pgmask.remask('public.user_logins')").await.unwrap();
    }
}
