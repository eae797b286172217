"""What an observer needs of the consumer that it stands in."""

import sys
from pathlib import Path
from typing import Any

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer, JsonWebsocketConsumer
from channels.layers import InMemoryChannelLayer
from django.test import override_settings

from djcrf_pg.discovery import discover
from djcrf_pg.exceptions import ConfigurationError, ObserverError
from djcrf_pg.observer import model_observer
from djcrf_pg.observer.consumers import equip
from tests.testapp.models import Task

SYNCHRONOUS = r"test_consumers\.\S+: Late is a SyncConsumer, which cannot await .* AsyncAPIConsumer"


def test_a_synchronous_consumer_is_refused_where_it_is_defined() -> None:
    # Before Python 3.12 in a RuntimeError, whose cause is what a traceback begins with.
    with pytest.raises((ObserverError, RuntimeError)) as caught:

        class Late(JsonWebsocketConsumer):
            @model_observer(Task)
            async def tasks(self, message: Any, **kwargs: Any) -> None: ...

    error = caught.value if sys.version_info >= (3, 12) else caught.value.__cause__
    assert isinstance(error, ObserverError)
    with pytest.raises(ObserverError, match=SYNCHRONOUS):
        raise error


def test_commands_say_so_on_every_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "late_test_consumers.py").write_text(
        "from channels.generic.websocket import JsonWebsocketConsumer\n"
        "from djcrf_pg.observer import model_observer\n"
        "from tests.testapp.models import Task\n"
        "class Late(JsonWebsocketConsumer):\n"
        "    @model_observer(Task)\n"
        "    async def tasks(self, message, **kwargs): ...\n"
    )
    with (
        override_settings(ASGI_APPLICATION="late_test_consumers.application"),
        pytest.raises(ConfigurationError, match=SYNCHRONOUS),
    ):
        discover()


class Mixin:
    """Does not know yet what it will be combined with."""

    @model_observer(Task)
    async def tasks(self, message: Any, **kwargs: Any) -> None: ...


async def test_a_mixin_s_is_refused_when_it_subscribes() -> None:
    class Late(Mixin, JsonWebsocketConsumer):
        pass

    with pytest.raises(ObserverError, match=SYNCHRONOUS.replace(r"\S+", "Mixin.tasks")):
        await Late().tasks.subscribe()


async def test_a_consumer_that_could_not_send_a_resync_is_refused_when_it_subscribes() -> None:
    class Text(Mixin, AsyncWebsocketConsumer):
        pass

    with pytest.raises(ObserverError, match=r"Text subscribes to .*Mixin\.tasks with a request_id.*\.resync, or"):
        await Text().tasks.subscribe(request_id=1)


async def test_the_groups_that_a_class_declares_are_not_those_of_one_consumer() -> None:
    class Lobby(Mixin, AsyncWebsocketConsumer):
        groups: Any = {"lobby"}  # noqa: RUF012

    first, second = Lobby(), Lobby()
    for number, consumer in enumerate((first, second)):
        consumer.channel_layer, consumer.channel_name = InMemoryChannelLayer(), f"channel{number}"
        equip(consumer, "an observer")
    await first.add_group("mine")
    assert (set(first.groups), set(second.groups), Lobby.groups) == ({"lobby", "mine"}, {"lobby"}, {"lobby"})
