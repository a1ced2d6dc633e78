"""A target in memory: for tests, for trying things out, and as the plainest example of an adapter.

No await stands between the decision and the write, so that every command is atomic within one event loop.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from pydantic import Field

from reconciler.records import Actor, Command, Observation, Outcome, OutcomeStatus, Record
from reconciler.targets.answers import Clock, found, missing, origin_of, outcome, sentence, system_clock, unknown
from reconciler.targets.apply import Fields, Refusal, decide
from reconciler.targets.first_outcome import REMEMBERED, FirstOutcome, repeated
from reconciler.targets.port import ScanPage, TargetDescription
from reconciler.targets.routing import read_cursor, write_cursor
from reconciler.targets.settings import Strict
from reconciler.values.errors import InputError
from reconciler.values.instant import Instant
from reconciler.values.json_value import ABSENT, Absent, Json
from reconciler.values.resource_key import parse_resource_key, resource_key

WRITER = Actor(id="reconciler", kind="service")


class MemoryConfig(Strict):
    """``kind: memory``."""

    resources: dict[str, dict[str, dict[str, Json]]] = Field(default={}, description="type -> id -> fields")
    bulk_size: int = Field(default=1_000, ge=1)
    origin_field: str | None = None
    """A member of every record that we wrote last, with the command's origin mark. It is no field of the resource."""


class _Held(Record, frozen=True, kw_only=True):
    fields: Fields
    version: int
    modified_at: Instant
    modified_by: Actor | None
    origin: str | None = None


class MemoryTarget:
    """Holds resources in a dict. `put` and `remove` are the hands of everybody else."""

    def __init__(self, system: str, config: MemoryConfig | None = None, *, clock: Clock = system_clock) -> None:
        self._system = system
        self._config = config or MemoryConfig()
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._first: dict[str, FirstOutcome] = {}
        self._versions = 0
        for type_, resources in self._config.resources.items():
            for id_, fields in resources.items():
                self.put(resource_key(system, type_, id_), fields)

    def put(self, resource: str, fields: Mapping[str, Json], modified_by: Actor | None = None) -> None:
        """Writes a whole resource, asking nobody."""
        self._write(resource, copy.deepcopy(dict(fields)), modified_by)

    def remove(self, resource: str) -> None:
        """Takes a resource away, asking nobody."""
        self._held.pop(resource, None)

    def fields(self, resource: str) -> Fields | Absent:
        """What the resource holds now; ABSENT where it isn't there. Not to be changed."""
        held = self._held.get(resource)
        if held is None:
            return ABSENT
        return held.fields if held.origin is None else held.fields | {str(self._config.origin_field): held.origin}

    def _write(self, resource: str, fields: Fields, modified_by: Actor | None, origin: str | None = None) -> None:
        self._versions += 1
        self._held[resource] = _Held(
            fields=fields, version=self._versions, modified_at=self._clock(), modified_by=modified_by, origin=origin
        )

    def describe(self) -> TargetDescription:
        return TargetDescription(
            system=self._system,
            kind="memory",
            can_apply=True,
            can_scan=True,
            compare_and_set=True,
            deduplicates=True,
            bulk_size=self._config.bulk_size,
        )

    async def observe(self, resources: Sequence[str]) -> list[Observation]:
        return [self._observed(resource) for resource in resources]

    def _observed(self, resource: str) -> Observation:
        now = self._clock()
        reason = self._foreign(resource)
        if reason is not None:
            return unknown(resource, reason, now)
        held = self._held.get(resource)
        if held is None:
            return missing(resource, now)
        return found(
            resource,
            held.fields,
            now,
            version=str(held.version),
            modified_at=held.modified_at,
            modified_by=held.modified_by,
        )

    def _foreign(self, resource: str) -> str | None:
        try:
            system = parse_resource_key(resource).system
        except InputError as error:
            return str(error)
        return None if system == self._system else f"this target is the system {self._system!r}, not {system!r}"

    async def scan(self, cursor: str | None) -> ScanPage:
        keys = sorted(self._held)
        if cursor is not None:
            (after,) = read_cursor(cursor, 1)
            keys = [key for key in keys if key > after]
        page, rest = keys[: self._config.bulk_size], keys[self._config.bulk_size :]
        return ScanPage(
            observations=[self._observed(resource) for resource in page],
            cursor=write_cursor(page[-1]) if rest else None,
        )

    async def apply(self, command: Command) -> Outcome:
        first = self._first.get(command.command_id)
        status = repeated(first, command)
        if status is not None and first is not None:
            observed = self._observed(command.resource)
            return outcome(command, status, self._clock(), observed=observed, error=first.error)
        result = self._applied(command)
        if result.status in REMEMBERED:
            self._first[command.command_id] = FirstOutcome(
                status=result.status, attempt=command.attempt, error=result.error
            )
        return result

    def _applied(self, command: Command) -> Outcome:
        reason = self._foreign(command.resource)
        if reason is not None:
            return outcome(command, "rejected", self._clock(), error=reason)
        if command.action == "compensate":
            return outcome(command, "rejected", self._clock(), error="a target in memory runs no compensations")
        held = self._held.get(command.resource)
        current = ABSENT if held is None else held.fields
        result = decide(current, None if held is None else str(held.version), command)
        if isinstance(result, Refusal):
            return outcome(
                command,
                result.status,
                self._clock(),
                observed=self._observed(command.resource),
                error=sentence(result),
            )
        if isinstance(result, Absent):
            self.remove(command.resource)
        elif result is not current:
            origin = None if self._config.origin_field is None else origin_of(command)
            self._write(command.resource, copy.deepcopy(result), WRITER, origin)
        status: OutcomeStatus = "already_applied" if result is current else "applied"
        return outcome(command, status, self._clock(), observed=self._observed(command.resource))

    async def close(self) -> None:
        """Nothing is held open."""
