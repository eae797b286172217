-- name: room
-- As the listener's own sessions have it: the transactions of user code may have little, beside a temp_file_limit.
SET LOCAL work_mem = '64MB'

-- name: emptied
-- The tables that transactions have deleted rows of.
SELECT DISTINCT xid::text, relation::oid FROM /* :schema */djcrf_pg_change WHERE xid = ANY (%s::text[]::xid8[]) AND op = 'D'

-- name: deleted
-- Rows of tables by their transactions and the texts of a column, as they were before: of those that a transaction wrote
-- last by deleting them, the first image. What a transaction has in the log is read once, whatever the number of keys.
WITH wanted AS (
    SELECT * FROM unnest(%s::text[]::xid8[], %s::text[]) AS each (xid, key)
), written AS MATERIALIZED (
    SELECT xid, id, coalesce(new, old) ->> %s AS key FROM /* :schema */djcrf_pg_change
    WHERE xid = ANY (ARRAY(SELECT DISTINCT xid FROM wanted)) AND relation = ANY (%s::oid[]) AND op IN ('D', 'I', 'U')
), ends AS (
    SELECT xid, key, min(id) AS first, max(id) AS last FROM wanted JOIN written USING (xid, key) GROUP BY xid, key
)
SELECT xid::text, key, id, relation::oid, before.old::text, context, at
FROM ends
JOIN /* :schema */djcrf_pg_change AS gone USING (xid)
JOIN LATERAL (
    SELECT old FROM /* :schema */djcrf_pg_change AS change WHERE change.xid = ends.xid AND change.id = ends.first
) AS before ON before.old IS NOT NULL
WHERE gone.id = ends.last AND gone.op = 'D'
