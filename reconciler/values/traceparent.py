"""W3C trace context: which texts are a `traceparent` that may be passed on."""

from __future__ import annotations

import re
from typing import Final

# https://www.w3.org/TR/trace-context/#traceparent-header-field-values: version ff is forbidden, so are ids of zeros; a
# version above 00 may go on after a further dash.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-[!-~]*)?"
)
_MAX_LENGTH: Final = 512  # of our own: the standard's is 55, and later versions may add to it


def is_traceparent(text: str) -> bool:
    """Whether a text is a `traceparent` that may be passed on."""
    match = _TRACEPARENT.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    return match is not None and not (match["version"] == "00" and match["more"])


def usable_traceparent(*texts: str | None) -> str | None:
    """The first of some texts that may be passed on: a malformed one is never, and the standard says to go on as if there were
    none."""
    return next((text for text in texts if text is not None and is_traceparent(text)), None)
