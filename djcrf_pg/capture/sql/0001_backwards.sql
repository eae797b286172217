-- CASCADE takes the triggers on observed tables along, which depend on these functions and on nothing else.
DROP FUNCTION /* :schema */djcrf_pg_capture_insert_v1() CASCADE;
DROP FUNCTION /* :schema */djcrf_pg_capture_update_v1() CASCADE;
DROP FUNCTION /* :schema */djcrf_pg_capture_delete_v1() CASCADE;
DROP FUNCTION /* :schema */djcrf_pg_capture_truncate_v1() CASCADE;
DROP FUNCTION /* :schema */djcrf_pg_ring_v1(oid, text, bigint);
DROP FUNCTION /* :schema */djcrf_pg_columns_v1(oid, text[]);
DROP FUNCTION /* :schema */djcrf_pg_suspended_v1(oid);
DROP FUNCTION /* :schema */djcrf_pg_trim_v1(bigint);
DROP SEQUENCE /* :schema */djcrf_pg_floor;
DROP SEQUENCE /* :schema */djcrf_pg_listener_awake;
DROP TABLE /* :schema */djcrf_pg_cap;
DROP TABLE /* :schema */djcrf_pg_shape;
DROP TABLE /* :schema */djcrf_pg_cursor;
DROP TABLE /* :schema */djcrf_pg_change;
