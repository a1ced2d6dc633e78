"""Which numbers survive being read and written again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.targets.numbers import keeps_numbers
from reconciler.values.json_value import canonical


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "0.1",
        "123456789012345",
        "9007199254740993",
        "18446744073709551615",
        "1e300",
        '"0.12345678901234567890"',
        "1.10",
        "5e-324",
    ],
)
def test_kept(text: str) -> None:
    assert keeps_numbers(text)
    assert keeps_numbers(f'{{"a": [{text}]}}')


@pytest.mark.parametrize(
    "text", ["0.12345678901234567890", "1234567890123456.7891", "1.0000000000000000001", "1e-400", "1e400"]
)
def test_not_kept(text: str) -> None:
    assert not keeps_numbers(text)
    assert not keeps_numbers(f'{{"a": [1, {text}]}}')


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_what_we_write_ourselves_is_kept(number: float) -> None:
    assert keeps_numbers(canonical([number]).decode())
