-- The owner of the schema that CREATE EXTENSION was given could take the extension away with it: pg_mask refuses that, in
-- each session that it is loaded in. So it is loaded before commands by which a schema goes, or is made to go with something else, and the
-- language that functions of pg_mask are in.
CREATE FUNCTION pgmask.watch_drops() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'watch_drops_wrapper';
CREATE EVENT TRIGGER pgmask_watch_drops ON ddl_command_start
    WHEN TAG IN ('DROP SCHEMA', 'DROP OWNED', 'DROP EXTENSION', 'ALTER EXTENSION', 'DROP LANGUAGE') EXECUTE FUNCTION pgmask.watch_drops();
ALTER EVENT TRIGGER pgmask_watch_drops ENABLE ALWAYS;

COMMENT ON FUNCTION pgmask.watch_drops() IS 'has pg_mask loaded, which lets superusers alone drop the extension';
COMMENT ON EVENT TRIGGER pgmask_watch_drops IS 'superusers alone drop pg_mask, not whoever owns the schema that it is in';
