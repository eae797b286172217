"""What a leader and nine standbys do while nothing happens, and how soon one delivers when the leader is killed.

Each is a process of ``manage.py djcrf_pg listen``. The server logs each statement with the session's name, and those
are counted; CPU is that of the ten processes, without the server's. django-pgpubsub's listener is watched as well.
"""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks import runner
from benchmarks.audience import Audience
from benchmarks.runner import Bench, Goal, Result
from benchmarks.servers import Lab, cpu, has_pgpubsub, quiet
from djcrf_pg.listener.election import WAIT
from tests.processes import Process
from tests.servers import ManagePy


def run(bench: Bench) -> Iterator[Result]:
    """Measure statements a second, CPU, and the time to the first frame after a kill."""
    # Whole waits of a standby: all of them look at much the same time, and a window that cuts one has a look too many.
    lab, seconds = bench.lab, bench.choose(2, 3) * WAIT
    lab.db.execute("ALTER DATABASE bench SET log_statement = 'all'")
    try:
        yield from _idle(bench, lab, seconds)
    finally:
        lab.db.execute("ALTER DATABASE bench RESET log_statement")


def _idle(bench: Bench, lab: Lab, seconds: float) -> Iterator[Result]:
    with ExitStack() as stack:
        leader = stack.enter_context(lab.listener())
        standbys = [stack.enter_context(ManagePy("djcrf_pg", "listen", env=lab.env())) for _ in range(9)]
        for standby in standbys:
            standby.wait_for(r"stand", timeout=120)
        everybody: list[Process] = [leader, *standbys]
        if has_pgpubsub():
            peer = stack.enter_context(lab.peer_listener(0))
            everybody.append(peer)
        for process in everybody:
            quiet(process)
        leaders, others, peers, ours, theirs = [], [], [], [], []
        for _ in range(bench.rounds):
            before, position = [cpu(process) for process in everybody], lab.server.position
            begin = time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - begin
            log = lab.server.output[position:]
            used = [60 * (cpu(process) - was) / took for process, was in zip(everybody, before, strict=True)]
            leaders.append(_statements(log, "djcrf_pg leader") / took)
            others.append(_statements(log, "djcrf_pg (?!leader)") / took)
            peers.append(_statements(log, "bench peer") / took)
            ours.append(sum(used[:10]))
            theirs.append(sum(used[10:]))
        reference = ("one listener of django-pgpubsub", peers)
        yield Result("idle", "statements of the leader", runner.OURS, leaders, "a second", *reference)
        goal = Goal("≤", 2, "figure")
        yield Result("idle", "statements of nine standbys", runner.OURS, others, "a second", *reference, goal)
        what = "CPU of leader and nine standbys"
        yield Result("idle", what, runner.OURS, ours, "s a minute", reference[0], theirs)
        yield from _failover(bench, lab, stack, [leader, *standbys])


def _failover(bench: Bench, lab: Lab, stack: ExitStack, listeners: list[ManagePy]) -> Iterator[Result]:
    web, audience = stack.enter_context(lab.web()), stack.enter_context(Audience())
    worker = stack.enter_context(lab.worker())
    seat = audience.seat(web)
    seat.subscribe("captured")

    def change() -> float:
        seat.expect(1)
        begin = float(worker.ask("save_rows", table="captured", count=1))
        return float(seat.done()["last"]) - begin

    living, killed = [], []
    for _ in range(min(bench.rounds, 5)):
        change()
        living.append(change())
        leader = next(one for one in listeners if one.running and _leads(one))
        seat.expect(1)
        begin = time.monotonic()
        leader.kill()
        worker.ask("save_rows", table="captured", count=1)
        killed.append(float(seat.done()["last"]) - begin)
    goal = Goal("≤", 2, "figure")
    what = "leader killed, then a change: to the handler"
    yield Result("idle", what, runner.OURS, killed, "s", "while it lives", living, goal)


def _leads(listener: ManagePy) -> bool:
    return listener.find(r"leads") is not None


def _statements(log: str, name: str) -> int:
    """The statements that sessions of that name ran."""
    return len(re.findall(rf"\] {name}.* LOG:  (?:statement|execute)", log))
