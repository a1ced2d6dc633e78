"""Avro bytes written by hand, also such as no writer would write."""

from __future__ import annotations


def long(value: int) -> bytes:
    """An integer in zigzag coding, of any size."""
    rest = value << 1 if value >= 0 else (-value << 1) - 1
    coded = bytearray()
    while rest > 0x7F:
        coded.append(rest & 0x7F | 0x80)
        rest >>= 7
    coded.append(rest)
    return bytes(coded)


def string(text: str | bytes) -> bytes:
    """A text, its length before it."""
    raw = text.encode() if isinstance(text, str) else text
    return long(len(raw)) + raw
