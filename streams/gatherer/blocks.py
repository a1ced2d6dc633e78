"""What the index of the ledger is made of, as bytes. No I/O; what is done for every action is done for many at once.

An action is a *row*, and its number counts the actions of its partition. Rows are packed 16 to a *group*. What an action is
found under is a *fingerprint* of 32 bits for each term. It may be that of several terms, so who looks something up asks the row
as well (`Row.is_under`).

A *block* is what one read brings: the rows, and their fingerprints as one array a kind of term, in the order of the rows, for
what every row has one of; and as a pair of arrays for what a row may have several of. What becomes of these stands in `young`.
Arrays are of the machine's own byte order.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, get_args
from zlib import crc32

import msgspec

from reconciler.contracts.model import ContractSet
from reconciler.plan.index import Posting, Term, TermKind, referred_by
from reconciler.records import Action, Stage, operation_of
from reconciler.values.instant import Instant

Integers: TypeAlias = "array[int]"

GROUP: Final = 16
"""Rows in a group."""

_SEEDS: Final[dict[TermKind, int]] = {kind: number for number, kind in enumerate(get_args(TermKind), 1)}
OWN: Final[tuple[TermKind, ...]] = ("operation", "run", "resource")
SHARED: Final[tuple[TermKind, ...]] = ("workflow", "actor", "system")
COLUMNS: Final = (*OWN, *SHARED)
"""The kinds of term of which an action has one at the most: mostly one of its own, or one that it shares with many."""

NONE: Final = 0
"""No term has this fingerprint."""
INTEGER_BYTES: Final = 4

SIZES: Final = struct.Struct("=II")
"""How many rows a block has, and how many further fingerprints: with these its fingerprints begin."""
_NOTHING: Final[Sequence[str]] = ()


class Row(NamedTuple):
    """An action, with all that it is found under."""

    offset: int
    operation_id: str
    """As of `operation_of`."""
    resource: str
    action_id: str
    occurred_at: Instant
    stage: Stage
    run_id: str
    workflow_id: str
    actor: str | None
    depends_on: Sequence[str]
    refers_to: Sequence[str]

    def posting(self) -> Posting:
        """As it stands under each of its terms."""
        return Posting(*self[:6])

    def is_under(self, term: Term) -> bool:
        """Whether it is found under a term."""
        kind, value = term
        match kind:
            case "operation":
                return self.operation_id == value
            case "run":
                return self.run_id == value
            case "workflow":
                return self.workflow_id == value and bool(value)
            case "actor":
                return self.actor == value
            case "system":
                return self.resource.partition("/")[0] == value
            case "resource":
                return self.resource == value
            case "depends_on":
                return value in self.depends_on
            case "refers_to":
                return value in self.refers_to


# -- rows

_encode = msgspec.msgpack.Encoder().encode
_ROWS: Final = msgspec.msgpack.Decoder(list[Row])
_SHORT_LIST: Final = 16
_LIST: Final = struct.Struct(">BH")
_LIST_TAG: Final = 0xDC


def rows_of(group: bytes) -> list[Row]:
    """The rows of a group."""
    return _ROWS.decode(_LIST.pack(_LIST_TAG, group[0]) + group[1:])


def place_of(row: int) -> tuple[int, int]:
    """In which group a row is, and where in it."""
    return row // GROUP, row % GROUP


def grouped(rows: Sequence[tuple[Any, ...]], tail: bytes) -> Iterator[bytes]:
    """Rows in groups, the first of which begins with `tail`, the last group there was where it isn't full yet, else nothing.

    A group is the number of its rows, and the rows as msgpack has them: so rows can be added to it without reading it.
    """
    before = tail[0] if tail else 0
    body, start = tail[1:], 0
    while start < len(rows):
        part = rows[start : start + GROUP - before]
        encoded = _encode(part)
        yield b"".join((bytes((before + len(part),)), body, encoded[1 if len(part) < _SHORT_LIST else _LIST.size :]))
        before, body, start = 0, b"", start + len(part)


# -- fingerprints


class Block(NamedTuple):
    """Some actions, packed."""

    rows: list[tuple[Any, ...]]
    columns: list[Integers]
    """The fingerprints of the rows, for each of `COLUMNS`."""
    further: Integers
    """Further fingerprints."""
    further_rows: Integers
    """The rows that they are of."""

    def fingerprints(self) -> bytes:
        """All of it but the rows."""
        sizes = SIZES.pack(len(self.rows), len(self.further))
        return b"".join((sizes, *(column.tobytes() for column in (*self.columns, self.further, self.further_rows))))


def pack(actions: Sequence[tuple[int, Action]], first_row: int, contracts: ContractSet) -> Block:
    """Packs actions, in the order of their offsets, as the rows from `first_row` on."""
    refers_to = _references(actions, contracts)
    rows: list[tuple[Any, ...]] = [
        (
            offset,
            action.operation_id if action.stage != "reversed" else operation_of(action),
            action.resource,
            action.action_id,
            action.occurred_at,
            action.stage,
            action.run_id,
            action.workflow_id,
            None if action.actor is None else action.actor.id,
            action.depends_on,
            refers_to.get(offset, _NOTHING),
        )
        for offset, action in actions
    ]
    # From here on an action is not looked at again: they lie far apart in memory.
    _, operations, resources, _, _, _, runs, workflows, actors, depends_on, referring = zip(*rows, strict=True)
    systems = [resource[: resource.find("/")] for resource in resources]
    further, further_rows = _further(depends_on, referring, first_row)
    columns = [
        *(_own(kind, values) for kind, values in zip(OWN, (operations, runs, resources), strict=True)),
        _shared("workflow", [workflow or None for workflow in workflows]),
        _shared("actor", actors),
        _shared("system", systems),
    ]
    return Block(rows, columns, further, further_rows)


def _references(actions: Sequence[tuple[int, Action]], contracts: ContractSet) -> dict[int, Sequence[str]]:
    """To what actions refer, by their offsets."""
    if not any(contract.references for contract in contracts.contracts):
        return {}
    return {offset: tuple(dict.fromkeys(referred_by(action, contracts))) for offset, action in actions}


def _own(kind: TermKind, values: Sequence[str]) -> Integers:
    """Fingerprints where most values are there once: for each the checksum is computed, as in `fingerprint_of`."""
    seed = _SEEDS[kind]
    return array("I", [crc32(value.encode(), seed) or 1 for value in values])


def _shared(kind: TermKind, values: Sequence[str | None]) -> Integers:
    """Fingerprints where most values are there often."""
    known: dict[str | None, int] = {
        value: NONE if value is None else fingerprint_of(Term(kind, value)) for value in set(values)
    }
    return array("I", [known[value] for value in values])


def _further(
    depends_on: Sequence[Sequence[str]], refers_to: Sequence[Sequence[str]], first_row: int
) -> tuple[Integers, Integers]:
    further, rows = array("I"), array("I")
    kinds: tuple[tuple[TermKind, Sequence[Sequence[str]]], ...] = (("depends_on", depends_on), ("refers_to", refers_to))
    for kind, lists in kinds:
        for row, values in enumerate(lists, first_row):
            if values:
                for value in dict.fromkeys(values):
                    further.append(fingerprint_of(Term(kind, value)))
                    rows.append(row)
    return further, rows


def fingerprint_of(term: Term) -> int:
    """The fingerprint of a term, 32 bits, never 0."""
    return crc32(term.value.encode(), _SEEDS[term.kind]) or 1
