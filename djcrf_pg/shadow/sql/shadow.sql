-- name: note
-- Names, addresses, keys, digests, parts and origins of messages; whether signals have sent them.
INSERT INTO djcrf_pg_shadow_message (name, address, pk, digest, parts, origin, by_signals)
SELECT *, /* :by_signals */
FROM unnest(
    /* :given_name */::text[], /* :given_address */::text[], /* :given_pk */::text[],
    /* :given_digest */::text[], /* :given_parts */::text[], /* :given_origin */::text[]
)
ON CONFLICT DO NOTHING

-- name: forget
-- What no leader has compared in six hours, for there was none. One that comes then leaves out what triggers have captured of
-- that time, see comparison.py.
DELETE FROM djcrf_pg_shadow_message WHERE NOT compared AND at < statement_timestamp() - interval '6 hours'

-- name: size
-- Bytes of what waits, and of what was compared a while ago.
SELECT pg_relation_size('djcrf_pg_shadow_message')

-- name: match
-- Pairs that say the same are compared and counted, in one statement: a leader that dies has done both or neither. $1 addresses of
-- observers, $2 where they are, $3 their models. No join of what waits with itself: the table grows within a moment, and without
-- statistics that would be a loop in a loop.
WITH waiting AS (
    SELECT name, address, by_signals, row_number() OVER (PARTITION BY address, pk, digest, by_signals) AS place,
           count(*) FILTER (WHERE by_signals) OVER alike AS signals,
           count(*) FILTER (WHERE NOT by_signals) OVER alike AS triggers
    FROM djcrf_pg_shadow_message WHERE NOT compared
    WINDOW alike AS (PARTITION BY address, pk, digest)
), paired AS MATERIALIZED (
    SELECT name, address, by_signals FROM waiting WHERE place <= least(signals, triggers)
), matched AS (
    UPDATE djcrf_pg_shadow_message AS message SET compared = true
    FROM paired WHERE message.name = paired.name
)
INSERT INTO djcrf_pg_shadow_result AS result (observer, address, model, kind, what, times, samples)
SELECT min(observer), address, min(model), 'equal', '', count(*), ''
FROM paired JOIN unnest($1::text[], $2::text[], $3::text[]) AS known (address, observer, model) USING (address)
WHERE by_signals GROUP BY address
ON CONFLICT (address, kind, what) DO UPDATE
SET times = result.times + excluded.times, last_at = clock_timestamp(), observer = excluded.observer

-- name: left
-- $1 seconds after which a message is due, $2 the snapshot whose changes the leader has all noted, $3 messages that are due, and
-- messages of a row, at most: the oldest that are due, with the others of their rows. One of signals is due when its change is
-- noted, which was committed before. $4 seconds for which this leader has noted all changes.
WITH due AS (
    SELECT DISTINCT address, pk FROM (
        SELECT address, pk FROM djcrf_pg_shadow_message
        WHERE NOT compared AND at < statement_timestamp() - $1::float8 * interval '1 s'
          AND (NOT by_signals OR pg_visible_in_snapshot(xid, $2::text::pg_snapshot))
        ORDER BY at LIMIT $3
    ) AS oldest
)
SELECT name, address, pk, by_signals, digest, parts, origin,
       at < statement_timestamp() - $1::float8 * interval '1 s'
       AND (NOT by_signals OR pg_visible_in_snapshot(xid, $2::text::pg_snapshot)) AS is_due,
       at < statement_timestamp() - 3 * $1::float8 * interval '1 s' AS is_old,
       by_signals AND at < statement_timestamp() - $4::float8 * interval '1 s' AS is_unsure
FROM due CROSS JOIN LATERAL (
    SELECT name, by_signals, digest, parts, origin, xid, at FROM djcrf_pg_shadow_message AS message
    WHERE NOT compared AND message.address = due.address AND message.pk = due.pk
    ORDER BY at, name LIMIT $3
) AS message
ORDER BY address, pk, at, name

-- name: record
-- $1 observers, $2 their addresses, $3 models, $4 kinds, $5 what, $6 times, $7 samples, $8 samples that are kept (the last), $9
-- results that are kept of an observer's kind; others become one. $10 messages that are compared with this.
WITH compared AS (
    UPDATE djcrf_pg_shadow_message SET compared = true WHERE name = ANY ($10::text[])
), given AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[])
        AS given (observer, address, model, kind, what, times, samples)
), placed AS (
    SELECT observer, address, model, kind, times, samples,
           CASE WHEN (
               SELECT count(*) FROM djcrf_pg_shadow_result AS known WHERE known.address = given.address AND known.kind = given.kind
           ) < $9 OR EXISTS (
               SELECT FROM djcrf_pg_shadow_result AS known
               WHERE known.address = given.address AND known.kind = given.kind AND known.what = given.what
           ) THEN what ELSE '(more)' END AS what
    FROM given
)
INSERT INTO djcrf_pg_shadow_result AS result (observer, address, model, kind, what, times, samples)
SELECT min(observer), address, min(model), kind, what, sum(times), max(samples)
FROM placed GROUP BY address, kind, what
ON CONFLICT (address, kind, what) DO UPDATE
SET times = result.times + excluded.times, last_at = clock_timestamp(), observer = excluded.observer,
    samples = array_to_string(
        (string_to_array(excluded.samples, E'\n') || string_to_array(result.samples, E'\n'))[:$8::int], E'\n'
    )

-- name: purge
-- $1 seconds: what was compared so long ago that no leader notes it again, as one does that follows another.
DELETE FROM djcrf_pg_shadow_message WHERE compared AND at < statement_timestamp() - $1::float8 * interval '1 s'
