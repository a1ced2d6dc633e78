"""All that the resource table knows of one resource, as it is told to a rollback."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.machines.head import ACTION_PREFIX, BASE_ENTRY, Head, last_observation
from reconciler.machines.protocol import HistoryReader
from reconciler.records import Dossier


def dossier_of(head: Head, history: HistoryReader, partition: int, offsets: Mapping[str, int]) -> Dossier:
    """The dossier of a resource. ``offsets`` says where its actions stand in their partition of the ledger
    (`reconciler.plan.index.offsets_of`)."""
    base: str | None = None
    entries: list[tuple[str, str]] = []
    for entry_id, value in history.entries():
        if entry_id == BASE_ENTRY:
            base = value.decode()
        elif entry_id.startswith(ACTION_PREFIX):
            entries.append((entry_id.removeprefix(ACTION_PREFIX), value.decode()))
    entries.sort()
    return Dossier(
        resource=head.resource,
        base=base,
        collapsed=head.collapsed,
        entries=[text for _, text in entries],
        in_flight=head.in_flight,
        observation=last_observation(history),
        is_held=head.hold is not None,
        partition=partition,
        offsets={action_id: offsets[action_id] for action_id, _ in entries if action_id in offsets},
    )
