"""An excluded value is nowhere but in its table: not in the log, an event, a notification, or what anybody prints."""

from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.board import Board
from tests.project import create_database
from tests.servers import DSN, AsgiServer, EmbeddedPostgres, ManagePy, PgParams, app_env

SECRET = "k7GqZt0Vh2"
KEPT = "00000000-0000-4000-8000-00000000000{}"
SETTINGS = {"EXCLUDE": {"testapp.Document": ["title"]}, "NOTIFY": "always"}

#: A column whose value cannot be written as JSON.
FAILING = "ALTER TABLE testapp_document ADD bad numeric[] DEFAULT array_fill(1e131071::numeric, '{9000}')"


@pytest.fixture(scope="module")
def talkative() -> Iterator[EmbeddedPostgres]:
    """A server that logs all but the text of statements, which is the writer's own."""
    settings = {"log_min_messages": "debug5", "log_min_error_statement": "panic", "log_error_verbosity": "verbose"}
    with EmbeddedPostgres(settings=settings) as server:
        yield server


@pytest.fixture
def app(talkative: EmbeddedPostgres) -> Iterator[tuple[PgParams, AsgiServer]]:
    """The test application on it, with the column ``title`` of documents excluded."""
    params = talkative.params.database("excluded")
    create_database(talkative.params, params.dbname)
    env = app_env(dbname=params.dbname, settings=SETTINGS, env={DSN: talkative.params.dsn()})
    ManagePy.run("migrate", "--verbosity", "0", env=env)
    with AsgiServer(env) as server:
        yield params, server


@pytest.mark.slow
def test_an_excluded_value_is_nowhere(
    talkative: EmbeddedPostgres, app: tuple[PgParams, AsgiServer], open_board: Callable[..., Board]
) -> None:
    params, server = app
    board = open_board(server)
    board.subscribe("documents")
    one, two, wide, last = (KEPT.format(number) for number in range(4))
    with params.connect() as writer, params.connect() as listening:
        listening.execute("LISTEN djcrf_pg")
        insert = "INSERT INTO testapp_document (id, title) VALUES (%s, %s)"
        writer.execute(insert, [one, SECRET])
        with writer.cursor().copy("COPY testapp_document FROM STDIN") as copy:
            copy.write_row([two, f"copied {SECRET}"])
        writer.execute("UPDATE testapp_document SET title = title || '!'")
        # Another way through capture: an image that might not fit.
        writer.execute("ALTER TABLE testapp_document ALTER title TYPE text")
        writer.execute("ALTER TABLE testapp_document ALTER title SET STORAGE EXTERNAL")
        writer.execute(insert, [wide, SECRET * 300_000])
        # And the one that fails: a row whose image is over 1 GB is told as a resync.
        writer.execute(FAILING)
        writer.execute("UPDATE testapp_document SET title = title || '!'")
        writer.execute("DELETE FROM testapp_document")
        writer.execute("ALTER TABLE testapp_document DROP bad")
        writer.execute(insert, [last, "the end"])
        board.runner.run(board.client.until(lambda message: message.get("body") == {"pk": last}))
        payloads = [note.payload for note in listening.notifies(timeout=0.5)]
        log = "\n".join(map(str, writer.execute("SELECT change.*::text FROM djcrf_pg_change AS change").fetchall()))
    frames = str(board.client.received)
    assert len(payloads) >= 6
    # What is looked through has what it should have.
    for number in (one, two, wide, last):
        assert number in log
        assert number in frames
    assert "unreadable" in frames
    assert "DEBUG" in talkative.output
    assert "leads" in server.output
    for place in (log, frames, str(payloads), server.output, talkative.output):
        assert SECRET not in place
        assert SECRET.encode().hex() not in place
