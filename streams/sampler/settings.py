"""The settings of the sampler: environment variables with the prefix RECONCILER_SAMPLER_.

How often a resource is read belongs to its contract; what a target can bear belongs here, because contracts don't know it.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from reconciler.values.errors import InputError
from reconciler.values.instant import SECOND
from streams.sampler.answers import DEFAULT_MAX_BYTES
from streams.sampler.breaker import BreakerLimits
from streams.sampler.schedule import Pace

_PREFIX = "RECONCILER_SAMPLER_"


class TargetLimits(BaseModel):
    """What one target can bear of all workers together; concurrency and time-out are each worker's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reads_per_s: float = Field(default=100.0, gt=0, description="Resources read a second, by all workers together.")
    burst: int = Field(default=200, ge=1, description="Resources that may be read at once after a rest.")
    concurrency: int = Field(
        default=2, ge=1, le=100, description="Reads that one worker has under way at a time, in all its processes."
    )
    timeout_s: float = Field(default=10.0, gt=0, description="How long one bulk read may take.")
    scan_every_s: float | None = Field(
        default=None,
        gt=0,
        description="How often the whole target is read page by page, where it can be; None is never.",
    )


class TargetOverrides(BaseModel):
    """The limits of one target, where they differ from the general ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reads_per_s: float | None = Field(default=None, gt=0)
    burst: int | None = Field(default=None, ge=1)
    concurrency: int | None = Field(default=None, ge=1, le=100)
    timeout_s: float | None = Field(default=None, gt=0)
    scan_every_s: float | None = Field(default=None, gt=0)


class SamplerSettings(BaseSettings):
    """Every setting of the sampler, with its default."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, extra="forbid", frozen=True, env_nested_delimiter="__", validate_default=True
    )

    limits: TargetLimits = Field(TargetLimits(), description="The limits of every target.")
    targets: dict[str, TargetOverrides] = Field(
        {}, description='Limits by system where they differ, as JSON: {"crm": {"reads_per_s": 20}}.'
    )
    routine_share: float = Field(
        0.2, gt=0, lt=1, description="The part of all reads that routine keeps while what is urgent waits too."
    )
    attention_first_s: float = Field(
        2.0,
        gt=0,
        description="How soon a resource with open drift or a command under way is read again; doubles up to the period.",
    )
    retry_first_s: float = Field(
        15.0, gt=0, description="How soon a failed read is tried again; doubles up to the period."
    )
    heartbeat_periods: int = Field(
        12,
        ge=1,
        description="What didn't change is published again after so many periods, or sooner where a contract needs it.",
    )
    breaker_failures: int = Field(
        5, ge=1, description="Failed reads of a target, running, after which it is left alone."
    )
    breaker_pause_first_s: float = Field(10.0, gt=0, description="For how long; doubles while it doesn't answer.")
    breaker_pause_cap_s: float = Field(120.0, gt=0, description="The longest such pause.")
    max_observation_bytes: int = Field(
        DEFAULT_MAX_BYTES,
        ge=1_000,
        description="A resource whose fields are larger is unknown: Kafka wouldn't take it.",
    )
    redis_timeout_s: float = Field(
        0.25, gt=0, description="How long Redis may take to answer before it counts as lost."
    )
    redis_retry_s: float = Field(5.0, gt=0, description="After how long a lost Redis is tried again.")
    gather_s: float = Field(
        0.2, gt=0, description="How long changed states are gathered before the schedule learns of them."
    )

    def limits_of(self, system: str) -> TargetLimits:
        """The limits of one target."""
        overrides = self.targets.get(system)
        return (
            self.limits if overrides is None else self.limits.model_copy(update=overrides.model_dump(exclude_none=True))
        )

    def pace(self) -> Pace:
        """How eagerly schedules read out of turn."""
        return Pace(
            attention_first=_microseconds(self.attention_first_s),
            retry_first=_microseconds(self.retry_first_s),
            routine_share=self.routine_share,
        )

    def breaker_limits(self) -> BreakerLimits:
        """When breakers open."""
        return BreakerLimits(
            failures=self.breaker_failures,
            pause_first=_microseconds(self.breaker_pause_first_s),
            pause_cap=_microseconds(self.breaker_pause_cap_s),
        )


def load_sampler_settings(**overrides: Any) -> SamplerSettings:
    """The settings of the environment, with what is given here on top. Raises InputError in one sentence."""
    try:
        return SamplerSettings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        place = "__".join(str(part) for part in first["loc"])
        raise InputError(f"the setting {_PREFIX}{place.upper()} can't be used: {first['msg'].lower()}") from None
    except SettingsError as error:  # which names the field in its text alone
        field = re.search(r'field "(\w+)"', str(error))
        name = field[1].upper() if field else ""
        raise InputError(f"the setting {_PREFIX}{name} can't be used: it must be JSON") from None


def _microseconds(seconds: float) -> int:
    return max(1, round(seconds * SECOND))
