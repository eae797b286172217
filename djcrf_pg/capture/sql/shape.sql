-- :schema of the log. A row image names its columns, and they are read by the names of today. So a name that stands for
-- another column than before (two columns were renamed to each other, or one was dropped and its name used again) gives
-- images of before a wrong value that nobody can see. Those who hear of the table are told to load again.
WITH present AS (
    SELECT a.attrelid AS relation, jsonb_object_agg(a.attname, a.attnum) AS columns
    FROM pg_catalog.pg_attribute AS a
    WHERE a.attnum > 0 AND NOT a.attisdropped AND EXISTS (
        SELECT FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
        WHERE t.tgrelid = a.attrelid AND p.proname LIKE 'djcrf\_pg\_capture\_%'
          AND p.pronamespace = (
              SELECT relnamespace FROM pg_catalog.pg_class WHERE oid = '/* :schema */djcrf_pg_shape'::regclass
          )
    )
    GROUP BY a.attrelid
), said AS (
    -- A position in the WAL, as the ids of the triggers are: it comes behind what they have written.
    INSERT INTO /* :schema */djcrf_pg_change (id, relation, op) OVERRIDING SYSTEM VALUE
    SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint + row_number() OVER (), present.relation, 'R'::"char"
    FROM present JOIN /* :schema */djcrf_pg_shape AS known ON known.relation = present.relation
    WHERE EXISTS (
        SELECT FROM jsonb_each(known.columns) AS former JOIN jsonb_each(present.columns) AS now USING (key)
        WHERE former.value <> now.value
    )
), gone AS (
    DELETE FROM /* :schema */djcrf_pg_shape AS shape USING present
    WHERE shape.relation = present.relation AND shape.columns <> present.columns
)
INSERT INTO /* :schema */djcrf_pg_shape (relation, columns)
SELECT relation, columns FROM present
WHERE NOT EXISTS (
    SELECT FROM /* :schema */djcrf_pg_shape AS shape
    WHERE shape.relation = present.relation AND shape.columns = present.columns
)
