"""W3C trace context: one `traceparent` from the workflow's step through the ledger to the correction that undoes it.

The SDK makes no spans. It passes on what it was given, from an argument or from the command that is being handled, and
begins a trace where there is none.
"""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from typing import Final

from reconciler.values.errors import InputError

TRACEPARENT_HEADER: Final = "traceparent"

# https://www.w3.org/TR/trace-context/#traceparent-header-field-values: version ff is forbidden, so are ids of zeros; a
# version above 00 may go on after a further dash.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?"
)

current_traceparent: ContextVar[str | None] = ContextVar("reconciler_traceparent", default=None)
"""The trace that the code which runs now is a part of: set while a command is handled, read when an action begins."""


def is_traceparent(text: str) -> bool:
    """Whether a text is a `traceparent` that may be passed on."""
    match = _TRACEPARENT.fullmatch(text)
    return match is not None and not (match["version"] == "00" and match["more"])


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
