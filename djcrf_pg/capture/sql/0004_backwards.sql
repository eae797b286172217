DROP FUNCTION /* :schema */djcrf_pg_look_v1();
ALTER TABLE /* :schema */djcrf_pg_shape
    DROP COLUMN name, DROP COLUMN members, DROP COLUMN storage, DROP COLUMN altered, DROP COLUMN triggers,
    DROP COLUMN crashed;
