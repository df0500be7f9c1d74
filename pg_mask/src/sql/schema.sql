-- Nobody else may own this schema: one that is there already is an error.
CREATE SCHEMA pgmask;
