"""The one suite that every adapter passes.

An adapter's test class derives from `TargetSuite` and says how to open a `Store`: a target together with hands of everybody
else, that write and read the very store the target stands on without going through the adapter. Each test of the suite
runs on an event loop of its own; each resource has an id that no other test or example uses.
"""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.records import Change, Command, CommandAction, Observation, Outcome
from reconciler.targets.port import ApplyingTarget, ScanningTarget, TargetUnavailable
from reconciler.values.json_value import ABSENT, Absent, Json, same
from reconciler.values.pointer import tokens_of
from reconciler.values.resource_key import resource_key
from tests.targets.shapes import Fields, Shape, after, at, text_of

SYSTEM = "shop"
TYPE = "thing"
T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]

_numbers = itertools.count(1)
_PATIENCE_S = 60.0

few = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[*settings().suppress_health_check, HealthCheck.filter_too_much],
)


class Store(ABC):
    """A target and the store below it."""

    target: ApplyingTarget
    shape: Shape
    counter = "/count"
    """A path that can hold whole numbers."""
    text = "/name"
    """A path that can hold texts."""
    tags = "/tags"
    """A path that can hold lists."""
    generated: frozenset[str] = frozenset()
    """Members that the store fills in by itself when a resource is made without them."""

    @abstractmethod
    async def put(self, id_: str, fields: Fields) -> None:
        """Makes the resource hold exactly these fields."""

    @abstractmethod
    async def get(self, id_: str) -> Fields | Absent:
        """What it holds."""

    @abstractmethod
    async def remove(self, id_: str) -> None:
        """Takes it away."""

    @abstractmethod
    async def another(self) -> ApplyingTarget:
        """A second target over the same store and deduplication, as another process has it."""

    @abstractmethod
    async def break_(self) -> None:
        """Takes the store away from under the target."""

    @abstractmethod
    async def close(self) -> None:
        """Gives everything back."""

    def new_id(self) -> str:
        return f"{next(_numbers)}"

    def can_hold(self, fields: Fields) -> bool:
        """Whether the store can hold a resource with these fields, which are of its shape but for being few."""
        return True

    def whole(self, fields: Fields) -> Fields:
        """The fields as this store tells them when it was given these: a table always has all its columns."""
        return fields


class World:
    """A store on an event loop."""

    def __init__(self, store: Store, run: Run[Any]) -> None:
        self.store = store
        self.run = run


def key(id_: str) -> str:
    return resource_key(SYSTEM, TYPE, id_)


def command(id_: str, *changes: Change, action: CommandAction = "patch", **more: Any) -> Command:
    """A command with an id of its own."""
    more.setdefault("command_id", f"command-{next(_numbers)}")
    return Command(resource=key(id_), action=action, changes=list(changes), **more)


def set_(path: str, value: Json, expect: Json | Absent = ABSENT) -> Change:
    return Change(path=path, op="set", value=value, expect=expect)


def create(id_: str, fields: Fields, **more: Any) -> Command:
    return command(id_, set_("", fields), action="create", expect_exists=False, **more)


def delete(id_: str, fields: Fields, **more: Any) -> Command:
    return command(id_, Change(path="", op="unset", expect=fields), action="delete", **more)


async def _settled(target: ApplyingTarget, one: Command) -> Outcome:
    """The first outcome that isn't transient: what whoever retries gets in the end."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            outcome = await target.apply(one)
            if outcome.status != "transient":
                return outcome
            await asyncio.sleep(min(outcome.retry_after_s or 0.01, 0.1))


class TargetSuite(ABC):
    """What a target must do."""

    @abstractmethod
    async def opened(self) -> Store:
        """A store for one test."""

    @pytest.fixture
    def world(self) -> Iterator[World]:
        with asyncio.Runner() as runner:
            store = runner.run(self.opened())
            try:
                yield World(store, runner.run)
            finally:
                runner.run(store.close())

    # ── observing ────────────────────────────────────────────────────────────────────────────────────────────────

    def test_describes_itself(self, world: World) -> None:
        description = world.store.target.describe()
        assert description.system == SYSTEM
        assert description.can_apply
        assert description.compare_and_set
        assert description.bulk_size >= 1
        assert description.can_scan is isinstance(world.store.target, ScanningTarget)

    def test_observes_in_the_order_asked(self, world: World) -> None:
        async def check(store: Store) -> None:
            ids = [store.new_id() for _ in range(store.target.describe().bulk_size + 3)]
            here = ids[::2]
            for id_ in here:
                await store.put(id_, store.whole({store.text[1:]: id_}))
            asked = [key(id_) for id_ in [*ids, ids[0], ids[1]]]
            observations = await store.target.observe(asked)
            assert [observation.resource for observation in observations] == asked
            for id_, observation in zip([*ids, ids[0], ids[1]], observations, strict=True):
                assert observation.exists is (id_ in here)
                assert observation.observed_at is not None
                assert observation.fields == (store.whole({store.text[1:]: id_}) if id_ in here else {})

        world.run(check(world.store))

    def test_observes_nothing(self, world: World) -> None:
        assert world.run(world.store.target.observe([])) == []

    @pytest.mark.parametrize("resource", [resource_key("other", TYPE, "1"), "no-key", "a/b", f"{SYSTEM}/{TYPE}/"])
    def test_what_it_cannot_be_asked_is_unknown(self, world: World, resource: str) -> None:
        id_ = world.store.new_id()
        there, foreign = world.run(world.store.target.observe([key(id_), resource]))
        assert there.exists is False
        assert foreign.exists is None
        assert foreign.reason
        outcome = world.run(
            world.store.target.apply(Command(command_id=f"foreign-{resource}", resource=resource, action="patch"))
        )
        assert outcome.status == "rejected"

    def test_tells_every_value_apart(self, world: World) -> None:
        store = world.store

        @few
        @given(store.shape.fields())
        def check(fields: Fields) -> None:
            id_ = store.new_id()
            world.run(store.put(id_, fields))
            (observation,) = world.run(store.target.observe([key(id_)]))
            assert observation.exists is True, observation
            assert text_of(observation.fields) == text_of(fields)

        check()

    def test_scans_everything_once(self, world: World) -> None:
        async def check(store: Store) -> None:
            target = store.target
            assert isinstance(target, ScanningTarget)
            wanted = {}
            for number in range(2 * target.describe().bulk_size + 1):
                id_ = store.new_id()
                wanted[key(id_)] = store.whole({store.text[1:]: f"name {number}"})
                await store.put(id_, wanted[key(id_)])
            found: list[Observation] = []
            cursor: str | None = None
            pages = 0
            while True:
                page = await target.scan(cursor)
                found += page.observations
                pages += 1
                cursor = page.cursor
                if cursor is None:
                    break
            assert pages > 1
            assert sorted(observation.resource for observation in found) == sorted(wanted)
            assert {observation.resource: observation.fields for observation in found} == wanted

        world.run(check(world.store))

    def test_a_store_that_is_away_is_unknown(self, world: World) -> None:
        async def check(store: Store) -> None:
            id_ = store.new_id()
            await store.put(id_, store.whole({store.text[1:]: "x"}))
            await store.break_()
            first = (await store.target.observe([key(id_)]))[0]
            again = (await store.target.observe([key(id_)]))[0]
            assert first.exists is None
            assert first.reason
            assert first.reason == again.reason, "the same trouble has the same reason"
            outcome = await store.target.apply(command(id_, set_(store.text, "y", "x")))
            assert outcome.status == "transient"
            assert outcome.error
            assert isinstance(store.target, ScanningTarget)
            with pytest.raises(TargetUnavailable):
                await store.target.scan(None)

        world.run(check(world.store))

    # ── applying ─────────────────────────────────────────────────────────────────────────────────────────────────

    def test_does_what_a_command_says_and_nothing_else(self, world: World) -> None:
        store = world.store

        @few
        @given(st.data())
        def check(data: st.DataObject) -> None:
            fields = data.draw(store.shape.fields())
            changes = data.draw(store.shape.changes(fields))
            wanted = after(fields, changes)
            id_, neighbour = store.new_id(), store.new_id()
            world.run(store.put(id_, fields))
            world.run(store.put(neighbour, fields))
            given_command = command(id_, *changes)
            outcome = world.run(store.target.apply(given_command))
            if outcome.status == "rejected":  # the store can't say the wanted state
                assert text_of(world.run(store.get(id_))) == text_of(fields)
                return
            assert outcome.status == ("already_applied" if same(wanted, fields) else "applied"), outcome
            assert outcome.command_id == given_command.command_id
            assert text_of(world.run(store.get(id_))) == text_of(wanted)
            assert text_of(world.run(store.get(neighbour))) == text_of(fields)
            assert outcome.observed is not None
            assert text_of(outcome.observed.fields) == text_of(wanted)
            for again in (given_command, command(id_, *changes)):
                assert world.run(store.target.apply(again)).status == "already_applied"
                assert text_of(world.run(store.get(id_))) == text_of(wanted)

        check()

    def test_refuses_on_any_other_state_of_what_a_command_touches(self, world: World) -> None:
        store = world.store

        @few
        @given(st.data())
        def check(data: st.DataObject) -> None:
            fields = data.draw(store.shape.fields())
            changes = data.draw(store.shape.changes(fields).filter(bool))
            near = store.shape.changes(fields).map(lambda others: after(fields, others))
            there = data.draw(st.one_of(near.filter(store.can_hold), store.shape.fields()))
            paths = [tokens_of(change.path) for change in changes]
            if all(same(at(fields, path), at(there, path)) for path in paths):
                return
            if all(same(at(there, path), change.value) for path, change in zip(paths, changes, strict=True)):
                expected = "already_applied"
            else:
                expected = "conflict"
            id_ = store.new_id()
            world.run(store.put(id_, there))
            outcome = world.run(store.target.apply(command(id_, *changes)))
            assert outcome.status == expected, outcome
            assert text_of(world.run(store.get(id_))) == text_of(there)
            assert outcome.observed is not None
            assert text_of(outcome.observed.fields) == text_of(there)
            missing = store.new_id()
            assert world.run(store.target.apply(command(missing, *changes))).status == "conflict"
            assert world.run(store.get(missing)) is ABSENT

        check()

    def test_is_applied_once_however_often_it_comes(self, world: World) -> None:
        async def check(store: Store) -> None:
            id_ = store.new_id()
            name = store.text[1:]
            await store.put(id_, store.whole({name: "drifted"}))
            given_command = command(id_, set_(store.text, "right", "drifted"))
            assert (await store.target.apply(given_command)).status == "applied"
            # The drift comes back, so that the command would fit again: that it was carried out must be remembered.
            await store.put(id_, store.whole({name: "drifted"}))
            for target in (store.target, await store.another()):
                outcome = await target.apply(given_command)
                assert outcome.status == "already_applied"
                assert outcome.observed is not None
                assert outcome.observed.fields == store.whole({name: "drifted"})
            assert await store.get(id_) == store.whole({name: "drifted"})

        world.run(check(world.store))

    def test_a_refusal_stands_until_somebody_tries_on_purpose(self, world: World) -> None:
        async def check(store: Store) -> None:
            id_ = store.new_id()
            name = store.text[1:]
            await store.put(id_, store.whole({name: "edited"}))
            given_command = command(id_, set_(store.text, "right", "drifted"))
            first = await store.target.apply(given_command)
            assert first.status == "conflict"
            assert first.error
            await store.put(id_, store.whole({name: "drifted"}))
            again = await (await store.another()).apply(given_command)
            assert (again.status, again.error) == ("conflict", first.error)
            assert await store.get(id_) == store.whole({name: "drifted"})
            deliberate = command(id_, *given_command.changes, command_id=given_command.command_id, attempt=2)
            assert (await store.target.apply(deliberate)).status == "applied"
            assert (await store.target.apply(deliberate)).status == "already_applied"
            assert await store.get(id_) == store.whole({name: "right"})

        world.run(check(world.store))

    def test_one_command_at_many_hands_is_applied_once(self, world: World) -> None:
        async def check(store: Store) -> None:
            id_ = store.new_id()
            await store.put(id_, store.whole({store.counter[1:]: 1}))
            given_command = command(id_, Change(path=store.counter, op="increment", value=5))
            targets = [store.target, await store.another()]
            outcomes = await asyncio.gather(*(_settled(targets[number % 2], given_command) for number in range(6)))
            statuses = sorted(outcome.status for outcome in outcomes)
            assert statuses == ["already_applied"] * 5 + ["applied"]
            assert await store.get(id_) == store.whole({store.counter[1:]: 6})

        world.run(check(world.store))

    def test_many_commands_at_once_lose_nothing(self, world: World) -> None:
        async def check(store: Store) -> None:
            id_ = store.new_id()
            await store.put(id_, store.whole({store.counter[1:]: 0}))
            targets = [store.target, await store.another()]
            commands = [command(id_, Change(path=store.counter, op="increment", value=10**n)) for n in range(6)]
            outcomes = await asyncio.gather(*(_settled(targets[n % 2], one) for n, one in enumerate(commands)))
            assert [outcome.status for outcome in outcomes] == ["applied"] * 6, outcomes
            assert await store.get(id_) == store.whole({store.counter[1:]: 111_111})

        world.run(check(world.store))

    def test_of_two_that_expect_the_same_one_wins(self, world: World) -> None:
        async def check(store: Store) -> None:
            id_ = store.new_id()
            await store.put(id_, store.whole({store.text[1:]: "old"}))
            targets = [store.target, await store.another()]
            commands = [command(id_, set_(store.text, f"new {number}", "old")) for number in range(2)]
            outcomes = await asyncio.gather(*(_settled(*pair) for pair in zip(targets, commands, strict=True)))
            assert sorted(outcome.status for outcome in outcomes) == ["applied", "conflict"]
            winner = next(number for number, outcome in enumerate(outcomes) if outcome.status == "applied")
            assert await store.get(id_) == store.whole({store.text[1:]: f"new {winner}"})

        world.run(check(world.store))

    def test_adds_and_takes_out_members(self, world: World) -> None:
        async def check(store: Store) -> None:
            id_ = store.new_id()
            tags = store.tags
            await store.put(id_, store.whole({tags[1:]: ["b", "a"]}))
            one = command(
                id_,
                Change(path=tags, op="add", value="c"),
                Change(path=tags, op="add", value="a"),
                Change(path=tags, op="remove", value="b"),
                Change(path=tags, op="remove", value="z"),
            )
            assert (await store.target.apply(one)).status == "applied"
            assert await store.get(id_) == store.whole({tags[1:]: ["a", "c"]})
            twice = command(id_, *one.changes)
            assert (await store.target.apply(twice)).status == "already_applied"

        world.run(check(world.store))

    def test_all_changes_or_none(self, world: World) -> None:
        async def check(store: Store) -> None:
            id_ = store.new_id()
            fields = store.whole({store.text[1:]: "old", store.counter[1:]: 1, store.tags[1:]: ["a"]})
            await store.put(id_, fields)
            one = command(
                id_,
                set_(store.text, "new", "old"),
                Change(path=store.counter, op="increment", value=1),
                set_(store.tags, [], ["another"]),
            )
            assert (await store.target.apply(one)).status == "conflict"
            assert await store.get(id_) == fields

        world.run(check(world.store))

    def test_creates_only_what_is_not_there(self, world: World) -> None:
        async def check(store: Store) -> None:
            id_ = store.new_id()
            fields = store.whole({store.text[1:]: "new"})
            outcome = await store.target.apply(create(id_, fields))
            assert outcome.status == "applied", outcome
            held = await store.get(id_)
            assert isinstance(held, dict)
            assert {name: value for name, value in held.items() if name not in store.generated} == fields
            assert outcome.observed is not None
            assert outcome.observed.fields == held
            assert (await store.target.apply(create(id_, held))).status == "already_applied"
            assert (await store.target.apply(create(id_, {**held, store.text[1:]: "x"}))).status == "conflict"
            assert await store.get(id_) == held

        world.run(check(world.store))

    def test_of_two_creates_one_wins(self, world: World) -> None:
        async def check(store: Store) -> None:
            id_ = store.new_id()
            targets = [store.target, await store.another()]
            whole = [store.whole({store.text[1:]: f"maker {number}"}) for number in range(2)]
            commands = [create(id_, fields) for fields in whole]
            outcomes = await asyncio.gather(*(_settled(*pair) for pair in zip(targets, commands, strict=True)))
            assert sorted(outcome.status for outcome in outcomes) == ["applied", "conflict"]
            held = await store.get(id_)
            assert isinstance(held, dict)
            winner = next(number for number, outcome in enumerate(outcomes) if outcome.status == "applied")
            assert held[store.text[1:]] == f"maker {winner}"

        world.run(check(world.store))

    def test_deletes_only_what_is_as_expected(self, world: World) -> None:
        async def check(store: Store) -> None:
            id_ = store.new_id()
            fields = store.whole({store.text[1:]: "x", store.counter[1:]: 1})
            await store.put(id_, fields)
            less = store.whole({store.text[1:]: "x"})
            assert (await store.target.apply(delete(id_, less))).status == "conflict"
            assert await store.get(id_) == fields
            one = delete(id_, fields)
            outcome = await store.target.apply(one)
            assert outcome.status == "applied", outcome
            assert outcome.observed is not None
            assert outcome.observed.exists is False
            assert await store.get(id_) is ABSENT
            assert (await store.target.apply(delete(id_, fields))).status == "already_applied"
            await store.put(id_, fields)
            assert (await store.target.apply(one)).status == "already_applied"
            assert await store.get(id_) == fields, "a delete that was carried out must not delete again"

        world.run(check(world.store))

    def test_the_version_guards_where_there_is_one(self, world: World) -> None:
        async def check(store: Store) -> None:
            id_ = store.new_id()
            await store.put(id_, store.whole({store.text[1:]: "a"}))
            # By a command that changes nothing: an observation in bulk may not tell the version.
            seen = (await store.target.apply(command(id_))).observed
            assert seen is not None
            stale = command(id_, set_(store.text, "b", "a"), expect_version="no such version")
            if seen.version is None:
                assert (await store.target.apply(stale)).status == "applied"
                return
            assert (await store.target.apply(stale)).status == "conflict"
            assert await store.get(id_) == store.whole({store.text[1:]: "a"})
            fresh = command(id_, set_(store.text, "b", "a"), expect_version=seen.version)
            outcome = await store.target.apply(fresh)
            assert outcome.status == "applied", outcome
            assert outcome.observed is not None
            assert outcome.observed.version not in (None, seen.version), "a write must change the version"
            (now,) = await store.target.observe([key(id_)])
            assert now.version in (None, outcome.observed.version)

        world.run(check(world.store))

    def test_the_outcome_carries_the_trace(self, world: World) -> None:
        async def check(store: Store) -> None:
            trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            outcome = await store.target.apply(command(store.new_id(), set_(store.text, "b", "a"), traceparent=trace))
            assert outcome.status == "conflict"
            assert outcome.traceparent == trace
            assert outcome.observed is not None
            assert outcome.observed.exists is False

        world.run(check(world.store))

    def test_an_unknown_compensation_is_rejected(self, world: World) -> None:
        async def check(store: Store) -> None:
            id_ = store.new_id()
            await store.put(id_, store.whole({store.text[1:]: "a"}))
            outcome = await store.target.apply(command(id_, action="compensate"))
            assert outcome.status == "rejected"
            assert outcome.error
            assert await store.get(id_) == store.whole({store.text[1:]: "a"})

        world.run(check(world.store))
