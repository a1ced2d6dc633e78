"""Numbers that reading would change.

A JSON text may hold decimals that no double has, such as 0.12345678901234567890. Looking at one rounded does no harm; writing
it back does, if all that was asked was to change something beside it.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Final

# Fifteen significant digits always survive a double (DBL_DIG); fewer digits need no closer look.
_MANY_DIGITS: Final = re.compile(r"[0-9][0-9.]{15,}|[0-9][eE][+-]?[0-9]{3,}")


def keeps_numbers(text: str) -> bool:
    """Whether every number of a JSON text, read as a double and written again, is the same number."""
    if _MANY_DIGITS.search(text) is None:
        return True
    kept = True

    def look(digits: str) -> float:
        nonlocal kept
        number = float(digits)
        kept = kept and Decimal(digits) == Decimal(repr(number))
        return number

    json.loads(text, parse_float=look)
    return kept
