-- name: find
-- The newest function that touches, beside the change log; none before the migration that makes it.
SELECT '"' || replace(n.nspname, '"', '""') || '".' || p.proname
FROM pg_catalog.pg_class AS log
JOIN pg_catalog.pg_namespace AS n ON n.oid = log.relnamespace
JOIN pg_catalog.pg_proc AS p ON p.pronamespace = n.oid AND p.proname IN ('djcrf_pg_touch_v1', 'djcrf_pg_touch_v2')
WHERE log.oid = to_regclass('djcrf_pg_change')
ORDER BY p.proname DESC
LIMIT 1

-- name: touch
-- :query brings the keys, in columns called :columns, and may bring one several times, by a join. :calls hand them on,
-- one call for each table and so many :rows, in the order of the query: no call has to hold a million keys.
WITH named (/* :columns */) AS MATERIALIZED (/* :query */),
numbered AS (SELECT /* :columns */, row_number() OVER () AS number FROM named),
placed AS (
    SELECT /* :columns */, row_number() OVER (ORDER BY min(number)) AS place FROM numbered GROUP BY /* :columns */
)
SELECT /* :calls */
FROM placed
GROUP BY (place - 1) / /* :rows */
ORDER BY min(place)
