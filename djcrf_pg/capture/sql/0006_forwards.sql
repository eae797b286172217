-- Capture functions that the writer does not notice: no nextval(), no code of a type's owner, no SET clauses.
-- A migration references this file: it is frozen once released. `/* :schema */` is the schema that the
-- app's migrations run in, quoted and with its dot.
--
-- The capture functions have the rights of their owner and the search_path of whoever writes. So all that they name has its
-- schema, operators too; and there is no IN, BETWEEN, NULLIF, JOIN USING, CASE x WHEN y nor IS DISTINCT FROM (but with
-- NULL), which look for operators by search_path. The small functions that they call are inlined, so the same holds for
-- those whose language is sql and that SET nothing.

-- 1: ring also where transactions can be prepared, for somebody has said that none is (NOTIFY = "elide" or "always").
CREATE SEQUENCE /* :schema */djcrf_pg_rings MINVALUE 0 START 0;
SELECT setval('/* :schema */djcrf_pg_rings', 0);
REVOKE ALL ON SEQUENCE /* :schema */djcrf_pg_rings FROM PUBLIC;

-- djcrf_pg_trim_v1, which a former leader calls, deletes too much where the sequence of ids was never used.
SELECT setval(
    pg_get_serial_sequence('/* :schema */djcrf_pg_change', 'id'),
    coalesce(pg_sequence_last_value(pg_get_serial_sequence('/* :schema */djcrf_pg_change', 'id')), 1)
);

-- What is added to positions in the WAL, so that ids go on behind those of the sequence: a database that was restored from a
-- dump may have given out more of them than its cluster has written bytes of WAL.
CREATE SEQUENCE /* :schema */djcrf_pg_offset MINVALUE 0 START 0;
SELECT setval('/* :schema */djcrf_pg_offset', greatest(
    pg_sequence_last_value(pg_get_serial_sequence('/* :schema */djcrf_pg_change', 'id'))
        - (pg_current_wal_insert_lsn() - '0/0')::bigint,
    0
));
REVOKE ALL ON SEQUENCE /* :schema */djcrf_pg_offset FROM PUBLIC;

-- It never changes, so a plan may have it.
CREATE FUNCTION /* :schema */djcrf_pg_offset_v2() RETURNS bigint
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RETURN pg_sequence_last_value('/* :schema */djcrf_pg_offset');
EXCEPTION WHEN OTHERS THEN
    RETURN 0; -- somebody has dropped it
END
$function$;

-- Whether each row of the log is a record in the WAL: not where the log is unlogged, and with wal_level = minimal not where the
-- same transaction has created or emptied it. IMMUTABLE, so that a plan has the answer: the server has its wal_level as long as
-- it runs, and altering the log ends the plans of queries that name it.
CREATE FUNCTION /* :schema */djcrf_pg_logged_v2() RETURNS boolean
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RETURN current_setting('wal_level') <> 'minimal' AND pg_relation_is_publishable('/* :schema */djcrf_pg_change');
END
$function$;

-- The id of the next change, for queries that name the log. The identity column's would be what the writer's lastval() returns, and
-- costs WAL. The WAL position moves on with each row of the log, so the ids of a transaction rise; and for one row, ids rise in
-- the order of the commits: the second writer waits for the first one's lock, and a commit is a WAL record too. Transactions
-- that change different rows may read the same position. Where rows of the log might leave no WAL, a record of its own moves
-- the position.
CREATE FUNCTION /* :schema */djcrf_pg_place_v2() RETURNS bigint
LANGUAGE sql VOLATILE
AS $function$
    SELECT (
        CASE WHEN /* :schema */djcrf_pg_logged_v2() THEN pg_catalog.pg_current_wal_insert_lsn()
             ELSE pg_catalog.pg_logical_emit_message(false, 'djcrf_pg', '')
        END OPERATOR(pg_catalog.-) '0/0'::pg_catalog.pg_lsn
    )::pg_catalog.int8 OPERATOR(pg_catalog.+) /* :schema */djcrf_pg_offset_v2()
$function$;

-- What djcrf_pg_look_v1 logs (0004_forwards.sql) comes after what was logged before it, so it has such an id too.
DO $do$
DECLARE
    former text := pg_get_functiondef('/* :schema */djcrf_pg_look_v1()'::regprocedure);
    present text := replace(
        former, '_change (relation, op) VALUES (present.relation,',
        '_change (id, relation, op) OVERRIDING SYSTEM VALUE VALUES (/* :schema */djcrf_pg_place_v2(), present.relation,'
    );
BEGIN
    ASSERT present <> former, 'djcrf_pg_look_v1() is not the one of 0004_forwards.sql';
    EXECUTE present;
END
$do$;

-- What the session says of its changes. It is stored with each of them, so it has a limit; empty says that it was longer.
CREATE FUNCTION /* :schema */djcrf_pg_context_v2() RETURNS text
LANGUAGE sql STABLE
AS $function$
    SELECT CASE
        WHEN pg_catalog.octet_length(pg_catalog.current_setting('djcrf_pg.context', true)) OPERATOR(pg_catalog.>) 8192
        THEN ''
        WHEN pg_catalog.octet_length(pg_catalog.current_setting('djcrf_pg.context', true)) OPERATOR(pg_catalog.>) 0
        THEN pg_catalog.current_setting('djcrf_pg.context', true)
    END
$function$;

-- Whether the catalog that is seen is the present one for a table. A transaction of another isolation level than READ COMMITTED
-- sees it as it was at its first statement, and writes to the table as it is; and plans are made with the snapshot of
-- the statement that fires the trigger, which may have begun before the table of a cascade was altered. What has been
-- replaced since has the xmax of a transaction that was not rolled back; there is no column behind the last one; and where
-- there is none to be seen, the table itself may be new.
CREATE FUNCTION /* :schema */djcrf_pg_current_v2(relation oid) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
BEGIN
    RETURN (
        SELECT coalesce(
            bool_and(CASE WHEN xmax = '0' THEN true ELSE
                coalesce(pg_xact_status((pg_current_xact_id()::text::int8 - age(xmax))::text::xid8) = 'aborted', false)
            END),
            EXISTS (SELECT FROM pg_class WHERE oid = relation)
        ) AND has_column_privilege(relation, (coalesce(max(attnum), 0) + 1)::int2, 'SELECT') IS NULL
        FROM pg_attribute WHERE attrelid = relation AND attnum > 0
    );
END
$function$;

-- What the text of a table's values depends on, as bits. 2: extra_float_digits. 4: other settings (bytea, interval, ranges of
-- dates, regclass). 8: somebody has made a type, or it is not known. A timestamptz has its offset, so any time zone will do.
--
-- To ask the catalog at each firing would cost more than anything else. So it is asked when the plan of a query over a
-- transition table is made, which lasts until the table is altered: the function says that it is IMMUTABLE, and takes no
-- argument, for that would not be known then. The capture functions set djcrf_pg.relation before each such query.
CREATE FUNCTION /* :schema */djcrf_pg_needs_v2() RETURNS int
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    relation CONSTANT oid := current_setting('djcrf_pg.relation');
BEGIN
    RETURN (
        SELECT CASE WHEN /* :schema */djcrf_pg_current_v2(relation) THEN coalesce(bit_or(CASE
            -- Dropped columns; bool, char, name, int8, int2, int4, text, oid, json, bpchar, varchar, date, time, timestamp,
            -- timestamptz, timetz,
            -- bit, varbit, numeric, uuid, jsonb, inet, cidr, macaddr, macaddr8, tsvector, tsquery, xml; arrays of these; ranges
            -- of numbers.
            WHEN atttypid = ANY (
                '{0,16,18,19,20,21,23,25,26,114,1042,1043,1082,1083,1114,1184,1185,1266,1560,1562,1700,2950,3802,869,650,829,774,3614,
                  3615,142,1000,1002,1003,1016,1005,1007,1009,1028,199,1014,1015,1182,1183,1115,1270,1561,1563,1231,2951,3807,
                  1041,651,1040,775,3643,3645,143,3904,3905,3906,3907,3926,3927,4451,4532,4536,6150,6151,6157}'
            ) THEN 0
            WHEN atttypid IN ('float4'::regtype, 'float8'::regtype, 'float4[]'::regtype, 'float8[]'::regtype) THEN 2
            WHEN atttypid < 16384 THEN 4
            ELSE 8
        END), 0) ELSE 8 END
        FROM pg_attribute WHERE attrelid = relation AND attnum > 0
    );
END
$function$;

-- Whether all that the images of a table need is the session as it is. The plan keeps of this what the table needs.
CREATE FUNCTION /* :schema */djcrf_pg_ordinary_v2() RETURNS boolean
LANGUAGE sql STABLE
AS $function$
    SELECT CASE WHEN /* :schema */djcrf_pg_needs_v2() OPERATOR(pg_catalog.>=) 4 THEN false ELSE
        CASE WHEN /* :schema */djcrf_pg_needs_v2() OPERATOR(pg_catalog.&) 2 OPERATOR(pg_catalog.=) 0 THEN true
             -- All of these are the shortest text that is exact.
             ELSE pg_catalog.current_setting('extra_float_digits') OPERATOR(pg_catalog.=) ANY ('{1,2,3}') END
    END
$function$;

-- Whether the session has suspended capture of a table: `djcrf_pg.suspend` is a list of table oids with commas between,
-- or an asterisk for all (writer/suspend.py). No list is as long as 8 MB; what is, suspends nothing.
CREATE FUNCTION /* :schema */djcrf_pg_suspended_v2(relation oid) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    listed text := current_setting('djcrf_pg.suspend', true);
BEGIN
    IF listed <> '' AND octet_length(listed) < 8000000 THEN
        listed := ',' || listed || ',';
        RETURN strpos(listed, ',' || relation || ',') > 0 OR strpos(listed, ',*,') > 0;
    END IF;
    RETURN false;
END
$function$;

-- Whether somebody has made a type, seen through domains. hstore counts as built in, with the cast to json of its extension.
CREATE FUNCTION /* :schema */djcrf_pg_made_v2(type oid) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
AS $function$
#variable_conflict use_variable
DECLARE
    kind "char";
    base oid;
    called name;
BEGIN
    LOOP
        IF type < 16384 THEN
            RETURN false;
        END IF;
        SELECT t.typtype, t.typbasetype, t.typname INTO kind, base, called FROM pg_type AS t WHERE t.oid = type;
        EXIT WHEN kind IS DISTINCT FROM 'd';
        type := base;
    END LOOP;
    RETURN called <> 'hstore' OR NOT EXISTS (
        SELECT FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
        WHERE d.classid = 'pg_type'::regclass AND d.objid = type AND d.deptype = 'e'
          AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'hstore'
    );
END
$function$;

-- What may leave a table, as a list for SELECT: its columns but for the excluded ones. Read from the catalog at each firing,
-- so that no ALTER TABLE can make it wrong. NULL where the whole row may be taken as it is.
--
-- Of a type that is not built in the list has the text that its output function makes, as a driver would be given. JSON's
-- functions would call a cast to json, which may be anybody's, and which may fail: PostGIS's does for a curve. `::text` would
-- call a cast, too. A domain is what it is made of, and hstore keeps the cast of its extension.
--
-- bound: up to so many bytes as stored, no row's image can reach the 1 GB that a value may have. A scalar becomes up to 8
-- times as long, after its compression by up to 255; a numeric at most 150 kB. Of other types, such as arrays and jsonb of
-- numerics, 10 bytes become 131 kB.
CREATE FUNCTION /* :schema */djcrf_pg_columns_v2(relation oid, excluded text[], OUT columns text, OUT bound bigint)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
AS $function$
#variable_conflict use_variable
DECLARE
    whole boolean;
BEGIN
    -- In READ COMMITTED each query of a capture function sees what is there now.
    IF current_setting('transaction_isolation') <> 'read committed' AND NOT /* :schema */djcrf_pg_current_v2(relation) THEN
        RAISE EXCEPTION 'the table was altered since the transaction began, which does not see how';
    END IF;
    SELECT coalesce(cardinality(excluded), 0) = 0 AND coalesce(bool_and(NOT as_text), true),
           coalesce(string_agg(CASE WHEN as_text THEN format(
               'CASE WHEN %1$I IS DISTINCT FROM NULL THEN pg_catalog.format(''%%s'', %1$I) END AS %1$I', attname
           ) ELSE quote_ident(attname) END, ', ' ORDER BY attnum), ''),
           CASE WHEN bool_and(
               -- int2, int4, int8, bool, text, varchar, bpchar, name, date, time, timetz, timestamp, timestamptz, interval,
               -- uuid, float4, float8, numeric, json, bytea, inet, cidr, oid
               atttypid = ANY ('{21,23,20,16,25,1043,1042,19,1082,1083,1266,1114,1184,1186,2950,700,701,1700,114,17,869,650,26}')
           ) THEN 300000 ELSE 250 END
    INTO whole, columns, bound
    FROM (
        SELECT a.attnum, a.attname, a.atttypid,
               CASE WHEN a.atttypid >= 16384 THEN /* :schema */djcrf_pg_made_v2(a.atttypid) ELSE false END AS as_text
        FROM pg_attribute AS a
        WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
          AND a.attgenerated <> 'v' -- virtual: a transition table has no value of it
          AND a.attname <> ALL (coalesce(excluded, '{}'))
    ) AS found;
    IF whole THEN
        columns := NULL;
    END IF;
END
$function$;

-- Sets what the text of a table's values depends on (djcrf_pg_needs_v2) for the rest of the transaction, and returns what it was
-- before; NULL where nothing was set. The text of a regclass depends on the search_path.
CREATE FUNCTION /* :schema */djcrf_pg_pin_v2(needs int) RETURNS text[]
LANGUAGE plpgsql
AS $function$
#variable_conflict use_variable
DECLARE
    kept pg_catalog.text[];
BEGIN
    IF needs OPERATOR(pg_catalog.>=) 4 THEN
        kept := ARRAY[
            pg_catalog.current_setting('extra_float_digits'), pg_catalog.current_setting('search_path'),
            pg_catalog.current_setting('DateStyle'), pg_catalog.current_setting('TimeZone'),
            pg_catalog.current_setting('IntervalStyle'), pg_catalog.current_setting('bytea_output')
        ];
        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
                pg_catalog.set_config('DateStyle', 'ISO, MDY', true), pg_catalog.set_config('TimeZone', 'UTC', true),
                pg_catalog.set_config('IntervalStyle', 'iso_8601', true),
                pg_catalog.set_config('bytea_output', 'hex', true),
                pg_catalog.set_config('extra_float_digits', '1', true);
    ELSIF needs OPERATOR(pg_catalog.=) 2 THEN
        kept := ARRAY[pg_catalog.current_setting('extra_float_digits')];
        PERFORM pg_catalog.set_config('extra_float_digits', '1', true);
    END IF;
    RETURN kept;
END
$function$;

-- Puts back what djcrf_pg_pin_v2 has kept.
CREATE FUNCTION /* :schema */djcrf_pg_unpin_v2(kept text[]) RETURNS void
LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM pg_catalog.set_config('extra_float_digits', kept[1], true);
    IF pg_catalog.cardinality(kept) OPERATOR(pg_catalog.>) 1 THEN
        PERFORM pg_catalog.set_config('DateStyle', kept[3], true), pg_catalog.set_config('TimeZone', kept[4], true),
                pg_catalog.set_config('IntervalStyle', kept[5], true), pg_catalog.set_config('bytea_output', kept[6], true),
                pg_catalog.set_config('search_path', kept[2], true);
    END IF;
END
$function$;

-- Rings for a listener that sleeps, and has the log trimmed when the WAL has moved on by 1 MiB since somebody looked. Nothing
-- that goes wrong here fails the write.
--
-- It does not ring where transactions can be prepared, since PREPARE TRANSACTION fails after a NOTIFY; and not into a queue that
-- somebody who listens and does not read has filled to a half, for a full one fails commits. The listener polls then.
CREATE FUNCTION /* :schema */djcrf_pg_ring_v2(relation oid, op text, changed bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    trims boolean;
BEGIN
    BEGIN
        -- The caller's transaction has written, so it has an xid, and a listener that falls asleep now finds that xid among
        -- those in progress. A function, not SELECT last_value: that would be a query.
        IF coalesce(pg_sequence_last_value('/* :schema */djcrf_pg_listener_awake'), 0) = 0
           AND (current_setting('max_prepared_transactions') = '0'
                OR pg_sequence_last_value('/* :schema */djcrf_pg_rings') = 1)
           AND pg_notification_queue_usage() < 0.5
        THEN
            PERFORM pg_notify(
                'djcrf_pg',
                json_build_object('table', relation::regclass::text, 'op', op, 'rows', changed)::text
            );
        END IF;
        -- In either direction, for a dump brings that position along.
        trims := to_regprocedure('/* :schema */djcrf_pg_trim_v2(bigint)') IS NOT NULL AND abs(
            (pg_current_wal_insert_lsn() - '0/0') - pg_sequence_last_value('/* :schema */djcrf_pg_trimmed')
        ) >= 1048576;
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END;
    -- Not in that block: what writes there takes an xid.
    IF trims THEN
        PERFORM /* :schema */djcrf_pg_trim_v2(changed);
    END IF;
END
$function$;

-- The capture functions name no column of the table they watch, so no ALTER TABLE can make a write fail.
-- `#variable_conflict use_variable`: a watched table may have columns called tg_relid or changed. `.*` is the whole row also
-- where a column has the name of the transition table.
--
-- Images are made in an exception block that writes nothing: what goes wrong there must not fail the user's write, the log
-- says R instead, and subscribers load again. A subtransaction that wrote would take an xid, and a transaction with more than
-- 64 of them slows every snapshot of the server.
--
-- The quick way is for what most statements are: one row (STRICT finds a second one), of common types, in an ordinary
-- session. What may stand against it is asked in one SELECT, before the image is made: each expression of PL/pgSQL is made
-- ready anew in each transaction. The flag of the doorbell may be read before the log is written: the writer's rows have given
-- its transaction an xid.
--
-- The long way pins the settings. It makes the images of a row in variables. Of many rows it makes them twice where one of
-- them may be too long, to see that it can; and then writes them, outside of the block.

CREATE FUNCTION /* :schema */djcrf_pg_capture_insert_v2() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
AS $function$
#variable_conflict use_variable
DECLARE
    relation pg_catalog.text := pg_catalog.set_config('djcrf_pg.relation', tg_relid::pg_catalog.text, true);
    place pg_catalog.int8;
    image pg_catalog.json;
    says pg_catalog.text;
    quiet pg_catalog.bool;
    failed pg_catalog.bool := false;
    changed pg_catalog.int8;
    widest pg_catalog.int8;
    columns pg_catalog.text;
    bound pg_catalog.int8;
    kept pg_catalog.text[];
    needs pg_catalog.int4;
BEGIN
    BEGIN
        SELECT /* :schema */djcrf_pg_place_v2(),
               CASE WHEN tg_nargs OPERATOR(pg_catalog.=) 0
                     AND /* :schema */djcrf_pg_ordinary_v2()
                     AND COALESCE(pg_catalog.current_setting('djcrf_pg.suspend', true), '') OPERATOR(pg_catalog.=) ''
                     AND CASE WHEN true THEN true ELSE EXISTS (SELECT FROM /* :schema */djcrf_pg_change) END -- the plan depends on it
                    THEN pg_catalog.row_to_json(djcrf_pg_new.*) END,
               pg_catalog.current_setting('djcrf_pg.context', true),
               pg_catalog.pg_sequence_last_value('/* :schema */djcrf_pg_listener_awake') OPERATOR(pg_catalog.>) 0
        INTO STRICT place, image, says, quiet
        FROM djcrf_pg_new;
    EXCEPTION
        WHEN no_data_found THEN
            RETURN NULL;
        WHEN too_many_rows THEN
            NULL;
        WHEN OTHERS THEN
            failed := true;
    END;
    IF says IS NOT NULL THEN
        says := /* :schema */djcrf_pg_context_v2();
    END IF;
    -- Each 512th position is a reason to look whether there is something to trim.
    IF quiet AND image IS NOT NULL AND (place OPERATOR(pg_catalog.&) 4088) OPERATOR(pg_catalog.<>) 0 THEN
        INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, depth, new, context)
        OVERRIDING SYSTEM VALUE
        VALUES (place, tg_relid, 'I', pg_catalog.pg_trigger_depth(), image, says);
        RETURN NULL;
    END IF;

    changed := 1;
    IF image IS NULL THEN
        IF /* :schema */djcrf_pg_suspended_v2(tg_relid) THEN
            RETURN NULL;
        END IF;
        BEGIN
            SELECT pg_catalog.count(*), pg_catalog.max(pg_catalog.pg_column_size(djcrf_pg_new.*)), /* :schema */djcrf_pg_needs_v2()
            INTO changed, widest, needs
            FROM djcrf_pg_new;
            IF changed OPERATOR(pg_catalog.=) 0 THEN
                RETURN NULL;
            END IF;
            says := /* :schema */djcrf_pg_context_v2();
            IF NOT failed THEN
                kept := /* :schema */djcrf_pg_pin_v2(needs);
                SELECT pg_catalog.row_to_json(djcrf_pg_new.*) INTO image
                FROM djcrf_pg_new
                WHERE changed OPERATOR(pg_catalog.=) 1 AND tg_nargs OPERATOR(pg_catalog.=) 0
                  AND /* :schema */djcrf_pg_needs_v2() OPERATOR(pg_catalog.<) 8;
            END IF;
            IF NOT failed AND image IS NULL THEN
                SELECT djcrf_pg_list.columns, djcrf_pg_list.bound INTO columns, bound
                FROM /* :schema */djcrf_pg_columns_v2(tg_relid, tg_argv) AS djcrf_pg_list;
                IF changed OPERATOR(pg_catalog.=) 1 THEN
                    EXECUTE pg_catalog.format(
                        'SELECT pg_catalog.row_to_json(djcrf_pg_row.*) FROM (SELECT %s FROM djcrf_pg_new) AS djcrf_pg_row',
                        COALESCE(columns, '*')
                    ) INTO image;
                ELSIF widest OPERATOR(pg_catalog.>) bound THEN
                    EXECUTE pg_catalog.format(
                        'SELECT pg_catalog.max(pg_catalog.octet_length(pg_catalog.row_to_json(djcrf_pg_row.*)::pg_catalog.text)) '
                        'FROM (SELECT %s FROM djcrf_pg_new) AS djcrf_pg_row', COALESCE(columns, '*')
                    ) INTO widest;
                END IF;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            failed := true; -- and the settings are what they were
            kept := NULL;
        END;
    END IF;
    IF failed THEN
        INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, depth, context)
        OVERRIDING SYSTEM VALUE
        VALUES (/* :schema */djcrf_pg_place_v2(), tg_relid, 'R', pg_catalog.pg_trigger_depth(), says);
    ELSIF image IS NOT NULL THEN
        INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, depth, new, context)
        OVERRIDING SYSTEM VALUE
        VALUES (/* :schema */djcrf_pg_place_v2(), tg_relid, 'I', pg_catalog.pg_trigger_depth(), image, says);
    ELSIF columns IS NULL THEN
        INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, depth, new, context)
        OVERRIDING SYSTEM VALUE
        SELECT /* :schema */djcrf_pg_place_v2(), tg_relid, 'I', pg_catalog.pg_trigger_depth(),
               pg_catalog.row_to_json(djcrf_pg_new.*), says
        FROM djcrf_pg_new;
    ELSE
        EXECUTE pg_catalog.format(
            'INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, depth, new, context) '
            'OVERRIDING SYSTEM VALUE '
            'SELECT /* :schema */djcrf_pg_place_v2(), $1, ''I'', $2, pg_catalog.row_to_json(djcrf_pg_row.*), $3 '
            'FROM (SELECT %s FROM djcrf_pg_new) AS djcrf_pg_row',
            columns
        ) USING tg_relid, pg_catalog.pg_trigger_depth(), says;
    END IF;
    IF kept IS NOT NULL THEN
        PERFORM /* :schema */djcrf_pg_unpin_v2(kept);
    END IF;
    PERFORM /* :schema */djcrf_pg_ring_v2(tg_relid, tg_op, changed);
    RETURN NULL;
END
$function$;

CREATE FUNCTION /* :schema */djcrf_pg_capture_delete_v2() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
AS $function$
#variable_conflict use_variable
DECLARE
    relation pg_catalog.text := pg_catalog.set_config('djcrf_pg.relation', tg_relid::pg_catalog.text, true);
    place pg_catalog.int8;
    image pg_catalog.json;
    says pg_catalog.text;
    quiet pg_catalog.bool;
    failed pg_catalog.bool := false;
    changed pg_catalog.int8;
    widest pg_catalog.int8;
    columns pg_catalog.text;
    bound pg_catalog.int8;
    kept pg_catalog.text[];
    needs pg_catalog.int4;
BEGIN
    BEGIN
        SELECT /* :schema */djcrf_pg_place_v2(),
               CASE WHEN tg_nargs OPERATOR(pg_catalog.=) 0
                     AND /* :schema */djcrf_pg_ordinary_v2()
                     AND COALESCE(pg_catalog.current_setting('djcrf_pg.suspend', true), '') OPERATOR(pg_catalog.=) ''
                     AND CASE WHEN true THEN true ELSE EXISTS (SELECT FROM /* :schema */djcrf_pg_change) END -- the plan depends on it
                    THEN pg_catalog.row_to_json(djcrf_pg_old.*) END,
               pg_catalog.current_setting('djcrf_pg.context', true),
               pg_catalog.pg_sequence_last_value('/* :schema */djcrf_pg_listener_awake') OPERATOR(pg_catalog.>) 0
        INTO STRICT place, image, says, quiet
        FROM djcrf_pg_old;
    EXCEPTION
        WHEN no_data_found THEN
            RETURN NULL;
        WHEN too_many_rows THEN
            NULL;
        WHEN OTHERS THEN
            failed := true;
    END;
    IF says IS NOT NULL THEN
        says := /* :schema */djcrf_pg_context_v2();
    END IF;
    -- Each 512th position is a reason to look whether there is something to trim.
    IF quiet AND image IS NOT NULL AND (place OPERATOR(pg_catalog.&) 4088) OPERATOR(pg_catalog.<>) 0 THEN
        INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, depth, old, context)
        OVERRIDING SYSTEM VALUE
        VALUES (place, tg_relid, 'D', pg_catalog.pg_trigger_depth(), image, says);
        RETURN NULL;
    END IF;

    changed := 1;
    IF image IS NULL THEN
        IF /* :schema */djcrf_pg_suspended_v2(tg_relid) THEN
            RETURN NULL;
        END IF;
        BEGIN
            SELECT pg_catalog.count(*), pg_catalog.max(pg_catalog.pg_column_size(djcrf_pg_old.*)), /* :schema */djcrf_pg_needs_v2()
            INTO changed, widest, needs
            FROM djcrf_pg_old;
            IF changed OPERATOR(pg_catalog.=) 0 THEN
                RETURN NULL;
            END IF;
            says := /* :schema */djcrf_pg_context_v2();
            IF NOT failed THEN
                kept := /* :schema */djcrf_pg_pin_v2(needs);
                SELECT pg_catalog.row_to_json(djcrf_pg_old.*) INTO image
                FROM djcrf_pg_old
                WHERE changed OPERATOR(pg_catalog.=) 1 AND tg_nargs OPERATOR(pg_catalog.=) 0
                  AND /* :schema */djcrf_pg_needs_v2() OPERATOR(pg_catalog.<) 8;
            END IF;
            IF NOT failed AND image IS NULL THEN
                SELECT djcrf_pg_list.columns, djcrf_pg_list.bound INTO columns, bound
                FROM /* :schema */djcrf_pg_columns_v2(tg_relid, tg_argv) AS djcrf_pg_list;
                IF changed OPERATOR(pg_catalog.=) 1 THEN
                    EXECUTE pg_catalog.format(
                        'SELECT pg_catalog.row_to_json(djcrf_pg_row.*) FROM (SELECT %s FROM djcrf_pg_old) AS djcrf_pg_row',
                        COALESCE(columns, '*')
                    ) INTO image;
                ELSIF widest OPERATOR(pg_catalog.>) bound THEN
                    EXECUTE pg_catalog.format(
                        'SELECT pg_catalog.max(pg_catalog.octet_length(pg_catalog.row_to_json(djcrf_pg_row.*)::pg_catalog.text)) '
                        'FROM (SELECT %s FROM djcrf_pg_old) AS djcrf_pg_row', COALESCE(columns, '*')
                    ) INTO widest;
                END IF;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            failed := true; -- and the settings are what they were
            kept := NULL;
        END;
    END IF;
    IF failed THEN
        INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, depth, context)
        OVERRIDING SYSTEM VALUE
        VALUES (/* :schema */djcrf_pg_place_v2(), tg_relid, 'R', pg_catalog.pg_trigger_depth(), says);
    ELSIF image IS NOT NULL THEN
        INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, depth, old, context)
        OVERRIDING SYSTEM VALUE
        VALUES (/* :schema */djcrf_pg_place_v2(), tg_relid, 'D', pg_catalog.pg_trigger_depth(), image, says);
    ELSIF columns IS NULL THEN
        INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, depth, old, context)
        OVERRIDING SYSTEM VALUE
        SELECT /* :schema */djcrf_pg_place_v2(), tg_relid, 'D', pg_catalog.pg_trigger_depth(),
               pg_catalog.row_to_json(djcrf_pg_old.*), says
        FROM djcrf_pg_old;
    ELSE
        EXECUTE pg_catalog.format(
            'INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, depth, old, context) '
            'OVERRIDING SYSTEM VALUE '
            'SELECT /* :schema */djcrf_pg_place_v2(), $1, ''D'', $2, pg_catalog.row_to_json(djcrf_pg_row.*), $3 '
            'FROM (SELECT %s FROM djcrf_pg_old) AS djcrf_pg_row',
            columns
        ) USING tg_relid, pg_catalog.pg_trigger_depth(), says;
    END IF;
    IF kept IS NOT NULL THEN
        PERFORM /* :schema */djcrf_pg_unpin_v2(kept);
    END IF;
    PERFORM /* :schema */djcrf_pg_ring_v2(tg_relid, tg_op, changed);
    RETURN NULL;
END
$function$;

-- Both transition tables are filled row by row at the same time, so the n-th old row belongs to the n-th
-- new row. Should the counts ever differ, no pair can be trusted: deletes and inserts are logged.
--
-- Plans are kept, and made for as many rows as there were then. So the queries for one row join nothing: for a join of some
-- thousand rows with as many the server takes it that compiling pays (jit), and would do so anew for each row that the
-- session updates from then on, in a tenth of a second.
CREATE FUNCTION /* :schema */djcrf_pg_capture_update_v2() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
AS $function$
#variable_conflict use_variable
DECLARE
    relation pg_catalog.text := pg_catalog.set_config('djcrf_pg.relation', tg_relid::pg_catalog.text, true);
    place pg_catalog.int8;
    images pg_catalog.json[];
    before pg_catalog.json;
    after pg_catalog.json;
    says pg_catalog.text;
    quiet pg_catalog.bool;
    failed pg_catalog.bool := false;
    gone pg_catalog.int8;
    changed pg_catalog.int8;
    widest pg_catalog.int8;
    wider pg_catalog.int8;
    columns pg_catalog.text;
    bound pg_catalog.int8;
    kept pg_catalog.text[];
    needs pg_catalog.int4;
    compiles pg_catalog.text;
BEGIN
    BEGIN
        SELECT /* :schema */djcrf_pg_place_v2(),
               CASE WHEN tg_nargs OPERATOR(pg_catalog.=) 0
                     AND /* :schema */djcrf_pg_ordinary_v2()
                     AND COALESCE(pg_catalog.current_setting('djcrf_pg.suspend', true), '') OPERATOR(pg_catalog.=) ''
                     AND CASE WHEN true THEN true ELSE EXISTS (SELECT FROM /* :schema */djcrf_pg_change) END -- the plan depends on it
                    THEN ARRAY[
                        (SELECT pg_catalog.row_to_json(djcrf_pg_old.*) FROM djcrf_pg_old), pg_catalog.row_to_json(djcrf_pg_new.*)
                    ] END,
               pg_catalog.current_setting('djcrf_pg.context', true),
               pg_catalog.pg_sequence_last_value('/* :schema */djcrf_pg_listener_awake') OPERATOR(pg_catalog.>) 0
        INTO STRICT place, images, says, quiet
        FROM djcrf_pg_new;
    EXCEPTION
        WHEN no_data_found OR too_many_rows OR cardinality_violation THEN
            NULL;
        WHEN OTHERS THEN
            failed := true;
    END;
    IF says IS NOT NULL THEN
        says := /* :schema */djcrf_pg_context_v2();
    END IF;
    -- Each 512th position is a reason to look whether there is something to trim.
    IF quiet AND images[1] IS NOT NULL AND (place OPERATOR(pg_catalog.&) 4088) OPERATOR(pg_catalog.<>) 0 THEN
        INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, depth, old, new, context)
        OVERRIDING SYSTEM VALUE
        VALUES (place, tg_relid, 'U', pg_catalog.pg_trigger_depth(), images[1], images[2], says);
        RETURN NULL;
    END IF;
    before := images[1];
    after := images[2];

    changed := 1;
    gone := 1;
    IF before IS NULL OR after IS NULL THEN
        after := NULL;
        IF /* :schema */djcrf_pg_suspended_v2(tg_relid) THEN
            RETURN NULL;
        END IF;
        BEGIN
            SELECT pg_catalog.count(*), pg_catalog.max(pg_catalog.pg_column_size(djcrf_pg_old.*)), /* :schema */djcrf_pg_needs_v2()
            INTO gone, widest, needs
            FROM djcrf_pg_old;
            SELECT pg_catalog.count(*), pg_catalog.max(pg_catalog.pg_column_size(djcrf_pg_new.*)) INTO changed, wider
            FROM djcrf_pg_new;
            IF gone OPERATOR(pg_catalog.=) 0 AND changed OPERATOR(pg_catalog.=) 0 THEN
                RETURN NULL;
            END IF;
            says := /* :schema */djcrf_pg_context_v2();
            IF NOT failed THEN
                kept := /* :schema */djcrf_pg_pin_v2(needs);
                SELECT (SELECT pg_catalog.row_to_json(djcrf_pg_old.*) FROM djcrf_pg_old), pg_catalog.row_to_json(djcrf_pg_new.*)
                INTO before, after
                FROM djcrf_pg_new
                WHERE gone OPERATOR(pg_catalog.=) 1 AND changed OPERATOR(pg_catalog.=) 1
                  AND tg_nargs OPERATOR(pg_catalog.=) 0 AND /* :schema */djcrf_pg_needs_v2() OPERATOR(pg_catalog.<) 8;
            END IF;
            IF NOT failed AND after IS NULL THEN
                SELECT djcrf_pg_list.columns, djcrf_pg_list.bound INTO columns, bound
                FROM /* :schema */djcrf_pg_columns_v2(tg_relid, tg_argv) AS djcrf_pg_list;
                IF gone OPERATOR(pg_catalog.=) 1 AND changed OPERATOR(pg_catalog.=) 1 THEN
                    EXECUTE pg_catalog.format(
                        'SELECT pg_catalog.row_to_json(djcrf_pg_before.*), pg_catalog.row_to_json(djcrf_pg_after.*) '
                        'FROM (SELECT %1$s FROM djcrf_pg_old) AS djcrf_pg_before, '
                        '     (SELECT %1$s FROM djcrf_pg_new) AS djcrf_pg_after',
                        COALESCE(columns, '*')
                    ) INTO before, after;
                ELSIF GREATEST(widest, wider) OPERATOR(pg_catalog.>) bound THEN
                    EXECUTE pg_catalog.format(
                        'SELECT pg_catalog.max(pg_catalog.octet_length(pg_catalog.row_to_json(djcrf_pg_row.*)::pg_catalog.text)) '
                        'FROM (SELECT %1$s FROM djcrf_pg_old UNION ALL SELECT %1$s FROM djcrf_pg_new) AS djcrf_pg_row',
                        COALESCE(columns, '*')
                    ) INTO widest;
                END IF;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            failed := true; -- and the settings are what they were
            kept := NULL;
        END;
    END IF;
    IF failed THEN
        INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, depth, context)
        OVERRIDING SYSTEM VALUE
        VALUES (/* :schema */djcrf_pg_place_v2(), tg_relid, 'R', pg_catalog.pg_trigger_depth(), says);
    ELSIF after IS NOT NULL THEN
        INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, depth, old, new, context)
        OVERRIDING SYSTEM VALUE
        VALUES (/* :schema */djcrf_pg_place_v2(), tg_relid, 'U', pg_catalog.pg_trigger_depth(), before, after, says);
    ELSIF gone OPERATOR(pg_catalog.<>) changed THEN
        EXECUTE pg_catalog.format(
            'INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, depth, old, context) '
            'OVERRIDING SYSTEM VALUE '
            'SELECT /* :schema */djcrf_pg_place_v2(), $1, ''D'', $2, pg_catalog.row_to_json(djcrf_pg_row.*), $3 '
            'FROM (SELECT %s FROM djcrf_pg_old) AS djcrf_pg_row',
            COALESCE(columns, '*')
        ) USING tg_relid, pg_catalog.pg_trigger_depth(), says;
        EXECUTE pg_catalog.format(
            'INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, depth, new, context) '
            'OVERRIDING SYSTEM VALUE '
            'SELECT /* :schema */djcrf_pg_place_v2(), $1, ''I'', $2, pg_catalog.row_to_json(djcrf_pg_row.*), $3 '
            'FROM (SELECT %s FROM djcrf_pg_new) AS djcrf_pg_row',
            COALESCE(columns, '*')
        ) USING tg_relid, pg_catalog.pg_trigger_depth(), says;
    ELSIF columns IS NULL THEN
        -- What a plan for many rows has compiled, each later statement with a few would compile too.
        compiles := pg_catalog.current_setting('jit');
        PERFORM pg_catalog.set_config('jit', 'off', true);
        INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, depth, old, new, context)
        OVERRIDING SYSTEM VALUE
        SELECT /* :schema */djcrf_pg_place_v2(), tg_relid, 'U', pg_catalog.pg_trigger_depth(), djcrf_pg_pair.first, djcrf_pg_pair.second, says
        FROM (
            SELECT djcrf_pg_before.image AS first, djcrf_pg_after.image AS second
            FROM (SELECT pg_catalog.row_number() OVER () AS nth, pg_catalog.row_to_json(djcrf_pg_old.*) AS image
                  FROM djcrf_pg_old) AS djcrf_pg_before
            JOIN (SELECT pg_catalog.row_number() OVER () AS nth, pg_catalog.row_to_json(djcrf_pg_new.*) AS image
                  FROM djcrf_pg_new) AS djcrf_pg_after
            ON djcrf_pg_before.nth OPERATOR(pg_catalog.=) djcrf_pg_after.nth
            ORDER BY djcrf_pg_before.nth
        ) AS djcrf_pg_pair;
        PERFORM pg_catalog.set_config('jit', compiles, true);
    ELSE
        EXECUTE pg_catalog.format(
            'INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, depth, old, new, context) '
            'OVERRIDING SYSTEM VALUE '
            'SELECT /* :schema */djcrf_pg_place_v2(), $1, ''U'', $2, djcrf_pg_pair.before, djcrf_pg_pair.after, $3 '
            'FROM (SELECT djcrf_pg_before.image AS before, djcrf_pg_after.image AS after '
            '      FROM (SELECT pg_catalog.row_number() OVER () AS nth, pg_catalog.row_to_json(djcrf_pg_row.*) AS image '
            '            FROM (SELECT %1$s FROM djcrf_pg_old) AS djcrf_pg_row) AS djcrf_pg_before '
            '      JOIN (SELECT pg_catalog.row_number() OVER () AS nth, pg_catalog.row_to_json(djcrf_pg_row.*) AS image '
            '            FROM (SELECT %1$s FROM djcrf_pg_new) AS djcrf_pg_row) AS djcrf_pg_after '
            '      ON djcrf_pg_before.nth OPERATOR(pg_catalog.=) djcrf_pg_after.nth '
            '      ORDER BY djcrf_pg_before.nth) AS djcrf_pg_pair',
            columns
        ) USING tg_relid, pg_catalog.pg_trigger_depth(), says;
    END IF;
    IF kept IS NOT NULL THEN
        PERFORM /* :schema */djcrf_pg_unpin_v2(kept);
    END IF;
    PERFORM /* :schema */djcrf_pg_ring_v2(tg_relid, tg_op, GREATEST(gone, changed));
    RETURN NULL;
END
$function$;

CREATE FUNCTION /* :schema */djcrf_pg_capture_truncate_v2() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    IF /* :schema */djcrf_pg_suspended_v2(tg_relid) THEN
        RETURN NULL;
    END IF;
    INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, depth, context)
    OVERRIDING SYSTEM VALUE
    VALUES (/* :schema */djcrf_pg_place_v2(), tg_relid, 'T', pg_trigger_depth(), /* :schema */djcrf_pg_context_v2());
    PERFORM /* :schema */djcrf_pg_ring_v2(tg_relid, tg_op, 0);
    RETURN NULL;
END
$function$;

-- Touches, see 0003_forwards.sql.

-- keys: an array of objects, column to value. Returns false where no trigger of ours captures the table.
CREATE FUNCTION /* :schema */djcrf_pg_touch_v2(relation regclass, keys jsonb) RETURNS boolean
LANGUAGE plpgsql STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, MDY' SET timezone = 'UTC' SET intervalstyle = 'iso_8601'
SET bytea_output = 'hex' SET extra_float_digits = 1
AS $function$
#variable_conflict use_variable
DECLARE
    caller name := coalesce(nullif(current_setting('role'), 'none'), session_user);
    captures boolean;
    given text[];
    columns text;
    changed bigint;
BEGIN
    IF NOT has_any_column_privilege(caller, relation, 'UPDATE') THEN
        RAISE EXCEPTION 'permission denied to touch rows of %', relation
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('Role %I needs a right to UPDATE the table, or a column of it.', caller);
    END IF;
    -- As an UPDATE would be captured or not.
    SELECT CASE t.tgenabled WHEN 'A' THEN true WHEN 'D' THEN false
                            ELSE (t.tgenabled = 'R') = (current_setting('session_replication_role') = 'replica') END
    INTO captures
    FROM pg_trigger AS t
    JOIN pg_proc AS p ON p.oid = t.tgfoid
    JOIN pg_class AS log ON log.relnamespace = p.pronamespace
    WHERE t.tgrelid = relation AND p.proname LIKE 'djcrf\_pg\_capture\_update\_%'
      AND log.oid = '/* :schema */djcrf_pg_change'::regclass;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF NOT captures OR jsonb_array_length(keys) = 0 OR /* :schema */djcrf_pg_suspended_v2(relation) THEN
        RETURN true;
    END IF;
    given := ARRAY(SELECT jsonb_object_keys(keys -> 0));
    -- So nobody can say of a row more than which one it is.
    IF given = '{}' OR NOT EXISTS (
        SELECT FROM pg_index AS i
        WHERE i.indrelid = relation AND i.indisunique
          AND (i.indisprimary OR NOT EXISTS (SELECT FROM pg_index WHERE indrelid = relation AND indisprimary))
          AND given <@ ARRAY(
            SELECT a.attname::text FROM pg_attribute AS a
            WHERE a.attrelid = relation AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
        )
    ) THEN
        RAISE EXCEPTION 'rows of % cannot be named by (%)', relation, array_to_string(given, ', ')
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'These must be columns of the primary key, or where there is none, of one unique index.';
    END IF;
    -- Values of types that are not built in stay text: what belongs to somebody else, the check of a domain or a cast, is
    -- not run with the rights of this function's owner.
    WITH RECURSIVE base (attnum, attname, type, typmod) AS (
        SELECT a.attnum, a.attname, a.atttypid, a.atttypmod FROM pg_attribute AS a
        WHERE a.attrelid = relation AND a.attname = ANY (given)
        UNION ALL
        SELECT base.attnum, base.attname, t.typbasetype, t.typtypmod
        FROM base JOIN pg_type AS t ON t.oid = base.type AND t.typtype = 'd'
    )
    SELECT string_agg(
        format('%I %s', attname, CASE WHEN type < 16384 THEN format_type(type, typmod) ELSE 'text' END),
        ', ' ORDER BY base.attnum
    ) INTO columns
    FROM base
    WHERE NOT EXISTS (SELECT FROM pg_type AS t WHERE t.oid = base.type AND t.typtype = 'd');
    EXECUTE format(
        'INSERT INTO /* :schema */djcrf_pg_change (id, relation, op, old, new, context) OVERRIDING SYSTEM VALUE '
        'SELECT /* :schema */djcrf_pg_place_v2(), $1, ''U'', djcrf_pg_key.image, djcrf_pg_key.image, $3 '
        'FROM (SELECT row_to_json(djcrf_pg_row.*) AS image '
        '      FROM jsonb_to_recordset($2) AS djcrf_pg_row (%s) WHERE djcrf_pg_row IS NOT NULL) AS djcrf_pg_key',
        columns
    ) USING relation, keys, /* :schema */djcrf_pg_context_v2();
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF changed > 0 THEN
        PERFORM /* :schema */djcrf_pg_ring_v2(relation, 'UPDATE', changed);
    END IF;
    RETURN true;
END
$function$;

CREATE OR REPLACE FUNCTION /* :schema */djcrf_pg_touch(relation regclass, VARIADIC keys anyarray) RETURNS void
LANGUAGE plpgsql STRICT
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    named jsonb := to_jsonb(keys);
    columns text[];
BEGIN
    IF jsonb_typeof(named -> 0) <> 'object' THEN
        SELECT array_agg(a.attname) INTO columns
        FROM pg_index AS i
        JOIN pg_attribute AS a ON a.attrelid = relation AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
        WHERE i.indrelid = relation AND i.indisprimary;
        IF cardinality(columns) IS DISTINCT FROM 1 THEN
            RAISE EXCEPTION '% has no primary key of one column', relation
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'Name the columns: djcrf_pg_touch(…, ''{"a": 1, "b": 2}''::jsonb).';
        END IF;
        SELECT jsonb_agg(jsonb_build_object(columns[1], each.key)) INTO named
        FROM jsonb_array_elements(named) AS each (key);
    END IF;
    IF NOT /* :schema */djcrf_pg_touch_v2(relation, named) THEN
        RAISE EXCEPTION '% has no triggers of djcrf_pg, so nobody can be told of it', relation
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Observe its model, or name it in DJCRF_PG[''OBSERVE''], and run manage.py migrate.';
    END IF;
END
$function$;

REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_offset_v2() FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_logged_v2() FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_place_v2() FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_context_v2() FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_needs_v2() FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_ordinary_v2() FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_suspended_v2(oid) FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_current_v2(oid) FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_made_v2(oid) FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_columns_v2(oid, text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_pin_v2(int) FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_unpin_v2(text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_ring_v2(oid, text, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_capture_insert_v2() FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_capture_update_v2() FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_capture_delete_v2() FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_capture_truncate_v2() FROM PUBLIC;

-- A listener of a role of its own needs these too: it adopts what was restored from another cluster, and says whether to ring.
DO $do$
DECLARE
    listener text;
BEGIN
    FOR listener IN
        SELECT DISTINCT quote_ident(pg_get_userbyid(acl.grantee)) FROM pg_class AS c CROSS JOIN aclexplode(c.relacl) AS acl
        WHERE c.oid = '/* :schema */djcrf_pg_listener_awake'::regclass AND acl.privilege_type = 'UPDATE'
          AND acl.grantee NOT IN (0, c.relowner)
    LOOP
        EXECUTE 'GRANT INSERT ON /* :schema */djcrf_pg_change TO ' || listener;
        EXECUTE 'GRANT SELECT, UPDATE ON SEQUENCE /* :schema */djcrf_pg_rings TO ' || listener;
    END LOOP;
END
$do$;
