-- name: read
-- $1 last snapshot, $2 rows, $3 bytes; :window goes from there to what is visible now, :weight is a row's, :version the query
-- below.
-- One statement, one snapshot (READ COMMITTED): what it sees and its pg_current_snapshot() agree. The first
-- row always passes the limit of bytes; `found` tells whether the limits cut something off. Some transactions may have an id in
-- common, so none is cut in two: the next read goes on behind it.
WITH piece AS (
    /* :window */
    ORDER BY part.id
    LIMIT $2::bigint + 64 -- not WITH TIES, which would sort all that there is
), weighed AS (
    SELECT piece.*, count(*) OVER () AS found, max(id) OVER () AS last,
           count(*) OVER (ORDER BY id RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS earlier,
           sum(bytes) OVER (ORDER BY id RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM piece
    CROSS JOIN LATERAL (/* :weight */) AS weight
)
SELECT s.snapshot, s.process, s.interest, w.found, w.id, w.xid::text AS xid, w.relation::oid AS relation, w.op::text AS op, w.depth,
       w.old::text AS old, w.new::text AS new, w.context, w.at
FROM (
    SELECT pg_current_snapshot()::text AS snapshot, pg_backend_pid() AS process, (/* :version */) AS interest
) AS s
LEFT JOIN weighed AS w
       ON w.earlier < $2 AND (w.before IS NULL OR w.before < $3) AND (w.found < $2::bigint + 64 OR w.id < w.last OR w.earlier = 0)
ORDER BY w.id, w.xid

-- name: version
-- Of who has which groups; null where the table is not there, or not for our role. As it is now, whatever the snapshot.
SELECT CASE WHEN has_sequence_privilege(version.oid, 'SELECT, USAGE') AND has_table_privilege(interest.oid, 'SELECT')
            THEN pg_sequence_last_value(version.oid) END
FROM (SELECT to_regclass('/* :schema */djcrf_pg_interest_version')::oid AS oid) AS version,
     (SELECT to_regclass('/* :schema */djcrf_pg_interest')::oid AS oid) AS interest

-- name: interest
SELECT chunk, bit_or(bits) AS bits FROM /* :schema */djcrf_pg_interest GROUP BY chunk

-- name: left
-- $1 class of the locks of holders: those who have none.
SELECT DISTINCT holder FROM /* :schema */djcrf_pg_interest
WHERE holder NOT IN (
    SELECT objid::int8 FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid = $1::int8::oid
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)

-- name: forget
-- $1 holders.
DELETE FROM /* :schema */djcrf_pg_interest WHERE holder = ANY ($1::int[])

-- name: images
-- $1 transactions and $2 ids: what may have been deleted meanwhile is left out.
SELECT id, xid::text AS xid, relation::oid AS relation, op::text AS op, depth, old::text AS old, new::text AS new,
       context, at
FROM unnest($1::text[]::xid8[], $2::bigint[]) AS key (xid, id)
JOIN /* :schema */djcrf_pg_change AS change USING (xid, id)
ORDER BY id, change.xid

-- name: unreadable
-- As `images`, of rows whose images cannot be read.
SELECT id, xid::text AS xid, relation::oid AS relation, 'R' AS op, depth, NULL AS old, NULL AS new, NULL AS context, at
FROM unnest($1::text[]::xid8[], $2::bigint[]) AS key (xid, id)
JOIN /* :schema */djcrf_pg_change AS change USING (xid, id)
ORDER BY id

-- name: now
SELECT pg_current_snapshot()::text

-- name: moment
SELECT pg_current_snapshot()::text AS snapshot, clock_timestamp() AS at

-- name: relations
-- The columns of tables as the driver would see their types: a domain is its base type. A row of a table that inherits
-- is a row of all its ancestors, which have fewer columns perhaps; a partition is no such table.
SELECT c.oid, CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid ELSE c.oid END AS root,
       CASE WHEN c.relispartition THEN '{}' ELSE ARRAY(
           WITH RECURSIVE ancestor (oid) AS (
               SELECT inhparent FROM pg_inherits WHERE inhrelid = c.oid
               UNION
               SELECT inhparent FROM ancestor JOIN pg_inherits ON inhrelid = ancestor.oid
           )
           SELECT oid FROM ancestor
       ) END AS ancestors,
       format('%I.%I', n.nspname, c.relname) AS name, a.attname AS column,
       EXISTS (
           SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary AND NOT indimmediate
       ) AS deferrable,
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

-- name: heard
-- $1 class of the locks that say whose events are heard.
SELECT DISTINCT objid::int8 AS key FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid = $1::int8::oid
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())

-- name: oids
-- $1 quoted names, :oid of one.
SELECT name, /* :oid */ AS oid FROM unnest($1::text[]) AS wanted (name)

-- name: prune
-- $1 snapshot delivered, $2 seconds to keep, $3 rows: the oldest rows by the only index there is, from where the last trim has
-- found the first one. What was deleted before it may be in the index for as long as somebody's snapshot is old.
WITH front AS (
    SELECT CASE WHEN late.last_value = 0 THEN xid.last_value ELSE least(xid.last_value, late.last_value) END::text::xid8 AS xid,
           CASE WHEN late.last_value = 0 THEN id.last_value ELSE 0 END AS id
    FROM /* :schema */djcrf_pg_front_xid AS xid, /* :schema */djcrf_pg_front_id AS id, /* :schema */djcrf_pg_late AS late
), oldest AS (
    SELECT xid, id FROM /* :schema */djcrf_pg_change
    WHERE xid < pg_snapshot_xmin($1::text::pg_snapshot)
      AND (xid, id) >= (  -- one from another cluster's dump says nothing
          (SELECT CASE WHEN xid < pg_snapshot_xmax(pg_current_snapshot()) THEN xid ELSE '0' END FROM front),
          (SELECT CASE WHEN xid < pg_snapshot_xmax(pg_current_snapshot()) THEN id ELSE 0 END FROM front)
      )
    ORDER BY xid, id
    LIMIT $3
    FOR UPDATE SKIP LOCKED  -- writers trim the log too
), deleted AS (
    DELETE FROM /* :schema */djcrf_pg_change AS change
    USING oldest
    WHERE change.xid = oldest.xid AND change.id = oldest.id
      AND change.at < clock_timestamp() - make_interval(secs => $2)
    RETURNING change.xid
), noted AS (
    -- For those who resume: what they have not seen may be gone.
    INSERT INTO /* :schema */djcrf_pg_cursor AS cursor (name, snapshot, term)
    SELECT 'pruned', format('%1$s:%1$s:', (max(xid::text::bigint) + 1))::pg_snapshot, 0 FROM deleted HAVING count(*) > 0
    ON CONFLICT (name) DO UPDATE SET snapshot = excluded.snapshot, saved_at = clock_timestamp()
    WHERE pg_snapshot_xmax(cursor.snapshot) < pg_snapshot_xmax(excluded.snapshot)
       OR pg_snapshot_xmax(cursor.snapshot) > pg_snapshot_xmax(pg_current_snapshot()) -- of another cluster's dump
)
SELECT count(*) FROM deleted

-- name: take
-- A cursor that is not there starts at the beginning of the log: twice is allowed, a hole never. Terms are
-- milliseconds, or one more than the last: so they rise also where the cursor was lost or is from a dump. A term of the
-- far future, which nothing could follow, and a position that cannot be are damage: somebody has written to the table.
INSERT INTO /* :schema */djcrf_pg_cursor AS cursor (name, snapshot, term)
VALUES ($1, '1:1:', extract(epoch FROM clock_timestamp()) * 1000)
ON CONFLICT (name) DO UPDATE
SET term = CASE WHEN cursor.term < excluded.term * 1000 THEN greatest(cursor.term + 1, excluded.term) ELSE excluded.term END,
    saved_at = clock_timestamp()
RETURNING snapshot::text AS snapshot, target::text AS target, after_id, term,
          CASE WHEN greatest(pg_snapshot_xmax(snapshot), pg_snapshot_xmax(target)) > pg_snapshot_xmax(pg_current_snapshot())
               THEN 'lies in this server''s future (a restored dump?)'
               WHEN pg_snapshot_xmax(target) < pg_snapshot_xmax(snapshot)
               THEN format('has a target (%s) that lies before it', target)
          END AS fault

-- name: adopt
-- Rows of a log restored from another cluster, whose transaction ids lie in this one's future: they become part of
-- this transaction, so that they are read once, and now. Rows of this cluster are never seen with such an xid. Their ids
-- are positions in the WAL of the other cluster: they become ones that come before any of this one's, in their order.
WITH strangers AS (
    DELETE FROM /* :schema */djcrf_pg_change WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()) RETURNING *
)
INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, depth, old, new, context, at) OVERRIDING SYSTEM VALUE
SELECT row_number() OVER (ORDER BY id, xid), relation, op, depth, old, new, context, at FROM strangers

-- name: save
-- Where the row is gone (a flush of all tables), it is made again; where another term has it, nothing happens. Nobody
-- waits for the disk: a crash of the server may bring an older cursor back, from which the same is sent again, and never
-- a later one than what was committed before it.
INSERT INTO /* :schema */djcrf_pg_cursor AS cursor (name, snapshot, target, after_id, term)
SELECT $1::text, $2::text::pg_snapshot, $3::text::pg_snapshot, $4::int8, $5::int8
FROM set_config('synchronous_commit', 'off', true)
ON CONFLICT (name) DO UPDATE
SET snapshot = excluded.snapshot, target = excluded.target, after_id = excluded.after_id,
    saved_at = clock_timestamp()
WHERE cursor.term = excluded.term

-- name: beat
-- The term that owns the cursor; nothing where it is gone (a flush of all tables), which is nobody's claim.
WITH touched AS (
    UPDATE /* :schema */djcrf_pg_cursor SET saved_at = clock_timestamp() WHERE name = $1 AND term = $2
)
SELECT term FROM /* :schema */djcrf_pg_cursor WHERE name = $1

-- name: trim
-- $1 rows. A writer that is at it has the lock, and needs no help.
SELECT CASE WHEN pg_try_advisory_xact_lock(1684693878, '/* :schema */djcrf_pg_change'::regclass::oid::int8::bit(32)::int)
            THEN /* :schema */djcrf_pg_shorten_v1($1, clock_timestamp() + interval '0.2 s', 9223372036854775807)
            ELSE false END

-- name: may_look
SELECT coalesce(
    has_function_privilege(to_regprocedure('/* :schema */djcrf_pg_look_v1()'), 'EXECUTE'), false
)

-- name: look
SELECT /* :schema */djcrf_pg_look_v1()

-- name: flag
SELECT setval('/* :schema */djcrf_pg_listener_awake', $1)

-- name: queue
-- As in djcrf_pg_ring_v2.
SELECT pg_notification_queue_usage() >= 0.5
