-- The change log, its cursor, the doorbell and the capture functions.
-- A migration references this file: it is frozen once released. `/* :schema */` is the schema that the
-- app's migrations run in, quoted and with its dot.

CREATE TABLE /* :schema */djcrf_pg_change (
    -- CACHE 1 (the default) matters: ids must rise over all sessions, for the id order of one row's
    -- changes is their commit order (the second writer waits for the first one's row lock).
    id bigint GENERATED ALWAYS AS IDENTITY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    -- regclass: in a dump it is the table's name, for a restored table has another oid.
    relation regclass NOT NULL,
    op "char" NOT NULL,
    -- Of triggers: 1 for a statement of the client's, more for those of triggers, which are logged before the one that
    -- fired them. Two bytes that the alignment of what follows would take anyway.
    depth smallint NOT NULL DEFAULT 0,
    -- json, not jsonb: cheaper to write (100 000-row UPDATE: 1.7 s against 2.8 s), and a value over jsonb's
    -- limit of 256 MB per string must not fail the user's write.
    old json,
    new json,
    -- text, for it is whatever the session says: invalid JSON must not fail the user's write either.
    context text,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (xid, id)
);

CREATE TABLE /* :schema */djcrf_pg_cursor (
    name text PRIMARY KEY,
    snapshot pg_snapshot NOT NULL,
    target pg_snapshot,
    after_id bigint,
    term bigint NOT NULL,
    saved_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Non-transactional shared state for the price of a page read: 0 = the listener sleeps, ring;
-- 1 = it is awake and will read again; 2 = never ring, it polls.
CREATE SEQUENCE /* :schema */djcrf_pg_listener_awake MINVALUE 0 START 0;
SELECT setval('/* :schema */djcrf_pg_listener_awake', 0);

-- How large the log may grow, whether or not a listener runs: kept by the writers (djcrf_pg_trim_v1), set from DJCRF_PG
-- by migrate and by each leader.
CREATE TABLE /* :schema */djcrf_pg_cap (
    max_age interval NOT NULL,
    max_rows bigint NOT NULL,
    max_bytes bigint NOT NULL
);
INSERT INTO /* :schema */djcrf_pg_cap VALUES ('7 days', 10000000, 4294967296);

-- The number of each column of a table, when migrate looked last; see shape.sql. Neither this nor the caps has a key:
-- the data of a dump must go into tables that migrate has filled.
CREATE TABLE /* :schema */djcrf_pg_shape (relation regclass NOT NULL, columns jsonb NOT NULL);

-- Where the writers found the oldest transaction in the log when they last trimmed it; a hint, for what was deleted
-- before it stays in the index until it is vacuumed.
CREATE SEQUENCE /* :schema */djcrf_pg_floor MINVALUE 0 START 0;

REVOKE ALL ON TABLE /* :schema */djcrf_pg_change, /* :schema */djcrf_pg_cursor FROM PUBLIC;
REVOKE ALL ON TABLE /* :schema */djcrf_pg_cap, /* :schema */djcrf_pg_shape FROM PUBLIC;
REVOKE ALL ON SEQUENCE /* :schema */djcrf_pg_listener_awake, /* :schema */djcrf_pg_floor FROM PUBLIC;

-- Deletes the oldest changes of a log that is over a cap, up to so many rows. Those that were not delivered become one
-- change O (overflow) for each table: whoever hears of it loads again. How long the log is, is estimated: by ids, and
-- by the width of the oldest and the newest.
CREATE FUNCTION /* :schema */djcrf_pg_trim_v1(most bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    caps record;
    oldest record;
    excess numeric;
    before timestamptz := 'infinity';
    width numeric;
    trimmed bigint;
BEGIN
    SELECT * INTO caps FROM /* :schema */djcrf_pg_cap;
    SELECT xid, id, at INTO oldest FROM /* :schema */djcrf_pg_change
    WHERE xid >= (
        -- A dump of another cluster may bring one of the future.
        SELECT CASE WHEN floor < pg_snapshot_xmax(pg_current_snapshot()) THEN floor ELSE '0' END
        FROM (SELECT last_value::text::xid8 AS floor FROM /* :schema */djcrf_pg_floor) AS hint
    )
    ORDER BY xid, id LIMIT 1;
    IF caps IS NULL OR oldest IS NULL THEN
        RETURN 0;
    END IF;
    SELECT avg(100 + coalesce(pg_column_size(old), 0) + coalesce(pg_column_size(new), 0)) INTO width
    FROM (
        (SELECT old, new FROM /* :schema */djcrf_pg_change WHERE xid >= oldest.xid ORDER BY xid, id LIMIT 200)
        UNION ALL
        (SELECT old, new FROM /* :schema */djcrf_pg_change ORDER BY xid DESC, id DESC LIMIT 200)
    ) AS sample;
    excess := pg_sequence_last_value(pg_get_serial_sequence('/* :schema */djcrf_pg_change', 'id')) - oldest.id + 1;
    excess := ceil(excess - least(caps.max_rows, caps.max_bytes / width));
    IF excess <= 0 THEN
        before := clock_timestamp() - caps.max_age;
        IF oldest.at >= before THEN
            RETURN 0;
        END IF;
        excess := most;
    END IF;
    PERFORM setval('/* :schema */djcrf_pg_floor', oldest.xid::text::bigint);
    WITH doomed AS (
        -- Whoever trims at the same time takes others, and nobody waits.
        SELECT xid, id FROM /* :schema */djcrf_pg_change
        WHERE xid >= oldest.xid AND at < before ORDER BY xid, id LIMIT least(most, excess) FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM /* :schema */djcrf_pg_change AS change USING doomed
        WHERE change.xid = doomed.xid AND change.id = doomed.id
        RETURNING change.xid, change.relation
    ), said AS (
        INSERT INTO /* :schema */djcrf_pg_change (relation, op)
        SELECT DISTINCT gone.relation, 'O'::"char" FROM gone
        WHERE NOT coalesce(
            (SELECT pg_visible_in_snapshot(gone.xid, snapshot) FROM /* :schema */djcrf_pg_cursor WHERE name = 'leader'),
            false
        )
    )
    SELECT count(*) INTO trimmed FROM gone;
    RETURN trimmed;
END
$function$;

CREATE FUNCTION /* :schema */djcrf_pg_ring_v1(relation oid, op text, changed bigint) RETURNS void
LANGUAGE plpgsql
AS $function$
BEGIN
    -- The caller has inserted into the log before this, so its transaction has an xid, and a listener that
    -- falls asleep now finds that xid among those in progress. A function, not SELECT last_value: that would be a
    -- query. Callers ask the same, to save the call.
    IF coalesce(pg_catalog.pg_sequence_last_value('/* :schema */djcrf_pg_listener_awake'), 0) = 0 THEN
        PERFORM pg_catalog.pg_notify(
            'djcrf_pg',
            pg_catalog.json_build_object(
                'table', relation::pg_catalog.regclass::pg_catalog.text, 'op', op, 'rows', changed
            )::pg_catalog.text
        );
    END IF;
    -- Each 1024th change sees to it that the log stays under its caps, in which nothing that goes wrong may fail the
    -- user's write. Under other isolation levels a delete that somebody else has done would fail it.
    IF pg_catalog.lastval() % 1024 < changed AND pg_catalog.current_setting('transaction_isolation') = 'read committed'
    THEN
        BEGIN
            PERFORM /* :schema */djcrf_pg_trim_v1(2 * greatest(changed, 1024));
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END IF;
END
$function$;

-- What may leave a table: its columns but for the excluded ones, as a list for SELECT. Read from the catalog at
-- each firing, so that no ALTER TABLE can make it wrong.
CREATE FUNCTION /* :schema */djcrf_pg_columns_v1(relation oid, excluded text[]) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
    SELECT coalesce(string_agg(quote_ident(attname), ', ' ORDER BY attnum), '')
    FROM pg_attribute
    WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped
      AND attgenerated <> 'v' -- virtual: a transition table has no value of it
      AND attname <> ALL (coalesce(excluded, '{}'))
$function$;

-- Whether the session has suspended capture of a table: `djcrf_pg.suspend` is a list of table oids with commas between,
-- or an asterisk for all (writer/suspend.py).
CREATE FUNCTION /* :schema */djcrf_pg_suspended_v1(relation oid) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
    SELECT coalesce(string_to_array(current_setting('djcrf_pg.suspend', true), ',') && ARRAY['*', relation::text], false)
$function$;

-- The capture functions name no column of the table they watch, so no ALTER TABLE can make a write fail.
-- `#variable_conflict use_variable`: a watched table may have columns called tg_relid or changed.
-- `djcrf_pg.context` and `djcrf_pg.suspend` are whatever the session says, and no value of theirs can make a
-- write fail: both are text and stay it. Empty is what they are in a session that has set and lost them.
-- The SET clauses pin what the text of a value depends on (DateStyle and TimeZone count inside ranges).
--
-- Two ways to the log. The plain one is one static INSERT, and one IF behind it that ends there while a listener is
-- awake. What may stand against it is asked in the INSERT's WHERE, for each expression of PL/pgSQL is made ready anew in
-- each transaction. CASE, since AND does not say what is evaluated first, and lastval() fails in a session that has none.
-- `.*` is the whole row also where a column has the name of the transition table.
--
-- The other way is for tables with excluded columns, which takes a list of columns, and for rows whose image might pass
-- the 1 GB that a value can have: 2 MB as stored is far below what compresses to that. It has an exception block, since
-- what goes wrong here must not fail the user's write: the log then says R, and subscribers load again. The plain way
-- has none, for a subtransaction takes an xid of its own, and a transaction with more than 64 of them slows every
-- snapshot of the server.

CREATE FUNCTION /* :schema */djcrf_pg_capture_insert_v1() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, MDY' SET timezone = 'UTC' SET intervalstyle = 'iso_8601'
SET bytea_output = 'hex' SET extra_float_digits = 1
AS $function$
#variable_conflict use_variable
DECLARE
    changed bigint;
    says text;
    level int;
BEGIN
    INSERT INTO /* :schema */djcrf_pg_change (relation, op, depth, new, context)
    SELECT tg_relid, 'I', pg_trigger_depth(), row_to_json(djcrf_pg_new.*),
           nullif(current_setting('djcrf_pg.context', true), '')
    FROM djcrf_pg_new
    WHERE tg_nargs = 0
      AND CASE WHEN coalesce(current_setting('djcrf_pg.suspend', true), '') = ''
               THEN true ELSE NOT /* :schema */djcrf_pg_suspended_v1(tg_relid) END
      AND NOT EXISTS (SELECT FROM djcrf_pg_new AS djcrf_pg_wide WHERE pg_column_size(djcrf_pg_wide.*) >= 2000000);
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF (CASE WHEN changed > 0
        THEN pg_sequence_last_value('/* :schema */djcrf_pg_listener_awake') > 0 AND lastval() % 1024 >= changed
        END) THEN
        RETURN NULL;
    END IF;
    IF changed = 0 THEN
        IF current_setting('djcrf_pg.suspend', true) <> '' AND /* :schema */djcrf_pg_suspended_v1(tg_relid) THEN
            RETURN NULL;
        END IF;
        SELECT count(*) INTO changed FROM djcrf_pg_new;
        IF changed = 0 THEN
            RETURN NULL;
        END IF;
        says := nullif(current_setting('djcrf_pg.context', true), '');
        level := pg_trigger_depth();
        BEGIN
            EXECUTE format(
                'INSERT INTO /* :schema */djcrf_pg_change (relation, op, depth, new, context) '
                'SELECT $1, ''I'', $3, row_to_json(djcrf_pg_row.*), $2 '
                'FROM (SELECT %s FROM djcrf_pg_new) AS djcrf_pg_row',
                /* :schema */djcrf_pg_columns_v1(tg_relid, tg_argv)
            ) USING tg_relid, says, level;
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO /* :schema */djcrf_pg_change (relation, op, depth, context)
            VALUES (tg_relid, 'R', level, says);
        END;
    END IF;
    PERFORM /* :schema */djcrf_pg_ring_v1(tg_relid, tg_op, changed);
    RETURN NULL;
END
$function$;

CREATE FUNCTION /* :schema */djcrf_pg_capture_delete_v1() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, MDY' SET timezone = 'UTC' SET intervalstyle = 'iso_8601'
SET bytea_output = 'hex' SET extra_float_digits = 1
AS $function$
#variable_conflict use_variable
DECLARE
    changed bigint;
    says text;
    level int;
BEGIN
    INSERT INTO /* :schema */djcrf_pg_change (relation, op, depth, old, context)
    SELECT tg_relid, 'D', pg_trigger_depth(), row_to_json(djcrf_pg_old.*),
           nullif(current_setting('djcrf_pg.context', true), '')
    FROM djcrf_pg_old
    WHERE tg_nargs = 0
      AND CASE WHEN coalesce(current_setting('djcrf_pg.suspend', true), '') = ''
               THEN true ELSE NOT /* :schema */djcrf_pg_suspended_v1(tg_relid) END
      AND NOT EXISTS (SELECT FROM djcrf_pg_old AS djcrf_pg_wide WHERE pg_column_size(djcrf_pg_wide.*) >= 2000000);
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF (CASE WHEN changed > 0
        THEN pg_sequence_last_value('/* :schema */djcrf_pg_listener_awake') > 0 AND lastval() % 1024 >= changed
        END) THEN
        RETURN NULL;
    END IF;
    IF changed = 0 THEN
        IF current_setting('djcrf_pg.suspend', true) <> '' AND /* :schema */djcrf_pg_suspended_v1(tg_relid) THEN
            RETURN NULL;
        END IF;
        SELECT count(*) INTO changed FROM djcrf_pg_old;
        IF changed = 0 THEN
            RETURN NULL;
        END IF;
        says := nullif(current_setting('djcrf_pg.context', true), '');
        level := pg_trigger_depth();
        BEGIN
            EXECUTE format(
                'INSERT INTO /* :schema */djcrf_pg_change (relation, op, depth, old, context) '
                'SELECT $1, ''D'', $3, row_to_json(djcrf_pg_row.*), $2 '
                'FROM (SELECT %s FROM djcrf_pg_old) AS djcrf_pg_row',
                /* :schema */djcrf_pg_columns_v1(tg_relid, tg_argv)
            ) USING tg_relid, says, level;
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO /* :schema */djcrf_pg_change (relation, op, depth, context)
            VALUES (tg_relid, 'R', level, says);
        END;
    END IF;
    PERFORM /* :schema */djcrf_pg_ring_v1(tg_relid, tg_op, changed);
    RETURN NULL;
END
$function$;

-- Both transition tables are filled row by row at the same time, so the n-th old row belongs to the n-th
-- new row. Should the counts ever differ, no pair can be trusted: deletes and inserts are logged.
CREATE FUNCTION /* :schema */djcrf_pg_capture_update_v1() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, MDY' SET timezone = 'UTC' SET intervalstyle = 'iso_8601'
SET bytea_output = 'hex' SET extra_float_digits = 1
AS $function$
#variable_conflict use_variable
DECLARE
    gone bigint;
    changed bigint;
    widest bigint;
    wider bigint;
    columns text;
    says text;
    level int;
BEGIN
    -- One row, as most statements have it: nothing to count, nothing to pair. OFFSET 1 finds a second one.
    INSERT INTO /* :schema */djcrf_pg_change (relation, op, depth, old, new, context)
    SELECT tg_relid, 'U', pg_trigger_depth(), row_to_json(djcrf_pg_old.*), row_to_json(djcrf_pg_new.*),
           nullif(current_setting('djcrf_pg.context', true), '')
    FROM djcrf_pg_old, djcrf_pg_new
    WHERE tg_nargs = 0
      AND CASE WHEN coalesce(current_setting('djcrf_pg.suspend', true), '') = ''
               THEN true ELSE NOT /* :schema */djcrf_pg_suspended_v1(tg_relid) END
      AND pg_column_size(djcrf_pg_old.*) + pg_column_size(djcrf_pg_new.*) < 2000000
      AND NOT EXISTS (SELECT FROM djcrf_pg_old, djcrf_pg_new OFFSET 1);
    IF (CASE WHEN FOUND
        THEN pg_sequence_last_value('/* :schema */djcrf_pg_listener_awake') > 0 AND lastval() % 1024 > 0
        END) THEN
        RETURN NULL;
    END IF;
    IF FOUND THEN
        changed := 1;
    ELSE
        IF current_setting('djcrf_pg.suspend', true) <> '' AND /* :schema */djcrf_pg_suspended_v1(tg_relid) THEN
            RETURN NULL;
        END IF;
        SELECT count(*), max(pg_column_size(djcrf_pg_old.*)) INTO gone, widest FROM djcrf_pg_old;
        SELECT count(*), max(pg_column_size(djcrf_pg_new.*)) INTO changed, wider FROM djcrf_pg_new;
        IF gone = 0 AND changed = 0 THEN
            RETURN NULL;
        END IF;
        says := nullif(current_setting('djcrf_pg.context', true), '');
        level := pg_trigger_depth();
        IF tg_nargs = 0 AND gone = changed AND greatest(widest, wider) < 2000000 THEN
            INSERT INTO /* :schema */djcrf_pg_change (relation, op, depth, old, new, context)
            SELECT tg_relid, 'U', level, djcrf_pg_before.image, djcrf_pg_after.image, says
            FROM (SELECT row_number() OVER () AS place, row_to_json(djcrf_pg_old.*) AS image
                  FROM djcrf_pg_old) AS djcrf_pg_before
            JOIN (SELECT row_number() OVER () AS place, row_to_json(djcrf_pg_new.*) AS image
                  FROM djcrf_pg_new) AS djcrf_pg_after
            USING (place)
            ORDER BY place;
        ELSE
            BEGIN
                columns := /* :schema */djcrf_pg_columns_v1(tg_relid, tg_argv);
                IF gone = changed THEN
                    EXECUTE format(
                        'INSERT INTO /* :schema */djcrf_pg_change (relation, op, depth, old, new, context) '
                        'SELECT $1, ''U'', $3, djcrf_pg_before.image, djcrf_pg_after.image, $2 '
                        'FROM (SELECT row_number() OVER () AS place, row_to_json(djcrf_pg_row.*) AS image '
                        '      FROM (SELECT %1$s FROM djcrf_pg_old) AS djcrf_pg_row) AS djcrf_pg_before '
                        'JOIN (SELECT row_number() OVER () AS place, row_to_json(djcrf_pg_row.*) AS image '
                        '      FROM (SELECT %1$s FROM djcrf_pg_new) AS djcrf_pg_row) AS djcrf_pg_after '
                        'USING (place) ORDER BY place',
                        columns
                    ) USING tg_relid, says, level;
                ELSE
                    EXECUTE format(
                        'INSERT INTO /* :schema */djcrf_pg_change (relation, op, depth, old, context) '
                        'SELECT $1, ''D'', $3, row_to_json(djcrf_pg_row.*), $2 '
                        'FROM (SELECT %s FROM djcrf_pg_old) AS djcrf_pg_row',
                        columns
                    ) USING tg_relid, says, level;
                    EXECUTE format(
                        'INSERT INTO /* :schema */djcrf_pg_change (relation, op, depth, new, context) '
                        'SELECT $1, ''I'', $3, row_to_json(djcrf_pg_row.*), $2 '
                        'FROM (SELECT %s FROM djcrf_pg_new) AS djcrf_pg_row',
                        columns
                    ) USING tg_relid, says, level;
                END IF;
            EXCEPTION WHEN OTHERS THEN
                INSERT INTO /* :schema */djcrf_pg_change (relation, op, depth, context)
                VALUES (tg_relid, 'R', level, says);
            END;
        END IF;
        changed := greatest(gone, changed);
    END IF;
    PERFORM /* :schema */djcrf_pg_ring_v1(tg_relid, tg_op, changed);
    RETURN NULL;
END
$function$;

CREATE FUNCTION /* :schema */djcrf_pg_capture_truncate_v1() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    IF current_setting('djcrf_pg.suspend', true) <> '' AND /* :schema */djcrf_pg_suspended_v1(tg_relid) THEN
        RETURN NULL;
    END IF;
    INSERT INTO /* :schema */djcrf_pg_change (relation, op, depth, context)
    VALUES (tg_relid, 'T', pg_trigger_depth(), nullif(current_setting('djcrf_pg.context', true), ''));
    PERFORM /* :schema */djcrf_pg_ring_v1(tg_relid, tg_op, 0);
    RETURN NULL;
END
$function$;

REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_trim_v1(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_ring_v1(oid, text, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_columns_v1(oid, text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_suspended_v1(oid) FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_capture_insert_v1() FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_capture_update_v1() FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_capture_delete_v1() FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_capture_truncate_v1() FROM PUBLIC;
