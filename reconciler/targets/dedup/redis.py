"""Deduplication in Redis. Losing what it holds harms `increment` alone: every other change is guarded by what it expects."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from reconciler.targets.answers import logger
from reconciler.targets.dedup.config import RedisDedupConfig
from reconciler.targets.dedup.store import Entry, Held, StoreUnavailable

# KEYS: lease, entry. ARGV: owner, milliseconds. An owner that asks again (its first answer was lost) has it already.
_CLAIM: Final = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return {'held'} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {'claimed', redis.call('GET', KEYS[2])}
"""
# KEYS: lease, entry. ARGV: owner, entry, seconds.
_KEEP: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
return 1
"""
# KEYS: lease. ARGV: owner.
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""

_entry = msgspec.json.Decoder(Entry)


class RedisDedup:
    """Two keys a command: who is at work on it, and what is known of it."""

    shared = True

    def __init__(self, config: RedisDedupConfig) -> None:
        self._prefix = config.prefix
        self._keep_s = config.keep_s
        self._client: Any = Redis.from_url(
            config.url.get_secret_value(),
            socket_timeout=config.timeout_s,
            socket_connect_timeout=config.timeout_s,
            retry=Retry(NoBackoff(), 1),  # once, for a connection that a restarted server has dropped
        )
        self._claim = self._client.register_script(_CLAIM)
        self._keep = self._client.register_script(_KEEP)
        self._release = self._client.register_script(_RELEASE)

    def _keys(self, command_id: str) -> list[str]:
        # One slot in a cluster: the tag is what stands in the first braces.
        return [f"{self._prefix}{{{command_id}}}:lease", f"{self._prefix}{{{command_id}}}:entry"]

    async def claim(self, command_id: str, owner: str, lease_s: float) -> Entry:
        try:
            answer = await self._claim(keys=self._keys(command_id), args=[owner, max(1, int(lease_s * 1_000))])
        except exceptions.RedisError as error:
            raise StoreUnavailable(type(error).__name__) from error
        if answer[0] == b"held":
            raise Held
        return Entry() if len(answer) < 2 or answer[1] is None else _entry.decode(answer[1])

    async def keep(self, command_id: str, owner: str, entry: Entry) -> None:
        try:
            kept = await self._keep(keys=self._keys(command_id), args=[owner, msgspec.json.encode(entry), self._keep_s])
        except exceptions.RedisError as error:
            raise StoreUnavailable(type(error).__name__) from error
        if not kept:
            raise Held

    async def release(self, command_id: str, owner: str) -> None:
        try:
            await self._release(keys=self._keys(command_id)[:1], args=[owner])
        except exceptions.RedisError as error:
            logger.warning("a command's lease could not be given back, and ends by itself: %s", type(error).__name__)

    async def close(self) -> None:
        await self._client.aclose()
