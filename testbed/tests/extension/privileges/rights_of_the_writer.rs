//! What `pgmask_writer` may do beside inserting logins: a batch is refused where that is more than a role of its kind has, and what it was
//! given for one table is of no use to code of another.

use super::{INGEST, is_refused};
use crate::common::{count, message, texts};
use testbed::cluster::Cluster;

/// Who owns the login table's schema may put another table in its place. Its code wrote into the one before, as `pgmask_writer`, which may
/// insert there for pg_mask's sake.
#[tokio::test]
async fn what_the_writer_was_given_for_one_table_is_not_for_code_of_another() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("in_its_place").await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE olga LOGIN; ALTER DATABASE in_its_place OWNER TO olga;
             CREATE SCHEMA beside; GRANT USAGE ON SCHEMA beside TO PUBLIC; CREATE TABLE beside.open (n int); GRANT ALL ON beside.open TO PUBLIC;
             CREATE TABLE beside.closed (n int); GRANT ALL ON beside.closed TO pgmask_writer; INSERT INTO beside.closed VALUES (1)",
        )
        .await
        .unwrap();
    let olga = cluster.connect_as("olga", "in_its_place").await.unwrap();
    olga.batch_execute(
        "ALTER SCHEMA public RENAME TO genuine; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public, genuine TO PUBLIC;
         CREATE TABLE public.user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256), masked_device_id varchar(256),
             locale varchar(32), app_version integer, create_date date);
         GRANT INSERT ON public.user_logins TO pgmask_writer; CREATE TABLE public.seen (statement text, error text); GRANT INSERT ON public.seen TO pgmask_writer;
         CREATE FUNCTION public.writes() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$ DECLARE statement text; BEGIN
             FOREACH statement IN ARRAY ARRAY['INSERT INTO genuine.user_logins (user_id) VALUES (''forged'')',
                 'INSERT INTO genuine.user_logins (user_id) SELECT user_id FROM genuine.user_logins',
                 'INSERT INTO beside.open VALUES (1)', 'SELECT count(*) FROM beside.open', 'INSERT INTO beside.closed VALUES (1)',
                 'DELETE FROM beside.closed', 'SELECT count(*) FROM beside.closed'] LOOP
                 BEGIN
                     EXECUTE statement;
                     INSERT INTO public.seen VALUES (statement, 'done');
                 EXCEPTION WHEN OTHERS THEN INSERT INTO public.seen VALUES (statement, SQLSTATE || ' ' || SQLERRM); END;
             END LOOP;
             RETURN NEW; END $$;
         CREATE TRIGGER writes BEFORE INSERT ON public.user_logins FOR EACH ROW EXECUTE FUNCTION public.writes()",
    )
    .await
    .unwrap();
    let ingest = "SELECT pgmask.ingest_login('{\"user_id\": 1}')";
    let seen = "SELECT error FROM public.seen WHERE statement LIKE ";
    admin.batch_execute(ingest).await.unwrap();
    assert_eq!(count(&admin, "SELECT count(*) FROM public.user_logins").await, 1);
    assert_eq!(count(&admin, "SELECT count(*) FROM genuine.user_logins").await, 0);
    assert_eq!(count(&admin, "SELECT count(*) FROM beside.closed").await, 1);
    assert_eq!(texts(&admin, &format!("{seen} '%open%'")).await, ["done", "done"]);
    let refused = texts(&admin, &format!("{seen} '%beside.closed%'")).await;
    let said = "42501 code of table user_logins may not use closed as pgmask_writer does, as the owner of user_logins may not";
    assert_eq!(refused, [said; 3]);
    // What its owner may do, too, was meant for its code.
    olga.batch_execute("TRUNCATE public.seen").await.unwrap();
    admin.batch_execute("GRANT ALL ON beside.closed TO olga").await.unwrap();
    admin.batch_execute(ingest).await.unwrap();
    assert_eq!(texts(&admin, &format!("{seen} '%beside.closed%'")).await, ["done"; 3]);
    // Nor is it for who owns a partition of a superuser's table.
    admin
        .batch_execute(
            "DROP TABLE public.user_logins; CREATE TABLE public.user_logins (LIKE genuine.user_logins) PARTITION BY LIST (user_id);
             CREATE TABLE public.part PARTITION OF public.user_logins DEFAULT; GRANT INSERT ON public.user_logins TO pgmask_writer;
             CREATE TRIGGER writes BEFORE INSERT ON public.part FOR EACH ROW EXECUTE FUNCTION public.writes()",
        )
        .await
        .unwrap();
    for (owner, forged) in [("olga", 0), ("postgres", 1)] {
        admin.batch_execute(&format!("ALTER TABLE public.part OWNER TO {owner}")).await.unwrap();
        admin.batch_execute(ingest).await.unwrap();
        assert_eq!(count(&admin, "SELECT count(*) FROM genuine.user_logins").await, forged, "{owner}");
    }
}

/// A batch is refused if the role could do more than insert.
#[tokio::test]
async fn the_writer_has_no_right_worth_taking() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("writers_rights").await.unwrap();
    admin.batch_execute(INGEST).await.unwrap();
    for (give, take, saying) in [
        (
            "ALTER ROLE pgmask_writer SUPERUSER",
            "ALTER ROLE pgmask_writer NOSUPERUSER",
            "has the attribute SUPERUSER",
        ),
        ("ALTER ROLE pgmask_writer LOGIN", "ALTER ROLE pgmask_writer NOLOGIN", "has the attribute LOGIN"),
        (
            "ALTER ROLE pgmask_writer CREATEROLE",
            "ALTER ROLE pgmask_writer NOCREATEROLE",
            "has the attribute CREATEROLE",
        ),
        (
            "ALTER ROLE pgmask_writer CREATEDB",
            "ALTER ROLE pgmask_writer NOCREATEDB",
            "has the attribute CREATEDB",
        ),
        (
            "ALTER ROLE pgmask_writer REPLICATION",
            "ALTER ROLE pgmask_writer NOREPLICATION",
            "has the attribute REPLICATION",
        ),
        (
            "ALTER ROLE pgmask_writer BYPASSRLS",
            "ALTER ROLE pgmask_writer NOBYPASSRLS",
            "has the attribute BYPASSRLS",
        ),
        ("CREATE TABLE its (); ALTER TABLE its OWNER TO pgmask_writer", "DROP TABLE its", "owns something"),
        (
            "ALTER TABLE user_logins OWNER TO pgmask_writer",
            "ALTER TABLE user_logins OWNER TO postgres; GRANT INSERT ON user_logins TO pgmask_writer",
            "owns something",
        ),
        (
            "GRANT pg_read_all_data TO pgmask_writer",
            "REVOKE pg_read_all_data FROM pgmask_writer",
            "is a member of pg_read_all_data",
        ),
        (
            "GRANT pgmask_analyst TO pgmask_writer",
            "REVOKE pgmask_analyst FROM pgmask_writer",
            "is a member of pgmask_analyst",
        ),
        (
            "CREATE ROLE between; GRANT between TO pgmask_writer; GRANT postgres TO between",
            "DROP ROLE between",
            "is a member of postgres",
        ),
    ] {
        admin.batch_execute(give).await.unwrap();
        let refused = message(&admin.batch_execute(&INGEST.replace("{a}", "{b}")).await.expect_err(give));
        let expected =
            format!("42501 role pgmask_writer, which inserts logins, could do more than that: it {saying}");
        assert!(refused.starts_with(&expected), "{give}: {refused}");
        is_refused(&admin, "SELECT pgmask.ingest_login('{\"user_id\": 1}')").await;
        is_refused(&admin, "SELECT pgmask.replay_quarantine()").await;
        is_refused(&admin, "SELECT pgmask.ingest_login_batch('{}', '{}', '{}', '{}')").await;
        admin.batch_execute(take).await.unwrap();
        admin.batch_execute("SELECT pgmask.ingest_login_batch('{}', '{}', '{}', '{}')").await.unwrap();
    }
    // A role of the DBA's own may give it what its triggers need.
    admin.batch_execute("CREATE ROLE own; GRANT own TO pgmask_writer").await.unwrap();
    admin.batch_execute(&INGEST.replace("{a}", "{b}")).await.unwrap();
    assert_eq!(count(&admin, "SELECT count(*) FROM user_logins").await, 2);
    admin.batch_execute("DROP OWNED BY pgmask_writer; DROP ROLE pgmask_writer").await.unwrap();
    let refused = message(&admin.batch_execute(INGEST).await.unwrap_err());
    assert!(
        refused.starts_with("42704 role pgmask_writer, which inserts logins, does not exist Apply sql/00"),
        "{refused}"
    );
}
