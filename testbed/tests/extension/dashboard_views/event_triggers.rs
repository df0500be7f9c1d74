//! Event triggers are a superuser's. Those that a refresh fires run beside code of the login table, and have nothing of it.

use crate::common::{count, texts};
use testbed::cluster::Cluster;
use tokio_postgres::Client;

/// Event triggers of a superuser's are no code of the login table: where they name things without schemas, that code had had them compiled
/// for itself, and then they ran as whoever refreshed, a superuser by way of logins.refresh_dashboards().
#[tokio::test]
async fn event_triggers_in_a_refresh_are_not_the_tables_owners() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("event_triggers").await.unwrap();
    cluster.apply_file("event_triggers", "05_dashboards.sql").unwrap();
    admin
        .batch_execute(
            "CREATE ROLE oper LOGIN IN ROLE pgmask_operator; CREATE ROLE own LOGIN; CREATE SCHEMA app AUTHORIZATION own;
             GRANT USAGE ON SCHEMA app TO PUBLIC; ALTER TABLE user_logins OWNER TO own;
             CREATE SCHEMA audit; GRANT USAGE ON SCHEMA audit TO PUBLIC; CREATE TABLE audit.log (who text, tag text); GRANT INSERT ON audit.log TO PUBLIC;
             CREATE FUNCTION audit.helps(tag pg_catalog.text) RETURNS pg_catalog.text LANGUAGE plpgsql AS $$ DECLARE lower text := lower(tag); BEGIN RETURN lower; END $$;
             CREATE FUNCTION audit.logs() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE tag text := tg_tag; BEGIN
                 INSERT INTO audit.log VALUES (current_user, audit.helps(tag)); END $$;
             CREATE EVENT TRIGGER logs ON ddl_command_end EXECUTE FUNCTION audit.logs()",
        )
        .await
        .unwrap();
    let own = cluster.connect_as("own", "event_triggers").await.unwrap();
    own.batch_execute(
        "CREATE TABLE app.z (a integer); CREATE TABLE app.ran (who text, up_to text); GRANT INSERT ON app.ran TO PUBLIC;
         CREATE FUNCTION app.at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             UPDATE app.ran SET up_to = current_user; RETURN NULL; END $$;
         GRANT SELECT, UPDATE ON app.ran TO PUBLIC;
         CREATE CONSTRAINT TRIGGER later AFTER INSERT ON app.ran DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION app.at_commit();
         CREATE FUNCTION app.sees(pg_catalog.text) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN
             IF current_user <> 'own' THEN INSERT INTO app.ran VALUES (current_user); END IF; RETURN true; END $$;
         CREATE DOMAIN app.text AS pg_catalog.text CHECK (app.sees(VALUE));
         CREATE FUNCTION app.runs_a_command() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
             PERFORM pg_catalog.set_config('search_path', 'app, pg_catalog', true); COMMENT ON TABLE app.z IS 'x'; RETURN true; END $$;
         CREATE FUNCTION app.passes() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
             PERFORM pg_catalog.set_config('search_path', 'app, pg_catalog', false);
             RETURN current_user <> 'pgmask_refresher' OR app.runs_a_command(); END $$;
         INSERT INTO public.user_logins (user_id, create_date) VALUES ('u', '2026-11-28');
         ALTER TABLE public.user_logins ENABLE ROW LEVEL SECURITY; CREATE POLICY s ON public.user_logins FOR SELECT USING (app.passes())",
    )
    .await
    .unwrap();
    let refreshes = [
        ("oper", "SELECT logins.refresh_dashboards()"),
        ("postgres", "SELECT logins.refresh_dashboards()"),
        ("postgres", "REFRESH MATERIALIZED VIEW CONCURRENTLY logins.stored_logins_by_day"),
        ("postgres", "REFRESH MATERIALIZED VIEW logins.stored_logins_by_day"),
    ];
    for (role, refresh) in refreshes {
        let session = cluster.connect_as(role, "event_triggers").await.unwrap();
        session.batch_execute("SELECT pgmask.mask_generation('m1_0')").await.unwrap_or_default();
        session.batch_execute(refresh).await.unwrap_or_else(|error| panic!("{role}: {refresh}: {error:?}"));
        assert_eq!(texts(&admin, "SELECT who FROM app.ran").await, [""; 0], "{role}: {refresh}");
    }
    let who = "SELECT DISTINCT who FROM audit.log WHERE tag = 'refresh materialized view'";
    assert_eq!(texts(&admin, who).await, ["pgmask_refresher"]);
    let commented = "SELECT count(*) FROM audit.log WHERE tag = 'comment' AND who = 'own'";
    assert!(count(&admin, commented).await >= 4, "it ran");
}

/// A concurrent refresh notes in a table of its own which rows have to change. What an event trigger put into that table came into the dashboard.
#[tokio::test]
async fn event_triggers_in_a_refresh_change_nothing_of_what_is_stored() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("stored_rows").await.unwrap();
    cluster.apply_file("stored_rows", "05_dashboards.sql").unwrap();
    admin
        .batch_execute(
            "CREATE SCHEMA audit; GRANT USAGE ON SCHEMA audit TO PUBLIC;
             CREATE TABLE audit.log (kind text, command text, error text); GRANT INSERT ON audit.log TO PUBLIC;
             CREATE FUNCTION audit.changes() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE place text; kind text; command text; BEGIN
                 FOR place, kind IN SELECT format('%I.%I', n.nspname, c.relname), CASE WHEN c.relname LIKE '%\\_2' THEN 'changes' ELSE 'content' END
                     FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname LIKE 'pg\\_temp\\_%' AND c.relkind = 'r'
                     UNION ALL SELECT 'pg_temp.none', tg_tag
                 LOOP
                     FOREACH command IN ARRAY ARRAY['CREATE TEMPORARY TABLE left_behind (of text DEFAULT ''%s'')', 'INSERT INTO %s DEFAULT VALUES', 'DELETE FROM %s', 'TRUNCATE %s', 'ALTER TABLE %s ADD more integer',
                         'DROP TABLE %s', 'COPY %s FROM PROGRAM ''true'''] LOOP
                         BEGIN
                             EXECUTE format(command, place);
                             INSERT INTO audit.log VALUES (kind, command);
                         EXCEPTION WHEN OTHERS THEN INSERT INTO audit.log VALUES (kind, command, SQLERRM); END;
                     END LOOP;
                 END LOOP; END $$;
             CREATE EVENT TRIGGER starts ON ddl_command_start EXECUTE FUNCTION audit.changes();
             CREATE EVENT TRIGGER ends ON ddl_command_end EXECUTE FUNCTION audit.changes();
             CREATE EVENT TRIGGER drops ON sql_drop EXECUTE FUNCTION audit.changes();
             INSERT INTO user_logins (user_id, create_date) VALUES ('u', '2026-11-27')",
        )
        .await
        .unwrap();
    let stored = "SELECT logins::text FROM logins.stored_logins_by_day ORDER BY day";
    let (refreshed, in_the_midst) = ("REFRESH MATERIALIZED VIEW", &["changes", "content"][..]);
    for (refresh, kinds) in [
        ("SELECT logins.refresh_dashboards()", in_the_midst),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY logins.stored_logins_by_day", in_the_midst),
        ("REFRESH MATERIALIZED VIEW logins.stored_logins_by_day", &[][..]),
    ] {
        let another = "INSERT INTO user_logins (user_id, create_date) VALUES ('v', '2026-11-28')";
        admin.batch_execute(&format!("TRUNCATE audit.log; {another}")).await.unwrap();
        admin.batch_execute(refresh).await.unwrap();
        let done = "SELECT DISTINCT kind || ': ' || command FROM audit.log WHERE error IS NULL";
        assert_eq!(texts(&admin, done).await, [""; 0], "{refresh}");
        let tried = "SELECT DISTINCT kind FROM audit.log WHERE error LIKE 'code of a table writes into table pg_temp_%' ORDER BY 1";
        assert_eq!(texts(&admin, tried).await, kinds, "{refresh}");
        // Nor at its end, when nothing of PostgreSQL's own comes any more.
        let at_its_end = format!(
            "SELECT DISTINCT error FROM audit.log WHERE kind = '{refreshed}' AND command LIKE 'CREATE%'"
        );
        let refused = "code of the table runs CREATE TABLE, which role pgmask_refresher may not";
        assert_eq!(texts(&admin, &at_its_end).await, [refused], "{refresh}");
    }
    assert_eq!(texts(&admin, stored).await, ["1", "3"]);
}

/// Until 17 PostgreSQL keeps what a function in SQL means with its look-up, and that of a range type or an operator class for the
/// session, of a cast or a domain's check for the transaction: code of the login table had decided on it, and event triggers of the same refresh used that.
#[tokio::test]
async fn event_triggers_in_a_refresh_use_no_look_up_of_code_of_the_table() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("looked_up").await.unwrap();
    cluster.apply_file("looked_up", "05_dashboards.sql").unwrap();
    by_length(&admin).await;
    admin
        .batch_execute(
            "CREATE ROLE oper LOGIN IN ROLE pgmask_operator; CREATE ROLE own LOGIN; CREATE SCHEMA app AUTHORIZATION own;
             GRANT USAGE ON SCHEMA app TO PUBLIC; ALTER TABLE user_logins OWNER TO own;
             CREATE TABLE audit.log (who text, tag text); GRANT INSERT ON audit.log TO PUBLIC;
             CREATE FUNCTION audit.fits(tag text) RETURNS bool LANGUAGE sql AS 'SELECT length(tag) < 200';
             CREATE DOMAIN audit.tag AS text CHECK (audit.fits(VALUE));
             CREATE FUNCTION audit.logs() RETURNS event_trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
             DECLARE tag audit.tag := tg_tag; BEGIN
                 PERFORM audit.tags('a', 'b', '[]'); INSERT INTO audit.log VALUES (current_user, tg_tag); END $$;
             CREATE EVENT TRIGGER logs ON ddl_command_end EXECUTE FUNCTION audit.logs();
             INSERT INTO public.user_logins (user_id, create_date) VALUES ('u', '2026-11-28')",
        )
        .await
        .unwrap();
    // It may be used as often as a refresh fires it.
    let oper = cluster.connect_as("oper", "looked_up").await.unwrap();
    oper.batch_execute("SET quote_all_identifiers = on").await.unwrap(); // REFRESH ... CONCURRENTLY by itself fails with that
    for _ in 0..2 {
        oper.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap();
    }
    assert!(count(&admin, "SELECT count(*) FROM audit.log WHERE who = 'pgmask_refresher'").await > 0);

    let own = cluster.connect_as("own", "looked_up").await.unwrap();
    own.batch_execute(
        "CREATE TABLE app.ran (who pg_catalog.text, up_to pg_catalog.text); GRANT INSERT, SELECT, UPDATE ON app.ran TO PUBLIC;
         CREATE FUNCTION app.at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             UPDATE app.ran SET up_to = current_user; RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER later AFTER INSERT ON app.ran DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION app.at_commit();
         CREATE FUNCTION app.length(pg_catalog.text) RETURNS pg_catalog.int4 LANGUAGE plpgsql AS $$ BEGIN
             IF pg_catalog.current_setting('search_path') = 'pg_catalog, pg_temp' THEN INSERT INTO app.ran VALUES (current_user);
             ELSE INSERT INTO app.decided VALUES ($1); END IF; RETURN 1; END $$;
         CREATE TABLE app.decided (of pg_catalog.text); GRANT INSERT ON app.decided TO PUBLIC;
         CREATE FUNCTION app.passes() RETURNS pg_catalog.bool LANGUAGE plpgsql AS $$ DECLARE x pg_catalog.text := 'cast'; BEGIN
             IF current_user = 'pgmask_refresher' THEN
                 PERFORM pg_catalog.set_config('search_path', 'app, pg_catalog', true);
                 PERFORM audit.tags('range', 'range', '[]');
                 DECLARE t audit.tag := x; BEGIN NULL; END;
             END IF;
             RETURN true; END $$;
         ALTER TABLE public.user_logins ENABLE ROW LEVEL SECURITY; CREATE POLICY s ON public.user_logins FOR SELECT USING (app.passes())",
    )
    .await
    .unwrap();
    for role in ["oper", "postgres"] {
        let session = cluster.connect_as(role, "looked_up").await.unwrap();
        session.batch_execute("SELECT pgmask.mask_generation('m1_0')").await.unwrap_or_default();
        for _ in 0..2 {
            session.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap();
        }
        assert_eq!(texts(&admin, "SELECT who FROM app.ran").await, [""; 0], "{role}");
    }
    let decided = texts(&admin, "SELECT DISTINCT of FROM app.decided ORDER BY 1").await;
    assert_eq!(decided, ["cast", "range"], "that code decides for itself alone");
}

/// PostgreSQL keeps the predicate of an index with the values of its functions in place, which code of the login table had decided on, for any
/// table that it named: rows that an event trigger wrote were missing in the index for good.
#[tokio::test]
async fn event_triggers_in_a_refresh_use_no_index_as_code_of_the_table_has_read_it() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("folded").await.unwrap();
    cluster.apply_file("folded", "05_dashboards.sql").unwrap();
    admin
        .batch_execute(
            "CREATE ROLE oper LOGIN IN ROLE pgmask_operator; CREATE ROLE own LOGIN; CREATE SCHEMA app AUTHORIZATION own;
             GRANT USAGE ON SCHEMA app TO PUBLIC; ALTER TABLE user_logins OWNER TO own;
             CREATE SCHEMA audit; GRANT USAGE ON SCHEMA audit TO PUBLIC; CREATE TABLE audit.log (n bigserial, tag text);
             CREATE FUNCTION audit.quiet() RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT replace('nothing_', '_', '') $$;
             CREATE INDEX loud ON audit.log (n) WHERE tag <> audit.quiet();
             CREATE FUNCTION audit.logs() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN
                 INSERT INTO audit.log (tag) VALUES (tg_tag); END $$;
             CREATE EVENT TRIGGER logs ON ddl_command_end EXECUTE FUNCTION audit.logs()",
        )
        .await
        .unwrap();
    let own = cluster.connect_as("own", "folded").await.unwrap();
    own.batch_execute(
        "CREATE FUNCTION app.replace(pg_catalog.text, pg_catalog.text, pg_catalog.text) RETURNS pg_catalog.text IMMUTABLE LANGUAGE sql
             AS $$ SELECT 'CREATE TABLE'::pg_catalog.text $$;
         CREATE FUNCTION app.passes() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
             IF current_user = 'pgmask_refresher' THEN
                 PERFORM pg_catalog.set_config('search_path', 'app, pg_catalog', true);
                 BEGIN PERFORM FROM audit.log WHERE n OPERATOR(pg_catalog.=) 1; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
             END IF;
             RETURN true; END $$;
         INSERT INTO public.user_logins (user_id, create_date) VALUES ('u', '2026-11-28');
         ALTER TABLE public.user_logins ENABLE ROW LEVEL SECURITY; CREATE POLICY s ON public.user_logins FOR SELECT USING (app.passes())",
    )
    .await
    .unwrap();
    let oper = cluster.connect_as("oper", "folded").await.unwrap();
    for _ in 0..2 {
        oper.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap();
    }
    let made = "SELECT count(*) FROM audit.log WHERE tag = 'CREATE TABLE' AND tag <> audit.quiet()";
    let by = |reads: &str| {
        format!("SET enable_seqscan = {reads}; SET enable_bitmapscan = off; SET enable_indexscan = on")
    };
    admin.batch_execute(&by("on")).await.unwrap();
    let all = count(&admin, made).await;
    admin.batch_execute(&by("off")).await.unwrap();
    assert_eq!(count(&admin, &format!("{made} AND n > 0")).await, all);
    assert!(all > 2, "{all}");
}

/// What an event trigger does before a dashboard gets its new content, maintenance of its own say, was taken for code of the login table, and
/// used what that had compiled as another dashboard was refreshed in the same call.
#[tokio::test]
async fn maintenance_by_event_triggers_in_a_refresh_is_not_the_tables_owners() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("maintains").await.unwrap();
    cluster.apply_file("maintains", "05_dashboards.sql").unwrap();
    admin
        .batch_execute(
            "CREATE ROLE oper LOGIN IN ROLE pgmask_operator; CREATE ROLE own LOGIN; CREATE SCHEMA app AUTHORIZATION own;
             GRANT USAGE ON SCHEMA app TO PUBLIC; ALTER TABLE user_logins OWNER TO own;
             CREATE SCHEMA audit; GRANT USAGE ON SCHEMA audit TO PUBLIC; CREATE SEQUENCE audit.commands;
             CREATE FUNCTION audit.label(v text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ DECLARE t text := upper(v); BEGIN RETURN t; END $$;
             CREATE TABLE audit.things (name text); INSERT INTO audit.things VALUES ('a'); CREATE INDEX ON audit.things (audit.label(name));
             CREATE FUNCTION audit.before() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN
                 IF nextval('audit.commands') > 1 THEN ANALYZE audit.things; END IF; END $$;
             CREATE EVENT TRIGGER before ON ddl_command_start WHEN TAG IN ('REFRESH MATERIALIZED VIEW') EXECUTE FUNCTION audit.before()",
        )
        .await
        .unwrap();
    let own = cluster.connect_as("own", "maintains").await.unwrap();
    own.batch_execute(
        "CREATE TABLE app.ran (who pg_catalog.text); GRANT ALL ON app.ran TO PUBLIC;
         CREATE FUNCTION app.looks() RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN
             INSERT INTO app.ran VALUES (current_user); RETURN true; END $$;
         CREATE DOMAIN app.text AS pg_catalog.text CHECK (app.looks());
         CREATE FUNCTION app.passes() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
             IF current_user = 'pgmask_refresher' THEN
                 PERFORM pg_catalog.set_config('search_path', 'app, pg_catalog', true); PERFORM audit.label('x');
             END IF;
             RETURN true; END $$;
         INSERT INTO public.user_logins (user_id, create_date) VALUES ('u', '2026-11-28');
         ALTER TABLE public.user_logins ENABLE ROW LEVEL SECURITY; CREATE POLICY s ON public.user_logins FOR SELECT USING (app.passes())",
    )
    .await
    .unwrap();
    let oper = cluster.connect_as("oper", "maintains").await.unwrap();
    oper.batch_execute("SELECT logins.refresh_dashboards()").await.unwrap();
    assert!(count(&admin, "SELECT last_value FROM audit.commands").await > 2, "it maintains");
    assert_eq!(texts(&admin, "SELECT DISTINCT who FROM app.ran").await, ["pgmask_refresher"]);
}

/// A range type of a superuser's, whose bounds are compared by functions in SQL that set no search path.
async fn by_length(admin: &Client) {
    let mut sql = "CREATE SCHEMA audit; GRANT USAGE ON SCHEMA audit TO PUBLIC;
        CREATE FUNCTION audit.diff(a text, b text) RETURNS int LANGUAGE sql AS 'SELECT length(a) - length(b)';"
        .to_owned();
    let operators = [("lt", "<"), ("le", "<="), ("eq", "="), ("ge", ">="), ("gt", ">")];
    for (name, operator) in operators {
        sql += &format!(
            "CREATE FUNCTION audit.{name}(a text, b text) RETURNS bool LANGUAGE sql AS 'SELECT audit.diff(a, b) {operator} 0';
             CREATE OPERATOR audit.{operator} (LEFTARG = text, RIGHTARG = text, FUNCTION = audit.{name});"
        );
    }
    let strategies: String = operators
        .iter()
        .zip(1..)
        .map(|((_, operator), number)| format!("OPERATOR {number} audit.{operator}, "))
        .collect();
    sql += &format!(
        "CREATE OPERATOR CLASS audit.by_length FOR TYPE text USING btree AS {strategies} FUNCTION 1 audit.diff(text, text);
         CREATE TYPE audit.tags AS RANGE (SUBTYPE = text, SUBTYPE_OPCLASS = audit.by_length)"
    );
    admin.batch_execute(&sql).await.unwrap();
}
