"""Fences: once a run is rolled back, none of its further actions may begin.

The check is a courtesy to the target: it keeps most late actions from happening. What slips through is folded and, as the
contract says, reversed or reported. So a fence that can't be read costs the check and nothing else: the answer is then
"not fenced", a warning is logged once per outage, and for some seconds Redis isn't asked again, so that a dead Redis
delays one action by a fraction of a second and the others not at all.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

logger = logging.getLogger("reconciler.sdk")

KEY_PREFIX: Final = "reconciler:fence:"
_TIMEOUT_S: Final = 0.25
_PAUSE_S: Final = 5.0
# Late actions of a run come within hours or days, not years: what is older needs no entry. As long as the longest
# retention of a topic of commands and then some.
KEEP_S: Final = 90 * 24 * 3600


class Fence(Protocol):
    """Says whether a run was rolled back. Never raises for a store that can't be reached."""

    def is_fenced(self, run_id: str) -> str | None:
        """Why no action of the run may begin any more; None where it may."""
        ...


class AsyncFence(Protocol):
    """The same for event loops."""

    async def is_fenced(self, run_id: str) -> str | None:
        """Why no action of the run may begin any more; None where it may."""
        ...


class _Outage:
    """Remembers that Redis failed, so that it is left alone for a while and logged once."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._ask_again_at = 0.0
        self._failing = False

    def is_on(self) -> bool:
        return self._failing and self._monotonic() < self._ask_again_at

    def failed(self, error: Exception) -> None:
        if not self._failing:
            logger.warning("fences can't be checked, actions go on unchecked: Redis doesn't answer (%s)", error)
        self._failing = True
        self._ask_again_at = self._monotonic() + _PAUSE_S

    def worked(self) -> None:
        if self._failing:
            logger.info("fences are checked again")
        self._failing = False


class RedisFence:
    """Fences in Redis, one key a run. `fence` and `lift` are for whoever rolls back, and do raise `redis.RedisError`."""

    def __init__(self, url: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis.Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._outage = _Outage(monotonic)

    def is_fenced(self, run_id: str) -> str | None:
        if self._outage.is_on():
            return None
        try:
            reason: str | None = self._redis.get(KEY_PREFIX + run_id)  # type: ignore[assignment]  # text by decode_responses
        except (redis.RedisError, OSError) as error:
            self._outage.failed(error)
            return None
        self._outage.worked()
        return reason

    def fence(self, run_id: str, reason: str) -> None:
        """No action of the run may begin from now on."""
        self._redis.set(KEY_PREFIX + run_id, reason, ex=KEEP_S)

    def lift(self, run_id: str) -> None:
        """Actions of the run may begin again."""
        self._redis.delete(KEY_PREFIX + run_id)

    def close(self) -> None:
        """Gives back connections."""
        self._redis.close()


class AsyncRedisFence:
    """`RedisFence` for event loops; the keys are the same."""

    def __init__(self, url: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis.asyncio.Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
        )
        self._outage = _Outage(monotonic)

    async def is_fenced(self, run_id: str) -> str | None:
        if self._outage.is_on():
            return None
        try:
            reason: str | None = await self._redis.get(KEY_PREFIX + run_id)  # type: ignore[assignment]  # text by decode_responses
        except (redis.RedisError, OSError) as error:
            self._outage.failed(error)
            return None
        self._outage.worked()
        return reason

    async def fence(self, run_id: str, reason: str) -> None:
        """No action of the run may begin from now on."""
        await self._redis.set(KEY_PREFIX + run_id, reason, ex=KEEP_S)

    async def lift(self, run_id: str) -> None:
        """Actions of the run may begin again."""
        await self._redis.delete(KEY_PREFIX + run_id)

    async def close(self) -> None:
        """Gives back connections."""
        await self._redis.aclose()
