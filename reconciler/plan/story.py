"""A plan in plain language, made from its facts alone: the same facts give the same text.

The first sentences carry no ids; labels come from the contracts, and the values of sensitive fields are never told.
"""

from __future__ import annotations

from reconciler.contracts.model import Contract
from reconciler.plan.estate import Estate
from reconciler.plan.model import Plan, PlannedConflict
from reconciler.records import Change, Command, RollbackRequest
from reconciler.values.json_value import ABSENT, Absent, Json, canonical
from reconciler.values.pointer import path_of
from reconciler.values.resource_key import parse_resource_key

_LONGEST_VALUE = 60  # characters of a value that a person reads in a sentence


def tell(plan: Plan, request: RollbackRequest, estate: Estate) -> str:
    """The story of a plan, in Markdown."""
    teller = _Teller(plan, request, estate)
    return "\n\n".join(part for part in teller.parts() if part)


class _Teller:
    def __init__(self, plan: Plan, request: RollbackRequest, estate: Estate) -> None:
        self._plan = plan
        self._request = request
        self._estate = estate

    def parts(self) -> list[str]:
        return [
            self._opening(),
            self._listed(
                "What changes", [line for wave in self._plan.waves for item in wave for line in self._command(item)]
            ),
            self._listed("What others changed since", [self._conflict(item) for item in self._plan.conflicts]),
            self._listed(
                "What stays",
                [
                    f"{self._field(item.resource, item.path)} of {self._name(item.resource)} stays"
                    f"{self._as(item.resource, item.path, item.value)}: "
                    + (
                        "somebody changed it later."
                        if item.owner == "external"
                        else f"the later step {item.owner} set it."
                    )
                    for item in self._plan.kept
                ],
            ),
            self._listed(
                "What can't be undone", [f"{item.operation_id}: {item.reason}" for item in self._plan.blocked]
            ),
            self._listed("Worth knowing", list(self._plan.notes)),
        ]

    def _opening(self) -> str:
        plan = self._plan
        commands = [command for wave in plan.waves for command in wave]
        resources = len({command.resource for command in commands})
        systems = len({parse_resource_key(command.resource).system for command in commands})
        undone = _count(len(plan.operations), "step")
        why = f" Reason given: {self._request.reason}" if self._request.reason else ""
        if plan.status == "rejected":
            return f"Nothing will be undone: a rule of the contracts forbids it.{why}"
        if not commands:
            open_conflicts = [item for item in plan.conflicts if item.resolution == "manual"]
            if open_conflicts:
                return (
                    f"Nothing will be changed yet: {_count(len(open_conflicts), 'field')} were changed by somebody else"
                    f" since, and a person must decide.{why}"
                )
            if plan.blocked:
                return f"Nothing will be changed: {_count(len(plan.blocked), 'step')} can't be undone.{why}"
            if not plan.operations:
                return f"Nothing will be changed: nothing is known that the request selects.{why}"
            return f"Nothing needs to be changed.{why}"
        waiting = " It waits for consent." if plan.status == "needs_approval" else ""
        return (
            f"{undone.capitalize()} will be undone by changing {_count(resources, 'record')} in"
            f" {_count(systems, 'system')}.{waiting}{why}"
        )

    def _listed(self, heading: str, lines: list[str]) -> str:
        return "" if not lines else "\n".join([f"**{heading}**", "", *(f"- {line}" for line in lines)])

    def _contract(self, resource: str) -> Contract:
        return self._estate.contracts.for_resource(resource)

    def _name(self, resource: str) -> str:
        key = parse_resource_key(resource)
        return f"{self._contract(resource).labels.get('resource', key.type)} {key.id}"

    def _field(self, resource: str, path: str) -> str:
        if path == "":
            return "the record"
        return self._contract(resource).labels.get(path) or path.lstrip("/").replace("/", ", ")

    def _as(self, resource: str, path: str, value: Json | Absent) -> str:
        if value is ABSENT:
            return " empty"
        if _is_sensitive(self._contract(resource), path, value):
            return " as it is"
        text = canonical(value).decode()
        return f" {text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + '…'}"

    def _command(self, command: Command) -> list[str]:
        name = self._name(command.resource)
        if command.action == "delete":
            return [f"{name} is removed: it was made by what is undone."]
        if command.action == "create":
            return [f"{name} is made again as it was."]
        if command.action == "compensate":
            compensation = "" if command.compensation is None else command.compensation.name
            return [f"{name}: {compensation} makes good what can't be taken back."]
        return [self._change(command.resource, name, change) for change in command.changes]

    def _change(self, resource: str, name: str, change: Change) -> str:
        field = self._field(resource, change.path)
        match change.op:
            case "set":
                to = self._as(resource, change.path, change.value)
                was = "" if change.expect is ABSENT else f" instead of{self._as(resource, change.path, change.expect)}"
                return f"{field} of {name} becomes{to}{was}."
            case "unset":
                return f"{field} of {name} is emptied; it was{self._as(resource, change.path, change.expect)}."
            case "increment":
                return f"{field} of {name} changes by{self._as(resource, change.path, change.value)}."
            case "add":
                return f"{field} of {name} gets{self._as(resource, change.path, change.value)} back."
            case "remove":
                return f"{field} of {name} loses{self._as(resource, change.path, change.value)}."

    def _conflict(self, conflict: PlannedConflict) -> str:
        field, name = self._field(conflict.resource, conflict.path), self._name(conflict.resource)
        now = self._as(conflict.resource, conflict.path, conflict.actual)
        decided = {
            "manual": "a person must decide",
            "expected": "the undo wins",
            "actual": "their change stays",
            "merged": "both are kept",
        }[conflict.resolution]
        return f"{field} of {name} is now{now}: {decided}."


def _is_sensitive(contract: Contract, path: str, value: Json | Absent) -> bool:
    """Whether a value is sensitive, or any member inside it is."""
    if contract.rule(path).sensitive:
        return True
    members = value.items() if type(value) is dict else ()
    return any(_is_sensitive(contract, path + path_of((name,)), member) for name, member in members)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
