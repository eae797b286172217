"""DCRF's observer in shadow mode: it is as it always was, and has a twin that would be in its place.

The twin is what ``SHADOW = False`` will make of the same code. The leader makes its events, which nobody receives, and
compares them with what is sent here: see :mod:`djcrf_pg.shadow`. Whatever keeps the twin from that is reported, and no
business of the project's: nothing here fails, delays or changes a write, a subscription or an event.
"""

from collections.abc import Callable, Iterable
from typing import Any

from django.db import router
from django.db.models import Model
from djangochannelsrestframework import observer as observer_module
from djangochannelsrestframework.observer.model_observer import Action

from djcrf_pg.conf import get_settings
from djcrf_pg.listener import embedded, worker
from djcrf_pg.observations import ShadowFailed, ShadowSkipped, cause_of, emit
from djcrf_pg.observer import by_hand
from djcrf_pg.observer.dcrf import DCRFModelObserver
from djcrf_pg.observer.model_observer import ModelObserver as _TriggerDriven
from djcrf_pg.observer.signatures import label_of
from djcrf_pg.registry import is_postgresql
from djcrf_pg.shadow import recorder
from djcrf_pg.shadow.excluded import Hidden, hidden
from djcrf_pg.shadow.messages import body_as_sent, row_key

#: The observers that are not compared, and why.
skipped: dict[str, str] = {}

#: Where the state that DCRF keeps with an instance has the key of the row, which a delete takes from the instance, and
#: what of it must not be kept, which the project may have changed when the message is sent.
_KEY, _HIDDEN = "djcrf_pg_key", "djcrf_pg_hidden"


def is_on() -> bool:
    """Whether this process is in shadow mode."""
    return observer_module.ModelObserver is ModelObserver


class Twin(_TriggerDriven):
    """Makes events for the comparison; nobody subscribes to it."""

    is_shadow = True


# The class is in the names of groups, so it has DCRF's.
class ModelObserver(DCRFModelObserver):
    """As DCRF's. The arguments are its."""

    twin: Twin | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._losses = recorder.Losses()
        self._try(self._make_twin, *args, **kwargs)

    def __set_name__(self, owner: type, name: str) -> None:
        """Name the twin as the observer would be named in its place."""
        self._likewise("belong_to", owner, name)

    def _make_twin(self, *args: Any, **kwargs: Any) -> None:
        if not is_postgresql(self.model_cls):
            return  # it would be DCRF's
        if type(self) is not ModelObserver:
            raise TypeError(f"{type(self).__qualname__} is a class of its own, and its twin would not derive from it")
        self.twin = Twin(*args, **kwargs)
        self.twin._stable_observer_id = self._stable_observer_id

    def _try(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Do something with the twin; without one it goes on where that fails."""
        try:
            work(*args, **kwargs)
        except Exception as error:
            self.twin = None
            label = label_of(self.func)
            skipped[label] = str(error)
            emit(ShadowSkipped(observer=label, error=str(error)))

    def _likewise(self, method: str, *args: Any) -> None:
        """Do to the twin what is done to this one."""
        if self.twin is not None:
            self._try(getattr(self.twin, method), *args)

    def serializer(self, func: Any) -> Any:
        """As DCRF's."""
        self._likewise("serializer", func)
        return super().serializer(func)

    def groups_for_signal(self, func: Any) -> Any:
        """As DCRF's."""
        self._likewise("groups_for_signal", func)
        return super().groups_for_signal(func)

    def groups_for_consumer(self, func: Any) -> Any:
        """As DCRF's."""
        self._likewise("groups_for_consumer", func)
        return super().groups_for_consumer(func)

    def groups(self, func: Any) -> Any:
        """As DCRF's."""
        self._likewise("groups", func)
        return super().groups(func)

    def post_init_receiver(self, instance: Model, **kwargs: Any) -> None:
        """As DCRF's, but for the instances of the leader, which nobody saves.

        To ask for the groups of one that lacks its fields, as Django makes it to load a deferred field of another,
        would load them, and Django would give the other one what they are by now.
        """
        if not worker.is_here():
            super().post_init_receiver(instance, **kwargs)

    def post_save_receiver(self, instance: Model, created: bool, **kwargs: Any) -> None:
        """As DCRF's. A call by hand, which has no signal, is also what it will be, see :mod:`.by_hand`."""
        super().post_save_receiver(instance, created, **kwargs)
        if self.twin is not None and "signal" not in kwargs:
            by_hand.answer(instance, Action.CREATE if created else Action.UPDATE, f"a receiver of {self.twin.label}")

    def database_event(self, instance: Model, action: Action) -> None:
        """As DCRF's, and keep the key that the row has now."""
        if self.twin is not None:
            try:  # first: outside of a transaction this sends at once
                state = self.get_observer_state(instance)
                setattr(state, _KEY, row_key(instance))
                setattr(state, _HIDDEN, hidden(instance))
            except Exception as error:
                self._report(error)
        super().database_event(instance, action)

    def send_prepared_messages(self, instance: Model) -> None:
        """As DCRF's, and note what was sent."""
        state = self.get_observer_state(instance)
        messages = state.pending_messages
        super().send_prepared_messages(instance)
        if self.twin is not None and messages:
            try:
                now = hidden(instance, serializer_class=self.twin.serializer_class)
                then: Hidden = getattr(state, _HIDDEN)
                self._note(getattr(state, _KEY), messages, self.twin, Hidden(now.names, now.values | then.values))
            except Exception as error:
                self._report(error)

    def _note(self, pk: str, messages: Iterable[dict[str, Any]], twin: Twin, left: Hidden) -> None:
        groups: dict[str, list[str]] = {}
        bodies = {}
        for message in messages:
            groups.setdefault(message["action"], []).append(message["group"])
            bodies[message["action"]] = message["body"]
        parts = {
            action: (groups[action], body_as_sent(body, action, decimals_as_text=twin.decimals_as_text))
            for action, body in bodies.items()
        }
        recorder.note(router.db_for_write(self.model_cls), twin.address, pk, parts, left)

    def _report(self, error: Exception) -> None:
        self._losses.add(1, router.db_for_write(self.model_cls), cause_of(error), error)

    async def subscribe(self, consumer: Any, *args: Any, **kwargs: Any) -> Iterable[str]:
        """As DCRF's, and start the listener that compares, if it runs in this process."""
        groups: Iterable[str] = await super().subscribe(consumer, *args, **kwargs)
        if self.twin is not None:
            alias = router.db_for_write(self.model_cls)
            try:
                if get_settings().EMBEDDED:
                    embedded.runtime(alias).start()
            except Exception as error:
                emit(ShadowFailed(alias=alias, error=cause_of(error)), error)
        return groups
