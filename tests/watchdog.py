"""Ends what a test process has left behind when it died without cleaning up (kill -9, for example).

Run by `tests.processes` as a program of its own. It reads lines from standard input, ``+pid NUMBER SIGNAL``,
``-pid NUMBER``, ``+dir PATH``, ``-dir PATH``, and acts when the other end of the pipe is closed, which the
kernel does however the writer ends. After an orderly end there is nothing left to do.
"""

import contextlib
import os
import shutil
import signal
import sys
import time

GRACE = 5.0
"""Seconds between the signal that was asked for and SIGKILL."""


def main() -> None:
    signals: dict[int, int] = {}
    folders: set[str] = set()
    for line in sys.stdin:
        verb, _, rest = line.rstrip("\n").partition(" ")
        if verb == "+pid":
            pid, _, number = rest.partition(" ")
            signals[int(pid)] = int(number)
        elif verb == "-pid":
            signals.pop(int(rest), None)
        elif verb == "+dir":
            folders.add(rest)
        elif verb == "-dir":
            folders.discard(rest)

    for pid, number in signals.items():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    deadline = time.monotonic() + GRACE
    for pid in signals:
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.kill(pid, 0)
                time.sleep(0.05)
            os.kill(pid, signal.SIGKILL)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
