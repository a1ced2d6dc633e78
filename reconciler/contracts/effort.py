"""How much work an expression can be: a bound that is known before it is evaluated.

The engine has no budget, and it copies: a list literal, a sum and each step of `filter` and `map` copy whole values, and a
comparison of two lists walks both. So the bound is computed here, from the tokens of the expression and the sizes of what
it is asked about: the same on every machine, unlike a time limit. Its unit is about a microsecond; measured, the engine
copies or compares a node of a value in a third of that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from reconciler.contracts.tokens import LITERALS, MACROS, Shape
from reconciler.values.json_value import Json

_COPYING: Final = frozenset({"filter", "map"})
_COMPARING: Final = frozenset({"==", "!="})
_TEXT_PER_NODE: Final = 64  # characters that cost as much as one node
_TEXT_PER_STEP: Final = 1_000  # characters that any one step handles for nothing more
_COUNTED: Final = re.compile(r"\{([0-9]*),?([0-9]*)\}")
_CLASS: Final = re.compile(r"\\[pPwWdDsSbB]|\.|\(\?")


class Sizes(msgspec.Struct, frozen=True):
    """Of some values: the ``members`` of the largest list or map, the ``nodes`` of all, the characters of the longest text.

    ``containers`` gives by name, of all lists and maps that stand under it anywhere, the most nodes; ``elements`` likewise
    the most nodes of one member.
    """

    members: int = 0
    nodes: int = 0
    text: int = 0
    containers: Mapping[str, int] = {}
    elements: Mapping[str, int] = {}


def sizes_of(name: str, value: Json) -> Sizes:
    """The sizes of a variable. Depth costs no stack."""
    members = text = 0
    containers: dict[str, int] = {}
    elements: dict[str, int] = {}
    # A node is left after all that is in it: then its own nodes are known, and count for what holds it.
    open_: list[tuple[str, Json, list[int]]] = []
    above: list[int] = []
    pending: list[tuple[str | None, Json]] = [(name, value)]
    while pending:
        key, node = pending.pop()
        if key is None:
            held, _, inside = open_.pop()
            nodes = 1 + sum(inside)
            containers[held] = max(nodes, containers.get(held, 0))
            elements[held] = max([*inside, elements.get(held, 0)])
            (open_[-1][2] if open_ else above).append(nodes)
        elif isinstance(node, dict | list):
            members = max(members, len(node))
            open_.append((key, node, []))
            pending.append((None, None))
            pending.extend(node.items() if isinstance(node, dict) else ((key, member) for member in node))
        else:
            length = len(node) if isinstance(node, str) else 0
            text = max(text, length)
            (open_[-1][2] if open_ else above).append(1 + length // _TEXT_PER_NODE)
    return Sizes(members, sum(above), text, containers, elements)


def together(sizes: Iterable[Sizes]) -> Sizes:
    """The sizes of several variables."""
    members = nodes = text = 0
    containers: dict[str, int] = {}
    elements: dict[str, int] = {}
    for item in sizes:
        members, nodes, text = max(members, item.members), nodes + item.nodes, max(text, item.text)
        for into, more in ((containers, item.containers), (elements, item.elements)):
            for name, count in more.items():
                into[name] = max(count, into.get(name, 0))
    return Sizes(members, nodes, text, containers, elements)


def work(shape: Shape, sizes: Sizes) -> int:
    """An upper bound on the work of evaluating an expression over values of these sizes."""
    return _Effort(shape, sizes).total()


class _Effort:
    """`largest`: the most nodes that any value has which the expression can build of what it is given."""

    def __init__(self, shape: Shape, sizes: Sizes) -> None:
        self._tokens = shape.tokens
        self._sizes = sizes
        self._largest = 0
        texts = [token.text for token in shape.tokens]
        self._members = max(sizes.members, 1) * (1 + texts.count("+")) + len(texts)
        self._ranges = shape.ranges
        self._has_map_literal = "{" in texts
        grown = sum(self._is_macro(index, "map") and not self._has_scalar_body(index) for index in range(len(texts)))
        names = sum(token.kind == "name" for token in shape.tokens)
        self._largest = int((sizes.nodes + len(texts)) * max(names, 1) * self._members**grown)

    def total(self) -> int:
        """The bound."""
        step = 1 + self._sizes.text // _TEXT_PER_STEP
        total = 0
        for index, token in enumerate(self._tokens):
            total += self._members**token.depth * (step + self._extra(index))
        return total

    def _extra(self, index: int) -> int:
        """What a token costs beside one step, each time."""
        token = self._tokens[index]
        if token.kind == "sign":
            if token.text in _COMPARING:
                return min(self._nodes_before(index), self._nodes_after(index))
            if token.text == "+":
                is_scalar = min(self._nodes_before(index), self._nodes_after(index)) <= 1
                return 0 if is_scalar else self._largest
            if token.text == "{" or (token.text == "[" and not self._is_index(index)):
                return 0 if self._is_plain_literal(index) else self._largest
        elif token.text == "in" and token.kind == "name":
            return self._nodes_after(index)
        elif self._is_macro(index, "filter"):
            return self._members * max(self._members, self._nodes_before(index - 1) // 2)
        elif self._is_macro(index, "map"):
            return self._members * self._members * (1 if self._has_scalar_body(index) else self._largest)
        elif token.text == "matches" and self._calls(index):
            pattern = self._tokens[index + 2].text
            return pattern_work(pattern) + self._sizes.text * len(pattern) * _copies(pattern) // 100
        elif token.text == "contains" and self._calls(index):
            return 0 if self._nodes_before(index - 1) <= 1 else self._largest
        return 0

    # -- what stands where

    def _text(self, index: int) -> str:
        return self._tokens[index].text if 0 <= index < len(self._tokens) else ""

    def _calls(self, index: int) -> bool:
        return self._tokens[index].kind == "name" and self._text(index + 1) == "("

    def _is_macro(self, index: int, name: str) -> bool:
        return self._text(index) == name and self._calls(index) and self._text(index - 1) == "."

    def _is_index(self, index: int) -> bool:
        before = self._tokens[index - 1] if index else None
        return before is not None and (
            before.text in (")", "]", "}")
            or before.kind == "text"
            or (before.kind == "name" and before.text not in LITERALS and before.text != "in")
        )

    def _is_plain_literal(self, opening: int) -> bool:
        """Whether a list or map literal holds nothing but texts, numbers and the like."""
        for token in self._tokens[opening + 1 :]:
            if token.text in ("]", "}"):
                return True
            if not (token.kind in ("text", "number") or token.text in LITERALS or token.text in (",", ":", "-")):
                return False
        return False

    def _has_scalar_body(self, index: int) -> bool:
        """Whether a `map` makes each member a scalar, which can be told where its body is one chain of names."""
        closing = self._closing(index + 1)
        body = self._tokens[index + 4 : closing]  # after `map ( name ,`
        return bool(body) and self._nodes_after(index + 3) <= 1 and all(token.text not in "?:" for token in body)

    # -- the nodes of operands

    def _nodes_after(self, index: int) -> int:
        """The most nodes of the operand that begins after a token."""
        start = index + 1
        first = self._tokens[start] if start < len(self._tokens) else None
        if first is None:
            return self._largest
        if first.kind in ("text", "number") or first.text in ("-", "!") or first.text in LITERALS:
            return 1
        if first.kind != "name":
            if first.text == "[" and self._is_plain_literal(start):
                return self._closing(start) - start
            return self._largest
        at = start
        while self._text(at + 1) == "." or self._text(at + 1) in ("(", "["):
            if self._text(at + 1) == ".":
                at += 2
                continue
            is_value = self._text(at + 1) == "(" and self._text(at) not in _COPYING
            at = self._closing(at + 1)
            if is_value and self._text(at + 1) not in (".", "["):
                return 1  # every function, and every macro that copies nothing, gives a scalar
            if self._text(at + 1) not in (".", "(", "["):
                return self._largest
        return self._named(at, start)

    def _nodes_before(self, index: int) -> int:
        """The most nodes of the operand that ends before a token."""
        last = self._tokens[index - 1] if index else None
        if last is None:
            return self._largest
        if last.kind in ("text", "number") or last.text in LITERALS:
            return 1
        if last.text == ")":
            opening = self._opening(index - 1)
            is_call = opening > 0 and self._calls(opening - 1)
            return 1 if is_call and self._text(opening - 1) not in _COPYING else self._largest
        if last.kind != "name":
            return self._largest
        start = index - 1
        while self._text(start - 1) == "." and start >= 2 and self._tokens[start - 2].kind == "name":
            start -= 2
        return self._named(index - 1, start)

    def _named(self, at: int, start: int) -> int:
        """The most nodes of what a chain of names ends in: by the last name, under which something stands in the values."""
        token = self._tokens[at]
        if self._has_map_literal:
            return self._largest
        if at > start or not token.is_bound:
            return self._sizes.containers.get(token.text, 1)
        binders = sum(
            self._text(index - 2) in MACROS and self._text(index - 1) == "(" and self._text(index) == token.text
            for index in range(2, len(self._tokens))
        )
        over = {variable.text for variable, bound in self._ranges if bound.text == token.text and not variable.is_bound}
        named = sum(bound.text == token.text for _, bound in self._ranges)
        if len(over) != 1 or named != binders:
            return self._largest  # what it stands for isn't, or isn't always, a member of one variable
        return self._sizes.elements.get(over.pop(), self._largest)

    def _closing(self, opening: int) -> int:
        depth = 0
        for index in range(opening, len(self._tokens)):
            if self._tokens[index].kind == "sign":
                depth += (self._text(index) in ("(", "[", "{")) - (self._text(index) in (")", "]", "}"))
                if depth == 0:
                    return index
        return len(self._tokens)

    def _opening(self, closing: int) -> int:
        depth = 0
        for index in range(closing, -1, -1):
            if self._tokens[index].kind == "sign":
                depth += (self._text(index) in (")", "]", "}")) - (self._text(index) in ("(", "[", "{"))
                if depth == 0:
                    return index
        return 0


def pattern_work(pattern: str) -> int:
    """An upper bound on the work of compiling a regular expression, which the engine does at each use."""
    return (10 + 5 * len(pattern) + 1_000 * len(_CLASS.findall(pattern))) * _copies(pattern)


def _copies(pattern: str) -> int:
    """How often a part of a regular expression can stand in it once its counted repetitions are written out."""
    copies = 1
    for low, high in _COUNTED.findall(pattern):
        copies *= max(int(low or 1), int(high or 1), 1)
    return copies
