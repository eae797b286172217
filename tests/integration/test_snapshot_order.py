"""The order of snapshots on a real server: transactions, savepoints and aborts, in any order."""

import random
from contextlib import ExitStack

import psycopg
import pytest

from djcrf_pg.changelog.cursor import Position, Snapshot
from djcrf_pg.delivery.protocol import Point
from tests.servers import PgParams

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("seed", range(3))
def test_points_rise_with_each_transaction_that_ends_and_fall_never(seed: int, db: None, test_pg: PgParams) -> None:
    chance = random.Random(seed)
    former: list[Snapshot] = []
    with ExitStack() as stack:
        watcher, *writers = [stack.enter_context(test_pg.connect()) for _ in range(6)]
        stack.callback(lambda: [writer.execute("ROLLBACK") for writer in writers])
        for writer in writers:
            writer.execute("BEGIN; SELECT pg_current_xact_id()")
        for _ in range(300):
            writer = chance.choice(writers)
            if chance.random() < 0.5:
                end = chance.choice(["RELEASE", "ROLLBACK TO"])
                # A savepoint has an id of its own once it has written.
                writer.execute(f"SAVEPOINT s; CREATE TEMP TABLE IF NOT EXISTS t (); {end} s")
            else:
                writer.execute(f"{chance.choice(['COMMIT', 'ROLLBACK'])}; BEGIN; SELECT pg_current_xact_id()")
            former.append(_snapshot(watcher))
    points = [Point.of(Position(snapshot)) for snapshot in former]
    assert points == sorted(points)
    assert len(set(points)) == len({str(snapshot) for snapshot in former}) > 50


def _snapshot(connection: psycopg.Connection) -> Snapshot:
    row = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
    assert row is not None
    return Snapshot.parse(row[0])
