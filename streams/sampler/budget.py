"""How many resources of a target may be read: a rate and a burst, shared by all workers through Redis.

All budgets are token buckets in the form of the generic cell rate algorithm: one instant, at which everything that was granted
is paid for (https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm). What is granted in any stretch of time is at most the
burst plus the rate's part of that time. A read larger than the burst is granted once nothing is owed.

When Redis is lost, each worker keeps to its share of the rate, which is its share of the partitions: the shares of all
workers add up to the whole, so that a target is never asked more than it can bear, only in part less.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from streams.sampler.settings import SamplerSettings, TargetLimits

logger = logging.getLogger(__name__)

_KEPT_AFTER_MS: Final = 1_000
"""A bucket that owes nothing needs no key; a second more keeps rounding from losing a debt."""

# KEYS: the bucket. ARGV: microseconds for one read, reads asked for, burst. Returns the microseconds to wait, 0 for granted.
# The time is the server's: the workers' clocks play no part. A debt beyond what this bucket could owe comes from a clock
# that was set back or from other settings, and is cut.
_SCRIPT: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local each, count, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local paid = tonumber(redis.call('GET', KEYS[1]) or now)
paid = math.min(math.max(paid, now), now + each * math.max(burst, count))
local after = paid + each * count
local wait = math.min(paid - now, after - each * burst - now)
if wait > 0 then return math.ceil(wait) end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000) + KEPT_AFTER_MS)
return 0
""".replace("KEPT_AFTER_MS", str(_KEPT_AFTER_MS))


class Bucket:
    """A token bucket of this process alone. Pure; instants in seconds of any clock that never goes back."""

    def __init__(self) -> None:
        self._paid_at: float | None = None

    def take(self, now: float, count: int, rate: float, burst: float) -> float:
        """Seconds to wait before asking again, 0 where `count` reads are granted. It begins without a burst: what it stands
        in for may have granted one just before."""
        paid_at = now + burst / rate if self._paid_at is None else max(self._paid_at, now)
        after = paid_at + count / rate
        wait = min(paid_at - now, after - burst / rate - now)
        self._paid_at = paid_at if wait > 0 else after
        return max(0.0, wait)

    def reset(self) -> None:
        """Begins again, without a burst."""
        self._paid_at = None


class Budget(Protocol):
    """The budget of one target."""

    async def take(self, count: int) -> float:
        """Seconds to wait before asking again, 0 where `count` reads are granted now."""
        ...

    def rate(self) -> float:
        """Reads a second that this worker may make at most, as things are."""
        ...


class SharedBudgets:
    """The budgets of all targets. Without Redis, or while it is lost, each is this worker's share.

    `share` says which part of all work is this worker's, from 0 to 1; `monotonic` is a clock in seconds.
    """

    def __init__(
        self,
        redis_url: str | None,
        *,
        prefix: str,
        settings: SamplerSettings,
        share: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._prefix = prefix
        self._share = share
        self._monotonic = monotonic
        self._retry_s = settings.redis_retry_s
        self._redis: Redis | None = None
        self._is_lost = redis_url is None
        self._retry_at = 0.0
        self._losses = 0
        if redis_url is not None:
            # One retry, at once: a pooled connection that Redis closed meanwhile is no loss of Redis.
            self._redis = Redis.from_url(
                redis_url,
                socket_timeout=settings.redis_timeout_s,
                socket_connect_timeout=settings.redis_timeout_s,
                retry=Retry(NoBackoff(), 1),
            )
            self._script = self._redis.register_script(_SCRIPT)

    @property
    def is_shared(self) -> bool:
        """Whether Redis keeps the budgets now."""
        return not self._is_lost

    @property
    def losses(self) -> int:
        """How often Redis was lost."""
        return self._losses

    def budget(self, system: str, limits: TargetLimits) -> Budget:
        """The budget of one target."""
        return _TargetBudget(self, f"{self._prefix}reconciler:sampler:budget:{system}", limits)

    async def close(self) -> None:
        """Gives back connections."""
        if self._redis is not None:
            await self._redis.aclose()

    def share(self) -> float:
        return min(1.0, max(0.0, self._share()))

    def now(self) -> float:
        return self._monotonic()

    async def ask(self, key: str, count: int, limits: TargetLimits) -> float | None:
        """Seconds to wait as Redis says, None while it is lost."""
        if self._redis is None or (self._is_lost and self._monotonic() < self._retry_at):
            return None
        # While this one finds out, the others don't wait with it.
        self._retry_at = self._monotonic() + self._retry_s
        try:
            answer = await self._script(keys=[key], args=[1_000_000 / limits.reads_per_s, count, limits.burst])
            wait_s = int(answer) / 1_000_000
        except (RedisError, OSError, TypeError, ValueError) as error:
            self._lost(error)
            return None
        if self._is_lost:
            self._is_lost = False
            logger.info("Redis is back: rate budgets are shared again")
        return wait_s

    def _lost(self, error: Exception) -> None:
        self._retry_at = self._monotonic() + self._retry_s
        if not self._is_lost:
            self._is_lost = True
            self._losses += 1
            logger.warning(
                "Redis is lost, each worker keeps to its share of the rate budgets: %s: %s", type(error).__name__, error
            )


class _TargetBudget:
    def __init__(self, shared: SharedBudgets, key: str, limits: TargetLimits) -> None:
        self._shared = shared
        self._key = key
        self._limits = limits
        self._bucket = Bucket()
        self._bucket_is_of = -1

    async def take(self, count: int) -> float:
        wait_s = await self._shared.ask(self._key, count, self._limits)
        return self._take_own(count) if wait_s is None else wait_s

    def _take_own(self, count: int) -> float:
        if self._bucket_is_of != self._shared.losses:
            self._bucket_is_of = self._shared.losses
            self._bucket.reset()
        share = self._shared.share()
        if share == 0:
            return 1.0
        limits = self._limits
        return self._bucket.take(self._shared.now(), count, limits.reads_per_s * share, limits.burst * share)

    def rate(self) -> float:
        return self._limits.reads_per_s * (1.0 if self._shared.is_shared else self._shared.share())
