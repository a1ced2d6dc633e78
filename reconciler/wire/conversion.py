"""Between records and the plain values that Avro reads and writes.

What is to be done with a field stands in the schema itself, in the attribute ``content`` of a text, which Avro ignores:

    json           canonical text of any JSON value; Avro's null is ABSENT where the record knows ABSENT, else None
    json-object    the same of a JSON object
    json-text      JSON text that is kept as bytes and read elsewhere
    json-pointer   a path
    resource-key   system/type/id

Instants are integers and decimals are bytes on Avro's side here: schemas are read and written without logical types.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec

from reconciler.json_form import complete_action
from reconciler.records import (
    Action,
    Actor,
    Alert,
    Approval,
    Change,
    Command,
    Compensation,
    Decision,
    Dossier,
    DriftEvent,
    FieldDrift,
    Gathered,
    GatherQuery,
    Observation,
    Outcome,
    Record,
    Resolution,
    RollbackEvent,
    RollbackRequest,
    Selector,
    StepConflict,
    StepReport,
    Timer,
    UndoStep,
)
from reconciler.values.errors import InputError
from reconciler.values.json_value import MAX_DEPTH, Json, canonical, check_value, parse
from reconciler.values.pointer import tokens_of
from reconciler.values.resource_key import parse_resource_key
from reconciler.wire.changelog import ExpectedHead, HistoryEntry, SourceOffset
from reconciler.wire.errors import DecodeError, EncodeError
from reconciler.wire.strict_reader import AvroSchema, AvroValue

UNRECOGNISED: Final = "unrecognised"
"""The default symbol of every enum: what a reader sees for a symbol that is newer than it is."""

RECORDS: Final[dict[str, type[Record]]] = {
    "action": Action,
    "observation": Observation,
    "command": Command,
    "outcome": Outcome,
    "drift_event": DriftEvent,
    "rollback_request": RollbackRequest,
    "rollback_event": RollbackEvent,
    "alert": Alert,
    "expected_head": ExpectedHead,
    "history_entry": HistoryEntry,
    "timer": Timer,
    "undo_step": UndoStep,
    "decision": Decision,
    "step_report": StepReport,
    "gather_query": GatherQuery,
    "gathered": Gathered,
}
"""The record of each schema, by the schema's file name."""

_NESTED: Final[tuple[type[Record], ...]] = (
    Actor,
    Approval,
    Change,
    Compensation,
    Dossier,
    FieldDrift,
    Resolution,
    Selector,
    SourceOffset,
    StepConflict,
)
_CLASSES: Final = {kind.__name__: kind for kind in (*RECORDS.values(), *_NESTED)}

_NO_VALUE: Final = object()

Convert: TypeAlias = Callable[[Any], Any]

_MAX_DECIMAL_BYTES: Final = 16  # twice what 18 digits need, for writers that pad


def same_value(value: Any) -> Any:
    """The conversion of a type that is alike on both sides."""
    return value


class Conversion:
    """Both directions of one schema. Compiled once; holds no state."""

    def __init__(self, schema: AvroSchema) -> None:
        decode, encode = _Compiler().compile(schema)
        self._decode, self._encode = decode, encode
        self._is_action = schema["name"] == Action.__name__

    def record(self, raw: dict[str, AvroValue]) -> Record:
        """The record of plain values. Raises DecodeError."""
        record: Record = self._decode(raw)
        return finish_action(record) if isinstance(record, Action) else record

    def raw(self, record: Record) -> dict[str, AvroValue]:
        """The plain values of a record. Raises EncodeError."""
        if isinstance(record, Action):
            try:
                record = complete_action(record)
            except InputError as error:
                raise EncodeError(error.message, field=error.field) from None
        raw: dict[str, AvroValue] = self._encode(record)
        return raw


def finish_action(action: Action) -> Action:
    """The action as every way in leaves it: checked, default ids filled in. Raises DecodeError."""
    if not action.run_id or not action.step_id:
        raise DecodeError("must not be empty", field="step_id" if action.run_id else "run_id")
    try:
        return complete_action(action)
    except InputError as error:
        raise DecodeError(error.message, field=error.field) from None


class _Compiler:
    """Compiles one schema; remembers its named types."""

    def __init__(self) -> None:
        self._named: dict[str, tuple[Convert, Convert]] = {}

    def compile(self, schema: AvroSchema) -> tuple[Convert, Convert]:
        """Decoding and encoding of values that aren't null."""
        if isinstance(schema, str):
            return _PLAIN.get(schema) or self._named[schema.rpartition(".")[2]]
        if isinstance(schema, list):
            branches = [branch for branch in schema if branch != "null"]
            if len(branches) != 1:
                raise TypeError(f"a union must be null and one other type, not {schema}")
            return self.compile(branches[0])
        match schema["type"]:
            case "record":
                return self._name(schema, _record(self._fields(schema), _CLASSES[schema["name"]]))
            case "enum":
                return self._name(
                    schema, (_decode_symbol, _symbol_encoder(frozenset(schema["symbols"]) - {UNRECOGNISED}))
                )
            case "array":
                return _array(*self.compile(schema["items"]))
            case "map":
                return _map(*self.compile(schema["values"]))
            case "string" if "content" in schema:
                return _CONTENTS[schema["content"]]
            case "bytes" if schema.get("logicalType") == "decimal":
                return _decimal(schema["precision"], schema["scale"])
            case plain:
                return self.compile(plain)

    def _name(self, schema: AvroSchema, pair: tuple[Convert, Convert]) -> tuple[Convert, Convert]:
        self._named[schema["name"]] = pair
        return pair

    def _fields(self, schema: AvroSchema) -> list[_Field]:
        attributes = {field.encode_name: field for field in msgspec.structs.fields(_CLASSES[schema["name"]])}
        fields = []
        for field in schema["fields"]:
            attribute = attributes.pop(field["name"])
            decode, encode = self.compile(field["type"])
            is_nullable = isinstance(field["type"], list)
            null_is_absent = attribute.default is msgspec.UNSET
            fields.append(_Field(field["name"], attribute.name, decode, encode, is_nullable, null_is_absent))
        if attributes:
            raise TypeError(f"the schema {schema['name']} lacks the fields {sorted(attributes)}")
        return fields


class _Field(msgspec.Struct, frozen=True):
    """A field: its names in Avro and in Python, its conversions, whether it may be null, and whether null means ABSENT."""

    name: str
    attribute: str
    decode: Convert
    encode: Convert
    is_nullable: bool
    null_is_absent: bool


def _record(fields: list[_Field], kind: type[Record]) -> tuple[Convert, Convert]:
    plan = [(field.name, field.attribute, field.decode, field.null_is_absent) for field in fields]
    # What Avro's null is written for; in a field that can't be null there is no such value.
    nulls = [msgspec.UNSET if field.null_is_absent else None if field.is_nullable else _NO_VALUE for field in fields]
    encode_plan = [(field.name, field.attribute, field.encode, null) for field, null in zip(fields, nulls, strict=True)]

    def decode(raw: dict[str, AvroValue]) -> Record:
        values: dict[str, Any] = {}
        for name, attribute, convert, null_is_absent in plan:
            value = raw[name]
            if value is not None:
                if convert is not same_value:
                    try:
                        value = convert(value)
                    except DecodeError as error:
                        raise error.within(name) from None
                    except InputError as error:
                        raise DecodeError(error.message, field=name) from None
            elif null_is_absent:
                continue
            values[attribute] = value
        return kind(**values)

    def encode(record: Record) -> dict[str, AvroValue]:
        if type(record) is not kind:
            raise EncodeError(f"must be a record of kind {kind.__name__}, not {type(record).__name__}")
        raw: dict[str, AvroValue] = {}
        for name, attribute, convert, null in encode_plan:
            value = getattr(record, attribute)
            if value is null:
                raw[name] = None
                continue
            try:
                raw[name] = convert(value)
            except InputError as error:
                raise EncodeError(error.message, field=f"{name}{_below(error)}") from None
        return raw

    return decode, encode


def _array(decode: Convert, encode: Convert) -> tuple[Convert, Convert]:
    def decode_all(items: list[AvroValue]) -> list[Any]:
        result = []
        for index, item in enumerate(items):
            try:
                result.append(decode(item))
            except DecodeError as error:
                raise error.within(f"[{index}]") from None
            except InputError as error:
                raise DecodeError(error.message, field=f"[{index}]") from None
        return result

    def encode_all(items: list[Any]) -> list[AvroValue]:
        if not isinstance(items, list | tuple):
            raise EncodeError(f"must be a list, not {type(items).__name__}")
        result = []
        for index, item in enumerate(items):
            try:
                result.append(encode(item))
            except InputError as error:
                raise EncodeError(error.message, field=f"[{index}]{_below(error)}") from None
        return result

    return same_value if decode is same_value else decode_all, encode_all


def _map(decode: Convert, encode: Convert) -> tuple[Convert, Convert]:
    if decode is not same_value:
        raise TypeError("a map must hold plain values")

    def encode_all(items: dict[str, Any]) -> dict[str, AvroValue]:
        if not isinstance(items, dict):
            raise EncodeError(f"must be a mapping, not {type(items).__name__}")
        return {_text(name): encode(value) for name, value in items.items()}

    return same_value, encode_all


def _below(error: InputError) -> str:
    """The place that an error names, to be put behind that of what holds it."""
    return f".{error.field}" if error.field and not error.field.startswith("[") else error.field


def _text(value: Any) -> str:
    if type(value) is not str:
        raise EncodeError(f"must be a text, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise EncodeError("has a lone surrogate, which UTF-8 can't say") from None
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise EncodeError(f"must be true or false, not {type(value).__name__}")
    return value


def _whole_number(bits: int) -> Convert:
    limit = 1 << (bits - 1)

    def encode(value: Any) -> int:
        if type(value) is not int or not -limit <= value < limit:
            raise EncodeError(f"must be a whole number of {bits} bits, not {value!r:.40}")
        return value

    return encode


_PLAIN: Final[dict[str, tuple[Convert, Convert]]] = {
    "string": (same_value, _text),
    "boolean": (same_value, _flag),
    "int": (same_value, _whole_number(32)),
    "long": (same_value, _whole_number(64)),
}
"""Decoding and encoding of Avro's own types, as far as records use them."""


def _decode_symbol(symbol: str) -> str:
    if symbol == UNRECOGNISED:
        raise DecodeError("holds a symbol that this version doesn't know; bring this installation up to date")
    return symbol


def _symbol_encoder(symbols: frozenset[str]) -> Convert:
    def encode(symbol: str) -> str:
        if symbol not in symbols:
            raise EncodeError(f"{symbol!r} is none of {', '.join(sorted(symbols))}")
        return symbol

    return encode


def _decimal(precision: int, scale: int) -> tuple[Convert, Convert]:
    unit: int = 10**scale
    limit: int = 10**precision

    def decode(raw: bytes) -> float:
        if not 0 < len(raw) <= _MAX_DECIMAL_BYTES:
            raise DecodeError(f"holds a decimal of {len(raw)} bytes")
        return int.from_bytes(raw, "big", signed=True) / unit

    def encode(value: float) -> bytes:
        if not math.isfinite(value) or not -limit < (scaled := round(value * unit)) < limit:
            raise EncodeError(f"{value} is no number of {precision} digits, {scale} of them decimals")
        return scaled.to_bytes(scaled.bit_length() // 8 + 1, "big", signed=True)

    return decode, encode


def parse_object(text: str | bytes) -> dict[str, Json]:
    """The JSON object of a text. Raises InputError."""
    value = parse(text)
    if type(value) is not dict:
        raise InputError("must be the text of a JSON object")
    return value


def json_text(value: Json) -> str:
    """The canonical text of a value made by code. Raises InputError."""
    text = canonical(value)
    # What must be refused leaves its marks in the text: NaN and infinities come out as null, depth needs brackets.
    if b"null" in text or text.count(b"[") + text.count(b"{") > MAX_DEPTH:
        check_value(value)
    return text.decode()


def _object_text(value: Json) -> str:
    if type(value) is not dict:
        raise EncodeError("must be a JSON object")
    return json_text(value)


def _pointer(path: str) -> str:
    tokens_of(_text(path))
    return path


def _resource(key: str) -> str:
    parse_resource_key(_text(key))
    return key


def _text_of(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise EncodeError(f"is not UTF-8: {error.reason} at byte {error.start}") from None


_CONTENTS: Final[dict[str, tuple[Convert, Convert]]] = {
    "json": (parse, json_text),
    "json-object": (parse_object, _object_text),
    "json-text": (str.encode, _text_of),
    "json-pointer": (_pointer, _pointer),
    "resource-key": (_resource, _resource),
}
"""Decoding and encoding by the attribute `content`."""
