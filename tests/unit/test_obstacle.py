"""When a leader that fails where it began passes by."""

from djcrf_pg.changelog.cursor import Position, Snapshot
from djcrf_pg.listener.leadership import FAILED_SESSIONS, Obstacle

HERE, FURTHER = Position(Snapshot(10, 10)), Position(Snapshot(10, 10), Snapshot(20, 20), 5)


def fail(obstacle: Obstacle, position: Position, times: int) -> list[Exception]:
    """Sessions that begin somewhere and fail: what each is told to pass by, and the last one to begin."""
    found = []
    for number in range(times):
        found.append(obstacle.met_at(position))
        obstacle.failed(ValueError(number))
    return [error for error in found if error is not None]


def test_the_last_error_of_so_many_sessions_is_passed_by() -> None:
    obstacle = Obstacle()
    assert fail(obstacle, HERE, FAILED_SESSIONS) == []
    error = obstacle.met_at(HERE)
    assert isinstance(error, ValueError)
    assert error.args == (FAILED_SESSIONS - 1,)


def test_who_fails_to_pass_by_has_as_many_tries_again() -> None:
    obstacle = Obstacle()
    fail(obstacle, HERE, FAILED_SESSIONS)
    assert obstacle.met_at(HERE) is not None
    assert fail(obstacle, HERE, FAILED_SESSIONS) == []
    assert obstacle.met_at(HERE) is not None


def test_a_session_that_began_elsewhere_begins_the_count_again() -> None:
    obstacle = Obstacle()
    fail(obstacle, HERE, FAILED_SESSIONS - 1)
    assert fail(obstacle, FURTHER, FAILED_SESSIONS - 1) == []
    assert fail(obstacle, HERE, FAILED_SESSIONS) == []


def test_a_session_that_read_everything_begins_the_count_again() -> None:
    obstacle = Obstacle()
    fail(obstacle, HERE, FAILED_SESSIONS - 1)
    obstacle.passed()
    assert fail(obstacle, HERE, FAILED_SESSIONS) == []


def test_sessions_that_lost_their_connection_do_not_count() -> None:
    obstacle = Obstacle()
    fail(obstacle, HERE, FAILED_SESSIONS - 1)
    for _ in range(3 * FAILED_SESSIONS):
        assert obstacle.met_at(HERE) is None
