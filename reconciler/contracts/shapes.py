"""Shapes: what may stand at a place of a contract file, each said once for the reader and for the JSON Schema.

A shape reads a node into the typed value, and adds a fault, with its line, for all that doesn't fit; and it gives the JSON
Schema (2020-12) that accepts the same. So an editor and the loader can't disagree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from reconciler.contracts.errors import Fault
from reconciler.contracts.yaml_tree import Node, Place, plain
from reconciler.values.errors import InputError
from reconciler.values.json_value import Json, check_depth
from reconciler.values.words import either, near, nearest

Schema: TypeAlias = dict[str, Json]


class Bad:
    """What a shape gives for a node that doesn't fit; the fault has been told."""


BAD: Final = Bad()


class Reading:
    """One file being read: its name, and the faults found so far."""

    def __init__(self, file: str, faults: list[Fault]) -> None:
        self.file = file
        self.faults = faults

    def refuse(self, place: Place, message: str) -> Bad:
        """Adds a fault."""
        self.faults.append(Fault(self.file, place[0], place[1], message))
        return BAD


class Shape:
    """Base of all shapes."""

    def read(self, node: Node, name: str, reading: Reading) -> Any:
        """The typed value, or BAD. ``name`` is what to call the place in a fault."""
        raise NotImplementedError

    def schema(self) -> Schema:
        """The JSON Schema of the same."""
        raise NotImplementedError


def shown(node: Node) -> str:
    """What a node holds, as a fault shows it."""
    value = node.value
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:40] + "…")
    return "nothing" if value is None else str(value).lower()


class Flag(Shape):
    """true or false."""

    def read(self, node: Node, name: str, reading: Reading) -> Any:
        if isinstance(node.value, bool):
            return node.value
        hint = " (only true and false are truth values in YAML 1.2)" if str(node.value).lower() in _TRUTH_TRAPS else ""
        return reading.refuse(node.place, f"{name} must be true or false, not {shown(node)}{hint}")

    def schema(self) -> Schema:
        return {"type": "boolean"}


_TRUTH_TRAPS: Final = ("yes", "no", "on", "off", "y", "n")


class Choice(Shape):
    """One of some words or integers."""

    def __init__(self, *options: str | int) -> None:
        self._options = options

    def read(self, node: Node, name: str, reading: Reading) -> Any:
        for option in self._options:
            if node.value == option and not isinstance(node.value, bool):  # 1.0 is 1 in JSON, true isn't
                return option
        hint = ""
        if isinstance(node.value, str) and isinstance(self._options[0], str):
            hint = near(node.value, [str(option) for option in self._options])
        told = f"{name} must be {either(self._options)}, not {shown(node)}"
        return reading.refuse(node.place, f"{told}; {hint}" if hint else told)

    def schema(self) -> Schema:
        return {"enum": list(self._options)}


class Text(Shape):
    """Text. ``pattern`` holds for all of it; ``what`` says in words what it must be."""

    def __init__(self, what: str = "text", *, pattern: str | None = None, longest: int = 500) -> None:
        self._what = what
        self._pattern = None if pattern is None else re.compile(pattern)
        self._longest = longest

    def read(self, node: Node, name: str, reading: Reading) -> Any:
        if not isinstance(node.value, str):
            return reading.refuse(node.place, f"{name} must be {self._what}, not {shown(node)}{_quote_hint(node)}")
        return self.read_text(node.value, node.place, name, reading)

    def read_text(self, text: str, place: Place, name: str, reading: Reading) -> Any:
        """The same for a text that is known, such as a key."""
        if not text:
            return (
                reading.refuse(place, f"{name} must not be empty")
                if self._pattern is None
                else self._matched(text, place, name, reading)
            )
        if len(text) > self._longest:
            return reading.refuse(place, f"{name} is longer than {self._longest} characters")
        return self._matched(text, place, name, reading)

    def _matched(self, text: str, place: Place, name: str, reading: Reading) -> Any:
        if self._pattern is not None and self._pattern.fullmatch(text) is None:
            return reading.refuse(place, f"{name} must be {self._what}, not {text[:80]!r}")
        return text

    def schema(self) -> Schema:
        schema: Schema = {"type": "string", "maxLength": self._longest}
        return schema | ({"minLength": 1} if self._pattern is None else {"pattern": f"^(?:{self._pattern.pattern})$"})


def _quote_hint(node: Node) -> str:
    return "; put it in quotes" if isinstance(node.value, int | float) else ""


class Number(Shape):
    """A finite number between two bounds, or above the lower one where that is ``exclusive``."""

    def __init__(self, low: float, high: float, *, exclusive: bool = False, whole: bool = False) -> None:
        self._low, self._high = low, high
        self._exclusive = exclusive
        self._whole = whole

    def read(self, node: Node, name: str, reading: Reading) -> Any:
        value = node.value
        kind = "a whole number" if self._whole else "a number"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return reading.refuse(node.place, f"{name} must be {kind}, not {shown(node)}")
        if self._whole and value != int(value):
            return reading.refuse(node.place, f"{name} must be {kind}, not {shown(node)}")
        if value > self._high or value < self._low or (self._exclusive and value == self._low):
            low = "above" if self._exclusive else "at least"
            return reading.refuse(
                node.place, f"{name} must be {low} {self._low:g} and at most {self._high:.15g}, not {shown(node)}"
            )
        return int(value) if self._whole else float(value)

    def schema(self) -> Schema:
        low = "exclusiveMinimum" if self._exclusive else "minimum"
        return {"type": "integer" if self._whole else "number", low: self._low, "maximum": self._high}


class Items(Shape):
    """A list of one shape, read into a tuple."""

    def __init__(self, item: Shape, *, least: int = 0, most: int = 1_000) -> None:
        self._item = item
        self._least, self._most = least, most

    def read(self, node: Node, name: str, reading: Reading) -> Any:
        if not isinstance(node.value, list):
            return reading.refuse(node.place, f"{name} must be a list, not {shown(node)}; write [a, b]")
        if not self._least <= len(node.value) <= self._most:
            return reading.refuse(node.place, f"{name} must have from {self._least} to {self._most} members")
        items = [self._item.read(item, f"a member of {name}", reading) for item in node.value]
        return BAD if any(item is BAD for item in items) else tuple(items)

    def schema(self) -> Schema:
        schema: Schema = {"type": "array", "items": self._item.schema(), "maxItems": self._most}
        return schema | ({"minItems": self._least} if self._least else {})


class Table(Shape):
    """A mapping whose keys are texts of one shape and whose values are of another."""

    def __init__(self, key: Text, value: Shape, *, least: int = 0) -> None:
        self._key = key
        self._value = value
        self._least = least

    def read(self, node: Node, name: str, reading: Reading) -> Any:
        if not isinstance(node.value, dict):
            return reading.refuse(node.place, f"{name} must be a mapping, not {shown(node)}; write {{a: b}}")
        if len(node.value) < self._least:
            return reading.refuse(node.place, f"{name} must not be empty")
        result = {}
        is_bad = False
        for key, member in node.value.items():
            read_key = self._key.read_text(key, node.keys[key], f"a key of {name}", reading)
            value = self._value.read(member, key, reading)
            is_bad = is_bad or read_key is BAD or value is BAD
            result[key] = value
        return BAD if is_bad else result

    def schema(self) -> Schema:
        schema: Schema = {
            "type": "object",
            "propertyNames": self._key.schema(),
            "additionalProperties": self._value.schema(),
        }
        return schema | ({"minProperties": self._least} if self._least else {})


class AnyJson(Shape):
    """Any JSON value."""

    def read(self, node: Node, name: str, reading: Reading) -> Any:
        value = plain(node)
        try:
            check_depth(value)
        except InputError as error:
            return reading.refuse(node.place, f"{name} {error.message}")
        return value

    def schema(self) -> Schema:
        return {}


class Key(msgspec.Struct, frozen=True):
    """One key of a mapping: its shape, what it means, and the attribute that holds it, where that is called otherwise."""

    shape: Any
    meaning: str
    is_required: bool = False
    attribute: str | None = None


class Condition(msgspec.Struct, frozen=True):
    """What must hold between keys. ``broken`` gives the key to blame and the message, or None; ``schema`` says the same."""

    broken: Callable[[Any], tuple[str, str] | None]
    schema: Schema


class Keys(Shape):
    """A mapping with known keys, read into a struct. What is left out has the struct's default."""

    def __init__(self, struct: type[msgspec.Struct], keys: Mapping[str, Key], *conditions: Condition) -> None:
        self._struct = struct
        self._keys = keys
        self._conditions = conditions
        self._defaults = {field.name: field.default for field in msgspec.structs.fields(struct)}

    def read(self, node: Node, name: str, reading: Reading) -> Any:
        if not isinstance(node.value, dict):
            return reading.refuse(
                node.place, f"{name} must be a mapping with {either(sorted(self._keys))}, not {shown(node)}"
            )
        arguments = {}
        for key, member in node.value.items():
            known = self._keys.get(key)
            if known is None:
                hint = nearest(key, sorted(self._keys))
                arguments[key] = reading.refuse(node.keys[key], f"{name} has no key {key!r}; {hint}")
            else:
                arguments[known.attribute or key] = known.shape.read(member, key, reading)
        for key, known in self._keys.items():
            if known.is_required and key not in node.value:
                arguments[key] = reading.refuse(node.place, f"{name} needs the key {key}")
        if any(value is BAD for value in arguments.values()):
            return BAD
        value = self._struct(**arguments)
        return BAD if self._breaks_conditions(value, node, name, reading) else value

    def _breaks_conditions(self, value: Any, node: Node, name: str, reading: Reading) -> bool:
        is_broken = False
        for condition in self._conditions:
            broken = condition.broken(value)
            if broken is not None:
                key, message = broken
                reading.refuse(node.keys.get(key, node.place), f"{name}: {message}")
                is_broken = True
        return is_broken

    def schema(self) -> Schema:
        properties = {}
        for name, key in self._keys.items():
            properties[name] = key.shape.schema() | {"description": key.meaning}
            default = self._defaults[key.attribute or name]
            if not key.is_required and isinstance(default, bool | int | float | str):
                properties[name]["default"] = default
        schema: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
        required = [name for name, key in self._keys.items() if key.is_required]
        if required:
            schema["required"] = required
        if self._conditions:
            schema["allOf"] = [condition.schema for condition in self._conditions]
        return schema
