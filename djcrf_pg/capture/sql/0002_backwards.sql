DROP TABLE /* :schema */djcrf_pg_failure;
