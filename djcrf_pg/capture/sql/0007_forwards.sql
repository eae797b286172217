-- Which groups the processes have subscribers of. A migration references this file: it is frozen once released.

-- Each process has a holder, a random number, for as long as its session lasts; an advisory lock says that it does. A group
-- of an observer hashes to one of 65536 bits, kept in chunks of 1024: an update for one more subscription copies 150 bytes,
-- so that a snapshot which is old for long has little to keep. An update finds room in its page and touches no index.
CREATE TABLE /* :schema */djcrf_pg_interest (
    holder int NOT NULL,
    chunk smallint NOT NULL CHECK (chunk BETWEEN 0 AND 63),
    bits bit(1024) NOT NULL,
    PRIMARY KEY (holder, chunk)
) WITH (fillfactor = 50);

-- Rises when rows were committed, before the subscription takes its snapshot. A sequence is outside of snapshots: a leader
-- that reads a change which was committed after that snapshot reads the risen number with it, and then the rows.
CREATE SEQUENCE /* :schema */djcrf_pg_interest_version MINVALUE 0 START 0;
-- The first nextval() of a new sequence is its start, which is what one reads before it.
SELECT setval('/* :schema */djcrf_pg_interest_version', 0);

REVOKE ALL ON /* :schema */djcrf_pg_interest FROM PUBLIC;
REVOKE ALL ON SEQUENCE /* :schema */djcrf_pg_interest_version FROM PUBLIC;

-- Roles of their own, of listeners and of processes with subscribers, may do here what they may do with failures.
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
        EXECUTE format('GRANT %s ON /* :schema */djcrf_pg_interest TO %s', granted.rights, granted.role);
        EXECUTE format('GRANT SELECT, USAGE ON SEQUENCE /* :schema */djcrf_pg_interest_version TO %s', granted.role);
    END LOOP;
END
$do$;

-- Of another database's processes, replication brings nothing: see 0005.
CREATE TRIGGER djcrf_pg_replicated BEFORE INSERT OR UPDATE OR DELETE ON /* :schema */djcrf_pg_interest
FOR EACH ROW WHEN (
    current_setting('session_replication_role') = 'replica' AND current_setting('application_name') NOT LIKE 'djcrf\_pg %'
)
EXECUTE FUNCTION /* :schema */djcrf_pg_skip_v1();
ALTER TABLE /* :schema */djcrf_pg_interest ENABLE REPLICA TRIGGER djcrf_pg_replicated;
