"""What a reversal consumer is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from reconciler.records import Command, CommandAction, OutcomeStatus
from reconciler.sdk.kafka import KafkaSettings
from reconciler.targets.answers import Clock, system_clock
from reconciler.values.resource_key import parse_resource_key
from reconciler.wire.codec import Codec


@dataclass(frozen=True, kw_only=True)
class Entitlement:
    """What a service lets the reconciler do to its system; None means: everything of that kind."""

    actions: frozenset[CommandAction] | None = None
    types: frozenset[str] | None = None

    def refusal(self, command: Command, system: str) -> str | None:
        """Why a command is none of this service's business; None: it is."""
        key = parse_resource_key(command.resource)
        if key.system != system:
            return f"this service is the system {system!r}, not {key.system!r}"
        if self.actions is not None and command.action not in self.actions:
            return f"this service does not let the reconciler {command.action}"
        if self.types is not None and key.type not in self.types:
            return f"this service does not let the reconciler touch the type {key.type!r}"
        return None


class ConsumerMetrics(Protocol):
    """Hears what a consumer does. Called from its event loop: return at once, and raise nothing."""

    def command_done(self, status: OutcomeStatus, duration_s: float) -> None:
        """A command's outcome is with the brokers, so long after the command was read."""
        ...

    def dead_letter(self, kind: str) -> None:
        """A record could not be used and is with the dead letters; ``kind`` is the name of its error's class."""
        ...

    def load(self, partitions: int, waiting: int, applying: int) -> None:
        """How many partitions are assigned, and how many commands wait and are being applied, now."""
        ...


class NoMetrics:
    """Hears nothing."""

    def command_done(self, status: OutcomeStatus, duration_s: float) -> None:
        pass

    def dead_letter(self, kind: str) -> None:
        pass

    def load(self, partitions: int, waiting: int, applying: int) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class ConsumerSettings:
    """How a reversal consumer works.

    ``system`` is the first part of the resources' keys. ``group`` is the consumer group, by default the name of the commands'
    topic: all instances of one service share it. ``apply_timeout_s`` bounds the application of one command; after it the
    outcome is `transient`. ``concurrency``: how many resources are worked on at a time. ``max_waiting``: how many commands are
    read ahead. ``session_timeout_s``: after so long a silence the group gives an instance's partitions to the others.
    ``stop_timeout_s`` bounds the wait for what is under way when the consumer stops.
    """

    kafka: KafkaSettings
    system: str
    group: str | None = None
    entitlement: Entitlement = Entitlement()
    apply_timeout_s: float = 30.0
    concurrency: int = 16
    max_waiting: int = 1_000
    commit_interval_s: float = 0.5
    session_timeout_s: float = 15.0
    stop_timeout_s: float = 30.0
    codec: Codec = field(default_factory=Codec.packaged)
    clock: Clock = system_clock
    metrics: ConsumerMetrics = field(default_factory=NoMetrics)
