"""The ledger from outside: reading it from its topics, a partition at a time, and holding it against what the table keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Final, Self

import msgspec

from reconciler.history.entry import Entry
from reconciler.ledger.checking import Checked, Fault, Kept, Link, Stored, check, links_of
from reconciler.machines.head import ACTION_PREFIX, BASE_ENTRY, Head, decode_entry, decode_head
from reconciler.records import Action, RollbackEvent, RollbackRequest
from reconciler.values.errors import InputError
from reconciler.wire.changelog import ExpectedHead, HistoryEntry
from reconciler.wire.codec import Codec
from reconciler.wire.errors import DecodeError
from reconciler.wire.partition import partition_of
from reconciler.wire.topics import TopicNames
from streams.dead_letters import read_dead_letters
from streams.reading import Found, TopicReader, TopicUnreadable, read_topic
from streams.settings import Settings

_TABLE: Final = "resources"


class Unusable(msgspec.Struct, frozen=True):
    """A record of the ledger's topic that is no part of any chain, and why."""

    partition: int
    offset: int
    reason: str


class Partition(msgspec.Struct, frozen=True):
    """One partition of the ledger: the records by resource, each in its order; and those that are part of no chain."""

    number: int
    begins_at: int
    """The offset at which it begins: above 0, older records are gone."""
    records: dict[str, list[Stored]]
    unusable: list[Unusable]


class PartitionChecked(msgspec.Struct, frozen=True):
    """What became of checking one partition. ``links`` are its records as chains, in the order of the partition."""

    partition: Partition
    faults: list[Fault]
    resources: int
    records: int
    unread: int
    repeated: int
    links: list[Link]


class Ledger:
    """Reads the topics. Every method raises TopicUnreadable."""

    def __init__(self, settings: Settings, codec: Codec) -> None:
        self._settings = settings
        self._codec = codec
        self._topics = TopicNames(settings.topic_prefix)
        self._reader = TopicReader(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.__exit__(*error)

    @cached_property
    def partitions(self) -> list[int]:
        """The partitions of the ledger."""
        return sorted(self._reader.partitions(self._topics.actions))

    def partition_of(self, resource: str) -> int:
        """The partition in which a resource's records stand."""
        return partition_of(resource.encode(), len(self.partitions))

    def read(self, partition: int) -> Partition:
        """One partition of the ledger, to its end."""
        count = len(self.partitions)
        records: dict[str, list[Stored]] = {}
        unusable: list[Unusable] = []
        for found in self._reader.read(self._topics.actions, [partition]):
            action = self._action(found, count, unusable)
            if action is not None:
                records.setdefault(action.resource, []).append(Stored(partition, found.offset, action))
        begins_at = self._reader.begin(self._topics.actions, partition)
        return Partition(partition, begins_at, records, unusable)

    def _action(self, found: Found, partitions: int, unusable: list[Unusable]) -> Action | None:
        """The action of a record, where the worker would have taken it; else it is no part of the ledger."""
        reason = None
        record = None
        try:
            record = self._codec.decode(found.value)
        except DecodeError as error:
            reason = str(error)
        if isinstance(record, Action):
            key = record.resource.encode()
            if (found.partition, found.offset) in self._dead_letters:
                reason = "was put aside as a dead letter"
            elif found.key != key:
                reason = "has another key than its resource"
            elif partition_of(key, partitions) != found.partition:
                reason = "stands in the wrong partition, from where it was forwarded"
            else:
                return record
        unusable.append(Unusable(found.partition, found.offset, reason or "is no action"))
        return None

    @cached_property
    def _dead_letters(self) -> set[tuple[int, int]]:
        return {
            (letter.partition, letter.offset)
            for letter in read_dead_letters(self._settings)
            if letter.topic == self._topics.actions
        }

    def kept(self, partition: int) -> dict[str, Kept]:
        """What the table keeps of the resources of a partition."""
        heads: dict[str, Head] = {}
        for found in self._reader.read(self._topics.expected, [partition]):
            head = self._head(found)
            if head is not None:
                heads[head.resource] = head
        entries: dict[bytes, tuple[str, Entry]] = {}
        collapsed: dict[bytes, str] = {}
        for found in self._reader.read(self._topics.history, [partition]):
            key = found.key or b""
            entries.pop(key, None)
            self._keep(found, key, entries, collapsed)
        by_resource: dict[str, list[Entry]] = {}
        for resource, entry in entries.values():
            by_resource.setdefault(resource, []).append(entry)
        bases = set(collapsed.values())
        return {
            resource: Kept(
                links=head.links,
                chain=head.chain,
                entries=sorted(by_resource.get(resource, []), key=lambda entry: entry.number),
                is_collapsed=head.collapsed > 0 or resource in bases,
            )
            for resource, head in heads.items()
        }

    def _head(self, found: Found) -> Head | None:
        try:
            record = None if found.value is None else self._codec.decode(found.value)
            return decode_head(record.state) if isinstance(record, ExpectedHead) and record.table == _TABLE else None
        except (DecodeError, msgspec.DecodeError) as error:
            raise _unreadable(found, error) from None

    def _keep(
        self, found: Found, key: bytes, entries: dict[bytes, tuple[str, Entry]], collapsed: dict[bytes, str]
    ) -> None:
        if found.value is None:
            return
        try:
            record = self._codec.decode(found.value)
            if not isinstance(record, HistoryEntry) or record.table != _TABLE or not record.resource:
                return
            if record.entry_id == BASE_ENTRY:
                collapsed[key] = record.resource
            elif record.entry_id.startswith(ACTION_PREFIX):
                entries[key] = (record.resource, decode_entry(record.entry))
        except (DecodeError, msgspec.DecodeError) as error:
            raise _unreadable(found, error) from None

    # -- what is asked

    def check(self, partition: int, resource: str | None = None) -> PartitionChecked:
        """Holds a partition, or one resource in it, against what the table keeps. The table is read first: what the ledger
        then has more is unread, and not put in."""
        kept = self.kept(partition)
        read = self.read(partition)
        names = sorted(read.records.keys() | kept.keys()) if resource is None else [resource]
        checks: list[Checked] = [check(name, read.records.get(name, []), kept.get(name, Kept())) for name in names]
        return PartitionChecked(
            partition=read,
            faults=[fault for each in checks for fault in each.faults],
            resources=len(names),
            records=sum(each.records for each in checks),
            unread=sum(each.unread for each in checks),
            repeated=sum(each.repeated for each in checks),
            links=sorted(
                (
                    link
                    for name in names
                    for link in links_of(read.records.get(name, []), kept.get(name, Kept()).entries)
                ),
                key=lambda link: link.stored.offset,
            ),
        )

    def of_resource(self, resource: str) -> list[Stored]:
        """Every record of a resource."""
        return self.read(self.partition_of(resource)).records.get(resource, [])

    def touched(self, is_wanted: Callable[[Action], bool]) -> Iterator[Stored]:
        """Every record of all resources of which some record is wanted."""
        for partition in self.partitions:
            for records in self.read(partition).records.values():
                if any(is_wanted(stored.action) for stored in records):
                    yield from records

    def requests(self, rollback_id: str) -> list[RollbackRequest]:
        """What people said to a rollback, in order."""
        found = read_topic(self._settings, self._topics.rollback_requests)
        said = [self._record(each) for each in found if each.key == rollback_id.encode()]
        return [record for record in said if isinstance(record, RollbackRequest)]

    def events(self, rollback_id: str) -> list[RollbackEvent]:
        """What became of a rollback, in order."""
        found = read_topic(self._settings, self._topics.rollback_events)
        told = [self._record(each) for each in found if each.key == rollback_id.encode()]
        events = {record.sequence: record for record in told if isinstance(record, RollbackEvent)}
        return [events[sequence] for sequence in sorted(events)]

    def _record(self, found: Found) -> object:
        try:
            return self._codec.decode(found.value)
        except (DecodeError, InputError) as error:
            raise _unreadable(found, error) from None


def _unreadable(found: Found, error: Exception) -> TopicUnreadable:
    return TopicUnreadable(f"{found.topic} holds at {found.partition}/{found.offset} what can't be read: {error}")
