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

-- Nor may the extension go with another, by way of that schema or of PL/pgSQL. Whoever is about to see to that is waited for, by a comment
-- that stays as it is; from now on pg_mask refuses it.
DO $$
DECLARE
    other pg_catalog.text;
BEGIN
    EXECUTE format('COMMENT ON SCHEMA %s IS %L', '@extschema@'::regnamespace, obj_description('@extschema@'::regnamespace, 'pg_namespace'));
    SELECT e.extname INTO other
    FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
    WHERE d.classid = 'pg_namespace'::regclass AND d.objid = '@extschema@'::regnamespace AND d.deptype = 'e'
      AND d.refclassid = 'pg_extension'::regclass;
    IF FOUND THEN
        RAISE EXCEPTION 'schema % is a member of extension %, which would take pg_mask along', '@extschema@', quote_ident(other)
            USING ERRCODE = 'insufficient_privilege', HINT = 'Take it out: ALTER EXTENSION ... DROP SCHEMA ....';
    END IF;
    IF EXISTS (SELECT FROM pg_extension AS e JOIN pg_roles AS r ON r.oid = e.extowner WHERE e.extname = 'plpgsql' AND NOT r.rolsuper) THEN
        RAISE EXCEPTION 'the extension plpgsql belongs to a role that is no superuser, and would take pg_mask along'
            USING ERRCODE = 'insufficient_privilege', HINT = 'Use a database whose plpgsql a superuser has made, as each has it at first.';
    END IF;
    -- The language may have another owner than its extension, once that was given away, and could be renamed or dropped by it.
    IF EXISTS (SELECT FROM pg_language AS l JOIN pg_roles AS r ON r.oid = l.lanowner WHERE l.lanname = 'plpgsql' AND NOT r.rolsuper) THEN
        RAISE EXCEPTION 'the language plpgsql belongs to a role that is no superuser'
            USING ERRCODE = 'insufficient_privilege', HINT = 'ALTER LANGUAGE plpgsql OWNER TO a superuser.';
    END IF;
    -- What a former owner of it has added could be dropped with a table that it depends on, and all of that would go along.
    SELECT pg_describe_object(d.classid, d.objid, d.objsubid) INTO other
    FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
    WHERE d.refclassid = 'pg_extension'::regclass AND e.extname = 'plpgsql' AND d.deptype = 'e'
      AND NOT (d.classid = 'pg_language'::regclass AND d.objid IN (SELECT l.oid FROM pg_language AS l WHERE l.lanname = 'plpgsql'))
      AND NOT (d.classid = 'pg_proc'::regclass AND d.objid IN (
          SELECT unnest(ARRAY[l.lanplcallfoid, l.laninline, l.lanvalidator]) FROM pg_language AS l WHERE l.lanname = 'plpgsql'))
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the extension plpgsql has % as a member, and would take pg_mask along with that', other
            USING ERRCODE = 'insufficient_privilege', HINT = 'Take it out: ALTER EXTENSION plpgsql DROP ....';
    END IF;
END $$;

-- Nobody else may own this schema: one that is there already is an error.
CREATE SCHEMA pgmask;
