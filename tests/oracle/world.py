"""The processes: a PostgreSQL server, a Redis, two listeners behind a proxy each, and an ASGI server."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self, TypeVar

import django
import psycopg
from django.core.management import call_command
from psycopg.rows import dict_row

from tests.oracle.tables import Rows, in_order
from tests.processes import wait_until
from tests.proxy import Proxy
from tests.servers import DBNAME, DSN, AsgiServer, EmbeddedPostgres, ManagePy, RedisServer, app_env

SETTINGS: dict[str, Any] = {
    "EMBEDDED": False,
    # A lost ring is to be found, not to be mended.
    "SAFETY_POLL": 3600.0,
    # Windows are read in pieces, and events travel in several messages.
    "BATCH_SIZE": 40,
    "ENVELOPE_EVENTS": 10,
    # A client that does not read is to be behind within a run.
    "INBOX_EVENTS": 50,
    "RETENTION": 60.0,
}

#: Messages that `core` holds for a process, unless told otherwise: a tenth of its default.
CAPACITY = 10

#: The part of all messages to groups that a lossy layer drops.
SHARE = 0.15

_BACKENDS: dict[str, str] = {
    "core": "channels_redis.core.RedisChannelLayer",
    "pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
    "core-lossy": "tests.testapp.layers.LossyLayer",
    "pubsub-lossy": "tests.testapp.layers.LossyPubSubLayer",
}

#: The channel layers of channels_redis, which lose messages and memberships in ways of their own, and those that drop
#: messages besides.
LAYERS = tuple(_BACKENDS)

#: What is dropped by a layer, and the line of a log that says so.
DROPS = {
    "message over the capacity of the layer dropped": " channels over capacity in group ",
    "message dropped by a lossy layer": "lost on purpose",
}

_DBNAME = "oracle"
_APP = "tests.oracle.asgi:application"

#: Seconds that a server may take to come back.
BACK = 60.0

T = TypeVar("T")


class World:
    """Everything but the writers and the clients; a context manager.

    Args:
        capacity: Messages that `core` holds for a process.
        share: The part of all messages that lossy layers drop.
    """

    def __init__(self, capacity: int = CAPACITY, share: float = SHARE) -> None:
        self.capacity = capacity
        self.share = share
        self.server = EmbeddedPostgres(settings={"deadlock_timeout": "200ms"})
        self.redis = RedisServer()
        self.listeners: list[ManagePy] = []
        self.proxies: list[Proxy] = []
        self.layer = ""
        self._seed = 0
        self._dropped: Counter[str] = Counter()
        self.version = ""
        self._stack = ExitStack()
        self._ours = ExitStack()
        self._mine = threading.local()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.server)
            stack.enter_context(self.redis)
            with self.server.params.connect() as admin:
                admin.execute(f"CREATE DATABASE {_DBNAME}")
                self.version = admin.execute("SHOW server_version").fetchone()[0]
            self.database = self.server.params.database(_DBNAME)
            os.environ |= {DSN: self.server.params.dsn(), DBNAME: _DBNAME}
            os.environ["DJANGO_SETTINGS_MODULE"] = "tests.oracle.settings"
            django.setup()
            call_command("migrate", database="default", verbosity=0)
            self.proxies = [stack.enter_context(Proxy(self.server.params)) for _ in range(2)]
            self._ours = stack.enter_context(ExitStack())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.__exit__(*exception)

    def use(self, layer: str, seed: int) -> None:
        """Have listeners and the ASGI server go through a channel layer.

        Args:
            layer: One of `LAYERS`.
            seed: Says what a lossy one drops.
        """
        if layer == self.layer and not self._is_lossy:
            return
        self._dropped = self.drops()
        self.listeners = []
        self._ours.close()
        self.layer, self._seed = layer, seed
        self.asgi = AsgiServer(self._env(), application=_APP)
        self.listeners = [self._ours.enter_context(self._listener(proxy)) for proxy in self.proxies]
        self._ours.enter_context(self.asgi)

    @property
    def _is_lossy(self) -> bool:
        return self.layer.endswith("-lossy")

    def drops(self) -> Counter[str]:
        """What the layers have dropped so far; see `DROPS`."""
        said = "".join(listener.output for listener in self.listeners)
        return self._dropped + Counter({what: said.count(line) for what, line in DROPS.items()})

    def _env(self, **env: str) -> dict[str, str | None]:
        config: dict[str, Any] = {"hosts": [self.redis.url]}
        if self.layer.startswith("core"):
            config["capacity"] = self.capacity
        if self._is_lossy:
            config |= {"share": self.share, "seed": self._seed}
        layer = {"BACKEND": _BACKENDS[self.layer], "CONFIG": config}
        names = {"DJANGO_SETTINGS_MODULE": "tests.oracle.settings", **env}
        return app_env(dbname=_DBNAME, layers={"default": layer}, settings=SETTINGS, env=names)

    def _listener(self, proxy: Proxy) -> ManagePy:
        env = self._env(**{DSN: proxy.params.dsn("postgres")})
        return ManagePy("djcrf_pg", "listen", "--database", "default", env=env)

    @property
    def url(self) -> str:
        """Where the consumer is."""
        return f"{self.asgi.url}/ws/"

    # Asking the database, which may be away.

    def ask(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Run SQL, again until the server answers."""

        def work(connection: "psycopg.Connection[Any]") -> list[tuple[Any, ...]]:
            cursor = connection.execute(query.encode(), arguments or None)
            return cursor.fetchall() if cursor.description else []

        return self._stubbornly(work)

    def load(self, query: str, patient: bool = True) -> Rows:
        """Run a query of rows with an id, again until the server answers.

        Raises:
            psycopg.errors.LockNotAvailable: Somebody has a table for himself, and `patient` is false.
        """

        def work(connection: "psycopg.Connection[Any]") -> Rows:
            with connection.cursor(row_factory=dict_row) as cursor:
                return {row["id"]: in_order(row) for row in cursor.execute(query.encode())}

        return self._stubbornly(work, patient)

    def read(self, query: str) -> tuple[str, Rows]:
        """Run a query of rows with an id as a page does, with the cursor that continues it."""
        # These need Django, which is set up by now.
        from django.db import InterfaceError, OperationalError, connection

        from djcrf_pg import consistent_read

        deadline = time.monotonic() + BACK
        while True:
            try:
                with consistent_read() as since, connection.cursor() as cursor:
                    cursor.execute(query)
                    names = [column.name for column in cursor.description]
                    rows = [dict(zip(names, row, strict=True)) for row in cursor]
                return since, {row["id"]: in_order(row) for row in rows}
            except (OperationalError, InterfaceError):
                connection.close()
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def _stubbornly(self, work: "Callable[[psycopg.Connection[Any]], T]", patient: bool = True) -> T:
        deadline = time.monotonic() + BACK
        while True:
            try:
                return work(self._connection())
            except psycopg.errors.LockNotAvailable:
                if not patient:
                    raise
            except (psycopg.OperationalError, psycopg.InterfaceError):
                self._mine.connection = None
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def _connection(self) -> "psycopg.Connection[Any]":
        """One for each thread."""
        connection: psycopg.Connection[Any] | None = getattr(self._mine, "connection", None)
        if connection is None or connection.closed:
            connection = psycopg.connect(self.database.dsn(), autocommit=True, options="-c lock_timeout=300")
            self._mine.connection = connection
        return connection

    def leader(self, timeout: float = 5.0) -> tuple[int, int] | None:
        """Who leads: the server process, and which of the listeners; None if nobody does for so long."""

        def found() -> tuple[int, int] | None:
            names = {f":{listener.pid}": place for place, listener in enumerate(self.listeners)}
            for pid, name in self.ask(_LEADER):
                for end, place in names.items():
                    if name.endswith(end):
                        return pid, place
            return None

        try:
            return wait_until(found, timeout)
        except AssertionError:
            return None


_LEADER = (
    "SELECT pid, application_name FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name LIKE '% leader %'"
)
