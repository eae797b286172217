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

-- name: casts
-- Casts to json that row_to_json calls for columns of tables: json looks through domains, arrays and composite types, and
-- calls a cast of any other type that is not built in (PostgreSQL's json_categorize_type). Those that matter are
-- nobody's whom our functions trust: of no extension, and whose function belongs neither to our functions' owner, with
-- whose rights it is called, nor to a superuser.
WITH RECURSIVE reached (relid, attname, type) AS (
    SELECT attrelid, attname, atttypid FROM pg_catalog.pg_attribute
    WHERE attrelid = ANY (%s::oid[]) AND attnum > 0 AND NOT attisdropped
    UNION
    SELECT reached.relid, reached.attname, inner_type.oid
    FROM reached
    JOIN pg_catalog.pg_type AS t ON t.oid = reached.type
    CROSS JOIN LATERAL (
        SELECT t.typbasetype WHERE t.typtype = 'd'
        UNION ALL
        SELECT t.typelem WHERE t.typelem <> 0 AND t.typcategory = 'A'
        UNION ALL
        SELECT atttypid FROM pg_catalog.pg_attribute
        WHERE t.typtype = 'c' AND attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped
    ) AS inner_type (oid)
), ours AS (
    SELECT proowner FROM pg_catalog.pg_proc
    WHERE pronamespace = %s::regnamespace AND proname LIKE 'djcrf\_pg\_capture\_%%'
)
SELECT reached.relid, reached.attname, format_type(reached.type, NULL) AS type,
       p.oid::regprocedure::text AS function, pg_get_userbyid(p.proowner) AS owner,
       (SELECT string_agg(DISTINCT pg_get_userbyid(proowner), ', ') FROM ours) AS runs_as
FROM reached
JOIN pg_catalog.pg_type AS t ON t.oid = reached.type AND t.typtype NOT IN ('d', 'c')
JOIN pg_catalog.pg_cast AS c
  ON c.castsource = reached.type AND c.casttarget = 'json'::regtype AND c.castfunc <> 0 AND c.oid >= 16384
JOIN pg_catalog.pg_proc AS p ON p.oid = c.castfunc
JOIN pg_catalog.pg_roles AS role ON role.oid = p.proowner
WHERE NOT role.rolsuper AND p.proowner NOT IN (SELECT proowner FROM ours)
  AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_depend
      WHERE classid = 'pg_cast'::regclass AND objid = c.oid AND deptype = 'e'
  )
ORDER BY reached.relid, reached.attname, type
