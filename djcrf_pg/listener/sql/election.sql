-- name: holder
-- :class of the leader's lock: the session that has it.
SELECT locks.pid, activity.application_name, activity.state, activity.wait_event_type
FROM pg_locks AS locks LEFT JOIN pg_stat_activity AS activity USING (pid)
WHERE locks.locktype = 'advisory' AND locks.granted AND locks.objsubid = 2
  AND locks.classid = /* :class */::int8::oid AND locks.objid = to_regclass('djcrf_pg_change')::oid
  AND locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())

-- name: history
-- Which database and log this is, and which course of its events. A name of a WAL file begins with the timeline (PostgreSQL
-- manual, 9.27.3), which a promotion or a recovery to a point in time changes.
SELECT (SELECT system_identifier FROM pg_control_system()) AS system,
       (SELECT oid FROM pg_database WHERE datname = current_database())::int8 AS database,
       coalesce(to_regclass('djcrf_pg_change')::oid, 0)::int8 AS log,
       ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int8 AS timeline

-- name: own_term
-- $1 the term that a leader has begun: the key of a lock that says so to whoever may look into pg_locks.
SELECT pg_advisory_lock_shared($1::int8)

-- name: claim
-- $1 class and $2 key of the lock that says of which project a listener is.
SELECT pg_advisory_lock_shared($1::int, $2::int8::bit(32)::int)

-- name: try_lead
-- :schema of the log, $1 class of the leader's lock. Who leads says so in its application_name: operators see it, and the
-- server reports the change to the client, which is how a command that returns no rows tells what came of it
-- (PostgreSQL manual, 54.2.7).
SELECT set_config('application_name', current_setting('djcrf_pg.leader'), false)
WHERE pg_try_advisory_lock($1::int, '/* :schema */djcrf_pg_change'::regclass::oid::int8::bit(32)::int)

-- name: stand_by
-- :schema of the log, :class of the leader's lock, :wait milliseconds, :holder the query above. One command that waits
-- for the lock, and before that ends a leader that is frozen: a stopped process keeps its session, and the server cannot
-- know.
-- Two looks in a row must find unread work and the same time of the cursor, which a living leader saves or touches each
-- second while there is work. A server process that is at work is no frozen leader's, unless it waits for its client:
-- nobody takes the answer (wait event ClientWrite), or nothing follows the first messages of a question (ClientRead).
-- The COMMIT gives the tables back before the wait: nobody who would TRUNCATE or DROP them has to wait for us.
DO $do$
DECLARE
    look text;
    leader int;
BEGIN
    PERFORM set_config('lock_timeout', '/* :wait */', false);
    SELECT coalesce(cursor.saved_at::text, 'never') INTO look
    FROM (VALUES ('leader')) AS wanted (name) LEFT JOIN /* :schema */djcrf_pg_cursor AS cursor USING (name)
    WHERE EXISTS (
        SELECT FROM /* :schema */djcrf_pg_change AS change
        WHERE change.xid >= pg_snapshot_xmax(coalesce(cursor.snapshot, '1:1:'))
    ) OR EXISTS (
        SELECT FROM /* :schema */djcrf_pg_change AS change
        WHERE change.xid = ANY (ARRAY(SELECT pg_snapshot_xip(cursor.snapshot)))
    );
    IF look = current_setting('djcrf_pg.look', true) THEN
        SELECT holder.pid INTO leader FROM (/* :holder */) AS holder
        WHERE holder.state <> 'active' OR holder.wait_event_type = 'Client';
        IF pg_terminate_backend(leader) THEN
            RAISE WARNING 'the leader (server process %) does nothing about unread changes since %: its session is ended',
                leader, look;
        END IF;
    END IF;
    PERFORM set_config('djcrf_pg.look', look, false);
    COMMIT;
    BEGIN
        PERFORM pg_advisory_lock(/* :class */, '/* :schema */djcrf_pg_change'::regclass::oid::int8::bit(32)::int);
        PERFORM set_config('application_name', current_setting('djcrf_pg.leader'), false);
    EXCEPTION WHEN lock_not_available THEN
        -- Caught, it is no error in the server's log every few seconds.
        NULL;
    END;
    PERFORM set_config('lock_timeout', '0', false);
END
$do$
