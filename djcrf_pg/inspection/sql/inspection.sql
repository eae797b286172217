-- For people who look at the log, over Django's connection. The only index is (xid, id), and nothing counts the log.

-- name: older
-- :schema of the log. %(scan)s changes at most, from a key downwards, in the order of the index.
SELECT * FROM /* :schema */djcrf_pg_change
WHERE (xid, id) < (%(xid)s::text::xid8, %(id)s::bigint)
  AND xid >= %(first)s::text::xid8 AND xid <= %(last)s::text::xid8
ORDER BY xid DESC, id DESC
LIMIT %(scan)s

-- name: newer
-- The same upwards.
SELECT * FROM /* :schema */djcrf_pg_change
WHERE (xid, id) > (%(xid)s::text::xid8, %(id)s::bigint)
  AND xid >= %(first)s::text::xid8 AND xid <= %(last)s::text::xid8
ORDER BY xid, id
LIMIT %(scan)s

-- name: page
-- Of :part, one of the two above, the first %(limit)s that pass the filters, in its :order. The key of a row stands in its
-- image as the text that row_to_json() writes, which is found without parsing the image; whoever asks compares again.
SELECT id, xid::text AS xid, relation::oid AS relation, op::text AS op, depth, old::text AS old, new::text AS new, context, at
FROM (/* :part */) AS part
WHERE (%(relations)s::oid[] IS NULL OR relation::oid = ANY (%(relations)s::oid[]))
  AND (%(since)s::timestamptz IS NULL OR at >= %(since)s::timestamptz)
  AND (%(until)s::timestamptz IS NULL OR at < %(until)s::timestamptz)
  AND (%(context)s::text IS NULL OR position(lower(%(context)s::text) IN lower(context)) > 0)
  AND (%(needles)s::text[] IS NULL OR op NOT IN ('I', 'U', 'D') OR EXISTS (
      SELECT FROM unnest(%(needles)s::text[]) AS needle (text)
      WHERE position(needle.text IN old::text) > 0 OR position(needle.text IN new::text) > 0
  ))
ORDER BY /* :order */
LIMIT %(limit)s

-- name: edge
-- The last key of :part, by its :order backwards; and whether there may be more behind it.
SELECT xid::text AS xid, id, looked >= %(scan)s AS more
FROM (SELECT xid, id, count(*) OVER () AS looked FROM (/* :part */) AS part) AS counted
ORDER BY /* :order */
LIMIT 1

-- name: with_id
-- Transactions may have an id in common, so there may be more than one. Between the first and the last transaction it goes
-- through the whole index.
SELECT id, xid::text AS xid, relation::oid AS relation, op::text AS op, depth, old::text AS old, new::text AS new, context, at
FROM /* :schema */djcrf_pg_change
WHERE id = %(id)s AND xid >= %(first)s::text::xid8 AND xid <= %(last)s::text::xid8
ORDER BY xid

-- name: tables
-- Tables, each with those that it is a part of or inherits from, itself first; and what their triggers leave out. A table
-- that is gone has no row.
WITH RECURSIVE line (oid, relid, distance) AS (
    SELECT oid, oid, 0 FROM unnest(%(oids)s::oid[]) AS wanted (oid)
    UNION
    SELECT line.oid, inherits.inhparent, line.distance + 1
    FROM line JOIN pg_catalog.pg_inherits AS inherits ON inherits.inhrelid = line.relid
)
SELECT line.oid, line.relid, format('%%I.%%I', n.nspname, c.relname) AS name, c.relispartition AS is_partition,
       ARRAY(
           SELECT a.attname::text
           FROM pg_catalog.pg_index AS i
           JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
           WHERE i.indrelid = c.oid AND i.indisprimary
           ORDER BY array_position(i.indkey::int2[], a.attnum)
       ) AS key,
       ARRAY(
           SELECT t.tgargs
           FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
           WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND p.proname LIKE 'djcrf\_pg\_capture\_%%'
       ) AS arguments
FROM line
JOIN pg_catalog.pg_class AS c ON c.oid = line.relid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
ORDER BY line.oid, line.distance

-- name: oids
-- Of quoted names, :oid of one, with what they consist of: partitions, and tables that inherit.
WITH RECURSIVE member (name, relid, is_named) AS (
    SELECT named.name, named.oid, true FROM (
        SELECT name, /* :oid */ AS oid FROM unnest(%(names)s::text[]) AS wanted (name)
    ) AS named
    WHERE named.oid IS NOT NULL
    UNION
    SELECT member.name, inherits.inhrelid, false
    FROM member JOIN pg_catalog.pg_inherits AS inherits ON inherits.inhparent = member.relid
)
SELECT name, relid, is_named FROM member

-- name: type_of
-- Of a column of the table with an oid.
SELECT format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute
WHERE attrelid = %(oid)s AND attname = %(column)s AND NOT attisdropped

-- name: pins
-- What the text of a value depends on, as the capture functions pin it; for this transaction.
SELECT set_config(name, value, true)
FROM (VALUES ('datestyle', 'ISO, MDY'), ('timezone', 'UTC'), ('intervalstyle', 'iso_8601'), ('bytea_output', 'hex'),
             ('extra_float_digits', '1')) AS pinned (name, value)

-- name: reach
-- How far back the log goes, and what was deleted: up to which transaction for its age, and for the caps. One look at the
-- beginning of the index; right after much was deleted, it passes what VACUUM has yet to remove.
SELECT oldest.xid::text AS xid, oldest.id, oldest.at,
       (
           SELECT pg_snapshot_xmax(snapshot)::text::bigint - 1 FROM /* :schema */djcrf_pg_cursor WHERE name = 'pruned'
       ) AS pruned,
       CASE WHEN has_sequence_privilege(to_regclass('/* :schema */djcrf_pg_reach_xid')::oid, 'SELECT')
            THEN pg_sequence_last_value(to_regclass('/* :schema */djcrf_pg_reach_xid')) END AS trimmed
FROM (VALUES (1)) AS one (row)
LEFT JOIN (SELECT xid, id, at FROM /* :schema */djcrf_pg_change ORDER BY xid, id LIMIT 1) AS oldest ON true

-- name: newest
SELECT xid::text AS xid, id, at FROM /* :schema */djcrf_pg_change ORDER BY xid DESC, id DESC LIMIT 1

-- name: since
-- The first transaction that has a change from a time on. It goes through the whole log, without the images.
SELECT min(xid::text::bigint) FROM /* :schema */djcrf_pg_change WHERE at >= %(since)s

-- name: leader
-- :holder of the leader's lock, and the cursor; `waiting` is when the oldest change was written that the cursor has not
-- passed. A cursor of the future is another cluster's.
SELECT holder.pid, holder.application_name AS leader, cursor.snapshot::text AS snapshot, cursor.target::text AS target,
       cursor.term, cursor.saved_at,
       pg_snapshot_xmax(cursor.snapshot) > pg_snapshot_xmax(pg_current_snapshot()) AS is_strange,
       (
           SELECT change.at FROM /* :schema */djcrf_pg_change AS change
           WHERE change.xid >= pg_snapshot_xmin(coalesce(cursor.snapshot, '1:1:'))
             AND NOT pg_visible_in_snapshot(change.xid, coalesce(cursor.snapshot, '1:1:'))
           ORDER BY change.xid, change.id
           LIMIT 1
       ) AS waiting,
       clock_timestamp() AS now
FROM (VALUES ('leader')) AS wanted (name)
LEFT JOIN /* :schema */djcrf_pg_cursor AS cursor USING (name)
LEFT JOIN (/* :holder */) AS holder ON true
LIMIT 1

-- name: subscribers
-- What processes have published of their subscriptions, each with the session that says that it lives.
SELECT interest.holder, interest.chunk, interest.bits::text AS bits, locks.pid, activity.application_name
FROM /* :schema */djcrf_pg_interest AS interest
LEFT JOIN pg_catalog.pg_locks AS locks
       ON locks.locktype = 'advisory' AND locks.granted AND locks.objsubid = 2
      AND locks.classid = %(class)s::int8::oid AND locks.objid = interest.holder::oid
      AND locks.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
LEFT JOIN pg_catalog.pg_stat_activity AS activity ON activity.pid = locks.pid
ORDER BY interest.holder, interest.chunk

-- name: deletable
-- What a leader has delivered, by its snapshot, and is older than %(keep)s seconds.
SELECT count(*), min(at), max(at) FROM /* :schema */djcrf_pg_change
WHERE xid < pg_snapshot_xmin(%(snapshot)s::pg_snapshot)
  AND at < clock_timestamp() - make_interval(secs => %(keep)s)

-- name: activity
-- What the statistics of the server count: rows that were ever written to the log, also those of transactions that were
-- rolled back; and the bytes that it takes.
SELECT pg_stat_get_tuples_inserted(log.oid), pg_total_relation_size(log.oid), clock_timestamp()
FROM (SELECT to_regclass('/* :schema */djcrf_pg_change')::oid AS oid) AS log
