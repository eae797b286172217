-- name: probe
-- :holder of the leader's lock, $1 quoted table names, :oid of one, $2 names of our triggers, $3 class of the locks that
-- say of which project a listener is, :history of the database.
WITH wanted AS (
    SELECT name, /* :oid */ AS oid FROM unnest($1::text[]) AS wanted (name)
)
SELECT pg_current_snapshot()::text AS snapshot, clock_timestamp() AS at,
       history.*,
       EXISTS (
           SELECT FROM pg_class AS log JOIN pg_class AS interest USING (relnamespace)
           WHERE log.oid = to_regclass('djcrf_pg_change') AND interest.oid = to_regclass('djcrf_pg_interest')
       ) AS migrated,
       (
           SELECT concat_ws(' ', nullif(application_name, ''), '(server process ' || pid || ')')
           FROM (/* :holder */) AS holder LIMIT 1
       ) AS leader,
       (
           SELECT locks.objid::int8 FROM (/* :holder */) AS holder JOIN pg_locks AS locks USING (pid)
           WHERE locks.locktype = 'advisory' AND locks.granted AND locks.objsubid = 2
             AND locks.classid = $3::int8::oid
           LIMIT 1
       ) AS project,
       ARRAY(SELECT name FROM wanted WHERE oid IS NULL) AS absent,
       ARRAY(
           SELECT name FROM wanted
           WHERE oid IS NOT NULL AND cardinality($2::text[]) > (
               SELECT count(*) FROM pg_trigger JOIN pg_proc AS called ON called.oid = tgfoid
               WHERE tgrelid = wanted.oid AND tgname = ANY ($2::text[]) AND tgenabled IN ('O', 'A')
                 -- Not those of a log in another schema.
                 AND pronamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('djcrf_pg_change'))
           )
       ) AS bare
FROM (/* :history */) AS history

-- name: term
-- :holder of the leader's lock. Of the leadership that began last, by the cursor; and by the lock that the leader has with
-- the term for its key, should somebody have emptied all tables.
SELECT greatest(
    (SELECT term FROM djcrf_pg_cursor WHERE name = 'leader'),
    (
        SELECT max(locks.classid::int8 << 32 | locks.objid::int8)
        FROM (/* :holder */) AS holder JOIN pg_locks AS locks USING (pid)
        WHERE locks.locktype = 'advisory' AND locks.granted AND locks.objsubid = 1
          AND locks.mode = 'ShareLock' -- that of an install, which it may have for a moment, is exclusive
    ),
    0
)

-- name: projects
-- $1 names of our triggers: the projects that have some, as their comments say.
SELECT DISTINCT split_part(obj_description(oid, 'pg_trigger'), ':', 3) AS name
FROM pg_trigger WHERE tgname = ANY ($1::text[])

-- name: hold
-- $1 class and $2 key of the lock that says that a holder's session lives; false where another session has it.
SELECT pg_try_advisory_lock($1::int, $2::int)

-- name: publish
-- $1 holder, $2 chunks and $3 their bits.
INSERT INTO djcrf_pg_interest AS interest (holder, chunk, bits)
SELECT $1::int, chunk, bits FROM unnest($2::smallint[], $3::bit(1024)[]) AS wanted (chunk, bits)
ON CONFLICT (holder, chunk) DO UPDATE SET bits = excluded.bits

-- name: rise
-- When what was published is committed.
SELECT nextval('djcrf_pg_interest_version')

-- name: withdraw
-- $1 holder. The leader deletes the rows, some time after the session has ended.
UPDATE djcrf_pg_interest SET bits = 0::bit(1024) WHERE holder = $1

-- name: is_there
-- $1 holder, $2 chunks and $3 their bits: whether all of them are there.
SELECT count(*) = cardinality($2::smallint[])
FROM unnest($2::smallint[], $3::bit(1024)[]) AS wanted (chunk, bits)
JOIN djcrf_pg_interest AS interest
  ON interest.holder = $1 AND interest.chunk = wanted.chunk AND interest.bits & wanted.bits = wanted.bits

-- name: end_sessions
-- $1 server processes that an event loop left behind when it was closed. A pid may belong to somebody else by
-- now: the application name, which has our host and process in it, tells.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = ANY ($1::int[])
  AND application_name IN (current_setting('djcrf_pg.listener'), current_setting('djcrf_pg.leader'))
