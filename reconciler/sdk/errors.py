"""Errors of the SDK. The tree is drawn in `reconciler.sdk`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.values.errors import ReconcilerError

if TYPE_CHECKING:
    from reconciler.records import Observation
    from reconciler.sdk.spool import Message


class SdkError(ReconcilerError):
    """Root of the SDK's own errors."""


class ClosedError(SdkError):
    """The producer or consumer was closed before."""


class FencedError(SdkError):
    """The run was rolled back: none of its further actions may begin. Nothing was emitted, nothing must be done."""

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(
            f"the run {run_id!r} is fenced ({reason}): it was rolled back, so this action must not begin; stop the run"
        )
        self.run_id = run_id
        self.reason = reason


class ObservationError(SdkError):
    """A resource that had to be observed could not be."""


class DeliveryError(SdkError):
    """Events that neither the brokers acknowledged nor the disk took. ``undelivered`` holds them, to be sent again."""

    def __init__(self, message: str, undelivered: tuple[Message, ...] = ()) -> None:
        super().__init__(message)
        self.undelivered = undelivered


class SpoolError(DeliveryError):
    """The spool can't be used: it is open elsewhere, damaged, or its disk fails."""


class SpoolFullError(SpoolError):
    """The spool has reached its bound."""


class HandlerError(SdkError):
    """Base of what a handler raises to say what became of a command. ``observed`` is what the target holds, if known."""

    def __init__(self, message: str, *, observed: Observation | None = None) -> None:
        super().__init__(message)
        self.observed = observed


class TransientError(HandlerError):
    """It may work later: outcome ``transient``. ``retry_after_s`` (seconds) says when, where the target told."""

    def __init__(
        self, message: str, *, observed: Observation | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, observed=observed)
        self.retry_after_s = retry_after_s


class PermanentError(HandlerError):
    """It will never work as it is: outcome ``permanent``."""


class ConflictError(HandlerError):
    """The target holds something else than the command expects: outcome ``conflict``; nothing was applied."""
