"""Kafka in a dict: logs with offsets, transactions that show whole or never, a fence, and a network that delays and doubles.

The order of a partition is the order of its appends, as on a real broker. What a producer sends reaches the broker late, out
of order between keys and topics, twice, or after a first try that was lost; for one key of one producer the order stays.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

import msgspec

from reconciler.wire.partition import partition_of
from streams.simulation.chance import MILLISECOND, Chance, Faults
from streams.simulation.schedule import Schedule
from streams.simulation.trace import Trace
from streams.store.producer import ANY_PARTITION, Fenced, Outgoing

NETWORK_S = (0.001, 0.02)
"""How long a record travels when nothing is wrong."""


class Stored(msgspec.Struct, frozen=True):
    """A record as the broker keeps it: it can be handed on as it is, to the runner as a raw record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]

    def header(self, name: str) -> str | None:
        """The text of a header."""
        return next((value.decode() for found, value in self.headers if found == name and value is not None), None)


class Log:
    """One partition of one topic. Offsets have holes where transactions ended, or came to nothing."""

    def __init__(self) -> None:
        self.records: list[Stored] = []
        self._offsets: list[int] = []
        self.end = 0

    def append(
        self, key: bytes | None, value: bytes | None, timestamp: int, headers: Sequence[tuple[str, bytes]]
    ) -> int:
        """Appends, and gives the offset."""
        offset = self.end
        self.records.append(Stored(offset, timestamp, key, value, list(headers)))
        self._offsets.append(offset)
        self.end += 1
        return offset

    def skip(self, count: int) -> None:
        """Offsets that no reader sees a record at."""
        self.end += count

    def read(self, start: int, most: int) -> list[Stored]:
        """Records from an offset on."""
        at = bisect_left(self._offsets, start)
        return self.records[at : at + most]


class Broker:
    """All logs, the offsets that groups have committed, and who may write as which transactional producer."""

    def __init__(self, schedule: Schedule, faults: Faults, trace: Trace, seed: int, partitions: int) -> None:
        self.partitions = partitions
        self._schedule = schedule
        self._faults = faults
        self._trace = trace
        self._chance = Chance(seed, "network")
        self._logs: dict[tuple[str, int], Log] = {}
        self._listeners: dict[str, list[Callable[[int], object]]] = {}
        self._busy_until: dict[tuple[str, str, bytes | None], int] = {}
        self._claims: dict[str, int] = {}
        self.on_the_way = 0
        """How many records were sent and haven't arrived."""

    def log(self, topic: str, partition: int) -> Log:
        """A log, new where nothing was written."""
        found = self._logs.get((topic, partition))
        if found is None:
            found = self._logs[topic, partition] = Log()
        return found

    def records(self, topic: str) -> Iterator[tuple[int, Stored]]:
        """(partition, record) of all that readers see of a topic."""
        for partition in range(self.partitions):
            for record in self.log(topic, partition).records:
                yield partition, record

    def listen(self, topic: str, call: Callable[[int], object]) -> None:
        """Has somebody told of the partition whenever something was appended to a topic."""
        self._listeners.setdefault(topic, []).append(call)

    def append(self, outgoing: Outgoing) -> tuple[int, int]:
        """Appends at once: (partition, offset)."""
        topic, key, value, partition, headers, timestamp = outgoing
        if partition == ANY_PARTITION:
            partition = partition_of(key or b"", self.partitions)
        timestamp = timestamp or self._schedule.now // MILLISECOND
        offset = self.log(topic, partition).append(key, value, timestamp, headers)
        for call in self._listeners.get(topic, ()):
            call(partition)
        return partition, offset

    # -- from afar

    def send(self, who: str, outgoing: Outgoing) -> None:
        """Sends by way of the network: at-least-once, in order for one key of one producer. Its timestamp is now."""
        if not outgoing.timestamp_ms:
            outgoing = outgoing._replace(timestamp_ms=self._schedule.now // MILLISECOND)
        delay = self._chance.duration(*NETWORK_S)
        if (chance := self._faults.strike("delayed")) is not None:
            delay += chance.duration(0.5, 90)
            self._trace.add("network", "delays a record of {} for {} by {:.1f} s", who, _key(outgoing), delay / 1e6)
        if (chance := self._faults.strike("lost")) is not None:
            delay += chance.duration(1, 120)
            self._trace.add("network", "loses a record of {} for {}: sent again", who, _key(outgoing))
        lane = (who, outgoing.topic, outgoing.key)
        arrival = max(self._schedule.now + delay, self._busy_until.get(lane, 0))
        self._busy_until[lane] = arrival
        if (chance := self._faults.strike("misplaced")) is not None:
            wrong = chance.below(self.partitions)
            self._trace.add("network", "puts a record of {} for {} into partition {}", who, _key(outgoing), wrong)
            outgoing = outgoing._replace(partition=wrong)
        self._arrive(arrival, outgoing)
        if (chance := self._faults.strike("doubled")) is not None:
            again = arrival + chance.duration(0, 600)
            self._trace.add("network", "doubles a record of {} for {}", who, _key(outgoing))
            self._arrive(again, outgoing)

    def _arrive(self, instant: int, outgoing: Outgoing) -> None:
        def arrived() -> None:
            self.on_the_way -= 1
            self.append(outgoing)

        self.on_the_way += 1
        self._schedule.at(instant, arrived)

    # -- transactions

    def claim(self, transactional_id: str) -> int:
        """Puts the fence before all earlier owners of a transactional id."""
        self._claims[transactional_id] = self._claims.get(transactional_id, 0) + 1
        return self._claims[transactional_id]

    def check_claim(self, transactional_id: str, claim: int) -> None:
        """Raises Fenced for a claim that was overtaken."""
        if self._claims.get(transactional_id) != claim:
            raise Fenced("another worker has taken over")

    def abort(self, records: Sequence[Outgoing]) -> None:
        """A transaction that came to nothing: its records take offsets, and nobody sees them."""
        for outgoing in records:
            partition = outgoing.partition
            if partition == ANY_PARTITION:
                partition = partition_of(outgoing.key or b"", self.partitions)
            self.log(outgoing.topic, partition).skip(1)

    def digest(self) -> str:
        """A digest of all that readers see."""
        digest = blake2b(digest_size=16)
        for (topic, partition), log in sorted(self._logs.items()):
            for record in log.records:
                digest.update(msgspec.msgpack.encode((topic, partition, record)))
        return digest.hexdigest()


def _key(outgoing: Outgoing) -> str:
    return f"{(outgoing.key or b'').decode(errors='replace')} on {outgoing.topic}"
