-- name: emptied
-- The tables that transactions have deleted rows of.
SELECT DISTINCT xid::text, relation::oid FROM /* :schema */djcrf_pg_change WHERE xid = ANY (%s::text[]::xid8[]) AND op = 'D'

-- name: deleted
-- Rows of tables by their transactions and the texts of a column: the last that each wrote of them, so that one which it
-- made again is not taken for gone. What a transaction has in the log is read once, whatever the number of keys.
WITH wanted AS (
    SELECT * FROM unnest(%s::text[]::xid8[], %s::text[]) AS each (xid, key)
), written AS MATERIALIZED (
    SELECT xid, id, coalesce(new, old) ->> %s AS key FROM /* :schema */djcrf_pg_change
    WHERE xid = ANY (ARRAY(SELECT DISTINCT xid FROM wanted)) AND relation = ANY (%s::oid[]) AND op IN ('D', 'I')
), last AS (
    SELECT xid, key, max(id) AS id FROM wanted JOIN written USING (xid, key) GROUP BY xid, key
)
SELECT xid::text, key, id, relation::oid, old::text, context, at
FROM last JOIN /* :schema */djcrf_pg_change USING (xid, id)
WHERE op = 'D'
