-- name: schema
-- The schema that holds the change log, found the way unqualified names are.
SELECT n.nspname
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass('djcrf_pg_change')

-- name: tables
-- Each named table with its partitions: a statement fires only the triggers of the table that it names.
SELECT wanted.name, c.oid, format('%%I.%%I', n.nspname, c.relname) AS qualified, c.relkind::text AS kind
FROM unnest(%s::text[]) AS wanted (name)
JOIN LATERAL (
    SELECT to_regclass(wanted.name) AS relid
    UNION
    SELECT relid FROM pg_partition_tree(to_regclass(wanted.name))
) AS member ON member.relid IS NOT NULL
JOIN pg_catalog.pg_class AS c ON c.oid = member.relid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
ORDER BY wanted.name, c.oid

-- name: triggers
-- Every trigger that calls one of our functions, whatever it is named.
SELECT c.oid, format('%%I.%%I', n.nspname, c.relname) AS qualified,
       t.tgname, obj_description(t.oid, 'pg_trigger') AS comment, t.tgenabled IN ('O', 'A') AS enabled
FROM pg_catalog.pg_trigger AS t
JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal
  AND p.pronamespace = %s::regnamespace
  AND p.proname LIKE 'djcrf\_pg\_capture\_%%'
ORDER BY c.oid, t.tgname
