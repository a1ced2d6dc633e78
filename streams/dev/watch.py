"""Watching the topics of the embedded estate: a thread that counts what goes by and remembers what is open."""

from __future__ import annotations

import bisect
import threading
from collections import Counter
from typing import NamedTuple

from confluent_kafka import Consumer, Message

from reconciler.records import Action, Alert, Command, DriftEvent, Observation, Outcome, RollbackEvent
from reconciler.values.instant import format_instant
from reconciler.wire.codec import Codec
from reconciler.wire.topics import TopicNames

_POLL_S = 0.1


class Watcher:
    """What has happened on the topics since they were made. A context manager; its numbers may be read from any thread."""

    def __init__(self, bootstrap_servers: str, names: TopicNames, systems: tuple[str, ...]) -> None:
        self.counts: Counter[str] = Counter()
        self.open_drift: dict[str, DriftEvent] = {}
        self.reported: set[str] = set()
        self.corrected: set[str] = set()
        self.alerts: list[str] = []
        self.observed: dict[str, int] = {}
        """When each resource was sampled last, as far as that was published."""
        self.rollbacks: dict[str, RollbackEvent] = {}
        """The last event of each."""
        self._lines: list[Line] = []
        self._lock = threading.Lock()
        self._codec = Codec.packaged()
        self._topics = [
            names.actions,
            names.drift,
            names.outcomes,
            names.alerts,
            names.dead_letters,
            names.rollback_events,
        ]
        self._topics.append(names.observations)
        self._topics += [names.reversal(system) for system in systems]
        self._dead_letters = names.dead_letters
        self._bootstrap_servers = bootstrap_servers
        self._stopping = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def check(self) -> None:
        """Raises what ended the watching, if anything did."""
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap_servers,
                "group.id": "reconciler-watch",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        try:
            consumer.subscribe(self._topics)
            while not self._stopping.is_set():
                message = consumer.poll(_POLL_S)
                if message is not None and message.error() is None:
                    self._take(message)
        except Exception as error:  # noqa: BLE001  `check` raises it where somebody can see it
            self._failure = error
        finally:
            consumer.close()

    def _take(self, message: Message) -> None:
        if message.topic() == self._dead_letters:
            self.counts["dead letters"] += 1
            return
        record = self._codec.decode(message.value())
        match record:
            case Action():
                self.counts[f"actions {record.stage}"] += 1
            case DriftEvent():
                self._take_drift(record)
            case Command():
                self.counts["commands"] += 1
                changes = ", ".join(f"{change.op} {change.path or 'the record'}" for change in record.changes)
                self._say(record.issued_at, f"command  {record.resource}: {record.action} ({changes or 'an effect'})")
            case Outcome():
                self.counts[f"outcomes {record.status}"] += 1
                self._say(record.occurred_at, f"outcome  {record.resource}: {record.status}")
            case Observation():
                self.observed[record.resource] = record.observed_at or 0
            case RollbackEvent():
                self.rollbacks[record.rollback_id] = record
                wave = "" if record.wave is None else f", wave {record.wave} of {record.waves}"
                self._say(record.occurred_at, f"rollback {record.rollback_id}: {record.status}{wave}")
            case Alert():
                self.alerts.append(record.message)
                self._say(record.occurred_at, f"alert    {record.message}")

    def _take_drift(self, event: DriftEvent) -> None:
        fields = ", ".join(change.path or "the record" for change in event.changes)
        if event.status == "closed":
            self.open_drift.pop(event.resource, None)
            self.corrected.add(event.resource)
            self._say(event.occurred_at, f"in sync  {event.resource}")
            return
        self.open_drift[event.resource] = event
        self.reported.add(event.resource)
        self._say(event.occurred_at, f"drift    {event.resource}: {event.verdict} ({fields})")

    def _say(self, instant: int | None, text: str) -> None:
        with self._lock:
            bisect.insort(self._lines, Line(instant or 0, _order(text), len(self._lines), text))

    def lines(self) -> list[Line]:
        """What went by, in the order in which it happened: topics are read as they come, one ahead of another."""
        with self._lock:
            return list(self._lines)


class Line(NamedTuple):
    """Something that went by, for people. Lines sort by when it happened, and of one moment by what leads to what."""

    at: int
    order: int
    number: int
    text: str

    def __str__(self) -> str:
        return f"{format_instant(self.at)[11:19]}  {self.text}"


def _order(text: str) -> int:
    kinds = ("drift", "rollback", "command", "outcome", "in sync")
    return next((place for place, kind in enumerate(kinds) if text.startswith(kind)), len(kinds))
