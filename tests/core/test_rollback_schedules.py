"""Rollbacks under random schedules: mail that is late, doubled and reordered between parties, resources that refuse, people
who say anything at any time. The bench steps from stored bytes every time, as after a crash, and checks every step."""

from __future__ import annotations

import random
from typing import Literal

import pytest

from reconciler.contracts.model import ApprovalRule, Contract, ContractSet, Undo
from reconciler.machines.dossier import dossier_of
from reconciler.machines.rollback.dossiers import known_of
from reconciler.machines.rollback.head import CONFLICTS, ENDED, UNDER_WAY
from reconciler.records import Approval, Compensation, Resolution, Selector, operation_of
from tests.core.dice import Dice
from tests.core.histories import make_action
from tests.core.rollback_bench import ANA, BO, CY, Bench, partition_of, wrote

RESOURCES = ["crm/contact/1", "crm/contact/2", "erp/order/1", "erp/order/2", "shop/cart/1"]
SCRIPTS = ["conflict", "outdated", "failed", "sent retrying sent applied verified", "sent applied contradicted"]

SEEDS = 200


class SeededDice(Dice):
    """Throws that follow from a number: hypothesis would take longer to shrink such a play than a reader to read it."""

    def __init__(self, seed: int) -> None:
        self._source = random.Random(seed)

    def below(self, count: int) -> int:
        return self._source.randrange(count)


def played(dice: Dice) -> Bench:
    """A rollback that people and parties have played with, until no mail is left."""
    contract = Contract(
        name="*",
        undo=Undo(
            late_actions=dice.pick(["report", "reverse"]),
            dependants=dice.pick(["block", "cascade", "orphan"]),
        ),
        fallback=dice.pick(["halt", "skip", "compensate"]),
        approvals=tuple([ApprovalRule()] * dice.below(2)),
    )
    bench = Bench(ContractSet((contract,)))
    bench.repeats = lambda: dice.below(4) == 0
    number = 0
    for resource in RESOURCES[: 1 + dice.below(len(RESOURCES))]:
        for _ in range(1 + dice.below(2)):
            number += 1
            before, after = (("1", "2"), ("2", "3"))[resource in bench.actual]
            needed = [number - 1] if number > 1 and dice.below(2) else []
            run = dice.pick(["run", "run", "other"])
            bench.act(
                wrote(
                    number,
                    resource,
                    run_id=run,
                    before={"/phone": before},
                    set={"/phone": after},
                    depends_on=[action.operation_id for action in bench.log if action.step_id[5:] in map(str, needed)],
                    compensation=dice.pick([None, Compensation(name="apologise")]),
                )
            )
        if dice.below(4) == 0:
            bench.scripts[resource] = [dice.pick(SCRIPTS) for _ in range(1 + dice.below(2))]
        if dice.below(6) == 0:
            bench.actual[resource] = {"phone": "theirs"}
    bench.observe_all()
    bench.say("request", select=Selector(run_id="run"), mode=dice.pick(["plan", "execute", "execute"]))
    for _ in range(dice.below(40)):
        disturb(bench, dice)
    bench.run(dice.below)
    return bench


def disturb(bench: Bench, dice: Dice) -> None:
    """Something happens: mostly mail, sometimes a person, rarely more work of the run."""
    match dice.below(20):
        case 0 if dice.one_in(6):
            bench.say("cancel", by=dice.pick([ANA, BO]))
        case 1 | 2:
            bench.say("resume", by=dice.pick([ANA, BO]), mode=dice.pick(["plan", "execute"]))
        case 3 | 4 if bench.head.plan is not None:
            bench.approve(dice.pick([ANA, BO, CY]))
        case 5:
            decide(bench, dice)
        case 6 if bench.machine.due_at(bench.head) is not None:
            bench.tick()
        case 7:
            number = len(bench.log) + 100
            resource = dice.pick(RESOURCES)
            there = (bench.actual.get(resource) or {}).get("phone")
            bench.act(
                make_action(
                    number,
                    run_id="run",
                    resource=resource,
                    before={} if there is None else {"/phone": there},
                    set={"/phone": f"late {number}"},
                )
            )
            bench.observe(resource)
        case _:
            bench.deliver(dice.below)


def decide(bench: Bench, dice: Dice) -> None:
    """Cy decides a conflict that is open, as it is shown."""
    for entry_id in sorted(bench.history.stored):
        if entry_id.startswith(CONFLICTS):
            resource = entry_id.removeprefix(CONFLICTS)
            for conflict in bench.open_conflicts(resource):
                take: Literal["keep", "force"] = dice.pick(["keep", "force"])
                decision = Resolution(resource=resource, path=conflict.path, take=take, seen=conflict.actual)
                bench.say("resolve", by=CY, resolutions=[decision])
            return


@pytest.mark.parametrize("seeds", range(SEEDS // 50))
def test_a_rollback_always_ends_stops_or_waits_for_somebody(seeds: int) -> None:
    for seed in range(seeds * 50, seeds * 50 + 50):
        ends_stops_or_waits(seed)


def ends_stops_or_waits(seed: int) -> None:
    bench = played(SeededDice(seed))
    head = bench.head
    waits = ("executable", "needs_approval") if head.mode == "plan" else ("needs_approval",)
    assert head.status in (*ENDED, "halted", *waits), head.status
    assert not set(UNDER_WAY) & head.counts.keys(), "everything that was ordered was answered"
    if head.status == "completed":
        assert not left_of_run(bench)
        assert set(head.counts) <= {"verified", "unchanged", "replaced"}
    if head.status in ENDED:
        before = len(bench.orders)
        bench.say("resume", mode="execute")
        bench.run()
        assert len(bench.orders) == before, "what is over sends nothing more"


@pytest.mark.parametrize("seeds", range(SEEDS // 50))
def test_whatever_stopped_it_once_that_is_mended_it_goes_on_to_its_end(seeds: int) -> None:
    for seed in range(seeds * 50, seeds * 50 + 50):
        goes_on(seed)


def goes_on(seed: int) -> None:
    dice = SeededDice(seed)
    bench = played(dice)
    bench.scripts.clear()
    bench.repeats = lambda: False
    for _ in range(30):
        head = bench.head
        if head.status in ENDED:
            break
        bench.observe_all()
        if head.status == "needs_approval":
            for person in (BO, Bench.stranger(len(bench.events))):
                bench.say(
                    "approve", by=person, approvals=[Approval(by=person)], plan_hash=bench.plan_hash, mode="execute"
                )
        else:
            decide(bench, dice)
            if bench.head.status in ("halted", "executable"):
                bench.say("resume", mode="execute")
        bench.run(dice.below)
    head = bench.head
    assert head.status in ENDED, (head.status, head.halted_for)
    if head.status == "completed":
        assert not left_of_run(bench)


def left_of_run(bench: Bench) -> list[str]:
    """What the histories still hold of the run."""
    dossiers = [
        dossier_of(bench.heads[name], bench.histories[name], partition_of(name), {}) for name in sorted(bench.heads)
    ]
    estate = known_of(dossiers, bench.contracts).estate
    names = {operation_of(action) for action in bench.log if action.run_id == "run"}
    return [name for name in sorted(names) if estate.entries_of(name)]
