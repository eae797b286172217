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

REVOKE ALL ON TABLE /* :schema */djcrf_pg_change, /* :schema */djcrf_pg_cursor FROM PUBLIC;
REVOKE ALL ON SEQUENCE /* :schema */djcrf_pg_listener_awake FROM PUBLIC;

CREATE FUNCTION /* :schema */djcrf_pg_ring_v1(relation oid, op text, changed bigint) RETURNS void
LANGUAGE plpgsql
AS $function$
BEGIN
    -- The caller has inserted into the log before this, so its transaction has an xid, and a listener that
    -- falls asleep now finds that xid among those in progress.
    IF (SELECT last_value FROM /* :schema */djcrf_pg_listener_awake) = 0 THEN
        PERFORM pg_catalog.pg_notify(
            'djcrf_pg',
            pg_catalog.json_build_object(
                'table', relation::pg_catalog.regclass::pg_catalog.text, 'op', op, 'rows', changed
            )::pg_catalog.text
        );
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
    WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped AND attname <> ALL (coalesce(excluded, '{}'))
$function$;

-- The capture functions name no column of the table they watch, so no ALTER TABLE can make a write fail.
-- `#variable_conflict use_variable`: a watched table may have columns called tg_relid or changed.
-- `djcrf_pg.context` and `djcrf_pg.suspend` are whatever the session says, and no value of theirs can make a
-- write fail: both are text and stay it. Empty is what they are in a session that has set and lost them.
-- `djcrf_pg.suspend` is a list of table oids with commas between, or an asterisk for all (writer/suspend.py).
-- The SET clauses pin what the text of a value depends on (DateStyle and TimeZone count inside ranges).
--
-- Two ways to the log. The plain one is one static INSERT. The other is for tables with excluded columns, which
-- takes a list of columns, and for rows whose image might pass the 1 GB that a value can have: 2 MB as stored is
-- far below what compresses to that. It has an exception block, since what goes wrong here must not fail the
-- user's write: the log then says R, and subscribers load again. The plain way has none, for a subtransaction
-- takes an xid of its own, and a transaction with more than 64 of them slows every snapshot of the server.

CREATE FUNCTION /* :schema */djcrf_pg_capture_insert_v1() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, MDY' SET timezone = 'UTC' SET intervalstyle = 'iso_8601'
SET bytea_output = 'hex' SET extra_float_digits = 1
AS $function$
#variable_conflict use_variable
DECLARE
    says text := nullif(current_setting('djcrf_pg.context', true), '');
    changed bigint;
    widest bigint;
BEGIN
    IF current_setting('djcrf_pg.suspend', true) <> ''
       AND string_to_array(current_setting('djcrf_pg.suspend', true), ',') && ARRAY['*', tg_relid::text] THEN
        RETURN NULL;
    END IF;
    SELECT count(*), max(pg_column_size(djcrf_pg_new)) INTO changed, widest FROM djcrf_pg_new;
    IF changed = 0 THEN
        RETURN NULL;
    END IF;
    IF tg_nargs = 0 AND widest < 2000000 THEN
        INSERT INTO /* :schema */djcrf_pg_change (relation, op, new, context)
        SELECT tg_relid, 'I', row_to_json(djcrf_pg_new), says FROM djcrf_pg_new;
    ELSE
        BEGIN
            EXECUTE format(
                'INSERT INTO /* :schema */djcrf_pg_change (relation, op, new, context) '
                'SELECT $1, ''I'', row_to_json(djcrf_pg_row), $2 FROM (SELECT %s FROM djcrf_pg_new) AS djcrf_pg_row',
                /* :schema */djcrf_pg_columns_v1(tg_relid, tg_argv)
            ) USING tg_relid, says;
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO /* :schema */djcrf_pg_change (relation, op, context) VALUES (tg_relid, 'R', says);
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
    says text := nullif(current_setting('djcrf_pg.context', true), '');
    changed bigint;
    widest bigint;
BEGIN
    IF current_setting('djcrf_pg.suspend', true) <> ''
       AND string_to_array(current_setting('djcrf_pg.suspend', true), ',') && ARRAY['*', tg_relid::text] THEN
        RETURN NULL;
    END IF;
    SELECT count(*), max(pg_column_size(djcrf_pg_old)) INTO changed, widest FROM djcrf_pg_old;
    IF changed = 0 THEN
        RETURN NULL;
    END IF;
    IF tg_nargs = 0 AND widest < 2000000 THEN
        INSERT INTO /* :schema */djcrf_pg_change (relation, op, old, context)
        SELECT tg_relid, 'D', row_to_json(djcrf_pg_old), says FROM djcrf_pg_old;
    ELSE
        BEGIN
            EXECUTE format(
                'INSERT INTO /* :schema */djcrf_pg_change (relation, op, old, context) '
                'SELECT $1, ''D'', row_to_json(djcrf_pg_row), $2 FROM (SELECT %s FROM djcrf_pg_old) AS djcrf_pg_row',
                /* :schema */djcrf_pg_columns_v1(tg_relid, tg_argv)
            ) USING tg_relid, says;
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO /* :schema */djcrf_pg_change (relation, op, context) VALUES (tg_relid, 'R', says);
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
    says text := nullif(current_setting('djcrf_pg.context', true), '');
    gone bigint;
    changed bigint;
    widest bigint;
    wider bigint;
    columns text;
BEGIN
    IF current_setting('djcrf_pg.suspend', true) <> ''
       AND string_to_array(current_setting('djcrf_pg.suspend', true), ',') && ARRAY['*', tg_relid::text] THEN
        RETURN NULL;
    END IF;
    SELECT count(*), max(pg_column_size(djcrf_pg_old)) INTO gone, widest FROM djcrf_pg_old;
    SELECT count(*), max(pg_column_size(djcrf_pg_new)) INTO changed, wider FROM djcrf_pg_new;
    IF gone = 0 AND changed = 0 THEN
        RETURN NULL;
    END IF;
    IF tg_nargs = 0 AND gone = 1 AND changed = 1 AND greatest(widest, wider) < 2000000 THEN
        INSERT INTO /* :schema */djcrf_pg_change (relation, op, old, new, context)
        SELECT tg_relid, 'U', row_to_json(djcrf_pg_old), row_to_json(djcrf_pg_new), says FROM djcrf_pg_old, djcrf_pg_new;
    ELSIF tg_nargs = 0 AND gone = changed AND greatest(widest, wider) < 2000000 THEN
        INSERT INTO /* :schema */djcrf_pg_change (relation, op, old, new, context)
        SELECT tg_relid, 'U', djcrf_pg_before.image, djcrf_pg_after.image, says
        FROM (SELECT row_number() OVER () AS place, row_to_json(djcrf_pg_old) AS image
              FROM djcrf_pg_old) AS djcrf_pg_before
        JOIN (SELECT row_number() OVER () AS place, row_to_json(djcrf_pg_new) AS image
              FROM djcrf_pg_new) AS djcrf_pg_after
        USING (place)
        ORDER BY place;
    ELSE
        BEGIN
            columns := /* :schema */djcrf_pg_columns_v1(tg_relid, tg_argv);
            IF gone = changed THEN
                EXECUTE format(
                    'INSERT INTO /* :schema */djcrf_pg_change (relation, op, old, new, context) '
                    'SELECT $1, ''U'', djcrf_pg_before.image, djcrf_pg_after.image, $2 '
                    'FROM (SELECT row_number() OVER () AS place, row_to_json(djcrf_pg_row) AS image '
                    '      FROM (SELECT %1$s FROM djcrf_pg_old) AS djcrf_pg_row) AS djcrf_pg_before '
                    'JOIN (SELECT row_number() OVER () AS place, row_to_json(djcrf_pg_row) AS image '
                    '      FROM (SELECT %1$s FROM djcrf_pg_new) AS djcrf_pg_row) AS djcrf_pg_after '
                    'USING (place) ORDER BY place',
                    columns
                ) USING tg_relid, says;
            ELSE
                EXECUTE format(
                    'INSERT INTO /* :schema */djcrf_pg_change (relation, op, old, context) '
                    'SELECT $1, ''D'', row_to_json(djcrf_pg_row), $2 FROM (SELECT %s FROM djcrf_pg_old) AS djcrf_pg_row',
                    columns
                ) USING tg_relid, says;
                EXECUTE format(
                    'INSERT INTO /* :schema */djcrf_pg_change (relation, op, new, context) '
                    'SELECT $1, ''I'', row_to_json(djcrf_pg_row), $2 FROM (SELECT %s FROM djcrf_pg_new) AS djcrf_pg_row',
                    columns
                ) USING tg_relid, says;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO /* :schema */djcrf_pg_change (relation, op, context) VALUES (tg_relid, 'R', says);
        END;
    END IF;
    PERFORM /* :schema */djcrf_pg_ring_v1(tg_relid, tg_op, greatest(gone, changed));
    RETURN NULL;
END
$function$;

CREATE FUNCTION /* :schema */djcrf_pg_capture_truncate_v1() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    IF current_setting('djcrf_pg.suspend', true) <> ''
       AND string_to_array(current_setting('djcrf_pg.suspend', true), ',') && ARRAY['*', tg_relid::text] THEN
        RETURN NULL;
    END IF;
    INSERT INTO /* :schema */djcrf_pg_change (relation, op, context)
    VALUES (tg_relid, 'T', nullif(current_setting('djcrf_pg.context', true), ''));
    PERFORM /* :schema */djcrf_pg_ring_v1(tg_relid, tg_op, 0);
    RETURN NULL;
END
$function$;

REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_ring_v1(oid, text, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_columns_v1(oid, text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_capture_insert_v1() FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_capture_update_v1() FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_capture_delete_v1() FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_capture_truncate_v1() FROM PUBLIC;
