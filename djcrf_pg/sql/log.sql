-- For whoever works on the change log, over either driver: no parameters, which the drivers write differently.

-- name: schema
-- The schema that holds the change log, found the way unqualified names are; always quoted, as Django quotes.
SELECT '"' || replace(n.nspname, '"', '""') || '"'
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass('djcrf_pg_change')

-- name: oid
-- Of the table that a quoted :name stands for; null where there is none. to_regclass() raises where the name has a schema
-- and the role no right on that.
CASE cardinality(parse_ident(/* :name */))
    WHEN 2 THEN (
        SELECT c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = (parse_ident(/* :name */))[1]::name AND c.relname = (parse_ident(/* :name */))[2]::name
    )
    ELSE to_regclass(/* :name */)::oid
END

-- name: caps
-- :age seconds, :rows, :bytes.
UPDATE /* :schema */djcrf_pg_cap
SET max_age = make_interval(secs => /* :age */), max_rows = /* :rows */, max_bytes = /* :bytes */
WHERE (max_age, max_rows, max_bytes)
   IS DISTINCT FROM (make_interval(secs => /* :age */), /* :rows */::bigint, /* :bytes */::bigint)

-- name: rings
-- :rings, 0 or 1: whether to ring although transactions can be prepared here. Nothing where a former version is migrated.
SELECT setval(c.oid, /* :rings */)
FROM pg_catalog.pg_class AS c
WHERE c.oid = to_regclass('/* :schema */djcrf_pg_rings') AND pg_sequence_last_value(c.oid) <> /* :rings */

-- name: prepares
-- Whether transactions can be prepared here.
SELECT current_setting('max_prepared_transactions')::int > 0

-- name: whereabouts
-- :names of tables, whatever the search_path: which schemas have some, and who asks. At least one row.
SELECT session.role, session.path, c.relname::text AS name, quote_ident(n.nspname) AS schema,
       has_schema_privilege(n.oid, 'USAGE') AS usable, pg_table_is_visible(c.oid) AS visible
FROM (SELECT current_user::text AS role, current_setting('search_path') AS path) AS session
LEFT JOIN (
    pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname !~ '^pg_temp_'
) ON c.relname = ANY (/* :names */) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY c.relname, n.nspname
