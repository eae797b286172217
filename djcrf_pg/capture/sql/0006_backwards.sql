-- Every trigger calls the functions of before, so no write goes without its capture.
DO $do$
DECLARE
    path text := current_setting('search_path');
    found record;
BEGIN
    -- With it, names are written with their schema.
    PERFORM set_config('search_path', 'pg_catalog', true);
    FOR found IN
        SELECT t.tgname, t.tgenabled, t.tgrelid::regclass AS relation, pg_get_triggerdef(t.oid) AS definition
        FROM pg_trigger AS t
        JOIN pg_proc AS p ON p.oid = t.tgfoid
        WHERE NOT t.tgisinternal AND p.proname LIKE 'djcrf\_pg\_capture\_%\_v2'
          AND p.pronamespace = (SELECT relnamespace FROM pg_class WHERE oid = '/* :schema */djcrf_pg_change'::regclass)
        ORDER BY t.tgrelid, t.tgname
    LOOP
        EXECUTE regexp_replace(
            regexp_replace(found.definition, '^CREATE TRIGGER', 'CREATE OR REPLACE TRIGGER'),
            '(djcrf_pg_capture_[a-z]+)_v2\(', '\1_v1('
        );
        IF found.tgenabled = 'D' THEN
            EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', found.relation, found.tgname);
        END IF;
    END LOOP;
    PERFORM set_config('search_path', path, true);
END
$do$;

-- Those draw their ids from the sequence, which must go on behind the WAL positions.
SELECT setval(
    pg_get_serial_sequence('/* :schema */djcrf_pg_change', 'id'),
    greatest(
        (pg_current_wal_insert_lsn() - '0/0')::bigint + pg_sequence_last_value('/* :schema */djcrf_pg_offset'),
        pg_sequence_last_value(pg_get_serial_sequence('/* :schema */djcrf_pg_change', 'id'))
    )
);

DO $do$
BEGIN
    EXECUTE replace(
        pg_get_functiondef('/* :schema */djcrf_pg_look_v1()'::regprocedure),
        '_change (id, relation, op) OVERRIDING SYSTEM VALUE VALUES (/* :schema */djcrf_pg_place_v2(), present.relation,',
        '_change (relation, op) VALUES (present.relation,'
    );
END
$do$;

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
    IF NOT /* :schema */djcrf_pg_touch_v1(relation, named) THEN
        RAISE EXCEPTION '% has no triggers of djcrf_pg, so nobody can be told of it', relation
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Observe its model, or name it in DJCRF_PG[''OBSERVE''], and run manage.py migrate.';
    END IF;
END
$function$;

DROP FUNCTION /* :schema */djcrf_pg_capture_insert_v2();
DROP FUNCTION /* :schema */djcrf_pg_capture_update_v2();
DROP FUNCTION /* :schema */djcrf_pg_capture_delete_v2();
DROP FUNCTION /* :schema */djcrf_pg_capture_truncate_v2();
DROP FUNCTION /* :schema */djcrf_pg_touch_v2(regclass, jsonb);
DROP FUNCTION /* :schema */djcrf_pg_logged_v2();
DROP FUNCTION /* :schema */djcrf_pg_place_v2();
DROP FUNCTION /* :schema */djcrf_pg_offset_v2();
DROP FUNCTION /* :schema */djcrf_pg_context_v2();
DROP FUNCTION /* :schema */djcrf_pg_needs_v2();
DROP FUNCTION /* :schema */djcrf_pg_ordinary_v2();
DROP FUNCTION /* :schema */djcrf_pg_suspended_v2(oid);
DROP FUNCTION /* :schema */djcrf_pg_current_v2(oid);
DROP FUNCTION /* :schema */djcrf_pg_made_v2(oid);
DROP FUNCTION /* :schema */djcrf_pg_columns_v2(oid, text[]);
DROP FUNCTION /* :schema */djcrf_pg_pin_v2(int);
DROP FUNCTION /* :schema */djcrf_pg_unpin_v2(text[]);
DROP FUNCTION /* :schema */djcrf_pg_ring_v2(oid, text, bigint);
DROP SEQUENCE /* :schema */djcrf_pg_offset;
DROP SEQUENCE /* :schema */djcrf_pg_rings;
