"""Errors that a user's input can cause, in the core.

ReconcilerError
└── InputError            a record, file or request that can't be used; one sentence says what, where and the remedy
    ├── ValueLimitError   a value that is well-formed but beyond a documented limit
    └── ContractError     a contract that can't be used (see reconciler.contracts)
"""

from __future__ import annotations


class ReconcilerError(Exception):
    """Root of all errors that this product raises on purpose."""


class InputError(ReconcilerError, ValueError):
    """Input that can't be used.

    ``field`` is the place inside the input (a field name or a path such as ``set./phone``), empty where the whole
    input is meant.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.message = message
        self.field = field


class ValueLimitError(InputError):
    """A value beyond a limit: too deep, too large, or a number that JSON readers would change."""
