"""``djcrf_pg.context``: what the changes of a block carry to their observers."""

import inspect
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from djcrf_pg.writer.values import State, current

P = ParamSpec("P")
R = TypeVar("R")


class context:
    """Let every change that is written in a block, or by a function, carry values to its observers.

    ::

        with djcrf_pg.context(user=request.user, reason="import"):
            task.save()

        @djcrf_pg.context(job="nightly")
        def tidy_up(): ...

    Blocks nest: the inner one adds to the outer one, and wins where both have a name. Synchronous and
    asynchronous code may use it; the values follow asyncio's tasks and the threads of ``sync_to_async``, not
    threads that the program starts itself (``contextvars.copy_context().run`` takes them there). A decorated
    function may be ``async``.

    The values go with the statements that are sent inside of the block through Django's PostgreSQL connections
    (ORM, cursors, ``COPY``), inside and outside of ``atomic()``. They are set for the transaction only
    (``SET LOCAL``), so nothing of them is left in a session or behind a transaction pooler. How they travel,
    and what that costs, is in :mod:`djcrf_pg.writer.cursors`.

    Args:
        values: JSON data, and what Django's JSON encoder knows (UUID, date and time, Decimal). A model
            instance becomes its primary key. A callable is called for each statement that writes, and what it
            returns then is the value; it may query. All others are turned into JSON when the block begins.

    Raises:
        TypeError: A value is not JSON data, or a generator is decorated.
        ValueError: A value is NaN or infinite, or contains NUL characters or halves of surrogate pairs; or all
            together have more than 8 192 bytes.
    """

    def __init__(self, /, **values: Any) -> None:
        self._values = values

    def __enter__(self) -> None:
        current.set(State.inside(current.get(), self._values))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The blocks are linked in the context variable, not here: one object may serve any number of tasks.
        if (state := current.get()) is not None:
            current.set(state.outer)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Run ``function`` inside of the block, each time that it is called."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"djcrf_pg.context cannot decorate the generator {function.__qualname__}: its body runs after the "
                f"call has returned. Use `with djcrf_pg.context(…):` inside of it."
            )
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return cast(Callable[P, R], run_async)

        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return run
