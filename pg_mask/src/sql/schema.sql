-- PostgreSQL keeps schema names that start with "pg_" for itself and for superusers who insist: nobody
-- else can have made this one before us. The setting ends with this script, and tables.sql ends it
-- earlier.
SET LOCAL allow_system_table_mods = on;
CREATE SCHEMA pg_mask;
