-- name: last
-- The last change of this transaction, which is one index probe; 0 where it has none.
SELECT coalesce(max(id), 0) FROM /* :schema */djcrf_pg_change WHERE xid = pg_current_xact_id_if_assigned()

-- name: uncommitted
-- $1 id: what this transaction has changed since.
SELECT id, xid::text AS xid, relation::oid AS relation, op::text AS op, depth, old::text AS old, new::text AS new,
       context, at
FROM /* :schema */djcrf_pg_change
WHERE xid = pg_current_xact_id_if_assigned() AND id > $1
ORDER BY id

-- name: committed
-- $1 snapshot, :window from there to what is visible now: what was committed since.
SELECT id, xid::text AS xid, relation::oid AS relation, op::text AS op, depth, old::text AS old, new::text AS new,
       context, at
FROM (/* :window */) AS change
ORDER BY id
