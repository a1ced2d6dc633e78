"""When each resource of one target is read next: pure decisions, without a clock and without I/O.

Every resource has a slot: the same moment of every period, chosen by a hash of its key. Slots spread the reads evenly, and a
restart changes none of them, so that it brings no stampede. What changed lately, has open drift or waits for the effect of a
command is read out of turn. Both kinds queue by the time they are due; while both wait, the routine reads keep a fixed share
of all reads, so that neither kind can starve the other.

All instants and durations are microseconds. The caller passes `now`; where it goes back, what was put off by the leap
is brought forward again.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

import msgspec

from reconciler.machines.sampling import SamplingNeeds
from reconciler.values.instant import SECOND, Instant
from streams.sampler.publication import Published
from streams.sampler.timing import SampleTiming, ready_at

STEP_BACK: Final = SECOND
"""A clock that goes back by more than this was set; less is slewing, which does no harm."""
_COMPACT_ABOVE: Final = 64
_MAX_DOUBLINGS: Final = 30  # keeps the arithmetic of a resource that failed a thousand times small


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How eagerly a schedule reads out of turn. Durations in microseconds."""

    attention_first: int = 2 * SECOND
    """The first gap between reads of a resource that wants attention; it doubles with each read, up to the period."""
    retry_first: int = 15 * SECOND
    """The first gap after a read that brought nothing; it doubles likewise."""
    routine_share: float = 0.2
    """The part of all reads that routine keeps while more urgent ones wait."""


class _Home:
    """One owned partition. Taking `owned` away makes all its seats void at once, however many there are."""

    __slots__ = ("owned", "seats")

    def __init__(self) -> None:
        self.owned = True
        self.seats: dict[str, Seat] = {}


class Seat:
    """A resource's place in the schedule. To be read by others and written by the schedule, but for `published`."""

    __slots__ = (
        "failures",
        "fraction",
        "home",
        "looks",
        "needs",
        "published",
        "read_at",
        "resource",
        "retry_at",
        "slot",
        "taken",
        "ticket",
        "timing",
        "wanted_at",
    )

    def __init__(self, home: _Home, resource: str, needs: SamplingNeeds, timing: SampleTiming) -> None:
        self.home = home
        self.resource = resource
        self.fraction = fraction(resource)
        self.needs = needs
        self.timing = timing
        self.read_at: Instant | None = None
        """The instant before its newest read began."""
        self.slot: Instant = 0
        """When it is due as a matter of routine. Only a read moves it: what is written again and again is read all the same."""
        self.wanted_at: Instant | None = None
        """When it is due out of turn."""
        self.looks = 0
        """Reads since its needs changed: the gap doubles with each."""
        self.failures = 0
        """Reads that brought nothing, running."""
        self.retry_at: Instant = 0
        self.taken = False
        """Whether it is being read just now."""
        self.published: Published | None = None
        """The last answer about it that the brokers have. Written by whoever publishes."""
        self.ticket = 0
        """Which entries of the queues are valid; 0 where none is."""


class _Queue:
    """Seats by when they are due, then by resource. An entry whose ticket is no longer the seat's is void: a seat may wait in
    both queues, and leaves them together."""

    def __init__(self) -> None:
        self._heap: list[tuple[Instant, str, int, Seat]] = []
        self._compact_above = _COMPACT_ABOVE

    def push(self, due: Instant, seat: Seat) -> None:
        heapq.heappush(self._heap, (due, seat.resource, seat.ticket, seat))
        if len(self._heap) > self._compact_above:
            self._heap = [entry for entry in self._heap if _is_valid(entry)]
            heapq.heapify(self._heap)
            self._compact_above = 2 * len(self._heap) + _COMPACT_ABOVE

    def next_due(self) -> Instant | None:
        while self._heap:
            if _is_valid(self._heap[0]):
                return self._heap[0][0]
            heapq.heappop(self._heap)
        return None

    def is_due(self, now: Instant) -> bool:
        due = self.next_due()
        return due is not None and due <= now

    def first(self) -> Seat:
        """The seat that `next_due` is about."""
        return self._heap[0][3]


def _is_valid(entry: tuple[Instant, str, int, Seat]) -> bool:
    return entry[3].ticket == entry[2] and entry[3].home.owned


def fraction(resource: str) -> float:
    """A number in [0, 1) that belongs to the resource, the same in every process."""
    return int.from_bytes(blake2b(resource.encode(), digest_size=6).digest(), "big") / (1 << 48)


def next_slot(place: float, period: int, after: Instant) -> Instant:
    """The first slot later than `after` of a resource with this `fraction`."""
    phase = int(place * period)
    return after + period - (after - phase) % period


class Schedule:
    """Which resources of one target are read next."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._homes: dict[int, _Home] = {}
        self._dropped: dict[int, _Home] = {}
        self._urgent = _Queue()
        self._routine = _Queue()
        self._routine_credit = 0.0
        self._last_ticket = 0
        self._latest: Instant = 0

    def __len__(self) -> int:
        """How many resources are watched."""
        return sum(len(home.seats) for home in self._homes.values())

    def __contains__(self, place: tuple[int, str]) -> bool:
        """Whether a resource is watched, by (partition, resource)."""
        partition, resource = place
        home = self._homes.get(partition)
        return home is not None and resource in home.seats

    def put(self, partition: int, resource: str, needs: SamplingNeeds, timing: SampleTiming, now: Instant) -> None:
        """Makes known what a resource's state asks for, for the first time or again. The same needs again change nothing."""
        self._notice(now)
        home = self._homes.setdefault(partition, _Home())
        seat = home.seats.get(resource)
        if not needs.watched:
            home.seats.pop(resource, None)
            if seat is not None:
                seat.ticket = 0
            return
        if seat is None:
            seat = home.seats[resource] = Seat(home, resource, needs, timing)
            seat.published = self._published_before(partition, resource)
            seat.slot = next_slot(seat.fraction, timing.period, now)
        elif seat.timing == timing and _ask_the_same(seat.needs, needs):
            _take_note(seat, needs)
            return
        _take_note(seat, needs)
        if seat.timing != timing:
            seat.timing = timing
            seat.slot = min(seat.slot, next_slot(seat.fraction, timing.period, now))
        seat.looks = -1 if seat.taken else 0  # the read that is under way began before: it counts for nothing
        if not seat.taken:
            self._plan(seat, now)

    def drop_partition(self, partition: int) -> None:
        """Drops a partition, at once: none of its resources is taken again, and those that are being read are no longer
        current. What was published of them is remembered until `forget_dropped`: most partitions that a rebalance takes away
        it gives back, and a state that took in something else meanwhile says so (`last_observed_at`)."""
        home = self._homes.pop(partition, None)
        if home is not None:
            home.owned = False
            self._dropped[partition] = home

    def forget_dropped(self, partition: int) -> None:
        """Forgets what was published of a partition before it was dropped."""
        self._dropped.pop(partition, None)

    def _published_before(self, partition: int, resource: str) -> Published | None:
        home = self._dropped.get(partition)
        seat = None if home is None else home.seats.get(resource)
        return None if seat is None else seat.published

    def is_current(self, seat: Seat) -> bool:
        """Whether the seat is still the schedule's: false once its partition was dropped or it is no longer watched."""
        return seat.home.owned and seat.home.seats.get(seat.resource) is seat

    def next_due(self) -> Instant | None:
        """When something is due next; None where nothing waits."""
        dues = (self._urgent.next_due(), self._routine.next_due())
        return min((due for due in dues if due is not None), default=None)

    def lag(self, now: Instant) -> int:
        """By how much the most overdue resource is overdue; 0 where none is."""
        due = self.next_due()
        return 0 if due is None else max(0, now - due)

    def take(self, now: Instant, limit: int) -> list[Seat]:
        """The next bulk read, of at most `limit` resources, empty where nothing is due. Each stays out of the queues until
        `succeeded`, `failed` or `put_back` is called for it.

        A resource whose reads failed is asked about in ever smaller company, down to alone, so that one that makes a whole
        bulk read fail is found, and spoils no others.
        """
        self._notice(now)
        taken: list[Seat] = []
        bound = limit
        while len(taken) < bound:
            queue = self._choose(now)
            if queue is None:
                break
            seat = queue.first()
            bound = min(bound, max(1, limit >> seat.failures))
            if len(taken) >= bound:
                break
            self._charge(queue, now)
            seat.ticket = 0
            seat.taken = True
            taken.append(seat)
        return taken

    def find(self, resource: str) -> Seat | None:
        """The seat of a resource; None where it isn't watched, or is being read."""
        for home in self._homes.values():
            seat = home.seats.get(resource)
            if seat is not None:
                return None if seat.taken else seat
        return None

    def occupy(self, seat: Seat) -> None:
        """Takes a seat whose resource was read without being due."""
        seat.ticket = 0
        seat.taken = True

    def put_back(self, seats: Iterable[Seat]) -> None:
        """Gives back what was taken and not read: it is due when it was, or when its needs say if they changed meanwhile."""
        for seat in seats:
            seat.taken = False
            if not self.is_current(seat):
                continue
            if seat.looks < 0:
                seat.looks = 0
                self._plan(seat, self._latest)
            else:
                self._enqueue(seat)

    def succeeded(self, seat: Seat, observed_at: Instant, now: Instant) -> None:
        """The resource was read; `observed_at` is the instant before the read began."""
        seat.failures = 0
        seat.read_at = observed_at if seat.read_at is None else max(seat.read_at, observed_at)
        self._come_back(seat, now)

    def scanned(self, seat: Seat, observed_at: Instant, now: Instant, scan_every: int) -> None:
        """The resource was read in a scan of the whole target. Where scans come as often as the resource is to be read, it has
        no slot of its own any more, unless the next scan fails to come."""
        self.succeeded(seat, observed_at, now)
        if scan_every <= seat.timing.period and self.is_current(seat):
            seat.slot = max(seat.slot, now + scan_every + seat.timing.period // 2)
            self._enqueue(seat)

    def failed(self, seat: Seat, now: Instant) -> None:
        """The read brought nothing that can be used. It is tried again soon, then ever later, at the latest in its slot."""
        gap = self._pace.retry_first << min(seat.failures, _MAX_DOUBLINGS)
        seat.retry_at = now + _jittered(gap, seat)
        seat.failures += 1
        self._come_back(seat, now)

    def _come_back(self, seat: Seat, now: Instant) -> None:
        self._notice(now)
        seat.taken = False
        seat.looks += 1
        seat.slot = next_slot(seat.fraction, seat.timing.period, now)
        if self.is_current(seat):
            self._plan(seat, now)

    def _plan(self, seat: Seat, now: Instant) -> None:
        """Decides when a seat is due, in and out of turn, and queues it."""
        seat.wanted_at = self._wanted_at(seat, now)
        if seat.failures and seat.wanted_at is not None:
            seat.wanted_at = max(seat.wanted_at, seat.retry_at)
        self._enqueue(seat)

    def _wanted_at(self, seat: Seat, now: Instant) -> Instant | None:
        """When a seat wants to be read out of turn; None where its slot will do."""
        ready = ready_at(seat.needs, seat.timing)
        if seat.needs.undo_step is not None and seat.looks <= 0:
            return now
        if seat.needs.wants_attention:
            gap = self._pace.attention_first << min(max(seat.looks, 0), _MAX_DOUBLINGS)
            wanted = now + _jittered(gap, seat)
            return wanted if seat.needs.undo_step is not None else max(wanted, ready or 0)
        if ready is None or (seat.read_at is not None and seat.read_at >= ready):
            return None
        # What was written longer ago comes from a backlog: all of it at once would be a stampede.
        return max(ready, now) if ready > now - seat.timing.period else None

    def _enqueue(self, seat: Seat) -> None:
        self._last_ticket += 1
        seat.ticket = self._last_ticket
        self._routine.push(min(seat.slot, seat.retry_at) if seat.failures else seat.slot, seat)
        if seat.wanted_at is not None:
            self._urgent.push(seat.wanted_at, seat)

    def _choose(self, now: Instant) -> _Queue | None:
        """The queue whose turn it is."""
        if not self._urgent.is_due(now):
            return self._routine if self._routine.is_due(now) else None
        is_routines_turn = self._routine_credit >= 1 - self._pace.routine_share
        return self._routine if is_routines_turn and self._routine.is_due(now) else self._urgent

    def _charge(self, queue: _Queue, now: Instant) -> None:
        """Keeps the account of whose turn it is, while both kinds wait."""
        if not self._urgent.is_due(now) or not self._routine.is_due(now):
            self._routine_credit = 0.0
        else:
            self._routine_credit += self._pace.routine_share - (queue is self._routine)

    def _notice(self, now: Instant) -> None:
        """Plans anew where the clock was set back: what was due soon would else be due only when the clock is there again."""
        if now >= self._latest - STEP_BACK:
            self._latest = max(self._latest, now)
            return
        self._latest = now
        for home in self._homes.values():
            for seat in home.seats.values():
                seat.slot = min(seat.slot, next_slot(seat.fraction, seat.timing.period, now))
                seat.retry_at = min(seat.retry_at, now + seat.timing.period)
                if not seat.taken:
                    self._plan(seat, now)


def _take_note(seat: Seat, needs: SamplingNeeds) -> None:
    seat.needs = needs
    if needs.last_observed_at is not None:
        seat.read_at = max(needs.last_observed_at, seat.read_at or 0)


def _ask_the_same(left: SamplingNeeds, right: SamplingNeeds) -> bool:
    """Whether two needs differ in nothing but what was observed."""
    return (
        left.open_drift == right.open_drift
        and left.pending_command == right.pending_command
        and left.undo_step == right.undo_step
        and left.last_write_at == right.last_write_at
        and left.in_flight_until == right.in_flight_until
    )


def _jittered(gap: int, seat: Seat) -> int:
    """A gap, longer or shorter by up to a quarter, always alike for one resource."""
    return int(gap * (0.75 + 0.5 * seat.fraction))
