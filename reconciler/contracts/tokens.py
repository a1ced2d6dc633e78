"""The tokens of a CEL expression, and what they say about it: names, functions, macros and what these bind.

The engine parses and evaluates; it has no budget, and it finds out about a misspelt name only when a rule is needed. So an
expression is looked at here first, after the engine has accepted its syntax.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import msgspec

TokenKind: TypeAlias = Literal["name", "text", "number", "sign"]

MACROS: Final = frozenset({"all", "exists", "exists_one", "filter", "map"})
LITERALS: Final = frozenset({"true", "false", "null"})
"""Names that stand for a value of their own."""

_WORDS: Final = LITERALS | {"in"}

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<text>(?:[rR][bB]?|[bB][rR])(?:\"{3}.*?\"{3}|'{3}.*?'{3}|\"[^\"\n]*\"|'[^'\n]*')
        |[bB]?(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}
        |\"(?:\\.|[^\\\"\n])*\"|'(?:\\.|[^\\'\n])*'))
    |(?P<number>0x[0-9a-fA-F]+u?|(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[uU]?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>==|!=|<=|>=|&&|\|\||[-+*/%!<>?:.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)


class Token(msgspec.Struct, frozen=True):
    """One token. ``position`` counts characters from 0; ``depth`` is the number of macros whose arguments it is part of.

    ``is_bound``: a name that one of those macros binds.
    """

    kind: TokenKind
    text: str
    position: int
    depth: int = 0
    is_bound: bool = False


class Shape(msgspec.Struct, frozen=True):
    """What the tokens say. ``called`` are the names of functions, macros left out."""

    tokens: tuple[Token, ...]
    called: tuple[Token, ...]
    members: tuple[tuple[Token, Token], ...]
    """Pairs of a name that stands by itself and the member that is asked of it: ``actual.owner``."""
    ranges: tuple[tuple[Token, Token], ...]
    """Pairs of a name that stands by itself and the name that a macro binds to its members: ``operations.all(o, …)``."""
    fault: tuple[int, str] | None
    """A position and what is not allowed there."""
    is_rewritten: bool = False
    """Whether the tokens aren't those of the text: the engine is to be given them instead."""


def shape_of(expression: str) -> Shape:
    """What the tokens of an expression say, given that the engine accepts its syntax."""
    split, gap = _split(expression)
    raw = _with_methods(split)
    fault = None if gap is None else (gap, "has a sign that rules don't use")
    tokens: list[Token] = []
    frames: list[tuple[str, str]] = []  # of each open bracket: the macro that it belongs to and what that binds, or ""
    for index, token in enumerate(raw):
        macros = [(name, binds) for name, binds in frames if name]
        is_bound = token.kind == "name" and any(token.text == binds for _, binds in macros)
        tokens.append(msgspec.structs.replace(token, depth=len(macros), is_bound=is_bound))
        fault = fault or _fault(raw, index, is_in_map=any(name == "map" for name, _ in macros))
        if token.kind == "sign" and token.text in "([{":
            frames.append(_frame(raw, index))
        elif token.kind == "sign" and token.text in ")]}" and frames:
            frames.pop()
    members, called, ranges = _relations(tokens)
    return Shape(tuple(tokens), called, members, ranges, fault, is_rewritten=len(raw) > len(split))


def _frame(tokens: list[Token], index: int) -> tuple[str, str]:
    """The macro that an opening bracket belongs to, and the name that it binds."""
    before = [token.text for token in tokens[max(index - 2, 0) : index]]
    is_macro = tokens[index].text == "(" and len(before) == 2 and before[0] == "." and before[1] in MACROS
    return (before[1], tokens[index + 1].text) if is_macro else ("", "")


def _fault(tokens: list[Token], index: int, is_in_map: bool) -> tuple[int, str] | None:
    """What is wrong with a token at its place, if anything."""
    token = tokens[index]
    if is_in_map and token.text == "+":
        return token.position, "adds inside `map`, where values could grow without bound; use `exists` or `all`"
    if is_in_map and (token.text == "{" or (token.text == "[" and not _ends_value(tokens, index - 1))):
        return token.position, "makes a list or map inside `map`, where values could grow without bound"
    is_call = index + 1 < len(tokens) and tokens[index + 1].text == "("
    if token.kind == "name" and token.text == "matches" and is_call and not _is_literal_argument(tokens, index + 1):
        return token.position, "matches against something else than one text in quotes"
    return None


def _split(expression: str) -> tuple[list[Token], int | None]:
    """The tokens, and the position of the first character that is part of none."""
    tokens: list[Token] = []
    position = 0
    while position < len(expression):
        found = _TOKEN.match(expression, position)
        if found is None:
            return tokens, position
        kind = found.lastgroup
        if kind != "space":
            tokens.append(Token(kind, found.group(), position))  # type: ignore[arg-type]
        position = found.end()
    return tokens, None


def _with_methods(tokens: list[Token]) -> list[Token]:
    """The tokens with `matches(text, "pattern")` written as `(text).matches("pattern")`.

    The standard has both and the engine only the latter. So all bounds on patterns hold for either.
    """
    written: list[Token] = []
    commas: dict[int, Token] = {}
    for index, token in enumerate(tokens):
        is_method = index > 0 and tokens[index - 1].text == "."
        comma = None if token.text != "matches" or is_method else _comma_of_two(tokens, index + 1)
        if comma is not None and _is_literal_argument(tokens, comma):
            commas[comma] = token
        elif index in commas:
            name = commas[index]
            written.extend([_sign(")", token), _sign(".", token), name, _sign("(", token)])
        else:
            written.append(token)
    return written


def _comma_of_two(tokens: list[Token], opening: int) -> int | None:
    """Where the comma stands between two arguments, if a bracket opens here and holds that many."""
    depth = 0
    commas = []
    for index in range(opening, len(tokens)):
        text = tokens[index].text
        depth += (text in ("(", "[", "{")) - (text in (")", "]", "}"))
        if depth == 0:
            break
        if depth == 1 and text == ",":
            commas.append(index)
    return commas[0] if len(commas) == 1 else None


def _sign(text: str, at: Token) -> Token:
    return Token("sign", text, at.position)


def _ends_value(tokens: list[Token], index: int) -> bool:
    """Whether a value ends at a token, so that a bracket after it is an index."""
    if index < 0:
        return False
    token = tokens[index]
    return (
        token.kind in ("text", "number")
        or token.text in (")", "]", "}")
        or (token.kind == "name" and token.text != "in")
    )


def _is_literal_argument(tokens: list[Token], opening: int) -> bool:
    inside = tokens[opening + 1 : opening + 3]
    return len(inside) == 2 and inside[0].kind == "text" and inside[1].text == ")"


_Pairs: TypeAlias = tuple[tuple[Token, Token], ...]


def _relations(tokens: list[Token]) -> tuple[_Pairs, tuple[Token, ...], _Pairs]:
    """Members asked of names, functions called, and macros over names."""
    members, called, ranges = [], [], []
    for index, token in enumerate(tokens):
        following = [item.text for item in tokens[index + 1 : index + 5]]
        is_member = index > 0 and tokens[index - 1].text == "."
        if token.kind != "name":
            continue
        if following[:1] == ["("]:
            if not (is_member and token.text in MACROS):
                called.append(token)
        elif not is_member and following[:1] == ["."]:
            member = tokens[index + 2]
            if following[2:3] != ["("]:
                members.append((token, member))
            elif member.text in MACROS and len(following) == 4:
                ranges.append((token, tokens[index + 4]))
    return tuple(members), tuple(called), tuple(ranges)


def variables(shape: Shape) -> Iterator[Token]:
    """The names that stand by themselves and that no macro binds."""
    for index, token in enumerate(shape.tokens):
        before = shape.tokens[index - 1].text if index else ""
        after = shape.tokens[index + 1].text if index + 1 < len(shape.tokens) else ""
        if token.kind == "name" and not token.is_bound and before != "." and after != "(" and token.text not in _WORDS:
            yield token
