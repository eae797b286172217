"""What anybody who can write to a channel layer may send into the streams of a database."""

from typing import Any

from djcrf_pg.changelog.cursor import BEGINNING, Position
from djcrf_pg.delivery.envelope import Event
from djcrf_pg.delivery.protocol import KEY, TYPE, History, Item, Outbound
from djcrf_pg.listener.election import HISTORY
from tests.servers import PgParams


def history_of(pg: PgParams) -> History:
    """The history of a database, as its leader names it."""
    with pg.connect() as connection:
        row = connection.execute(HISTORY.encode()).fetchone()
    assert row is not None
    return History(*row)


def forged(history: History, term: int, observer: str, group: str, body: Any, number: int = 1) -> dict[str, Any]:
    """A message with an update that nobody made.

    Args:
        history: Of the database that it claims to be from.
        term: Of the leadership that it claims.
        observer: The address of the observer.
        group: The group.
        body: The body of the event.
        number: Its number in its stream.
    """
    outbound = Outbound(history, term, Position(BEGINNING), max_events=100, max_bytes=10**6)
    event = Event("update", body, 1, 2**62, "9999-01-01T00:00:00+00:00").encode()
    for _ in range(number):
        ((message,),) = outbound.deliver([Item(observer, group, event)], Position(BEGINNING)).values()
    return {"type": TYPE, KEY: message.text}
