-- name: identity
-- The identifier was drawn by initdb, and physical replicas have their primary's.
SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()),
       (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()),
       to_regclass('djcrf_pg_change')::oid

-- name: tables
-- Each named table with its partitions and the tables that inherit from it: a statement fires only the triggers of the
-- table that it names. From pg_inherits, for pg_partition_tree() would wait for a lock on each partition. A partition
-- that is being detached concurrently has left already: no statement on the root reaches it.
WITH RECURSIVE member (name, relid) AS (
    SELECT wanted.name, to_regclass(wanted.name)::oid FROM unnest(%s::text[]) AS wanted (name)
    UNION
    SELECT member.name, inherits.inhrelid
    FROM member
    JOIN pg_catalog.pg_inherits AS inherits ON inherits.inhparent = member.relid AND NOT inherits.inhdetachpending
)
SELECT member.name, c.oid, format('%%I.%%I', n.nspname, c.relname) AS qualified, c.relkind::text AS kind
FROM member
JOIN pg_catalog.pg_class AS c ON c.oid = member.relid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
ORDER BY member.name, c.oid

-- name: absent
SELECT wanted.name FROM unnest(%s::text[]) AS wanted (name) WHERE to_regclass(wanted.name) IS NULL
ORDER BY wanted.name

-- name: elsewhere
WITH RECURSIVE line (oid, relid) AS (
    SELECT c.oid, c.oid FROM unnest(%s::oid[]) AS c (oid)
    UNION
    SELECT line.oid, inherits.inhparent
    FROM line
    JOIN pg_catalog.pg_inherits AS inherits ON inherits.inhrelid = line.relid
)
SELECT DISTINCT line.oid
FROM line
JOIN pg_catalog.pg_class AS root ON root.oid = line.relid
WHERE root.relname = ANY (%s::text[]) AND NOT pg_table_is_visible(root.oid)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits AS inherits WHERE inherits.inhrelid = root.oid)

-- name: triggers
-- Every trigger that calls one of our functions, whatever it is named.
SELECT c.oid, format('%%I.%%I', n.nspname, c.relname) AS qualified, c.relname,
       t.tgname, obj_description(t.oid, 'pg_trigger') AS comment, t.tgenabled IN ('O', 'A') AS enabled
FROM pg_catalog.pg_trigger AS t
JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal
  AND p.pronamespace = %s::regnamespace
  AND p.proname LIKE 'djcrf\_pg\_capture\_%%'
ORDER BY c.oid, t.tgname

-- name: taken
-- Tables, out of some, whose triggers of these names call functions beside another change log.
SELECT t.tgrelid, min(obj_description(t.oid, 'pg_trigger'))
FROM pg_catalog.pg_trigger AS t
JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
WHERE t.tgrelid = ANY (%s::oid[]) AND t.tgname = ANY (%s::text[]) AND p.pronamespace <> %s::regnamespace
GROUP BY t.tgrelid

-- name: versions
SELECT substring(proname FROM 'v[0-9]+$') FROM pg_catalog.pg_proc
WHERE pronamespace = %s::regnamespace AND proname LIKE 'djcrf\_pg\_capture\_insert\_v%%'
