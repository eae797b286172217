-- Who leads says so in its application_name: operators see it, and the server reports the change to the client, which
-- is how a command that returns no rows tells what came of it (PostgreSQL manual, 54.2.7).

-- $1 class of the leader's lock.
SELECT set_config('application_name', current_setting('djcrf_pg.leader'), false)
WHERE pg_try_advisory_lock($1::int, '/* :schema */djcrf_pg_change'::regclass::oid::int8::bit(32)::int)
