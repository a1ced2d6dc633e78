"""Which schema reads what which wrote: a table after Avro's specification, and the fields that breaks name."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.wire.compatibility import breaks


def record(*fields: dict[str, Any], name: str = "R", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def field(name: str, type_: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, **more}


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "E", "symbols": list(symbols), **more}


def fixed(size: int, name: str = "F") -> dict[str, Any]:
    return {"type": "fixed", "name": name, "size": size}


def array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def map_(values: Any) -> dict[str, Any]:
    return {"type": "map", "values": values}


def decimal(precision: int, scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


A = field("a", "int")
NODE = record(field("next", ["null", "R"]), name="R")
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}

COMPATIBLE = [
    # reader, writer
    ("null", "null"),
    ("long", "int"),
    ("float", "int"),
    ("float", "long"),
    ("double", "int"),
    ("double", "long"),
    ("double", "float"),
    ("bytes", "string"),
    ("string", "bytes"),
    (array("long"), array("int")),
    (map_("double"), map_("float")),
    (fixed(4), fixed(4)),
    (enum("a", "b"), enum("a")),
    (enum("b", "a"), enum("a", "b")),
    (enum("a", default="a"), enum("a", "b")),
    (["null", "string"], "string"),
    (["null", "string"], "null"),
    (["null", "string"], ["string", "null"]),
    (["null", "string"], ["null"]),
    (["int", "string"], ["string"]),
    ("string", ["string"]),
    (["null", "double"], ["null", "long"]),
    ("long", ["int", "long"]),
    (record(A), record(A)),
    (record(A), record(A, field("b", "string"))),
    (record(), record(A)),
    (record(A, field("b", "int", default=1)), record(A)),
    (record(A, field("b", ["null", "int"], default=None)), record(A)),
    (record(field("b", "int"), A), record(A, field("b", "int"))),
    (record(field("new", "int", aliases=["a"])), record(A)),
    (record(A, name="S", aliases=["R"]), record(A)),
    (record(A, namespace="x"), record(A, namespace="y")),
    (NODE, NODE),
    (record(field("a", ["null", record(A, name="I")])), record(field("a", record(A, name="I")))),
    (decimal(18, 6), decimal(18, 6)),
    (MICROS, MICROS),
    (record(field("e", enum("x", "y", default="x"))), record(field("e", enum("x", "y", "z", default="x")))),
]

INCOMPATIBLE = [
    # reader, writer, field, what the reason says
    ("int", "long", "", "long can't be read as int"),
    ("int", "string", "", "string can't be read as int"),
    ("null", "string", "", "string can't be read as null"),
    ("long", "double", "", "double can't be read as long"),
    ("boolean", "int", "", "int can't be read as boolean"),
    ("string", "int", "", "int can't be read as string"),
    (array("int"), array("long"), "[]", "long can't be read as int"),
    (array("int"), map_("int"), "", "map can't be read as array"),
    (map_("int"), map_("string"), "[]", "string can't be read as int"),
    (fixed(4), fixed(5), "", "has 4 bytes to the reader, 5 to the writer"),
    (fixed(4), fixed(4, "G"), "", "the fixed G can't be read as the fixed F"),
    (enum("a"), enum("a", "b"), "", "the reader lacks the symbols b"),
    (enum("a"), "string", "", "string can't be read as the enum E"),
    ("string", ["null", "string"], "", "null can't be read as string"),
    (["null", "string"], ["null", "string", "int"], "", "the reader's union lacks int"),
    (["null", "int"], "string", "", "the reader's union lacks string"),
    (record(A), record(), "a", "the writer lacks it, and the reader has no default"),
    (record(field("a", "int")), record(field("a", "string")), "a", "string can't be read as int"),
    (record(field("a", "string")), record(field("a", ["null", "string"])), "a", "null can't be read as string"),
    (record(A), record(A, name="S"), "", "the record S can't be read as the record R"),
    (
        record(field("in", ["null", record(A, field("b", "int"), name="I")])),
        record(field("in", ["null", record(A, name="I")])),
        "in.b",
        "the writer lacks it",
    ),
    (
        record(field("all", array(record(field("e", enum("x")), name="I")))),
        record(field("all", array(record(field("e", enum("x", "y")), name="I")))),
        "all[].e",
        "the reader lacks the symbols y",
    ),
    (decimal(18, 6), decimal(18, 3), "", "means logicalType decimal precision 18 scale 6 to the reader"),
    (record(field("at", MICROS)), record(field("at", MILLIS)), "at", "timestamp-millis to the writer"),
    (record(field("at", MICROS)), record(field("at", "long")), "at", ""),
    (
        record(field("set", {"type": "string", "content": "json"})),
        record(field("set", "string")),
        "set",
        "means content json to the reader and nothing more to the writer",
    ),
]


@pytest.mark.parametrize(("reader", "writer"), COMPATIBLE)
def test_compatible(reader: Any, writer: Any) -> None:
    assert breaks(reader, writer) == []


@pytest.mark.parametrize(("reader", "writer", "place", "reason"), INCOMPATIBLE)
def test_incompatible(reader: Any, writer: Any, place: str, reason: str) -> None:
    found = breaks(reader, writer)
    assert [each.field for each in found] == [place]
    assert reason in found[0].reason


def test_every_break_is_named_in_order() -> None:
    reader = record(field("z", "int"), field("b", "int"), A)
    assert [str(each) for each in breaks(reader, record(field("z", "string")))] == [
        "a: the writer lacks it, and the reader has no default for it",
        "b: the writer lacks it, and the reader has no default for it",
        "z: string can't be read as int",
    ]
