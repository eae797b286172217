-- name: suspend
-- Adds tables, and the partitions they have now, to what the transaction suspends; returns what it was before.
-- Oids, so that a rename changes nothing. A table that does not exist cannot be written to either.
WITH before AS MATERIALIZED (
    SELECT coalesce(current_setting('djcrf_pg.suspend', true), '') AS tables
), added AS MATERIALIZED (
    SELECT string_agg(DISTINCT member.relid::oid::text, ',') AS tables
    FROM unnest(%(tables)s::text[]) AS wanted (name)
    CROSS JOIN LATERAL (
        SELECT to_regclass(wanted.name) AS relid
        UNION
        SELECT relid FROM pg_partition_tree(to_regclass(wanted.name))
    ) AS member
)
SELECT before.tables,
       set_config(
           'djcrf_pg.suspend',
           concat_ws(',', nullif(before.tables, ''), CASE WHEN %(everything)s THEN '*' ELSE added.tables END),
           true
       )
FROM before, added

-- name: resume
SELECT set_config('djcrf_pg.suspend', %(tables)s, true)
