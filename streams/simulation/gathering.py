"""The gatherer in the simulation: it answers rollbacks' questions by the product's own index, when the table has come far enough.

Which questions were answered is remembered, and sometimes forgotten: then they are answered again, from what is known by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from reconciler.contracts.model import ContractSet
from reconciler.machines.dossier import dossier_of
from reconciler.machines.head import Head
from reconciler.plan.index import ActionIndex, is_told_later
from reconciler.records import Action, Gathered, GatherQuery, operation_of
from reconciler.values.instant import SECOND
from reconciler.wire.codec import Codec
from reconciler.wire.partition import partition_of
from reconciler.wire.topics import TopicNames
from streams.simulation.broker import Broker
from streams.simulation.chance import Chance, Faults
from streams.simulation.schedule import Schedule
from streams.simulation.trace import Trace
from streams.simulation.workers import Owner
from streams.store.producer import Outgoing

_PART: Final = 2
"""Dossiers in one part of an answer: few, so that answers have parts."""

_WAIT_S: Final = 2
_ALL: Final = 1_000_000


class _Standing(NamedTuple):
    query: GatherQuery
    complete_up_to: int


class _Seat:
    """One partition, as long as it has the same owner."""

    def __init__(self, owner: Owner, contracts: ContractSet) -> None:
        self.owner = owner
        self.index = ActionIndex(contracts)
        self.actions: list[tuple[int, Action]] = []
        self.indexed = 0
        self.asked = 0
        self.open: list[tuple[str, GatherQuery]] = []
        self.is_planned = False


class Gatherer:
    """Serves all partitions of resources, each while somebody owns it."""

    def __init__(
        self,
        *,
        schedule: Schedule,
        faults: Faults,
        trace: Trace,
        broker: Broker,
        codec: Codec,
        topics: TopicNames,
        contracts: ContractSet,
        seed: int,
    ) -> None:
        self._schedule = schedule
        self._faults = faults
        self._trace = trace
        self._broker = broker
        self._codec = codec
        self._topics = topics
        self._contracts = contracts
        self._chance = Chance(seed, "gatherer")
        self._seats: dict[int, _Seat] = {}
        self._answered: dict[tuple[int, str], int] = {}
        self._told: set[tuple[int, str, int]] = set()
        self._standing: dict[int, dict[str, _Standing]] = {}
        broker.listen(topics.gather_queries, self._plan)
        broker.listen(topics.actions, self._plan)

    def on_moved(self, owner: Owner) -> None:
        """A partition has a new owner, in whose process a new gatherer runs."""
        if owner.lane.pipeline.name == "resources":
            self._seats[owner.partition] = _Seat(owner, self._contracts)
            if self._faults.strike("gatherer-forgets") is not None:
                self._trace.add("gatherer", "knows no more what it has answered in partition {}", owner.partition)
                self._answered = {place: mark for place, mark in self._answered.items() if place[0] != owner.partition}
            self._plan(owner.partition)

    def _plan(self, partition: int) -> None:
        seat = self._seats.get(partition)
        if seat is not None and not seat.is_planned:
            seat.is_planned = True
            self._schedule.after(self._chance.duration(0.01, 0.5), lambda: self._serve(seat))

    def _serve(self, seat: _Seat) -> None:
        seat.is_planned = False
        if seat.owner.is_over:
            return
        partition = seat.owner.partition
        self._read(seat, partition)
        if not seat.open and not self._standing.get(partition):
            return
        if seat.owner.is_busy or seat.owner.consumed(self._topics.actions) < seat.indexed:
            self._schedule.after(_WAIT_S * SECOND, lambda: self._plan(partition))
            return
        for name, query in seat.open:
            self._answer(seat, name, query)
        seat.open = []
        self._tell_late(seat)

    def _read(self, seat: _Seat, partition: int) -> None:
        """Reads the questions first, so that no action goes by a standing one unseen."""
        log = self._broker.log(self._topics.gather_queries, partition)
        for record in log.read(seat.asked, _ALL):
            query = self._codec.decode(record.value)
            assert isinstance(query, GatherQuery)
            name = f"{query.rollback_id}/{query.round}"
            if (partition, name) not in self._answered:
                seat.open.append((name, query))
        seat.asked = log.end
        ledger = self._broker.log(self._topics.actions, partition)
        for record in ledger.read(seat.indexed, _ALL):
            action = self._codec.decode(record.value)
            assert isinstance(action, Action)
            if partition_of(record.key or b"", self._broker.partitions) == partition:
                seat.index.take(action, record.offset)
                seat.actions.append((record.offset, action))
        seat.indexed = ledger.end

    def _answer(self, seat: _Seat, name: str, query: GatherQuery) -> None:
        found = seat.index.matches(query)
        if query.standing:
            standing = self._standing.setdefault(query.partition, {})
            known = standing.get(name)
            standing[name] = _Standing(query, seat.indexed if known is None else known.complete_up_to)
        self._answered[query.partition, name] = seat.indexed
        self._trace.add("gatherer", "answers {} in partition {}: {}", name, query.partition, found.operations)
        self._tell(seat, query, found.operations, found.resources, is_late=False)

    def _tell_late(self, seat: _Seat) -> None:
        partition = seat.owner.partition
        for name, (query, complete_up_to) in self._standing.get(partition, {}).items():
            for offset, action in seat.actions:
                place = (partition, name, offset)
                if offset >= complete_up_to and place not in self._told and is_told_later(query, action):
                    self._told.add(place)
                    self._trace.add("gatherer", "tells {} of the late {}", query.rollback_id, action.action_id)
                    self._tell(seat, query, [operation_of(action)], [action.resource], is_late=True)

    def _tell(
        self, seat: _Seat, query: GatherQuery, operations: Sequence[str], resources: Sequence[str], *, is_late: bool
    ) -> None:
        dossiers = []
        for resource in resources:
            head = seat.owner.table.peek(resource.encode())
            if isinstance(head, Head):
                history = seat.owner.table.history.of(resource.encode())
                offsets = seat.index.offsets_of(resource)
                dossiers.append(dossier_of(head, history, query.partition, offsets))
        pieces = [dossiers[start : start + _PART] for start in range(0, len(dossiers), _PART)] or [[]]
        for part, piece in enumerate(pieces, 1):
            answer = Gathered(
                rollback_id=query.rollback_id,
                round=query.round,
                partition=query.partition,
                part=part,
                parts=len(pieces),
                complete_up_to=seat.indexed,
                matched=list(operations) if part == 1 else [],
                dossiers=piece,
                is_late=is_late,
                occurred_at=self._schedule.now,
            )
            value = self._codec.encode(self._topics.gathered, answer)
            self._broker.send("gatherer", Outgoing(self._topics.gathered, query.rollback_id.encode(), value))
