"""A reader of Avro that believes nothing the bytes say about themselves.

fastavro trusts what it reads: a negative enum index counts from the end, a union index likewise, an array may claim a
billion empty items, and bytes after the record are left unseen. Here every length is held against the bytes that are
really there before anything is made of it, so time and memory are bounded by the size of the payload.

`compile_reader` turns a parsed schema into one function over (bytes, position); the values it gives are those that
fastavro gives without logical types: instants are integers, decimals are bytes, records are dicts. Tests hold the two
against each other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from reconciler.wire.errors import DecodeError

AvroSchema: TypeAlias = Any  # str | list[AvroSchema] | dict[str, Any]: Avro's own JSON
AvroValue: TypeAlias = Any
FieldReader: TypeAlias = Callable[[bytes, int], tuple[AvroValue, int]]

MAX_SCHEMA_DEPTH: Final = 32
"""Levels of records in records. Ours have four; a schema from a registry that has more, or contains itself, is not ours."""

TRUNCATED: Final = "the bytes end before the record does"
_MIN_INT, _MAX_INT = -(2**31), 2**31 - 1
_WIDTH: Final = 64


class UnreadableSchemaError(ValueError):
    """A schema that this reader refuses, because bytes could make it work without bounds; or that it doesn't know."""


def read_whole(reader: FieldReader, payload: bytes, at: int) -> AvroValue:
    """The one value that takes up a payload from a position to its very end. Raises DecodeError."""
    try:
        value, end = reader(payload, at)
    except IndexError:
        raise DecodeError(TRUNCATED) from None
    if end != len(payload):
        raise DecodeError(f"{len(payload) - end} bytes are left over after the record")
    return value


def compile_reader(schema: AvroSchema) -> FieldReader:
    """The reader of a schema. Raises UnreadableSchemaError for one that can't be read within bounds."""
    try:
        return _Compiler().compile(schema, "", 0)[0]
    except (KeyError, TypeError, AttributeError) as error:
        raise UnreadableSchemaError(f"it is no Avro schema: {error!r}") from None


def read_long(data: bytes, at: int) -> tuple[int, int]:
    """One zigzag-coded integer of at most 64 bits. Raises IndexError where the bytes end before it does."""
    byte = data[at]
    at += 1
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), at
    value = byte & 0x7F
    shift = 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift >= _WIDTH:
            raise DecodeError("holds an integer of more than 64 bits")
    if value >> _WIDTH:
        raise DecodeError("holds an integer of more than 64 bits")
    return (value >> 1) ^ -(value & 1), at


def read_int(data: bytes, at: int) -> tuple[int, int]:
    """One zigzag-coded integer of at most 32 bits."""
    value, at = read_long(data, at)
    if not _MIN_INT <= value <= _MAX_INT:
        raise DecodeError("holds an integer of more than 32 bits")
    return value, at


def _span(data: bytes, at: int) -> tuple[int, int]:
    """Start and end of a text or byte string, checked against the bytes that are there."""
    length, at = read_long(data, at)
    if length < 0:
        raise DecodeError(f"claims a length of {length} bytes")
    end = at + length
    if end > len(data):
        raise DecodeError(f"claims a length of {length} bytes, of which {len(data) - at} are there")
    return at, end


def read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    """One byte string, its length before it."""
    start, end = _span(data, at)
    return data[start:end], end


def read_string(data: bytes, at: int) -> tuple[str, int]:
    """One text, its length in bytes before it."""
    start, end = _span(data, at)
    try:
        return str(data[start:end], "utf-8"), end
    except UnicodeDecodeError as error:
        raise DecodeError(f"is not UTF-8: {error.reason} at byte {error.start}") from None


def _read_null(_data: bytes, at: int) -> tuple[None, int]:
    return None, at


def _read_boolean(data: bytes, at: int) -> tuple[bool, int]:
    byte = data[at]
    if byte > 1:
        raise DecodeError(f"holds the byte {byte} where a boolean, 0 or 1, must be")
    return byte == 1, at + 1


def _number_reader(form: struct.Struct) -> FieldReader:
    def read(data: bytes, at: int) -> tuple[float, int]:
        end = at + form.size
        if end > len(data):
            raise IndexError
        return form.unpack_from(data, at)[0], end

    return read


_PRIMITIVES: Final[dict[str, tuple[FieldReader, int]]] = {
    "null": (_read_null, 0),
    "boolean": (_read_boolean, 1),
    "int": (read_int, 1),
    "long": (read_long, 1),
    "float": (_number_reader(struct.Struct("<f")), 4),
    "double": (_number_reader(struct.Struct("<d")), 8),
    "bytes": (read_bytes, 1),
    "string": (read_string, 1),
}
"""Reader and least number of bytes, by type."""


class _Compiler:
    """Compiles one schema; remembers its named types, and how few bytes each needs."""

    def __init__(self) -> None:
        self._named: dict[str, tuple[FieldReader, int]] = {}

    def compile(self, schema: AvroSchema, namespace: str, depth: int) -> tuple[FieldReader, int]:
        if depth > MAX_SCHEMA_DEPTH:
            raise UnreadableSchemaError(f"the schema is nested more than {MAX_SCHEMA_DEPTH} levels deep")
        if isinstance(schema, str):
            return self._by_name(schema, namespace)
        if isinstance(schema, list):
            return self._union(schema, namespace, depth)
        match schema["type"]:
            case "record":
                return self._record(schema, namespace, depth)
            case "enum":
                return self._define(schema, namespace, _enum_reader(schema["symbols"]), 1)
            case "fixed":
                return self._define(schema, namespace, _fixed_reader(schema["size"]), schema["size"])
            case "array":
                item, least = self.compile(schema["items"], namespace, depth + 1)
                if least == 0:
                    raise UnreadableSchemaError(
                        "an array has items of no bytes, of which a payload could claim any number"
                    )
                return _array_reader(item, least), 1
            case "map":
                value, least = self.compile(schema["values"], namespace, depth + 1)
                return _map_reader(value, 1 + least), 1
            case inner:
                return self.compile(inner, namespace, depth)

    def _by_name(self, name: str, namespace: str) -> tuple[FieldReader, int]:
        if name in _PRIMITIVES:
            return _PRIMITIVES[name]
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        if full not in self._named:
            raise UnreadableSchemaError(f"the type {full} contains itself or isn't defined")
        return self._named[full]

    def _define(
        self, schema: dict[str, Any], namespace: str, reader: FieldReader, least: int
    ) -> tuple[FieldReader, int]:
        self._named[_full_name(schema, namespace)] = reader, least
        return reader, least

    def _union(self, branches: list[AvroSchema], namespace: str, depth: int) -> tuple[FieldReader, int]:
        compiled = [self.compile(branch, namespace, depth + 1) for branch in branches]
        return _union_reader([reader for reader, _ in compiled]), 1 + min(least for _, least in compiled)

    def _record(self, schema: dict[str, Any], namespace: str, depth: int) -> tuple[FieldReader, int]:
        inner = _full_name(schema, namespace).rpartition(".")[0]
        fields = []
        total = 0
        for field in schema["fields"]:
            reader, least = self.compile(field["type"], inner, depth + 1)
            fields.append((field["name"], reader))
            total += least
        return self._define(schema, namespace, _record_reader(fields), total)


def _full_name(schema: dict[str, Any], namespace: str) -> str:
    name: str = schema["name"]
    if "." in name:
        return name
    space = schema.get("namespace", namespace)
    return f"{space}.{name}" if space else name


def _enum_reader(symbols: list[str]) -> FieldReader:
    def read(data: bytes, at: int) -> tuple[str, int]:
        index, at = read_long(data, at)
        if not 0 <= index < len(symbols):
            raise DecodeError(f"holds the symbol number {index}, of {len(symbols)}")
        return symbols[index], at

    return read


def _fixed_reader(size: int) -> FieldReader:
    def read(data: bytes, at: int) -> tuple[bytes, int]:
        end = at + size
        if end > len(data):
            raise IndexError
        return data[at:end], end

    return read


def _union_reader(branches: list[FieldReader]) -> FieldReader:
    def read(data: bytes, at: int) -> tuple[AvroValue, int]:
        index, at = read_long(data, at)
        if not 0 <= index < len(branches):
            raise DecodeError(f"holds the union branch {index}, of {len(branches)}")
        return branches[index](data, at)

    return read


def _record_reader(fields: list[tuple[str, FieldReader]]) -> FieldReader:
    def read(data: bytes, at: int) -> tuple[dict[str, AvroValue], int]:
        record: dict[str, AvroValue] = {}
        for name, reader in fields:
            try:
                record[name], at = reader(data, at)
            except DecodeError as error:
                raise error.within(name) from None
            except IndexError:
                raise DecodeError(TRUNCATED, field=name) from None
        return record, at

    return read


def _block(data: bytes, at: int, least: int) -> tuple[int, int]:
    """How many items the next block of an array or map has, none at the end; never more than there are bytes for."""
    count, at = read_long(data, at)
    if count < 0:
        count = -count
        size, at = read_long(data, at)
        if not 0 <= size <= len(data) - at:
            raise DecodeError(f"claims a block of {size} bytes, of which {len(data) - at} are there")
    if count * least > len(data) - at:
        raise DecodeError(f"claims {count} items, for which {len(data) - at} bytes are not enough")
    return count, at


def _array_reader(item: FieldReader, least: int) -> FieldReader:
    def read(data: bytes, at: int) -> tuple[list[AvroValue], int]:
        items: list[AvroValue] = []
        while True:
            count, at = _block(data, at, least)
            if count == 0:
                return items, at
            for _ in range(count):
                try:
                    value, at = item(data, at)
                except DecodeError as error:
                    raise error.within(f"[{len(items)}]") from None
                items.append(value)

    return read


def _map_reader(value: FieldReader, least: int) -> FieldReader:
    def read(data: bytes, at: int) -> tuple[dict[str, AvroValue], int]:
        items: dict[str, AvroValue] = {}
        while True:
            count, at = _block(data, at, least)
            if count == 0:
                return items, at
            for _ in range(count):
                key, at = read_string(data, at)
                items[key], at = value(data, at)

    return read
