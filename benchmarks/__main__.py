"""``make bench``: what capture costs writers, on an embedded PostgreSQL.

One-row UPDATEs by pgbench and UPDATEs of 100 000 rows, on a table without a trigger, one with ours while a listener is
awake, and one with the hand-written trigger of most projects: row by row, the row in NOTIFY.
"""

import argparse
import re
import statistics
import subprocess
import time
from collections.abc import Callable

import psycopg

from djcrf_pg import sql
from djcrf_pg.capture.plan import Table, definition
from tests.servers import EmbeddedPostgres

TABLES = {"plain": "no trigger", "captured": "djcrf_pg", "notified": "NOTIFY with the row"}
ROWS = 100_000

SETUP = f"""
CREATE TABLE plain (
    id int PRIMARY KEY, title text, body text, n int, price numeric, at timestamptz, flag bool, tag uuid
);
INSERT INTO plain SELECT i, 'title ' || i, repeat('x', 200), i, i * 1.5, now(), true, gen_random_uuid()
FROM generate_series(1, {ROWS}) AS i;
CREATE TABLE captured (LIKE plain INCLUDING ALL); INSERT INTO captured SELECT * FROM plain;
CREATE TABLE notified (LIKE plain INCLUDING ALL); INSERT INTO notified SELECT * FROM plain;
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_notify('peer', row_to_json(NEW)::text); RETURN NULL; END $$;
CREATE TRIGGER tell AFTER UPDATE ON notified FOR EACH ROW EXECUTE FUNCTION tell();
SELECT setval('djcrf_pg_listener_awake', 1);
"""


def main() -> None:
    """Measure in turns, and print a Markdown table of ratios to the table without a trigger."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each measurement (default 5)")
    parser.add_argument("--seconds", type=int, default=4, help="length of one pgbench run (default 4)")
    options = parser.parse_args()
    settings = {"fsync": "on", "full_page_writes": "on"}
    with EmbeddedPostgres(settings=settings) as server, server.params.connect() as connection:
        _set_up(connection)
        print(f"PostgreSQL {connection.info.server_version // 10000}, {options.rounds} rounds in turns, fsync on\n")
        print("| writes | against no trigger | median ratio | least | most |\n|---|---|---|---|---|")
        for clients in (1, 8, 32):
            _report(
                f"one-row UPDATE, {clients} clients, tps",
                _turns(options.rounds, lambda table, n=clients: _pgbench(server, table, n, options.seconds)),
            )
        bulk = _turns(max(3, options.rounds // 2), lambda table: _bulk(connection, table))
        _report(f"UPDATE of {ROWS} rows, seconds", bulk)


def _set_up(connection: psycopg.Connection) -> None:
    connection.execute(sql.render(sql.load("djcrf_pg.capture", "0001_forwards.sql"), schema="public."))
    connection.execute(SETUP)
    for event in ("insert", "update", "delete", "truncate"):
        connection.execute(definition(Table(0, "captured"), event, "public."))
    connection.execute("VACUUM ANALYZE")


def _turns(rounds: int, measure: Callable[[str], float]) -> dict[str, list[float]]:
    """Measure each table once a round, so that what slows the machine slows them all."""
    figures: dict[str, list[float]] = {table: [] for table in TABLES}
    for _ in range(rounds):
        for table, found in figures.items():
            found.append(measure(table))
    return figures


def _report(what: str, figures: dict[str, list[float]]) -> None:
    for table in ("captured", "notified"):
        ratios = sorted(mine / plain for mine, plain in zip(figures[table], figures["plain"], strict=True))
        least, median, most = ratios[0], statistics.median(ratios), ratios[-1]
        print(f"| {what} | {TABLES[table]} | {median:.2f} | {least:.2f} | {most:.2f} |", flush=True)


def _pgbench(server: EmbeddedPostgres, table: str, clients: int, seconds: int) -> float:
    script = server.folder / f"{table}.sql"
    script.write_text(f"\\set id random(1, {ROWS})\nUPDATE {table} SET n = n + 1 WHERE id = :id;\n")
    command = [str(server.bin / "pgbench"), "-n", "-M", "prepared", "-c", str(clients), "-j", "2", "-T", str(seconds)]
    address = ["-h", server.params.host, "-p", str(server.params.port), "-U", server.params.user, server.params.dbname]
    run = subprocess.run([*command, "-f", str(script), *address], capture_output=True, text=True, check=True)
    found = re.search(r"tps = ([\d.]+)", run.stdout)
    if found is None:
        raise RuntimeError(f"pgbench said no tps:\n{run.stdout}{run.stderr}")
    return float(found[1])


def _bulk(connection: psycopg.Connection, table: str) -> float:
    begin = time.perf_counter()
    # NOTIFY holds 8000 bytes a message, and a hundred thousand of them are queued before the commit.
    connection.execute(f"UPDATE {table} SET n = n + 1")
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
