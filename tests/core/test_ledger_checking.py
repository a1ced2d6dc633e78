"""The ledger against its chain: nothing is found where nothing was done, and whatever was done is found and named."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.history.entry import Entry
from reconciler.ledger.checking import Checked, Fault, Kept, Stored, check, links_of
from reconciler.machines.head import whole_history
from reconciler.records import Action, Stage
from reconciler.values.instant import SECOND
from tests.core.histories import RESOURCE
from tests.core.machine_bench import Bench


def action(number: int, stage: Stage = "succeeded", **more: object) -> Action:
    """A step's action; a succeeded one writes its number."""
    usual: dict[str, object] = {
        "run_id": "run",
        "step_id": f"s{number}",
        "operation_id": f"run/s{number}",
        "action_id": f"{stage}-{number}",
        "resource": RESOURCE,
        "operation": "update",
    }
    if stage == "succeeded":
        usual |= {"before": {}, "set": {"/n": number}}
    return Action(stage=stage, occurred_at=number * SECOND, **{**usual, **more})  # type: ignore[arg-type]


def kept_of(actions: Sequence[Action]) -> Kept:
    """What the table keeps after the machine took these."""
    bench = Bench()
    for number, item in enumerate(actions, 1):
        bench.at(number + 1_000, item)
    _, entries = whole_history(bench.history)
    return Kept(links=bench.head.links, chain=bench.head.chain, entries=entries, is_collapsed=bench.head.collapsed > 0)


def stored(actions: Sequence[Action]) -> list[Stored]:
    return [Stored(0, offset, item) for offset, item in enumerate(actions)]


def checked(actions: Sequence[Action], kept: Kept) -> Checked:
    return check(RESOURCE, stored(actions), kept)


STEPS = [
    action(1, "initiated"),
    action(1),
    action(2, "initiated"),
    action(2, "failed"),
    action(3, "initiated"),
    action(3),
    action(4),
    msgspec.structs.replace(action(3, "reversed"), run_id="undo-1", step_id="undo"),
    action(5, "initiated"),
    action(5, "failed"),
]
KEPT = kept_of(STEPS)


def only(actions: Sequence[Action]) -> Fault:
    (fault,) = checked(actions, KEPT).faults
    return fault


def test_nothing_is_found_where_nothing_was_done() -> None:
    assert checked(STEPS, KEPT) == Checked([], len(STEPS), 0, 0)
    assert KEPT.links == len(STEPS)


def test_what_came_after_the_table_was_read_is_unread_and_what_came_again_is_repeated() -> None:
    more = [*STEPS, STEPS[1], action(6, "initiated"), action(6)]
    assert checked(more, KEPT) == Checked([], len(STEPS) + 2, 2, 1)


@pytest.mark.parametrize("index", [1, 5, 6, 7])
def test_a_record_that_the_history_knows_and_that_is_gone_is_named(index: int) -> None:
    fault = only([item for number, item in enumerate(STEPS) if number != index])
    gone = STEPS[index]
    assert fault.kind == "removed"
    assert f"action {gone.action_id}) is gone" in fault.message
    assert fault.place == {1: "0/4", 5: "0/5", 6: "0/6", 7: ""}[index], (
        "it stood before the next that the history knows"
    )


@pytest.mark.parametrize(("index", "place"), [(0, "0/0"), (2, "0/4"), (3, "0/4"), (4, "0/4"), (8, "0/8"), (9, "0/8")])
def test_a_step_that_began_or_failed_and_is_gone_is_placed_between_its_neighbours(index: int, place: str) -> None:
    fault = only([item for number, item in enumerate(STEPS) if number != index])
    assert (fault.kind, fault.place) == ("removed", place)
    assert "a record of a step that began or failed is gone" in fault.message


@pytest.mark.parametrize("index", range(len(STEPS)))
def test_an_edited_record_is_named(index: int) -> None:
    edited = msgspec.structs.replace(STEPS[index], rule="another one")
    fault = only([*STEPS[:index], edited, *STEPS[index + 1 :]])
    assert fault.kind == "edited"
    if STEPS[index].stage in ("succeeded", "reversed"):
        assert fault.place == f"0/{index}"
        assert fault.message.endswith("was changed since it was taken: rule.")


def test_an_edit_of_the_only_record_between_two_that_are_known_is_named() -> None:
    fault = only([msgspec.structs.replace(STEPS[0], rule="another one"), *STEPS[1:]])
    assert fault.message == (
        "Between the records from the beginning and before run/s1 (0/1), the record 0/0 (initiated run/s1) was changed, or"
        " exchanged for others."
    )


@pytest.mark.parametrize("index", range(len(STEPS) - 1))
def test_two_records_that_were_swapped_are_named(index: int) -> None:
    swapped = [*STEPS[:index], STEPS[index + 1], STEPS[index], *STEPS[index + 2 :]]
    found = checked(swapped, KEPT).faults
    assert found
    assert any(fault.place in (f"0/{index}", f"0/{index + 1}") for fault in found), found


@pytest.mark.parametrize("index", range(len(STEPS)))
@pytest.mark.parametrize("stage", ["succeeded", "failed"])
def test_a_record_that_was_put_in_is_named(index: int, stage: Stage) -> None:
    fault = only([*STEPS[:index], action(99, stage), *STEPS[index:]])
    assert (fault.kind, fault.place, fault.operation_id) == ("inserted", f"0/{index}", "run/s99")


def test_a_resource_that_the_table_has_never_heard_of_is_all_unread() -> None:
    assert checked(STEPS, Kept()) == Checked([], len(STEPS), len(STEPS), 0)


def test_an_emptied_ledger_is_told_entry_by_entry() -> None:
    found = checked([], KEPT).faults
    assert (
        [fault.kind for fault in found].count("removed") == len(found) == 5
    )  # four entries, and steps of which none is left


def test_a_reversal_of_our_own_may_be_unread_and_may_not_be_missing() -> None:
    (entry,) = [item for item in KEPT.entries if item.action.stage == "reversed"]
    others = [item for item in KEPT.entries if item is not entry]
    early = kept_of(STEPS[:7])
    kept = Kept(
        links=early.links, chain=early.chain, entries=[*others, msgspec.structs.replace(entry, link=0, chain="")]
    )
    assert checked(STEPS[:8], kept) == Checked([], 8, 1, 0)
    (fault,) = checked(STEPS[:7], kept).faults
    assert fault.kind == "removed"


def test_what_collapsed_is_checked_by_the_chain_alone() -> None:
    steps = [action(number) for number in range(1, 1_102)]
    kept = kept_of(steps)
    assert kept.is_collapsed
    assert checked(steps, kept).faults == []
    (fault,) = checked(steps[1:], kept).faults
    assert fault.kind == "removed"
    (fault,) = checked([steps[1], steps[0], *steps[2:]], kept).faults
    assert (fault.kind, fault.place) == ("moved", "0/1")


@given(st.lists(st.sampled_from(["succeeded", "initiated", "failed"]), min_size=2, max_size=12), st.data())
def test_whatever_is_done_to_a_ledger_is_found(stages: list[Stage], data: st.DataObject) -> None:
    steps = [action(number, stage) for number, stage in enumerate(stages, 1)]
    kept = kept_of(steps)
    assert checked(steps, kept).faults == []
    index = data.draw(st.integers(0, len(steps) - 1))
    kind = data.draw(st.sampled_from(["remove", "edit", "swap", "insert"]))
    if kind == "remove":
        tampered = [*steps[:index], *steps[index + 1 :]]
    elif kind == "edit":
        tampered = [*steps[:index], msgspec.structs.replace(steps[index], rule="x"), *steps[index + 1 :]]
    elif kind == "swap":
        other = data.draw(st.integers(0, len(steps) - 1).filter(lambda number: number != index))
        tampered = list(steps)
        tampered[index], tampered[other] = tampered[other], tampered[index]
    else:
        tampered = [*steps[:index], action(99, data.draw(st.sampled_from(["succeeded", "failed"]))), *steps[index:]]
    assert checked(tampered, kept).faults


def test_links_are_those_of_the_machine() -> None:
    links = list(links_of(stored([*STEPS, STEPS[1]])))
    assert [link.position for link in links] == [*range(1, len(STEPS) + 1), 0]
    assert links[len(STEPS) - 1].chain == KEPT.chain
    entries: Sequence[Entry] = KEPT.entries
    assert all(links[entry.link - 1].chain == entry.chain for entry in entries)
