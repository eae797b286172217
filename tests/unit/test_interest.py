"""How long a new leader makes everything, whoever is known to have subscribed."""

import pytest

from djcrf_pg.listener.interest import GRACE, grace


@pytest.mark.parametrize(
    ("uptime", "age", "reconnected", "seconds"),
    [
        # After a deploy: the server was there all along, and with it the locks of whoever has subscribed.
        (86_400.0, 0.1, False, 0.0),
        # The server was restarted just now.
        (4.0, 0.1, False, GRACE - 4.0),
        # A recovery has taken longer: this listener saw it go, and come back.
        (300.0, 0.1, True, GRACE),
        # A standby takes over: its session says that the server has not restarted.
        (86_400.0, 3_600.0, True, 0.0),
        (86_400.0, GRACE, False, 0.0),
    ],
)
def test_everything_is_made_for_as_long_as_locks_may_be_missing(
    uptime: float, age: float, reconnected: bool, seconds: float
) -> None:
    assert grace(uptime, age, reconnected) == seconds
