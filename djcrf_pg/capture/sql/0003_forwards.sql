-- Touches: an update of a row that changes none of its columns, written to the log by whoever says so.
-- A migration references this file: it is frozen once released. `/* :schema */` is the schema that the
-- app's migrations run in, quoted and with its dot.
--
-- A touch is a change U whose depth is 0, which no trigger writes. Both of its images are the row's key, and the leader
-- loads the row. So nothing is read here that the caller might not be allowed to read, nothing that he says of the row
-- is believed, and no lock is taken: a row that another transaction changes meanwhile is not told as it was before.
--
-- PUBLIC may call both functions. They ask for the rights of `UPDATE … WHERE key = …`, of the role that the session has
-- (its SET ROLE, else its user): inside of SECURITY DEFINER, current_user is the owner.

-- keys: an array of objects, column to value. Returns false where no trigger of ours captures the table.
CREATE FUNCTION /* :schema */djcrf_pg_touch_v1(relation regclass, keys jsonb) RETURNS boolean
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
    IF NOT captures OR jsonb_array_length(keys) = 0 OR /* :schema */djcrf_pg_suspended_v1(relation) THEN
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
        'INSERT INTO /* :schema */djcrf_pg_change (relation, op, old, new, context) '
        'SELECT $1, ''U'', djcrf_pg_key.image, djcrf_pg_key.image, $3 '
        'FROM (SELECT row_to_json(djcrf_pg_row.*) AS image '
        '      FROM jsonb_to_recordset($2) AS djcrf_pg_row (%s) WHERE djcrf_pg_row IS NOT NULL) AS djcrf_pg_key',
        columns
    ) USING relation, keys, nullif(current_setting('djcrf_pg.context', true), '');
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF changed > 0 THEN
        PERFORM /* :schema */djcrf_pg_ring_v1(relation, 'UPDATE', changed);
    END IF;
    RETURN true;
END
$function$;

-- For people, and for triggers of theirs: djcrf_pg_touch('shop_order', 7, 8). A key of several columns is an object,
-- '{"hall": "A", "number": 1}'::jsonb. A null is nobody's key, and nothing.
CREATE FUNCTION /* :schema */djcrf_pg_touch(relation regclass, VARIADIC keys anyarray) RETURNS void
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
    IF NOT /* :schema */djcrf_pg_touch_v1(relation, named) THEN
        RAISE EXCEPTION '% has no triggers of djcrf_pg, so nobody can be told of it', relation
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Observe its model, or name it in DJCRF_PG[''OBSERVE''], and run manage.py migrate.';
    END IF;
END
$function$;
