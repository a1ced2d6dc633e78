"""What is worth publishing: one pure decision over what was published last of a resource.

What was published last is remembered with the resource's seat, and lost with the process: then it is published once more. It
outlives a short loss of the partition. Whatever somebody else published of the resource meanwhile shows in its state, as an
observation that is newer than ours.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from reconciler.machines.sampling import SamplingNeeds
from reconciler.values.instant import Instant
from streams.sampler.answers import Answer
from streams.sampler.timing import RECORD_CLOCK, SampleTiming, ready_at

Why: TypeAlias = Literal["first", "changed", "overtaken", "wanted", "written", "heartbeat"]
"""Why an answer is published: nothing is remembered of the resource; it is another one than the last, or known where that was
unknown, or the other way round; the resource's state has meanwhile taken in an observation that isn't ours; its machine waits
for one; it was written and has settled since; it is time to say the same again."""


class Published(msgspec.Struct, frozen=True, gc=False):
    """The answer about a resource that was published last."""

    digest: bytes | None
    observed_at: Instant
    published_at: Instant


def why_publish(
    last: Published | None, answer: Answer, needs: SamplingNeeds, timing: SampleTiming, now: Instant
) -> Why | None:
    """Why an answer is to be published; None where nobody would learn anything from it.

    That a resource can't be observed is said when it begins, and with the heartbeat, not with each attempt. An answer that is
    older than what was published, or than what the state has taken in from the outcome of a command, would be refused there.
    """
    observed_at = answer.observation.observed_at or 0
    if needs.last_observed_at is not None and needs.last_observed_at >= observed_at:
        return None
    if last is None:
        return "first"
    if last.observed_at >= observed_at:
        return None
    if last.digest != answer.digest:
        return "changed"
    if answer.digest is not None:
        taken_in_at = last.observed_at if needs.last_observed_at is None else needs.last_observed_at
        if taken_in_at > last.observed_at:
            return "overtaken"
        if needs.wants_attention:
            return "wanted"
        ready = ready_at(needs, timing)
        if ready is not None and taken_in_at < ready - RECORD_CLOCK and observed_at >= ready:
            return "written"
    # A clock that was set back must not silence the heartbeat.
    return None if 0 <= now - last.published_at < timing.heartbeat else "heartbeat"
