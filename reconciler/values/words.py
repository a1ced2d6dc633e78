"""Words for sentences about what a person wrote: alternatives, and the one that was nearly hit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def either(words: Sequence[Any]) -> str:
    """The alternatives: ``a, b or c``."""
    return _listed(words, "or")


def together(words: Sequence[Any]) -> str:
    """All of them: ``a, b and c``."""
    return _listed(words, "and")


def _listed(words: Sequence[Any], last: str) -> str:
    texts = [str(word) for word in words]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} {last} {texts[-1]}"


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint at the known word that is meant, or at all of them."""
    return near(word, known) or f"use {either(known)}"


def near(word: str, known: Sequence[str]) -> str:
    """A hint at the known word that is meant; empty where none is near."""
    import difflib  # noqa: PLC0415  most calls of a command need no hint

    found = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {found[0]}?" if found else ""
