"""What ends a demo."""

from __future__ import annotations

from reconciler.values.errors import ReconcilerError


class DemoError(ReconcilerError):
    """The demo did not come to the end that it must come to."""
