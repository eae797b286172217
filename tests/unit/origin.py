"""What events are made of, where a test is about something else."""

from djcrf_pg.changelog.cursor import BEGINNING, Snapshot, Span
from djcrf_pg.delivery.protocol import History, Origin

ORIGIN = Origin(History(7, 5, 16_402, 1), Span(BEGINNING, Snapshot(10, 10)))
