DROP SEQUENCE /* :schema */djcrf_pg_interest_version;
DROP TABLE /* :schema */djcrf_pg_interest;
