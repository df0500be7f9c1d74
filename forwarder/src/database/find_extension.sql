-- The last column is what to run where the server may log messages of this role. Of a setting of a library there is a row
-- in pg_settings only while that is loaded.
SELECT
    pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.<>) ALL (ARRAY['UTF8', 'SQL_ASCII']),
    (SELECT pg_catalog.string_agg(pg_catalog.format('ALTER ROLE %I SET %s = %s;', current_user, wanted.name, wanted.safe), ' ' ORDER BY wanted.place)
        FROM (VALUES (1, 'log_parameter_max_length', '0'), (2, 'log_parameter_max_length_on_error', '0'),
            (3, 'log_error_verbosity', 'terse'), (4, 'plan_cache_mode', 'force_generic_plan'),
            (5, 'auto_explain.log_parameter_max_length', '0'), (6, 'pgaudit.log_parameter', 'off')) AS wanted(place, name, safe)
        JOIN pg_catalog.pg_settings AS s ON s.name OPERATOR(pg_catalog.=) wanted.name
        WHERE s.setting OPERATOR(pg_catalog.<>) wanted.safe)
FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'pg_mask'
