"""Watching the topics of the embedded estate: a thread that counts what goes by and remembers what is open."""

from __future__ import annotations

import threading
from collections import Counter, deque

from confluent_kafka import Consumer, Message

from reconciler.records import Action, Alert, Command, DriftEvent, Outcome
from reconciler.values.instant import format_instant
from reconciler.wire.codec import Codec
from reconciler.wire.topics import TopicNames

_REMEMBERED_LINES = 12
_POLL_S = 0.1


class Watcher:
    """What has happened on the topics since they were made. A context manager; its numbers may be read from any thread."""

    def __init__(self, bootstrap_servers: str, names: TopicNames, systems: tuple[str, ...]) -> None:
        self.counts: Counter[str] = Counter()
        self.open_drift: dict[str, DriftEvent] = {}
        self.reported: set[str] = set()
        self.corrected: set[str] = set()
        self.alerts: list[str] = []
        self.lines: deque[str] = deque(maxlen=_REMEMBERED_LINES)
        self._codec = Codec.packaged()
        self._topics = [names.actions, names.drift, names.outcomes, names.alerts, names.dead_letters]
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
                self._say(record.issued_at, f"command  {record.resource}: {record.action} ({changes})")
            case Outcome():
                self.counts[f"outcomes {record.status}"] += 1
                self._say(record.occurred_at, f"outcome  {record.resource}: {record.status}")
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

    def _say(self, instant: int | None, line: str) -> None:
        at = "" if instant is None else format_instant(instant)[11:19]
        self.lines.append(f"{at}  {line}")
