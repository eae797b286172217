-- :last and :target snapshots: what is committed in the one and was not in the other. A log restored from another
-- cluster may hold transaction ids of the future, which belong to nobody here.
SELECT part.*
FROM (
    SELECT * FROM /* :schema */djcrf_pg_change
    WHERE xid >= pg_snapshot_xmax(/* :last */) AND xid < pg_snapshot_xmax(/* :target */)
    UNION ALL
    SELECT * FROM /* :schema */djcrf_pg_change
    WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip(/* :last */)))
) AS part
WHERE pg_visible_in_snapshot(part.xid, /* :target */)
