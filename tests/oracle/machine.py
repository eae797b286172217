"""The state machine: Hypothesis decides who does what next, and what breaks; at rest the copies must be right."""

import itertools
import threading
import time
from typing import Any, ClassVar

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from djcrf_pg.listener.doorbell import LINGER
from tests.oracle.faults import KINDS, SLOW, Faults
from tests.oracle.operations import OPERATIONS
from tests.oracle.replica import Replica
from tests.oracle.tables import KEYS, LABELS, LANES, OWN, QUERIES, STEADY
from tests.oracle.tally import Tally
from tests.oracle.visitors import DEAF, END, READS, READS_SLOWLY, RESET, WANTS, Visit, Visitors
from tests.oracle.world import World
from tests.oracle.writer import Step, Writer

WRITERS = 3


def _kinds(family: str) -> st.SearchStrategy[str]:
    kinds = [name for name, operation in OPERATIONS.items() if operation.family == family]
    # What leaves little to look at is to be rare.
    return st.sampled_from([name for name in kinds for _ in range(1 if name.startswith("TRUNCATE") else 4)])


_writers = st.integers(0, WRITERS - 1)
_keys = st.lists(st.sampled_from(KEYS), min_size=1, max_size=6, unique=True)
# Each costs seconds, while a write takes a millisecond.
_faults = st.sampled_from(["none"] * 5 * len(KINDS) + list(KINDS) + list(SLOW))
_isolations = st.sampled_from(["", "", "REPEATABLE READ", "SERIALIZABLE"])
_manners = st.sampled_from([READS, READS, READS_SLOWLY, DEAF])
_visits = st.builds(Visit, st.sampled_from(WANTS), _manners, st.sampled_from([RESET, END]), st.booleans())

#: The row that each writer's bursts write to, and the seconds that one may last.
_BURSTS, _BURST = (41, 42, 43), 0.6

#: Seconds after which a leader has saved its cursor, and looks no more.
_SAVED = 2.0

_FENCES, _OWN_FENCES = itertools.count(1_000_001), itertools.count(10_000_000 + STEADY, len(OWN))
_NUMBERS = itertools.count(1)


class Oracle(RuleBasedStateMachine):
    """Each run begins with empty tables and a new client.

    Rules draw keys and know nothing of the rows: what a writer finds depends on the others, and Hypothesis wants to be
    able to repeat itself.
    """

    world: ClassVar[World]
    tally: ClassVar[Tally]
    writers: ClassVar[list[Writer]]
    faults: ClassVar[Faults]
    most_faults: ClassVar[int]
    slow: ClassVar[bool]
    patience: ClassVar[float]

    def __init__(self) -> None:
        super().__init__()
        self.story: list[Step] = []
        self.broken = 0
        self.tally.add("runs", "runs")
        self._empty()
        self.replica = Replica(self.world.url, self.world.read, self.tally)
        self.visitors = Visitors(self.world.url, self.tally)
        self.replica.open()

    def _empty(self) -> None:
        self.world.ask("TRUNCATE testapp_task, testapp_label, testapp_task_labels, testapp_project")
        self.world.ask("INSERT INTO testapp_label (id, name) SELECT id, id FROM unnest(%s::int[]) AS id", list(LABELS))

    # What is done.

    def _order(self, number: int, text: str, work: Any) -> None:
        step = Step(f"writer {number} {text}")
        self.story.append(step)
        self.writers[number].order(step, work)

    @rule(writer=_writers, kind=_kinds("ORM"), keys=_keys)
    def write(self, writer: int, kind: str, keys: list[int]) -> None:
        """One write of Django's, in the open transaction or in one of its own."""
        self._write(writer, kind, keys)

    @rule(writer=_writers, kind=_kinds("SQL"), keys=_keys)
    def write_sql(self, writer: int, kind: str, keys: list[int]) -> None:
        """One write of another program's."""
        self._write(writer, kind, keys)

    @rule(writer=_writers, kind=_kinds("relations"), keys=_keys)
    def relate(self, writer: int, kind: str, keys: list[int]) -> None:
        """One write to labels, projects, or their relations."""
        self._write(writer, kind, keys)

    def _write(self, writer: int, kind: str, keys: list[int]) -> None:
        number = next(_NUMBERS)
        self.tally.add("operations", kind)
        self._order(writer, f"{kind} (keys {keys}, number {number})", lambda: OPERATIONS[kind].work(keys, number))

    @rule(writer=_writers, beside=_writers, keys=_keys, late=st.sampled_from([False] * 4 + [True]))
    def burst(self, writer: int, beside: int, keys: list[int], late: bool) -> None:
        """Many small writes, until the leader stays awake for them, and says that nobody need ring.

        They are some milliseconds apart: it stays awake when rings come in during three deliveries, not for a backlog.
        Another writer writes in that moment, in a transaction that may end when the leader sleeps.
        """
        kind, key = "INSERT … ON CONFLICT DO UPDATE", _BURSTS[writer]
        enough = threading.Event()

        def work() -> None:
            deadline = time.monotonic() + _BURST
            while time.monotonic() < deadline and not enough.wait(0.004):
                self.tally.add("operations", kind)
                OPERATIONS[kind].work([key], next(_NUMBERS))

        self.finish(writer, False)
        self._order(writer, f"writes row {key} again and again", work)
        deadline = time.monotonic() + _BURST
        while self.world.ask("SELECT last_value FROM djcrf_pg_listener_awake") != [(1,)]:
            if time.monotonic() > deadline:
                break
        else:
            self.tally.add("bursts", "that kept the leader awake")
        if beside != writer:
            self.begin(beside, "")
            self._write(beside, "bulk_create(ignore_conflicts)", [key + len(KEYS) for key in keys])
        enough.set()
        if late and beside != writer and not self.faults.last:
            self.writers[writer].wait()
            self.story.append(Step("long pause", ""))
            time.sleep(_SAVED)
            self.finish(beside, False)
            self._settle()

    @rule()
    def pause(self) -> None:
        """Time for the leader to fall asleep."""
        self.story.append(Step("pause", ""))
        time.sleep(5 * LINGER)

    @rule(writer=_writers, isolation=_isolations)
    def begin(self, writer: int, isolation: str) -> None:
        """A transaction that others go on beside."""
        self._order(writer, f"begins {isolation}", lambda: self.writers[writer].begin(isolation))

    @rule(writer=_writers)
    def savepoint(self, writer: int) -> None:
        """A block inside a block."""
        self._order(writer, "sets a savepoint", self.writers[writer].savepoint)

    @rule(writer=_writers, undo=st.booleans())
    def release(self, writer: int, undo: bool) -> None:
        """The end of an inner block."""
        text = "rolls back to its savepoint" if undo else "releases its savepoint"
        self._order(writer, text, lambda: self.writers[writer].release(undo))

    @rule(writer=_writers, undo=st.sampled_from([False, False, True]))
    def finish(self, writer: int, undo: bool) -> None:
        """The end of a transaction."""
        text = "rolls back" if undo else "commits"
        self._order(writer, text, lambda: self.writers[writer].finish(undo))

    @rule(long=st.sampled_from([False, False, True]))
    def rest(self, long: bool) -> None:
        """Whatever has committed is told, also while transactions are open."""
        if not long or self.faults.last:
            return
        self.story.append(Step("rest", ""))
        self._settle()

    @precondition(lambda self: self.broken < self.most_faults)
    @rule(kind=_faults)
    def fail(self, kind: str) -> None:
        """Something breaks, whoever is in the middle of what."""
        if kind == "none" or (kind in SLOW and not self.slow) or self.faults.last:
            return
        self.broken += 1
        step = Step(kind)
        self.story.append(step)
        try:
            step.outcome = self.faults.do(kind)
        except LookupError as error:
            step.outcome = str(error)
        else:
            self.tally.add("faults", kind)

    @rule()
    def mend(self) -> None:
        """What was stopped goes on."""
        if self.faults.last:
            self.story.append(Step("all goes on", ""))
            self.faults.mend()

    @rule(visits=st.lists(_visits, min_size=1, max_size=5))
    def come(self, visits: list[Visit]) -> None:
        """Other clients come, whatever goes on."""
        self.story += [Step(f"a client comes: {visit}", "") for visit in visits]
        self.visitors.come(visits)

    @rule(number=st.integers(1, 8))
    def vanish(self, number: int) -> None:
        """Others vanish, whatever goes on."""
        self.story.append(Step(f"{number} clients vanish, if so many are there", ""))
        self.visitors.vanish(number)

    @rule(cut=st.booleans())
    def leave(self, cut: bool) -> None:
        """The client sleeps, or its connection ends."""
        self.story.append(Step("the client's connection is cut" if cut else "the client sleeps", ""))
        self.tally.add("absences", "whose connection was cut" if cut else "that slept")
        if cut:
            self.replica.cut()
        else:
            self.replica.sleep()

    @rule()
    def wake(self) -> None:
        """The client goes on."""
        self.story.append(Step("the client is awake", ""))
        self.replica.wake()

    # What must hold.

    def teardown(self) -> None:
        """End all transactions, and compare."""
        try:
            self.faults.mend()
            for number, writer in enumerate(self.writers):
                self._order(number, "commits", lambda writer=writer: writer.finish(False))
            for writer in self.writers:
                writer.wait()
            self._settle()
            self._fence()
            self._settle()
        finally:
            self.faults.mend()
            self.visitors.close()
            self.replica.close()

    def _differences(self) -> list[str]:
        found = []
        for name, query in QUERIES.items():
            there, here = self.world.load(query, patient=False), self.replica.rows(name)
            found += [
                f"{name}, row {key}: the database has {there.get(key)}, the client has {here.get(key)}"
                for key in sorted(there.keys() | here.keys())
                if there.get(key) != here.get(key)
            ]
        return found

    def _settle(self) -> None:
        """Wait until the copies are right, and write nothing meanwhile: it must not need a later change."""
        self.replica.wake()
        try:
            differences = self._wait_until_right(self.patience)
        except psycopg.errors.LockNotAvailable:
            return  # somebody has TRUNCATEd and not committed yet
        if differences:
            self._fence(wait=False)
            healed = not self._wait_until_right(10.0)
            self.tally.add("mismatches", "told only after a later change" if healed else "never told")
            raise AssertionError(self._explain(differences, healed))
        self.tally.add("comparisons", "equal")

    def _wait_until_right(self, timeout: float) -> list[str]:
        deadline = time.monotonic() + timeout
        while True:
            differences = self._differences()
            for name, client in (("the client", self.replica), ("another client", self.visitors)):
                if client.error:
                    return [f"{name}: {client.error}"]
            if not differences or time.monotonic() > deadline:
                return differences
            time.sleep(0.01)

    def _fence(self, wait: bool = True) -> None:
        """Write a row for each group, and wait until it is there: what was on its way has then arrived."""
        keys = {lane: next(_FENCES) for lane in LANES}
        own = next(_OWN_FENCES)
        for lane, key in [*keys.items(), (LANES[0], own)]:
            insert = "INSERT INTO testapp_task (id, title, status, points, body) VALUES (%s, %s, %s, 0, '')"
            self.world.ask(insert, key, f"fence {key}", lane)
        project = next(_FENCES)
        self.world.ask("INSERT INTO testapp_project (id, name) VALUES (%s, 'fence')", project)
        expected = {name: key for lane, key in keys.items() for name in ("all_tasks", "labelled", f"lane {lane}")}
        expected |= {"all_projects": project, f"own {STEADY}": own}
        deadline = time.monotonic() + self.patience
        while wait and not all(key in self.replica.rows(name) for name, key in expected.items()):
            if time.monotonic() > deadline:
                self.tally.add("mismatches", "a fence was not told")
                raise AssertionError(self._explain([f"fences {expected}"], healed=False))
            time.sleep(0.005)

    def _explain(self, differences: list[str], healed: bool) -> str:
        head = "only a later change brought it" if healed else "it does not come"
        text = "\n".join([f"After {self.patience} s: {head}.", *differences, "The story:", *map(str, self.story)])
        print(text, flush=True)
        return text
