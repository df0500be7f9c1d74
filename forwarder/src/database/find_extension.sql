SELECT
    pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.<>) ALL (ARRAY['UTF8', 'SQL_ASCII']),
    (SELECT pg_catalog.string_agg(pg_catalog.format('ALTER ROLE %I SET %s = %s;', current_user, setting, safe), ' ')
        FROM (VALUES ('log_parameter_max_length', '0'), ('log_parameter_max_length_on_error', '0'),
            ('plan_cache_mode', 'force_generic_plan')) AS settings(setting, safe)
        WHERE pg_catalog.current_setting(setting) OPERATOR(pg_catalog.<>) safe)
FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'pg_mask'
