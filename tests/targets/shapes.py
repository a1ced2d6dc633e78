"""What resources a store can hold, as hypothesis strategies: a shape gives fields, and changes that the store can hold too.

The expected result of changes is worked out here, apart from the code under test, in the plainest way there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from reconciler.records import Change
from reconciler.values.json_value import ABSENT, Absent, Json, canonical, parse
from reconciler.values.pointer import path_of

Fields = dict[str, Json]
Values = SearchStrategy[Json]

TRICKY_NAMES = ["a", "b", "", "~", "/", "a/b", "~1", "é", "0", " ", '"', "expected", "null"]


def texts() -> SearchStrategy[str]:
    """Texts that every store can hold: no NUL, no lone surrogates."""
    return st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6)


def scalars(*, floats: bool = True) -> Values:
    """JSON scalars, with many that are easily confused."""
    kinds: list[Values] = [
        st.sampled_from([None, False, True, 0, 1, -1, "", "0", "1", "null", "true", 2**53 + 1]),
        st.integers(-(2**63), 2**63 - 1),
        texts(),
    ]
    if floats:
        kinds.append(st.sampled_from([0.0, 1.0, -1.5, 0.1, 1e-9, 123456.75]))
    return st.one_of(kinds)


def values(*, floats: bool = True) -> Values:
    """Any JSON value."""
    return st.recursive(
        st.one_of(st.sampled_from([{}, [], None]), scalars(floats=floats)),
        lambda below: st.one_of(
            st.lists(below, max_size=3), st.dictionaries(st.sampled_from(TRICKY_NAMES), below, max_size=3)
        ),
        max_leaves=6,
    )


class Shape(Protocol):
    """What a store can hold."""

    def fields(self) -> SearchStrategy[Fields]:
        """A whole resource."""
        ...

    def changes(self, fields: Fields) -> SearchStrategy[list[Change]]:
        """Set and unset changes whose paths don't overlap, each expecting what the fields hold."""
        ...


@dataclass(frozen=True)
class Documents:
    """Any JSON object."""

    floats: bool = True
    empty: bool = True

    def fields(self) -> SearchStrategy[Fields]:
        return st.dictionaries(
            st.sampled_from(TRICKY_NAMES), values(floats=self.floats), min_size=0 if self.empty else 1, max_size=4
        )

    def changes(self, fields: Fields) -> SearchStrategy[list[Change]]:
        @st.composite
        def drawn(draw: st.DrawFn) -> list[Change]:
            return _changes(draw, fields, (), values(floats=self.floats))

        return drawn()


def _changes(draw: st.DrawFn, node: Fields, above: tuple[str, ...], new_values: Values) -> list[Change]:
    """Walks down the objects; at each member decides whether to leave it, change it, or look below."""
    changes = []
    for name in sorted({*node, draw(st.sampled_from(TRICKY_NAMES))}):
        tokens = (*above, name)
        current = node.get(name, ABSENT)
        choice = draw(st.sampled_from(["leave", "set", "unset", "below"]))
        if choice == "set":
            changes.append(Change(path=path_of(tokens), op="set", value=draw(new_values), expect=current))
        elif choice == "unset" and not isinstance(current, Absent):
            changes.append(Change(path=path_of(tokens), op="unset", expect=current))
        elif choice == "below" and isinstance(current, dict):
            changes.extend(_changes(draw, current, tokens, new_values))
    return changes


@dataclass(frozen=True)
class Columns:
    """Fixed paths with a strategy each; ABSENT among its values where the place may be empty."""

    columns: dict[tuple[str, ...], SearchStrategy[Json | Absent]]

    def fields(self) -> SearchStrategy[Fields]:
        return st.tuples(*self.columns.values()).map(self._tree)

    def _tree(self, drawn: tuple[Json | Absent, ...]) -> Fields:
        tree: Fields = {}
        for tokens, value in zip(self.columns, drawn, strict=True):
            node = tree
            for token in tokens[:-1]:
                node = node.setdefault(token, {})
            if not isinstance(value, Absent):
                node[tokens[-1]] = value
        return tree

    def changes(self, fields: Fields) -> SearchStrategy[list[Change]]:
        @st.composite
        def drawn(draw: st.DrawFn) -> list[Change]:
            changes = []
            for tokens, column in self.columns.items():
                if not draw(st.booleans()):
                    continue
                current, value = at(fields, tokens), draw(column)
                if not isinstance(value, Absent):
                    changes.append(Change(path=path_of(tokens), op="set", value=value, expect=current))
                elif not isinstance(current, Absent):
                    changes.append(Change(path=path_of(tokens), op="unset", expect=current))
            return changes

        return drawn()


def at(fields: Json, tokens: tuple[str, ...]) -> Json | Absent:
    """What stands at a place."""
    node = fields
    for token in tokens:
        if not isinstance(node, dict) or token not in node:
            return ABSENT
        node = node[token]
    return node


def after(fields: Fields, changes: list[Change]) -> Fields:
    """The fields with the changes made, whatever they expect."""
    result: Fields = _copied(fields)
    for change in changes:
        tokens = [token.replace("~1", "/").replace("~0", "~") for token in change.path.split("/")[1:]]
        node = result
        for token in tokens[:-1]:
            node = node[token]
        if change.op == "set":
            node[tokens[-1]] = _copied(change.value)
        else:
            del node[tokens[-1]]
    return result


def _copied(value: Json) -> Json:
    """By its text, since a drawn value may hold one object at two places, which `deepcopy` keeps as one."""
    return parse(canonical(value))


def text_of(value: Json | Absent) -> bytes | None:
    """The canonical text, None for ABSENT: what equality of values is by definition."""
    return None if isinstance(value, Absent) else canonical(value)
