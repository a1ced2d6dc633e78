"""The steps of a plan: one for each resource and effect, in the waves that the plan shows."""

from __future__ import annotations

from reconciler.contracts.model import Contract, ContractSet
from reconciler.plan.build import build
from reconciler.plan.estate import estate_of
from reconciler.plan.model import Planned
from reconciler.records import Action, Compensation, Observation, RollbackRequest, Selector
from tests.core.histories import make_action

FREE = ContractSet((Contract(name="*"),))


def planned(actions: list[Action], actual: dict[str, dict[str, object]], contracts: ContractSet = FREE) -> Planned:
    request = RollbackRequest(rollback_id="rb", select=Selector(run_id="run"))
    observations = [
        Observation(resource=resource, exists=True, fields=dict(fields), observed_at=100_000_000)
        for resource, fields in actual.items()
    ]
    return build(request, estate_of(actions, contracts), observations, 200_000_000)


def wrote(number: int, resource: str, depends_on: tuple[int, ...] = ()) -> Action:
    return make_action(
        number,
        resource=resource,
        before={"/phone": "1"},
        set={"/phone": "2"},
        depends_on=[f"run/step-{needed}" for needed in depends_on],
    )


def test_each_resource_has_its_step_in_the_plans_wave_also_where_nothing_is_to_be_done_at_the_target() -> None:
    actions = [wrote(1, "a/x/1"), wrote(2, "a/x/2", (1,)), wrote(3, "a/x/3", (2,))]
    made = planned(actions, {"a/x/1": {"phone": "2"}, "a/x/2": {"phone": "1"}, "a/x/3": {"phone": "2"}})
    assert [[command.resource for command in wave] for wave in made.plan.waves] == [["a/x/3"], ["a/x/1"]]
    assert [(step.resource, step.wave, step.command is None) for step in made.steps] == [
        ("a/x/3", 1, False),
        ("a/x/2", 2, True),
        ("a/x/1", 2, False),
    ]
    assert [step.numbers for step in made.steps] == [[1], [1], [1]]
    assert [step.operations for step in made.steps] == [["run/step-3"], ["run/step-2"], ["run/step-1"]]


def test_what_must_wait_for_a_held_resource_is_behind_it_and_nothing_else() -> None:
    actions = [wrote(1, "a/x/1"), wrote(2, "a/x/2", (1,)), wrote(3, "a/x/3")]
    made = planned(actions, {"a/x/1": {"phone": "2"}, "a/x/2": {"phone": "theirs"}, "a/x/3": {"phone": "2"}})
    assert {step.resource: (step.is_held, step.is_behind) for step in made.steps} == {
        "a/x/1": (False, True),
        "a/x/2": (True, False),
        "a/x/3": (False, False),
    }


def test_an_effect_is_a_step_of_its_own_and_names_the_action_that_is_made_good() -> None:
    mail = Compensation(name="apologise", arguments={"to": "x"})
    actions = [wrote(1, "a/x/1"), make_action(2, resource="a/x/1", operation="effect", compensation=mail)]
    made = planned(actions, {"a/x/1": {"phone": "2"}})
    assert [(step.resource, step.action_id, step.numbers) for step in made.steps] == [
        ("a/x/1", "action-2", [2]),
        ("a/x/1", None, [1]),
    ]
    assert made.steps[0].command is not None and made.steps[0].command.compensation == mail


def test_a_step_carries_what_makes_it_good_should_it_be_refused_where_the_contract_wants_that() -> None:
    note = Compensation(name="write-note")
    action = make_action(1, resource="a/x/1", before={"/phone": "1"}, set={"/phone": "2"}, compensation=note)
    wanting = ContractSet((Contract(name="*", fallback="compensate"),))
    (step,) = planned([action], {"a/x/1": {"phone": "2"}}, wanting).steps
    assert [(item.action_id, item.compensation) for item in step.fallback] == [("action-1", note)]
    (step,) = planned([action], {"a/x/1": {"phone": "2"}}).steps
    assert step.fallback == []
