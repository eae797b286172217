-- What changes a table, or the view of it, and fires no trigger. A migration references this file: it is frozen once
-- released.

-- How a table with triggers stood at the last look. Null is unknown: a version before these columns has written the row.
ALTER TABLE /* :schema */djcrf_pg_shape
    -- Qualified and quoted: another table may stand under the name later.
    ADD COLUMN name text,
    -- Its partitions and the tables that inherit from it, near and far.
    ADD COLUMN members oid[],
    -- The file of its rows. VACUUM FULL, CLUSTER and TRUNCATE give it another one, as does ALTER TABLE where it rewrites.
    ADD COLUMN storage oid,
    -- A hash that another one follows with each ALTER TABLE of a column, and with nothing else.
    ADD COLUMN altered text,
    -- Each trigger of ours: its oid, whether it is enabled, the transaction that altered it last, and what it calls.
    ADD COLUMN triggers jsonb,
    -- Of an unlogged table, which crash of the server was the last before the look.
    ADD COLUMN crashed timestamptz;

-- Looks at the tables that have triggers of ours, and logs R for each whose rows may be others than the log says: all
-- who are told of it load again. Called by migrate and by the leader, now and then. Returns how many it has logged;
-- null where somebody else is at it, or installs triggers.
--
-- It reads the catalog alone and waits for no table. What it takes for a change:
-- * a name stands for another column: images of before would be read by the names of today;
-- * rows were rewritten (another file) and a column was altered: ALTER COLUMN … TYPE … USING, a new column with a
--   volatile default. One without the other changes no value: VACUUM FULL, CLUSTER and pg_repack alter no column;
-- * a partition or a child has come or gone;
-- * a trigger has come, gone, or was disabled or enabled. One that calls something else than before was replaced, which
--   is a change without a gap;
-- * another table stands under the name;
-- * the server has crashed and the table is unlogged, so it is empty. After a crash the server has lost its statistics,
--   and says since when it has some.
CREATE FUNCTION /* :schema */djcrf_pg_look_v1() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    present record;
    is_news boolean;
    is_noted boolean;
    logged bigint := 0;
BEGIN
    -- The key of whoever installs triggers: what they are in the middle of is no news.
    IF NOT pg_try_advisory_xact_lock(7235705094319075431) THEN
        RETURN NULL;
    END IF;
    FOR present IN
        WITH RECURSIVE ours AS (
            SELECT t.tgrelid AS relation, jsonb_object_agg(t.tgname, jsonb_build_object(
                'oid', t.oid, 'on', t.tgenabled IN ('O', 'A'), 'xmin', t.xmin::text,
                'calls', t.tgfoid::text || ' ' || encode(t.tgargs, 'hex')
            )) AS triggers
            FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
            WHERE NOT t.tgisinternal AND p.proname LIKE 'djcrf\_pg\_capture\_%' AND p.pronamespace = (
                SELECT relnamespace FROM pg_class WHERE oid = '/* :schema */djcrf_pg_shape'::regclass
            )
            GROUP BY t.tgrelid
        ), standing AS (
            -- Not to_regclass(), which asks for a right on the schema.
            SELECT c.oid AS relation, shape.relation AS former
            FROM /* :schema */djcrf_pg_shape AS shape
            CROSS JOIN LATERAL parse_ident(shape.name) AS ident (parts)
            JOIN pg_namespace AS n ON n.nspname = ident.parts[1]
            JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = ident.parts[2]
        ), watched (relation) AS (
            SELECT relation FROM ours
            UNION
            -- One without triggers that stands where a table with triggers stood.
            SELECT relation FROM standing
        ), member (relation, relid) AS (
            SELECT relation, relation FROM watched
            UNION
            SELECT member.relation, inherits.inhrelid
            FROM member
            JOIN pg_inherits AS inherits ON inherits.inhparent = member.relid AND NOT inherits.inhdetachpending
        )
        SELECT c.oid::regclass AS relation, format('%I.%I', n.nspname, c.relname) AS name, c.relfilenode AS storage,
               attributes.columns, attributes.altered, coalesce(ours.triggers, '{}') AS triggers,
               ARRAY(
                   SELECT relid FROM member WHERE member.relation = c.oid AND relid <> c.oid ORDER BY relid
               ) AS members,
               CASE WHEN c.relpersistence = 'u' THEN (SELECT stats_reset FROM pg_stat_archiver) END AS crashed,
               EXISTS (
                   SELECT FROM standing WHERE standing.relation = c.oid AND standing.former <> c.oid
               ) AS is_another
        FROM watched
        JOIN pg_class AS c ON c.oid = watched.relation AND c.relkind IN ('r', 'p')
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        LEFT JOIN ours ON ours.relation = c.oid
        CROSS JOIN LATERAL (
            SELECT jsonb_object_agg(a.attname, a.attnum) AS columns,
                   md5(string_agg(a.attnum || ' ' || a.xmin, ',' ORDER BY a.attnum)) AS altered
            FROM pg_attribute AS a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        ) AS attributes
        WHERE attributes.columns IS NOT NULL
        ORDER BY c.oid
    LOOP
        SELECT bool_or(
                   EXISTS (
                       SELECT FROM jsonb_each(known.columns) AS former
                       JOIN jsonb_each(present.columns) AS now USING (key)
                       WHERE former.value <> now.value
                   )
                   OR known.storage <> present.storage AND known.altered <> present.altered
                   OR known.members <> present.members
                   OR known.crashed <> present.crashed
                   OR known.triggers IS NOT NULL AND EXISTS (
                       SELECT FROM jsonb_each(known.triggers) AS former
                       FULL JOIN jsonb_each(present.triggers) AS now USING (key)
                       WHERE former.value IS DISTINCT FROM now.value AND NOT coalesce(
                           former.value->'oid' = now.value->'oid' AND former.value->'calls' <> now.value->'calls'
                           AND former.value->'on' = 'true' AND now.value->'on' = 'true', false
                       )
                   )
               ),
               bool_and(
                   (known.columns, known.name, known.members, known.storage, known.altered, known.triggers, known.crashed)
                   IS NOT DISTINCT FROM
                   (present.columns, present.name, present.members, present.storage, present.altered, present.triggers,
                    present.crashed)
               )
        INTO is_news, is_noted
        FROM /* :schema */djcrf_pg_shape AS known WHERE known.relation = present.relation;
        IF is_news OR present.is_another THEN
            INSERT INTO /* :schema */djcrf_pg_change (relation, op) VALUES (present.relation, 'R');
            logged := logged + 1;
        END IF;
        IF is_noted IS NOT TRUE THEN
            DELETE FROM /* :schema */djcrf_pg_shape AS known WHERE known.relation = present.relation;
            INSERT INTO /* :schema */djcrf_pg_shape (relation, columns, name, members, storage, altered, triggers, crashed)
            VALUES (present.relation, present.columns, present.name, present.members, present.storage, present.altered,
                    present.triggers, present.crashed);
        END IF;
    END LOOP;
    -- Names that others have by now.
    DELETE FROM /* :schema */djcrf_pg_shape AS former USING /* :schema */djcrf_pg_shape AS known
    WHERE former.name = known.name AND former.relation <> known.relation AND NOT EXISTS (
        SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.oid = former.relation AND format('%I.%I', n.nspname, c.relname) = former.name
    );
    RETURN logged;
END
$function$;

REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_look_v1() FROM PUBLIC;
