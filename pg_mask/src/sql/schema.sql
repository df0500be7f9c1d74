-- Whatever others may have put into the schema that CREATE EXTENSION was given, names mean PostgreSQL's own.
SET LOCAL search_path TO pg_catalog, pg_temp;

-- Nobody else may own this schema: one that is there already is an error.
CREATE SCHEMA pgmask;
