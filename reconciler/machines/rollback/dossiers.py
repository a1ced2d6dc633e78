"""The estate, as far as the partitions' dossiers tell of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from reconciler.contracts.model import ContractSet
from reconciler.history.entry import Entry
from reconciler.history.resource import EMPTY_BASE, Base, ResourceHistory
from reconciler.plan.estate import Estate, Operation
from reconciler.records import Action, Dossier, Observation, operation_of
from reconciler.values.instant import Instant

_dossier_decoder: Final = msgspec.json.Decoder(Dossier)
_entry_decoder: Final = msgspec.json.Decoder(Entry)
_base_decoder: Final = msgspec.json.Decoder(Base)


class Known(msgspec.Struct, frozen=True):
    """What is known of an estate, for planning."""

    estate: Estate
    observations: list[Observation]
    told: dict[int, set[str]]
    """The operations of which each partition's dossiers tell."""
    has_collapsed: set[int]
    """The partitions of which a dossier's oldest entries are gone."""

    def collapsed(self, matched: Mapping[int, AbstractSet[str]]) -> set[str]:
        """The operations that a partition matched, and of which its dossiers tell no more."""
        return {
            name
            for partition, names in matched.items()
            if partition in self.has_collapsed
            for name in names - self.told.get(partition, set())
        }


def decode_dossier(value: bytes) -> Dossier:
    """A dossier as it was stored."""
    return _dossier_decoder.decode(value)


def known_of(dossiers: Iterable[Dossier], contracts: ContractSet) -> Known:
    """The estate of some dossiers, whatever their order. Operations stand in the order of the log: in a partition by their
    offsets, between partitions by when they happened as far as that contradicts no offset."""
    estate = Estate(contracts)
    observations: list[Observation] = []
    actions: dict[int, list[tuple[int, Action]]] = {}
    has_collapsed: set[int] = set()
    for dossier in sorted(dossiers, key=lambda item: item.resource):
        history = _history(dossier, contracts)
        estate.histories[dossier.resource] = history
        if dossier.observation is not None:
            observations.append(dossier.observation)
        if dossier.collapsed:
            has_collapsed.add(dossier.partition)
        of_partition = actions.setdefault(dossier.partition, [])
        for entry in history.entries:
            action = entry.action
            of_partition.append((dossier.offsets.get(action.action_id, 0), action))
        of_partition += (
            (_LAST, _begun(name, dossier.resource, since)) for name, since in sorted(dossier.in_flight.items())
        )
    for position, action in enumerate(_in_order(actions), 1):
        name = operation_of(action)
        operation = estate.operations.get(name)
        if operation is None:
            operation = estate.operations[name] = Operation(name, position, [])
        operation.actions.append(action)
    told = {partition: {operation_of(action) for _, action in found} for partition, found in actions.items()}
    return Known(estate, observations, told, has_collapsed)


_LAST: Final = 1 << 62  # where work stands that has only begun: after all that has ended


def _history(dossier: Dossier, contracts: ContractSet) -> ResourceHistory:
    return ResourceHistory.restored(
        dossier.resource,
        contracts.for_resource(dossier.resource),
        map(_entry_decoder.decode, dossier.entries),
        base=EMPTY_BASE if dossier.base is None else _base_decoder.decode(dossier.base),
        collapsed=dossier.collapsed,
        in_flight=dossier.in_flight,
    )


def _begun(operation_id: str, resource: str, since: Instant) -> Action:
    """What is left of work that began and hasn't ended: its name, its resource and since when."""
    return Action(
        stage="initiated",
        run_id=operation_id.partition("/")[0],
        step_id=operation_id.partition("/")[2] or operation_id,
        operation_id=operation_id,
        action_id=f"{operation_id} on {resource}",
        occurred_at=since,
        resource=resource,
        operation="update",
    )


def _in_order(actions: dict[int, list[tuple[int, Action]]]) -> list[Action]:
    placed: list[tuple[Instant, int, int, str, Action]] = []
    for partition, of_partition in actions.items():
        latest = 0
        for offset, action in sorted(of_partition, key=lambda item: (item[0], item[1].action_id)):
            latest = max(latest, action.occurred_at)
            placed.append((latest, partition, offset, action.action_id, action))
    placed.sort(key=lambda item: item[:4])
    return [action for *_, action in placed]
