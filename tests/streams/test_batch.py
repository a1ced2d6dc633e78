"""The batch runner, without a broker: what is folded, what is put aside and why, and that the partition always goes on."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from reconciler.contracts.model import ContractSet
from reconciler.machines.protocol import Effect, Event, HistoryReader
from reconciler.machines.resource import ResourceMachine
from reconciler.records import Alert, Command, Observation, PlainUpdate, Timer
from reconciler.values.instant import SECOND
from reconciler.wire.partition import partition_of
from reconciler.wire.plain_reader import IS_SHORTER
from streams.runner.batch import Batch
from streams.store.producer import Outgoing
from streams.transport.chunk import Chunk
from tests.support.batches import NOW_MS, Bench, Raw
from tests.support.counting import COMMAND_EVERY, Count, CountingMachine
from tests.support.estate import action

KEY = "crm/contact/1"
NOW = NOW_MS * 1000
DAY = 24 * 3600 * SECOND
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def headers(outgoing: Outgoing) -> dict[str, str]:
    return {name: value.decode() for name, value in outgoing.headers}


def dead_letters(bench: Bench, batch: Batch) -> list[Outgoing]:
    return [item for item in batch.effects if item.topic == bench.topics.dead_letters]


def test_actions_are_folded_once_each_head_written_once() -> None:
    bench = Bench()
    batch = bench.run([bench.raw(action(KEY, f"a{number}", number)) for number in range(5)])
    assert bench.state(KEY) == Count(actions=5, total=10, last="a4", now=NOW)
    assert len(batch.changes.heads) == 1
    assert len(batch.changes.entries) == 5
    assert batch.counts.folded == 5
    assert batch.consumed == {bench.topics.actions: 5}


def test_what_the_table_has_consumed_is_skipped() -> None:
    bench = Bench()
    records = [bench.raw(action(KEY, f"a{number}")) for number in range(5)]
    bench.run(records[:3])
    batch = bench.run(records)
    assert (batch.counts.folded, batch.counts.replayed) == (2, 3)
    assert bench.state(KEY).actions == 5


def test_what_left_nothing_in_a_head_is_skipped_too() -> None:
    """A dead letter, or an event that changed nothing: only the mark knows that they were here."""
    bench = Bench()
    records = [unknown_magic(bench), rejected(bench), bench.raw(action(KEY, "n", step_id="nothing"))]
    assert len(bench.run(records).effects) == 2
    again = bench.run(records)
    assert (again.counts.replayed, again.counts.folded, again.effects) == (3, 0, [])


def test_what_a_head_has_consumed_is_skipped_without_a_mark() -> None:
    """After a write that was only half done (without a fence), some heads are ahead of the partition's mark."""
    bench = Bench()
    records = [bench.raw(action(KEY, "a0")), bench.raw(action("crm/contact/2", "b0"))]
    bench.run(records[:1])
    again = Bench(store=bench.store)
    batch = again.run(records)
    assert (batch.counts.folded, batch.counts.replayed) == (1, 1)
    assert again.state(KEY).actions == again.state("crm/contact/2").actions == 1


def test_replaying_gives_the_same_bytes_and_effects() -> None:
    records = None
    results = []
    for _ in range(2):
        bench = Bench()
        records = records or [bench.raw(action(f"crm/contact/{n % 7}", f"a{n}", n)) for n in range(200)]
        batches = [bench.run(records[start : start + 50]) for start in range(0, 200, 50)]
        results.append(
            (dict(bench.store.heads()), [item for batch in batches for item in batch.effects], batches[-1].now)
        )
    assert results[0] == results[1]


def test_commands_carry_the_epoch_an_id_and_the_trace() -> None:
    bench = Bench()
    records = [bench.raw(action(KEY, f"a{n}")) for n in range(COMMAND_EVERY - 1)]
    last = bench.raw(action(KEY, "last"), headers=[("other", None), ("traceparent", TRACE.encode())])
    batch = bench.run([*records, last])
    (sent,) = batch.effects
    command = bench.codec.decode(sent.value)
    assert isinstance(command, Command)
    assert (sent.topic, sent.key, command.epoch) == ("reversal.crm", KEY.encode(), 5)
    assert command.traceparent == TRACE
    assert headers(sent) == {"effect-id": f"{command.command_id}/1", "traceparent": TRACE}


def test_a_malformed_trace_goes_no_further() -> None:
    bench = Bench()
    records = [
        bench.raw(action(KEY, f"a{n}", traceparent="nonsense"), headers=[("traceparent", b"00-abc-def-01")])
        for n in range(COMMAND_EVERY)
    ]
    (sent,) = bench.run(records).effects
    assert headers(sent).keys() == {"effect-id"}


@pytest.mark.parametrize(("key", "topics"), [("erp/order/1", ("reversal.crm",)), ("a%2Fb/order/1", None)])
def test_a_command_without_a_topic_becomes_an_alert(key: str, topics: tuple[str, ...] | None) -> None:
    bench = Bench(topics=topics)
    batch = bench.run([bench.raw(action(key, f"a{n}")) for n in range(COMMAND_EVERY)])
    (sent,) = batch.effects
    alert = bench.codec.decode(sent.value)
    assert isinstance(alert, Alert)
    assert (sent.topic, alert.kind, alert.subject) == (bench.topics.alerts, "command_unsendable", key)
    assert bench.state(key).actions == COMMAND_EVERY


def test_history_is_read_with_what_the_batch_has_added() -> None:
    bench = Bench()
    bench.run([bench.raw(action(KEY, "a")), bench.raw(action(KEY, "b"))])
    batch = bench.run(
        [
            bench.raw(action(KEY, "c")),
            bench.raw(action(KEY, "c", run_id="again")),
            bench.raw(action(KEY, "", step_id="drop")),
            bench.raw(action(KEY, "d")),
        ]
    )
    assert bench.state(KEY).actions == 4
    assert dict(batch.changes.entries) == {
        b"crm/contact/1\0a": None,
        b"crm/contact/1\0b": None,
        b"crm/contact/1\0c": None,
        b"crm/contact/1\0d": b'{"n":4,"v":1}',
    }
    assert [key for key, _ in bench.store.entries(KEY.encode())] == [b"d"]


def test_now_never_goes_back_and_is_the_records() -> None:
    bench = Bench()
    bench.run([bench.raw(action(KEY, "a"))])
    batch = bench.run([bench.raw(action(KEY, "b"), timestamp=NOW_MS - 5_000)])
    assert bench.state(KEY).now == batch.now == NOW


def test_a_timer_is_an_event_like_any_other() -> None:
    bench = Bench()
    batch = bench.run([bench.raw(action(KEY, "a", step_id="timer", set={"/after": 7 * SECOND}))])
    assert [due for _, _, due in batch.changes.checkpointed_heads] == [NOW + 7 * SECOND]
    timer = Timer(resource=KEY, due_at=NOW + 7 * SECOND)
    raw = Raw(0, KEY.encode(), bench.codec.encode(bench.topics.timers, timer), NOW_MS + 7_000)
    batch = bench.run([raw], bench.topics.timers)
    assert [due for _, _, due in batch.changes.checkpointed_heads] == [None]
    assert bench.state(KEY).fired == 1


# -- bad input: one row each, with the bytes that must stand among the dead letters


def good(bench: Bench, **fields: Any) -> Raw:
    return bench.raw(action(KEY, "good"), **fields)


def unknown_magic(bench: Bench) -> Raw:
    return bench.next(key=KEY.encode(), value=b'{"json": true}')


def unknown_schema_id(bench: Bench) -> Raw:
    value = good(bench).value
    assert value is not None
    return bench.next(key=KEY.encode(), value=b"\0\0\0\0\x07" + value[5:])


def truncated(bench: Bench) -> Raw:
    value = good(bench).value
    assert value is not None
    return bench.next(key=KEY.encode(), value=value[:-3])


def gigabytes(bench: Bench) -> Raw:
    value = good(bench).value
    assert value is not None
    return bench.next(key=KEY.encode(), value=value[:5] + b"\xfe\xff\xff\xff\x0f" + value[6:])


def null_value(bench: Bench) -> Raw:
    return bench.next(key=KEY.encode(), value=None)


def null_key(bench: Bench) -> Raw:
    return good(bench, key=None)


def key_of_another(bench: Bench) -> Raw:
    return good(bench, key=b"crm/contact/2")


def key_that_is_none(bench: Bench) -> Raw:
    return good(bench, key=b"\xff\xfe")


def in_1970(bench: Bench) -> Raw:
    return bench.raw(msgspec.structs.replace(action(KEY, "x"), occurred_at=1_780_000_000))


def next_year(bench: Bench) -> Raw:
    return bench.raw(msgspec.structs.replace(action(KEY, "x"), occurred_at=NOW + 365 * DAY))


def timestamp_next_year(bench: Bench) -> Raw:
    return good(bench, timestamp=NOW_MS + 365 * 86_400_000)


def timestamp_1970(bench: Bench) -> Raw:
    return good(bench, timestamp=0)


def unknown_enum(bench: Bench) -> Raw:
    value = good(bench).value
    assert value is not None
    # `stage` stands first in the schema; its index in the enum's coding.
    bad = bytearray(value)
    bad[5 + 0] = 0x7E
    return bench.next(key=KEY.encode(), value=bytes(bad))


def wrong_kind(bench: Bench) -> Raw:
    observation = Observation(resource=KEY, exists=False)
    return bench.next(key=KEY.encode(), value=bench.codec.encode(bench.topics.observations, observation))


def rejected(bench: Bench) -> Raw:
    return bench.raw(action(KEY, "x", step_id="reject"))


BAD = {
    unknown_magic: "decode",
    unknown_schema_id: "decode",
    truncated: "decode",
    gigabytes: "decode",
    null_value: "null",
    null_key: "null",
    key_of_another: "key",
    key_that_is_none: "key",
    in_1970: "instant",
    next_year: "instant",
    timestamp_next_year: "instant",
    timestamp_1970: "instant",
    unknown_enum: "decode",
    wrong_kind: "kind",
    rejected: "rejected",
}


@pytest.mark.parametrize("warm", [False, True], ids=["unknown resource", "known resource"])
@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_bad_input_is_put_aside_and_the_partition_goes_on(make: Any, warm: bool) -> None:
    bench = Bench()
    if warm:
        bench.run([bench.raw(action(KEY, "before"))])
    before = bench.table.peek(KEY.encode())
    bad = make(bench)
    batch = bench.run([bad], latest=NOW + DAY)
    (letter,) = batch.effects
    assert (letter.topic, letter.key, letter.value) == (bench.topics.dead_letters, bad.key, bad.value)
    said = headers(letter)
    assert said["__dlq.errors.topic"] == bench.topics.actions
    assert said["__dlq.errors.partition"] == "0"
    assert said["__dlq.errors.offset"] == str(bad.offset)
    assert said["__dlq.errors.group"] == "group"
    assert said["__dlq.errors.attempt"] == "1"
    assert said["__dlq.errors.exception"]
    assert said["__dlq.errors.message"]
    assert batch.counts.dead_letters == {BAD[make]: 1}
    assert batch.counts.folded == 0
    assert bench.table.peek(KEY.encode()) == before
    after = bench.run([bench.raw(action(KEY, "after"))])
    assert after.counts.folded == 1
    assert bench.state(KEY).last == "after"


def test_a_dead_letter_that_is_driven_again_counts_its_attempts() -> None:
    bench = Bench()
    record = bench.next(
        key=KEY.encode(), value=b"x", headers=[("__dlq.errors.attempt", b"3"), ("traceparent", TRACE.encode())]
    )
    (letter,) = bench.run([record]).effects
    assert headers(letter)["__dlq.errors.attempt"] == "4"
    assert headers(letter)["traceparent"] == TRACE


def test_a_dead_letter_that_is_too_large_is_cut_and_says_so() -> None:
    bench = Bench(dead_letter_max_bytes=1_000)
    (letter,) = bench.run([bench.next(key=KEY.encode(), value=b"x" * 5_000)]).effects
    assert letter.value == b"x" * 1_000
    assert headers(letter)["reconciler.truncated"] == "5000"


def test_a_record_in_the_wrong_partition_is_forwarded_and_never_folded() -> None:
    partitions = 8
    right = partition_of(KEY.encode(), partitions)
    bench = Bench(partition=(right + 1) % partitions, partitions=partitions)
    record = bench.raw(action(KEY, "a"), headers=[("traceparent", b"t"), ("empty", None)])
    batch = bench.run([record])
    (sent,) = batch.effects
    assert (sent.topic, sent.partition, sent.key, sent.value) == (
        bench.topics.actions,
        right,
        record.key,
        record.value,
    )
    assert sent.timestamp_ms == record.timestamp
    assert headers(sent) == {
        "traceparent": "t",
        "empty": "",
        "reconciler.forwarded-from": f"{bench.topics.actions}/{bench.partition}/0",
    }
    assert (batch.counts.forwarded, batch.counts.folded) == (1, 0)
    assert bench.table.peek(KEY.encode()) is None
    assert not list(bench.store.heads())


def test_a_fault_of_the_machine_costs_one_record_and_alerts() -> None:
    bench = Bench()
    batch = bench.run(
        [
            bench.raw(action(KEY, "a")),
            bench.raw(action(KEY, "b", step_id="boom")),
            bench.raw(action(KEY, "c")),
        ]
    )
    assert bench.state(KEY).actions == 2
    assert batch.counts.dead_letters == {"bug": 1}
    letter, alert = batch.effects
    assert headers(letter)["__dlq.errors.exception"] == "RuntimeError"
    record = bench.codec.decode(alert.value)
    assert isinstance(record, Alert)
    assert (record.alert_id, record.severity) == (f"machine-failed/{bench.topics.actions}/0/1", "critical")


def test_a_state_that_cannot_be_encoded_costs_the_event_that_made_it() -> None:
    bench = Bench()
    bench.run([bench.raw(action(KEY, "a"))])
    batch = bench.run(
        [
            bench.raw(action(KEY, "b")),
            bench.raw(action("crm/contact/2", "x")),
            bench.raw(action(KEY, "c", step_id="poison")),
            bench.raw(action(KEY, "d")),
        ]
    )
    assert batch.counts.dead_letters == {"bug": 1}
    assert batch.counts.folded == 3
    assert (bench.state(KEY).actions, bench.state(KEY).last) == (3, "d")
    assert bench.state("crm/contact/2").actions == 1
    assert sorted(key for key, _ in bench.store.entries(KEY.encode())) == [b"a", b"b", b"d"]


class UnknownEffects(CountingMachine):
    """Gives an effect that no runner knows, after one that it does know."""

    def step(self, state: object, event: Event, now: int, history: HistoryReader) -> tuple[object, tuple[Effect, ...]]:
        state, effects = super().step(state, event, now, history)
        return state, (*effects, Effect())


def test_a_step_is_taken_whole_or_not_at_all() -> None:
    bench = Bench(UnknownEffects())
    batch = bench.run([bench.raw(action(KEY, "a"))])
    assert batch.counts.dead_letters == {"bug": 1}
    assert not batch.changes.heads
    assert not batch.changes.entries
    assert bench.table.peek(KEY.encode()) is None


def test_an_event_that_changes_nothing_writes_nothing() -> None:
    bench = Bench()
    bench.run([bench.raw(action(KEY, "a"))])
    batch = bench.run([bench.raw(action(KEY, "b", step_id="nothing"))])
    assert not batch.changes.heads
    assert batch.counts.folded == 1


def test_the_cache_is_bounded_and_loses_nothing() -> None:
    bench = Bench(cache_max_bytes=40_000)
    for round_ in range(3):
        for start in range(0, 200, 20):
            bench.run([bench.raw(action(f"crm/contact/{n}", f"{round_}-{n}")) for n in range(start, start + 20)])
            cached = sum(head.size for head in bench.table.cached.values())
            assert cached <= 40_000
            assert cached == sum(len(bench.store.head(key) or b"") for key in bench.table.cached)
        assert 20 < len(bench.table.cached) < 200, "it is made use of"
    states = dict(bench.table.heads())
    assert len(states) == 200
    assert all(isinstance(state, Count) and state.actions == 3 for state in states.values())


def test_heads_of_which_nothing_is_written_are_bounded_too() -> None:
    """As many as there are keys of which nothing comes: observations of what no workflow ever touched."""
    bench = Bench(cache_max_bytes=10_000)
    for number in range(200):
        batch = bench.run([bench.raw(action(f"crm/contact/{number}", "n", step_id="nothing"))])
        assert not batch.changes.heads
        assert len(bench.table.cached) <= 50


def test_a_batch_ends_where_it_has_enough_to_write() -> None:
    bench = Bench(batch_max_bytes=200)
    chunks = [
        bench.chunk([bench.raw(action(f"crm/contact/{n % 7}", f"{n}")) for n in range(start, start + 20)])
        for start in (0, 20, 40)
    ]
    taken = []
    rest: Sequence[Chunk] = chunks
    while rest:
        batch = bench.step(rest)
        assert batch.parts
        assert batch.consumed == {bench.topics.actions: batch.parts[-1].chunk.end}
        taken += [(part.chunk.start, part.chunk.end) for part in batch.parts]
        assert all(len(part.is_folded) == len(part.chunk.records) for part in batch.parts)
        rest = batch.rest
    assert len(taken) > 6
    assert [start for start, _ in taken] == [0, *(end for _, end in taken[:-1])]
    assert taken[-1][1] == 60


def test_a_head_that_is_large_before_a_batch_counts_in_it() -> None:
    """Each is written whole, whatever little is changed in it."""
    bench = Bench(batch_max_bytes=30_000)
    bench.step([bench.chunk([bench.raw(action(f"crm/contact/{n}", f"a{n}")) for n in range(5)])])
    for head in bench.table.cached.values():
        head.size = 10_000
    batch = bench.step([bench.chunk([bench.raw(action(f"crm/contact/{n}", f"b{n}")) for n in range(5)])])
    assert len(batch.changes.heads) == 3
    (rest,) = batch.rest
    assert len(bench.step([rest]).changes.heads) == 2


@pytest.mark.parametrize("max_bytes", [1, 100, 400])
def test_where_batches_end_changes_nothing(max_bytes: int) -> None:
    whole, cut = Bench(), Bench(batch_max_bytes=max_bytes)
    effects: list[list[Outgoing]] = []
    for bench in (whole, cut):
        records = [bench.raw(action(f"crm/contact/{n % 3}", f"{n}", n)) for n in range(50)]
        records += [unknown_magic(bench), rejected(bench), bench.raw(action(KEY, "n", step_id="nothing"))]
        observation = Observation(resource=KEY, exists=True, observed_at=NOW)
        raw = Raw(0, KEY.encode(), bench.codec.encode(bench.topics.observations, observation))
        rest: Sequence[Chunk] = [bench.chunk(records), bench.chunk([raw], bench.topics.observations)]
        made: list[Outgoing] = []
        batches = 0
        while rest:
            batch = bench.step(rest)
            made += batch.effects
            rest = batch.rest
            batches += 1
        assert (batches > 1) == (bench is cut)
        effects.append(made)
    assert effects[0] == effects[1]
    assert len(effects[0]) == 5
    assert dict(whole.table.heads()) == dict(cut.table.heads())
    for number in range(3):
        resource = f"crm/contact/{number}".encode()
        assert list(whole.store.entries(resource)) == list(cut.store.entries(resource))


class Counted(ResourceMachine):
    """Counts what it takes the short way."""

    def __init__(self, contracts: ContractSet) -> None:
        super().__init__(contracts)
        self.taken = 0

    def take_plain_update(self, state: object, update: PlainUpdate, now: int, history: HistoryReader) -> Any:
        taken = super().take_plain_update(state, update, now, history)
        self.taken += taken is not None
        return taken


class LongWay(ResourceMachine):
    take_plain_update = None  # type: ignore[assignment]


@pytest.mark.parametrize("seed", range(8))
def test_the_short_way_of_updates_leads_to_the_same(seed: int) -> None:
    counted = Counted(ContractSet())
    benches = [Bench(counted, partitions=2), Bench(LongWay(ContractSet()), partitions=2)]
    raws = updates_and_what_is_wrong(benches[0], random.Random(seed))
    for start in range(0, len(raws), 60):
        batches = [bench.run(raws[start : start + 60], latest=NOW + DAY) for bench in benches]
        left, right = ((batch.effects, batch.counts, batch.consumed, batch.now) for batch in batches)
        assert left == right
        assert batches[0].changes.heads == batches[1].changes.heads
        assert sorted(batches[0].changes.entries) == sorted(batches[1].changes.entries)
        assert [part.is_folded for part in batches[0].parts] == [part.is_folded for part in batches[1].parts]
    assert counted.taken > 50 or not IS_SHORTER


def updates_and_what_is_wrong(bench: Bench, rnd: random.Random) -> list[Raw]:
    """Updates of flat fields of some resources; every fifth is something else, or there is something about it."""
    there: dict[str, dict[str, Any]] = {}
    raws: list[Raw] = []
    for number in range(240):
        key = f"crm/contact/{rnd.randrange(8)}"
        known = there.setdefault(key, {})
        set_ = {f"/{name}": rnd.choice([None, 1, True, "x", "é"]) for name in rnd.sample("abc", rnd.randint(1, 2))}
        before = {path: known[path] for path in set_ if path in known}
        fields, raw = wrong_in(rnd, number, [each.value for each in raws])
        raws.append(
            bench.raw(action(key, **{"action_id": f"a{number}", "before": before, "set": set_} | fields), **raw)
        )
        if not fields and not raw.keys() & {"key", "value"}:
            known |= set_
    return raws


def wrong_in(rnd: random.Random, number: int, values: list[bytes | None]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is otherwise about an action and about its record, mostly nothing."""
    ways: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"timestamp": NOW_MS + 2 * DAY // 1000}),
        ({"occurred_at": "2031-01-01T00:00:00Z"}, {}),
        ({"occurred_at": "1970-01-01T00:00:05Z"}, {}),
        ({}, {"key": b"crm/contact/other"}),
        ({}, {"value": b"\x00\x00"}),
        ({}, {"value": rnd.choice([None, *values])}),
        ({"stage": "initiated"}, {}),
        ({"action_id": f"a{rnd.randrange(number + 1)}"}, {}),
        ({"before": {"/a": "somebody's"}, "set": {"/a": 2}}, {}),
        ({"operation": "delete", "before": {}, "set": {}}, {}),
        ({}, {"offset": max(number - 3, 0), "key": b"crm/contact/1"}),
    ]
    return rnd.choice(ways) if rnd.randrange(5) == 0 else ({}, {"timestamp": NOW_MS + number})


def test_several_inputs_feed_one_head() -> None:
    bench = Bench()
    bench.run([bench.raw(action(KEY, "a"))])
    observation = Observation(resource=KEY, exists=True, observed_at=NOW)
    value = bench.codec.encode(bench.topics.observations, observation)
    raw = Raw(0, KEY.encode(), value)
    bench.run([raw], bench.topics.observations)
    batch = bench.run([copy.copy(raw)], bench.topics.observations)
    assert batch.counts.replayed == 1
    assert (bench.state(KEY).actions, bench.state(KEY).others) == (1, 1)
    assert batch.consumed == {bench.topics.actions: 1, bench.topics.observations: 1}
