"""The gatherer as a service of the worker: takes questions from its thread, and answers them from the table.

A question is answered in three steps: the ledger is indexed up to where it ended when the question was seen; the index says
which resources are meant; and once the table has folded as far, their dossiers are read and sent. A resource that was never
seen at its target can't be planned for, and what was seen before its last write would be planned for wrongly: the answer
waits for the sampler's look at such resources, until after it was due nothing more comes in. What is sent may be sent again
after a crash: whoever asked knows an answer by its question, partition and part.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from reconciler.contracts.model import ContractSet
from reconciler.machines.dossier import dossier_of
from reconciler.machines.head import Head
from reconciler.machines.resource import sampling_needs
from reconciler.records import Alert, Dossier, Gathered
from reconciler.values.instant import SECOND, Instant
from reconciler.wire.codec import Codec
from reconciler.wire.errors import EncodedTooLargeError
from reconciler.wire.topics import TopicNames
from streams.gatherer.answering import Offsets, dossiers_of, parts_of
from streams.gatherer.feed import LedgerFeed
from streams.gatherer.metrics import GathererMetrics
from streams.gatherer.reader import LateTold, LedgerReader, Match, Polled, Question
from streams.transport.chunk import Chunk
from streams.worker_services import DeliveryFailed, PartitionNotOwned, WorkerContext

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.2
_QUIET_SHARE: Final = 0.1
_ASKED_SHARE: Final = 0.5
"""How much of its time the gatherer's thread may be busy: while nobody waits for it, which is enough for some ten thousand actions
a second, and while somebody does. The interpreter's lock belongs to folding first."""
_MOST_WAITING: Final = 50
_PAUSE_S: Final = 1.0
_UNSEEN_SLICE: Final = 200
UNSEEN_QUIET_S: Final = 10.0
_UNSEEN_LONGEST_S: Final = 300.0

R = TypeVar("R")


class _Waiting:
    """A question on its way to its answer."""

    __slots__ = ("end", "match", "question", "seen_at", "unseen", "unseen_since")

    def __init__(self, question: Question) -> None:
        self.question = question
        self.end: int | None = None
        """Where the ledger ended when it was seen."""
        self.match: Match | None = None
        self.unseen: list[str] | None = None
        """Resources of which an observation is still to come in."""
        self.unseen_since = 0.0
        self.seen_at = 0.0


class Gatherer:
    """Implements `WorkerService`."""

    name = "gatherer"

    def __init__(
        self,
        *,
        topics: TopicNames,
        codec: Codec,
        contracts: ContractSet,
        unseen_quiet_s: float = UNSEEN_QUIET_S,
        feed: LedgerFeed | None = None,
    ) -> None:
        """`unseen_quiet_s`: for how long after they were due no observation may come in before an answer no longer waits for
        more; 0: observations aren't waited for."""
        self._topics = topics
        self._codec = codec
        self._contracts = contracts
        self.unseen_quiet_s = unseen_quiet_s
        self.metrics = GathererMetrics()
        self._feed = feed or LedgerFeed()

    def on_assigned(self, partitions: frozenset[int]) -> None:
        """Nothing to do: each turn looks for itself."""

    def on_revoked(self, partitions: frozenset[int]) -> None:
        """What was folded is of no use any more; what else is read of what isn't ours raises."""
        self._feed.forget(partitions)

    def on_touched(self, partition: int, states: Mapping[str, object]) -> None:
        """Nothing to do: states are read when they are asked about."""

    def on_folded(self, chunk: Chunk, folded: Sequence[bool]) -> None:
        """What was folded of the ledger need not be read again."""
        if chunk.topic == self._topics.actions:
            self._feed.put(chunk, folded)

    async def run(self, context: WorkerContext) -> None:
        """Answers until it is cancelled."""
        self.metrics.serve_with(context.registry)
        with ThreadPoolExecutor(1, "gatherer") as thread:
            loop = asyncio.get_running_loop()
            reader = await loop.run_in_executor(
                thread, LedgerReader, context.settings, self._topics, self._codec, self._contracts, self._feed
            )
            try:
                await _Run(self, context, reader, thread).forever()
            finally:
                await loop.run_in_executor(thread, reader.close)

    # What a run needs of the service.

    def dossier(self, context: WorkerContext, partition: int, resource: str, offsets: dict[str, int]) -> Dossier | None:
        """What the table has on a resource. Raises PartitionNotOwned."""
        head = context.head(partition, resource)
        if head is None:
            return None
        assert isinstance(head, Head)
        return dossier_of(head, context.history(partition, resource), partition, offsets)

    def look_due_at(self, context: WorkerContext, partition: int, resource: str) -> Instant | None:
        """When the look at a resource that is to be observed, and wasn't since its last write, is due; None where none is
        waited for. Raises PartitionNotOwned."""
        head = context.head(partition, resource)
        if head is None:
            return None
        assert isinstance(head, Head)
        if head.unknown is not None or not sampling_needs(head, self._contracts).watched:
            return None
        written_at = head.last_write_at or 0
        if head.observed_at is not None and head.observed_at >= written_at:
            return None
        return written_at + round(self._contracts.for_resource(resource).timing.settle_s * SECOND)

    async def publish(self, context: WorkerContext, answer: Gathered, traceparent: bytes | None) -> None:
        """Sends a part of an answer. Raises DeliveryFailed, EncodedTooLargeError."""
        value = self._codec.encode(self._topics.gathered, answer)
        headers = () if traceparent is None else (("traceparent", traceparent),)
        await context.publish(self._topics.gathered, answer.rollback_id, value, headers)
        self.metrics.dossiers.inc(len(answer.dossiers))

    async def refuse(self, context: WorkerContext, question: Question, error: EncodedTooLargeError) -> None:
        """Tells people that a question can't be answered. The rollback halts for want of the answer, and says so."""
        logger.error("the question %s can't be answered: %s", question.name, error)
        self.metrics.refused.inc()
        alert = Alert(
            alert_id=f"unanswerable/{question.name}/{question.partition}",
            subject=question.query.rollback_id,
            kind="rollback_unanswerable",
            message=f"What partition {question.partition} knows for the rollback {question.query.rollback_id} doesn't fit into "
            f"a message ({error.message}): the history of one resource is too large. Undo less of it at once.",
            occurred_at=_now(),
            severity="critical",
        )
        await context.publish(self._topics.alerts, alert.subject, self._codec.encode(self._topics.alerts, alert))

    @property
    def ledger(self) -> str:
        """The topic of the actions."""
        return self._topics.actions


class _Run:
    """One run of the service."""

    def __init__(
        self, service: Gatherer, context: WorkerContext, reader: LedgerReader, thread: ThreadPoolExecutor
    ) -> None:
        self._service = service
        self._context = context
        self._reader = reader
        self._thread = thread
        self._waiting: list[_Waiting] = []

    async def forever(self) -> None:
        while True:
            try:
                await self._turn()
            except DeliveryFailed as error:
                logger.warning("an answer was not taken, and is sent again: %s", error)
                await asyncio.sleep(_PAUSE_S)

    def _in_thread(self, action: Callable[[], R]) -> Awaitable[R]:
        return asyncio.get_running_loop().run_in_executor(self._thread, action)

    async def _turn(self) -> None:
        owned = self._context.partitions
        self._waiting = [item for item in self._waiting if item.question.partition in owned]
        has_room = len(self._waiting) < _MOST_WAITING

        asked = frozenset(item.question.partition for item in self._waiting if item.match is None)

        def read() -> Polled:
            self._reader.follow(owned)
            return self._reader.poll(_POLL_S, with_questions=has_room, asked=asked)

        polled = await self._in_thread(read)
        self._waiting += [_Waiting(question) for question in polled.questions]
        self._service.metrics.count(polled.busy_s, polled.fed, polled.read, polled.reading)
        self._service.metrics.waiting.set(len(self._waiting))
        await self._answer()
        for partition in sorted(self._reader.with_late):
            await self._tell_late(partition)
        share = _ASKED_SHARE if self._waiting else _QUIET_SHARE
        await asyncio.sleep(polled.busy_s * (1 / share - 1))

    # -- questions

    async def _answer(self) -> None:
        new = [item for item in self._waiting if item.end is None]
        if new:
            ends = await self._in_thread(lambda: self._reader.ends({item.question.partition for item in new}))
            for item in new:
                item.end = ends.get(item.question.partition)
        for item in list(self._waiting):
            try:
                if await self._is_answered(item):
                    self._waiting.remove(item)
                    self._service.metrics.answers.inc()
            except PartitionNotOwned:
                self._waiting.remove(item)  # the next owner answers

    async def _is_answered(self, item: _Waiting) -> bool:
        """Goes on with a question as far as is possible now."""
        question = item.question
        position = self._reader.position(question.partition)
        if item.end is None or position is None or position.read < item.end:
            return False
        if item.match is None:
            item.match = await self._in_thread(lambda: self._reader.match(question))
        match = item.match
        if self._context.consumed(question.partition, self._service.ledger) < match.needs:
            return False
        if not await self._is_seen(item, match):
            return False
        try:
            await self._send(question, match)
        except EncodedTooLargeError as error:
            await self._service.refuse(self._context, question, error)
        await self._in_thread(lambda: self._reader.settle(question, match.complete_up_to))
        return True

    async def _is_seen(self, item: _Waiting, match: Match) -> bool:
        """Whether all resources were observed since they were written, or waiting for more observations is idle."""
        if not self._service.unseen_quiet_s:
            return True
        now, clock = time.monotonic(), _now()
        if item.unseen is None:
            item.unseen, item.unseen_since, item.seen_at = list(match.resources), now, now
        before, left = len(item.unseen), []
        for number, resource in enumerate(item.unseen, 1):
            due_at = self._service.look_due_at(self._context, item.question.partition, resource)
            if due_at is not None:
                left.append(resource)
                if due_at > clock:
                    item.seen_at = now  # nothing can have come yet
            if number % _UNSEEN_SLICE == 0:
                await asyncio.sleep(0)
        item.unseen = left
        if len(left) < before:
            item.seen_at = now
        is_quiet = now - item.seen_at >= self._service.unseen_quiet_s
        return not left or is_quiet or now - item.unseen_since > _UNSEEN_LONGEST_S

    async def _send(self, question: Question, match: Match) -> None:
        partition, query = question.partition, question.query

        async def offsets_of(resources: Sequence[str]) -> Offsets:
            return await self._in_thread(lambda: self._reader.offsets(partition, resources))

        def dossier(resource: str, offsets: dict[str, int]) -> Dossier | None:
            return self._service.dossier(self._context, partition, resource, offsets)

        parts = await parts_of(match.operations, match.resources, offsets_of, dossier)
        for number, part in enumerate(parts, 1):
            answer = Gathered(
                rollback_id=query.rollback_id,
                round=query.round,
                partition=partition,
                part=number,
                parts=len(parts),
                complete_up_to=match.complete_up_to,
                matched=part.matched,
                dossiers=await dossiers_of(part, offsets_of, dossier),
                occurred_at=_now(),
            )
            await self._service.publish(self._context, answer, question.traceparent)

    # -- what comes later

    async def _tell_late(self, partition: int) -> None:
        """Tells what came after the answers to standing questions, as far as the table has it."""
        waiting = {item.question.name for item in self._waiting if item.question.partition == partition}
        try:
            consumed = self._context.consumed(partition, self._service.ledger)
            found = await self._in_thread(lambda: self._reader.late(partition))
            ready = [it for it in found if it.item.offset < consumed and it.item.question not in waiting]
            for told in ready:
                await self._tell(partition, told)
        except PartitionNotOwned:
            return
        if ready:
            await self._in_thread(lambda: self._reader.late_was_told(partition, [it.item for it in ready]))
            self._service.metrics.late.inc(len(ready))

    async def _tell(self, partition: int, told: LateTold) -> None:
        offsets = await self._in_thread(lambda: self._reader.offsets(partition, [told.item.resource]))
        dossier = self._service.dossier(self._context, partition, told.item.resource, offsets[told.item.resource])
        answer = Gathered(
            rollback_id=told.query.rollback_id,
            round=told.query.round,
            partition=partition,
            complete_up_to=told.item.offset + 1,
            matched=[told.item.operation_id],
            dossiers=[] if dossier is None else [dossier],
            is_late=True,
            occurred_at=_now(),
        )
        await self._service.publish(self._context, answer, None)


def _now() -> int:
    return round(time.time() * SECOND)
