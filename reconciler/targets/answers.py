"""How adapters put what they learnt into observations and outcomes, so that all of them say the same thing alike."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeAlias

from reconciler.records import Actor, Command, Observation, Outcome, OutcomeStatus
from reconciler.targets.apply import Refusal
from reconciler.values.errors import InputError
from reconciler.values.instant import Instant
from reconciler.values.json_value import Json, check_value
from reconciler.values.traceparent import usable_traceparent

Clock: TypeAlias = Callable[[], Instant]

logger = logging.getLogger("reconciler.targets")


def system_clock() -> Instant:
    """The wall clock in microseconds. Adapters take it as an argument, so that a test can hold it."""
    return time.time_ns() // 1_000


def unknown(resource: str, reason: str, observed_at: Instant) -> Observation:
    """The resource could not be observed. The same trouble seen again gives the same reason, byte for byte."""
    return Observation(resource=resource, exists=None, reason=reason, observed_at=observed_at)


def missing(resource: str, observed_at: Instant) -> Observation:
    """The target says that the resource isn't there."""
    return Observation(resource=resource, exists=False, observed_at=observed_at)


def found(
    resource: str,
    fields: Json,
    observed_at: Instant,
    *,
    version: str | None = None,
    modified_at: Instant | None = None,
    modified_by: Actor | None = None,
) -> Observation:
    """The resource with its fields; unknown where they are no JSON object that we can keep exactly."""
    if type(fields) is not dict:
        return unknown(resource, "the resource's fields are no JSON object", observed_at)
    try:
        check_value(fields)
    except InputError as error:
        return unknown(resource, f"the resource holds a value that {error}", observed_at)
    return Observation(
        resource=resource,
        exists=True,
        fields=fields,
        version=version,
        observed_at=observed_at,
        modified_at=modified_at,
        modified_by=modified_by,
    )


def outcome(
    command: Command,
    status: OutcomeStatus,
    occurred_at: Instant,
    *,
    observed: Observation | None = None,
    error: str | None = None,
    retry_after_s: float | None = None,
) -> Outcome:
    """What became of a command."""
    return Outcome(
        command_id=command.command_id,
        resource=command.resource,
        status=status,
        occurred_at=occurred_at,
        observed=observed,
        error=error,
        retry_after_s=retry_after_s,
        traceparent=usable_traceparent(command.traceparent),
    )


def origin_of(command: Command) -> str:
    """The mark that a write of ours leaves at the target, so that automations there can tell it: the command's id, unless
    the command says another."""
    return command.origin or command.command_id


def sentence(refusal: Refusal) -> str:
    """A refusal as one line for people."""
    return f"{refusal.path}: {refusal.reason}" if refusal.path else refusal.reason
