"""What the sampler needs to know of a resource's state.

The resource machine derives it (`reconciler.machines.resource.sampling_needs`) and the sampler compares it with what it knew:
a need is a level, not an event, so that one that was noticed late, twice or after a restart leads to the same reads.
"""

from __future__ import annotations

import msgspec

from reconciler.values.instant import Instant


class SamplingNeeds(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a resource's state asks of the sampler."""

    watched: bool = True
    """False where nothing is known that could drift, as after an `effect` alone: such a resource is not read."""
    open_drift: str | None = None
    """The drift_id of a drift that is open, or seen and not yet confirmed: the next observation decides."""
    pending_command: str | None = None
    """The command_id of a command whose effect at the target has not been seen yet."""
    undo_step: str | None = None
    """The step of a rollback that waits for an observation made from now on, whatever was written lately: at once."""
    last_write_at: Instant | None = None
    """When the target was last written, as far as is known. Until the contract's settle time is over observations say nothing."""
    in_flight_until: Instant | None = None
    """Until when an initiated action may still be at work. An observation before it says nothing."""
    last_observed_at: Instant | None = None
    """`observed_at` of the newest observation that the state has taken in, an outcome's included."""

    @property
    def wants_attention(self) -> bool:
        """Whether the next observation is waited for."""
        return self.open_drift is not None or self.pending_command is not None or self.undo_step is not None
