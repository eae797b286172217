"""The page of the documentation that says what a long run did."""

import platform
from importlib.metadata import version
from string import Template

from tests.oracle.tally import Tally
from tests.oracle.visitors import MOST
from tests.oracle.world import SETTINGS, World

_PACKAGES = ("Django", "channels", "channels_redis", "djangochannelsrestframework", "asyncpg", "psycopg", "hypothesis")

#: What breaks, is in the way, or is lost: headings of the tally.
_FAULTS = ("faults", "visits", "messages dropped")

_PAGE = Template("""\
# The oracle

Tests of single cases show that foreseen cases work. The oracle looks for the rest:
[Hypothesis](https://hypothesis.readthedocs.io/) draws what happens, and the database itself says what is right.

## What it does

Three writers, each with a connection of its own, follow the drawn steps: write through the ORM, in bulk, in raw SQL,
to join tables; begin a transaction and leave it open while others go on, set savepoints, roll back to them or
altogether. They write to the same ten rows, so they wait for each other's locks, run into each other's keys, and
fail. In between, something breaks: the leader's session, its process, its network, the server, Redis, the clients'
process.

A client that is subscribed over a WebSocket folds the events into a copy: all rows of a table; the rows of each of
three groups, which rows enter and leave; those of a group of its own; the labels of each row, from the join table;
the parents; the names of each row's parent and labels; and each parent's rows with the names of their labels. These
last are bodies that show other rows, and must equal a fresh serialization. It knows nothing else. It loads each list
with a [cursor](../how-to/resume.md) and subscribes behind it. Now and then it sleeps, and its connection is cut; with
channels_redis's `core`, consumers end when Redis is gone too. Then it connects, and subscribes behind the last event
that it has. A *resync* makes it reload a list. There is none but for a `TRUNCATE` and for rows that cannot be read:
whatever layers drop, and whatever an inbox has no room for, comes from the log.

Other clients come and vanish beside it, in the same process, $most at a time at most. They subscribe to everything, or
to a group of their own. Some read slowly and some nothing, until their sockets are full, and then their inboxes, which
hold $inbox events here. They too get no other resync. None of them sends a close frame: they reset the connection or
just end it, and some do so while they subscribe.

The channel layer loses messages. `core` has a capacity of $capacity (its default is 100), and receives more than that
while the process of the clients is stopped. The *lossy* layers drop $share % of all messages to groups, heartbeats
included, and the leader does not notice. The seeds take turns between the layers.

At rest, each copy must equal a fresh SELECT, exactly.

- It must do so although nobody writes any more: a listener that missed its ring is not woken by a later one. The
  safety poll is off.
- It must do so while transactions of others are still open.
- Then a row is written to each group. When its event has come, whatever was on its way has come too, and the
  copies must be equal still.

Windows are read in pieces of $batch changes and sent in messages of $envelope events, so that a small run has the ways
of a large one.

## What came of it

$result

| | |
|---|---|
$figures

| Faults | |
|---|---|
$faults

| Operations | |
|---|---|
$operations

Of the operations, $failures failed, as they would in a program: $failed.
Events that came again were sent by a leader before it ended, and by its successor.

## What it finds

An oracle that never fails says nothing, so faults were built into djcrf_pg. It found windows that forget the
transactions that were in progress, resyncs that are not sent, a leader that begins at the present instead of at the
saved cursor, consumers that neither watch the channel layer nor count its messages while Redis comes and goes, and
bodies that miss changes of related rows: of those that come and go, or of those that change.

What holds twice, it does not find: with the watch on the channel layer taken out, or with messages dropped that Redis
did not take, the numbers of the messages still show it, and the other way round. In a minute or so each it did *not*
find a cursor that is saved before the sends, resyncs that overtake rows, nor a doorbell that does not wait for
writers that read "awake" (that one only in a special run): the window in which these do harm is narrow, and others
have tests of their own, or [a model checker](doorbell.md#checked-by-a-model-checker).

It did find faults that nobody had foreseen. A leader that was stopped in the middle of sending a question looked
busy, and no standby took over. And a leader that was behind sent old events to clients that had just loaded newer
rows after a loss; when a lossy layer dropped the last of them, the clients kept an old row. And the process first
replayed what was lost as its net effect: a client that had loaded its list meanwhile did not learn of a group that a
row had entered and left.

## Run it

The tests run a short one with a fixed and a random seed. `make oracle ARGS="--minutes 60 --slow"` is a long one;
`--report docs/explanation/oracle.md` writes this page. When the copies differ, it prints what differs and all steps
since the tables were empty; `--seed` repeats a run, as far as threads and processes repeat themselves, and `--shrink`
looks for a shorter one.
""")


def page(tally: Tally, seconds: float, world: World) -> str:
    """Write the page.

    Args:
        tally: What the run did.
        seconds: How long it took.
        world: What it ran in.
    """
    mismatches = tally.of("mismatches").total()
    transactions = tally.of("transactions")
    ended, others = tally.of("connections that ended"), tally.of("resyncs of others")
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    figures = {
        "duration": f"{seconds / 60:.0f} min",
        "seeds": tally.of("seeds").total(),
        **{f"… with the layer `{layer}`": count for layer, count in tally.of("seeds").items()},
        "runs, each from empty tables": tally.of("runs").total(),
        "operations": tally.of("operations").total(),
        "transactions of several operations, committed": transactions["committed"],
        "… rolled back": transactions["rolled back"],
        "savepoints": transactions["savepoints"],
        "… rolled back to": transactions["savepoints rolled back"],
        "faults": tally.of("faults").total(),
        "clients that came and vanished": tally.of("visits").total(),
        "messages that a layer dropped": tally.of("messages dropped").total(),
        "events": tally.of("events").total(),
        "… that came again": tally.of("events that came again").total(),
        "times that the client slept, or its connection was cut": tally.of("absences").total(),
        **{f"subscriptions {what}": count for what, count in tally.of("subscriptions").most_common()},
        "resyncs": tally.of("resyncs").total(),
        **{f"… with the reason `{reason}`": count for reason, count in tally.of("resyncs").most_common()},
        "connections of the client that ended": ended["of the client"],
        "events of the clients that vanished": tally.of("events of others").total(),
        "resyncs of theirs": others.total(),
        **{f"… with the reason `{reason}` for them": count for reason, count in others.most_common()},
        "connections of theirs that ended before": ended["of others"],
        "comparisons of all copies": tally.of("comparisons").total() + mismatches,
        "**mismatches**": f"**{mismatches}**",
        "versions": f"PostgreSQL {world.version}, Python {platform.python_version()}, {versions}",
    }
    result = "The run below found no mismatch." if not mismatches else "The run below found a mismatch."
    kinds = tally.of("failures of operations")
    return _PAGE.substitute(
        batch=SETTINGS["BATCH_SIZE"],
        envelope=SETTINGS["ENVELOPE_EVENTS"],
        result=result,
        figures=_rows(figures),
        most=MOST,
        inbox=SETTINGS["INBOX_EVENTS"],
        capacity=world.capacity,
        share=f"{world.share * 100:g}",
        faults=_rows({what: n for kind in _FAULTS for what, n in tally.of(kind).most_common()}),
        operations=_rows(dict(sorted(tally.of("operations").items()))),
        failures=f"{kinds.total():,}",
        failed=", ".join(f"`{name}` {count:,}" for name, count in kinds.most_common(8)),
    )


def _rows(cells: "dict[str, int] | dict[str, int | str]") -> str:
    return "\n".join(
        f"| {name} | {count if isinstance(count, str) else f'{count:,}'} |" for name, count in cells.items()
    )
