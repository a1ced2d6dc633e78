"""Between the columns of a row and the tree of a resource's fields. Pure.

The places of columns never overlap. An object above them belongs to the table's shape: it always stands, and can be
neither absent nor anything else. What no column holds can't be written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from reconciler.records import Record
from reconciler.targets.apply import Fields
from reconciler.targets.sql.config import ColumnConfig, ColumnKind
from reconciler.values.errors import InputError
from reconciler.values.json_value import ABSENT, Absent, Json, same
from reconciler.values.pointer import Tokens, path_of, tokens_of, value_at

_Shape: TypeAlias = "dict[str, _Shape] | None"  # None: a column


class MappedColumn(Record, frozen=True, kw_only=True):
    """One column and its place."""

    path: str
    tokens: Tokens
    column: str
    kind: ColumnKind
    null_is_absent: bool

    @property
    def null(self) -> Json | Absent:
        """What a NULL means."""
        return ABSENT if self.null_is_absent else None


class TableMapping:
    """The columns of one table as one tree."""

    def __init__(self, fields: Mapping[str, ColumnConfig]) -> None:
        self.columns: tuple[MappedColumn, ...] = tuple(
            MappedColumn(
                path=path,
                tokens=tokens_of(path),
                column=config.column,
                kind=config.kind,
                null_is_absent=config.null_means == "absent",
            )
            for path, config in fields.items()
        )
        self._shape: _Shape = _shape_of(self.columns)

    def fields_of(self, values: Sequence[Json | Absent]) -> Json:
        """The tree of the columns' values, given in their order. It is an object unless a column at the path '' says otherwise."""
        tree = _skeleton(self._shape)
        for column, value in zip(self.columns, values, strict=True):
            if not column.tokens:
                return value
            if not isinstance(value, Absent):
                node = tree
                for token in column.tokens[:-1]:
                    node = node[token]
                node[column.tokens[-1]] = value
        return tree

    def changed(self, old: Fields, new: Fields) -> dict[int, Json | Absent]:
        """Position of a column -> its new value, for those that must be written. Raises InputError at a path without a column."""
        self._check(new, whole=True)
        return {
            position: value_at(new, column.tokens)
            for position, column in enumerate(self.columns)
            if not same(value_at(old, column.tokens), value_at(new, column.tokens))
        }

    def created(self, new: Fields) -> dict[int, Json]:
        """Position of a column -> its value, for a new row. What the fields don't name is left to the table's defaults.

        Raises InputError at a path without a column.
        """
        self._check(new, whole=False)
        values = ((position, value_at(new, column.tokens)) for position, column in enumerate(self.columns))
        return {position: value for position, value in values if not isinstance(value, Absent)}

    def _check(self, new: Fields, *, whole: bool) -> None:
        """Raises InputError at a node that the table has no place for; where `whole`, also where one must stand and doesn't."""
        pending: list[tuple[Tokens, Json, _Shape]] = [((), new, self._shape)]
        while pending:
            tokens, node, shape = pending.pop()
            if shape is None:
                continue
            if type(node) is not dict:
                raise InputError("must be an object here, since the table has columns below it", field=path_of(tokens))
            for name in sorted(node):
                if name not in shape:
                    raise InputError("no column of the table holds this field", field=path_of((*tokens, name)))
                pending.append(((*tokens, name), node[name], shape[name]))
            if whole:
                for name, below in shape.items():
                    if below is not None and name not in node:
                        raise InputError(
                            "can't be taken away, since the table has columns below it", field=path_of((*tokens, name))
                        )


def _shape_of(columns: Sequence[MappedColumn]) -> _Shape:
    if any(not column.tokens for column in columns):
        return None
    shape: dict[str, _Shape] = {}
    for column in columns:
        node = shape
        for token in column.tokens[:-1]:
            below = node.setdefault(token, {})
            assert below is not None, "places never overlap"
            node = below
        node[column.tokens[-1]] = None
    return shape


def _skeleton(shape: _Shape) -> dict[str, Json]:
    if shape is None:
        return {}
    return {name: _skeleton(below) for name, below in shape.items() if below is not None}
