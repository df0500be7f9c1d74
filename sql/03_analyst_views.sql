-- What analysts ask most. Apply it after 02; applying it again changes nothing. A view shows what its
-- reader may see of user_logins, so row level security holds.
CREATE OR REPLACE VIEW public.shared_ips WITH (security_invoker = true) AS
    SELECT masked_ip, count(DISTINCT user_id) AS users, count(*) AS logins,
           min(create_date) AS first_seen, max(create_date) AS last_seen
    FROM public.user_logins
    WHERE masked_ip IS NOT NULL
    GROUP BY masked_ip
    HAVING count(DISTINCT user_id) > 1;

CREATE OR REPLACE VIEW public.shared_devices WITH (security_invoker = true) AS
    SELECT masked_device_id, count(DISTINCT user_id) AS users, count(*) AS logins,
           min(create_date) AS first_seen, max(create_date) AS last_seen
    FROM public.user_logins
    WHERE masked_device_id IS NOT NULL
    GROUP BY masked_device_id
    HAVING count(DISTINCT user_id) > 1;

COMMENT ON VIEW public.shared_ips IS 'addresses that more than one user logged in from';
COMMENT ON VIEW public.shared_devices IS 'devices that more than one user logged in on: they changed hands';

GRANT SELECT ON public.shared_ips, public.shared_devices TO pgmask_analyst;
