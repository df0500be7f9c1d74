-- What analysts ask most, right in the midst of a rotation, too: tokens are lifted before they are compared.
-- Apply it after 02; applying it again changes nothing. A view shows what its
-- reader may see of user_logins, so row level security holds.
SET search_path = pg_catalog, pg_temp;

-- A view that another role made under one of these names would stay that role's to change.
DO $$
DECLARE
    taken record;
BEGIN
    SELECT c.relname, c.relowner::regrole AS owner INTO taken
    FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
    WHERE c.oid IN (to_regclass('public.shared_ips'), to_regclass('public.shared_devices'))
      AND NOT r.rolsuper AND c.relowner <> current_user::regrole
      AND c.relowner <> (SELECT t.relowner FROM pg_class t WHERE t.oid = 'public.user_logins'::regclass);
    IF FOUND THEN
        RAISE EXCEPTION 'public.% is there already and belongs to %', taken.relname, taken.owner
            USING HINT = 'Drop it, or give it another name, and apply this file again.';
    END IF;
END
$$;

CREATE OR REPLACE VIEW public.shared_ips WITH (security_invoker = true) AS
    SELECT pgmask.current_mask(masked_ip) AS masked_ip, count(DISTINCT user_id) AS users, count(*) AS logins,
           min(create_date) AS first_seen, max(create_date) AS last_seen
    FROM public.user_logins
    WHERE masked_ip IS NOT NULL
    GROUP BY 1
    HAVING count(DISTINCT user_id) > 1;

CREATE OR REPLACE VIEW public.shared_devices WITH (security_invoker = true) AS
    SELECT pgmask.current_mask(masked_device_id) AS masked_device_id, count(DISTINCT user_id) AS users, count(*) AS logins,
           min(create_date) AS first_seen, max(create_date) AS last_seen
    FROM public.user_logins
    WHERE masked_device_id IS NOT NULL
    GROUP BY 1
    HAVING count(DISTINCT user_id) > 1;

COMMENT ON VIEW public.shared_ips IS 'addresses that more than one user logged in from';
COMMENT ON VIEW public.shared_devices IS 'devices that more than one user logged in on: they changed hands';

GRANT SELECT ON public.shared_ips, public.shared_devices TO pgmask_analyst;

RESET search_path;
