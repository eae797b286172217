"""A replay in a log with many rows, beside the same in one with few.

The rows are delivered, of a thousand transactions before the cursor of the client, and analyzed. Times are from the
subscription of one client to the last frame.
"""

from collections.abc import Iterator

from benchmarks import runner
from benchmarks.runner import Bench, Goal, Result
from benchmarks.servers import Lab, quiet, statement

FEW = 10_000

#: Transactions that the rows are of.
TRANSACTIONS = 1_000

#: Replays of a turn. The fastest one counts, but for the first: what else the machine does is no matter of the log.
REPEATED = 9


def run(bench: Bench) -> Iterator[Result]:
    """Measure milliseconds."""
    lab, many = bench.lab, bench.choose(50_000, 1_000_000, 10_000_000)
    counts = bench.choose((20,), (100, 5_000))
    found: dict[tuple[int, int], list[float]] = {(size, count): [] for size in (FEW, many) for count in counts}
    env = {"BENCH_GROUPS": "1", "settings": {"LOG_MAX_ROWS": 100_000_000, "LOG_MAX_BYTES": 2**40}}
    with lab.worker() as writer, lab.worker() as load:
        for _ in range(min(2, bench.rounds)):
            for size in (FEW, many):
                _fill(lab, size)
                # Servers of before would know another cursor of the leader.
                with lab.listener(**env) as listener, lab.web(**env) as web:
                    url = web.consumer_url("bench")
                    for count in counts:
                        cursor = load.ask("load", call="cursor", url=url, name="resumed")
                        writer.ask("update", table="resumed", count=count)
                        times = []
                        arguments = {"name": "resumed", "groups": [None], "cursors": [cursor], "count": count}
                        for _ in range(REPEATED):
                            quiet(listener)
                            quiet(web)
                            [[connected, _, last]] = load.ask("load", call="come_back", urls=[url], **arguments)
                            load.ask("load", call="vanish")
                            times.append(1000 * (last - connected))
                        found[size, count].append(min(times[1:]))
    for count in counts:
        title, goal = f"{count} events, {many} rows in the log", Goal("≤", 1.2)
        reference = (f"{FEW} rows", found[FEW, count])
        yield Result("old-log", title, runner.OURS, found[many, count], "ms", *reference, goal)


def _fill(lab: Lab, rows: int) -> None:
    """Put rows into the log that are delivered already."""
    lab.forget()
    # Which there have to be: ids of the future are those of another cluster.
    spend = f"FOR number IN 1..{TRANSACTIONS} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP"
    lab.db.execute(f"DO $$ BEGIN {spend}; END $$".encode())
    lab.db.execute(
        "INSERT INTO djcrf_pg_change (xid, relation, op, old, new) "
        "SELECT (pg_current_xact_id()::text::bigint - %s + i * %s / %s)::text::xid8, 'bench_plain'::regclass, 'U', "
        """'{"id": 1}', '{"id": 1}' FROM generate_series(1, %s::bigint) AS i""",
        [TRANSACTIONS, TRANSACTIONS, rows, rows],
    )
    lab.db.execute("INSERT INTO djcrf_pg_cursor (name, snapshot, term) VALUES ('leader', pg_current_snapshot(), 1)")
    lab.settle("plain", "resumed")
    lab.db.execute("ANALYZE djcrf_pg_change")
    if (found := statement(lab.db, "SELECT count(*) FROM djcrf_pg_change")) != rows:
        raise RuntimeError(f"{found} rows in the log, and not {rows}")
