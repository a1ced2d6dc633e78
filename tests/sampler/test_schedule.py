"""The schedule: nobody starves, everybody is read once a period, what matters comes first, and nothing comes twice at once."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reconciler.machines.sampling import SamplingNeeds
from reconciler.values.instant import SECOND, Instant
from streams.sampler.schedule import STEP_BACK, Pace, Schedule, Seat, fraction, next_slot
from streams.sampler.timing import RECORD_CLOCK, SampleTiming, ready_at

PERIOD = 300 * SECOND
SETTLE = 30 * SECOND
READY = SETTLE + RECORD_CLOCK
TIMING = SampleTiming(period=PERIOD, settle=SETTLE, heartbeat=12 * PERIOD)
PACE = Pace()
START: Instant = 1_777_777_777 * SECOND
QUIET = SamplingNeeds()


def key(number: int) -> str:
    return f"crm/contact/{number}"


def schedule_of(count: int, needs: SamplingNeeds = QUIET, pace: Pace = PACE) -> Schedule:
    schedule = Schedule(pace)
    for number in range(count):
        schedule.put(number % 3, key(number), needs, TIMING, START)
    return schedule


def read_all(schedule: Schedule, now: Instant, limit: int = 100) -> list[str]:
    """Reads everything that is due at one instant."""
    read = []
    while seats := schedule.take(now, limit):
        for seat in seats:
            read.append(seat.resource)
            schedule.succeeded(seat, now, now)
    return read


def run(
    schedule: Schedule, *, rate: float, seconds: int, bulk: int = 10, start: Instant = START
) -> dict[str, list[Instant]]:
    """Reads with so many resources a second for so long; when each resource was read."""
    reads: dict[str, list[Instant]] = {}
    allowance = 0.0
    for second in range(seconds):
        now = start + second * SECOND
        allowance = min(allowance + rate, rate + bulk)
        while allowance >= 1 and (seats := schedule.take(now, min(bulk, int(allowance)))):
            allowance -= len(seats)
            for seat in seats:
                reads.setdefault(seat.resource, []).append(now)
                schedule.succeeded(seat, now, now)
    return reads


def longest_gap(instants: list[Instant], start: Instant, end: Instant) -> int:
    marks = [start, *instants, end]
    return max(later - earlier for earlier, later in pairwise(marks))


# -- slots


@given(resource=st.text(min_size=1), period=st.integers(1, 10**12), after=st.integers(-(10**15), 10**16))
def test_a_slot_comes_once_in_every_period(resource: str, period: int, after: Instant) -> None:
    slot = next_slot(fraction(resource), period, after)
    assert after < slot <= after + period
    assert next_slot(fraction(resource), period, slot) == slot + period
    assert next_slot(fraction(resource), period, slot - 1) == slot


def test_slots_spread_evenly() -> None:
    tenths = Counter(int(fraction(key(number)) * 10) for number in range(10_000))
    assert set(tenths) == set(range(10))
    assert all(900 < count < 1_100 for count in tenths.values())


def test_the_fraction_of_a_resource_is_the_same_in_every_process() -> None:
    assert fraction("crm/contact/42") == 0.4021680311764797


def test_a_restart_moves_no_slot_and_brings_no_stampede() -> None:
    before = schedule_of(1_000)
    restarted = Schedule(PACE)
    later = START + 17 * SECOND
    for number in range(1_000):
        restarted.put(number % 3, key(number), QUIET, TIMING, later)
    assert read_all(restarted, later) == []
    read_all(before, later)
    at = START + 100 * SECOND
    read_all(before, at - SECOND)
    read_all(restarted, at - SECOND)
    assert sorted(read_all(before, at)) == sorted(read_all(restarted, at))
    a_tenth_of_the_period = [len(read_all(restarted, at + step * 30 * SECOND)) for step in range(1, 10)]
    assert max(a_tenth_of_the_period) < 150


# -- the period and its share


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 300), bulk=st.integers(1, 100))
def test_every_resource_is_read_once_a_period_where_the_rate_allows_it(count: int, bulk: int) -> None:
    rate = count / 300 * 1.5 + 1
    end = START + 1_200 * SECOND
    reads = run(schedule_of(count), rate=rate, seconds=1_200, bulk=bulk)
    assert len(reads) == count
    for instants in reads.values():
        assert (
            longest_gap(instants, START, end) <= PERIOD + 30 * SECOND
        )  # 30 s: unevenness of slots at half the rate to spare
        assert len(instants) <= 5


@settings(max_examples=25, deadline=None)
@given(routine=st.integers(1, 60), urgent=st.integers(1, 60), rate=st.sampled_from([1, 2, 5]), bulk=st.integers(1, 20))
def test_nobody_starves_however_much_is_urgent(routine: int, urgent: int, rate: int, bulk: int) -> None:
    pace = Pace(attention_first=SECOND // 2)
    short = SampleTiming(period=20 * SECOND, settle=SETTLE, heartbeat=PERIOD)
    schedule = Schedule(pace)
    for number in range(routine):
        schedule.put(0, f"crm/routine/{number}", QUIET, short, START)
    for number in range(urgent):
        schedule.put(1, f"crm/urgent/{number}", SamplingNeeds(open_drift="d"), short, START)
    seconds = 600
    reads = run(schedule, rate=rate, seconds=seconds, bulk=bulk)
    assert len(reads) == routine + urgent
    # In the worst case routine has a fifth of the rate to itself, and what is urgent is routine too.
    bound = short.period + (routine + urgent) / (0.2 * rate) * SECOND + bulk / rate * SECOND + 2 * SECOND
    for resource, instants in reads.items():
        assert longest_gap(instants, START, START + seconds * SECOND) <= bound, resource


def test_what_is_urgent_comes_first_and_routine_keeps_its_share() -> None:
    schedule = schedule_of(400)
    now = START + PERIOD + SECOND  # all 400 are overdue
    for number in range(400, 800):
        schedule.put(0, key(number), SamplingNeeds(last_write_at=now - READY), TIMING, now)
    taken = schedule.take(now, 100)
    urgent = [seat for seat in taken if seat.wanted_at is not None]
    assert (len(urgent), len(taken)) == (80, 100)
    one_by_one = [schedule.take(now, 1)[0].wanted_at is not None for _ in range(100)]
    assert sum(one_by_one) == 80
    assert one_by_one[:5].count(False) == 1


def test_a_resource_that_is_written_all_the_time_is_read_all_the_same() -> None:
    schedule = Schedule(PACE)
    reads = []
    for second in range(1_500):
        now = START + second * SECOND
        schedule.put(0, key(1), SamplingNeeds(last_write_at=now), TIMING, now)
        for seat in schedule.take(now, 10):
            reads.append(now)
            schedule.succeeded(seat, now, now)
    assert len(reads) == 5
    assert longest_gap(reads, START, START + 1_500 * SECOND) <= PERIOD


# -- what is read out of turn


def test_after_a_write_the_settle_time_is_waited_for() -> None:
    schedule = schedule_of(1)
    seat = next(iter(schedule_seats(schedule)))
    written_at = seat.slot - 200 * SECOND
    schedule.put(0, key(0), SamplingNeeds(last_write_at=written_at), TIMING, written_at)
    assert schedule.next_due() == written_at + READY
    assert schedule.take(written_at + READY - 1, 10) == []
    assert [seat.resource for seat in schedule.take(written_at + READY, 10)] == [key(0)]


def test_a_second_write_puts_the_read_off_and_one_that_was_observed_needs_none() -> None:
    schedule = schedule_of(1)
    slot = next(iter(schedule_seats(schedule))).slot
    first, second = slot - 200 * SECOND, slot - 190 * SECOND
    schedule.put(0, key(0), SamplingNeeds(last_write_at=first), TIMING, first)
    schedule.put(0, key(0), SamplingNeeds(last_write_at=second), TIMING, second)
    assert schedule.next_due() == second + READY
    [seat] = schedule.take(second + READY, 1)
    schedule.succeeded(seat, second + READY, second + READY + SECOND)
    assert schedule.next_due() == slot


def test_a_read_that_began_too_early_is_made_again() -> None:
    schedule = schedule_of(1)
    slot = next(iter(schedule_seats(schedule))).slot
    now = slot - 200 * SECOND
    schedule.put(0, key(0), SamplingNeeds(open_drift="d"), TIMING, now)
    [seat] = schedule.take(now + 10 * SECOND, 1)
    written = SamplingNeeds(last_write_at=now + 11 * SECOND)
    schedule.put(0, key(0), written, TIMING, now + 11 * SECOND)  # while it is being read
    assert schedule.take(slot + PERIOD, 1) == []
    schedule.succeeded(seat, now + 10 * SECOND, now + 12 * SECOND)
    assert schedule.next_due() == now + 11 * SECOND + READY


def test_open_drift_is_looked_at_soon_and_then_ever_less_up_to_the_period() -> None:
    schedule = schedule_of(1, SamplingNeeds(open_drift="d"))
    gaps, now = [], START
    for _ in range(14):
        due = schedule.next_due()
        assert due is not None
        gaps.append(due - now)
        now = due
        [seat] = schedule.take(now, 1)
        schedule.succeeded(seat, now, now)
    assert gaps[0] < 3 * SECOND
    assert all(later <= PERIOD for later in gaps)
    assert sum(gap < PERIOD // 2 for gap in gaps) < 10
    assert gaps[-1] == PERIOD


def test_what_an_undo_waits_for_is_read_at_once_however_lately_it_was_written() -> None:
    schedule = schedule_of(1)
    busy = SamplingNeeds(undo_step="s", last_write_at=START, in_flight_until=START + 1_000 * SECOND)
    schedule.put(0, key(0), busy, TIMING, START)
    [seat] = schedule.take(START, 1)
    schedule.succeeded(seat, START, START)
    assert (schedule.next_due() or 0) - START < 6 * SECOND, "and soon again, if that one did not do"


def test_a_read_that_began_before_an_undo_came_is_made_again_at_once() -> None:
    schedule = schedule_of(1, SamplingNeeds(open_drift="d"))
    now = schedule.next_due() or 0
    [seat] = schedule.take(now, 1)
    schedule.put(0, key(0), SamplingNeeds(open_drift="d", undo_step="s"), TIMING, now)
    schedule.succeeded(seat, now, now + SECOND)
    assert schedule.next_due() == now + SECOND


def test_a_new_command_is_looked_at_soon_again() -> None:
    schedule = schedule_of(1, SamplingNeeds(pending_command="c1"))
    now = START
    for _ in range(6):
        now = schedule.next_due() or 0
        [seat] = schedule.take(now, 1)
        schedule.succeeded(seat, now, now)
    schedule.put(0, key(0), SamplingNeeds(pending_command="c2"), TIMING, now)
    assert (schedule.next_due() or 0) - now < 3 * SECOND


def test_the_same_needs_again_change_nothing() -> None:
    schedule = schedule_of(1, SamplingNeeds(open_drift="d"))
    due = schedule.next_due()
    for second in range(3):
        needs = SamplingNeeds(open_drift="d", last_observed_at=START + second)
        schedule.put(0, key(0), needs, TIMING, START + second * SECOND)
    assert schedule.next_due() == due


def test_old_writes_of_a_backlog_wait_for_their_slots() -> None:
    schedule = schedule_of(100, SamplingNeeds(last_write_at=START - PERIOD - READY))
    assert all(seat.wanted_at is None for seat in schedule_seats(schedule))


def test_a_write_from_next_year_disturbs_nothing() -> None:
    schedule = schedule_of(1, SamplingNeeds(last_write_at=START + 365 * 86_400 * SECOND))
    reads = run(schedule, rate=10, seconds=1_500)
    assert len(reads[key(0)]) == 5


def test_while_work_is_in_flight_nothing_is_read_out_of_turn() -> None:
    until = START + 40 * SECOND
    schedule = schedule_of(1, SamplingNeeds(in_flight_until=until, last_write_at=START))
    slot = next(iter(schedule_seats(schedule))).slot
    assert schedule.next_due() == min(slot, until + RECORD_CLOCK)


def test_what_is_not_watched_is_not_read() -> None:
    schedule = schedule_of(2)
    schedule.put(0, key(0), SamplingNeeds(watched=False), TIMING, START)
    schedule.put(0, key(9), SamplingNeeds(watched=False, open_drift="d"), TIMING, START)
    assert len(schedule) == 1
    assert read_all(schedule, START + PERIOD) == [key(1)]


# -- failures


def test_a_failed_read_is_tried_again_ever_later_and_at_the_latest_after_a_period() -> None:
    schedule = schedule_of(1)
    gaps, now = [], START
    for _ in range(60):
        due = schedule.next_due()
        assert due is not None
        gaps.append(due - now)
        now = due
        [seat] = schedule.take(now, 1)
        schedule.failed(seat, now)
    assert min(gaps[1:]) >= 1
    assert sum(gap <= 20 * SECOND for gap in gaps[1:10]) >= 1
    assert gaps[-1] == PERIOD
    [seat] = schedule.take(now + PERIOD, 1)
    schedule.succeeded(seat, now + PERIOD, now + PERIOD)
    assert schedule.next_due() == next_slot(fraction(key(0)), PERIOD, now + PERIOD)


def test_what_wants_attention_and_fails_is_not_tried_again_in_haste() -> None:
    schedule = Schedule(PACE)
    now = next_slot(fraction(key(0)), PERIOD, START) + 10 * SECOND
    schedule.put(0, key(0), SamplingNeeds(open_drift="d"), TIMING, now - 3 * SECOND)
    [seat] = schedule.take(now, 1)
    schedule.failed(seat, now)
    assert (schedule.next_due() or 0) - now > 11 * SECOND
    schedule.put(0, key(0), SamplingNeeds(open_drift="another"), TIMING, now + SECOND)
    assert (schedule.next_due() or 0) - now > 11 * SECOND


@settings(max_examples=50, deadline=None)
@given(count=st.integers(2, 200), bulk=st.sampled_from([1, 2, 7, 64, 100]), data=st.data())
def test_one_that_spoils_its_bulk_is_found_and_spoils_no_others(count: int, bulk: int, data: st.DataObject) -> None:
    poison = {key(data.draw(st.integers(0, count - 1))) for _ in range(3)}
    schedule = schedule_of(count)
    read: set[str] = set()
    for second in range(3 * 300):
        now = START + second * SECOND
        while seats := schedule.take(now, bulk):
            is_spoilt = any(seat.resource in poison for seat in seats)
            for seat in seats:
                if is_spoilt:
                    schedule.failed(seat, now)
                else:
                    schedule.succeeded(seat, now, now)
                    read.add(seat.resource)
    assert read == {key(number) for number in range(count)} - poison


# -- partitions that go, clocks that go back


def test_a_partition_that_is_dropped_is_gone_at_once() -> None:
    schedule = schedule_of(300, SamplingNeeds(open_drift="d"))
    now = START + 10 * SECOND
    taken = schedule.take(now, 30)
    schedule.drop_partition(1)
    assert len(schedule) == 200
    assert [seat.resource for seat in taken if not schedule.is_current(seat)] == [
        seat.resource for seat in taken if int(seat.resource.split("/")[2]) % 3 == 1
    ]
    for seat in taken:
        schedule.succeeded(seat, now, now)
    for seconds in range(20, 2_000, 60):
        assert all(int(resource.split("/")[2]) % 3 != 1 for resource in read_all(schedule, START + seconds * SECOND))


def test_a_partition_that_comes_back_begins_anew() -> None:
    schedule = schedule_of(3, SamplingNeeds(open_drift="d"))
    taken = schedule.take(START + 10 * SECOND, 3)
    schedule.drop_partition(1)
    schedule.put(1, key(1), QUIET, TIMING, START + 10 * SECOND)
    old = next(seat for seat in taken if seat.resource == key(1))
    assert not schedule.is_current(old)
    schedule.succeeded(old, START, START + 11 * SECOND)
    schedule.put_back([old])
    assert read_all(schedule, START + 10 * SECOND + PERIOD).count(key(1)) == 1


@given(leap=st.integers(STEP_BACK + 1, 10**15))
def test_a_clock_that_is_set_back_puts_nothing_off_beyond_a_period(leap: int) -> None:
    schedule = schedule_of(5)
    [seat] = schedule.take(next(iter(schedule_seats(schedule))).slot + PERIOD, 1)
    schedule.failed(seat, START + PERIOD)
    now = START - leap
    read = [seat.resource for seat in schedule.take(now, 5)]  # here the leap is noticed
    read += read_all(schedule, now + PERIOD)
    assert set(read) == {key(number) for number in range(5)}


def test_many_changes_leave_no_garbage() -> None:
    schedule = schedule_of(10)
    for step in range(10_000):
        needs = SamplingNeeds(last_write_at=START + step)
        schedule.put(0, key(0), needs, TIMING, START)
    assert len(schedule._urgent._heap) < 200
    assert len(schedule._routine._heap) < 200


def schedule_seats(schedule: Schedule) -> list[Seat]:
    return [seat for home in schedule._homes.values() for seat in home.seats.values()]


# -- any sequence of what can happen

needs_of_any_kind = st.builds(
    SamplingNeeds,
    watched=st.sampled_from([True, True, True, False]),
    open_drift=st.sampled_from([None, "d1", "d2"]),
    pending_command=st.sampled_from([None, "c1"]),
    last_write_at=st.none() | st.integers(START - 2 * PERIOD, START + 4 * PERIOD),
    in_flight_until=st.none() | st.integers(START, START + PERIOD),
    last_observed_at=st.none() | st.integers(START, START + PERIOD),
)


class AnySequence(RuleBasedStateMachine):
    """Against a model of what is watched and what is being read."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = Schedule(PACE)
        self.now = START
        self.watched: dict[tuple[int, str], SamplingNeeds] = {}
        self.taken: list[Seat] = []

    @rule(number=st.integers(0, 8), needs=needs_of_any_kind)
    def put(self, number: int, needs: SamplingNeeds) -> None:
        place = (number % 3, key(number))
        self.schedule.put(*place, needs, TIMING, self.now)
        if needs.watched:
            self.watched[place] = needs
        else:
            self.watched.pop(place, None)

    @rule(partition=st.integers(0, 2))
    def drop(self, partition: int) -> None:
        self.schedule.drop_partition(partition)
        self.watched = {place: needs for place, needs in self.watched.items() if place[0] != partition}

    @rule(seconds=st.sampled_from([0, 1, 3, 30, 200, 400, -2, -500]))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule(limit=st.integers(1, 6))
    def take(self, limit: int) -> None:
        seats = self.schedule.take(self.now, limit)
        assert len(seats) <= limit
        held = {id(seat) for seat in self.taken}
        for seat in seats:
            assert id(seat) not in held
            assert self.schedule.is_current(seat)
        self.taken += seats

    @precondition(lambda self: self.taken)
    @rule(how=st.sampled_from(["succeeded", "failed", "put_back"]), data=st.data())
    def give_back(self, how: str, data: st.DataObject) -> None:
        seat = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        if how == "succeeded":
            self.schedule.succeeded(seat, self.now, self.now)
        elif how == "failed":
            self.schedule.failed(seat, self.now)
        else:
            self.schedule.put_back([seat])

    @invariant()
    def knows_what_is_watched(self) -> None:
        assert len(self.schedule) == len(self.watched)
        assert all(place in self.schedule for place in self.watched)

    @invariant()
    def nothing_is_lost(self) -> None:
        """Within a period everything that isn't being read is due, whatever happened."""
        being_read = {seat.resource for seat in self.taken if self.schedule.is_current(seat)}
        free = {resource for _, resource in self.watched} - being_read
        for seat in schedule_seats(self.schedule):
            assert (seat.ticket != 0) == (seat.resource in free)
        due = self.schedule.next_due()
        assert (due is not None) == bool(free)
        if due is not None and self.now >= self.schedule._latest - STEP_BACK:
            assert due <= self.schedule._latest + PERIOD

    @invariant()
    def what_can_be_judged_soon_is_due_soon(self) -> None:
        for seat in schedule_seats(self.schedule):
            ready = ready_at(seat.needs, seat.timing)
            if seat.ticket and not seat.failures and seat.needs.wants_attention:
                assert seat.wanted_at is not None
                assert seat.wanted_at <= max(self.schedule._latest + 2 * PERIOD, ready or 0)


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
