-- name: at_work
-- $1 our server process. "ClientWrite": it has answered, and nobody takes the answer (PostgreSQL manual, 27.2.3).
SELECT state = 'active' AND wait_event IS DISTINCT FROM 'ClientWrite' FROM pg_stat_activity WHERE pid = $1

-- name: end
-- $1 our server process. A pid may belong to somebody else by now: the application name has our host and process in it.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = $1 AND application_name IN (
    replace(current_setting('application_name'), ' watch ', ' listener '),
    replace(current_setting('application_name'), ' watch ', ' gate '),
    current_setting('djcrf_pg.leader')
)
