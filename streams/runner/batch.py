"""One batch of one partition: from raw records to what has to be written. No I/O but reads of the local store.

A record goes one of five ways: *folded* into its head; skipped as *replayed*; *forwarded* to the partition where its key
belongs; put aside as a *dead letter*, with its reason; or, when the machine itself fails on it, dead-lettered with an
alert. None of them stops the partition.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

from reconciler.machines.protocol import AppendHistory, DropHistory, Effect, Reject, TakesPlainUpdates
from reconciler.records import Action, Alert, Record
from reconciler.values.errors import InputError
from reconciler.values.instant import SECOND
from reconciler.values.traceparent import usable_traceparent
from reconciler.wire.codec import Codec
from reconciler.wire.errors import DecodeError
from reconciler.wire.partition import partition_of
from streams.runner.counts import BatchCounts
from streams.runner.dead_letter import dead_letter, header_value
from streams.runner.effects import EffectWriter
from streams.runner.pipeline import Pipeline
from streams.store.producer import Outgoing
from streams.store.table import MOST_STATE_BYTES, BatchChanges, Head, PartitionTable, check_state_size
from streams.transport.chunk import Chunk, RawRecord

logger = logging.getLogger(__name__)

OLDEST_INSTANT: Final = 365 * 24 * 3600 * SECOND
"""The end of 1970: an earlier instant is a zero, or seconds that were taken for microseconds."""

MOST_AHEAD: Final = 24 * 3600 * SECOND
"""How far an event may say that it happened after its record was written, and a record after our clock."""

_MILLISECOND: Final = 1000


class Unusable(Exception):
    """A record that goes to the dead letters. `reason` is one of the metrics' words."""

    def __init__(self, reason: str, exception: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.exception = exception
        self.message = message


class Part(NamedTuple):
    """A chunk that a batch took, or as much of one as it took."""

    chunk: Chunk
    is_folded: list[bool]
    """For each of its records, whether it was folded, or went another way."""


class Batch:
    """What a batch makes."""

    __slots__ = ("changes", "consumed", "counts", "effects", "now", "parts", "rest")

    def __init__(
        self,
        effects: list[Outgoing],
        changes: BatchChanges,
        consumed: dict[str, int],
        now: int,
        counts: BatchCounts,
        parts: list[Part],
        rest: list[Chunk],
    ) -> None:
        self.effects = effects
        self.changes = changes
        self.consumed = consumed
        self.now = now
        self.counts = counts
        self.parts = parts
        self.rest = rest
        """What found no room in it and goes into the next; the first of these may be the rest of a chunk."""


class BatchRunner:
    """Steps the machine over the batches of one partition. `consumed` and `now` go on where the mark was."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        codec: Codec,
        effects: EffectWriter,
        table: PartitionTable,
        partition: int,
        partitions: int,
        epoch: int,
        consumed: dict[str, int],
        now: int,
        group: str,
        dead_letter_max_bytes: int,
        max_bytes: int,
    ) -> None:
        self._pipeline = pipeline
        self._machine = pipeline.machine
        self._take_plain_update = (
            pipeline.machine.take_plain_update if isinstance(pipeline.machine, TakesPlainUpdates) else None
        )
        self._codec = codec
        self._effects = effects
        self._table = table
        self._partition = partition
        self._partitions = partitions
        self._epoch = epoch
        self._consumed = dict(consumed)
        self._now = now
        self._group = group
        self._dead_letter_max_bytes = dead_letter_max_bytes
        self._max_bytes = max_bytes
        self._inputs = {
            source.topic: (index, source.record, source.key_of(), source.instant_of())
            for index, source in enumerate(pipeline.inputs)
        }
        self._outgoing: list[Outgoing] = []
        self._written_bytes = 0
        self._counts = BatchCounts()

    def run(self, chunks: Sequence[Chunk], latest: int) -> Batch:
        """Steps over these chunks, as far as one batch goes; `latest` is the greatest timestamp that a record may have, in
        microseconds.

        The result must be written, and then the table settled, before the next call, which is to begin with the `rest`.
        """
        now_before = self._now
        try:
            return self._run(chunks, latest, careful=False)
        except Exception:
            # Some state can't be encoded, and nobody knows which event made it so.
            logger.exception("partition %d: a batch is stepped again, one event at a time", self._partition)
            self._table.rollback()
            self._now = now_before
            return self._run(chunks, latest, careful=True)

    def _run(self, chunks: Sequence[Chunk], latest: int, *, careful: bool) -> Batch:
        self._outgoing = []
        self._written_bytes = 0
        self._counts = BatchCounts()
        consumed = dict(self._consumed)
        parts: list[Part] = []
        rest = list(chunks)
        while rest:
            chunk = rest[0]
            is_folded = self._step_chunk(chunk, consumed.get(chunk.topic, 0), latest, careful)
            is_whole = len(is_folded) == len(chunk.records)
            if is_whole:
                rest.pop(0)
            elif is_folded:
                chunk, rest[0] = chunk.split(len(is_folded))
            else:
                break
            parts.append(Part(chunk, is_folded))
            consumed[chunk.topic] = max(chunk.end, consumed.get(chunk.topic, 0))
            if not is_whole:
                break
        changes = self._table.encode_changes()
        self._consumed = consumed
        return Batch(self._outgoing, changes, consumed, self._now, self._counts, parts, rest)

    def _step_chunk(  # noqa: C901, PLR0912, PLR0915 - a call for every check of every record costs a tenth of the whole
        self, chunk: Chunk, consumed: int, latest: int, careful: bool
    ) -> list[bool]:
        """Steps over records until the batch is full, and says of each that it took whether it was folded.

        The hot loop: what happens for every record stands in it, what happens for a few is called.
        """
        index, kind, key_of, instant_of = self._inputs[chunk.topic]
        take_plain_update = None if careful or kind is not Action else self._take_plain_update
        read_plain_update = self._codec.read_plain_update
        table = self._table
        most_written = self._max_bytes
        cached = table.cached
        touched = table.touched
        touch = table.touch
        add_entry = table.add_entry
        history = table.history
        step = self._machine.step
        decode = self._codec.decode
        counts = self._counts
        # What was read isn't kept: given back at once, its memory serves the next record while the processor still has it.
        is_folded: list[bool] = []
        now = self._now
        folded = appended = 0
        for record in chunk.records:
            # The heads by what they took before: what they grow by stands in the entries.
            if self._written_bytes + table.touched_bytes >= most_written:
                break
            is_folded.append(False)
            offset = record.offset
            if offset < consumed:
                counts.replayed += 1
                continue
            try:
                key = record.key
                timestamp = record.timestamp * _MILLISECOND
                if timestamp > latest:
                    raise Unusable(
                        "instant", "TimestampAhead", "the record's own timestamp is more than a day ahead of our clock"
                    )
                head = cached.get(key)  # type: ignore[arg-type]
                if (
                    head is not None
                    and take_plain_update is not None
                    and head.sources[index] < offset
                    and (update := read_plain_update(record.value)) is not None
                    and update.resource == head.resource
                    and OLDEST_INSTANT <= update.occurred_at <= timestamp + MOST_AHEAD
                ):
                    at = timestamp if timestamp > now else now
                    taken = take_plain_update(head.state, update, at, history.of(head.key, head.ids))
                    if taken is not None and len(taken[2]) <= MOST_STATE_BYTES:
                        now = self._now = at
                        state, entry_id, entry = taken
                        add_entry(head, entry_id, entry)
                        self._written_bytes += len(entry)
                        appended += 1
                        if key not in touched:
                            touch(head)
                        head.state = state
                        head.sources[index] = offset
                        is_folded[-1] = True
                        folded += 1
                        continue
                try:
                    event = decode(record.value)
                except DecodeError as error:
                    raise _undecodable(record, error) from None
                if type(event) is not kind:
                    raise Unusable(
                        "kind", "WrongRecord", f"is a {type(event).__name__}, where a {kind.__name__} belongs"
                    )
                if head is None:
                    head = self._load(key, key_of(event))
                if key_of(event) != head.resource:
                    raise _wrong_key(head.resource, key_of(event))
                if head.sources[index] >= offset:
                    counts.replayed += 1
                    continue
                instant = instant_of(event)
                if instant is not None and not OLDEST_INSTANT <= instant <= timestamp + MOST_AHEAD:
                    raise _implausible(self._pipeline.inputs[index].instant, instant, timestamp)
                if timestamp > now:
                    now = self._now = timestamp
                state, effects = step(head.state, event, now, history.of(head.key, head.ids))
                if len(effects) == 1 and type(effect := effects[0]) is AppendHistory and not careful:
                    # With nearly all records.
                    if len(effect.value) > MOST_STATE_BYTES:
                        check_state_size(head.resource, len(effect.value))
                    add_entry(head, effect.entry_id, effect.value)
                    self._written_bytes += len(effect.value)
                    appended += 1
                    if key not in touched:
                        touch(head)
                    head.state = state
                    head.sources[index] = offset
                elif effects or careful:
                    self._take(head, index, record, event, state, effects, now, careful)
                elif state is not head.state:
                    if key not in touched:
                        touch(head)
                    head.state = state
                    head.sources[index] = offset
                is_folded[-1] = True
                folded += 1
            except Unusable as unusable:
                self._put_aside(record, chunk, unusable)
            except _Misplaced as misplaced:
                self._forward(record, chunk, misplaced.partition)
            except Exception as error:  # noqa: BLE001 - a fault must cost one record, not the partition
                self._machine_failed(record, chunk, error)
        counts.folded += folded
        if appended:
            counts.entry(appended)
        return is_folded

    def _load(self, key: bytes | None, inside: str) -> Head:
        """The head of a key that isn't cached: what is checked here needs no check while it is. Raises Unusable, _Misplaced."""
        if key is None:
            raise Unusable("null", "NullKey", f"the record has no key; its key must be its {self._pipeline.key_kind}")
        try:
            resource = key.decode()
            self._pipeline.check_key(resource)
        except (UnicodeDecodeError, InputError):
            raise Unusable("key", "WrongKey", f"the key {key[:80]!r} is no {self._pipeline.key_kind}") from None
        if inside != resource:
            raise _wrong_key(resource, inside)
        partition = partition_of(key, self._partitions)
        if partition != self._partition:
            raise _Misplaced(partition)
        return self._table.load(key, resource)

    def _take(
        self,
        head: Head,
        index: int,
        record: RawRecord,
        event: Record,
        state: object,
        effects: Sequence[Effect],
        now: int,
        careful: bool,
    ) -> None:
        """Takes over a step with effects. All that may fail comes before anything is changed. Raises Unusable, or anything."""
        if careful:
            if state is head.state and not effects:
                return
            check_state_size(head.resource, len(self._machine.encode(state)))
        traceparent = usable_traceparent(
            header_value(record.headers, "traceparent"), getattr(event, "traceparent", None)
        )
        outgoing: list[Outgoing] = []
        rejection: Reject | None = None
        for effect in effects:
            if isinstance(effect, AppendHistory):
                check_state_size(head.resource, len(effect.value))
            elif isinstance(effect, Reject):
                rejection = effect
            elif not isinstance(effect, DropHistory):
                outgoing.append(self._effects.write(effect, self._partition, self._epoch, now, traceparent))
        for item in outgoing:
            self._send(item)
        self._take_history(head, effects)
        if rejection is None or state is not head.state:
            self._table.touch(head)
            head.state = state
            head.sources[index] = record.offset
        if rejection is not None:
            place = f"{rejection.field}: " if rejection.field else ""
            raise Unusable("rejected", "Rejected", f"{place}{rejection.reason}")

    def _take_history(self, head: Head, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, AppendHistory):
                self._table.add_entry(head, effect.entry_id, effect.value)
                self._written_bytes += len(effect.value)
                self._counts.entry()
                continue
            if isinstance(effect, DropHistory):
                self._table.drop_entries(head, effect.entry_ids)
            if not isinstance(effect, Reject):
                self._counts.effect(type(effect).__name__)

    def _send(self, outgoing: Outgoing) -> None:
        self._outgoing.append(outgoing)
        self._written_bytes += len(outgoing.value or b"")

    # -- the other ways

    def _put_aside(self, record: RawRecord, chunk: Chunk, unusable: Unusable) -> None:
        self._counts.dead_letter(unusable.reason)
        self._send(
            dead_letter(
                dead_letters_topic=self._pipeline.topics.dead_letters,
                record=record,
                topic=chunk.topic,
                partition=chunk.partition,
                group=self._group,
                exception=unusable.exception,
                message=unusable.message,
                max_bytes=self._dead_letter_max_bytes,
            )
        )

    def _forward(self, record: RawRecord, chunk: Chunk, partition: int) -> None:
        self._counts.forwarded += 1
        place = f"{chunk.topic}/{chunk.partition}/{record.offset}"
        headers = [(name, value or b"") for name, value in record.headers]
        headers.append(("reconciler.forwarded-from", place.encode()))
        # Explicitly there: a topic's partitioner is the producer's affair, and that is what went wrong.
        timestamp_ms = max(record.timestamp, 0)
        self._send(Outgoing(chunk.topic, record.key, record.value, partition, headers, timestamp_ms))

    def _machine_failed(self, record: RawRecord, chunk: Chunk, error: Exception) -> None:
        """A bug, ours or the machine's: the record is kept, people are told, the partition goes on."""
        place = f"{chunk.topic}/{chunk.partition}/{record.offset}"
        logger.error("the machine failed on %s", place, exc_info=error)
        name = type(error).__name__
        self._put_aside(record, chunk, Unusable("bug", name, f"the machine failed: {error}"))
        alert = Alert(
            alert_id=f"machine-failed/{place}",
            subject=(record.key or b"").decode(errors="replace"),
            kind="machine_failed",
            message=f"The record at {place} could not be handled because of a fault in the reconciler ({name}). "
            "It is kept among the dead letters.",
            occurred_at=self._now,
            severity="critical",
        )
        self._send(self._effects.alert(alert))


class _Misplaced(Exception):
    """The record's key belongs into another partition."""

    def __init__(self, partition: int) -> None:
        super().__init__(partition)
        self.partition = partition


def _undecodable(record: RawRecord, error: DecodeError) -> Unusable:
    if record.value is None:
        return Unusable("null", "NullValue", str(error))
    return Unusable("decode", type(error).__name__, str(error))


def _wrong_key(key: str, inside: str) -> Unusable:
    return Unusable("key", "WrongKey", f"the key is {key[:200]!r}, but the record is of {inside[:200]!r}")


def _implausible(name: str | None, instant: int, timestamp: int) -> Unusable:
    if instant < OLDEST_INSTANT:
        return Unusable(
            "instant", "InstantTooOld", f"{name} is in 1970 or before ({instant} microseconds); check its unit"
        )
    ahead_h = (instant - timestamp) / (3600 * SECOND)
    return Unusable("instant", "InstantAhead", f"{name} is {ahead_h:.0f} h after the record was written")
