-- What a client has not seen of some tables: of a span of the log, see djcrf_pg.changelog.cursor. :window is all of it between
-- two snapshots, :range the condition on ids, $1 the oids of the tables, $2 the columns of their keys, one text for each table
-- with chr(31) between names. A table has the rows of its partitions, and of the tables that inherit from it.

-- name: tables
WITH RECURSIVE known (relation, root, columns) AS (
    SELECT root, root, string_to_array(columns, chr(31))
    FROM unnest($1::oid[], $2::text[]) AS wanted (root, columns)
    UNION
    SELECT inhrelid, root, columns FROM pg_inherits JOIN known ON inhparent = known.relation
)
SELECT DISTINCT ON (relation) * FROM known ORDER BY relation, relation = root DESC

-- name: plain
-- $3 rows.
SELECT change.id, change.xid::text AS xid, change.relation::oid AS relation, change.op::text AS op, change.depth,
       change.old::text AS old, change.new::text AS new, change.context, change.at
FROM (/* :window */) AS change
WHERE change.relation::oid IN (SELECT relation FROM (/* :tables */) AS tables) AND /* :range */
ORDER BY change.id, change.xid
LIMIT $3

-- name: netted
-- $3 rows. What happened to a row is one change, from what it was before the first one to what it is after the last one, with
-- the id of the first. But for changes of keys, touches, and what statements of triggers did, whose order the ids do not tell:
-- of these rows each change is fetched.
WITH change AS MATERIALIZED (
    SELECT change.xid, change.id, change.op, change.depth, tables.root,
           (SELECT string_agg(coalesce(change.old ->> name, ''), chr(31) ORDER BY place)
            FROM unnest(tables.columns) WITH ORDINALITY AS key (name, place)) AS was,
           (SELECT string_agg(coalesce(change.new ->> name, ''), chr(31) ORDER BY place)
            FROM unnest(tables.columns) WITH ORDINALITY AS key (name, place)) AS becomes
    FROM (/* :window */) AS change
    JOIN (/* :tables */) AS tables ON tables.relation = change.relation::oid
    WHERE /* :range */
), part AS (
    SELECT xid, id, depth, root, was AS key, becomes <> was AS moves FROM change
    WHERE was IS NOT NULL AND op IN ('I', 'U', 'D')
    UNION ALL
    SELECT xid, id, depth, root, becomes, was IS NOT NULL FROM change
    WHERE becomes IS NOT NULL AND becomes IS DISTINCT FROM was AND op IN ('I', 'U', 'D')
), ranked AS (
    SELECT xid, id, root, key, count(*) OVER entire AS count, row_number() OVER up AS first, row_number() OVER down AS last,
           coalesce(bool_or(moves) OVER entire, false) OR max(depth) OVER entire > 1 OR min(depth) OVER entire = 0 AS entire
    FROM part
    WINDOW entire AS (PARTITION BY root, key),
           up AS (PARTITION BY root, key ORDER BY id, xid),
           down AS (PARTITION BY root, key ORDER BY id DESC, xid DESC)
), ends AS (
    SELECT max(id) FILTER (WHERE first = 1) AS first_id, max(xid::text) FILTER (WHERE first = 1)::xid8 AS first_xid,
           max(id) FILTER (WHERE last = 1) AS last_id, max(xid::text) FILTER (WHERE last = 1)::xid8 AS last_xid,
           max(count) AS count
    FROM ranked WHERE NOT entire AND (first = 1 OR last = 1)
    GROUP BY root, key
), whole AS (
    SELECT DISTINCT xid, id FROM ranked WHERE entire
    UNION ALL
    SELECT xid, id FROM change WHERE op NOT IN ('I', 'U', 'D')
)
SELECT first.id, last.xid::text AS xid, last.relation::oid AS relation,
       CASE WHEN first.old IS NULL THEN 'I' WHEN last.new IS NULL THEN 'D' ELSE 'U' END AS op,
       last.depth, first.old::text AS old, last.new::text AS new, last.context, last.at
FROM ends
JOIN /* :schema */djcrf_pg_change AS first ON first.xid = first_xid AND first.id = first_id
JOIN /* :schema */djcrf_pg_change AS last ON last.xid = last_xid AND last.id = last_id
WHERE (first.old IS NOT NULL OR last.new IS NOT NULL) AND (count = 1 OR first.old::text IS DISTINCT FROM last.new::text)
UNION ALL
SELECT change.id, change.xid::text, change.relation::oid, change.op::text, change.depth, change.old::text, change.new::text,
       change.context, change.at
FROM whole JOIN /* :schema */djcrf_pg_change AS change USING (xid, id)
ORDER BY 1, 2
LIMIT $3

-- name: crowded
-- $3 rows: whether the span has more of a table in a transaction, or is in pieces and has statements of triggers.
SELECT EXISTS (
    SELECT FROM (/* :window */) AS change
    WHERE change.relation::oid IN (SELECT relation FROM (/* :tables */) AS tables)
    GROUP BY change.xid, change.relation HAVING count(*) > $3 OR (max(change.depth) > 1 AND /* :cut */)
)

-- name: horizon
-- Up to which transaction changes may have been deleted: by the retention, and by the caps. Asked after a read, for who deletes
-- says so before it is seen. What lies in the future is of another cluster's dump.
SELECT coalesce(max(xid), 0)
FROM (
    SELECT pg_snapshot_xmax(snapshot)::text::bigint - 1 FROM /* :schema */djcrf_pg_cursor WHERE name = 'pruned'
    UNION ALL
    SELECT last_value FROM /* :schema */djcrf_pg_reach_xid
) AS deleted (xid)
WHERE xid < pg_snapshot_xmax(pg_current_snapshot())::text::bigint
