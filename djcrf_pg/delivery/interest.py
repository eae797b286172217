"""Which groups somebody has: what a process publishes of its subscriptions, and what the leader makes of it.

Groups and bodies are most of what a change costs, and they cost the same where nobody has subscribed. So each process
publishes, in a table, one of :data:`BITS` bits for each of its lanes, an observer and a group. The leader makes
neither body nor message for a lane whose bit nobody has. Two lanes with the same bit are sent together, which costs a
little and harms nothing.

No event is missed, by the order of five things:

1. The process commits the rows with its bits.
2. It has the version rise, a sequence, by a statement of its own.
3. The subscription takes its snapshot, by a third statement.
4. The leader reads changes and, *in the statement that reads them*, the version.
5. It fetches the rows, if the version is another one than what its rows were fetched for.

A change that the subscription is to receive was committed after 3. What reads it has a snapshot that is later still,
and reads a sequence as it is, whatever its snapshot: so the version of 4 is that of 2 or a later one. Rows that were
fetched for it were fetched after somebody had read it, so after 2, and are committed since 1. ``models/interest.pml``
has this for the model checker, with each order that would be wrong.

A version that nobody's rows belong to (a transaction that was rolled back, a crash of the server, which may skip some)
is one more fetch. What a leader knows belongs to its session and ends with it, so it begins with a fetch, and after a
failover it compares no number with another server's.

Rows outlive the session that wrote them, by a minute at least. A process whose session ended (the server was
restarted, the network was gone) publishes all again under a new number, and looks *then* whether the former rows are
still there. If they are, nothing was missed: at each moment these or those were to be seen. If they are not, a leader
may have left something out, and its subscribers get a resync. That is so after a minute without a session, or where a
failover or a restored backup has lost them.
"""

import zlib
from collections.abc import Iterable, Mapping
from typing import Protocol

from djcrf_pg.delivery.protocol import EVERYBODY

#: Bits of the table, and of a row of it.
BITS, CHUNK = 65_536, 1_024

#: Seconds for which a bit stays that was asked for and is not among those to retain: its subscription is on its way.
_LINGER = 60.0


def bit_of(address: str, group: str) -> int:
    """The bit of a lane.

    Args:
        address: The observer's.
        group: The group, or :data:`~djcrf_pg.delivery.protocol.EVERYBODY`.
    """
    return zlib.crc32(f"{address}\n{group}".encode(errors="surrogatepass")) % BITS


class Published:
    """What a process has published, and what of it there is to write.

    It is alone in writing its rows. A change of them is planned, written, and then noted; what was planned and not
    noted may be there or not, and is planned again.
    """

    def __init__(self) -> None:
        self._chunks: dict[int, int] = {}
        self._doubtful: set[int] = set()  # planned and not noted
        self._asked: dict[int, float] = {}

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def rows(self) -> dict[int, bytes]:
        """All that is published, by chunk."""
        return {chunk: _bytes(value) for chunk, value in self._chunks.items()}

    def add(self, bits: Iterable[int], now: float) -> dict[int, bytes]:
        """Plan to have bits published.

        Args:
            bits: Those that are wanted.
            now: Seconds, by any clock.

        Returns:
            The rows to write, by chunk; none where all are published.
        """
        self._asked.update(dict.fromkeys(bits := set(bits), now))
        return self._plan(
            {
                chunk: value | self._chunks.get(chunk, 0)
                for chunk, value in _chunks(bits).items()
                if value & ~self._chunks.get(chunk, 0)
            }
        )

    def retain(self, bits: Iterable[int], now: float) -> dict[int, bytes]:
        """Plan to have bits published and no others, but for those that were added a short time ago.

        Args:
            bits: Those that are wanted.
            now: Seconds, by the clock of :meth:`add`.

        Returns:
            The rows to write, by chunk; none where nothing changes.
        """
        self._asked = {bit: at for bit, at in self._asked.items() if now - at < _LINGER}
        wanted = _chunks({*bits, *self._asked})
        rows = {
            chunk: wanted.get(chunk, 0)
            for chunk in wanted.keys() | self._chunks.keys() | self._doubtful
            if chunk in self._doubtful or wanted.get(chunk, 0) != self._chunks.get(chunk, 0)
        }
        for chunk, value in rows.items():
            if chunk in self._chunks:
                self._chunks[chunk] &= value  # from now on the others may be gone
        return self._plan(rows)

    def _plan(self, rows: Mapping[int, int]) -> dict[int, bytes]:
        self._doubtful.update(rows)
        return {chunk: _bytes(value) for chunk, value in rows.items()}

    def written(self, rows: Mapping[int, bytes]) -> None:
        """Note that rows were committed, and the version has risen since."""
        self._chunks.update({chunk: int.from_bytes(row) for chunk, row in rows.items()})
        self._doubtful.difference_update(rows)


class Wanted(Protocol):
    """Which events there is somebody for."""

    def has(self, address: str, group: str) -> bool:
        """Whether somebody may have a group of an observer."""

    def hears(self, address: str) -> bool:
        """Whether an observer may have subscribers, of whatever group."""


class Interest:
    """What somebody has, as the leader knows it.

    Args:
        rows: Chunks, with what any process has of them.
    """

    def __init__(self, rows: Mapping[int, bytes]) -> None:
        size = CHUNK // 8
        self._bytes = b"".join(rows.get(chunk, bytes(size)) for chunk in range(BITS // CHUNK))

    def has(self, address: str, group: str) -> bool:
        """Whether somebody may have a lane.

        Args:
            address: The observer's.
            group: The group.
        """
        bit = bit_of(address, group)
        return bool(self._bytes[bit >> 3] & 128 >> (bit & 7))

    def hears(self, address: str) -> bool:
        """Whether an observer may have subscribers, of whatever group.

        Args:
            address: The observer's.
        """
        return self.has(address, EVERYBODY)


#: What is assumed where nobody can say: all have subscribers.
EVERYTHING = Interest(dict.fromkeys(range(BITS // CHUNK), b"\xff" * (CHUNK // 8)))


def _chunks(bits: Iterable[int]) -> dict[int, int]:
    chunks: dict[int, int] = {}
    for bit in bits:
        chunk, place = divmod(bit, CHUNK)
        chunks[chunk] = chunks.get(chunk, 0) | 1 << CHUNK - 1 - place  # as PostgreSQL, the first bit is the highest
    return chunks


def _bytes(value: int) -> bytes:
    return value.to_bytes(CHUNK // 8)
