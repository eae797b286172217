"""Observations and their sinks."""

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from djcrf_pg import observations
from djcrf_pg.observations import LayerFailed, Leading, Observation, add_sink, emit

KINDS = Observation.__subclasses__()
VALUES: dict[Any, Any] = {str: "some text", int: 7, float: 1.25, object: ("a", 1)}


def example(kind: type[Observation]) -> Observation:
    """An observation with some value in each field."""
    return kind(**{field.name: VALUES.get(field.type, "something") for field in dataclasses.fields(kind)})


@pytest.fixture
def seen() -> Iterator[list[tuple[Observation, BaseException | None]]]:
    """What a sink hears."""
    heard: list[tuple[Observation, BaseException | None]] = []
    remove = add_sink(lambda observation, error: heard.append((observation, error)))
    yield heard
    remove()


def test_there_are_kinds() -> None:
    assert len(KINDS) >= 9


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_says_all_that_it_knows(kind: type[Observation]) -> None:
    observation = example(kind)
    text = str(observation)
    assert text
    for field in dataclasses.fields(kind):
        assert f"{{{field.name}" in kind.template, f"{field.name} is not told"
    assert "{" not in text
    assert kind.__doc__
    assert kind.level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_frozen(kind: type[Observation]) -> None:
    (field, *_) = dataclasses.fields(kind)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(example(kind), field.name, "other")


def test_an_observation_reaches_every_sink(seen: list[tuple[Observation, BaseException | None]]) -> None:
    error = OSError("gone")
    observation = Leading(alias="default", term=3)
    emit(observation)
    emit(observation, error)
    assert seen == [(observation, None), (observation, error)]


def test_a_removed_sink_hears_no_more() -> None:
    heard: list[Observation] = []
    remove = add_sink(lambda observation, error: heard.append(observation))
    remove()
    emit(Leading(alias="default", term=3))
    assert heard == []


def test_a_sink_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Observation] = []

    def fail(observation: Observation, error: BaseException | None) -> None:
        raise RuntimeError("the metrics are down")

    removes = [add_sink(fail), add_sink(lambda observation, error: heard.append(observation))]
    try:
        with caplog.at_level(logging.INFO, "djcrf_pg"):
            emit(Leading(alias="default", term=3))
    finally:
        for remove in removes:
            remove()
    assert len(heard) == 1
    (failure,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert failure.exc_info is not None
    assert "the metrics are down" in str(failure.exc_info[1])


def test_a_sink_may_remove_itself_while_it_hears() -> None:
    heard: list[str] = []

    def once(observation: Observation, error: BaseException | None) -> None:
        heard.append("once")
        remove()

    remove = add_sink(once)
    remove_other = add_sink(lambda observation, error: heard.append("other"))
    emit(Leading(alias="default", term=3))
    emit(Leading(alias="default", term=4))
    remove_other()
    assert heard == ["once", "other", "other"]


@pytest.fixture
def nothing_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback was written yet."""
    monkeypatch.setattr(observations, "_written", {})


def raised(error: Exception) -> Exception:
    """The error as it is when it was raised and caught."""
    try:
        raise error
    except Exception as caught:
        return caught


@pytest.mark.usefixtures("nothing_written")
def test_an_error_that_comes_again_is_a_line_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    for text in ("first", "second", "third"):
        emit(LayerFailed(layer="RedisChannelLayer", error=text, delay=1.0), raised(OSError(text)))
    emit(LayerFailed(layer="RedisChannelLayer", error="other kind", delay=1.0), raised(ValueError("other kind")))
    try:
        raise OSError("other place")
    except OSError as error:
        emit(LayerFailed(layer="RedisChannelLayer", error="other place", delay=1.0), error)
    assert len(caplog.records) == 5
    shown = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert shown == ["first", "other kind", "other place"]


@pytest.mark.usefixtures("nothing_written")
def test_the_traceback_is_written_again_after_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    emit(LayerFailed(layer="RedisChannelLayer", error="first", delay=1.0), raised(OSError("first")))
    monkeypatch.setattr(observations, "TRACEBACK_AFTER", 0.0)
    emit(LayerFailed(layer="RedisChannelLayer", error="later", delay=1.0), raised(OSError("later")))
    assert [bool(record.exc_info) for record in caplog.records] == [True, True]


@pytest.mark.usefixtures("nothing_written")
def test_no_more_tracebacks_are_remembered_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "_MOST_TRACEBACKS", 2)
    for kind in (OSError, ValueError, TypeError):
        emit(LayerFailed(layer="RedisChannelLayer", error="", delay=1.0), raised(kind("")))
    assert len(observations._written) == 1


@pytest.mark.usefixtures("nothing_written")
def test_the_log_has_the_level_the_text_and_the_traceback(caplog: pytest.LogCaptureFixture) -> None:
    error = OSError("refused")
    with caplog.at_level(logging.DEBUG, "djcrf_pg"):
        emit(LayerFailed(layer="RedisChannelLayer", error="refused", delay=2.0), error)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("djcrf_pg", logging.WARNING)
    assert record.getMessage().startswith(
        "RedisChannelLayer takes no messages (refused); the listener sends again in 2.0 s"
    )
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_braces_in_what_happened_are_text() -> None:
    assert "{alias}" in str(LayerFailed(layer="RedisChannelLayer", error="{alias}", delay=1.0))


def test_the_log_sink_is_there_from_the_start() -> None:
    assert observations.log_sink in observations._sinks
