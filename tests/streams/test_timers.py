"""When heads are due: against a plain model, and by hand where it matters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.runner.timers import REPEATED_AFTER, Timers

ALL = 1_000


def test_due_in_order_and_once() -> None:
    timers = Timers([(b"c", 30), (b"a", 10), (b"b", 20)])
    assert timers.pop_due(9, ALL) == []
    assert timers.pop_due(20, ALL) == [(b"a", 10), (b"b", 20)]
    assert timers.pop_due(20, ALL) == []
    assert timers.pop_due(30, ALL) == [(b"c", 30)]


def test_a_change_of_mind_replaces_what_was_wanted() -> None:
    timers = Timers([])
    timers.set(b"a", 10)
    timers.set(b"a", 50)
    assert timers.pop_due(20, ALL) == []
    timers.set(b"a", 30)
    assert timers.pop_due(40, ALL) == [(b"a", 30)]
    timers.set(b"b", 10)
    timers.set(b"b", None)
    assert timers.pop_due(40, ALL) == []
    assert len(timers) == 1


def test_what_changes_nothing_is_sent_again_after_a_while() -> None:
    timers = Timers([(b"a", 10)])
    assert timers.pop_due(10, ALL) == [(b"a", 10)]
    timers.set(b"a", 10)
    assert timers.pop_due(10 + REPEATED_AFTER - 1, ALL) == []
    assert timers.pop_due(10 + REPEATED_AFTER, ALL) == [(b"a", 10)]
    assert timers.pop_due(10 + REPEATED_AFTER + 1, ALL) == []


def test_no_more_than_asked_for() -> None:
    timers = Timers([(b"%d" % number, number) for number in range(10)])
    assert len(timers.pop_due(100, 4)) == 4
    assert len(timers.pop_due(100, 4)) == 4
    assert len(timers.pop_due(100, 4)) == 2


changes = st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.none() | st.integers(0, 40))


@given(st.lists(st.lists(changes)))
def test_as_a_plain_model(rounds: list[list[tuple[bytes, int | None]]]) -> None:
    """At each instant, what is popped is what is wanted by then and wasn't sent for that wish yet."""
    timers, wanted, sent = Timers([]), {}, {}  # type: ignore[var-annotated]
    for now, changed in enumerate(rounds):
        for key, due_at in changed:
            timers.set(key, due_at)
            if due_at is None:
                wanted.pop(key, None)
                sent.pop(key, None)
            else:
                wanted[key] = due_at
        expected = {key: due for key, due in wanted.items() if due <= now and sent.get(key) != due}
        assert dict(timers.pop_due(now, ALL)) == expected
        sent.update(expected)
