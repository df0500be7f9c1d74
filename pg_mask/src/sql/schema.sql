-- Whatever others may have put into the schema that CREATE EXTENSION was given, names mean PostgreSQL's own.
SET LOCAL search_path TO pg_catalog, pg_temp;

-- A schema with the name of whoever does this comes first in the search path, and so does one that somebody else made under
-- that name. Who owns the schema has the names in it.
DO $$
DECLARE
    maker pg_catalog.text := (
        SELECT r.rolname FROM pg_namespace AS n JOIN pg_roles AS r ON r.oid = n.nspowner
        WHERE n.oid = '@extschema@'::regnamespace AND n.nspname = current_user AND r.rolname <> current_user AND NOT r.rolsuper
    );
BEGIN
    IF maker IS NOT NULL THEN
        RAISE EXCEPTION 'schema % belongs to role %, who could exchange what is called there by a bare name', current_user, quote_ident(maker)
            USING ERRCODE = 'insufficient_privilege', HINT = 'CREATE EXTENSION pg_mask SCHEMA public, or another that you own.';
    END IF;
END $$;

-- Nobody else may own this schema: one that is there already is an error.
CREATE SCHEMA pgmask;
