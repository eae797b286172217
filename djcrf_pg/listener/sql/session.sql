-- name: at_work
-- $1 our server process. "Client": it waits for us, either to take the answer (ClientWrite) or for the rest of the
-- question (ClientRead), and neither gets through (PostgreSQL manual, 27.2.3).
SELECT state = 'active' AND wait_event_type IS DISTINCT FROM 'Client' FROM pg_stat_activity WHERE pid = $1

-- name: end
-- $1 our server process. A pid may belong to somebody else by now: the application name has our host and process in it.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = $1 AND application_name IN (
    current_setting('djcrf_pg.listener'), current_setting('djcrf_pg.gate'), current_setting('djcrf_pg.leader')
)
