DROP TABLE /* :schema */djcrf_pg_shadow_result;
DROP TABLE /* :schema */djcrf_pg_shadow_message;
