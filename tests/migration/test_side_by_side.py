"""A process of 0.1.0 and one of this version on one database: neither is silent for the other's leader, nor a storm."""

import time
from collections.abc import Callable

import pytest

from tests.migration.test_upgrade import Deployed, Reader, Writers, deployed, reader, release, serve
from tests.servers import AsgiServer

__all__ = ["deployed", "reader", "release", "serve"]

pytestmark = [pytest.mark.slow, pytest.mark.processes]

Serve, Subscribe = Callable[[], AsgiServer], Callable[[AsgiServer], Reader]


def resyncs_within(subscriber: Reader, seconds: float) -> list[str]:
    """The reasons of the resyncs that a subscriber receives in so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        subscriber.call("ping")  # the client receives while it waits
    return [message["data"]["reason"] for message in subscriber.client.take(lambda m: m.get("action") == "resync")]


def resync(subscriber: Reader, seconds: float) -> str:
    """Wait for a resync, and return its reason."""
    is_resync = lambda message: message.get("action") == "resync"  # noqa: E731
    message = subscriber.runner.run(subscriber.client.until(is_resync, timeout=seconds))
    subscriber.client.take(is_resync)
    reason: str = message["data"]["reason"]
    return reason


def test_what_an_old_leader_sends_is_read_from_the_log_and_its_successor_delivers(
    deployed: Deployed, release: object, serve: Serve, reader: Subscribe
) -> None:
    deployed.manage("migrate", "--verbosity", "0")
    deployed.release = release
    old_server = serve()
    old = reader(old_server)
    writers = Writers(deployed.pg, pause=0.05)
    with writers.at_work():
        old.has(writers.more(5), by_events=True)
        deployed.release = None
        new_server = serve()
        new = reader(new_server)
        for _ in range(3):
            new.has(writers.more(5), by_events=True)
        old_server.stop()
        new_server.wait_for("listener of database 'default' leads")
        new.has(writers.more(20), by_events=True)
        assert resyncs_within(new, 0.5) == []
    assert not writers.errors


def test_a_new_leader_has_old_processes_load_again_now_and_then(
    deployed: Deployed, release: object, serve: Serve, reader: Subscribe
) -> None:
    deployed.manage("migrate", "--verbosity", "0")
    new = reader(new_server := serve())
    new_server.wait_for("listener of database 'default' leads")
    deployed.release = release
    old = reader(serve())
    writers = Writers(deployed.pg, pause=0.05)
    with writers.at_work():
        new.has(writers.more(5), by_events=True)
        assert resync(old, 10) == "unreadable"
        assert 1 <= len(resyncs_within(old, 12)) <= 3
        new.has(writers.more(5), by_events=True)
    # And after the last change, for what came since the last resync.
    assert resync(old, 10) == "unreadable"
    assert resyncs_within(old, 7) == []
    assert resyncs_within(new, 0.5) == []
    assert not writers.errors
