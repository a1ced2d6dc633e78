"""YAML text as a tree of nodes that know their lines.

Only what a contract needs, and strictly: one document of YAML 1.2 (so ``yes``, ``no``, ``on`` and ``off`` are text), keys
that are text and occur once, no tags, numbers that JSON has. Aliases are allowed, and what they expand to is counted, so
that a small file can't become a large one. The tree is built from the parser's events, so depth costs no stack.
"""

from __future__ import annotations

import re
from typing import Any, Final, NoReturn, TypeAlias

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from reconciler.contracts.errors import Fault
from reconciler.values.json_value import MAX_DEPTH, MAX_INTEGER, MIN_INTEGER, Json

MAX_BYTES: Final = 262_144
"""Far above a contract for a thousand fields."""
MAX_NODES: Final = 20_000
"""Keys, values and lists, with every alias counted as what it stands for."""
MAX_LEVELS: Final = MAX_DEPTH + 8
"""A JSON value at its deepest, at the place in a contract where one may stand."""

_NULL: Final = re.compile(r"~|null|Null|NULL|")
_TRUE: Final = re.compile(r"true|True|TRUE")
_FALSE: Final = re.compile(r"false|False|FALSE")
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_OCTAL: Final = re.compile(r"0o[0-7]+")
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-fA-F]+")
_NUMBER: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9]")
_LONGEST_NUMERAL: Final = 40  # no 64-bit integer or double needs more

Place: TypeAlias = tuple[int, int]
"""Line and column, from 1."""


class Node(msgspec.Struct, frozen=True):
    """A value with its place. Members of mappings and lists are nodes; ``keys`` are the places of a mapping's keys."""

    value: bool | int | float | str | list[Node] | dict[str, Node] | None
    place: Place
    size: int = 1
    text_place: Place | None = None
    """Where a text begins, if it stands in the file as it is and on one line."""
    keys: dict[str, Place] = {}


class UnreadableError(Exception):
    """Text that can't be made a tree; carries the fault."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def read_tree(text: str, file: str, faults: list[Fault]) -> Node:
    """The tree of a text. Keys that occur twice are added to ``faults``; UnreadableError where there is no tree."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise UnreadableError(
            Fault(file, 0, 0, f"is larger than {MAX_BYTES} bytes; a contract is one resource type's rules")
        )
    builder = _Builder(file, faults)
    try:
        for event in YAML(typ="safe", pure=True).parse(text.removeprefix("\ufeff")):
            builder.add(event)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (0, 0) if mark is None else (mark.line + 1, mark.column + 1)
        raise UnreadableError(Fault(file, line, column, _problem(error))) from None
    except YAMLError as error:
        first = str(error).splitlines()[0]
        raise UnreadableError(Fault(file, 0, 0, f"is no YAML: {first}; remove that character")) from None
    if builder.root is None:
        raise UnreadableError(Fault(file, 0, 0, "is empty; a contract begins with `contract: system/type`"))
    return builder.root


def plain(node: Node) -> Json:
    """The JSON value of a tree."""
    value = node.value
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    return [plain(member) for member in value] if isinstance(value, list) else value


def _problem(error: MarkedYAMLError) -> str:
    problem = str(error.problem or error.context or "can't be read")
    if "\\t" in problem or "\t" in problem:
        return "a tab stands where YAML allows only spaces; indent with spaces"
    for sign, name in (("*", "an alias"), ("&", "an anchor"), ("!", "a tag")):
        if str(error.context).endswith(f"scanning {name}"):
            return f"is no YAML: {sign} begins {name} here; put text that begins with it in quotes"
    context = f" {error.context}" if error.context and error.problem else ""
    return f"is no YAML: {problem}{context}; check quotes, brackets and indentation"


class _Open:
    """A mapping or list that isn't finished."""

    def __init__(self, place: Place, anchor: str | None, members: Any) -> None:
        self.place = place
        self.anchor = anchor
        self.members: list[Node] | dict[str, Node] = members
        self.keys: dict[str, Place] = {}
        self.key: str | None = None
        self.size = 1


class _Builder:
    """Takes the events of one document and makes its tree."""

    def __init__(self, file: str, faults: list[Fault]) -> None:
        self._file = file
        self._faults = faults
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._documents = 0
        self._nodes = 0
        self.root: Node | None = None

    def add(self, event: Event) -> None:
        place = (event.start_mark.line + 1, event.start_mark.column + 1) if event.start_mark else (0, 0)
        if isinstance(event, DocumentStartEvent):
            self._start_document(event, place)
        elif isinstance(event, AliasEvent):
            if event.anchor not in self._anchors:
                self._refuse(place, f"the alias *{event.anchor} names nothing that is complete before it")
            self._place(self._anchors[event.anchor], place)
        elif isinstance(event, ScalarEvent):
            self._no_tag(event, place)
            node = self._scalar(event, place)
            self._remember(event.anchor, node)
            self._place(node, place)
        elif isinstance(event, MappingStartEvent | SequenceStartEvent):
            self._no_tag(event, place)
            if len(self._open) >= MAX_LEVELS:
                self._refuse(place, f"is nested more than {MAX_LEVELS} levels deep")
            members: Any = {} if isinstance(event, MappingStartEvent) else []
            self._open.append(_Open(place, event.anchor, members))
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            done = self._open.pop()
            node = Node(done.members, done.place, done.size, keys=done.keys)
            self._remember(done.anchor, node)
            self._place(node, done.place, new=1)

    def _start_document(self, event: DocumentStartEvent, place: Place) -> None:
        self._documents += 1
        if self._documents > 1:
            self._refuse(place, "holds a second document; write each contract into a file of its own")
        if event.version not in (None, (1, 2)):
            self._refuse(place, "asks for another YAML than 1.2; take the %YAML line out")

    def _remember(self, anchor: str | None, node: Node) -> None:
        if anchor is not None:
            self._anchors[anchor] = node

    def _no_tag(self, event: Any, place: Place) -> None:
        if event.tag is not None:
            self._refuse(place, f"the tag {event.tag} is not allowed; put text that begins with ! in quotes")

    def _place(self, node: Node, place: Place, new: int | None = None) -> None:
        """Puts a node where it belongs. ``new`` is how many nodes it adds, if not all that it holds."""
        self._nodes += node.size if new is None else new
        if self._nodes > MAX_NODES:
            self._refuse(place, f"holds more than {MAX_NODES} values, aliases written out; a contract needs no more")
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        parent.size += node.size
        if isinstance(parent.members, list):
            parent.members.append(node)
        elif parent.key is None:
            if not isinstance(node.value, str):
                self._refuse(place, "a key must be text; put it in quotes")
            if node.value in parent.keys:
                self._faults.append(
                    Fault(
                        self._file,
                        *place,
                        f"the key {node.value!r} stands twice here; it is also in line "
                        f"{parent.keys[node.value][0]}, keep one of them",
                    )
                )
            parent.keys[node.value] = place
            parent.key = node.value
        else:
            parent.members[parent.key] = node
            parent.key = None

    def _scalar(self, event: ScalarEvent, place: Place) -> Node:
        text: str = event.value
        line, column = place
        is_on_one_line = event.start_mark.line == event.end_mark.line
        if event.style is not None:
            as_it_is = is_on_one_line and event.end_mark.column - event.start_mark.column == len(text) + 2
            return Node(text, place, text_place=(line, column + 1) if as_it_is else None)
        if _NULL.fullmatch(text):
            return Node(None, place)
        if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
            return Node(text[0] in "tT", place)
        if _NOT_FINITE.fullmatch(text):
            self._refuse(place, f"{text} is no number of JSON; write a finite one, or quote it")
        number = self._number(text, place)
        return (
            Node(text, place, text_place=place if is_on_one_line else None) if number is None else Node(number, place)
        )

    def _number(self, text: str, place: Place) -> int | float | None:
        is_integer = _INTEGER.fullmatch(text) is not None
        base = 8 if _OCTAL.fullmatch(text) else 16 if _HEXADECIMAL.fullmatch(text) else 10
        if not is_integer and base == 10 and _NUMBER.fullmatch(text) is None:
            return None
        if len(text) > _LONGEST_NUMERAL:
            self._refuse(place, f"the number {text[:24]}… is too long; put it in quotes")
        if _LEADING_ZERO.match(text) and base == 10:
            self._refuse(place, f"{text} begins with a zero; put it in quotes if it is text, else take the zero away")
        if base == 10 and not is_integer:
            double = float(text)
            if abs(double) == float("inf"):
                self._refuse(place, f"{text} is too large for a number; put it in quotes")
            return double
        integer = int(text, base) if base == 10 else int(text[2:], base)
        if not MIN_INTEGER <= integer <= MAX_INTEGER:
            self._refuse(place, f"the integer {text} is beyond 64 bits; put it in quotes")
        return integer

    def _refuse(self, place: Place, message: str) -> NoReturn:
        raise UnreadableError(Fault(self._file, *place, message))


def place_of(node: Node, *path: str | int) -> Place:
    """The place of what a path of keys and positions leads to, as far as it leads: of the key, where that is in a mapping."""
    place = node.place
    for step in path:
        value = node.value
        if isinstance(value, dict) and isinstance(step, str) and step in value:
            place = node.keys[step]
            node = value[step]
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            node = value[step]
            place = node.place
        else:
            break
    return place
