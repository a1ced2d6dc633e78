"""The headers by which a service can tell our writes, so as to keep its own automations from answering them."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from reconciler.records import Command
from reconciler.targets.answers import origin_of
from reconciler.targets.http.config import HttpConfig
from reconciler.values.traceparent import usable_traceparent

TRACEPARENT: Final = "traceparent"
AUDIT: Final = "X-Reconciler-Audit"
"""Says `archive` with a write whose contract wants the service's own audit entries about what is undone archived."""


def marks_of(config: HttpConfig, command: Command) -> dict[str, str]:
    """The origin mark, percent-encoded where it holds what a header can't, the trace that the command is a part of, and what
    is to become of audit entries."""
    headers = {}
    if config.origin_header is not None:
        headers[config.origin_header] = quote(origin_of(command), safe=" /:@")
    trace = usable_traceparent(command.traceparent)
    if trace is not None:
        headers[TRACEPARENT] = trace
    if command.audit is not None:
        headers[AUDIT] = command.audit
    return headers
