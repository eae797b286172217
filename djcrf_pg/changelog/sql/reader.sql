-- name: read
-- $1 last snapshot, $2 target snapshot or null, $3 after id, $4 rows, $5 bytes.
-- One statement, one snapshot (READ COMMITTED): what it sees and its pg_current_snapshot() agree. The first
-- row always passes the limit of bytes; `found` tells whether the limits cut something off. A log restored from
-- another cluster may hold transaction ids of the future, which belong to nobody here.
WITH piece AS (
    SELECT part.*
    FROM (
        SELECT * FROM /* :schema */djcrf_pg_change
        WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot)
          AND xid < pg_snapshot_xmax(coalesce($2::text::pg_snapshot, pg_current_snapshot()))
        UNION ALL
        SELECT * FROM /* :schema */djcrf_pg_change
        WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
    ) AS part
    WHERE part.id > $3 AND pg_visible_in_snapshot(part.xid, coalesce($2::text::pg_snapshot, pg_current_snapshot()))
    ORDER BY part.id
    LIMIT $4 + 1
), weighed AS (
    SELECT piece.*, count(*) OVER () AS found,
           sum(bytes) OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM piece
    CROSS JOIN LATERAL (
        -- What is small is not compressed; what is large may be many times larger than it is stored.
        SELECT sum(CASE WHEN pg_column_size(image) < 1500 THEN pg_column_size(image)
                        ELSE octet_length(image::text) END) AS bytes
        FROM (VALUES (old), (new)) AS images (image)
    ) AS weight
)
SELECT s.snapshot, w.id, w.xid::text AS xid, w.relation::oid AS relation, w.op::text AS op, w.old::text AS old,
       w.new::text AS new, w.context, w.at, w.found
FROM (SELECT pg_current_snapshot()::text AS snapshot) AS s
LEFT JOIN weighed AS w ON w.before IS NULL OR w.before < $5
ORDER BY w.id

-- name: relations
-- The columns of tables as the driver would see their types: a domain is its base type.
SELECT c.oid, CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid ELSE c.oid END AS root,
       format('%I.%I', n.nspname, c.relname) AS name, a.attname AS column,
       coalesce(base.oid, t.oid) AS type, coalesce(base.typname, t.typname) AS type_name,
       coalesce(base.typtype, t.typtype)::text AS kind, a.attgenerated = 'v' AS virtual,
       element.oid AS element, element.typname AS element_name, element.typtype::text AS element_kind
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type AS t ON t.oid = a.atttypid
LEFT JOIN LATERAL (
    WITH RECURSIVE bases AS (
        SELECT t.typbasetype AS oid WHERE t.typtype = 'd'
        UNION ALL
        SELECT inner_type.typbasetype FROM bases JOIN pg_type AS inner_type USING (oid) WHERE inner_type.typtype = 'd'
    )
    SELECT base_type.* FROM bases JOIN pg_type AS base_type USING (oid) WHERE base_type.typtype <> 'd'
) AS base ON true
LEFT JOIN pg_type AS element
       ON element.oid = coalesce(base.typelem, t.typelem) AND coalesce(base.typcategory, t.typcategory) = 'A'
WHERE c.oid = ANY ($1::oid[])
ORDER BY c.oid, a.attnum

-- name: oids
SELECT wanted.name, to_regclass(wanted.name)::oid AS oid FROM unnest($1::text[]) AS wanted (name)

-- name: prune
-- $1 snapshot delivered, $2 seconds to keep, $3 rows: the oldest rows by the only index there is.
WITH oldest AS (
    SELECT xid, id FROM /* :schema */djcrf_pg_change
    WHERE xid < pg_snapshot_xmin($1::text::pg_snapshot)
    ORDER BY xid, id
    LIMIT $3
)
DELETE FROM /* :schema */djcrf_pg_change AS change
USING oldest
WHERE change.xid = oldest.xid AND change.id = oldest.id
  AND change.at < clock_timestamp() - make_interval(secs => $2)

-- name: take
-- A cursor that is not there starts at the beginning of the log: twice is allowed, a hole never.
INSERT INTO /* :schema */djcrf_pg_cursor AS cursor (name, snapshot, term) VALUES ($1, '1:1:', 1)
ON CONFLICT (name) DO UPDATE SET term = cursor.term + 1, saved_at = clock_timestamp()
RETURNING snapshot::text AS snapshot, target::text AS target, after_id, term,
          pg_snapshot_xmax(coalesce(target, snapshot)) > pg_snapshot_xmax(pg_current_snapshot()) AS future

-- name: adopt
-- Rows of a log restored from another cluster, whose transaction ids lie in this one's future: they become part of
-- this transaction, so that they are read once, and now. Rows of this cluster are never seen with such an xid.
UPDATE /* :schema */djcrf_pg_change SET xid = pg_current_xact_id()
WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())

-- name: save
-- Where the row is gone (a flush of all tables), it is made again; where another term has it, nothing happens.
INSERT INTO /* :schema */djcrf_pg_cursor AS cursor (name, snapshot, target, after_id, term)
VALUES ($1, $2::text::pg_snapshot, $3::text::pg_snapshot, $4, $5)
ON CONFLICT (name) DO UPDATE
SET snapshot = excluded.snapshot, target = excluded.target, after_id = excluded.after_id,
    saved_at = clock_timestamp()
WHERE cursor.term = excluded.term

-- name: flag
SELECT setval('/* :schema */djcrf_pg_listener_awake', $1)
