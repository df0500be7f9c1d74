SELECT pg_catalog.current_setting('synchronous_standby_names'),
    pg_catalog.count(*),
    pg_catalog.bool_or(r.sync_state IS NULL),
    pg_catalog.string_agg(r.application_name, ', ' ORDER BY r.pid) FILTER (WHERE r.sync_state OPERATOR(pg_catalog.=) ANY ('{sync,quorum}')),
    pg_catalog.string_agg(r.application_name, ', ' ORDER BY r.pid) FILTER (WHERE r.sync_state OPERATOR(pg_catalog.<>) ALL ('{sync,quorum}')),
    pg_catalog.format('ALTER SYSTEM SET synchronous_standby_names = %L; SELECT pg_reload_conf();',
        pg_catalog.format('ANY 1 (%s)', pg_catalog.string_agg(DISTINCT
            pg_catalog.format('"%s"', pg_catalog.replace(r.application_name, '"', '""')), ', ')))
FROM pg_catalog.pg_stat_replication r JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) r.pid
WHERE a.datid IS NULL AND (r.state OPERATOR(pg_catalog.=) 'backup') IS NOT TRUE
