"""Reading the ledger and the questions of the partitions that are owned: the gatherer's thread.

The ledger comes from the feed, as the table has folded it. It is read from Kafka only where the feed doesn't begin where the
index ends (after a start, a rebalance, where the feed overflowed), and while a question waits for what isn't folded yet.
The questions of a partition are read from their beginning before the first action is, so that no action goes by a standing
question unseen. Which questions were answered already is committed under a consumer group of the gatherer's own.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Final, NamedTuple

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from reconciler.contracts.model import ContractSet
from reconciler.plan.index import Matches, Term, matches, offsets_of
from reconciler.records import GatherQuery
from reconciler.values.errors import InputError
from reconciler.values.traceparent import usable_traceparent
from reconciler.wire.codec import Codec
from reconciler.wire.errors import DecodeError
from reconciler.wire.topics import TopicNames
from streams.gatherer.feed import LedgerFeed
from streams.gatherer.index_store import IndexStore, LateAction, Position
from streams.gatherer.indexing import LedgerIndexer, LedgerRecord
from streams.gatherer.standing import Standing, StandingQuestions
from streams.log_ends import LogEnds
from streams.settings import Settings

logger = logging.getLogger(__name__)

_MOST_RECORDS: Final = 500
_TIMEOUT_S: Final = 10.0
_QUEUED_KBYTES: Final = 16 * 1024
_MOST_LATE: Final = 500
"""Late actions that are looked at in one go."""
MARGIN_MS: Final = 3_600_000
"""By how much clocks may differ where only timestamps say what was later."""


class Question(NamedTuple):
    """A query as it was read."""

    partition: int
    offset: int
    timestamp_ms: int
    query: GatherQuery
    traceparent: bytes | None

    @property
    def name(self) -> str:
        """What it is known by within its partition."""
        return f"{self.query.rollback_id}/{self.query.round}"


class Match(NamedTuple):
    """What the index says to a question."""

    operations: list[str]
    resources: list[str]
    complete_up_to: int
    needs: int
    """Up to where the table must have consumed the ledger before it can tell all of it."""


class LateTold(NamedTuple):
    """A late action, and to which question it is told."""

    item: LateAction
    query: GatherQuery


class Polled(NamedTuple):
    """What came of one poll."""

    questions: list[Question]
    """That weren't answered yet."""
    busy_s: float
    fed: int
    """Actions that were indexed out of the feed."""
    read: int
    """Actions that were indexed as they were read from Kafka."""
    reading: int
    """Partitions whose ledger is read from Kafka now."""


class LedgerReader:
    """To be made and used in one thread."""

    def __init__(
        self, settings: Settings, topics: TopicNames, codec: Codec, contracts: ContractSet, feed: LedgerFeed
    ) -> None:
        self._topics = topics
        self._codec = codec
        self._ends = LogEnds(settings)
        self._consumer = Consumer(
            {
                **settings.client_config(),
                # No group is joined: partitions are assigned by whoever owns them. Only commits are made under this name.
                "group.id": f"{settings.application_id}-gatherer",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "queued.max.messages.kbytes": _QUEUED_KBYTES,
                "fetch.wait.max.ms": 100,
                "allow.auto.create.topics": False,
            }
        )
        try:
            cluster = self._consumer.list_topics(timeout=_TIMEOUT_S).cluster_id
            identity = (
                f"{cluster} {settings.application_id} {topics.actions} {settings.partitions} {_references(contracts)}"
            )
            self._store = IndexStore(settings.data_dir / "gatherer", identity, contracts)
        except BaseException:
            self._consumer.close()
            raise
        if settings.store == "memory":
            self._store.wipe()
        self._indexer = LedgerIndexer(self._store, feed, codec, settings.partitions)
        self._followed: set[int] = set()
        self._answered: dict[int, int] = {}
        self._unanswered: dict[int, dict[int, None]] = {}
        self._standing: dict[int, StandingQuestions] = {}
        self._to_begin: set[int] = set()
        self._reading: set[int] = set()
        """The partitions whose ledger is read from Kafka."""
        self._is_paused = False

    @property
    def with_late(self) -> frozenset[int]:
        """The partitions in which something late may be left to tell."""
        return frozenset(self._indexer.with_late)

    # -- which partitions

    def follow(self, partitions: frozenset[int]) -> None:
        """Reads these partitions from now on, and no others."""
        gone, new = self._followed - partitions, sorted(partitions - self._followed)
        if gone:
            known = {(place.topic, place.partition) for place in self._consumer.assignment()}
            self._consumer.incremental_unassign(
                [TopicPartition(topic, number) for topic, number in known if number in gone]
            )
            for partition in gone:
                del self._standing[partition], self._answered[partition], self._unanswered[partition]
                self._indexer.end(partition)
            self._to_begin -= gone
            self._reading -= gone
            self._followed -= gone
        if new:
            self._begin(new)

    def _begin(self, partitions: Sequence[int]) -> None:
        queries = self._topics.gather_queries
        for place in self._consumer.committed([TopicPartition(queries, number) for number in partitions], _TIMEOUT_S):
            self._answered[place.partition] = max(place.offset, 0)
        for partition in partitions:
            self._standing[partition] = StandingQuestions()
            self._unanswered[partition] = {}
        self._consumer.incremental_assign([TopicPartition(queries, number, OFFSET_BEGINNING) for number in partitions])
        self._followed.update(partitions)
        self._is_paused = False  # the new ones are not

    def _begin_ledger(self, partition: int) -> None:
        place = TopicPartition(self._topics.actions, partition)
        try:
            _, high = self._consumer.get_watermark_offsets(place, _TIMEOUT_S)
        except KafkaException as error:
            logger.warning("where the ledger of partition %d ends is not known: %s", partition, error)
            return  # it is tried again
        self._to_begin.discard(partition)
        position = self._store.position(partition)
        if position.read > high:
            logger.warning("the ledger of partition %d ends before its index; the index is made anew", partition)
            self._store.wipe_partition(partition)
        self._indexer.begin(partition, self._standing[partition])

    # -- reading

    def poll(self, wait_s: float, *, with_questions: bool, asked: Set[int] = frozenset()) -> Polled:
        """Takes a little of the ledger into the index, and gives what is asked. Without questions, none is read but those
        that came already. What isn't folded yet is read of the partitions that are `asked`."""
        self._pause_questions(not with_questions)
        messages = self._consumer.consume(_MOST_RECORDS, wait_s)
        began = time.perf_counter()
        questions, read = self._take(messages)
        fed = sum(
            self._indexer.take_fed(partition, at_once=partition in asked) for partition in self._indexer.partitions
        )
        self._choose_sources(asked)
        return Polled(questions, time.perf_counter() - began, fed, read, len(self._reading))

    def _choose_sources(self, asked: Set[int]) -> None:
        """Reads the ledger from Kafka where that is needed, and nowhere else."""
        for partition in self._indexer.partitions:
            is_needed = partition in asked or self._indexer.needs_reading(partition)
            if is_needed == (partition in self._reading):
                continue
            place = TopicPartition(self._topics.actions, partition, self._read_up_to(partition) or OFFSET_BEGINNING)
            if is_needed:
                self._reading.add(partition)
                self._consumer.incremental_assign([place])
            else:
                self._reading.discard(partition)
                self._consumer.incremental_unassign([place])

    def _read_up_to(self, partition: int) -> int:
        position = self._indexer.position(partition)
        assert position is not None
        return position.read

    def _pause_questions(self, is_paused: bool) -> None:
        if is_paused == self._is_paused:
            return
        self._is_paused = is_paused
        places = [place for place in self._consumer.assignment() if place.topic == self._topics.gather_queries]
        (self._consumer.pause if is_paused else self._consumer.resume)(places)

    def _take(self, messages: Sequence[Message]) -> tuple[list[Question], int]:
        """Takes what was read; gives the questions, and how many actions there were."""
        records: dict[int, list[LedgerRecord]] = {}
        ends: dict[int, int] = {}
        questions: list[Question] = []
        for message in messages:
            partition = message.partition() or 0
            error = message.error()
            if partition not in self._followed:
                continue
            if error is not None:
                self._take_event(message, error, ends)
            elif message.topic() == self._topics.actions:
                records.setdefault(partition, []).append(_record(message))
            else:
                questions += self._asked(partition, message)
        for partition in sorted(self._to_begin):
            self._begin_ledger(partition)
        read = sum(
            self._indexer.take_read(partition, records.get(partition, []), ends.get(partition, 0))
            for partition in (records.keys() | ends.keys()) & self._reading
        )
        return questions, read

    def _take_event(self, message: Message, error: KafkaError, ends: dict[int, int]) -> None:
        partition = message.partition() or 0
        if error.code() == KafkaError._PARTITION_EOF:
            if message.topic() == self._topics.actions:
                ends[partition] = message.offset() or 0
            elif self._indexer.position(partition) is None:
                self._to_begin.add(partition)
        else:
            raise KafkaException(error)

    def _asked(self, partition: int, message: Message) -> list[Question]:
        offset = message.offset() or 0
        try:
            query = self._codec.decode(message.value())
        except DecodeError as error:
            logger.warning("a question in partition %d at %d can't be read: %s", partition, offset, error)
            return []
        if not isinstance(query, GatherQuery) or query.partition != partition:
            logger.warning("what stands in partition %d at %d is no question to it", partition, offset)
            return []
        headers: Mapping[str, Any] = dict(message.headers() or [])
        question = Question(partition, offset, message.timestamp()[1], query, _trace(headers))
        if offset >= self._answered[partition]:
            self._unanswered[partition][offset] = None
            return [question]
        if query.standing:
            known = self._store.complete_up_to(partition, question.name)
            self._standing[partition].add(_standing(question, known))
        return []

    # -- answering

    def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """Where the ledger ends now, of the partitions of which the brokers say it."""
        places = [(self._topics.actions, partition) for partition in partitions]
        return {partition: end for (_, partition), end in self._ends(places).items()}

    def position(self, partition: int) -> Position | None:
        """How far a partition has come; None while its questions are being read, and where it isn't followed."""
        return self._indexer.position(partition)

    def match(self, question: Question) -> Match:
        """What the index says. From here on, what comes later is told if the question is a standing one."""
        partition, query = question.partition, question.query

        def postings(term: Term) -> Iterable[Any]:
            return self._store.postings(partition, term)

        try:
            found = matches(query, postings)
        except InputError as error:
            logger.warning("the question %s selects nothing: %s", question.name, error)
            found = Matches([], [])
        position = self._indexer.position(partition)
        assert position is not None
        if query.standing:
            self._standing[partition].add(_standing(question, position.read))
            self._store.forget_late(partition, question.name)
        return Match(found.operations, found.resources, position.read, position.records)

    def offsets(self, partition: int, resources: Iterable[str]) -> dict[str, dict[str, int]]:
        """Where the actions of each resource stand."""
        return {
            resource: offsets_of(self._store.postings(partition, Term("resource", resource))) for resource in resources
        }

    def settle(self, question: Question, complete_up_to: int) -> None:
        """A question was answered, up to there."""
        partition = question.partition
        unanswered = self._unanswered.get(partition)
        if unanswered is None:
            return
        if question.query.standing:
            self._store.answered(partition, question.name, complete_up_to)
        unanswered.pop(question.offset, None)
        end = min(unanswered, default=question.offset + 1)
        if end > self._answered[partition]:
            self._answered[partition] = end
            place = TopicPartition(self._topics.gather_queries, partition, end)
            try:
                self._consumer.commit(offsets=[place], asynchronous=False)
            except KafkaException as error:
                # It is answered once more after the next start, which changes nothing.
                logger.warning("that a question was answered could not be committed: %s", error)

    # -- what comes later

    def late(self, partition: int) -> list[LateTold]:
        """What is to be told, the first of it."""
        standing = self._standing.get(partition)
        if standing is None:
            return []
        items = self._store.late(partition, _MOST_LATE)
        if not items:
            self._indexer.with_late.discard(partition)
        found: list[LateTold] = []
        lost: list[LateAction] = []
        for item in items:
            asked = standing.get(item.question)
            if asked is None:
                lost.append(item)
            else:
                found.append(LateTold(item, asked.query))
        self._store.late_was_told(partition, lost)
        return found

    def late_was_told(self, partition: int, told: Sequence[LateAction]) -> None:
        """These need not be told any more."""
        self._store.late_was_told(partition, told)

    def close(self) -> None:
        """Gives back the consumer and the index."""
        self._consumer.close()
        self._store.close()


def _record(message: Message) -> LedgerRecord:
    return LedgerRecord(message.offset() or 0, message.timestamp()[1], message.key(), message.value())


def _standing(question: Question, after: int | None) -> Standing:
    return Standing(question.name, question.query, after, question.timestamp_ms - MARGIN_MS)


def _references(contracts: ContractSet) -> str:
    """Names all that the index depends on in the contracts."""
    references = sorted((contract.name, sorted(contract.references.items())) for contract in contracts.contracts)
    return hashlib.blake2b(msgspec.json.encode(references), digest_size=16).hexdigest()


def _trace(headers: Mapping[str, Any]) -> bytes | None:
    """The trace that a question came with, if it may be passed on."""
    value = headers.get("traceparent")
    trace = usable_traceparent(value.decode(errors="replace")) if isinstance(value, bytes) else None
    return None if trace is None else trace.encode()
