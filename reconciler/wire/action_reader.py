"""The hot path of decoding: an action of the newest schema version, read by hand in one pass.

It answers only for what is usual. Wherever anything is not (a symbol that it doesn't know, a second block of an array, bytes
that end too early, a path that is no pointer) it answers None, and the strict reader says what is wrong, if anything is. So
this need not find words, only never accept what the strict reader refuses: tests hold the two, and fastavro, against each
other.

The order of the fields is that of schemas/action.avsc; `reads` says whether it still is.

The `.pxd` beside this says what C types its variables have where it is compiled (deploy/hatch_build.py).
"""

from __future__ import annotations

from typing import Any, Final

from reconciler.json_form import complete_action
from reconciler.records import Action, Actor, Compensation, Operation, Stage
from reconciler.values.errors import InputError
from reconciler.values.fields import fields_from_text
from reconciler.values.json_value import parse
from reconciler.values.resource_key import parse_resource_key
from reconciler.wire.strict_reader import AvroSchema, read_long

_FIELDS: Final = (
    "operation_id",
    "action_id",
    "stage",
    "operation",
    "resource",
    "occurred_at",
    "before",
    "set",
    "unset",
    "run_id",
    "step_id",
    "sequence",
    "actor",
    "depends_on",
    "compensation",
    "version_before",
    "version_after",
    "workflow_id",
    "workflow_version",
    "rule",
    "traceparent",
    "origin",
    "reverses",
)
_STAGES: Final[dict[int, Stage]] = {2: "initiated", 4: "succeeded", 6: "failed", 8: "reversed"}
_OPERATIONS: Final[dict[int, Operation]] = {2: "create", 4: "update", 6: "delete", 8: "effect"}
"""By the byte that stands for the symbol: twice its index."""

_NULL: Final = 0
_PRESENT: Final = 2
"""The bytes that stand for the two branches of a union of null and something."""

_LONG_OR_NEGATIVE: Final = 0x81
"""The bits of a length's first byte of which one is set where the length has more bytes, or is below zero."""

_MORE: Final = 0x80
"""The bit of an integer's byte that says that another one follows."""

_NO_ANNEX: Final = bytes(4)
"""An action that says nothing of what it depends on, of a compensation and of versions; and one that says nothing of a rule, a
trace, an origin and what it reverses."""

_PREFIX_BYTES: Final = 5  # the magic byte and the schema id

# An integer of eight bytes, seven bits each, the highest bit of each byte saying whether another one follows.
_FOLLOWED: Final = 0x8080808080808080
_EIGHT_BYTES: Final = 0x0080808080808080
_ODD_BYTES, _EVEN_BYTES = 0x7F007F007F007F00, 0x007F007F007F007F
_ODD_PAIRS, _EVEN_PAIRS = 0x3FFF00003FFF0000, 0x00003FFF00003FFF
_ODD_FOURS, _EVEN_FOURS = 0x0FFFFFFF00000000, 0x000000000FFFFFFF


def reads(schema: AvroSchema) -> bool:
    """Whether a schema is laid out as this reader reads it."""
    fields = {field["name"]: field["type"] for field in schema["fields"]}
    return (
        tuple(fields) == _FIELDS
        and _by_byte(fields["stage"]["symbols"]) == _STAGES
        and _by_byte(fields["operation"]["symbols"]) == _OPERATIONS
    )


def _by_byte(symbols: list[str]) -> dict[int, str]:
    return {2 * index: symbol for index, symbol in enumerate(symbols) if index > 0}


class _UnusualError(Exception):
    """Something that the strict reader must judge."""


def read_action(data: bytes) -> Action | None:
    """The action of whole wire bytes, or None where anything about them is unusual."""
    try:
        return _read(data)
    except (_UnusualError, IndexError, KeyError, InputError, ValueError, OverflowError):
        # Compiled, this can't count as far as a length may claim to be: that overflows.
        return None


# A call a field would cost a third of the time that all of this takes: so texts that most actions have are read in place.
def _read(data: bytes) -> Action:  # noqa: C901, PLR0912, PLR0915
    at = _PREFIX_BYTES
    byte = data[at]
    if byte & _LONG_OR_NEGATIVE:
        operation_id, at = _text(data, at)
    else:
        at += 1
        end = at + (byte >> 1)
        operation_id = data[at:end].decode()
        at = end
    byte = data[at]
    if byte & _LONG_OR_NEGATIVE:
        action_id, at = _text(data, at)
    else:
        at += 1
        end = at + (byte >> 1)
        action_id = data[at:end].decode()
        at = end
    stage = _STAGES[data[at]]
    operation = _OPERATIONS[data[at + 1]]
    at += 2
    byte = data[at]
    if byte & _LONG_OR_NEGATIVE:
        resource, at = _text(data, at)
    else:
        at += 1
        end = at + (byte >> 1)
        resource = data[at:end].decode()
        at = end
    parse_resource_key(resource)
    occurred_at, at = _instant(data, at)
    before: dict[str, Any] | None = None
    byte = data[at]
    at += 1
    if byte == _PRESENT:
        before, at = _fields(data, at)
    elif byte != _NULL:
        raise _UnusualError
    set_, at = _fields(data, at)
    unset: list[str] = []
    if data[at] == 0:
        at += 1
    else:
        unset, at = _texts(data, at)
    byte = data[at]
    if byte & _LONG_OR_NEGATIVE:
        run_id, at = _text(data, at)
    else:
        at += 1
        end = at + (byte >> 1)
        run_id = data[at:end].decode()
        at = end
    byte = data[at]
    if byte & _LONG_OR_NEGATIVE:
        step_id, at = _text(data, at)
    else:
        at += 1
        end = at + (byte >> 1)
        step_id = data[at:end].decode()
        at = end
    byte = data[at]
    if byte & _LONG_OR_NEGATIVE:
        sequence, at = read_long(data, at)
    else:
        sequence = byte >> 1
        at += 1
    actor: Actor | None = None
    byte = data[at]
    at += 1
    if byte == _PRESENT:
        byte = data[at]
        if byte & _LONG_OR_NEGATIVE:
            actor_id, at = _text(data, at)
        else:
            at += 1
            end = at + (byte >> 1)
            actor_id = data[at:end].decode()
            at = end
        byte = data[at]
        if byte & _LONG_OR_NEGATIVE:
            actor_kind, at = _text(data, at)
        else:
            at += 1
            end = at + (byte >> 1)
            actor_kind = data[at:end].decode()
            at = end
        actor = Actor(id=actor_id, kind=actor_kind)
    elif byte != _NULL:
        raise _UnusualError
    depends_on: list[str] = []
    compensation: Compensation | None = None
    version_before: str | None = None
    version_after: str | None = None
    is_plain = data[at : at + 4] == _NO_ANNEX
    if is_plain:
        at += 4
    else:
        if data[at] == 0:
            at += 1
        else:
            depends_on, at = _texts(data, at)
        byte = data[at]
        at += 1
        if byte == _PRESENT:
            name, at = _text(data, at)
            arguments, at = _object(data, at)
            compensation = Compensation(name=name, arguments=arguments)
        elif byte != _NULL:
            raise _UnusualError
        version_before, at = _optional_text(data, at)
        version_after, at = _optional_text(data, at)
    byte = data[at]
    if byte & _LONG_OR_NEGATIVE:
        workflow_id, at = _text(data, at)
    else:
        at += 1
        end = at + (byte >> 1)
        workflow_id = data[at:end].decode()
        at = end
    byte = data[at]
    if byte & _LONG_OR_NEGATIVE:
        workflow_version, at = _text(data, at)
    else:
        at += 1
        end = at + (byte >> 1)
        workflow_version = data[at:end].decode()
        at = end
    if is_plain and not unset and data[at:] == _NO_ANNEX and run_id and step_id and operation_id and action_id:
        # Nearly all actions. Half of the names of what a record is made of cost half of the time.
        return Action(
            stage=stage,
            run_id=run_id,
            step_id=step_id,
            occurred_at=occurred_at,
            resource=resource,
            operation=operation,
            operation_id=operation_id,
            action_id=action_id,
            before=before,
            set=set_,
            workflow_id=workflow_id,
            workflow_version=workflow_version,
            sequence=sequence,
            actor=actor,
        )
    rule = ""
    traceparent: str | None = None
    origin: str | None = None
    reverses: str | None = None
    if data[at:] == _NO_ANNEX:
        at += 4
    else:
        rule, at = _text(data, at)
        traceparent, at = _optional_text(data, at)
        origin, at = _optional_text(data, at)
        reverses, at = _optional_text(data, at)
    if at != len(data) or not run_id or not step_id:
        raise _UnusualError
    action = Action(
        stage=stage,
        run_id=run_id,
        step_id=step_id,
        occurred_at=occurred_at,
        resource=resource,
        operation=operation,
        operation_id=operation_id,
        action_id=action_id,
        before=before,
        set=set_,
        unset=unset,
        workflow_id=workflow_id,
        workflow_version=workflow_version,
        sequence=sequence,
        actor=actor,
        rule=rule,
        depends_on=depends_on,
        compensation=compensation,
        version_before=version_before,
        version_after=version_after,
        traceparent=traceparent,
        origin=origin,
        reverses=reverses,
    )
    if unset or not operation_id or not action_id:
        return complete_action(action)
    return action


def _text(data: bytes, at: int) -> tuple[str, int]:
    """A text of any length. One that claims more bytes than there are comes out short, and the place after it beyond the end."""
    length, at = read_long(data, at)
    if length < 0:
        raise _UnusualError
    end = at + length
    return data[at:end].decode(), end


def _optional_text(data: bytes, at: int) -> tuple[str | None, int]:
    """A text, or null."""
    byte = data[at]
    if byte == _PRESENT:
        return _text(data, at + 1)
    if byte != _NULL:
        raise _UnusualError
    return None, at + 1


def _texts(data: bytes, at: int) -> tuple[list[str], int]:
    """An array of texts in one block of less than 64."""
    byte = data[at]
    at += 1
    if byte & _LONG_OR_NEGATIVE:
        raise _UnusualError
    texts = []
    for _ in range(byte >> 1):
        text, at = _text(data, at)
        texts.append(text)
    if data[at] != 0:
        raise _UnusualError
    return texts, at + 1


def _fields(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    """The values by path of a JSON text, checked."""
    byte = data[at]
    if byte < _MORE:
        length = byte >> 1 if byte & 1 == 0 else -1
        at += 1
    elif data[at + 1] < _MORE:
        length = (byte & 0x7F | data[at + 1] << 7) >> 1 if byte & 1 == 0 else -1
        at += 2
    else:
        length, at = read_long(data, at)
    if length < 0:
        raise _UnusualError
    end = at + length
    return fields_from_text(data[at:end]), end


def _object(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    """The JSON object of a text."""
    text, at = _text(data, at)
    value = parse(text)
    if type(value) is not dict:
        raise _UnusualError
    return value, at


def _instant(data: bytes, at: int) -> tuple[int, int]:
    """An integer; at once where it has eight bytes and isn't below zero, as instants from 1979 to 3111."""
    bits = int.from_bytes(data[at : at + 8], "little")
    if bits & _FOLLOWED != _EIGHT_BYTES or bits & 1:
        return read_long(data, at)
    bits = (bits & _ODD_BYTES) >> 1 | bits & _EVEN_BYTES
    bits = (bits & _ODD_PAIRS) >> 2 | bits & _EVEN_PAIRS
    bits = (bits & _ODD_FOURS) >> 4 | bits & _EVEN_FOURS
    return bits >> 1, at + 8
