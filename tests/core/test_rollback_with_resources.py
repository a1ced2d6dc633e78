"""Both machines together, with targets that fail in every way and a sampler that reads what the resources ask for."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest

from reconciler.contracts.model import Contract, ContractSet, CreateUndo, FieldRule, Retry, Timing, Undo
from reconciler.machines.commanding import due_at
from reconciler.machines.protocol import Effect, EmitAction, EmitCommand, EmitReport
from reconciler.machines.resource import sampling_needs
from reconciler.machines.rollback.head import ENDED
from reconciler.records import Command, Compensation, Outcome, Resolution, Selector, StepReport, Timer, UndoStep
from reconciler.targets.apply import Refusal, decide
from reconciler.values.instant import SECOND
from reconciler.values.json_value import ABSENT, Absent
from tests.core.histories import make_action
from tests.core.rollback_bench import ANA, Bench, undone, wrote

QUICK = Contract(
    name="*",
    fields={"/*": FieldRule(drift="correct", confirm=1)},
    timing=Timing(settle_s=5.0, sample_every_s=60.0),
    retry=Retry(attempts=3),
)


class Together(Bench):
    """A bench whose resources are real."""

    def __init__(self, *contracts: Contract, rollback_id: str = "rb") -> None:
        super().__init__(ContractSet(contracts or (QUICK,)), rollback_id)
        self.answers: dict[str, list[str]] = {}
        """What a target answers to its next commands: a status, `silence` (done, but the outcome is lost) or `lost`."""
        self.applied: list[Command] = []
        self.drifted: list[Command] = []
        self.foreign: list[StepReport] = []
        """What is reported to other rollbacks."""

    def _keep(self, resource: str, state: object, effects: tuple[Effect, ...]) -> None:
        super()._keep(resource, state, effects)
        for effect in effects:
            match effect:
                case EmitReport(report=told):
                    self._tell_rollback(told)
                case EmitCommand(command=command):
                    if command.rollback_id is None:
                        self.drifted.append(command)
                    self._post(f"commands of {resource}", partial(self._apply, command))
                case EmitAction(action=action):
                    self._post(f"ledger of {resource}", partial(self._record, action))
        self._look_if_wanted(resource)

    def _tell_rollback(self, told: StepReport) -> None:
        if told.rollback_id != self.rollback_id:
            self.foreign.append(told)
            return
        for _ in range(2 if self.repeats() else 1):
            self._post(f"reports of {told.resource}", partial(self.step, told))

    def _look_if_wanted(self, resource: str) -> None:
        box = f"sampler of {resource}"
        if self._is_wanted(resource) and box not in self.mail:
            self._post(box, partial(self._look, resource))

    def _is_wanted(self, resource: str) -> bool:
        needs = sampling_needs(self.heads[resource], self.contracts)
        return needs.pending_command is not None or needs.undo_step is not None

    def _look(self, resource: str) -> None:
        if self._is_wanted(resource):
            self.now += 6 * SECOND
            self.mail.pop(f"sampler of {resource}", None)
            self.observe(resource)

    def _carry_out(self, order: UndoStep) -> None:
        self._event(order.resource, order)

    def _event(self, resource: str, event: Any) -> None:
        head, history = self._resource(resource)
        state, effects = self.resource_machine.step(head, event, self.now, history)
        self._keep(resource, state, effects)

    def _apply(self, command: Command) -> None:
        """The service of the target takes a command."""
        resource = command.resource
        script = self.answers.get(resource)
        status = script.pop(0) if script else "applied"
        if status == "lost":
            return
        if status == "applied" and any(command.command_id == done.command_id for done in self.applied):
            status = "already_applied"  # the target knows what it has carried out
        error = None
        if status in ("applied", "silence") and command.action != "compensate":
            there = self.actual.get(resource)
            after = decide(ABSENT if there is None else there, None, command)
            if isinstance(after, Refusal):
                status, error = "conflict", after.reason
            else:
                self.actual[resource] = None if isinstance(after, Absent) else after
        if status in ("applied", "silence") and all(command.command_id != done.command_id for done in self.applied):
            self.applied.append(command)
        if status != "silence":
            outcome = Outcome(
                command_id=command.command_id,
                resource=resource,
                status=status,  # type: ignore[arg-type]
                occurred_at=self.now,
                error=error,
            )
            self._post(f"outcomes of {resource}", partial(self._event, resource, outcome))

    def deliver(self, choose: Any = lambda _: 0) -> bool:
        """The timer of a resource that is due, or else mail, or else the next timer."""
        due = [(at, name) for name, head in sorted(self.heads.items()) if (at := due_at(head)) is not None]
        if not due or min(due)[0] > self.now:
            if super().deliver(choose):
                return True
            if not due:
                return False
        at, resource = min(due)
        self.now = max(self.now, at)
        self._event(resource, Timer(resource=resource, due_at=at))
        return True


ALL = ("crm/contact/1", "erp/order/2", "shop/cart/3")


def three(*contracts: Contract) -> Together:
    made = Together(*contracts)
    made.act(wrote(1, "crm/contact/1"))
    made.act(wrote(2, "erp/order/2", after=[1]))
    made.act(wrote(3, "shop/cart/3", after=[2]))
    made.now += 100 * SECOND
    made.observe_all()
    made.run()
    return made


def test_a_run_is_undone_and_nobody_puts_it_back() -> None:
    made = three()
    made.undo()
    assert made.statuses == ["gathering", "executable", "executing", "verifying", "completed"]
    assert undone(made, *ALL) and len(made.applied) == 3
    for _ in range(3):
        made.now += 100 * SECOND
        made.observe_all()
        made.run()
    assert not made.drifted and undone(made, *ALL)


@pytest.mark.parametrize(
    "answers",
    [["transient"], ["transient", "transient"], ["lost"], ["silence"], ["lost", "silence"], ["already_applied"]],
)
def test_what_fails_for_a_while_is_tried_again_and_done_once(answers: list[str]) -> None:
    made = three()
    if answers == ["already_applied"]:
        made.actual["erp/order/2"] = {"phone": "1"}
        answers = []
    made.answers["erp/order/2"] = list(answers)
    made.undo()
    assert made.head.status == "completed" and undone(made, *ALL)
    assert made.events[-1].counts["verified"] == 3


def test_a_refusal_for_good_halts_and_fires_no_more_by_itself() -> None:
    made = three()
    made.answers["erp/order/2"] = ["permanent"]
    made.undo()
    assert made.head.status == "halted"
    for _ in range(3):
        made.now += 100 * SECOND
        made.observe_all()
        made.run()
    assert made.actual["erp/order/2"] == {"phone": "2"} and not made.drifted
    made.say("resume")
    made.run()
    assert made.head.status == "completed" and undone(made, *ALL)


def test_an_edit_between_plan_and_order_is_a_conflict_for_a_person() -> None:
    made = three()
    made.say("request", select=Selector(run_id="run"), mode="execute")
    while not made.orders:
        made.deliver()
    made.actual["shop/cart/3"] = {"phone": "theirs"}
    made.run()
    assert made.head.status == "halted" and made.head.undecided == 1
    assert made.actual["shop/cart/3"] == {"phone": "theirs"}
    decision = Resolution(resource="shop/cart/3", path="/phone", take="value", value="5", seen="theirs")
    made.say("resolve", resolutions=[decision])
    made.run()
    assert made.head.status == "completed"
    assert made.actual["shop/cart/3"] == {"phone": "5"}


def test_what_others_changed_and_a_person_keeps_stays_and_is_no_drift() -> None:
    made = three(Contract(name="*", timing=QUICK.timing))
    made.actual["shop/cart/3"] = {"phone": "theirs"}
    made.observe("shop/cart/3")
    made.undo()
    assert made.head.status == "halted"
    made.say("resolve", resolutions=[Resolution(resource="shop/cart/3", path="/phone", take="keep", seen="theirs")])
    made.run()
    assert made.head.status == "partial"
    assert made.actual["shop/cart/3"] == {"phone": "theirs"} and undone(made, *ALL[:2])


def test_a_cancelled_rollback_leaves_what_was_done_and_nothing_half_done() -> None:
    made = three()
    made.say("request", select=Selector(run_id="run"), mode="execute")
    while len(made.orders) < 2:
        made.deliver()
    made.say("cancel")
    made.run()
    assert made.head.status == "cancelled"
    done = [name for name in ALL if undone(made, name)]
    assert len(done) == made.events[-1].counts["done"]
    made.now += 100 * SECOND
    made.observe_all()
    made.run()
    assert [name for name in ALL if undone(made, name)] == done and not made.drifted


def test_creates_deletes_and_effects_are_undone_and_put_back_by_undoing_the_undo() -> None:
    archiving = Contract(
        name="crm/*",
        undo=Undo(create=CreateUndo(by="delete")),
        timing=QUICK.timing,
    )
    made = Together(archiving, QUICK)
    made.act(make_action(1, resource="crm/contact/7", operation="create", before=None, set={"/phone": "2"}))
    made.act(wrote(2, "erp/order/2"))
    made.act(make_action(3, resource="erp/order/2", operation="effect", compensation=Compensation(name="apologise")))
    made.now += 100 * SECOND
    made.observe_all()
    made.run()
    made.undo()
    assert made.head.status == "completed"
    assert made.actual["crm/contact/7"] is None and undone(made, "erp/order/2")
    assert [command.action for command in made.applied].count("compensate") == 1
    again = Together(archiving, QUICK, rollback_id="rb2")
    for name in ("heads", "histories", "indexes", "log", "actual", "now"):
        setattr(again, name, getattr(made, name))
    again.undo("rb")
    again.run()
    assert again.actual["crm/contact/7"] == {"phone": "2"} and again.actual["erp/order/2"] == {"phone": "2"}
    assert again.head.status in ("completed", "partial")


def test_a_write_whose_pre_state_nobody_knows_is_made_good_once() -> None:
    made = Together()
    compensation = Compensation(name="ask-back")
    unseen = make_action(1, resource="crm/contact/7", before=None, set={"/phone": "2"}, compensation=compensation)
    made.act(unseen)
    made.act(make_action(2, resource="crm/contact/7", before={"/fax": "1"}, set={"/fax": "2"}))
    made.now += 100 * SECOND
    made.observe_all()
    made.run()
    made.undo()
    assert made.head.status == "completed"
    assert [command.action for command in made.applied].count("compensate") == 1
    assert made.actual["crm/contact/7"] == {"phone": "2", "fax": "1"}
    assert made.heads["crm/contact/7"].undone == [1, 2]
    again = Together(rollback_id="rb2")
    for name in ("heads", "histories", "indexes", "log", "actual", "now"):
        setattr(again, name, getattr(made, name))
    again.undo("run")
    assert again.head.status == "nothing_to_do"
    assert not again.applied


def test_two_rollbacks_of_one_record_at_the_same_time_come_to_the_state_without_both() -> None:
    made = Together()
    made.act(make_action(1, run_id="r1", resource="crm/contact/1", before={"/phone": "1"}, set={"/phone": "2"}))
    made.act(make_action(2, run_id="r2", resource="crm/contact/1", before={"/phone": "2"}, set={"/phone": "3"}))
    made.now += 100 * SECOND
    made.observe_all()
    made.run()
    other = Together(rollback_id="rb2")
    for name in ("heads", "histories", "indexes", "log", "actual"):
        setattr(other, name, getattr(made, name))
    benches = [made, other]
    for bench, run in zip(benches, ("r1", "r2"), strict=True):
        bench.say("request", select=Selector(run_id=run), mode="execute")
    for _ in range(200):
        for bench in benches:
            latest = max(made.now, other.now)
            made.now = other.now = latest
            bench.deliver()
        # What a resource says to a rollback reaches it wherever it was said.
        for bench, stranger in ((made, other), (other, made)):
            for told in stranger.foreign:
                bench._tell_rollback(told)
            stranger.foreign.clear()
    for bench in benches:
        if bench.head.status == "halted":
            bench.say("resume")
            for _ in range(50):
                bench.deliver()
    assert [bench.head.status for bench in benches] == ["completed", "completed"], [
        bench.head.halted_for for bench in benches
    ]
    assert made.actual["crm/contact/1"] == {"phone": "1"}


def played(seed: int) -> Together:
    dice = random.Random(seed)
    fallback: Any = dice.choice(["halt", "skip"])
    made = Together(
        Contract(
            name="*",
            fields=QUICK.fields,
            timing=QUICK.timing,
            retry=QUICK.retry,
            fallback=fallback,
            undo=Undo(late_actions=dice.choice(["report", "reverse"])),
        )
    )
    made.repeats = lambda: dice.random() < 0.2
    for number in range(1, dice.randint(2, 9)):
        resource = dice.choice(["crm/contact/1", "crm/contact/2", "erp/order/1", "shop/cart/1"])
        there = (made.actual.get(resource) or {}).get("phone", "1")
        after = [number - 1] if number > 1 and dice.random() < 0.5 else []
        made.act(
            wrote(number, resource, after=after, before={"/phone": there}, set={"/phone": str(number + 1)}),
        )
    made.now += 100 * SECOND
    made.observe_all()
    made.run()
    for resource in made.heads:
        words = ["transient", "lost", "silence", "permanent", "applied"]
        made.answers[resource] = [dice.choice(words) for _ in range(dice.randint(0, 3))]
    made.say("request", select=Selector(run_id="run"), mode="execute")
    for _ in range(dice.randint(0, 60)):
        if dice.random() < 0.03:
            resource = dice.choice(sorted(made.heads))
            made.actual[resource] = {"phone": f"theirs {made.now}"}
        if dice.random() < 0.03:
            made.say("resume", by=ANA)
        made.deliver(dice.randrange)
    made.run(dice.randrange)
    return made


@pytest.mark.parametrize("seeds", range(6))
def test_both_machines_come_to_an_end_and_agree_on_it(seeds: int) -> None:
    for seed in range(seeds * 25, seeds * 25 + 25):
        agrees(seed)


def agrees(seed: int) -> None:
    made = played(seed)
    made.answers.clear()
    for _ in range(12):
        if made.head.status in ENDED:
            break
        made.say("resume")
        made.run()
        decisions = [
            Resolution(resource=resource, path=conflict.path, take="force", seen=conflict.actual)
            for resource in made.heads
            for conflict in made.open_conflicts(resource)
        ]
        if decisions and made.head.status == "halted":
            made.say("resolve", resolutions=decisions)
            made.run()
    assert made.head.status in ("completed", "partial"), (made.head.status, made.head.halted_for, made.head.counts)
    if made.head.status == "completed":
        assert all(
            not (there or {}).get("phone", "1").isdigit() or (there or {})["phone"] == "1"
            for there in made.actual.values()
        ), made.actual
