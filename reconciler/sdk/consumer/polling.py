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
_PAUSE_AFTER_S: Final = 2.0
_FULL_S: Final = 0.02
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
        session_timeout_s: float,
        commit_interval_s: float,
        waiting: Callable[[], int],
        max_waiting: int,
        deliver: Callable[[PartitionProgress, Received, Command | DecodeError], None],
        settle: Callable[[Sequence[PartitionProgress]], None],
    ) -> None:
        self._topic = topic
        self._codec = codec
        self._commit_interval_s = commit_interval_s
        self._waiting = waiting
        self._max_waiting = max_waiting
        self._deliver = deliver
        self._settle = settle
        self._assigned: set[int] = set()
        self._progress: dict[int, PartitionProgress] = {}
        self._committed: dict[int, int] = {}
        self._commit_at = 0.0
        self._is_paused = False
        self._full_since: float | None = None
        self._stopping = threading.Event()
        self._client_settings = kafka.consumer(group, session_timeout_s)
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
            # Before the client begins to close, because from then on the group needn't know us any more.
            self._finish(sorted(self._assigned))
            self._consumer.close()

    def _turn(self) -> None:
        if not self._must_wait():
            self._read_some()
        self._commit_finished()
        self._look_again()

    def _read_some(self) -> None:
        timeout_s = _POLL_S
        for _ in range(_BATCH):
            if self._is_full():
                break
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

    def _is_full(self) -> bool:
        return not self._is_paused and self._waiting() >= self._max_waiting

    def _must_wait(self) -> bool:
        """Whether enough waits, so that nothing more may be read now.

        A pause throws away what the client has fetched, which costs about a second when it ends: only fullness that lasts
        is worth one. It then is needed, because without polling the group would take us for dead.
        """
        if self._is_paused:
            if self._waiting() <= self._max_waiting // 2:
                self._set_paused(False)
            return False
        if not self._is_full():
            self._full_since = None
            return False
        now = time.monotonic()
        self._full_since = self._full_since or now
        if now - self._full_since > _PAUSE_AFTER_S:
            self._set_paused(True)
            return False
        self._stopping.wait(_FULL_S)
        return True

    def _set_paused(self, is_paused: bool) -> None:
        partitions = [TopicPartition(self._topic, partition) for partition in self._assigned]
        (self._consumer.pause if is_paused else self._consumer.resume)(partitions)
        self._is_paused = is_paused
        self._full_since = None

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
        if self._is_paused:
            # Who comes anew begins unpaused, and can't be paused before this returns: all begin anew.
            self._set_paused(False)
        self._assigned.update(offset.partition for offset in partitions)
        self.has_joined = True
        self.trouble = None

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._finish([offset.partition for offset in partitions if offset.partition in self._assigned])

    def _finish(self, partitions: Sequence[int]) -> None:
        """Ends what is under way in partitions, commits what is done, and forgets them."""
        self._end(partitions)
        offsets = self._finished(partitions)
        try:
            if offsets:
                self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            logger.warning("offsets could not be committed before the partitions went: %s", error)
        self._forget(partitions)

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        lost = [offset.partition for offset in partitions]
        logger.warning("the group took the partitions %s away, because we were too slow to answer", lost)
        self.has_joined = False
        self._end(lost)
        self._forget(lost)

    def _end(self, partitions: Sequence[int]) -> None:
        ending = [self._progress[partition] for partition in partitions if partition in self._progress]
        for progress in ending:
            progress.revoke()
        if ending:
            self._settle(ending)

    def _forget(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._assigned.discard(partition)
            self._progress.pop(partition, None)
            self._committed.pop(partition, None)
