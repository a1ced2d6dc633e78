"""The ledger as a file: JSON Lines that `reconciler fold --actions` reads, and that can be checked by themselves.

Each line is an action in its JSON form with one more member, ``ledger``: where it stood, its position among the records of
its resource, the chain before it and with it. A line of a record that came again has position 0. What closes the file has no
action: of each resource how long its chain is and where it ends, and then the *seal*, a digest of all these ends. Whoever
keeps the seal elsewhere can tell later whether even the whole file was exchanged.

A file with a selection of records (of a run, say) has no ends and no seal: its lines are checked each, and between each other
where they follow on each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

from reconciler.history.chain import FIRST, linked
from reconciler.json_form import action_from_json, to_json
from reconciler.ledger.checking import Link, Stored
from reconciler.values.errors import InputError
from reconciler.values.json_value import Json, canonical

MEMBER: Final = "ledger"


class Place(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of one line: where its record stood, and its link."""

    partition: int
    offset: int
    position: int
    previous: str
    chain: str


class End(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of one resource: the length of its chain, and its last link."""

    resource: str
    links: int
    end: str


class Seal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the whole file."""

    seal: str
    resources: int
    records: int


class FileFault(NamedTuple):
    """What is wrong with a file, and in which line; 0 where the end is meant."""

    line: int
    resource: str
    operation_id: str
    message: str


class FileChecked(msgspec.Struct, frozen=True):
    """What became of a check. ``seal`` is what the records come to; None for a selection."""

    faults: list[FileFault]
    records: int
    resources: int
    seal: str | None


def line_of(link: Link) -> dict[str, Json]:
    """The line of a record."""
    stored = link.stored
    place = Place(
        partition=stored.partition,
        offset=stored.offset,
        position=link.position,
        previous=link.previous,
        chain=link.chain,
    )
    return to_json(stored.action) | {MEMBER: msgspec.to_builtins(place)}


def closing_lines(ends: Mapping[str, tuple[int, str]], records: int) -> Iterator[dict[str, Json]]:
    """What closes a whole export: the ends of the chains by resource, and the seal."""
    for resource, (links, chain) in sorted(ends.items()):
        yield {MEMBER: msgspec.to_builtins(End(resource=resource, links=links, end=chain))}
    yield {MEMBER: msgspec.to_builtins(Seal(seal=seal_of(ends), resources=len(ends), records=records))}


def seal_of(ends: Mapping[str, tuple[int, str]]) -> str:
    """One digest (SHA-256, hex) of where all chains end."""
    content = [[resource, links, chain] for resource, (links, chain) in sorted(ends.items())]
    return hashlib.sha256(canonical(content)).hexdigest()


def action_in(line: Json) -> Json | None:
    """The action of a line of a file that may be an export, as plain JSON; None for what closes one."""
    if not isinstance(line, dict) or MEMBER not in line:
        return line
    rest = {name: value for name, value in line.items() if name != MEMBER}
    return rest or None


def placed_action(line: Json) -> Stored | None:
    """The record of a line; None for what closes a file. Raises InputError where it has no place."""
    data = action_in(line)
    if data is None:
        return None
    if data is line:
        raise InputError("has no place in the ledger; give a file that `reconciler ledger export` wrote")
    try:
        place = msgspec.convert(line[MEMBER], Place)
    except msgspec.ValidationError as error:
        raise InputError(str(error), field=MEMBER) from None
    return Stored(place.partition, place.offset, action_from_json(data))


def check_lines(lines: Iterable[Json]) -> FileChecked:
    """Checks the lines of an export."""
    check = _FileCheck()
    for number, line in enumerate(lines, 1):
        check.take(number, line)
    return check.finish()


class _FileCheck:
    def __init__(self) -> None:
        self._faults: list[FileFault] = []
        self._gaps: list[FileFault] = []
        """Faults in a whole export alone, and whether it is one shows at its end."""
        self._at: dict[str, tuple[int, str, int]] = {}
        """Of each resource the position and chain that were met last, and in which line."""
        self._ends: dict[str, End] = {}
        self._seal: Seal | None = None
        self._records = 0

    def take(self, number: int, line: Json) -> None:
        """One line."""
        if not isinstance(line, dict) or MEMBER not in line:
            self._tell(number, "", "", "it has no place in the ledger: it was put in, or the file is no export")
            return
        try:
            if "action_id" in line or "stage" in line:
                self._take_record(number, line)
            elif isinstance(line[MEMBER], dict) and "seal" in line[MEMBER]:
                self._seal = msgspec.convert(line[MEMBER], Seal)
            else:
                end = msgspec.convert(line[MEMBER], End)
                self._ends[end.resource] = end
        except (InputError, msgspec.ValidationError) as error:
            self._tell(number, "", "", f"it can't be read: {error}")

    def _take_record(self, number: int, line: dict[str, Json]) -> None:
        place = msgspec.convert(line[MEMBER], Place)
        action = action_from_json(action_in(line))
        self._records += 1
        known = self._at.get(action.resource)
        resource, operation = action.resource, action.operation_id
        if place.position == 0:
            return
        if linked(place.previous, action) != place.chain:
            self._tell(number, resource, operation, "it was changed: it doesn't give the link that stands beside it")
        if known is not None:
            position, chain, at = known
            if place.position <= position:
                self._tell(number, resource, operation, f"it stands after line {at}, before which it came")
                return
            if place.position == position + 1 and place.previous != chain:
                self._tell(
                    number, resource, operation, f"its chain doesn't go on from line {at}: one of them was exchanged"
                )
        self._at[resource] = (place.position, place.chain, number)
        self._check_gap(number, resource, operation, known, place)

    def _check_gap(
        self, number: int, resource: str, operation: str, known: tuple[int, str, int] | None, place: Place
    ) -> None:
        position, chain, at = (0, FIRST, 0) if known is None else known
        missing = place.position - position - 1
        if missing > 0:
            since = f"after line {at}" if at else "from the beginning"
            what = "a record is" if missing == 1 else f"{missing} records are"
            self._gaps.append(FileFault(number, resource, operation, f"{what} missing before it, {since}"))
        elif known is None and place.previous != chain:
            self._tell(number, resource, operation, "it is said to be the first of its resource, and its chain isn't")

    def finish(self) -> FileChecked:
        """After the last line."""
        if self._seal is None and not self._ends:
            return FileChecked(sorted(self._faults), self._records, len(self._at), None)
        self._faults += self._gaps
        if self._seal is None:
            self._tell(0, "", "", "the seal is missing: the end of the file is gone")
        for resource, end in sorted(self._ends.items()):
            position, chain, _ = self._at.get(resource, (0, FIRST, 0))
            if position != end.links:
                self._tell(
                    0, resource, "", f"its chain has {end.links} records, and the last in the file is number {position}"
                )
            elif chain != end.end:
                self._tell(0, resource, "", "its chain ends elsewhere than the file says")
        for resource in sorted(self._at.keys() - self._ends.keys()):
            self._tell(
                0, resource, "", "nothing says where its chain ends: the line was taken out, or its records put in"
            )
        seal = seal_of({resource: (links, chain) for resource, (links, chain, _) in self._at.items()})
        if self._seal is not None and self._seal.records != self._records:
            self._tell(0, "", "", f"the file was sealed with {self._seal.records} records, and holds {self._records}")
        if self._seal is not None and self._seal.seal != seal and not self._faults:
            self._tell(0, "", "", "the seal isn't that of the records")
        return FileChecked(sorted(self._faults), self._records, len(self._at), seal)

    def _tell(self, line: int, resource: str, operation_id: str, message: str) -> None:
        self._faults.append(FileFault(line, resource, operation_id, message))
