"""Child processes of the tests: their output is kept and can be waited for, and none outlives the tests."""

import asyncio
import atexit
import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent

TIMEOUT = float(os.environ.get("DJCRF_PG_TEST_TIMEOUT", "20"))
"""Seconds that a wait lasts at most, where the caller does not say otherwise."""

POLL = 0.01
"""Seconds between two looks at a condition."""


# -- waiting -------------------------------------------------------------------------------------------------


def _say(message: Callable[[], str] | str) -> str:
    return message() if callable(message) else message


def wait_until(
    condition: Callable[[], T | None],
    timeout: float = TIMEOUT,
    message: Callable[[], str] | str = "the condition did not come true",
) -> T:
    """Calls `condition` until it returns something true, and returns that. Blocks the thread; see `until`.

    Raises:
        AssertionError: `timeout` seconds went by; its text is `message`.
    """
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout} s: {_say(message)}")
        time.sleep(POLL)
    return result


@contextlib.contextmanager
def meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Runs `work` in a thread for as long as the block lasts; the event tells it to end."""
    done = threading.Event()
    thread = threading.Thread(target=work, args=[done])
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


async def until(
    condition: Callable[[], T | None],
    timeout: float = TIMEOUT,
    message: Callable[[], str] | str = "the condition did not come true",
) -> T:
    """`wait_until` for coroutines: the event loop goes on meanwhile."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout} s: {_say(message)}")
        await asyncio.sleep(POLL)
    return result


# -- nothing is left behind ----------------------------------------------------------------------------------


class _Watchdog:
    """Our end of `tests.watchdog`, which is started with the first process or folder that needs it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def tell(self, line: str) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(ROOT / "tests" / "watchdog.py")],
                stdin=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C is for us: it must be there when we are gone
            )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None


_watchdog = _Watchdog()
_started: list["Process"] = []  # started and not stopped, ended ones among them
_marks: dict[int, int] = {}  # where in the output of a process (by id()) the present test began
_last_words: list[str] = []  # of processes that were stopped during the present test


def stop_all() -> None:
    """Stops every process that is still there, the last started first."""
    for process in reversed(_started.copy()):
        process.stop()
    _watchdog.close()


atexit.register(stop_all)


def new_test() -> None:
    """Notes where in their output the processes are, so that `reports` begins there."""
    _last_words.clear()
    _marks.clear()
    _marks.update({id(process): process.position for process in _started})


def reports() -> list[str]:
    """Returns what each process has written since `new_test`, to be shown with a test that failed."""
    return _last_words + [process.tail(after=_marks.get(id(process), 0)) for process in _started]


def temporary_folder(owner: str | None = None) -> Path:
    """Makes a folder with a short path (a Unix socket's may have about 100 bytes) that `owner` can reach.

    It disappears with the test process, however that ends.
    """
    base = Path(tempfile.gettempdir()).resolve()
    if len(str(base)) > 60 or (owner is not None and not _everyone_may_enter(base)):
        base = Path("/tmp")
    folder = Path(tempfile.mkdtemp(prefix="djcrf-", dir=base))
    if owner is not None:
        shutil.chown(folder, owner)
    _watchdog.tell(f"+dir {folder}")
    return folder


def remove_folder(folder: Path) -> None:
    """Removes what `temporary_folder` made."""
    shutil.rmtree(folder, ignore_errors=True)
    _watchdog.tell(f"-dir {folder}")


def _everyone_may_enter(folder: Path) -> bool:
    return all(part.stat().st_mode & 0o001 for part in (folder, *folder.parents))


# -- a process -----------------------------------------------------------------------------------------------


class Process:
    """A running program whose output is kept and can be waited for.

    A context manager: started on entry, gone on exit. After it has ended it can be started again; the output
    of all its lives is in one log, which is shown with a test that fails.

    Args:
        command: The program and its arguments.
        name: What to call it in messages.
        env: Environment variables to set on top of ours; None as a value removes one.
        user: The account to run as (needs root); None for our own.
        stop_signal: What asks it to end in an orderly way.
        orphan_signal: What it is sent when the test process dies without stopping it.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        name: str,
        env: Mapping[str, str | None] | None = None,
        user: str | None = None,
        stop_signal: int = signal.SIGTERM,
        orphan_signal: int = signal.SIGKILL,
    ) -> None:
        self.command = [str(part) for part in command]
        self.name = name
        self.user = user
        self.stop_signal = stop_signal
        self.orphan_signal = orphan_signal
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    def start(self) -> Self:
        """Starts the program. Subclasses return when it is ready, this one at once."""
        if self.running:
            raise RuntimeError(f"{self.name} is running already")
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=ROOT if self.user is None else "/",
                env={k: v for k, v in {**os.environ, **self._env}.items() if v is not None},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C and "timeout" signal our group: we end them, in order
                **run_as(self.user),
            )
        _watchdog.tell(f"+pid {self.pid} {int(self.orphan_signal)}")
        if self not in _started:
            _started.append(self)
        return self

    @property
    def pid(self) -> int:
        """The process id of the present or last life."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it is alive now."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """How it ended: its exit code, or minus the signal's number; None while it runs."""
        return self._process.poll() if self._process is not None else None

    def send_signal(self, number: int) -> None:
        """Sends a signal, and does not wait for what it does."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> int:
        """Sends SIGKILL, waits for the end and returns the exit code."""
        self.send_signal(signal.SIGKILL)
        return self.wait()

    def terminate(self, timeout: float = TIMEOUT) -> int:
        """Asks it to end, waits for it and returns the exit code.

        Raises:
            AssertionError: It did not end in time (and is killed).
        """
        self.send_signal(self.stop_signal)
        return self.wait(timeout)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Waits for the end and returns the exit code.

        Raises:
            AssertionError: It did not end in time (and is killed).
        """
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"{self.name} did not end within {timeout} s\n{self.tail()}") from None
        finally:
            _watchdog.tell(f"-pid {self.pid}")

    def stop(self) -> None:
        """Ends it if it runs, by force if need be, and removes its files."""
        if self._process is not None:
            self.send_signal(self.stop_signal)
            with contextlib.suppress(AssertionError):
                self.wait()
        if self in _started:
            _last_words.append(self.tail(after=_marks.get(id(self), 0)))
            _started.remove(self)
        if self._folder is not None:
            remove_folder(self._folder)
            self._folder = None

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        """A temporary folder for it, which `stop` removes."""
        if self._folder is None:
            self._folder = temporary_folder(self.user)
        return self._folder

    @property
    def log_path(self) -> Path:
        """The file that its standard output and error go to."""
        return self.folder / "log"

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def position(self) -> int:
        """The present length of `output`, for a later wait for what comes `after` it."""
        return len(self.output)

    def tail(self, lines: int = 60, after: int = 0) -> str:
        """Returns the last lines of the output from position `after` on, under a heading."""
        state = "running" if self.running else f"ended with {self.returncode}"
        body = "\n".join(self.output[after:].splitlines()[-lines:]) or "(no output)"
        return f"----- {self.name} (pid {self._process.pid if self._process else '-'}, {state}) -----\n{body}"

    def find(self, pattern: str, after: int = 0) -> re.Match[str] | None:
        """Returns the first match of a regular expression (multi-line mode) in the output from `after` on."""
        return re.compile(pattern, re.MULTILINE).search(self.output, after)

    def wait_for(self, pattern: str, *, after: int = 0, timeout: float = TIMEOUT) -> re.Match[str]:
        """Waits until the output matches a regular expression and returns the match. Blocks; see `until`.

        Raises:
            AssertionError: It did not in `timeout` seconds, or the program ended without writing it.
        """
        return wait_until(lambda: self._match(pattern, after), timeout, lambda: self._missing(pattern))

    async def until(self, pattern: str, *, after: int = 0, timeout: float = TIMEOUT) -> re.Match[str]:
        """`wait_for` for coroutines: the event loop goes on meanwhile."""
        return await until(lambda: self._match(pattern, after), timeout, lambda: self._missing(pattern))

    def _match(self, pattern: str, after: int) -> re.Match[str] | None:
        ended = not self.running  # asked before the output is read, which then holds its last words
        match = self.find(pattern, after)
        if match is None and ended:
            raise AssertionError(f"{self.name} ended without writing {pattern!r}\n{self.tail()}")
        return match

    def _missing(self, pattern: str) -> str:
        return f"{self.name} has not written {pattern!r}\n{self.tail()}"


def run_as(user: str | None) -> dict[str, Any]:
    """Returns the keyword arguments of `subprocess` that run a program as another account (needs root)."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
