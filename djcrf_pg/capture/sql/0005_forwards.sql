-- Trimming within a bound of time, and what replication of whole databases asks of our tables.
-- A migration references this file: it is frozen once released. `/* :schema */` is the schema that the
-- app's migrations run in, quoted and with its dot.

-- The WAL position at which a writer trimmed last. Writers look when the WAL has moved on by 1 MiB since, in either
-- direction, for a dump brings this value along.
CREATE SEQUENCE /* :schema */djcrf_pg_trimmed MINVALUE 0 START 0;

-- Front: where the log begins, as the last trim has seen it. Before it is nothing but what was deleted, which stays in the
-- index until it is vacuumed, and is not scanned again.
-- Late: the transactions from this one on might have been in progress before front, and were not seen. When all of them have
-- ended, front goes back to it. 0: none.
-- Reach: where the last trim ended. Its deletions may be uncommitted, and stay so for long. Others begin behind them.
-- Sequences, for what they hold must not wait for anybody's commit; a key has two columns, so they are two. Only who holds
-- the trim's lock sets them.
CREATE SEQUENCE /* :schema */djcrf_pg_front_xid MINVALUE 0 START 0;
CREATE SEQUENCE /* :schema */djcrf_pg_front_id MINVALUE 0 START 0;
CREATE SEQUENCE /* :schema */djcrf_pg_late MINVALUE 0 START 0;
CREATE SEQUENCE /* :schema */djcrf_pg_reach_xid MINVALUE 0 START 0;
CREATE SEQUENCE /* :schema */djcrf_pg_reach_id MINVALUE 0 START 0;
SELECT setval('/* :schema */djcrf_pg_trimmed', 0), setval('/* :schema */djcrf_pg_late', 0),
       setval('/* :schema */djcrf_pg_front_id', 0),
       setval('/* :schema */djcrf_pg_reach_xid', 0), setval('/* :schema */djcrf_pg_reach_id', 0),
       setval('/* :schema */djcrf_pg_front_xid', least(
           (SELECT xid FROM /* :schema */djcrf_pg_change ORDER BY xid, id LIMIT 1), pg_snapshot_xmin(pg_current_snapshot())
       )::text::bigint);

REVOKE ALL ON SEQUENCE /* :schema */djcrf_pg_trimmed, /* :schema */djcrf_pg_late FROM PUBLIC;
REVOKE ALL ON SEQUENCE /* :schema */djcrf_pg_front_xid, /* :schema */djcrf_pg_front_id FROM PUBLIC;
REVOKE ALL ON SEQUENCE /* :schema */djcrf_pg_reach_xid, /* :schema */djcrf_pg_reach_id FROM PUBLIC;

-- Moves front or reach. Whatever interrupts it, the key that is there then lies at or before one that was meant.
CREATE FUNCTION /* :schema */djcrf_pg_mark_v1(mark text, xid xid8, id bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
BEGIN
    PERFORM setval(('/* :schema */djcrf_pg_' || mark || '_id')::regclass, 0);
    PERFORM setval(('/* :schema */djcrf_pg_' || mark || '_xid')::regclass, xid::text::bigint);
    PERFORM setval(('/* :schema */djcrf_pg_' || mark || '_id')::regclass, id);
END
$function$;

-- About how many changes there are, at no cost. Ids do not say it, for they are no numbers.
--
-- The statistics know it to the second, and each VACUUM and ANALYZE corrects them. A crash loses them: they begin at zero
-- then, and until the next VACUUM or ANALYZE what these have left in the catalog is added, which no crash loses. What this
-- session has not yet reported is added too. PostgreSQL 14 reads statistics from a file and may wait for it: there it is the
-- catalog's number alone.
CREATE FUNCTION /* :schema */djcrf_pg_length_v1() RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $function$
    SELECT greatest(
        CASE WHEN current_setting('server_version_num')::int < 150000 THEN known
             WHEN pg_stat_get_vacuum_count(oid) + pg_stat_get_autovacuum_count(oid)
                + pg_stat_get_analyze_count(oid) + pg_stat_get_autoanalyze_count(oid) > 0 THEN pg_stat_get_live_tuples(oid)
             ELSE known + least(
                 pg_stat_get_live_tuples(oid), pg_stat_get_tuples_inserted(oid) - pg_stat_get_tuples_deleted(oid)
             )
        END + pg_stat_get_xact_tuples_inserted(oid) - pg_stat_get_xact_tuples_deleted(oid),
        0
    )
    FROM (
        SELECT oid, greatest(reltuples, 0)::bigint AS known FROM pg_class
        WHERE oid = '/* :schema */djcrf_pg_change'::regclass
    ) AS log
$function$;

-- Deletes the oldest changes of a log that is over a cap: up to so many, until a time, and none that is heavier than so many
-- bytes as stored. Those that were not delivered become one change O (overflow) for each table: who has subscribed to it loads
-- again. Returns whether there is more to delete.
--
-- Who calls it holds the trim's lock. It works in steps so small that the time is looked at about each millisecond. So is the
-- search for the oldest change, since nothing else bounds the scan of what was deleted and cannot be vacuumed.
CREATE FUNCTION /* :schema */djcrf_pg_shorten_v1(most bigint, until timestamptz, heaviest bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $function$
#variable_conflict use_variable
DECLARE
    counted CONSTANT int := 4096;
    caps record;
    -- No transaction of this cluster that can be seen is later.
    horizon xid8 := greatest(pg_snapshot_xmax(pg_current_snapshot()), pg_current_xact_id_if_assigned());
    -- All before it have ended.
    settled xid8 := pg_snapshot_xmin(pg_current_snapshot());
    late xid8;
    delivered pg_snapshot;
    front_xid xid8;
    front_id bigint;
    reach_xid xid8;
    reach_id bigint;
    oldest record;
    imported record;
    present bigint := pg_current_wal_insert_lsn() - '0/0';
    step numeric;
    upper_id bigint;
    upper_xid xid8;
    begun timestamptz;
    free boolean;
    restored boolean;
    total bigint;
    stored bigint;
    width numeric;
    cut_xid xid8;
    cut_id bigint;
    excess bigint := 0;
    before timestamptz := 'infinity';
    next_xid xid8;
    next_id bigint;
    rows int := 64;
    bytes bigint := 65536;
    batch record;
    more boolean := true;
    lost regclass[] := '{}';
BEGIN
    SELECT * INTO caps FROM /* :schema */djcrf_pg_cap;
    IF NOT FOUND THEN
        RETURN false;
    END IF;

    -- The oldest change: first among those of front's own transaction, which may have written millions.
    SELECT last_value::text::xid8 INTO front_xid FROM /* :schema */djcrf_pg_front_xid;
    SELECT last_value INTO front_id FROM /* :schema */djcrf_pg_front_id;
    IF front_xid > horizon THEN
        front_xid := '0'; -- of another cluster's dump
        front_id := 0;
    END IF;
    SELECT last_value::text::xid8 INTO late FROM /* :schema */djcrf_pg_late;
    IF late <> '0' AND settled > front_xid THEN
        IF (late, 0) < (front_xid, front_id) THEN
            front_xid := late;
            front_id := 0;
            PERFORM /* :schema */djcrf_pg_mark_v1('front', front_xid, front_id);
        END IF;
        late := '0';
        PERFORM setval('/* :schema */djcrf_pg_late', 0);
    END IF;
    next_xid := front_xid;
    next_id := front_id;
    step := 16384;
    LOOP
        begun := clock_timestamp();
        upper_id := CASE WHEN next_id >= present THEN 9223372036854775807 ELSE least(next_id + step, present) END;
        SELECT xid, id, at INTO oldest FROM /* :schema */djcrf_pg_change
        WHERE xid = next_xid AND id >= next_id AND id < upper_id ORDER BY xid, id LIMIT 1;
        EXIT WHEN FOUND;
        next_id := upper_id;
        EXIT WHEN upper_id = 9223372036854775807 OR clock_timestamp() > until;
        step := step * CASE WHEN clock_timestamp() - begun < interval '0.3 ms' THEN 2 ELSE 0.5 END;
    END LOOP;
    IF oldest.xid IS NULL AND upper_id = 9223372036854775807 THEN
        -- Then among those of later transactions.
        next_xid := (next_xid::text::numeric + 1)::text::xid8;
        next_id := 0;
        step := 1;
        WHILE next_xid <= horizon AND clock_timestamp() <= until LOOP
            begun := clock_timestamp();
            upper_xid := trunc(next_xid::text::numeric + step)::text::xid8;
            SELECT xid, id, at INTO oldest FROM /* :schema */djcrf_pg_change
            WHERE xid >= next_xid AND xid < upper_xid ORDER BY xid, id LIMIT 1;
            EXIT WHEN FOUND;
            next_xid := least(upper_xid, (horizon::text::numeric + 1)::text::xid8);
            step := greatest(step * CASE WHEN clock_timestamp() - begun < interval '0.3 ms' THEN 2 ELSE 0.5 END, 1);
        END LOOP;
    END IF;
    IF oldest.xid IS NOT NULL THEN
        next_xid := oldest.xid;
        next_id := oldest.id;
    ELSIF next_xid > horizon THEN
        next_xid := settled;
        next_id := 0;
    END IF;
    IF (next_xid, next_id) > (front_xid, front_id) THEN
        IF (next_xid, next_id) > (settled, 0) AND late = '0' THEN
            PERFORM setval('/* :schema */djcrf_pg_late', greatest(settled, front_xid)::text::bigint);
        END IF;
        PERFORM /* :schema */djcrf_pg_mark_v1('front', next_xid, next_id);
    END IF;

    -- Changes that were restored from another cluster's dump and that no leader has adopted yet are older than all others.
    SELECT xid, id, at INTO imported FROM /* :schema */djcrf_pg_change WHERE xid > horizon ORDER BY xid, id LIMIT 1;
    restored := FOUND;
    IF restored THEN
        oldest := imported;
    END IF;
    IF oldest.xid IS NULL THEN
        RETURN clock_timestamp() > until;
    END IF;

    -- How much there is: what is not larger on disk than a cap is not over it. Of small caps the newest changes are counted.
    stored := pg_total_relation_size('/* :schema */djcrf_pg_change');
    IF stored > caps.max_bytes THEN
        SELECT avg(100 + coalesce(pg_column_size(old), 0) + coalesce(pg_column_size(new), 0)) INTO width
        FROM generate_series(0, 7) AS place (number)
        CROSS JOIN LATERAL (
            SELECT old, new FROM /* :schema */djcrf_pg_change
            WHERE xid >= trunc(
                oldest.xid::text::numeric
                + greatest(horizon::text::numeric - oldest.xid::text::numeric, 0) * place.number / 8
            )::text::xid8
            ORDER BY xid, id LIMIT 32
        ) AS sample;
    END IF;
    IF caps.max_rows < counted OR caps.max_bytes / width < counted THEN
        SELECT xid, id INTO cut_xid, cut_id
        FROM (
            SELECT xid, id, row_number() OVER newest AS number, sum(weight) OVER newest AS weight
            FROM (
                SELECT xid, id, 100 + coalesce(pg_column_size(old), 0) + coalesce(pg_column_size(new), 0) AS weight
                FROM /* :schema */djcrf_pg_change ORDER BY xid DESC, id DESC LIMIT counted
            ) AS change
            WINDOW newest AS (ORDER BY xid DESC, id DESC ROWS UNBOUNDED PRECEDING)
        ) AS change
        WHERE number > caps.max_rows OR weight > caps.max_bytes
        ORDER BY xid DESC, id DESC LIMIT 1;
        IF FOUND THEN
            excess := most;
        END IF;
    END IF;
    IF cut_xid IS NULL THEN
        total := /* :schema */djcrf_pg_length_v1();
        IF caps.max_rows < counted OR total < 2 * counted THEN
            -- The statistics may be behind what was just deleted, which would delete more.
            SELECT count(*) INTO rows FROM (SELECT FROM /* :schema */djcrf_pg_change LIMIT counted) AS change;
            total := CASE WHEN rows < counted THEN rows ELSE greatest(total, counted) END;
            rows := 64;
        END IF;
        excess := total - caps.max_rows;
        IF width IS NOT NULL THEN
            excess := greatest(excess, (least(stored, total * width) - caps.max_bytes) / width);
        END IF;
    END IF;
    IF excess <= 0 THEN
        before := clock_timestamp() - caps.max_age;
        IF oldest.at >= before THEN
            RETURN false;
        END IF;
        excess := most;
    END IF;
    excess := least(excess, most);

    -- Where to begin.
    next_xid := oldest.xid;
    next_id := oldest.id;
    IF NOT restored THEN
        BEGIN
            PERFORM FROM /* :schema */djcrf_pg_change WHERE xid = oldest.xid AND id = oldest.id FOR UPDATE SKIP LOCKED;
            free := FOUND;
        EXCEPTION WHEN serialization_failure THEN
            free := false; -- deleted since the snapshot of a REPEATABLE READ transaction
        END;
        SELECT last_value::text::xid8 INTO reach_xid FROM /* :schema */djcrf_pg_reach_xid;
        SELECT last_value INTO reach_id FROM /* :schema */djcrf_pg_reach_id;
        IF NOT free AND reach_xid <= horizon AND (reach_xid, reach_id) > (next_xid, next_id) THEN
            next_xid := reach_xid;
            next_id := reach_id;
        END IF;
    END IF;

    SELECT snapshot INTO delivered FROM /* :schema */djcrf_pg_cursor WHERE name = 'leader';
    LOOP
        begun := clock_timestamp();
        WITH part AS (
            SELECT place, xid, id
            FROM (
                SELECT change.*, sum(weight) OVER (ORDER BY xid, id ROWS UNBOUNDED PRECEDING) - weight AS former
                FROM (
                    SELECT ctid AS place, xid, id, at,
                           100 + coalesce(pg_column_size(old), 0) + coalesce(pg_column_size(new), 0) AS weight
                    FROM /* :schema */djcrf_pg_change
                    WHERE (xid, id) >= (next_xid, next_id)
                      AND 100 + coalesce(pg_column_size(old), 0) + coalesce(pg_column_size(new), 0) <= heaviest
                    ORDER BY xid, id LIMIT least(rows, excess)
                ) AS change
            ) AS change
            WHERE former < bytes AND at < before
              AND (restored OR xid <= horizon AND (cut_xid IS NULL OR (xid, id) <= (cut_xid, cut_id)))
        ), doomed AS (
            -- What somebody else deletes, the leader or who was here before, is not waited for.
            SELECT change.ctid AS place FROM /* :schema */djcrf_pg_change AS change JOIN part ON change.ctid = part.place
            FOR UPDATE OF change SKIP LOCKED
        ), gone AS (
            DELETE FROM /* :schema */djcrf_pg_change AS change USING doomed WHERE change.ctid = doomed.place
            RETURNING change.xid, change.relation
        )
        SELECT last.xid, last.id, (SELECT count(*) FROM part) AS seen,
               ARRAY(
                   SELECT DISTINCT relation FROM gone
                   WHERE NOT coalesce(pg_visible_in_snapshot(gone.xid, delivered), false)
               ) AS lost
        INTO batch
        FROM part AS last ORDER BY last.xid DESC, last.id DESC LIMIT 1;
        more := FOUND;
        EXIT WHEN NOT more;
        next_xid := batch.xid;
        next_id := batch.id + 1;
        excess := excess - batch.seen;
        lost := ARRAY(SELECT DISTINCT relation FROM unnest(lost || batch.lost) AS each (relation));
        IF clock_timestamp() - begun < greatest(interval '0.5 ms', (until - clock_timestamp()) / 4) THEN
            rows := least(2 * rows, 4096);
            bytes := 2 * bytes;
        ELSE
            rows := greatest(rows / 2, 8);
            bytes := greatest(bytes / 2, 8192);
        END IF;
        EXIT WHEN excess <= 0 OR clock_timestamp() > until;
    END LOOP;
    IF NOT restored THEN
        PERFORM /* :schema */djcrf_pg_mark_v1('reach', next_xid, next_id);
    END IF;
    -- Not the column's default, which would change what lastval() tells the writer: a position in the WAL, which each of these
    -- records moves on.
    INSERT INTO /* :schema */djcrf_pg_change (id, relation, op) OVERRIDING SYSTEM VALUE
    SELECT pg_logical_emit_message(false, 'djcrf_pg', '') - '0/0', relation, 'O' FROM unnest(lost) AS each (relation);
    RETURN excess > 0 AND more;
END
$function$;

-- A writer's share of the trimming; `changed` rows were written. It takes a few milliseconds, and for statements of many rows
-- up to as long again as they took: what they write must go somewhere.
--
-- Nothing that goes wrong here fails the write. The limits of time that the session has set are kept far away from: no more than
-- a tenth of what is left is used. Should one cancel the trim all the same (a disk that stands still), the write goes on, for
-- it had time left. Whoever cancels the statement itself, has it cancelled.
--
-- A SERIALIZABLE transaction does not trim: what it reads here might make it, or others, fail. A REPEATABLE READ one does;
-- what was deleted since its snapshot fails the trim, and nothing else.
CREATE FUNCTION /* :schema */djcrf_pg_trim_v2(changed bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    spent interval := clock_timestamp() - statement_timestamp();
    allowed interval := '0';
    remaining interval;
    budget interval;
    present bigint;
    trims int;
    log CONSTANT int := '/* :schema */djcrf_pg_change'::regclass::oid::int8::bit(32)::int;
    locked boolean := false;
BEGIN
    present := pg_current_wal_insert_lsn() - '0/0';
    -- What the session says of this setting is no more than text. A trim takes two subtransactions, and with more than 64 of
    -- them in a transaction each snapshot of the server is slower.
    trims := coalesce(substring(left(current_setting('djcrf_pg.trims', true), 9) FROM '^[0-9]{1,3}$')::int, 0);
    IF current_setting('transaction_isolation') = 'serializable' OR trims >= 20 THEN
        PERFORM setval('/* :schema */djcrf_pg_trimmed', greatest(present - 983040, 0)); -- who comes next, in 64 kB
        RETURN;
    END IF;
    PERFORM setval('/* :schema */djcrf_pg_trimmed', present);
    allowed := current_setting('statement_timeout')::interval;
    remaining := current_setting('transaction_timeout', true)::interval;
    budget := interval '2 ms' + least(spent, changed * interval '0.1 ms');
    IF allowed > interval '0' THEN
        -- Of several statements in one message each has this time; only when the first began is known.
        budget := least(budget, CASE WHEN spent < allowed THEN allowed - spent ELSE allowed / 2 END / 10);
    END IF;
    IF remaining > interval '0' THEN
        budget := least(budget, (remaining - (clock_timestamp() - transaction_timestamp())) / 10);
    END IF;
    IF budget < interval '0.1 ms' THEN
        RETURN;
    END IF;
    -- The class of the trim's lock. Whoever trims at the same time leaves it to the other.
    locked := pg_try_advisory_lock(1684693878, log);
    IF locked THEN
        PERFORM set_config('djcrf_pg.trims', (trims + 1)::text, true);
        IF /* :schema */djcrf_pg_shorten_v1(
            2 * changed + 8192, clock_timestamp() + budget, 4000000 + extract(epoch FROM spent)::bigint * 100000000
        ) THEN
            PERFORM setval('/* :schema */djcrf_pg_trimmed', greatest(present - 983040, 0));
        END IF;
        PERFORM pg_advisory_unlock(1684693878, log);
    END IF;
EXCEPTION
    WHEN query_canceled THEN
        IF locked THEN
            PERFORM pg_advisory_unlock(1684693878, log);
        END IF;
        -- Of its own time the statement had some left: what has run out is what was given to us.
        IF NOT (spent < allowed AND clock_timestamp() - statement_timestamp() >= allowed) THEN
            RAISE;
        END IF;
    WHEN OTHERS THEN
        IF locked THEN
            PERFORM pg_advisory_unlock(1684693878, log);
        END IF;
END
$function$;

REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_mark_v1(text, xid8, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_length_v1() FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_shorten_v1(bigint, timestamptz, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_trim_v2(bigint) FROM PUBLIC;

-- A listener of a role of its own may trim as before.
DO $do$
DECLARE
    listener text;
BEGIN
    FOR listener IN
        SELECT DISTINCT quote_ident(pg_get_userbyid(acl.grantee)) FROM pg_proc AS p CROSS JOIN aclexplode(p.proacl) AS acl
        WHERE p.oid = '/* :schema */djcrf_pg_trim_v1(bigint)'::regprocedure AND acl.grantee NOT IN (0, p.proowner)
    LOOP
        EXECUTE 'GRANT EXECUTE ON FUNCTION /* :schema */djcrf_pg_shorten_v1(bigint, timestamptz, bigint) TO ' || listener;
        EXECUTE 'GRANT SELECT ON SEQUENCE /* :schema */djcrf_pg_front_xid, /* :schema */djcrf_pg_front_id, '
                '/* :schema */djcrf_pg_late TO ' || listener;
    END LOOP;
END
$do$;

-- A publication FOR ALL TABLES refuses UPDATE and DELETE where it cannot say which row. No primary key: the data of a dump
-- must go into tables that migrate has filled.
ALTER TABLE /* :schema */djcrf_pg_cap REPLICA IDENTITY FULL;
ALTER TABLE /* :schema */djcrf_pg_shape REPLICA IDENTITY FULL;

-- What replication brings of another database's log is not of this one: its transactions are others, and its leader stands
-- elsewhere. So these triggers, which fire in sessions that apply it alone, skip such rows. A trigger of ours that is ENABLE
-- ALWAYS captures there: a row that it logs has the transaction of the session. They ask for the role themselves too, since
-- pg_restore --disable-triggers leaves them enabled for all sessions. A listener's session, which its name tells, may be of a
-- role for which somebody has set that; what it writes is its own.
CREATE FUNCTION /* :schema */djcrf_pg_skip_v1() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RETURN NULL;
END
$function$;
REVOKE ALL ON FUNCTION /* :schema */djcrf_pg_skip_v1() FROM PUBLIC;

CREATE TRIGGER djcrf_pg_replicated BEFORE INSERT OR UPDATE OR DELETE ON /* :schema */djcrf_pg_cursor
FOR EACH ROW WHEN (
    current_setting('session_replication_role') = 'replica' AND current_setting('application_name') NOT LIKE 'djcrf\_pg %'
)
EXECUTE FUNCTION /* :schema */djcrf_pg_skip_v1();
CREATE TRIGGER djcrf_pg_replicated BEFORE INSERT OR UPDATE OR DELETE ON /* :schema */djcrf_pg_cap
FOR EACH ROW WHEN (
    current_setting('session_replication_role') = 'replica' AND current_setting('application_name') NOT LIKE 'djcrf\_pg %'
)
EXECUTE FUNCTION /* :schema */djcrf_pg_skip_v1();
CREATE TRIGGER djcrf_pg_replicated BEFORE INSERT OR UPDATE OR DELETE ON /* :schema */djcrf_pg_shape
FOR EACH ROW WHEN (
    current_setting('session_replication_role') = 'replica' AND current_setting('application_name') NOT LIKE 'djcrf\_pg %'
)
EXECUTE FUNCTION /* :schema */djcrf_pg_skip_v1();
CREATE TRIGGER djcrf_pg_replicated BEFORE INSERT OR UPDATE OR DELETE ON /* :schema */djcrf_pg_failure
FOR EACH ROW WHEN (
    current_setting('session_replication_role') = 'replica' AND current_setting('application_name') NOT LIKE 'djcrf\_pg %'
)
EXECUTE FUNCTION /* :schema */djcrf_pg_skip_v1();
ALTER TABLE /* :schema */djcrf_pg_cursor ENABLE REPLICA TRIGGER djcrf_pg_replicated;
ALTER TABLE /* :schema */djcrf_pg_cap ENABLE REPLICA TRIGGER djcrf_pg_replicated;
ALTER TABLE /* :schema */djcrf_pg_shape ENABLE REPLICA TRIGGER djcrf_pg_replicated;
ALTER TABLE /* :schema */djcrf_pg_failure ENABLE REPLICA TRIGGER djcrf_pg_replicated;
-- Last, for writers wait for it: each CREATE TRIGGER locks the log until the end of the migration.
CREATE TRIGGER djcrf_pg_replicated BEFORE INSERT ON /* :schema */djcrf_pg_change
FOR EACH ROW WHEN (
    current_setting('session_replication_role') = 'replica' AND current_setting('application_name') NOT LIKE 'djcrf\_pg %'
    AND new.xid <> pg_current_xact_id()
)
EXECUTE FUNCTION /* :schema */djcrf_pg_skip_v1();
CREATE TRIGGER djcrf_pg_replicated_too BEFORE UPDATE OR DELETE ON /* :schema */djcrf_pg_change
FOR EACH ROW WHEN (
    current_setting('session_replication_role') = 'replica' AND current_setting('application_name') NOT LIKE 'djcrf\_pg %'
    AND pg_trigger_depth() = 0
)
EXECUTE FUNCTION /* :schema */djcrf_pg_skip_v1();
ALTER TABLE /* :schema */djcrf_pg_change ENABLE REPLICA TRIGGER djcrf_pg_replicated;
ALTER TABLE /* :schema */djcrf_pg_change ENABLE REPLICA TRIGGER djcrf_pg_replicated_too;
