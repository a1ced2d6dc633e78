"""The thread that owns the Kafka consumer: it reads, commits, and answers rebalances.

Records are handed to the event loop in the order in which they came. Offsets come back as `PartitionProgress`; a commit says
what was finished from the start on, with the epoch in its metadata. When partitions are revoked, what is under way in them is
finished first (bounded), committed, and the rest forgotten: whoever gets the partition next reads it again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from reconciler.records import Command
from reconciler.sdk.consumer.progress import PartitionProgress, epoch_metadata, epoch_of
from reconciler.sdk.consumer.reading import Received, read_command, received
from reconciler.sdk.kafka import KafkaSettings, client_logger
from reconciler.wire.codec import Codec
from reconciler.wire.errors import DecodeError, RegistryDownError

logger = logging.getLogger("reconciler.sdk")

_POLL_S: Final = 0.1
_BATCH: Final = 200
_BROKER_TIMEOUT_S: Final = 10.0
_REGISTRY_WAIT_S: Final = 30.0
_PAUSE_S: Final = 1.0
_PROBE_S: Final = 2.0
_PROBE_TIMEOUT_S: Final = 1.0

# A commit that a rebalance overtook is no harm: what was finished is recognised when it is delivered again.
_OVERTAKEN: Final = frozenset(
    {
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError._NO_OFFSET,
        KafkaError._ASSIGNMENT_LOST,
    }
)


class Poller:
    """Reads one topic until told to stop. ``deliver`` and ``settle`` are called from its thread; ``settle`` returns when nothing
    of these partitions is being worked on any more, or it was waited for long enough."""

    def __init__(
        self,
        kafka: KafkaSettings,
        *,
        topic: str,
        group: str,
        codec: Codec,
        commit_interval_s: float,
        is_full: Callable[[], bool],
        deliver: Callable[[PartitionProgress, Received, Command | DecodeError], None],
        settle: Callable[[Sequence[PartitionProgress]], None],
    ) -> None:
        self._topic = topic
        self._codec = codec
        self._commit_interval_s = commit_interval_s
        self._is_full = is_full
        self._deliver = deliver
        self._settle = settle
        self._assigned: set[int] = set()
        self._progress: dict[int, PartitionProgress] = {}
        self._committed: dict[int, int] = {}
        self._commit_at = 0.0
        self._is_paused = False
        self._stopping = threading.Event()
        self._client_settings = kafka.consumer(group)
        self._look_at = 0.0
        self.has_joined = False
        """Whether the group has given us our share, be it none."""
        self.trouble: str | None = None
        """Why nothing can be read just now, for people; None where reading works."""

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that are assigned."""
        return frozenset(self._assigned)

    def stop(self) -> None:
        """Asks the thread to end. Safe from anywhere."""
        self._stopping.set()

    def run(self) -> None:
        """Reads until `stop`, then settles, commits and leaves the group. Raises KafkaException where the client can't go on."""
        self._consumer = Consumer(
            {**self._client_settings, "on_commit": self._on_commit, "error_cb": self._on_client_error},
            logger=client_logger,
        )
        try:
            self._consumer.subscribe(
                [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            while not self._stopping.is_set():
                self._turn()
        finally:
            # Revokes what is assigned: settled and committed by the callback.
            self._consumer.close()
            left = list(self._progress)
            self._end(left)
            self._forget(left)

    def _turn(self) -> None:
        self._hold_back()
        timeout_s = _POLL_S
        for _ in range(_BATCH):
            message = self._consumer.poll(timeout_s)
            if message is None:
                break
            error = message.error()
            if error is not None:
                self._on_error(error)
                break
            self._take(received(message))
            if self._stopping.is_set():
                break  # what was read when the stop came may have been left: nothing behind it may be begun
            timeout_s = 0.0
        self._commit_finished()
        self._look_again()

    def _take(self, record: Received) -> None:
        if record.partition not in self._assigned:
            return  # read before it was revoked: somebody else's now
        progress = self._progress.get(record.partition)
        if progress is None:
            epoch = self._committed_epoch(record.partition)
            if epoch is None:
                return
            progress = self._progress[record.partition] = PartitionProgress(record.partition, epoch)
        command = self._read(record)
        if command is not None:
            self._deliver(progress, record, command)

    def _read(self, record: Received) -> Command | DecodeError | None:
        """The command or its fault; None where the consumer stopped before that was known. A registry that is down is waited
        for, but not for ever: the other records of the partition wait behind."""
        give_up_at = time.monotonic() + _REGISTRY_WAIT_S
        while True:
            try:
                return read_command(record, self._codec)
            except RegistryDownError as error:
                self.trouble = str(error)
                if time.monotonic() >= give_up_at:
                    return error
            except DecodeError as error:
                return error
            if self._stopping.wait(_PAUSE_S):
                return None

    def _committed_epoch(self, partition: int) -> int | None:
        """The highest epoch that was committed; None where the consumer stopped before it could be learned."""
        while True:
            try:
                (committed,) = self._consumer.committed(
                    [TopicPartition(self._topic, partition)], timeout=_BROKER_TIMEOUT_S
                )
                if committed.error is None:
                    return epoch_of(committed.metadata)
                error = committed.error
            except KafkaException as exception:
                error = exception.args[0]
            self._on_error(error)
            if self._stopping.wait(_PAUSE_S):
                return None

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            raise KafkaException(error)
        if error.code() != KafkaError._PARTITION_EOF:
            self._note_trouble(f"{self._topic} can't be read just now: {error.str()}")

    def _on_client_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._note_trouble(f"{self._topic} can't be read just now: no broker answers")

    def _note_trouble(self, sentence: str) -> None:
        if self.trouble != sentence:
            logger.warning("%s", sentence)
        self.trouble = sentence
        self._look_at = time.monotonic() + _PROBE_S

    def _look_again(self) -> None:
        """Nobody tells when trouble is over: asks for the topic, now and then."""
        if self.trouble is None or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _PROBE_S
        try:
            topic = self._consumer.list_topics(self._topic, timeout=_PROBE_TIMEOUT_S).topics.get(self._topic)
        except KafkaException:
            return
        if topic is not None and topic.error is None:
            self.trouble = None

    def _hold_back(self) -> None:
        """Reads no more while enough waits, and still polls, so that the group keeps us as a member."""
        is_full = self._is_full()
        if is_full != self._is_paused:
            partitions = [TopicPartition(self._topic, partition) for partition in self._assigned]
            (self._consumer.pause if is_full else self._consumer.resume)(partitions)
            self._is_paused = is_full

    # Commits

    def _finished(self, partitions: Sequence[int]) -> list[TopicPartition]:
        offsets: list[TopicPartition] = []
        for partition in partitions:
            progress = self._progress.get(partition)
            finished = None if progress is None else progress.committable()
            if finished is not None and finished.offset != self._committed.get(partition):
                offsets.append(
                    TopicPartition(self._topic, partition, finished.offset, metadata=epoch_metadata(finished.epoch))
                )
        return offsets

    def _commit_finished(self) -> None:
        if time.monotonic() < self._commit_at:
            return
        self._commit_at = time.monotonic() + self._commit_interval_s
        offsets = self._finished(sorted(self._assigned))
        if offsets:
            self._consumer.commit(offsets=offsets, asynchronous=True)

    def _on_commit(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        if error is not None:
            if error.code() not in _OVERTAKEN:
                logger.warning("offsets could not be committed, which is tried again: %s", error.str())
            return
        for offset in offsets:
            if offset.error is None and offset.partition in self._assigned:
                self._committed[offset.partition] = offset.offset

    # Rebalances

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._assigned.update(offset.partition for offset in partitions)
        # Who comes anew begins unpaused: the next turn pauses all.
        self._is_paused = False
        self.has_joined = True
        self.trouble = None

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        revoked = [offset.partition for offset in partitions]
        self._end(revoked)
        offsets = self._finished(revoked)
        try:
            if offsets:
                consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            logger.warning("offsets could not be committed before the partitions went: %s", error)
        self._forget(revoked)

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        lost = [offset.partition for offset in partitions]
        logger.warning("the group took the partitions %s away, because we were too slow to answer", lost)
        self.has_joined = False
        self._end(lost)
        self._forget(lost)

    def _end(self, partitions: Sequence[int]) -> None:
        ending = [self._progress[partition] for partition in partitions if partition in self._progress]
        for progress in ending:
            progress.is_revoked = True
        if ending:
            self._settle(ending)

    def _forget(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._assigned.discard(partition)
            self._progress.pop(partition, None)
            self._committed.pop(partition, None)
