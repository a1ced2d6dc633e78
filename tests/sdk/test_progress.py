"""What may be committed: never past anything unfinished, and always with the highest epoch below it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.sdk.consumer.progress import PartitionProgress, epoch_metadata, epoch_of


@given(data=st.data(), offsets=st.sets(st.integers(0, 200), max_size=30), start=st.integers(0, 3))
def test_a_commit_never_passes_what_is_unfinished(data: st.DataObject, offsets: set[int], start: int) -> None:
    ordered = sorted(offsets)
    epochs = [data.draw(st.integers(0, 5)) for _ in ordered]
    progress = PartitionProgress(0, start)
    highest: list[int] = []
    for offset, epoch in zip(ordered, epochs, strict=True):
        seen = max([start, *highest])
        progress.begin(offset)
        assert progress.overtaken_by(epoch) == (seen if epoch < seen else None)
        highest.append(max(epoch, seen))
    finished: set[int] = set()
    for offset in data.draw(st.permutations(ordered)):
        progress.finish(offset)
        finished.add(offset)
        done = [(each, epoch) for each, epoch in zip(ordered, highest, strict=True) if each in finished]
        prefix = done[
            : next(
                (n for n, (each, _) in enumerate(zip(ordered, highest, strict=True)) if each not in finished),
                len(ordered),
            )
        ]
        expected = (prefix[-1][0] + 1, prefix[-1][1]) if prefix else None
        assert progress.committable() == expected


@given(data=st.data(), size=st.integers(1, 20))
def test_a_partition_that_goes_comes_to_a_clean_cut(data: st.DataObject, size: int) -> None:
    """Whatever was worked on when it was revoked is committed, and with it everything before; nothing else is worked on."""
    progress = PartitionProgress(0, 0)
    for offset in range(size):
        progress.begin(offset)
    order = data.draw(st.permutations(range(size)))
    before = data.draw(st.integers(0, size))
    finished_before = data.draw(st.integers(0, before))
    for place, offset in enumerate(order[:before]):
        assert progress.work_on(offset)
        if place < finished_before:
            progress.finish(offset)
    progress.revoke()
    cut = max(order[:before], default=-1)
    for offset in order[finished_before:before]:
        assert not progress.is_settled
        progress.finish(offset)
    for offset in order[before:]:
        if progress.work_on(offset):
            progress.finish(offset)
    assert progress.is_settled
    committable = progress.committable()
    assert (0 if committable is None else committable.offset) == cut + 1


def test_what_the_brokers_did_not_take_is_not_waited_for_and_not_committed() -> None:
    progress = PartitionProgress(0, 0)
    for offset in range(3):
        progress.begin(offset)
        assert progress.work_on(offset)
    progress.finish(0)
    progress.finish(2)
    progress.revoke()
    assert not progress.is_settled
    progress.give_up(1)
    assert progress.is_settled
    assert progress.committable() == (1, 0)


def test_when_the_time_is_over_nothing_more_is_worked_on() -> None:
    progress = PartitionProgress(0, 0)
    for offset in range(3):
        progress.begin(offset)
    assert progress.work_on(2)
    progress.revoke()
    assert progress.work_on(0)
    progress.abandon()
    assert not progress.work_on(1)
    assert progress.is_settled


@given(epoch=st.integers(0, 2**63))
def test_an_epoch_survives_in_the_metadata_of_a_commit(epoch: int) -> None:
    assert epoch_of(epoch_metadata(epoch)) == epoch


def test_metadata_of_others_means_no_epoch() -> None:
    for metadata in (None, "", "epoch=", "epoch=-3", "epoch=³", "hello"):
        assert epoch_of(metadata) == 0
