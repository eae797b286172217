"""How a process notes what its signals have sent, over a connection of its own."""

import os
import threading
from collections.abc import Iterator

import pytest
from django.db import connection

from djcrf_pg import observations
from djcrf_pg.shadow import recorder
from djcrf_pg.shadow.excluded import NOTHING
from tests.processes import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def said() -> Iterator[list[observations.Observation]]:
    seen: list[observations.Observation] = []
    remove = observations.add_sink(lambda observation, error: seen.append(observation))
    yield seen
    remove()


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    yield
    recorder.close_all()
    recorder._recorders.clear()  # with what each has said a minute ago
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM djcrf_pg_shadow_message")


def note(number: int) -> None:
    recorder.note("default", "address", f'["{number}"]', {"create": (["g"], {"n": number})}, NOTHING)


def noted() -> list[tuple[str, str]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pk, parts FROM djcrf_pg_shadow_message WHERE by_signals ORDER BY at, name")
        return cursor.fetchall()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("djcrf_pg shadow")]


def sessions() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return cursor.fetchone()[0]


def test_all_are_written_and_then_neither_thread_nor_connection_is_left() -> None:
    before = sessions()
    for number in range(2_000):
        note(number)
    recorder.close_all()
    assert len(noted()) == 2_000
    wait_until(lambda: not threads() and sessions() == before)
    note(2_000)
    wait_until(lambda: len(noted()) == 2_001)
    wait_until(lambda: not threads())


def test_more_than_can_be_written_are_dropped_and_counted(
    said: list[observations.Observation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "_MOST", 10)
    with connection.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE djcrf_pg_shadow_message")
        for number in range(50):
            note(number)
        cursor.execute("COMMIT")
    recorder.close_all()
    assert 10 <= len(noted()) < 50
    (observation,) = said
    assert "more of them came than could be written" in str(observation)


def test_what_the_server_refuses_is_said_once_and_later_ones_are_written(said: list[observations.Observation]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE djcrf_pg_shadow_message RENAME TO hidden")
    try:
        note(1)
        wait_until(lambda: said)
        assert "djcrf_pg_shadow_message" in str(said[0])
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE hidden RENAME TO djcrf_pg_shadow_message")
    note(2)
    recorder.close_all()
    assert [pk for pk, _ in noted()] == ['["2"]']
    assert len(said) == 1


def test_what_no_leader_has_compared_in_six_hours_is_deleted() -> None:
    note(1)
    recorder.close_all()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE djcrf_pg_shadow_message SET at = at - interval '361 min'")
    recorder._recorders.clear()  # one looks when it begins, and then now and then
    note(2)
    recorder.close_all()
    assert [pk for pk, _ in noted()] == ['["2"]']


def test_a_table_that_no_leader_empties_grows_no_further(
    said: list[observations.Observation], monkeypatch: pytest.MonkeyPatch
) -> None:
    note(1)
    recorder.close_all()
    monkeypatch.setattr(recorder, "_FULL", 1)
    note(2)
    recorder.close_all()
    assert [pk for pk, _ in noted()] == ['["1"]']
    (observation,) = said
    assert "no leader compares" in str(observation)


def test_a_fork_writes_its_own_and_nothing_of_its_parent_s() -> None:
    with connection.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE djcrf_pg_shadow_message")
        note(1)
        if not (child := os.fork()):
            # The parent's lock ends by itself; the child's messages are written when it has.
            note(2)
            recorder.close_all()
            os._exit(0)
        cursor.execute("COMMIT")
    assert os.waitpid(child, 0)[1] == 0
    recorder.close_all()
    assert sorted(pk for pk, _ in noted()) == ['["1"]', '["2"]']
