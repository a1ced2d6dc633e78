"""What is wrong with a contract, and where."""

from __future__ import annotations

from typing import Literal

import msgspec

from reconciler.values.errors import InputError


class Fault(msgspec.Struct, frozen=True, order=True):
    """One thing to say about a contract file. ``line`` and ``column`` count from 1; 0 where the whole file is meant.

    An ``error`` keeps the contract from being loaded, a ``warning`` is what `lint` adds.
    """

    file: str
    line: int
    column: int
    message: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.message}"


class ContractError(InputError):
    """Contracts that can't be used. The message is the first fault; ``faults`` holds all."""

    def __init__(self, faults: list[Fault]) -> None:
        more = len(faults) - 1
        hint = f" (and {more} more: run `reconciler contracts lint`)" if more else ""
        super().__init__(f"{faults[0]}{hint}")
        self.faults = tuple(faults)
