-- The table that logins are written to. Apply it to each database that takes in logins; applying it
-- again changes nothing. A table that is already there may have more columns, keys, constraints,
-- triggers and partitions; pgmask.login_table names it if it is not public.user_logins.
CREATE EXTENSION IF NOT EXISTS pg_mask;
SET search_path = pg_catalog, pg_temp;

CREATE TABLE IF NOT EXISTS public.user_logins (
    user_id varchar(128),
    device_type varchar(32),
    masked_ip varchar(256),
    masked_device_id varchar(256),
    locale varchar(32),
    app_version integer,
    create_date date
);

COMMENT ON TABLE public.user_logins IS 'logins, an event a row, as pg_mask takes them in';
COMMENT ON COLUMN public.user_logins.masked_ip IS 'token of the address: equal addresses, equal tokens';
COMMENT ON COLUMN public.user_logins.masked_device_id IS 'token of the device: equal devices, equal tokens';
COMMENT ON COLUMN public.user_logins.app_version IS 'M.m.p as M * 1000000 + m * 1000 + p; app_version_text() turns it back';
COMMENT ON COLUMN public.user_logins.create_date IS 'UTC date the message was sent';

RESET search_path;
