"""Which observers a class body defined and then lost, by defining something else of that name.

Python says nothing of it, and neither does an observer that nobody has any more. So the place of each is noted when it
is decorated, and struck out when a class has it. What is left is looked for in its class.
"""

import sys
from collections.abc import Iterator
from types import FunctionType
from typing import Any, NamedTuple

from channels.consumer import AsyncConsumer

from djcrf_pg.observations import ObserverReplaced, emit


class Place(NamedTuple):
    """Where a handler is in the source.

    Attributes:
        label: Its module and qualified name.
        path: Of the file.
        line: Of its first line, that of its decorator.
    """

    label: str
    path: str
    line: int


#: Whose methods a consumer has.
_PACKAGES = ("channels", "djangochannelsrestframework")

#: Of the observers that no class has (yet); by label, because that is how they are looked for.
_open: dict[str, dict[Place, None]] = {}


def note(handler: Any, label: str) -> None:
    """Note that a handler was decorated, if that was in the body of a class."""
    if (place := _place_of(handler, label)) is not None:
        _open.setdefault(label, {})[place] = None


def settle(handler: Any, label: str) -> None:
    """Note that a class has the observer of a handler, and say which others its body defined by the same name."""
    place = _place_of(handler, label)
    places = _open.get(label, {})
    places.pop(place, None)  # type: ignore[arg-type]
    for lost in places:
        if place is not None and lost.path == place.path:
            emit(ObserverReplaced(observer=label, line=place.line, lost=lost.line))
    if not places:
        _open.pop(label, None)


def lost() -> Iterator[tuple[str, int, str]]:
    """The observers whose class has something else of their name.

    Yields:
        The label, the line of the observer, and what the class has.
    """
    for label, places in list(_open.items()):
        module, name = _module_of(label)
        owner, _, attribute = name.rpartition(".")
        found = _attribute(_resolve(module, owner), attribute)
        if found is None:
            continue  # the class has not been made: its body failed
        function = getattr(found, "func", found)
        has = _place_of(function, label)
        for place in places:
            if has is None or (place.path, place.line) != (has.path, has.line):
                what = "an observer" if hasattr(found, "model_cls") else f"a {type(found).__name__}"
                yield label, place.line, f"{what} at line {has.line}" if has is not None else what


def clashes(kind: type) -> Iterator[tuple[type, str, list[type]]]:
    """The consumer classes that inherit two observers by one name, of classes that know nothing of each other.

    Args:
        kind: The class of observers.

    Yields:
        The consumer class, the name, and the classes that define it, the one that counts first.
    """
    for consumer in _below(AsyncConsumer):
        if len(consumer.__bases__) < 2:
            continue
        names = {name for base in consumer.__mro__[1:] for name, value in vars(base).items() if isinstance(value, kind)}
        for name in sorted(names - vars(consumer).keys()):
            owners = [base for base in consumer.__mro__[1:] if name in vars(base)]
            first = owners[0]
            others = [
                other
                for other in owners[1:]
                if isinstance(vars(other)[name], kind)
                and vars(other)[name] is not vars(first)[name]
                and not any(owner is not other and issubclass(owner, other) for owner in owners)
            ]
            if others and not _inherits(consumer, name, [first, *others]):
                yield consumer, name, [first, *others]


def covered(kind: type) -> Iterator[tuple[type, str, type]]:
    """The observers that stand in place of a method that Channels or DCRF gives their consumer.

    Args:
        kind: The class of observers.

    Yields:
        The consumer class, the name, and the class that has the method.
    """
    for consumer in _below(AsyncConsumer):
        for name, value in vars(consumer).items():
            if isinstance(value, kind):
                bases = [base for base in consumer.__mro__[1:] if isinstance(vars(base).get(name), FunctionType)]
                theirs = [base for base in bases if base.__module__.partition(".")[0] in _PACKAGES]
                if theirs:
                    yield consumer, name, theirs[0]


def _inherits(consumer: type, name: str, owners: list[type]) -> bool:
    """Whether one of a consumer's bases has the same clash, and it is said of that."""
    return any(all(issubclass(base, owner) for owner in owners) for base in consumer.__bases__)


def _below(kind: type) -> Iterator[type]:
    seen: set[type] = set()
    todo: list[Any] = [kind]
    while todo:
        for each in todo.pop().__subclasses__():
            if each not in seen:
                seen.add(each)
                todo.append(each)
                yield each


def _place_of(handler: Any, label: str) -> Place | None:
    code = getattr(handler, "__code__", None)
    owner = str(getattr(handler, "__qualname__", "")).rpartition(".")[0]
    if code is None or not owner or owner.endswith("<locals>"):
        return None
    return Place(label, code.co_filename, code.co_firstlineno)


def _module_of(label: str) -> tuple[str, str]:
    """The module of a label, and the rest of it."""
    module = label
    while module and module not in sys.modules:
        module = module.rpartition(".")[0]
    return module, label[len(module) + 1 :]


def _resolve(module: str, name: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = _attribute(found, part)
    return found


def _attribute(owner: Any, name: str) -> Any:
    """What a module or class has of a name, not asked of a descriptor."""
    return None if owner is None else getattr(owner, "__dict__", {}).get(name)
