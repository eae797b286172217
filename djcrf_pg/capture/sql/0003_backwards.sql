DROP FUNCTION /* :schema */djcrf_pg_touch(regclass, anyarray);
DROP FUNCTION /* :schema */djcrf_pg_touch_v1(regclass, jsonb);
