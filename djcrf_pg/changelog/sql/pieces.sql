-- For a window that is larger than a piece: it is sorted once, by a cursor that the server keeps beyond the transaction.
-- DECLARE takes no parameters, so these are filled in: :window the query, :weight of a row, :after an id, and :xids and :relations,
-- arrays of what is not told row by row, :firsts the ids of its first rows.

-- name: crowds
-- :most rows.
SELECT xid::text AS xid, relation::oid AS relation, count(*) AS count, min(id) AS first
FROM (/* :window */) AS change
WHERE old IS NOT NULL OR new IS NOT NULL
GROUP BY xid, relation HAVING count(*) > /* :most */

-- name: nested
SELECT xid::text AS xid, relation::oid AS relation, max(depth) AS depth
FROM (/* :window */) AS change
WHERE depth > 1 AND id <= /* :after */
GROUP BY xid, relation

-- name: written
SELECT relation::oid AS relation, max(id) AS id FROM (/* :window */) AS change WHERE id > /* :after */ GROUP BY relation

-- name: rest
-- What of the window comes after. Of what is not told row by row the first row stands for all, wherever it lies.
SELECT * FROM (/* :window */) AS change
WHERE id > /* :after */ AND NOT EXISTS (
    SELECT FROM unnest('{/* :xids */}'::xid8[], '{/* :relations */}'::oid[], '{/* :firsts */}'::bigint[])
        AS mass (xid, relation, first)
    WHERE mass.xid = change.xid AND mass.relation = change.relation AND mass.first < change.id
)

-- name: declare
-- Of :rest, keys and weights alone; images follow piece by piece.
DECLARE djcrf_pg_window NO SCROLL CURSOR WITH HOLD FOR
SELECT change.xid::text AS xid, change.id, weight.bytes
FROM (/* :rest */) AS change
CROSS JOIN LATERAL (/* :weight */) AS weight
ORDER BY change.id, change.xid

-- name: keys
-- Where the server cannot keep them all: :count keys of :rest, of which it sorts no more at a time. Their weights are what
-- is stored: no image is unpacked.
SELECT xid::text AS xid, id, coalesce(pg_column_size(old), 0) + coalesce(pg_column_size(new), 0) AS bytes
FROM (/* :rest */) AS change
WHERE id <= (
    -- And those that have an id in common with the last one.
    SELECT max(id) FROM (SELECT id FROM (/* :rest */) AS change ORDER BY id LIMIT /* :count */) AS next
)
ORDER BY id, xid

-- name: fetch
-- :count keys.
FETCH /* :count */ FROM djcrf_pg_window

-- name: close
CLOSE djcrf_pg_window
