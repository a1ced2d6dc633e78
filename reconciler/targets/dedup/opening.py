"""From the configuration to a store."""

from __future__ import annotations

from reconciler.targets.dedup.config import DedupConfig, RedisDedupConfig
from reconciler.targets.dedup.memory import MemoryDedup
from reconciler.targets.dedup.redis import RedisDedup
from reconciler.targets.dedup.store import DedupStore


def opened_dedup(config: DedupConfig) -> DedupStore:
    """The store that is configured. No I/O."""
    return RedisDedup(config) if isinstance(config, RedisDedupConfig) else MemoryDedup(config)
