-- name: note
-- Names, addresses, keys, digests, parts and origins of messages; whether signals have sent them.
INSERT INTO /* :schema */djcrf_pg_shadow_message (name, address, pk, digest, parts, origin, by_signals)
SELECT *, /* :by_signals */
FROM unnest(
    /* :given_name */::text[], /* :given_address */::text[], /* :given_pk */::text[],
    /* :given_digest */::text[], /* :given_parts */::text[], /* :given_origin */::text[]
)
ON CONFLICT DO NOTHING

-- name: forget
-- What no leader has compared in an hour, for there was none.
DELETE FROM /* :schema */djcrf_pg_shadow_message WHERE at < clock_timestamp() - interval '1 hour'

-- name: match
-- Pairs that say the same; how many of each observer there are.
WITH waiting AS (
    SELECT name, address, pk, digest, by_signals,
           row_number() OVER (PARTITION BY address, pk, digest, by_signals ORDER BY at, name) AS place
    FROM djcrf_pg_shadow_message WHERE NOT compared
), pair AS (
    SELECT one.name AS one, other.name AS other, address
    FROM waiting AS one JOIN waiting AS other USING (address, pk, digest, place)
    WHERE one.by_signals AND NOT other.by_signals
), matched AS (
    UPDATE djcrf_pg_shadow_message AS message SET compared = true
    FROM (SELECT one AS name FROM pair UNION ALL SELECT other FROM pair) AS known
    WHERE message.name = known.name
)
SELECT address, count(*) AS times FROM pair GROUP BY address

-- name: left
-- $1 seconds after which a message is due, $2 the snapshot whose changes the leader has all noted, $3 rows at most, $4 a snapshot
-- of when the term began: all messages of the rows that have one that is due. One of signals is due when its change is noted, which was committed before.
WITH waiting AS (
    SELECT *, at < clock_timestamp() - $1::float8 * interval '1 s'
              AND (NOT by_signals OR pg_visible_in_snapshot(xid, $2::text::pg_snapshot)) AS is_due,
           at < clock_timestamp() - 3 * $1::float8 * interval '1 s' AS is_old,
           pg_visible_in_snapshot(xid, $4::text::pg_snapshot) AS is_former
    FROM djcrf_pg_shadow_message WHERE NOT compared
), due AS (
    SELECT address, pk FROM waiting WHERE is_due GROUP BY address, pk ORDER BY min(at) LIMIT $3
)
SELECT name, address, pk, by_signals, digest, parts, origin, is_due, is_old, is_former
FROM waiting JOIN due USING (address, pk) ORDER BY address, pk, at, name

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
DELETE FROM djcrf_pg_shadow_message WHERE compared AND at < clock_timestamp() - $1::float8 * interval '1 s'
