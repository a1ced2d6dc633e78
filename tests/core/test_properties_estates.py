"""Plans over estates of several resources that refer to and depend on each other, under contracts of every kind: the
independent look finds no fault, a target does what the commands say, and the order in which things are told is none."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from reconciler.contracts.model import (
    CompensationRule,
    Contract,
    ContractSet,
    CreateUndo,
    DeleteUndo,
    FieldRule,
    Resolver,
    Undo,
)
from reconciler.history.entry import Entry
from reconciler.json_form import to_json
from reconciler.offline import applied, planned
from reconciler.plan.build import build
from reconciler.plan.estate import estate_of
from reconciler.plan.model import Plan
from reconciler.records import Action, Actor, Observation, Resolution, RollbackRequest, Selector, operation_of
from reconciler.values.json_value import ABSENT, Absent, Json, canonical, same
from tests.core.dice import Dice
from tests.core.oracle import Place, at, obeyed, pointer, put

RESOURCES = tuple(f"sys-{number % 2}/thing/{number}" for number in range(4))
FIELDS: tuple[Place, ...] = (("a",), ("b",), ("box", "x"), ("box", "y"), ("box",), ("tags",), ("count",), ("ref",))


class Estate:
    """What really is there, and what was told of it."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.actual: dict[str, Json | Absent] = {
            resource: ABSENT if dice.one_in(3) else self.document() for resource in RESOURCES
        }
        self.actions: list[Action] = []

    def document(self) -> dict[str, Json]:
        document: Any = {}
        for tokens in FIELDS:
            if self.dice.one_in(2):
                document = put(document, tokens, self.value(tokens))
        return document  # type: ignore[no-any-return]

    def value(self, tokens: Place) -> Json:
        match tokens[-1]:
            case "tags":
                return self.dice.pick([[], ["p"], ["p", "q"], ["r", "p"]])
            case "count":
                return self.dice.below(5)
            case "ref":
                return self.dice.pick([None, "0", "1", "2", "3"])
            case "box":
                return self.dice.pick([{}, {"x": 1}, {"x": 1, "y": 2}, "none"])
            case _:
                return self.dice.pick(["u", "v", None, 1, 1.0])

    def act(self, number: int) -> None:
        """One action of a workflow, of which it tells the truth, or not everything."""
        dice, resource = self.dice, self.dice.pick(RESOURCES)
        there = self.actual[resource]
        fields: dict[str, Any]
        if dice.one_in(8):
            fields = {"operation": "effect", "set": {"/a": number}}
        elif there is ABSENT:
            document = self.document()
            fields = {"operation": "create", "set": {f"/{name}": value for name, value in document.items()}}
            self.actual[resource] = document
        elif dice.one_in(8):
            fields = {"operation": "delete", "before": {"": there}}
            self.actual[resource] = ABSENT
        else:
            places = {dice.pick(FIELDS) for _ in range(1 + dice.below(2))}
            places = {place for place in places if place[:-1] == () or isinstance(at(there, place[:-1]), dict)}
            written: dict[Place, Json | Absent] = {
                place: ABSENT if dice.one_in(4) else self.value(place) for place in sorted(places)
            }
            whole = dice.one_in(2)
            before: Any = {"": there} if whole else {pointer(place): at(there, place) for place in written}
            fields = {
                "operation": "update",
                "before": None
                if dice.one_in(10)
                else {path: value for path, value in before.items() if value is not ABSENT},
                "set": {pointer(place): value for place, value in written.items() if value is not ABSENT},
                "unset": [pointer(place) for place, value in written.items() if value is ABSENT],
            }
            for place in sorted(written):
                there = put(there, place, written[place])
            self.actual[resource] = there
        step = number if not dice.one_in(6) else max(number - 1, 0)  # now and then an operation has two actions
        earlier = list(dict.fromkeys(action.operation_id for action in self.actions))
        self.actions.append(
            Action(
                stage="initiated" if dice.one_in(20) else "succeeded",
                run_id=f"run-{step % 2}",
                step_id=f"s{step}",
                operation_id=f"run-{step % 2}/s{step}",
                action_id=f"a{number}",
                occurred_at=number * 1_000_000,
                sequence=number,
                resource=resource,
                actor=Actor(id=dice.pick(["ana", "bot"]), kind=dice.pick(["user", "workflow"])),
                depends_on=[dice.pick(earlier)] if earlier and dice.one_in(3) else [],
                **fields,
            )
        )

    def edit(self) -> None:
        """Somebody changes something and tells nobody."""
        resource = self.dice.pick(RESOURCES)
        there = self.actual[resource]
        if there is ABSENT:
            return
        place = self.dice.pick([*FIELDS, ("note",)])
        if place[:-1] == () or isinstance(at(there, place[:-1]), dict):
            self.actual[resource] = put(there, place, ABSENT if self.dice.one_in(4) else self.value(place))

    def undo(self, number: int, rules: ContractSet) -> None:
        """A rollback undoes some of the operations, undos among them, as it plans to, and writes down what it undid."""
        names = list(dict.fromkeys(operation_of(action) for action in self.actions))
        request = RollbackRequest(
            rollback_id=f"rb-{number}", select=Selector(operations=self.dice.some(names, at_least=1)[:3])
        )
        seen = [
            Observation(
                resource=resource,
                exists=value is not ABSENT,
                fields=value if isinstance(value, dict) else {},
                observed_at=1_000_000_000,
            )
            for resource, value in self.actual.items()
        ]
        plan = planned(self.actions, seen, request, rules, number * 1_000_000)
        after = applied(plan, {item.resource: item for item in seen}, [])
        known = estate_of(self.actions, rules, seen)
        for step in build(request, known, seen, number * 1_000_000).steps:
            if step.is_held or step.is_behind:
                continue
            for entry in map(known.histories[step.resource].entry, step.numbers):
                self.actions.append(_reversal(number, len(self.actions), entry))
            if step.action_id is None:
                left = after[step.resource]
                self.actual[step.resource] = left.fields if left.exists else ABSENT

    def observations(self) -> list[Observation]:
        return [
            Observation(
                resource=resource,
                exists=None if self.dice.one_in(15) else value is not ABSENT,
                fields=value if isinstance(value, dict) else {},
                observed_at=1_000_000_000,
                modified_at=self.dice.pick([None, 3_000_000]),
                modified_by=self.dice.pick([None, Actor(id="ana", kind="user")]),
            )
            for resource, value in self.actual.items()
        ]


def _reversal(rollback: int, number: int, entry: Entry) -> Action:
    return Action(
        stage="reversed",
        run_id=f"rb-{rollback}",
        step_id="undo",
        operation_id=entry.operation_id,
        action_id=f"reversal-{number}",
        occurred_at=rollback * 1_000_000,
        resource=entry.action.resource,
        operation=entry.action.operation,
        reverses=entry.action.action_id,
    )


def contracts(dice: Dice) -> ContractSet:
    def contract(name: str) -> Contract:
        strategies: Any = ("manual", "expected_wins", "actual_wins", "latest_wins")
        fields: dict[str, FieldRule] = {
            "/a": FieldRule(conflict=dice.pick(strategies)),
            "/*": FieldRule(conflict=dice.pick(strategies)),
        }
        if dice.one_in(2):
            fields |= {
                "/tags": FieldRule(kind="set", conflict="merge"),
                "/count": FieldRule(kind="counter", conflict="merge"),
                "/box": FieldRule(kind="map", conflict="merge"),
            }
        if dice.one_in(3):
            fields["/b"] = FieldRule(generated=dice.one_in(2), immutable=dice.one_in(2), sensitive=True)
        return Contract(
            name=name,
            fields=fields,
            resolvers=(Resolver(when='path == "/b"', take="expected"),) if dice.one_in(4) else (),
            conflict_scope=dice.pick(["resource", "field"]),
            references={"/ref": "sys-0/thing"} if dice.one_in(2) else {},
            undo=Undo(
                dependants=dice.pick(["block", "cascade", "orphan"]),
                create=dice.pick(
                    [
                        CreateUndo(),
                        CreateUndo(),
                        CreateUndo(by="keep"),
                        CreateUndo(by="archive", set={"/state": "gone"}),
                    ]
                ),
                delete=dice.pick([DeleteUndo(), DeleteUndo(), DeleteUndo(by="keep")]),
                compensations={"s1": CompensationRule(by="amends"), "s2": CompensationRule(by="amends")},
            ),
        )

    return ContractSet((contract("sys-0/*"), contract("sys-1/*")))


def resolutions(dice: Dice, plan: Plan) -> list[Resolution]:
    """What people decide about some of the open conflicts of a plan."""
    decided = []
    for item in plan.conflicts:
        if item.resolution == "manual" and dice.one_in(2):
            take: Any = dice.pick(["keep", "force", "value"] if item.path else ["keep", "force"])
            value = {"value": dice.pick(["w", 7])} if take == "value" else {}
            decided.append(Resolution(resource=item.resource, path=item.path, take=take, seen=item.actual, **value))
    return decided


@given(st.data())
def test_every_plan_stands_up_to_the_independent_look(data: st.DataObject) -> None:
    dice = Dice(data.draw)
    estate = Estate(dice)
    for number in range(1 + dice.below(9)):
        estate.act(number)
        if dice.one_in(4):
            estate.edit()
    observations, rules = estate.observations(), contracts(dice)
    request = RollbackRequest(
        rollback_id="rollback-1",
        select=dice.pick(
            [
                Selector(run_id="run-0"),
                Selector(run_id="run-1"),
                Selector(system="sys-0"),
                Selector(actor="ana", from_at=2_000_000),
                Selector(operations=["run-0/s0", "run-1/s1", "ghost"]),
                Selector(resource=RESOURCES[0], to_at=2_000_000),
            ]
        ),
    )
    plan = planned(estate.actions, observations, request, rules)  # raises FaultyPlan where a fault is found
    decided = resolutions(dice, plan)
    if decided:
        request = msgspec.structs.replace(request, resolutions=decided)
        plan = planned(estate.actions, observations, request, rules)
    shuffled = data.draw(st.permutations(observations))
    assert canonical(to_json(planned(estate.actions, shuffled, request, rules))) == canonical(to_json(plan))
    refusals: list[str] = []
    after = applied(plan, {item.resource: item for item in observations}, refusals)
    assert refusals == []
    for command in (command for wave in plan.waves for command in wave if command.action != "compensate"):
        left = obeyed(estate.actual[command.resource], command)
        seen = after[command.resource]
        assert same(seen.fields if seen.exists else ABSENT, left)


@given(st.data())
def test_plans_to_undo_undos_stand_up_to_the_independent_look(data: st.DataObject) -> None:
    """Undos and undos of undos, in any mixture with what they undid and with what came between."""
    dice = Dice(data.draw)
    estate, rules = Estate(dice), contracts(dice)
    for number in range(2 + dice.below(8)):
        if estate.actions and dice.one_in(2):
            estate.undo(number, rules)
        else:
            estate.act(number)
        if dice.one_in(6):
            estate.edit()
    names = list(dict.fromkeys(operation_of(action) for action in estate.actions))
    request = RollbackRequest(
        rollback_id="rollback-1",
        select=dice.pick(
            [
                Selector(operations=dice.some(names, at_least=1)),
                Selector(system="sys-0"),
                Selector(resource=RESOURCES[0], to_at=2_000_000),
            ]
        ),
    )
    observations = estate.observations()
    plan = planned(estate.actions, observations, request, rules)  # raises FaultyPlan where a fault is found
    refusals: list[str] = []
    applied(plan, {item.resource: item for item in observations}, refusals)
    assert refusals == []
