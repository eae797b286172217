-- name: record
-- $1 identities of observers, $2 their addresses, $3 parts, $4 models, $5 keys, $6 changes, $7 errors, $8 tracebacks, $9
-- times, $10 whether subscribers know, $11 rows of a part of an observer that are kept; others become one entry.
WITH given AS (
    SELECT observer, address, part, model, pk, change_id, error, traceback, times,
           row_number() OVER (PARTITION BY address, part ORDER BY change_id) AS place
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[], $9::bigint[])
        AS given (observer, address, part, model, pk, change_id, error, traceback, times)
), placed AS (
    SELECT observer, address, part, model, change_id, error, traceback, times,
           CASE WHEN place + (
               SELECT count(*) FROM djcrf_pg_failure AS known WHERE known.address = given.address AND known.part = given.part
           ) <= $11 OR EXISTS (
               SELECT FROM djcrf_pg_failure AS known
               WHERE known.address = given.address AND known.part = given.part AND known.pk = given.pk
           ) THEN pk ELSE '' END AS pk
    FROM given
)
INSERT INTO djcrf_pg_failure AS failure (observer, address, part, model, pk, change_id, error, traceback, times, told)
SELECT min(observer), address, part, min(model), pk, max(change_id), (array_agg(error ORDER BY change_id DESC))[1],
       (array_agg(traceback ORDER BY change_id DESC))[1], sum(times), $10
FROM placed GROUP BY address, part, pk ORDER BY max(change_id)
ON CONFLICT (address, part, pk) DO UPDATE
SET times = failure.times + excluded.times, change_id = excluded.change_id, error = excluded.error,
    traceback = excluded.traceback, last_at = clock_timestamp(), told = excluded.told, retry = false

-- name: lately
-- $1 seconds: the observers whose leader has failed on something since. What a handler failed on is sent in its own process.
SELECT DISTINCT address FROM djcrf_pg_failure WHERE part <> 'handler' AND last_at >= clock_timestamp() - $1::float8 * interval '1 s'

-- name: untold
-- The observers whose subscribers have not received their resync.
SELECT DISTINCT address FROM djcrf_pg_failure WHERE NOT told

-- name: told
-- $1 addresses of observers.
UPDATE djcrf_pg_failure SET told = true WHERE NOT told AND address = ANY ($1::text[])

-- name: asked
-- $1 rows: those that somebody wants sent again.
SELECT id, address, pk, change_id FROM djcrf_pg_failure WHERE retry ORDER BY id LIMIT $1

-- name: settle
-- $1 entries that were tried again; those that have failed again are no longer marked.
DELETE FROM djcrf_pg_failure WHERE id = ANY ($1::bigint[]) AND retry

-- name: refuse
-- $1 entries of observers that this process does not have.
UPDATE djcrf_pg_failure SET retry = false WHERE id = ANY ($1::bigint[])
