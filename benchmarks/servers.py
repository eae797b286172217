"""The servers and processes that are measured, on those of the tests."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import psycopg

from tests import servers
from tests.processes import ROOT, Process, wait_until
from tests.servers import AsgiServer, EmbeddedPostgres, ManagePy, RedisServer, app_env

#: Rows of each table.
ROWS = 100_000

TABLES = (
    *("plain", "captured", "signalled", "notified", "published"),
    *("serialized", "custom", "documented", "grouped", "crowded"),
    *("resumed", "followed", "nested", "lonely"),
)

#: Tables of which each row has an author and three labels.
NESTING = ("nested", "lonely")

#: As a server would be set up; the disk is waited for. Nothing of the server's own may fall into one turn and not into
#: another: `Lab.settle` vacuums and checkpoints before each.
SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "autovacuum": "off",
}

#: The hand-written trigger: the row in NOTIFY.
NOTIFY = """
CREATE FUNCTION bench_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_notify('peer', row_to_json(NEW)::text); RETURN NULL; END $$;
CREATE TRIGGER bench_notify AFTER INSERT OR UPDATE ON bench_notified FOR EACH ROW EXECUTE FUNCTION bench_notify();
"""

FILL = """
INSERT INTO bench_{} (id, title, body, n, price, at, flag, tag)
SELECT i, 'title ' || i, repeat('x', 200), 0, i * 1.5, now(), true, gen_random_uuid() FROM generate_series(1, {}) AS i
"""


NAMES = "INSERT INTO bench_{} (id, name) SELECT i, 'name ' || i FROM generate_series(1, {}) AS i"

AUTHORS, LABELS = 1_000, 100

AUTHOR = f"UPDATE bench_{{}} SET author_id = 1 + id % {AUTHORS}"

LABEL = f"""
INSERT INTO bench_{{0}}_labels ({{0}}_id, label_id)
SELECT id, 1 + (id + i) % {LABELS} FROM bench_{{0}}, generate_series(1, 3) AS i
"""


def has_pgpubsub() -> bool:
    """Whether django-pgpubsub is installed."""
    return find_spec("pgpubsub") is not None


class Worker:
    """A process of `benchmarks.worker`. ``worker.ask("save", table="plain", seconds=2)``."""

    def __init__(self, env: dict[str, str | None]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            cwd=ROOT,
            env={k: v for k, v in {**os.environ, **env}.items() if v is not None},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def ask(self, command: str, **arguments: Any) -> Any:
        """Run a command there and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended with {self._process.wait()} at {command} {arguments}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"worker, {command} {str(arguments)[:300]}: {answer['error']}")
        return answer["answer"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.wait()


class Ears:
    """A connection that listens on a channel and takes what comes: what NOTIFY costs depends on there being one.

    Args:
        server: Where.
        channel: The channel.
        hear: Called with each payload, in a thread.
    """

    def __init__(
        self, server: servers.PgParams, channel: str, hear: Callable[[str], None] = lambda payload: None
    ) -> None:
        self._connection = server.connect()
        self._connection.execute(f'LISTEN "{channel}"'.encode())
        self._hear = hear
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.is_set():
            for notice in self._connection.notifies(timeout=0.2):
                self._hear(notice.payload)

    def close(self) -> None:
        """End the thread and the connection."""
        self._end.set()
        self._thread.join()
        self._connection.close()


class Lab:
    """PostgreSQL, Redis and the application's tables. A context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.server = EmbeddedPostgres(settings=SETTINGS)
        self.redis = RedisServer()

    def __enter__(self) -> Self:
        try:
            self._stack.enter_context(self.server)
            self._stack.enter_context(self.redis)
            os.environ[servers.DSN] = self.server.params.dsn()
            with self.server.params.connect() as connection:
                connection.execute("CREATE DATABASE bench")
            self.params = self.server.params.database("bench")
            ManagePy.run("migrate", "--run-syncdb", env=self.env(), timeout=120)
            self.db = self._stack.enter_context(self.params.connect())
            self.db.execute("SET session_replication_role = replica")
            for table in TABLES:
                self.db.execute(FILL.format(table, ROWS).encode())
            for table, count in (("author", AUTHORS), ("label", LABELS)):
                self.db.execute(NAMES.format(table, count).encode())
            for table in NESTING:
                self.db.execute(AUTHOR.format(table).encode())
                self.db.execute(LABEL.format(table).encode())
            # Of a session in that role the log and the cursor take nothing.
            self.db.execute("RESET session_replication_role")
            self.db.execute(NOTIFY.encode())
            self.settle()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
        os.environ.pop(servers.DSN, None)

    def env(
        self,
        *,
        memory: bool = False,
        capacity: int = 100_000,
        redis: str | None = None,
        settings: dict[str, Any] | None = None,
        **env: str,
    ) -> dict[str, str | None]:
        """The environment of a process of the application.

        Args:
            memory: The in-memory channel layer in place of Redis.
            capacity: Messages a channel of Redis. Above its default of 100: what is dropped cannot be timed.
            redis: Another URL for the same Redis.
            settings: On top of the setting ``DJCRF_PG``.
            env: More variables.
        """
        layer = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
        redis = {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [redis or self.redis.url], "capacity": capacity},
        }
        layers = {"default": layer if memory else redis}
        variables = {"DJANGO_SETTINGS_MODULE": "benchmarks.app.settings", **env}
        return app_env(dbname="bench", layers=layers, settings=settings or {}, env=variables)

    @contextmanager
    def listener(self, **env: Any) -> Iterator[ManagePy]:
        """``manage.py djcrf_pg listen`` that leads."""
        with ManagePy("djcrf_pg", "listen", env=self.env(BENCH_SIGNALS="0", **env)) as listener:
            listener.wait_for(r"leads", timeout=60)
            yield listener

    @contextmanager
    def peer_listener(self, awaited: int) -> Iterator[ManagePy]:
        """``manage.py listen`` of django-pgpubsub, which says when another so many changes were heard of."""
        # It says that it listens at INFO, and two lines for each event too: that is off, and the server is asked.
        env = self.env(BENCH_AWAITED=str(awaited), PGAPPNAME="bench peer")
        listens = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bench peer' AND query = 'COMMIT'"
        with ManagePy("listen", env=env) as listener:
            wait_until(lambda: statement(self.db, listens), 60, listener.tail)
            yield listener

    @contextmanager
    def halted(self, listener: ManagePy) -> Iterator[None]:
        """The listener as on a machine of its own: it takes nothing of this one, and writers find that it is awake."""
        listener.send_signal(signal.SIGSTOP)
        self.db.execute("SELECT setval('djcrf_pg_listener_awake', 1)")
        try:
            yield
        finally:
            self.db.execute("SELECT setval('djcrf_pg_listener_awake', 0)")
            listener.send_signal(signal.SIGCONT)
            self.db.execute("NOTIFY djcrf_pg")

    @contextmanager
    def web(self, **env: Any) -> Iterator[AsgiServer]:
        """The consumers, in a process without a listener."""
        with AsgiServer(self.env(**env), application="benchmarks.app.asgi:application") as server:
            yield server

    def worker(self, **env: Any) -> Worker:
        """A process that writes."""
        return Worker(self.env(**env))

    @contextmanager
    def ears(self, worker: Worker) -> Iterator[None]:
        """Somebody listens to each peer, and does nothing: their own listeners would slow the machine, for seconds."""
        channels = ["peer"]
        if has_pgpubsub():
            channels.append(worker.ask("published_channel"))
        ears = [Ears(self.params, channel) for channel in channels]
        try:
            yield
        finally:
            for ear in ears:
                ear.close()

    def settle(self, *tables: str) -> None:
        """Have nothing of the last turn left to do."""
        for table in tables or TABLES:
            self.db.execute(f"VACUUM (ANALYZE) bench_{table}".encode())
        self.db.execute("VACUUM djcrf_pg_change")
        self.db.execute("CHECKPOINT")

    def forget(self) -> None:
        """Empty the log. Nobody leads meanwhile."""
        self.db.execute("TRUNCATE djcrf_pg_change")
        self.db.execute("DELETE FROM djcrf_pg_cursor")
        self.settle()

    def pgbench(self, table: str, clients: int, seconds: float) -> float:
        """One-row UPDATEs; returns transactions a second."""
        script = self.server.folder / f"{table}.sql"
        script.write_text(f"\\set id random(1, {ROWS})\nUPDATE bench_{table} SET n = n + 1 WHERE id = :id;\n")
        command = [str(self.server.bin / "pgbench"), "-n", "-M", "prepared", "-c", str(clients), "-j", "2"]
        command += ["-T", str(max(1, round(seconds))), "-f", str(script), "-h", self.params.host]
        command += ["-p", str(self.params.port), "-U", self.params.user, self.params.dbname]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        found = re.search(r"tps = ([\d.]+)", run.stdout)
        if found is None:
            raise RuntimeError(f"pgbench said no tps:\n{run.stdout}{run.stderr}")
        return float(found[1])


def cpu(process: Process | Worker) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(process: Process) -> dict[str, float]:
    """MiB that a process has now (``rss``) and had at most (``peak``)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = {name: re.search(rf"{name}:\s+(\d+) kB", status) for name in ("VmRSS", "VmHWM")}
    rss, peak = (int(match[1]) / 1024 if match else 0.0 for match in found.values())
    return {"rss": rss, "peak": peak}


def quiet(process: Process, share: float = 0.05) -> None:
    """Wait until a process does next to nothing."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        before = cpu(process)
        time.sleep(0.3)
        if cpu(process) - before <= share * 0.3:
            return
    raise RuntimeError(f"{process.name} does not come to rest\n{process.tail()}")


def statement(connection: "psycopg.Connection[Any]", query: str) -> Any:
    """The one value that a query returns."""
    row = connection.execute(query.encode()).fetchone()
    return None if row is None else row[0]
