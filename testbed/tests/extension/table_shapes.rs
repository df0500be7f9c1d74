//! The table that logins go to may be of any shape that a DBA gives it.

use crate::common::{cluster, ingest, message, texts, try_ingest};

/// Three logins. Which of them go in depends on the table.
const MESSAGES: [(&str, &str); 3] = [
    ("a", r#"{"user_id":"1","device_type":"ios","ip":"192.0.2.1","app_version":"1.2.3","locale":"DE"}"#),
    ("b", r#"{"user_id":"2","device_type":"bad","ip":"192.0.2.1","app_version":"2.0"}"#),
    ("c", r#"{"user_id":"2","device_type":"ios","device_id":"d"}"#),
];

/// What the DBA does, a query of one text, what it has to give, and the reasons in the quarantine.
struct Shape {
    name: &'static str,
    ddl: &'static str,
    shows: (&'static str, &'static str),
    reasons: &'static [&'static str],
}

const SHAPES: &[Shape] = &[
    Shape {
        name: "columns_of_its_own",
        ddl: "ALTER TABLE user_logins ADD id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, ADD at timestamptz NOT NULL DEFAULT now(),
                  ADD note text, ADD \"Odd name\" text DEFAULT 'x', DROP COLUMN locale, ADD locale text",
        shows: ("SELECT count(DISTINCT id) || ' ' || count(at) || ' ' || max(\"Odd name\") || ' ' || max(locale) FROM user_logins", "3 3 x DE"),
        reasons: &[],
    },
    Shape {
        name: "primary_key",
        ddl: "ALTER TABLE user_logins ADD PRIMARY KEY (user_id)",
        shows: ("SELECT string_agg(user_id, ' ' ORDER BY user_id) FROM user_logins", "1 2"),
        reasons: &["rejected:23505"],
    },
    Shape {
        name: "not_null_without_default",
        ddl: "ALTER TABLE user_logins ADD tenant text NOT NULL",
        shows: ("SELECT count(*)::text FROM user_logins", "0"),
        reasons: &["rejected:23502", "rejected:23502", "rejected:23502"],
    },
    Shape {
        name: "checks",
        ddl: "ALTER TABLE user_logins ADD CHECK (device_type <> 'bad'), ADD CHECK (app_version IS NOT NULL)",
        shows: ("SELECT string_agg(user_id, ' ') FROM user_logins", "1"),
        reasons: &["rejected:23514", "rejected:23514"],
    },
    Shape {
        name: "foreign_key",
        ddl: "CREATE TABLE users (id varchar(128) PRIMARY KEY); INSERT INTO users VALUES ('1');
              ALTER TABLE user_logins ADD FOREIGN KEY (user_id) REFERENCES users",
        shows: ("SELECT string_agg(user_id, ' ') FROM user_logins", "1"),
        reasons: &["rejected:23503", "rejected:23503"],
    },
    Shape {
        name: "a_deferrable_key_from_another_schema",
        ddl: "ALTER TABLE user_logins ADD id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY; CREATE SCHEMA billing;
              CREATE TABLE billing.session (login bigint REFERENCES user_logins DEFERRABLE INITIALLY DEFERRED)",
        shows: ("SELECT string_agg(user_id, ' ' ORDER BY id) FROM user_logins", "1 2 2"),
        reasons: &[],
    },
    Shape {
        name: "a_deferrable_key_with_partitions_in_another_schema",
        ddl: "DROP TABLE user_logins CASCADE; CREATE SCHEMA parts;
              CREATE TABLE user_logins (user_id text, device_type text, masked_ip text, masked_device_id text, locale text, app_version int,
                  create_date date, UNIQUE (user_id, create_date, device_type, masked_ip) DEFERRABLE INITIALLY DEFERRED) PARTITION BY LIST (create_date);
              CREATE TABLE parts.all_days PARTITION OF user_logins DEFAULT; GRANT INSERT ON user_logins TO pgmask_writer",
        shows: ("SELECT string_agg(user_id, ' ' ORDER BY user_id) FROM user_logins", "1 2 2"),
        reasons: &[],
    },
    Shape {
        name: "partitions_by_inheritance",
        ddl: "CREATE TABLE logins_of_2026 () INHERITS (user_logins); GRANT INSERT ON logins_of_2026 TO pgmask_writer;
              CREATE FUNCTION route() RETURNS trigger LANGUAGE plpgsql AS
              $$ BEGIN INSERT INTO public.logins_of_2026 VALUES (NEW.*); RETURN NULL; END $$;
              CREATE TRIGGER route BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION route()",
        shows: ("SELECT string_agg(user_id, ' ' ORDER BY user_id) FROM logins_of_2026", "1 2 2"),
        reasons: &[],
    },
    Shape {
        name: "exclusion",
        ddl: "ALTER TABLE user_logins ADD EXCLUDE USING btree (user_id WITH =)",
        shows: ("SELECT count(*)::text FROM user_logins", "2"),
        reasons: &["rejected:23P01"],
    },
    Shape {
        name: "domains",
        ddl: "CREATE DOMAIN kind AS varchar(3) CHECK (VALUE IN ('ios', 'web')); ALTER TABLE user_logins ALTER device_type TYPE kind",
        shows: ("SELECT string_agg(user_id, ' ' ORDER BY user_id) FROM user_logins", "1 2"),
        reasons: &["rejected:23514"],
    },
    Shape {
        name: "smallint_version",
        ddl: "ALTER TABLE user_logins ALTER app_version TYPE smallint",
        shows: ("SELECT count(*)::text FROM user_logins", "1"),
        reasons: &["rejected:22003", "rejected:22003"],
    },
    Shape {
        name: "refusing_trigger",
        ddl: "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                  IF NEW.device_type = 'bad' THEN RAISE 'no'; END IF; NEW.locale := coalesce(NEW.locale, 'none'); RETURN NEW; END $$;
              CREATE TRIGGER refuse BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION refuse()",
        shows: ("SELECT string_agg(locale, ' ' ORDER BY user_id) FROM user_logins", "DE none"),
        reasons: &["rejected:P0001"],
    },
    Shape {
        name: "refusing_trigger_after",
        ddl: "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                  IF EXISTS (SELECT FROM fresh WHERE device_type = 'bad') THEN RAISE 'no'; END IF; RETURN NULL; END $$;
              CREATE TRIGGER refuse AFTER INSERT ON user_logins REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION refuse()",
        shows: ("SELECT count(*)::text FROM user_logins", "2"),
        reasons: &["rejected:P0001"],
    },
    Shape {
        name: "deferred_trigger",
        ddl: "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                  IF NEW.device_type = 'bad' THEN RAISE 'no'; END IF; RETURN NULL; END $$;
              CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON user_logins DEFERRABLE INITIALLY DEFERRED
                  FOR EACH ROW EXECUTE FUNCTION refuse()",
        shows: ("SELECT count(*)::text FROM user_logins", "2"),
        reasons: &["rejected:P0001"],
    },
    Shape {
        name: "routing_trigger",
        ddl: "CREATE TABLE elsewhere (LIKE user_logins); GRANT INSERT ON elsewhere TO pgmask_writer;
              CREATE FUNCTION route() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.elsewhere VALUES (NEW.*); RETURN NULL; END $$;
              CREATE TRIGGER route BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION route()",
        shows: ("SELECT count(*)::text FROM elsewhere", "3"),
        reasons: &[],
    },
    Shape {
        name: "rule",
        ddl: "CREATE TABLE elsewhere (user_id text); CREATE RULE also AS ON INSERT TO user_logins DO ALSO INSERT INTO public.elsewhere VALUES (NEW.user_id)",
        shows: ("SELECT string_agg(user_id, ' ' ORDER BY user_id) FROM elsewhere", "1 2 2"),
        reasons: &[],
    },
    Shape {
        name: "partitions",
        ddl: "ALTER TABLE user_logins RENAME TO old; CREATE TABLE user_logins (LIKE old, CHECK (device_type <> 'bad')) PARTITION BY LIST (user_id);
              GRANT INSERT ON user_logins TO pgmask_writer; CREATE TABLE one PARTITION OF user_logins FOR VALUES IN ('1')",
        shows: ("SELECT string_agg(tableoid::regclass::text, ' ') FROM user_logins", "one"),
        reasons: &["rejected:23514", "rejected:23514"],
    },
    Shape {
        name: "partitions_by_date",
        ddl: "ALTER TABLE user_logins RENAME TO old; CREATE TABLE user_logins (LIKE old) PARTITION BY RANGE (create_date);
              GRANT INSERT ON user_logins TO pgmask_writer;
              CREATE TABLE y2026 PARTITION OF user_logins FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY HASH (user_id);
              CREATE TABLE h0 PARTITION OF y2026 FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE h1 PARTITION OF y2026 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
              ALTER TABLE user_logins ADD UNIQUE (create_date, user_id) DEFERRABLE INITIALLY DEFERRED",
        shows: ("SELECT count(*)::text FROM user_logins", "2"),
        reasons: &["rejected:23505"],
    },
    Shape {
        name: "row_level_security",
        ddl: "DROP ROLE IF EXISTS owns_secured; CREATE ROLE owns_secured; ALTER TABLE user_logins OWNER TO owns_secured;
              ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON user_logins USING (false);
              CREATE POLICY writes ON user_logins FOR INSERT TO pgmask_writer WITH CHECK (true)",
        shows: ("SELECT count(*)::text FROM user_logins", "3"),
        reasons: &[],
    },
    Shape {
        name: "forced_row_level_security",
        ddl: "DROP ROLE IF EXISTS owns_forced; CREATE ROLE owns_forced; ALTER TABLE user_logins OWNER TO owns_forced;
              ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
              CREATE POLICY p ON user_logins WITH CHECK (device_type <> 'bad')",
        shows: ("SELECT count(*)::text FROM user_logins", "2"),
        reasons: &["rejected:42501"],
    },
    Shape {
        name: "serial",
        ddl: "ALTER TABLE user_logins ADD id serial; GRANT USAGE ON SEQUENCE user_logins_id_seq TO pgmask_writer",
        shows: ("SELECT count(DISTINCT id)::text FROM user_logins", "3"),
        reasons: &[],
    },
    Shape {
        name: "generated_column",
        ddl: "ALTER TABLE user_logins ADD version text GENERATED ALWAYS AS (public.app_version_text(app_version)) STORED;
              GRANT EXECUTE ON FUNCTION public.app_version_text(integer) TO pgmask_writer",
        shows: ("SELECT string_agg(version, ' ' ORDER BY version) FROM user_logins", "1.2.3 2.0.0"),
        reasons: &[],
    },
    Shape {
        name: "index_on_expression",
        ddl: "CREATE UNIQUE INDEX ON user_logins ((10 / nullif(length(user_id), 1)), user_id); CREATE INDEX ON user_logins ((1 / (app_version - 2000000)))",
        shows: ("SELECT count(*)::text FROM user_logins", "2"),
        reasons: &["rejected:22012"],
    },
    Shape {
        name: "too_wide_for_its_index",
        ddl: "CREATE FUNCTION wide(text) RETURNS text IMMUTABLE LANGUAGE sql AS
                  $$ SELECT string_agg(md5($1 || n), '') FROM generate_series(1, 200) n WHERE $1 IS NOT NULL $$;
              CREATE INDEX ON user_logins (wide(masked_device_id))",
        shows: ("SELECT count(*)::text FROM user_logins", "2"),
        reasons: &["rejected:54000"],
    },
    Shape {
        name: "inheritance",
        ddl: "ALTER TABLE user_logins RENAME TO parent; CREATE TABLE user_logins (CHECK (device_type <> 'bad')) INHERITS (parent);
              GRANT INSERT ON user_logins TO pgmask_writer",
        shows: ("SELECT count(*)::text FROM parent", "2"),
        reasons: &["rejected:23514"],
    },
];

#[tokio::test]
async fn every_shape_takes_what_it_takes_and_refuses_the_rest() {
    for shape in SHAPES {
        let client = cluster().await.database(&format!("shape_{}", shape.name)).await.unwrap();
        // Views would hold the columns' types.
        client.batch_execute("DROP SCHEMA logins CASCADE").await.unwrap();
        client.batch_execute(shape.ddl).await.unwrap_or_else(|error| panic!("{}: {error:?}", shape.name));
        let refused = shape.reasons.len() as i64;
        let counts = try_ingest(&client, &MESSAGES, "2026-11-20").await;
        let counts = counts.unwrap_or_else(|error| panic!("{}: {error:?}", shape.name));
        assert_eq!(counts, [3 - refused, 0, refused], "{}", shape.name);
        assert_eq!(texts(&client, shape.shows.0).await, [shape.shows.1], "{}", shape.name);
        let reasons = texts(&client, "SELECT reason FROM pgmask.quarantine ORDER BY reason").await;
        assert_eq!(reasons, shape.reasons, "{}", shape.name);
        assert_eq!(ingest(&client, &MESSAGES).await, [0, 3, 0], "{}", shape.name);
    }
}

/// A plan that a session had kept took an array of texts for one of integers, after the column had become an integer:
/// addresses of its memory were stored as versions.
#[tokio::test]
async fn a_column_may_change_its_type_under_a_session() {
    let client = cluster().await.database("changes_type").await.unwrap();
    let take_in = "SELECT pgmask.ingest_login('{\"user_id\": \"u\", \"app_version\": \"2.3.0\"}')";
    for (kind, stored) in
        [("integer", "2003000"), ("text", "2.3.0"), ("integer", "2003000"), ("varchar(9)", "2.3.0")]
    {
        client
            .batch_execute(&format!(
                "DROP SCHEMA IF EXISTS logins CASCADE; TRUNCATE user_logins;
                 ALTER TABLE user_logins ALTER app_version TYPE {kind} USING NULL"
            ))
            .await
            .unwrap();
        client.batch_execute(take_in).await.unwrap();
        assert_eq!(texts(&client, "SELECT app_version::text FROM user_logins").await, [stored], "{kind}");
    }
}

#[tokio::test]
async fn a_table_anywhere_under_any_name() {
    let client = cluster().await.database("anywhere").await.unwrap();
    client
        .batch_execute(
            "CREATE SCHEMA \"Odd schema\"; ALTER TABLE user_logins SET SCHEMA \"Odd schema\";
             GRANT USAGE ON SCHEMA \"Odd schema\" TO pgmask_writer; ALTER TABLE \"Odd schema\".user_logins RENAME TO \"user's \"\"logins\"\" ☂\";
             SELECT mask_pii('loads the library'); SET pgmask.login_table = '\"Odd schema\".\"user''s \"\"logins\"\" ☂\"'",
        )
        .await
        .unwrap();
    assert_eq!(ingest(&client, &MESSAGES).await, [3, 0, 0]);
}

/// The set-up is wrong then, not the messages: nothing is quarantined.
#[tokio::test]
async fn what_is_no_table_for_logins_fails_the_batch() {
    for (name, ddl, expected) in [
        (
            "no_table",
            "DROP TABLE user_logins CASCADE",
            "42P01 table \"public.user_logins\", where logins are written, does not exist",
        ),
        (
            "a_view",
            "ALTER TABLE user_logins RENAME TO t; CREATE VIEW user_logins AS TABLE t",
            "42809 \"public.user_logins\", where logins are written, is not a table",
        ),
        (
            "unlogged",
            "ALTER TABLE user_logins SET UNLOGGED",
            "42809 table \"public.user_logins\" is temporary, unlogged or foreign",
        ),
        (
            "unlogged_partition",
            "ALTER TABLE user_logins RENAME TO old; CREATE TABLE user_logins (LIKE old) PARTITION BY LIST (user_id);
             CREATE TABLE kept PARTITION OF user_logins FOR VALUES IN ('1');
             CREATE UNLOGGED TABLE lost PARTITION OF user_logins DEFAULT; GRANT INSERT ON user_logins TO pgmask_writer",
            "42809 partition public.lost of table \"public.user_logins\" is temporary, unlogged or foreign",
        ),
        (
            "foreign_partition",
            "ALTER TABLE user_logins RENAME TO old; CREATE TABLE user_logins (LIKE old) PARTITION BY LIST (user_id);
             CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
             CREATE FOREIGN TABLE far PARTITION OF user_logins DEFAULT SERVER nowhere; GRANT INSERT ON user_logins TO pgmask_writer",
            "42809 partition public.far of table \"public.user_logins\" is temporary, unlogged or foreign",
        ),
        (
            "rule_instead",
            "CREATE RULE nothing AS ON INSERT TO user_logins DO INSTEAD NOTHING",
            "42809 table \"public.user_logins\" has a rule",
        ),
        (
            "no_right",
            "REVOKE INSERT ON user_logins FROM pgmask_writer",
            "42501 role pgmask_writer may not insert into table \"public.user_logins\": it needs INSERT ON TABLE public.user_logins",
        ),
        (
            "no_right_to_a_column",
            "REVOKE INSERT ON user_logins FROM pgmask_writer; GRANT INSERT (user_id, device_type) ON user_logins TO pgmask_writer",
            "42501 role pgmask_writer may not insert into table \"public.user_logins\": it needs INSERT ON TABLE public.user_logins",
        ),
        (
            "no_right_to_the_schema",
            "REVOKE USAGE ON SCHEMA public FROM PUBLIC",
            "42501 role pgmask_writer may not insert into table \"public.user_logins\": it needs USAGE ON SCHEMA public",
        ),
        (
            "no_right_to_a_sequence",
            "ALTER TABLE user_logins ADD id serial",
            "42501 role pgmask_writer may not insert into table \"public.user_logins\": it needs USAGE ON SEQUENCE public.user_logins_id_seq",
        ),
        (
            "no_right_of_a_trigger",
            "CREATE TABLE log (u text); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO public.log VALUES (NEW.user_id); RETURN NEW; END $$;
             CREATE TRIGGER f BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION f()",
            "42501 logins could not be inserted into table \"public.user_logins\": SQLSTATE 42501 A trigger, default, constraint or policy",
        ),
        (
            "no_policy",
            "ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON user_logins FOR INSERT TO pgmask_analyst WITH CHECK (true)",
            "42501 table \"public.user_logins\" has row level security and no policy",
        ),
        (
            "no_column",
            "ALTER TABLE user_logins DROP COLUMN locale",
            "42703 table \"public.user_logins\" has no column \"locale\"",
        ),
        (
            "narrow_column",
            "ALTER TABLE user_logins ALTER masked_ip TYPE varchar(64) USING NULL",
            "42804 column \"masked_ip\"",
        ),
        (
            "generated",
            "ALTER TABLE user_logins DROP COLUMN create_date, ADD create_date date GENERATED ALWAYS AS ('2026-01-01'::date) STORED",
            "428C9 ",
        ),
        ("wrong_type", "ALTER TABLE user_logins ALTER app_version TYPE boolean USING NULL", "42804 "),
    ] {
        let client = cluster().await.database(&format!("wrong_{name}")).await.unwrap();
        client.batch_execute("DROP SCHEMA logins CASCADE").await.unwrap();
        client.batch_execute(ddl).await.unwrap();
        let error = message(&try_ingest(&client, &MESSAGES, "2026-11-20").await.unwrap_err());
        assert!(error.starts_with(expected), "{name}: {error}");
        let left =
            "SELECT ((SELECT count(*) FROM pgmask.ledger) + (SELECT count(*) FROM pgmask.quarantine))::text";
        assert_eq!(texts(&client, left).await, ["0"], "{name}");
    }
}
