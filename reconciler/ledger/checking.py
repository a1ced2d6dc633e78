"""Holding a resource's records against its chain, so that whatever is missing, edited, put in or swapped is named.

What the table keeps serves as *anchors*: each entry of the history knows its action, its position in the chain and the
chain up to there; the head knows how long the chain is and where it ends. Between two anchors stand only records that the
history doesn't keep: steps that began or failed, and echoes. Of these a fault can be placed, and nearly always named.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from reconciler.history.chain import FIRST, content_of, linked
from reconciler.history.entry import ADOPTION_PREFIX, Entry
from reconciler.json_form import to_json
from reconciler.records import Action, operation_of

FaultKind: TypeAlias = Literal["removed", "edited", "inserted", "moved", "broken"]


class Stored(msgspec.Struct, frozen=True):
    """A record of the ledger at its place."""

    partition: int
    offset: int
    action: Action

    def __str__(self) -> str:
        return f"{self.partition}/{self.offset}"


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What the table keeps of a resource. ``is_collapsed``: its oldest entries are no more there."""

    links: int = 0
    chain: str = FIRST
    entries: Sequence[Entry] = ()
    is_collapsed: bool = False


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with the ledger, and where. ``place`` is partition/offset, of what is there or comes next."""

    kind: FaultKind
    resource: str
    place: str
    operation_id: str
    message: str


class Link(NamedTuple):
    """A record with its place in the chain; position 0 for one that came again, which is no link."""

    stored: Stored
    position: int
    previous: str
    chain: str


class Checked(msgspec.Struct, frozen=True):
    """What became of a check. ``unread`` records came after the last that the table knows."""

    faults: list[Fault]
    records: int
    unread: int
    repeated: int


def links_of(records: Sequence[Stored], entries: Sequence[Entry] = ()) -> Iterator[Link]:
    """The records of one resource as a chain, in the order in which they stand."""
    positions = {entry.action.action_id: entry.link for entry in entries}
    seen: set[str] = set()
    position, chain = 0, FIRST
    for stored in records:
        action = stored.action
        if _is_repeated(action, seen) and positions.get(action.action_id) != position + 1:
            yield Link(stored, 0, chain, chain)
            continue
        seen.add(action.action_id)
        position, previous, chain = position + 1, chain, linked(chain, action)
        yield Link(stored, position, previous, chain)


def _is_repeated(action: Action, seen: set[str]) -> bool:
    """Whether the machine knew an action already. Of steps that began or failed it keeps nothing, so that each is a link."""
    return action.action_id in seen and (action.stage in ("succeeded", "reversed") or action.origin is not None)


def check(resource: str, records: Sequence[Stored], kept: Kept) -> Checked:
    """Checks the records of one resource, in the order in which they stand."""
    return _Check(resource, records, kept).run()


class _Check:
    def __init__(self, resource: str, records: Sequence[Stored], kept: Kept) -> None:
        self._resource = resource
        self._kept = kept
        self._faults: list[Fault] = []
        seen: set[str] = set()
        self._records: list[Stored] = []
        for stored in records:
            if not _is_repeated(stored.action, seen):
                self._records.append(stored)
            seen.add(stored.action.action_id)
        self._repeated = len(records) - len(self._records)
        # What is beyond the head was written after the head was read.
        self._anchors = {entry.action.action_id: entry for entry in kept.entries if 0 < entry.link <= kept.links}
        self._by_position = {entry.link: entry for entry in self._anchors.values()}
        self._there = {stored.action.action_id: index for index, stored in enumerate(self._records)}
        anchored = [index for name, index in self._there.items() if name in self._anchors]
        self._first, self._last = min(anchored, default=-1), max(anchored, default=-1)
        self._moved = set(anchored) - set(_longest_rise(anchored, lambda index: self._anchor_at(index).link))
        self._position, self._chain = 0, FIRST
        self._loose: list[Stored] = []
        """Records since the last anchor."""

    def run(self) -> Checked:
        for index, stored in enumerate(self._records[: self._last + 1]):
            anchor = self._anchors.get(stored.action.action_id)
            if anchor is not None:
                self._meet(stored, anchor, is_moved=index in self._moved)
            elif self._must_be_kept(stored.action, index):
                self._tell("inserted", stored, "isn't in the history of the resource: it was put into the ledger later")
            else:
                self._loose.append(stored)
        tail = self._records[self._last + 1 :]
        self._loose += tail
        missing = self._kept.links - self._position
        extra = max(len(self._loose) - missing + len(self._named_until(self._kept.links + 1)), 0)
        if missing or self._loose:
            self._settle(self._kept.links + 1, self._kept.chain, None, None, spare=extra)
        self._tell_removed()
        return Checked(sorted(self._faults, key=_order), len(self._records), extra, self._repeated)

    def _anchor_at(self, index: int) -> Entry:
        return self._anchors[self._records[index].action.action_id]

    def _must_be_kept(self, action: Action, index: int) -> bool:
        """Whether the history would have an action, were it one that the machine took."""
        may_be_collapsed = self._kept.is_collapsed and index < self._first
        return action.stage in ("succeeded", "reversed") and action.origin is None and not may_be_collapsed

    # -- from anchor to anchor

    def _meet(self, stored: Stored, anchor: Entry, *, is_moved: bool) -> None:
        if content_of(stored.action) != content_of(anchor.action):
            changed = ", ".join(_changed(anchor.action, stored.action))
            self._tell("edited", stored, f"was changed since it was taken: {changed}")
        if is_moved:
            self._tell("moved", stored, f"is the {anchor.link}. of its resource, and stands elsewhere among them")
            return
        self._settle(anchor.link, anchor.chain, anchor.action, stored)
        self._position, self._chain, self._loose = anchor.link, anchor.chain, []

    def _named_until(self, position: int) -> dict[int, Action]:
        """The actions that the history has between the last anchor met and a position: gone, or moved behind it."""
        return {
            at: self._by_position[at].action for at in range(self._position + 1, position) if at in self._by_position
        }

    def _settle(self, position: int, chain: str, last: Action | None, at: Stored | None, *, spare: int = 0) -> None:
        """Finds out what is wrong between the last anchor and a position where the chain is known. ``spare``: how many of the
        loose records may come after it."""
        named = self._named_until(position)
        free = position - self._position - 1 - len(named)
        loose = self._loose[: len(self._loose) - spare] if spare else self._loose

        def fits(candidates: Sequence[Stored]) -> bool:
            return self._fits(position, named, candidates, last, chain)

        if len(loose) == free:
            if fits(loose):
                return
            for index, (one, other) in enumerate(pairwise(loose)):
                if fits([*loose[:index], other, one, *loose[index + 2 :]]):
                    self._tell("moved", other, f"stands after {one}, before which it came")
                    return
            for candidates, extra in _without_one(self._loose[: free + 1] if spare else []):
                if fits(candidates):
                    self._tell("inserted", extra, "was put into the ledger later")
                    return
            self._tell_between("edited", at, f"{_these(loose)} changed, or exchanged for others")
        elif len(loose) > free:
            for candidates, extra in _without_one(loose if len(loose) == free + 1 else []):
                if fits(candidates):
                    self._tell("inserted", extra, "was put into the ledger later")
                    return
            self._tell_between("inserted", at, f"{len(loose) - free} of {_these(loose)} put in later")
        else:
            count = free - len(loose)
            what = "a record of a step that began or failed is" if count == 1 else f"{count} such records are"
            self._tell_between("removed", at, f"{what} gone")

    def _fits(
        self, position: int, named: dict[int, Action], loose: Sequence[Stored], last: Action | None, chain: str
    ) -> bool:
        """Whether the chain comes out right with what the history names in its places and these records in all others."""
        filling = iter(loose)
        at = self._chain
        for index in range(self._position + 1, position):
            action = named.get(index)
            if action is None:
                stored = next(filling, None)
                if stored is None:
                    return False
                action = stored.action
            at = linked(at, action)
        return (at if last is None else linked(at, last)) == chain

    # -- what is told

    def _tell(self, kind: FaultKind, stored: Stored, what: str) -> None:
        name = operation_of(stored.action)
        message = f"The record {stored} ({stored.action.stage} {name}) {what}."
        self._faults.append(
            Fault(kind=kind, resource=self._resource, place=str(stored), operation_id=name, message=message)
        )

    def _tell_between(self, kind: FaultKind, at: Stored | None, what: str) -> None:
        before = self._by_position.get(self._position)
        after = "from the beginning" if before is None else f"after {before.operation_id}"
        until = "up to the end that the table knows" if at is None else f"before {operation_of(at.action)} ({at})"
        place = at or (self._loose[0] if self._loose else self._records[-1] if self._records else None)
        self._faults.append(
            Fault(
                kind=kind,
                resource=self._resource,
                place="" if place is None else str(place),
                operation_id="" if before is None else before.operation_id,
                message=f"Between the records {after} and {until}, {what}.",
            )
        )

    def _tell_removed(self) -> None:
        for entry in self._kept.entries:
            action = entry.action
            is_ours_alone = entry.link == 0 and action.action_id.startswith(ADOPTION_PREFIX)
            if action.action_id in self._there or entry.link > self._kept.links or is_ours_alone:
                continue
            following = [
                (other.link, index)
                for name, index in self._there.items()
                if (other := self._anchors.get(name)) is not None and other.link > entry.link
            ]
            place = str(self._records[min(following)[1]]) if following and entry.link else ""
            where = f"; it stood before {place}" if place else "; it stood at the end"
            self._faults.append(
                Fault(
                    kind="removed",
                    resource=self._resource,
                    place=place,
                    operation_id=entry.operation_id,
                    message=f"The record of {action.stage} {entry.operation_id} (entry {entry.number} of the history,"
                    f" action {action.action_id}) is gone{where}.",
                )
            )


def _longest_rise(items: Sequence[int], key: Callable[[int], int]) -> list[int]:
    """The longest choice of some numbers, in their order, whose keys rise: what is left when the fewest are taken out."""
    ends: list[int] = []
    keys: list[int] = []
    before: dict[int, int | None] = {}
    for item in sorted(items):
        at = bisect_left(keys, key(item))
        before[item] = ends[at - 1] if at else None
        keys[at : at + 1] = [key(item)]
        ends[at : at + 1] = [item]
    rise: list[int] = []
    item_: int | None = ends[-1] if ends else None
    while item_ is not None:
        rise.append(item_)
        item_ = before[item_]
    return rise


def _without_one(records: Sequence[Stored]) -> Iterator[tuple[list[Stored], Stored]]:
    for index, extra in enumerate(records):
        yield [*records[:index], *records[index + 1 :]], extra


def _these(records: Sequence[Stored]) -> str:
    if len(records) == 1:
        return f"the record {records[0]} ({records[0].action.stage} {operation_of(records[0].action)}) was"
    return f"the {len(records)} records from {records[0]} to {records[-1]} were"


def _changed(before: Action, after: Action) -> list[str]:
    """The fields in which two actions differ; their values aren't told, they may be sensitive."""
    one, other = to_json(before), to_json(after)
    return [name for name in one if one[name] != other.get(name)]


def _order(fault: Fault) -> tuple[int, int, str]:
    partition, _, offset = fault.place.partition("/")
    return (int(partition), int(offset), fault.kind) if offset else (1 << 62, 0, fault.kind)
