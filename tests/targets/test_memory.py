"""The target in memory."""

from __future__ import annotations

import pytest

from reconciler.targets.memory import MemoryConfig, MemoryTarget
from reconciler.targets.port import ApplyingTarget
from reconciler.values.errors import InputError
from reconciler.values.json_value import Absent
from tests.targets.shapes import Documents, Fields
from tests.targets.suite import SYSTEM, Store, TargetSuite, command, key, set_


class MemoryStore(Store):
    shape = Documents()

    def __init__(self) -> None:
        self.target: MemoryTarget = MemoryTarget(SYSTEM, MemoryConfig(bulk_size=4))

    async def put(self, id_: str, fields: Fields) -> None:
        self.target.put(key(id_), fields)

    async def get(self, id_: str) -> Fields | Absent:
        return self.target.fields(key(id_))

    async def remove(self, id_: str) -> None:
        self.target.remove(key(id_))

    async def another(self) -> ApplyingTarget:
        return self.target  # what it holds is its own

    async def break_(self) -> None:
        raise AssertionError("memory is never away")

    async def close(self) -> None:
        await self.target.close()


class TestMemory(TargetSuite):
    async def opened(self) -> Store:
        return MemoryStore()

    test_a_store_that_is_away_is_unknown = None  # type: ignore[assignment]  # memory is never away


def test_what_is_configured_is_there() -> None:
    target = MemoryTarget(SYSTEM, MemoryConfig(resources={"contact": {"a/b": {"name": "Ana"}}}))
    assert target.fields(f"{SYSTEM}/contact/a%2Fb") == {"name": "Ana"}


async def test_a_cursor_of_somebody_else_is_an_error() -> None:
    with pytest.raises(InputError, match="begin the scan again"):
        await MemoryTarget(SYSTEM).scan("x")


async def test_a_value_that_is_no_json_is_unknown() -> None:
    target = MemoryTarget(SYSTEM)
    target.put(key("1"), {"a": float("nan")})
    (observation,) = await target.observe([key("1")])
    assert observation.exists is None
    assert observation.reason == "the resource holds a value that nan is no JSON number"


async def test_a_mark_can_be_left_beside_the_fields() -> None:
    target = MemoryTarget(SYSTEM, MemoryConfig(origin_field="_origin"))
    target.put(key("1"), {"a": 1})
    one = command("1", set_("/a", 2, 1))
    outcome = await target.apply(one)
    assert outcome.status == "applied"
    assert outcome.observed is not None and outcome.observed.fields == {"a": 2}
    assert target.fields(key("1")) == {"a": 2, "_origin": one.command_id}
    target.put(key("1"), {"a": 3})  # somebody else's write has no mark
    assert target.fields(key("1")) == {"a": 3}
