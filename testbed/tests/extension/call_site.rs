//! A call that comes again and again keeps its last token. What it has given out stays as it was, whatever code of
//! the caller's runs before that is used: an analyst crashed the server, for a new budget of guesses, and read its memory.

use crate::common::{count, message, texts};
use testbed::cluster::Cluster;

/// The CHECK of a domain runs before PL/pgSQL has copied the value, and calls the same expression again, with another
/// value, one without a token, or one that is too much for the budget, and with or without another snapshot.
const CODE: &str = r"
    CREATE FUNCTION pg_temp.again(given text) RETURNS boolean LANGUAGE plpgsql AS $$
    DECLARE before text;
    BEGIN
        IF current_setting('x.depth') = '1' OR octet_length(given) IS DISTINCT FROM 67 THEN RETURN true; END IF;
        PERFORM set_config('x.depth', '1', false);
        before := given || '';
        IF current_setting('x.snapshot') = '1' THEN
            BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END;
        END IF;
        BEGIN
            EXECUTE current_setting('x.call');
        EXCEPTION WHEN configuration_limit_exceeded THEN NULL;
        END;
        INSERT INTO pg_temp.seen SELECT current_setting('x.call'), given = before AND octet_length(given) = 67;
        RETURN true;
    END $$;
    CREATE TABLE pg_temp.seen (call text, same boolean);
    CREATE DOMAIN pg_temp.checked AS text CHECK (pg_temp.again(VALUE));
    CREATE FUNCTION pg_temp.address(x text) RETURNS inet LANGUAGE sql AS $$ SELECT coalesce(nullif(trim(x), ''), '10.1.1.1')::inet $$;
    CREATE FUNCTION pg_temp.exhaust() RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pgmask.mask_pii('10.1.0.0'::inet + n) FROM generate_series(1, 100) AS n;
    EXCEPTION WHEN configuration_limit_exceeded THEN NULL;
    END $$;
    CREATE FUNCTION pg_temp.f_return(x text) RETURNS pg_temp.checked LANGUAGE plpgsql AS $$ BEGIN RETURN pgmask.mask_pii(x); END $$;
    CREATE FUNCTION pg_temp.f_constant(x text) RETURNS pg_temp.checked LANGUAGE plpgsql AS $$ BEGIN RETURN pgmask.mask_pii('10.0.0.8'); END $$;
    CREATE FUNCTION pg_temp.f_assign(x text) RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE y pg_temp.checked := 'x'; BEGIN y := pgmask.mask_pii(x); RETURN y; END $$;
    CREATE FUNCTION pg_temp.f_default(x text) RETURNS text LANGUAGE plpgsql AS $$ DECLARE y pg_temp.checked := pgmask.mask_pii(x); BEGIN RETURN y; END $$;
    CREATE FUNCTION pg_temp.f_next(x text) RETURNS SETOF pg_temp.checked LANGUAGE plpgsql AS $$ BEGIN RETURN NEXT pgmask.mask_pii(x); END $$;
    CREATE FUNCTION pg_temp.f_domain(x text) RETURNS pg_temp.checked LANGUAGE plpgsql AS $$ BEGIN RETURN pgmask.mask_pii(x, 'pii'); END $$;
    CREATE FUNCTION pg_temp.f_inet(x text) RETURNS pg_temp.checked LANGUAGE plpgsql AS $$ DECLARE i inet := pg_temp.address(x); BEGIN RETURN pgmask.mask_pii(i); END $$;
    CREATE FUNCTION pg_temp.f_network(x text) RETURNS pg_temp.checked LANGUAGE plpgsql AS $$ DECLARE i inet := pg_temp.address(x); BEGIN RETURN pgmask.mask_network(i); END $$;
    CREATE FUNCTION pg_temp.f_lifted(x text) RETURNS pg_temp.checked LANGUAGE plpgsql AS $$ DECLARE h text := encode(sha256(x::bytea), 'hex'); BEGIN RETURN pgmask.current_mask(h); END $$;
    CREATE FUNCTION pg_temp.f_into(x text) RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE y pg_temp.checked := 'x'; BEGIN SELECT pgmask.mask_pii(x) INTO y; RETURN y; END $$;
    CREATE FUNCTION pg_temp.f_argument(y pg_temp.checked) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN y; END $$;
    CREATE FUNCTION pg_temp.f_passed(x text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN pg_temp.f_argument(pgmask.mask_pii(x)); END $$;
";

const FUNCTIONS: [&str; 11] = [
    "f_return",
    "f_constant",
    "f_assign",
    "f_default",
    "f_next",
    "f_domain",
    "f_inet",
    "f_network",
    "f_lifted",
    "f_into",
    "f_passed",
];

#[tokio::test]
async fn what_was_given_out_is_never_written_again() {
    let cluster = Cluster::start_with_clock(&["shared_preload_libraries = 'pg_mask'"]).await.unwrap();
    let admin = cluster.database("given_out").await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE analyst LOGIN IN ROLE pgmask_analyst; CREATE ROLE limited LOGIN IN ROLE pgmask_analyst;
             ALTER ROLE limited SET pgmask.guess_limit = 50",
        )
        .await
        .unwrap();
    let call = |function: &str, value: &str| format!("SELECT pg_temp.{function}('{value}')");
    let with = |function| {
        [("0", "10.0.0.9"), ("1", "10.0.0.9"), ("0", "  "), ("1", "  ")]
            .map(|(snapshot, other)| (function, snapshot, call(function, other)))
    };
    let all = FUNCTIONS.into_iter().flat_map(with).collect();
    let past_the_budget = "SELECT pg_temp.exhaust(), pg_temp.f_constant('')".to_owned();
    for (role, tried) in [("analyst", all), ("limited", vec![("f_constant", "1", past_the_budget)])] {
        let client = cluster.connect_as(role, "given_out").await.unwrap();
        client.batch_execute(CODE).await.unwrap();
        for (function, snapshot, again) in &tried {
            client
                .execute(
                    "SELECT set_config('x.depth', '0', false), 
                         set_config('x.snapshot', $1, false), set_config('x.call', $2, false)",
                    &[snapshot, again],
                )
                .await
                .unwrap();
            client.batch_execute(&call(function, "10.0.0.8")).await.unwrap();
        }
        let changed = "SELECT DISTINCT call FROM pg_temp.seen WHERE same IS DISTINCT FROM true";
        assert_eq!(texts(&client, changed).await, [""; 0], "{role}");
        let ran = count(&client, "SELECT count(*) FROM pg_temp.seen").await;
        assert!(ran >= tried.len() as i64, "{role}: it ran {ran} times");
    }
    assert!(!cluster.log().contains("was terminated by signal"));
}

/// PL/pgSQL looks once in a transaction at whether a function may be called, whoever runs the statement then: who may not
/// mask did, after a function of somebody's had who may.
#[tokio::test]
async fn who_may_call_is_looked_at_for_each_caller() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let admin = cluster.database("each_caller").await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE analyst LOGIN; CREATE ROLE plain LOGIN; GRANT pgmask_analyst TO analyst; GRANT USAGE ON SCHEMA pgmask TO plain;
             CREATE TABLE got (what text); GRANT INSERT ON got TO plain;
             CREATE FUNCTION masks(value text) RETURNS text LANGUAGE plpgsql AS $$ DECLARE token text; BEGIN
                 IF value <> '' THEN token := pgmask.mask_pii(value); END IF; RETURN token; END $$;
             CREATE FUNCTION as_analyst(value text) RETURNS text LANGUAGE sql SECURITY DEFINER AS $$ SELECT public.masks(value) $$;
             ALTER FUNCTION as_analyst OWNER TO analyst",
        )
        .await
        .unwrap();
    let plain = cluster.connect_as("plain", "each_caller").await.unwrap();
    for first in ["x", ""] {
        let calls = format!("BEGIN; SELECT as_analyst('{first}'); INSERT INTO got SELECT masks('y')");
        let refused = message(&plain.batch_execute(&calls).await.unwrap_err());
        assert_eq!(refused.trim_end(), "42501 permission denied for function mask_pii");
        plain.batch_execute("ROLLBACK; SELECT as_analyst('x')").await.unwrap();
    }
}

/// Nor does a value that counted for one role of the session count for another that it switches to.
#[tokio::test]
async fn the_last_value_counts_for_each_role_of_the_session() {
    let cluster =
        Cluster::start_with_clock(&["shared_preload_libraries = 'pg_mask'", "pgmask.guess_limit = 50"])
            .await
            .unwrap();
    let admin = cluster.database("each_role").await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE a; CREATE ROLE b; CREATE ROLE either LOGIN; GRANT a, b TO either; GRANT pgmask_unlimited TO either; CREATE ROLE exempt;
             GRANT pgmask_analyst, pgmask_unlimited TO exempt;
             CREATE FUNCTION masks(value text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN RETURN pgmask.mask_pii(value); END $$;
             ALTER FUNCTION masks OWNER TO exempt",
        )
        .await
        .unwrap();
    let either = cluster.connect_as("either", "each_role").await.unwrap();
    let mut masked = 0;
    for n in 0..60 {
        either.batch_execute("BEGIN; SET LOCAL ROLE a").await.unwrap();
        let mask = format!("SELECT masks('{n}')");
        if either.batch_execute(&mask).await.is_ok() {
            either.batch_execute("SET LOCAL ROLE b").await.unwrap();
            masked += i32::from(either.batch_execute(&mask).await.is_ok());
        }
        either.batch_execute("ROLLBACK").await.unwrap();
    }
    assert_eq!(masked, 50);
    // Those of b are used up as well.
    either.batch_execute("SET ROLE b").await.unwrap();
    either.batch_execute("SELECT masks('another')").await.unwrap_err();
}
