"""Answers in parts: bounded, complete, each resource once."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.records import Dossier
from streams.gatherer.answering import PART_BYTES, PART_DOSSIERS, PART_NAMES, Offsets, Part, dossiers_of, parts_of


class Table:
    """What an answer is read from; counts the reads."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = sizes
        self.reads = 0

    async def offsets(self, resources: Sequence[str]) -> Offsets:
        assert len(resources) <= 50
        return {resource: {"a": 1} for resource in resources}

    def dossier(self, resource: str, offsets: dict[str, int]) -> Dossier | None:
        assert offsets == {"a": 1}
        self.reads += 1
        size = self.sizes.get(resource)
        return None if size is None else Dossier(resource=resource, base="x" * size, offsets=offsets)

    async def answer(self, matched: Sequence[str], resources: Sequence[str]) -> list[tuple[Part, list[Dossier]]]:
        parts = await parts_of(matched, resources, self.offsets, self.dossier)
        return [(part, await dossiers_of(part, self.offsets, self.dossier)) for part in parts]


async def test_an_answer_has_a_part_also_where_there_is_nothing_to_tell() -> None:
    ((part, dossiers),) = await Table({}).answer([], [])
    assert (part.matched, part.resources, dossiers) == ([], [], [])


async def test_what_fits_is_one_part_and_is_read_once() -> None:
    table = Table({f"r{number}": 10 for number in range(120)})
    ((part, dossiers),) = await table.answer(["o1", "o2"], list(table.sizes))
    assert part.matched == ["o1", "o2"]
    assert [dossier.resource for dossier in dossiers] == list(table.sizes)
    assert table.reads == 120


async def test_what_is_large_comes_in_parts_of_a_bounded_size() -> None:
    table = Table({f"r{number}": PART_BYTES // 5 for number in range(23)})
    answer = await table.answer(["o"], list(table.sizes))
    assert [dossier.resource for _, dossiers in answer for dossier in dossiers] == list(table.sizes)
    assert max(len(part.resources) for part, _ in answer) == 4
    assert [part.matched for part, _ in answer] == [["o"], *([[]] * (len(answer) - 1))]


async def test_one_that_is_larger_than_a_part_has_a_part_of_its_own() -> None:
    table = Table({"small": 1, "large": 3 * PART_BYTES, "tiny": 1})
    answer = await table.answer([], list(table.sizes))
    assert [part.resources for part, _ in answer] == [["small"], ["large"], ["tiny"]]


async def test_many_small_ones_and_many_names_come_in_parts_too() -> None:
    table = Table({f"r{number}": 1 for number in range(PART_DOSSIERS + 1)})
    names = [f"o{number}" for number in range(2 * PART_NAMES + 1)]
    answer = await table.answer(names, list(table.sizes))
    assert [len(part.resources) for part, _ in answer] == [PART_DOSSIERS, 1, 0]
    assert [name for part, _ in answer for name in part.matched] == names


async def test_what_the_table_has_not_is_left_out() -> None:
    ((part, dossiers),) = await Table({"r1": 1}).answer([], ["r0", "r1"])
    assert (part.resources, [dossier.resource for dossier in dossiers]) == (["r1"], ["r1"])
