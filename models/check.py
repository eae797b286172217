"""Checks the models: as they are they must hold, and with each mistake they must be found wrong.

    python models/check.py                    all of it, three minutes
    python models/check.py --trace NO_XID     the shortest way to the fault that a mistake leads to

Needs spin and gcc.
"""

import argparse
import dataclasses
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


@dataclasses.dataclass(frozen=True, slots=True)
class Model:
    """A model, and how it is checked.

    Attributes:
        path: The file.
        sizes: Macros for the C preprocessor. All at once would be too many states; it must hold in each of these.
        mistakes: Each is an ``#ifdef`` of the model.
        mistaken: A size that is enough for all of them to show.
        fault: What the trace of a fault says.
    """

    path: Path
    sizes: dict[str, str]
    mistakes: dict[str, str]
    mistaken: str
    fault: str


DOORBELL = Model(
    Path(__file__).with_name("doorbell.pml"),
    {
        "a leader that dies": "-DWRITERS=2 -DTRANSACTIONS=1 -DSTATEMENTS=2 -DBUSY=1 -DDEATHS=1",
        "two transactions": "-DWRITERS=2 -DTRANSACTIONS=2 -DSTATEMENTS=1 -DBUSY=0 -DDEATHS=0",
        "three writers": "-DWRITERS=3 -DTRANSACTIONS=1 -DSTATEMENTS=1 -DBUSY=0 -DDEATHS=0",
    },
    {
        "FLAG_FIRST": "a writer reads the flag before its transaction has an id",
        "NO_XID": "the leader takes no transaction id after it has set the flag to 0",
        "XID_FIRST": "the leader takes that id before it sets the flag",
        "NO_LAST_READ": "the leader does not read after it has set the flag to 0",
        "NO_PENDING": "the leader does not wait for transactions that are in progress",
        "PENDING_OF_READ": "the leader waits for those of its last read, not for those of its position",
        "LISTEN_LATE": "LISTEN comes after the last read",
        "MUFFLE_LATE": "the leader forgets the rings after the read, not before",
        "TRUST_FLAG": "a new leader goes to sleep with the flag as it finds it",
    },
    "-DWRITERS=2 -DTRANSACTIONS=2 -DDEATHS=0",
    "overslept",
)

INTEREST = Model(
    Path(__file__).with_name("interest.pml"),
    {
        "a session that ends": "-DLANES=1 -DCHANGES=2",
        "two groups": "-DLANES=2 -DCHANGES=1 -DLOSSES=0",
        "two groups and a session that ends": "-DLANES=2 -DCHANGES=1 -DOTHERS=0 -DTERMS=1",
    },
    {
        "SNAPSHOT_FIRST": "a subscription takes its snapshot before it publishes",
        "RISE_FIRST": "the version rises before the rows are committed",
        "VERSION_FIRST": "the leader reads the version before the changes",
        "VERSION_LAST": "the leader reads the version that its rows are of after the rows",
        "FETCH_FIRST": "the leader fetches the rows before it reads the changes",
        "LOOK_FIRST": "a new session looks after the former rows before it has published its own",
        "NO_LOOK": "a new session does not look after the former rows",
    },
    "-DLANES=1 -DCHANGES=1",
    "left out",
)

RESUME = Model(
    Path(__file__).with_name("resume.pml"),
    {
        "a connection that breaks and a leader that dies": "-DCHANGES=3",
        "a log that is deleted from": "-DCHANGES=3 -DCUTS=0 -DTRIMS=1",
        "two clients": "-DCLIENTS=2 -DCHANGES=2 -DDEATHS=0 -DCAPACITY=1",
        "a layer that drops much": "-DCHANGES=4 -DDROPS=2 -DCUTS=0 -DDEATHS=0",
    },
    {
        "MOMENT_FIRST": "a subscription asks for its moment before it joins",
        "TAKEN_EARLY": "the process takes messages before it has the answer that it begins with",
        "REPLAY_NOT_HELD": "what is live does not wait for the replay",
        "MOMENT_NOT_DROPPED": "what is live is not dropped where the subscription's moment sees it",
        "REPLAY_GOES_ON": "a replay goes on after its subscription has ended",
        "INBOX_GOES_ON": "what waits in the inbox is handled after the subscription has ended",
        "CURSOR_OF_WINDOW": "the cursor of a change is the end of its window",
        "CURSOR_OF_MESSAGE": "the cursor of a change leaves out what the former leader had sent",
        "CURSOR_WITHOUT_MOMENT": "the cursor of a change leaves out what the subscription's moment sees",
        "SHARED_QUESTION": "a healing takes the answer to a question that was asked before the loss was noticed",
        "HEAL_FROM_BEAT": "a healing begins at the last heartbeat, not behind the last change that was handed over",
        "HEAL_NOT_HELD": "what arrives during a healing does not wait for it",
        "HEAL_WITHOUT_MOMENT": "a healing hands out what a subscription's own moment sees",
        "HEALED_NOT_DROPPED": "what a healing has handed out is not dropped when it arrives",
        "WAITING_LEFT_OUT": "a healing leaves out subscriptions that wait for their answer",
        "ONE_HEAL": "after a healing the process does not look for gaps in what had arrived meanwhile",
        "HORIZON_FIRST": "whether the log still has what is missed is asked before it is read",
        "RESENT_NOT_DROPPED": "what a new leader sends again is not dropped",
        "NO_REACH": "the process follows a new leader without looking at what that begins behind",
    },
    "-DCHANGES=2 -DDROPS=2 -DTRIMS=1",
    "wrong",
)

MODELS = (DOORBELL, INTEREST, RESUME)

_NEEDED = ("spin", "gcc")

#: The models' own lines among those of spin.
_TOLD = re.compile(
    r"(writer|leader|the leader|another leader|a ring|overslept|process|the session|left out"
    r"|client|layer|retention|wrong)\b"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What the checker says.

    Attributes:
        holds: Whether it went through every state and found no fault.
        broken: Whether it found a state that breaks the claim.
        states: How many states it went through.
        output: All that it said.
        trace: What happened on the way to the fault.
    """

    holds: bool
    broken: bool
    states: int
    output: str
    trace: str = ""


def missing() -> list[str]:
    """The programs that are needed and not there."""
    return [name for name in _NEEDED if shutil.which(name) is None]


def check(model: Model, size: str, mistake: str | None = None, shortest: bool = False) -> Verdict:
    """Go through every state of a model, or up to the first fault.

    Args:
        model: The model.
        size: Macros of the model, as for the C preprocessor.
        mistake: One of its mistakes.
        shortest: Find the shortest way to the fault, which takes longer.
    """
    macros = [*size.split(), *([f"-D{mistake}"] if mistake else [])]
    # A fault is found sooner than an optimizing compiler is done.
    options = ["-DBFS", "-O2"] if shortest else ["-O0" if mistake else "-O2"]
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        shutil.copy(model.path, folder)
        _run(folder, "spin", *macros, "-a", model.path.name)
        _run(folder, "gcc", "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=2000", *options, "-o", "pan", "pan.c")
        output = _run(folder, "./pan", "-m10000")
        trace = ""
        if Path(folder, f"{model.path.name}.trail").exists():
            lines = _run(folder, "spin", *macros, "-T", "-t", model.path.name).splitlines()
            trace = "\n".join(line for line in lines if _TOLD.match(line))
    errors, states = re.search(r"errors: (\d+)", output), re.search(r"(\d+) states, stored", output)
    # "Warning: Search not completed", "max search depth too small" and the like.
    whole = not re.search(r"warning|not completed|truncated|too small|out of memory", output, re.IGNORECASE)
    return Verdict(
        holds=whole and errors is not None and errors[1] == "0",
        broken="assertion violated 0" in output,
        states=int(states[1]) if states else 0,
        output=output,
        trace=trace,
    )


def _run(folder: str, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode and "pan:1:" not in done.stdout:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}")
    return done.stdout


def main() -> int:
    """Check everything, or show one mistake; the exit code says whether all is as it should be."""
    mistakes = {mistake: model for model in MODELS for mistake in model.mistakes}
    parser = argparse.ArgumentParser(description="Check the models.")
    parser.add_argument(
        "--trace", choices=mistakes, metavar="MISTAKE", help=f"show what {', '.join(mistakes)} leads to"
    )
    trace: str | None = parser.parse_args().trace
    if programs := missing():
        raise SystemExit(f"not on the PATH: {', '.join(programs)} (apt-get install {' '.join(programs)})")
    if trace is not None:
        print(check(mistakes[trace], mistakes[trace].mistaken, trace, shortest=True).trace)
        return 0
    failures = 0
    for model in MODELS:
        print(f"{model.path.name}:")
        for what, size in model.sizes.items():
            verdict = check(model, size)
            failures += not verdict.holds
            print(f"{'holds' if verdict.holds else 'DOES NOT HOLD':15} {what}: {verdict.states:,} states", flush=True)
        for mistake, what in model.mistakes.items():
            verdict = check(model, model.mistaken, mistake)
            failures += not verdict.broken
            print(f"{'found' if verdict.broken else 'NOT FOUND':15} {mistake}: {what}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
