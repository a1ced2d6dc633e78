"""What the four offline commands compute: from records alone, with no Kafka, no clock and no files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from reconciler.contracts.masking import masked_drift
from reconciler.contracts.model import ContractSet
from reconciler.drift.compare import compare, is_settling
from reconciler.drift.correct import correction
from reconciler.history.members import STEPPED
from reconciler.history.resource import ResourceHistory
from reconciler.history.tree import BASE, Leaf, Node, Object, Unknown
from reconciler.json_form import to_json
from reconciler.plan.estate import Estate, estate_of
from reconciler.plan.model import Plan
from reconciler.records import Action, Command, FieldDrift, Observation, RollbackRequest, Verdict
from reconciler.targets.apply import Refusal, decide
from reconciler.values.instant import Instant
from reconciler.values.json_value import ABSENT, Absent, Json
from reconciler.values.pointer import path_of

if TYPE_CHECKING:
    from reconciler.plan.verify import Fault


class FaultyPlan(Exception):
    """The planner made a plan that the independent look at it finds wrong: a bug, never an error of who asked."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(f"the plan has {len(faults)} faults, the first: {faults[0]}")
        self.faults = tuple(faults)


def folded(
    actions: Iterable[Action], contracts: ContractSet, remarks: list[str] | None = None
) -> Iterator[dict[str, Json]]:
    """What `fold` prints: what is expected of each resource, in the order of their keys. What of the actions couldn't be used
    is added to `remarks`, a sentence each."""
    estate = estate_of(actions, contracts)
    _remark(estate, remarks)
    for resource in sorted(estate.histories):
        yield expected_of(estate.histories[resource])


def expected_of(history: ResourceHistory) -> dict[str, Json]:
    """The expected state of a resource: its existence, and its known fields with the owners of those that have one."""
    fields: dict[str, Json] = {}
    owners: dict[str, list[str]] = {}
    for path, node in _fields("", history.tree):
        fields[path] = node.value if type(node) is Leaf else {}
        if node.owner != BASE:
            owners[path] = _owners(history, path, node)
    exists = None if isinstance(history.tree, Unknown) else isinstance(history.tree, Object)
    return {"resource": history.resource, "exists": exists, "fields": fields, "owners": owners}


def _fields(path: str, node: Node) -> list[tuple[str, Leaf | Object]]:
    """The paths of all scalars, arrays and empty objects below a node that is itself at `path`, in the order of the tree."""
    found: list[tuple[str, Leaf | Object]] = []
    if type(node) is not Object:
        return found
    for name, member in node.members.items():
        place = f"{path}/{name}" if "~" not in name and "/" not in name else path + path_of((name,))
        if type(member) is Leaf:
            found.append((place, member))
        elif type(member) is Object:
            found += _fields(place, member) or [(place, member)]
    return found


def _owners(history: ResourceHistory, path: str, node: Leaf | Object) -> list[str]:
    """Who determines a field: its last writer, or of a value whose members stand on their own all who wrote it."""
    if node.owner < 0 or not history.contract.kinds or history.contract.rule(path).kind not in STEPPED:
        return [history.owner_of(node.owner)]
    writers = [
        entry.operation_id
        for entry in history.entries
        if entry.number not in history.undone
        and not entry.is_reversal
        and (path in entry.action.set or path in entry.action.unset)
    ]
    return list(dict.fromkeys(writers)) or [history.owner_of(node.owner)]


def _remark(estate: Estate, remarks: list[str] | None) -> None:
    if remarks is not None:
        for action in estate.contradicted:
            remarks.append(
                f"the action {action.action_id} of {action.resource} comes again with another body, and only its first counts;"
                " give each action an id of its own."
            )


def diffed(
    actions: Iterable[Action],
    observations: Sequence[Observation],
    contracts: ContractSet,
    remarks: list[str] | None = None,
) -> Iterator[dict[str, Json]]:
    """What `diff` prints: the verdict on each resource that a workflow touched, in the order of their keys. Remarks as in
    `folded`."""
    estate = estate_of(actions, contracts, observations)
    _remark(estate, remarks)
    latest = latest_observations(observations)
    for resource in sorted(estate.histories):
        history = estate.histories[resource]
        verdict, changes, command = judged(history, latest.get(resource))
        yield {
            "resource": resource,
            "verdict": verdict,
            "changes": [to_json(masked_drift(history.contract, change)) for change in changes],
            "command": None if command is None else to_json(command),
        }


def judged(
    history: ResourceHistory, observation: Observation | None
) -> tuple[Verdict, list[FieldDrift], Command | None]:
    """The verdict on one resource as of its observation's own instant, and the command once the drift is confirmed."""
    if observation is None or observation.exists is None:
        return "unknown", [], None
    if observation.observed_at is not None:
        since = max(history.in_flight.values(), default=None)
        if is_settling(history.contract, history.last_write_at, since, observation.observed_at):
            return "settling", [], None
    verdict, changes = compare(history.tree, observation, history.contract)
    return verdict, changes, correction(history.resource, changes, observation, history.contract)


def planned(
    actions: Sequence[Action],
    observations: Sequence[Observation],
    request: RollbackRequest,
    contracts: ContractSet,
    now: Instant | None = None,
    remarks: list[str] | None = None,
) -> Plan:
    """What `plan` prints. Without `now`, it is the latest instant that the input speaks of. Remarks as in `folded`."""
    # Half of what is imported here, and neither `fold` nor `diff` needs it.
    from reconciler.plan.build import build  # noqa: PLC0415
    from reconciler.plan.verify import verify  # noqa: PLC0415

    estate: Estate = estate_of(actions, contracts, observations)
    _remark(estate, remarks)
    if now is None:
        now = max(
            [action.occurred_at for action in actions]
            + [item.observed_at for item in observations if item.observed_at is not None],
            default=0,
        )
    latest = list(latest_observations(observations).values())
    result = build(request, estate, latest, now)
    faults = verify(result, request, estate, latest)
    if faults:
        raise FaultyPlan(faults)
    return result.plan


def latest_observations(observations: Iterable[Observation]) -> dict[str, Observation]:
    """The observation of each resource that was made last; of two without an instant, the one that comes later."""
    latest: dict[str, Observation] = {}
    for item in observations:
        known = latest.get(item.resource)
        if known is None or (item.observed_at or 0) >= (known.observed_at or 0):
            latest[item.resource] = item
    return latest


def applied(plan: Plan, observations: dict[str, Observation], refusals: list[str]) -> dict[str, Observation]:
    """What `apply` prints: every resource after each command of the plan was applied to it, in order. A refused command
    changes nothing and adds a sentence to `refusals`; compensations change no field."""
    after = dict(observations)
    for command in (command for wave in plan.waves for command in wave if command.action != "compensate"):
        known = after.get(command.resource)
        if known is None or known.exists is None:
            refusals.append(f"{command.resource}: the file of actual states doesn't say what it holds; add it.")
            continue
        result = decide(known.fields if known.exists else ABSENT, known.version, command)
        if isinstance(result, Refusal):
            refusals.append(f"{command.resource}{result.path}: {result.reason}; observe it and plan again.")
        elif isinstance(result, Absent):
            after[command.resource] = msgspec.structs.replace(known, exists=False, fields={})
        else:
            after[command.resource] = msgspec.structs.replace(known, exists=True, fields=result)
    return after


__all__ = [
    "FaultyPlan",
    "applied",
    "diffed",
    "expected_of",
    "folded",
    "judged",
    "latest_observations",
    "planned",
]
