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


@given(epoch=st.integers(0, 2**63))
def test_an_epoch_survives_in_the_metadata_of_a_commit(epoch: int) -> None:
    assert epoch_of(epoch_metadata(epoch)) == epoch


def test_metadata_of_others_means_no_epoch() -> None:
    for metadata in (None, "", "epoch=", "epoch=-3", "epoch=³", "hello"):
        assert epoch_of(metadata) == 0
