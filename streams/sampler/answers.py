"""What an adapter answered, made into exactly one answer for each resource that was asked about. Pure.

Nothing that isn't a whole and unmistakable answer about the very resource becomes more than *unknown*: a wrong *known* would be
taken for drift, and corrected.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from hashlib import blake2b
from math import isfinite
from typing import Any, Final, Literal, TypeAlias

import msgspec

from reconciler.records import Actor, Observation
from reconciler.values.errors import InputError
from reconciler.values.instant import Instant
from reconciler.values.json_value import MAX_DEPTH, Json, canonical, check_depth

Result: TypeAlias = Literal["present", "absent", "unknown", "timeout", "failed", "missing", "duplicate", "malformed"]
"""What became of the question about one resource. From `unknown` on, all are unknown, by cause; `unknown` is the target's own."""

DIGEST_BYTES: Final = 16
_SCALARS: Final = frozenset({str, int, bool, type(None)})
DEFAULT_MAX_BYTES: Final = 900_000  # below Kafka's default for the largest record, with room for the envelope


class Answer(msgspec.Struct, frozen=True):
    """What is now known about one resource."""

    observation: Observation
    result: Result
    digest: bytes | None
    """Of all that makes one known answer differ from another; None where it is unknown."""


def unknown(resource: str, result: Result, reason: str, asked_at: Instant) -> Answer:
    """The answer about a resource of which nothing could be learned."""
    return Answer(Observation(resource=resource, exists=None, reason=reason, observed_at=asked_at), result, None)


def answers(
    asked: Sequence[str], given: object, asked_at: Instant, max_bytes: int = DEFAULT_MAX_BYTES
) -> Iterator[Answer]:
    """One answer a resource, in the order asked, from what an adapter returned, whatever that is. The work for an answer is
    done when it is asked for, so that a large bulk can be gone through in slices.

    `asked_at` is the instant before the read began: no observation claims to be newer.
    """
    if not isinstance(given, (list, tuple)):
        reason = f"The adapter answered with {type(given).__name__}, not with a list of observations."
        yield from (unknown(resource, "malformed", reason, asked_at) for resource in asked)
        return
    by_resource: dict[str, list[Observation]] = {resource: [] for resource in asked}
    for observation in given:
        if _is_answer(observation, by_resource):
            by_resource[observation.resource].append(observation)
    for resource in asked:
        yield _answer(resource, by_resource[resource], asked_at, max_bytes)


def strays(asked: Sequence[str], given: object) -> int:
    """How many of the things that an adapter returned are no answer to anything that was asked."""
    if not isinstance(given, (list, tuple)):
        return 0
    wanted = dict.fromkeys(asked)
    return sum(not _is_answer(item, wanted) for item in given)


def _is_answer(item: Any, asked: Container[str]) -> bool:
    return isinstance(item, Observation) and type(item.resource) is str and item.resource in asked


def _answer(resource: str, given: list[Observation], asked_at: Instant, max_bytes: int) -> Answer:
    if not given:
        return unknown(resource, "missing", "The answer of the target says nothing about this resource.", asked_at)
    if len(given) > 1:
        return unknown(resource, "duplicate", "The target answered more than once about this resource.", asked_at)
    observation = given[0]
    fault = _fault(observation)
    if fault:
        return unknown(resource, "malformed", fault, asked_at)
    at = asked_at if observation.observed_at is None else min(asked_at, observation.observed_at)
    if observation.exists is None:
        return unknown(resource, "unknown", observation.reason or "The target gave no reason.", at)
    try:
        text = _exact_text(observation.fields)
    except InputError as error:
        return unknown(resource, "malformed", f"The answer of the target {error}.", asked_at)
    if len(text) > max_bytes:
        reason = f"The answer of the target has {len(text)} bytes; at most {max_bytes} can be published."
        return unknown(resource, "malformed", reason, asked_at)
    known = msgspec.structs.replace(observation, observed_at=at, reason=None)
    return Answer(known, "present" if observation.exists else "absent", _digest(observation, text))


def _fault(observation: Any) -> str | None:
    """What is wrong with the shape of an observation; adapters are code, which no decoder has checked."""
    if observation.exists not in (True, False, None) or not isinstance(observation.exists, (bool, type(None))):
        return "The answer of the target doesn't say whether the resource exists."
    if not isinstance(observation.fields, dict):
        return "The fields in the answer of the target are no object."
    if observation.exists and not observation.fields:
        return "The answer of the target is empty: a resource that exists has fields."
    if observation.exists is False and observation.fields:
        return "The answer of the target contradicts itself: a resource that doesn't exist has fields."
    typed = (
        (observation.version, str),
        (observation.observed_at, int),
        (observation.modified_at, int),
        (observation.modified_by, Actor),
        (observation.reason, str),
    )
    if any(value is not None and not isinstance(value, kind) for value, kind in typed):
        return "The answer of the target has a version, time, person or reason of the wrong type."
    return None


def _exact_text(fields: dict[str, Json]) -> bytes:
    """Canonical text of fields that code made. Raises InputError where they are no exact JSON."""
    _check_plain(fields)
    text = canonical(fields)
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH:
        check_depth(fields)
    return text


def _check_plain(fields: dict[str, Json]) -> None:
    """Raises InputError for what `canonical` would write as something else: NaN and infinities as null, tuples as arrays."""
    stack: list[Json] = [fields]
    while stack:
        node = stack.pop()
        kind = type(node)
        if kind is dict:
            stack.extend(node.values())
        elif kind is list:
            stack.extend(node)
        elif kind is float:
            if not isfinite(node):
                raise InputError(f"holds {node}, which is no JSON value")
        elif kind not in _SCALARS:
            raise InputError(f"holds a {kind.__name__}, which is no JSON value")


def _digest(observation: Observation, text: bytes) -> bytes:
    by = observation.modified_by
    about = (observation.exists, observation.version, observation.modified_at, by and (by.id, by.kind))
    digest = blake2b(msgspec.msgpack.encode(about), digest_size=DIGEST_BYTES)
    digest.update(text)
    return digest.digest()
