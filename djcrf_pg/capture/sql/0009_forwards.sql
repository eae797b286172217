-- What shadow mode compares, and what came of it. A migration references this file: it is frozen once released.

-- What signals have sent, and what triggers would have sent, until the two have met. Unlogged: it is of use for seconds, and
-- after a crash there is nothing to compare.
CREATE UNLOGGED TABLE /* :schema */djcrf_pg_shadow_message (
    -- Tells one that is written twice.
    name text PRIMARY KEY,
    address text NOT NULL,
    -- As in djcrf_pg_failure; an empty text for what is of no single row.
    pk text NOT NULL,
    by_signals boolean NOT NULL,
    -- Of actions, groups and bodies, and the same as JSON.
    digest text NOT NULL,
    parts text NOT NULL,
    -- The change or the process that it is of, as JSON.
    origin text NOT NULL,
    -- A message of signals is written after its transaction has committed. So a snapshot that sees this one sees that too.
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    compared boolean NOT NULL DEFAULT false
);

-- For what waits, which is little beside what was compared.
CREATE INDEX djcrf_pg_shadow_message_waiting ON /* :schema */djcrf_pg_shadow_message (address, pk, digest, by_signals)
WHERE NOT compared;
CREATE INDEX djcrf_pg_shadow_message_due ON /* :schema */djcrf_pg_shadow_message (at) WHERE NOT compared;

CREATE TABLE /* :schema */djcrf_pg_shadow_result (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    observer text NOT NULL,
    address text NOT NULL,
    model text NOT NULL,
    -- equal, missed (by the signals), extra (of the signals), different or failed; and what of it.
    kind text NOT NULL,
    what text NOT NULL,
    times bigint NOT NULL,
    first_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The last few, a line of JSON each.
    samples text NOT NULL,
    UNIQUE (address, kind, what)
);

REVOKE ALL ON /* :schema */djcrf_pg_shadow_message, /* :schema */djcrf_pg_shadow_result FROM PUBLIC;

-- Roles of their own may do here what they may do with failures.
DO $do$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END AS role,
               string_agg(acl.privilege_type, ', ') AS rights
        FROM pg_class AS c CROSS JOIN aclexplode(c.relacl) AS acl
        WHERE c.oid = '/* :schema */djcrf_pg_failure'::regclass AND acl.grantee <> c.relowner
          AND acl.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
        GROUP BY acl.grantee
    LOOP
        EXECUTE format(
            'GRANT %s ON /* :schema */djcrf_pg_shadow_message, /* :schema */djcrf_pg_shadow_result TO %s',
            granted.rights, granted.role
        );
    END LOOP;
END
$do$;

-- Of another database's comparison, replication brings nothing: see 0005.
CREATE TRIGGER djcrf_pg_replicated BEFORE INSERT OR UPDATE OR DELETE ON /* :schema */djcrf_pg_shadow_result
FOR EACH ROW WHEN (
    current_setting('session_replication_role') = 'replica' AND current_setting('application_name') NOT LIKE 'djcrf\_pg %'
)
EXECUTE FUNCTION /* :schema */djcrf_pg_skip_v1();
ALTER TABLE /* :schema */djcrf_pg_shadow_result ENABLE REPLICA TRIGGER djcrf_pg_replicated;
