"""The ledger's hash chain: it covers every record and their order, and nothing of how they were written."""

from __future__ import annotations

import msgspec
import pytest

from reconciler.history.chain import DIGITS, FIRST, content_of, linked
from reconciler.json_form import action_from_json, to_json
from reconciler.machines.head import ACTION_PREFIX, encode, entry_of
from reconciler.records import Action, Actor, Compensation
from tests.core.histories import RESOURCE
from tests.core.machine_bench import Bench

WHOLE = Action(
    stage="succeeded",
    run_id="run-7",
    step_id="a",
    occurred_at=1,
    resource=RESOURCE,
    operation="update",
    operation_id="run-7/a",
    action_id="1",
    before={"/b": 1, "/a": {"y": 1, "x": 2}},
    set={"/a": 1.0},
    unset=["/b"],
    workflow_id="intake",
    workflow_version="1",
    sequence=3,
    actor=Actor(id="ana", kind="user"),
    rule="Qualify",
    depends_on=["run-7/0"],
    compensation=Compensation(name="credit-note", arguments={"n": 1}),
    version_before="v1",
    version_after="v2",
    traceparent="00-1",
)


@pytest.mark.parametrize("name", [field.name for field in msgspec.structs.fields(Action)])
def test_every_field_is_covered(name: str) -> None:
    """Also one that actions are given later."""
    value = getattr(WHOLE, name)
    other = {
        "stage": "failed",
        "operation": "delete",
        "before": None,
        "set": {"/a": 1},
        "actor": Actor(id="ana", kind="service"),
        "compensation": Compensation(name="credit-note", arguments={"n": 2}),
    }
    changed = other.get(name, value + 1 if isinstance(value, int) else ["z"] if isinstance(value, list) else "z")
    assert linked(FIRST, msgspec.structs.replace(WHOLE, **{name: changed})) != linked(FIRST, WHOLE)


def test_the_order_of_keys_and_the_way_of_travelling_are_not_covered() -> None:
    swapped = msgspec.structs.replace(WHOLE, before={"/a": {"x": 2, "y": 1}, "/b": 1})
    assert content_of(swapped) == content_of(WHOLE)
    assert content_of(action_from_json(to_json(WHOLE))) == content_of(WHOLE)


def test_the_digest_of_a_record_is_what_it_was_when_it_was_first_written() -> None:
    """Chains that are stored must stay what they are, whatever fields actions are given later."""
    assert linked(FIRST, WHOLE) == "f3d59ba0c8739a7bdb8d403e7d955df6f2c91bc0"
    assert len(linked("x", WHOLE)) == DIGITS


def test_the_machine_makes_every_record_a_link_and_keeps_the_place_of_what_it_folds() -> None:
    bench = Bench()
    begun = msgspec.structs.replace(WHOLE, stage="initiated", action_id="0", occurred_at=10**6)
    done = msgspec.structs.replace(WHOLE, occurred_at=2 * 10**6)
    failed = msgspec.structs.replace(WHOLE, stage="failed", action_id="9", step_id="b", operation_id="run-7/b")
    chain = FIRST
    for number, action in enumerate((begun, done, failed), 1):
        bench.at(number, action)
        chain = linked(chain, action)
        assert (bench.head.links, bench.head.chain) == (number, chain)
    entry = entry_of(bench.history, done.action_id)
    assert entry is not None
    assert (entry.number, entry.link, entry.chain) == (1, 2, linked(linked(FIRST, begun), done))
    bench.at(4, done)
    assert (bench.head.links, bench.head.chain) == (3, chain), "what the history has and comes again is no link"


def test_a_reversal_that_was_written_down_before_it_came_by_becomes_a_link_when_it_does() -> None:
    bench = Bench()
    bench.at(1, WHOLE)
    reversal = msgspec.structs.replace(WHOLE, stage="reversed", action_id="2", run_id="rollback-1", step_id="undo")
    bench.at(2, reversal)
    written = entry_of(bench.history, "2")
    assert written is not None
    bench.history.stored[ACTION_PREFIX + "2"] = encode(msgspec.structs.replace(written, link=0, chain=FIRST))
    bench.head = msgspec.structs.replace(bench.head, links=1, chain=linked(FIRST, WHOLE))
    for _ in range(2):
        bench.at(3, reversal)
        assert (bench.head.links, bench.head.chain) == (2, linked(linked(FIRST, WHOLE), reversal))
        assert entry_of(bench.history, "2") == written
