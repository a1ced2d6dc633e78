"""A shorter way to read most of the ledger: updates of flat fields, without making an `Action` of each.

It answers only where every text of the record is a part of JSON as it stands: then the chain and the history are joined of these
texts. Whatever isn't so, if only for one letter, is `read_action`'s. Tests hold the two against each other.

The order of the fields is that of schemas/action.avsc; `reconciler.wire.action_reader.reads` says whether it still is.

The `.pxd` beside this says what C types its variables have where it is compiled (deploy/hatch_build.py). Where it isn't, looking at
single letters takes longer than the other way: `IS_SHORTER` says so.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from reconciler.records import PlainUpdate
from reconciler.values.json_value import canonical

IS_SHORTER: Final = not __file__.endswith(".py")

_PREFIX_BYTES: Final = 5  # the magic byte and the schema id
_UPDATE_SUCCEEDED: Final = b"\x04\x04"
"""The symbols of the stage and of the operation."""

_NULL: Final = 0
_PRESENT: Final = 2
"""The bytes that stand for the two branches of a union of null and something."""

_NO_ANNEX: Final = bytes(4)
"""An action that says nothing of what it depends on, of a compensation and of versions; and one that says nothing of a rule, a
trace, an origin and what it reverses."""

_LONG_OR_NEGATIVE: Final = 0x81
"""The bits of a length's first byte of which one is set where the length has more bytes, or is below zero."""

_MORE: Final = 0x80
"""The bit of an integer's byte that says that another one follows."""

_MOST_BYTES: Final = 9
"""Of an integer that has 63 bits at most."""

_new: Final[Any] = tuple.__new__


class _UnusualError(Exception):
    """Something for the other reader."""


def read_plain_update(data: bytes) -> PlainUpdate | None:
    """The update of whole wire bytes, or None where they are anything else."""
    try:
        return _read(data)
    except (_UnusualError, IndexError, ValueError):
        return None


def _read(data: bytes) -> PlainUpdate:
    at = _PREFIX_BYTES
    operation_id = _text(data, at)
    at += 1 + len(operation_id)
    action_id = _text(data, at)
    at += 1 + len(action_id)
    if data[at : at + 2] != _UPDATE_SUCCEEDED:
        raise _UnusualError
    at += 2
    resource = _text(data, at)
    at += 1 + len(resource)
    end = _after(data, at)
    occurred_at = _natural(data, at, end)
    if data[end] != _PRESENT:
        raise _UnusualError
    at = _after(data, end + 1)
    end = at + _natural(data, end + 1, at)
    before_text = data[at:end].decode()
    before = _flat_fields(before_text)
    at = _after(data, end)
    end = at + _natural(data, end, at)
    set_text = data[at:end].decode()
    set_ = _flat_fields(set_text)
    if data[end] != 0 or not set_:
        raise _UnusualError
    at = end + 1
    run_id = _text(data, at)
    at += 1 + len(run_id)
    step_id = _text(data, at)
    at += 1 + len(step_id)
    end = _after(data, at)
    sequence = _natural(data, at, end)
    actor: tuple[str, str] | None = None
    at = end + 1
    if data[end] == _PRESENT:
        actor_id = _text(data, at)
        at += 1 + len(actor_id)
        actor_kind = _text(data, at)
        at += 1 + len(actor_kind)
        actor = actor_id, actor_kind
    elif data[end] != _NULL:
        raise _UnusualError
    if data[at : at + 4] != _NO_ANNEX:
        raise _UnusualError
    workflow_id = _text(data, at + 4)
    at += 5 + len(workflow_id)
    workflow_version = _text(data, at)
    at += 1 + len(workflow_version)
    if data[at:] != _NO_ANNEX or not (operation_id and action_id and run_id and step_id):
        raise _UnusualError
    update: PlainUpdate = _new(
        PlainUpdate,
        (
            resource,
            occurred_at,
            operation_id,
            action_id,
            run_id,
            step_id,
            sequence,
            workflow_id,
            workflow_version,
            actor,
            before,
            before_text,
            before_text if _ascends(before) else canonical(before).decode(),
            set_,
            set_text,
            set_text if _ascends(set_) else canonical(set_).decode(),
        ),
    )
    return update


def _text(data: bytes, at: int) -> str:
    """The text whose length stands at a place: less than 64 letters that stand in a JSON string as they are, one byte each."""
    length = data[at]
    if length & _LONG_OR_NEGATIVE:
        raise _UnusualError
    at += 1
    end = at + (length >> 1)
    for place in range(at, end):
        byte = data[place]
        if byte < 0x20 or byte > 0x7E or byte in (0x22, 0x5C):
            raise _UnusualError
    return data[at:end].decode()


def _after(data: bytes, at: int) -> int:
    """The place after an integer."""
    end = at
    while data[end] & _MORE:
        end += 1
    return end + 1


def _natural(data: bytes, at: int, end: int) -> int:
    """An integer that isn't below zero."""
    if end - at > _MOST_BYTES or data[at] & 1:
        raise _UnusualError
    number = 0
    while end > at:
        end -= 1
        number = number << 7 | data[end] & 0x7F
    return number >> 1


def _flat_fields(text: str) -> dict[str, Any]:
    """The values by path of a JSON text, where each path is a member of the resource itself, each value a text, a whole number,
    true, false or null, and the text what JSON writers of ours make of these in their order.

    That the text is as short as its values can be written tells this: escapes, white space and paths that come twice make it
    longer than the sum of what is read, and nothing makes it shorter.
    """
    fields: Any = orjson.loads(text)
    if type(fields) is not dict:
        raise _UnusualError
    length = 1 if fields else 2
    for path, value in fields.items():
        if path.rfind("/") != 0 or "~" in path:
            raise _UnusualError
        length += len(path) + 4  # quotes, a colon, and a comma or the brace
        if type(value) is str:
            length += len(value) + 2
        elif value is None or value is True:
            length += 4
        elif value is False:
            length += 5
        elif type(value) is int:
            length += len(str(value))
        else:
            raise _UnusualError
    if length != len(text):
        raise _UnusualError
    flat: dict[str, Any] = fields
    return flat


def _ascends(fields: dict[str, Any]) -> bool:
    """Whether the paths come in the order that canonical JSON has them in."""
    above = ""
    for path in fields:
        if path < above:
            return False
        above = path
    return True
