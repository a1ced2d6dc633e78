"""Where it is kept, as the targets file says it."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field, SecretStr

from reconciler.targets.first_outcome import KEPT_S
from reconciler.targets.settings import Strict


class MemoryDedupConfig(Strict):
    """In this process alone: a restart forgets it, and two processes don't share it."""

    kind: Literal["memory"]
    keep_s: int = Field(default=KEPT_S, ge=3600)


class RedisDedupConfig(Strict):
    """In Redis, for as many processes as there are."""

    kind: Literal["redis"]
    url: SecretStr
    prefix: str = Field(default="reconciler:command:", min_length=1)
    keep_s: int = Field(default=KEPT_S, ge=3600)
    timeout_s: float = Field(default=5.0, gt=0)


DedupConfig: TypeAlias = MemoryDedupConfig | RedisDedupConfig
