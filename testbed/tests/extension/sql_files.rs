//! The DBA's files may be applied again and again, to any database.

use crate::common::{cluster, count, message, texts};
use testbed::cluster::Cluster;
use testbed::installation::output;

#[tokio::test]
async fn may_be_applied_again_and_to_a_second_database() {
    let cluster = cluster().await;
    for name in ["files_one", "files_two"] {
        let client = cluster.database(name).await.unwrap();
        client.batch_execute("INSERT INTO user_logins (user_id) VALUES ('kept')").await.unwrap();
        cluster.apply_sql(name).unwrap();
        cluster.apply_sql(name).unwrap();
        assert_eq!(count(&client, "SELECT count(*) FROM user_logins").await, 1);
    }
}

#[tokio::test]
async fn find_the_extension_in_another_schema() {
    let cluster = cluster().await;
    cluster.connect("postgres").await.unwrap().batch_execute("CREATE DATABASE files_schema").await.unwrap();
    let client = cluster.connect("files_schema").await.unwrap();
    client
        .batch_execute("CREATE SCHEMA \"Odd one\"; CREATE EXTENSION pg_mask SCHEMA \"Odd one\"")
        .await
        .unwrap();
    cluster.apply_sql("files_schema").unwrap();
    let forwarder = cluster.connect_as("pgmask_forwarder", "files_schema").await.unwrap();
    let sql = "SELECT inserted FROM pgmask.ingest_login_batch('{a}', '{\"{\\\"user_id\\\":1}\"}', ARRAY[now()], '{1}')";
    assert_eq!(count(&forwarder, sql).await, 1);
    let home = "SELECT count(*) FROM pg_proc WHERE pronamespace = '\"Odd one\"'::regnamespace AND proname = 'mask_pii'";
    assert!(count(&client, home).await >= 3);
}

/// Who may make schemas makes one with a superuser's name, which the search path has first, and can drop it.
#[tokio::test]
async fn the_extension_goes_into_no_schema_that_waits_under_its_makers_name() {
    let cluster = Cluster::start(&[]).await.unwrap();
    cluster.connect("postgres").await.unwrap().batch_execute("CREATE DATABASE files_waits").await.unwrap();
    let client = cluster.connect("files_waits").await.unwrap();
    let waits = "CREATE ROLE waits; GRANT CREATE ON DATABASE files_waits TO waits; SET ROLE waits; CREATE SCHEMA postgres; RESET ROLE";
    client.batch_execute(waits).await.unwrap();
    let refused = message(&client.batch_execute("CREATE EXTENSION pg_mask").await.unwrap_err());
    assert!(refused.contains("schema postgres belongs to role waits"), "{refused}");
    client.batch_execute("CREATE EXTENSION pg_mask SCHEMA public").await.unwrap();
    client.batch_execute("DROP EXTENSION pg_mask; ALTER SCHEMA postgres OWNER TO postgres").await.unwrap();
    client.batch_execute("CREATE EXTENSION pg_mask").await.unwrap();
}

#[tokio::test]
async fn a_view_that_another_role_made_is_refused() {
    let cluster = cluster().await;
    let client = cluster.database("files_trap").await.unwrap();
    client
        .batch_execute("CREATE ROLE trapper; GRANT CREATE ON SCHEMA public, logins TO trapper")
        .await
        .unwrap();
    for view in ["logins.shared_ips", "logins.duplicate_events", "public.quarantined_logins"] {
        let trap =
            format!("DROP VIEW {view}; SET ROLE trapper; CREATE VIEW {view} AS SELECT 1 AS trap; RESET ROLE");
        client.batch_execute(&trap).await.unwrap();
        let refused = cluster.apply_sql("files_trap").unwrap_err().to_string();
        let expected = format!("{view} is there already and belongs to trapper");
        assert!(refused.contains(&expected), "{refused}");
        client.batch_execute(&format!("DROP VIEW {view}")).await.unwrap();
        cluster.apply_sql("files_trap").unwrap();
    }
    client.batch_execute("ALTER SCHEMA logins OWNER TO trapper").await.unwrap();
    let refused = cluster.apply_sql("files_trap").unwrap_err().to_string();
    assert!(refused.contains("schema logins is there already and belongs to trapper"), "{refused}");
    // The owner of the database, too, could put functions there that others call.
    client.batch_execute("ALTER DATABASE files_trap OWNER TO trapper").await.unwrap();
    let refused = cluster.apply_sql("files_trap").unwrap_err().to_string();
    assert!(refused.contains("schema logins is there already and belongs to trapper"), "{refused}");
    client.batch_execute("ALTER DATABASE files_trap OWNER TO postgres").await.unwrap();
    client
        .batch_execute("ALTER SCHEMA logins OWNER TO postgres; DROP OWNED BY trapper; DROP ROLE trapper")
        .await
        .unwrap();
    cluster.apply_sql("files_trap").unwrap();
}

/// Whoever may make tables in public would otherwise get all logins.
#[tokio::test]
async fn a_login_table_that_another_role_made_is_refused() {
    let cluster = cluster().await;
    cluster.connect("postgres").await.unwrap().batch_execute("CREATE DATABASE files_table").await.unwrap();
    let client = cluster.connect("files_table").await.unwrap();
    client
        .batch_execute(
            "CREATE ROLE lurker; GRANT CREATE ON SCHEMA public TO lurker;
             SET ROLE lurker; CREATE TABLE user_logins (user_id text); RESET ROLE",
        )
        .await
        .unwrap();
    let refused = cluster.apply_sql("files_table").unwrap_err().to_string();
    assert!(refused.contains("public.user_logins is there already and belongs to lurker"), "{refused}");
    client.batch_execute("DROP OWNED BY lurker; DROP ROLE lurker").await.unwrap();
    cluster.apply_sql("files_table").unwrap();
}

/// Who made the extension as a superuser, and is none any more, can still change its functions.
#[tokio::test]
async fn an_extension_of_a_role_that_is_no_superuser_any_more_is_refused() {
    let cluster = cluster().await;
    let postgres = cluster.connect("postgres").await.unwrap();
    postgres.batch_execute("CREATE ROLE files_demoted LOGIN SUPERUSER").await.unwrap();
    postgres.batch_execute("CREATE DATABASE files_demoted").await.unwrap();
    cluster
        .connect_as("files_demoted", "files_demoted")
        .await
        .unwrap()
        .batch_execute("CREATE EXTENSION pg_mask")
        .await
        .unwrap();
    cluster.apply_sql("files_demoted").unwrap();

    postgres.batch_execute("ALTER ROLE files_demoted NOSUPERUSER").await.unwrap();
    let refused = cluster.apply_sql("files_demoted").unwrap_err().to_string();
    let expected = "the extension pg_mask belongs to files_demoted, which is no superuser";
    assert!(refused.contains(expected), "{refused}");
    let client = cluster.connect("files_demoted").await.unwrap();
    let health = "SELECT concat_ws(': ', item, state, value) FROM pgmask.health";
    let says = "roles: failed: the extension belongs to files_demoted, which is no superuser";
    assert_eq!(texts(&client, health).await, [says]);

    client.batch_execute("REASSIGN OWNED BY files_demoted TO postgres").await.unwrap();
    cluster.apply_sql("files_demoted").unwrap();
    assert!(!texts(&client, health).await.contains(&says.to_owned()));
    client.batch_execute("DROP OWNED BY files_demoted; DROP ROLE files_demoted").await.unwrap();
}

/// And whoever does it while the file is applied.
#[tokio::test]
async fn a_login_table_that_another_role_makes_meanwhile_is_refused() {
    let cluster = cluster().await;
    cluster.connect("postgres").await.unwrap().batch_execute("CREATE DATABASE files_race").await.unwrap();
    let admin = cluster.connect("files_race").await.unwrap();
    admin.batch_execute("CREATE ROLE racer LOGIN; GRANT CREATE ON SCHEMA public TO racer").await.unwrap();
    let file = std::fs::read_to_string(testbed::root().join("sql/01_user_logins.sql")).unwrap();
    let (looks, makes) = file.split_at(file.find("CREATE TABLE").unwrap());
    admin.batch_execute(looks).await.unwrap();
    let racer = cluster.connect_as("racer", "files_race").await.unwrap();
    racer.batch_execute("CREATE TABLE public.user_logins (LIKE pg_class)").await.unwrap();
    let refused = async |sql: &str| message(&admin.batch_execute(sql).await.unwrap_err());
    let expected = "public.user_logins is there already and belongs to racer";
    // A file without its comments on columns, which are not in this table.
    let makes: String =
        makes.split_inclusive(";\n").filter(|sql| !sql.contains("COMMENT ON COLUMN")).collect();
    let error = refused(&makes).await;
    assert!(error.contains(expected), "{error}");
    admin.batch_execute("ROLLBACK; DROP OWNED BY racer; DROP ROLE racer").await.unwrap();
    cluster.apply_sql("files_race").unwrap();
}

/// A superuser whose name has capital letters is not the role that has it in small ones.
#[tokio::test]
async fn who_applies_them_is_known_by_the_exact_name() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.connect("postgres").await.unwrap();
    admin.batch_execute("CREATE ROLE \"DBA\" SUPERUSER LOGIN").await.unwrap();
    admin.batch_execute("CREATE DATABASE files_name").await.unwrap();
    let apply = || {
        let mut psql = cluster.command("psql");
        psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]);
        psql.args(["--dbname", &cluster.url("DBA", "files_name")]);
        for file in
            ["00_roles", "01_user_logins", "02_rights", "03_analyst_views", "04_networks", "05_dashboards"]
        {
            psql.arg("--file").arg(testbed::root().join(format!("sql/{file}.sql")));
        }
        output(&mut psql)
    };
    let client = cluster.connect("files_name").await.unwrap();
    let plant = "CREATE ROLE dba; CREATE SCHEMA logins AUTHORIZATION dba";
    client.batch_execute(plant).await.unwrap();
    let refused = apply().unwrap_err().to_string();
    assert!(refused.contains("schema logins is there already and belongs to dba"), "{refused}");
    client.batch_execute("DROP SCHEMA logins; ALTER TABLE user_logins OWNER TO dba").await.unwrap();
    let refused = apply().unwrap_err().to_string();
    assert!(refused.contains("public.user_logins is there already and belongs to dba"), "{refused}");
    client.batch_execute("DROP OWNED BY dba; DROP ROLE dba").await.unwrap();
    apply().unwrap();
    apply().unwrap();
}

/// Somebody who may make roles waits for one of ours to get its rights.
#[tokio::test]
async fn a_role_that_is_not_as_we_would_make_it_is_refused() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.connect("postgres").await.unwrap();
    for (made, saying) in [
        ("CREATE ROLE pgmask_recoverer LOGIN", "role pgmask_recoverer is there already and can log in"),
        ("CREATE ROLE pgmask_writer LOGIN", "role pgmask_writer is there already and can log in"),
        ("CREATE ROLE pgmask_writer CREATEROLE", "role pgmask_writer is there already and has rights"),
        (
            "CREATE ROLE pgmask_forwarder LOGIN SUPERUSER",
            "role pgmask_forwarder is there already and has rights",
        ),
        (
            "CREATE ROLE pgmask_writer IN ROLE pg_write_all_data",
            "role pgmask_writer is there already and a member of pg_write_all_data",
        ),
        (
            "CREATE ROLE other; CREATE ROLE pgmask_forwarder LOGIN IN ROLE other",
            "role pgmask_forwarder is there already and a member of other",
        ),
    ] {
        admin.batch_execute(made).await.unwrap();
        let refused = cluster.apply_sql("postgres").unwrap_err().to_string();
        assert!(refused.contains(saying), "{made}: {refused}");
        admin
            .batch_execute("DROP ROLE IF EXISTS pgmask_recoverer, pgmask_writer, pgmask_forwarder")
            .await
            .unwrap();
    }
    cluster.apply_sql("postgres").unwrap();
    admin
        .batch_execute(
            "CREATE ROLE waits; GRANT pgmask_analyst TO waits; ALTER ROLE pgmask_forwarder PASSWORD 'x'",
        )
        .await
        .unwrap();
    cluster.apply_sql("postgres").unwrap();
}

/// Whoever may make roles can keep the files from being applied by a grant; what the hint says undoes it.
#[tokio::test]
async fn the_hint_takes_a_role_back_that_somebody_granted() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("granted").await.unwrap();
    admin.batch_execute("CREATE ROLE makes_roles LOGIN CREATEROLE").await.unwrap();
    let maker = cluster.connect_as("makes_roles", "granted").await.unwrap();
    maker.batch_execute("CREATE ROLE made; GRANT made TO pgmask_analyst").await.unwrap();
    let refused = cluster.apply_sql("granted").unwrap_err().to_string();
    assert!(refused.contains("role pgmask_analyst is there already and a member of made"), "{refused}");
    let revoke = refused.split("HINT:").nth(1).unwrap().split(", or").next().unwrap().trim();
    admin.batch_execute(revoke).await.unwrap_or_else(|error| panic!("{revoke}: {}", message(&error)));
    cluster.apply_sql("granted").unwrap();
}

/// Nor does it matter what such a role looks like: who made it may be in it, know its password, have a session or a function
/// that acts as it.
#[tokio::test]
async fn a_role_that_others_made_is_refused() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.connect("postgres").await.unwrap();
    cluster.apply_sql("postgres").unwrap();
    admin
        .batch_execute("CREATE ROLE waits; CREATE SCHEMA theirs; GRANT ALL ON SCHEMA theirs TO PUBLIC")
        .await
        .unwrap();
    for made in [
        "CREATE ROLE pgmask_recoverer",
        "CREATE ROLE pgmask_recoverer ROLE waits",
        "CREATE ROLE pgmask_recoverer PASSWORD 'known'",
        "CREATE ROLE pgmask_recoverer; ALTER ROLE pgmask_recoverer SET search_path = waits",
        "CREATE ROLE pgmask_recoverer; SET ROLE pgmask_recoverer;
         CREATE FUNCTION theirs.reads() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; RESET ROLE",
        "CREATE ROLE service ROLE waits; ALTER ROLE service SET log_parameter_max_length = 0; ALTER ROLE service RENAME TO pgmask_recoverer",
        // Another one of ours, by somebody who may rename it, and a setting that anybody may give.
        "ALTER ROLE pgmask_operator RENAME TO pgmask_recoverer",
        "CREATE ROLE pgmask_recoverer; ALTER ROLE pgmask_recoverer SET application_name = 'pgmask_recoverer'",
    ] {
        admin
            .batch_execute(&format!("DROP OWNED BY pgmask_recoverer; DROP ROLE pgmask_recoverer; {made}"))
            .await
            .unwrap();
        let refused = cluster.apply_sql("postgres").unwrap_err().to_string();
        let expected = "role pgmask_recoverer is there already, and this file did not make it";
        assert!(refused.contains(expected), "{made}: {refused}");
        // Nor does it get rights in a database where the first file's error was overlooked.
        let refused = cluster.apply_file("postgres", "02_rights.sql").unwrap_err().to_string();
        let expected = "that sql/00_roles.sql made";
        assert!(refused.contains(expected), "{made}: {refused}");
        admin.batch_execute("DROP OWNED BY pgmask_recoverer; DROP ROLE pgmask_recoverer").await.unwrap();
        cluster.apply_sql("postgres").unwrap();
    }
}

/// A client may go on after an error, as psql does unless it is told not to: then nothing of a file may count that refuses,
/// nor of those after it that build on it.
#[tokio::test]
async fn nothing_counts_of_a_file_that_refuses() {
    const FILES: [&str; 6] = [
        "00_roles.sql",
        "01_user_logins.sql",
        "02_rights.sql",
        "03_analyst_views.sql",
        "04_networks.sql",
        "05_dashboards.sql",
    ];
    let rights = "SELECT count(*) FROM pg_proc AS p, aclexplode(p.proacl) AS a
        WHERE p.pronamespace = to_regnamespace('pgmask') AND a.grantee::regrole::text LIKE 'pgmask\\_%'";
    let reads = "SELECT count(*) FROM pg_class AS c, aclexplode(c.relacl) AS a
        WHERE c.oid = to_regclass('public.user_logins') AND a.grantee::regrole::text LIKE 'pgmask\\_%'";
    let superuser = "SELECT count(*) FROM pg_roles WHERE rolname = 'eve' AND rolsuper";
    // psql may also go back to before the statement that fails, and go on from there.
    for (name, made, on_error_rollback) in [
        ("role", "CREATE ROLE pgmask_recoverer ROLE eve"),
        (
            "table",
            "GRANT CREATE ON SCHEMA public TO eve; SET ROLE eve; CREATE TABLE user_logins (user_id text); RESET ROLE",
        ),
        (
            "schema",
            "ALTER DATABASE stops_schema OWNER TO eve; SET ROLE eve; CREATE SCHEMA logins;
             CREATE FUNCTION logins.refresh_dashboards() RETURNS text LANGUAGE plpgsql AS $$ BEGIN
                 ALTER ROLE eve SUPERUSER; RETURN ''; END $$;
             CREATE VIEW logins.shared_ips AS SELECT 1; RESET ROLE",
        ),
        (
            "names",
            "GRANT CREATE ON DATABASE stops_names TO eve; SET ROLE eve; CREATE SCHEMA pgmask; GRANT USAGE ON SCHEMA pgmask TO PUBLIC;
             CREATE TABLE pgmask.quarantine (id bigint, message_id text, sent_at text, receive_count int, reason text, quarantined_at text);
             CREATE FUNCTION pgmask.current_mask(text, text DEFAULT '') RETURNS text LANGUAGE sql AS 'SELECT $1';
             CREATE FUNCTION pgmask.app_version_text(integer) RETURNS text LANGUAGE sql AS 'SELECT $1::text';
             CREATE FUNCTION pgmask.refresh_dashboards() RETURNS interval LANGUAGE plpgsql AS $$ BEGIN
                 ALTER ROLE eve SUPERUSER; RETURN '0'; END $$; RESET ROLE",
        ),
    ]
    .into_iter()
    .flat_map(|(name, made)| [(name, made, "off"), (name, made, "on")])
    {
        let cluster = Cluster::start(&[]).await.unwrap();
        let database = format!("stops_{name}");
        let admin = cluster.connect("postgres").await.unwrap();
        admin.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
        let admin = cluster.connect(&database).await.unwrap();
        admin.batch_execute("CREATE ROLE eve").await.unwrap();
        admin.batch_execute(made).await.unwrap();
        for file in FILES {
            let mut psql = cluster.command("psql");
            psql.arg(format!("--set=ON_ERROR_ROLLBACK={on_error_rollback}"));
            psql.args(["--no-psqlrc", "--quiet", "--dbname", &cluster.url("postgres", &database)]);
            psql.stdin(std::fs::File::open(testbed::root().join("sql").join(file)).unwrap());
            output(&mut psql).unwrap(); // psql's status says nothing of it
        }
        assert_eq!(count(&admin, superuser).await, 0, "{name}");
        assert_eq!(count(&admin, reads).await, if name == "schema" { 2 } else { 0 }, "{name}");
        if name == "role" {
            assert_eq!(count(&admin, rights).await, 0);
        }
        if name == "names" {
            assert_eq!(count(&admin, "SELECT count(*) FROM pg_namespace WHERE nspname = 'logins'").await, 0);
        }
        if name == "schema" {
            let left = "SELECT count(*) FROM pg_class WHERE relnamespace = 'logins'::regnamespace AND relowner = 'postgres'::regrole";
            assert_eq!(count(&admin, left).await, 0);
        }
    }
}

/// The mark goes with the roles, to another server.
#[tokio::test]
async fn roles_that_a_dump_brings_are_known() {
    let (from, into) = (Cluster::start(&[]).await.unwrap(), Cluster::start(&[]).await.unwrap());
    from.apply_sql("postgres").unwrap();
    let mut dump = from.command("pg_dumpall");
    dump.args(["--roles-only", "--no-role-passwords", "--dbname", &from.url("postgres", "postgres")]);
    let roles = output(&mut dump).unwrap();
    let roles: String = roles.split_inclusive('\n').filter(|line| !line.contains("ROLE postgres")).collect();
    let restored = into.connect("postgres").await.unwrap();
    restored.batch_execute(&without_commands_of_psql(&roles)).await.unwrap();
    into.apply_sql("postgres").unwrap();
}

/// Newer versions of pg_dumpall put what they write between two commands that only psql knows.
fn without_commands_of_psql(dump: &str) -> String {
    dump.split_inclusive('\n').filter(|line| !line.starts_with('\\')).collect()
}

#[tokio::test]
async fn every_function_has_a_comment_and_public_has_no_right() {
    let client = cluster().await.database("files_comments").await.unwrap();
    let members = "FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass
        JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
        WHERE e.extname = 'pg_mask'";
    assert!(count(&client, &format!("SELECT count(*) {members}")).await >= 8);
    let silent = format!("SELECT count(*) {members} AND obj_description(p.oid, 'pg_proc') IS NULL");
    assert_eq!(count(&client, &silent).await, 0);
    let public = format!("SELECT count(*) {members} AND has_function_privilege('public', p.oid, 'EXECUTE')");
    assert_eq!(count(&client, &public).await, 0);
}
