"""W3C trace context: one `traceparent` from the workflow's step through the ledger to the correction that undoes it.

The SDK makes no spans. It passes on what it was given, from an argument or from the command that is being handled, and
begins a trace where there is none.
"""

from __future__ import annotations

import secrets
from contextvars import ContextVar
from typing import Final

from reconciler.values.errors import InputError
from reconciler.values.traceparent import is_traceparent

TRACEPARENT_HEADER: Final = "traceparent"

current_traceparent: ContextVar[str | None] = ContextVar("reconciler_traceparent", default=None)
"""The trace that the code which runs now is a part of: set while a command is handled, read when an action begins."""

current_origin: ContextVar[str | None] = ContextVar("reconciler_origin", default=None)
"""The origin mark of the command that is being handled, read likewise: an action that begins meanwhile is our own echo."""


def new_traceparent() -> str:
    """The start of a new trace, marked as sampled."""
    # The standard forbids ids of zeros alone; 64 and 128 random bits are never that in practice, but "never" costs nothing.
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    text = f"00-{trace_id}-{span_id}-01"
    return text if is_traceparent(text) else new_traceparent()


def traceparent_for(given: str | None) -> str:
    """The given one, else that of the work in progress, else a new one. Raises InputError for a malformed one."""
    if given is not None and not is_traceparent(given):
        raise InputError(f"{given!r} is no W3C traceparent; it looks like 00-<32 hex>-<16 hex>-01", field="traceparent")
    return given or current_traceparent.get() or new_traceparent()
