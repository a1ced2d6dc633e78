"""The form of a contract file: every key, what may stand there, what it means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, get_args

from reconciler.contracts.expressions import MAX_LENGTH, faults_of
from reconciler.contracts.model import (
    ApprovalRule,
    Audit,
    CompensationRule,
    Contract,
    CreateUndo,
    DeleteUndo,
    Existence,
    FieldRule,
    Forbid,
    Kind,
    Promise,
    Requesters,
    Resolver,
    Retry,
    Service,
    Strategy,
    Take,
    Timing,
    Undo,
)
from reconciler.contracts.shapes import (
    BAD,
    AnyJson,
    Choice,
    Condition,
    Flag,
    Items,
    Key,
    Keys,
    Number,
    Reading,
    Schema,
    Shape,
    Table,
    Text,
    shown,
)
from reconciler.contracts.vocabulary import CONFLICT, PLAN, Vocabulary
from reconciler.contracts.yaml_tree import Node
from reconciler.records import Policy
from reconciler.values.json_value import MAX_DEPTH
from reconciler.values.normalise import InstantTo, NormaliserName, NumberWithin, Precision
from reconciler.values.words import nearest

SCHEMA_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
LONGEST_S: Final = 3_155_760_000
"""A hundred years, in seconds: beyond it a number is a mistake, and instants would leave their range."""

# Patterns are of the dialect that Python and ECMAScript share.
_PART: Final = r"(?:[A-Za-z0-9._~!$&'()+,;=:@-]|%[0-9A-Fa-f]{2})+"
_NAME_PART: Final = r"(?:[^~/]|~[01])*"
_NOT_STAR: Final = rf"/(?!\*(?:/|$)){_NAME_PART}"

CONTRACT_NAME: Final = Text(
    "system/type, system/* or *, each part percent-encoded", pattern=rf"\*|{_PART}/(?:\*|{_PART})", longest=1_000
)
RESOURCE_TYPE: Final = Text("system/type, each part percent-encoded", pattern=f"{_PART}/{_PART}", longest=1_000)
FIELD_PATH: Final = Text(
    "a path such as /address/city (a JSON Pointer), with a * only as its last part",
    pattern=rf"(?:{_NOT_STAR}){{0,{MAX_DEPTH - 1}}}(?:/\*|{_NOT_STAR})?",
    longest=1_000,
)
EXACT_PATH: Final = Text(
    "a path such as /address/city (a JSON Pointer)", pattern=rf"(?:/{_NAME_PART}){{1,{MAX_DEPTH}}}", longest=1_000
)
LABEL_KEY: Final = Text(
    "`resource` or a path such as /phone", pattern=rf"resource|(?:/{_NAME_PART}){{1,{MAX_DEPTH}}}", longest=1_000
)
NAME: Final = Text()
_TOLERANCE: Final = Text('a decimal such as "0.01"', pattern=r"[0-9]{1,30}(?:\.[0-9]{1,30})?", longest=61)


class Expression(Shape):
    """A CEL expression over what a vocabulary has."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._text = Text("a CEL expression", longest=MAX_LENGTH)

    def read(self, node: Node, name: str, reading: Reading) -> Any:
        text = self._text.read(node, name, reading)
        if text is BAD:
            return BAD
        faults = list(faults_of(text, self._vocabulary))
        for fault in faults:
            if node.text_place is not None and fault.line == 1:
                line, column = node.text_place
                reading.refuse((line, column + fault.column - 1), f"{name}: {fault.message}")
            else:
                where = f"line {fault.line}, column {fault.column} of the expression"
                reading.refuse(node.place, f"{name}: {fault.message} ({where})")
        return BAD if faults else text

    def schema(self) -> Schema:
        known = ", ".join(self._vocabulary.members)
        return self._text.schema() | {"$comment": f"CEL over {self._vocabulary.name}: {known}"}


class _Tolerance(Shape):
    """A decimal of at least 0, as text or as a number."""

    _number = Number(0, 1e15)

    def read(self, node: Node, name: str, reading: Reading) -> Any:
        if isinstance(node.value, str):
            text = _TOLERANCE.read(node, name, reading)
            return BAD if text is BAD else Decimal(text).normalize()
        number = self._number.read(node, name, reading)
        return BAD if number is BAD else Decimal(repr(number)).normalize()

    def schema(self) -> Schema:
        return {"anyOf": [_TOLERANCE.schema(), self._number.schema()]}


class _Normaliser(Shape):
    """A normaliser's name, or a mapping of the one name to its options."""

    _names: tuple[str, ...] = get_args(NormaliserName)
    _with_options: Mapping[str, Keys] = {
        "number": Keys(NumberWithin, {"tolerance": Key(_Tolerance(), "How far apart equal numbers may be.", True)}),
        "instant": Keys(InstantTo, {"precision": Key(Choice(*get_args(Precision)), "What is finer is cut off.", True)}),
    }

    def read(self, node: Node, name: str, reading: Reading) -> Any:
        if isinstance(node.value, dict) and len(node.value) == 1:
            ((key, options),) = node.value.items()
            if key in self._with_options:
                return self._with_options[key].read(options, key, reading)
            hint = f"{key} has no options" if key in self._names else nearest(key, sorted(self._with_options))
            return reading.refuse(node.keys[key], f"{name} can't be {key!r} with options; {hint}")
        if isinstance(node.value, str) and node.value in self._names:
            return node.value
        hint = nearest(node.value, self._names) if isinstance(node.value, str) else f"use {', '.join(self._names)}"
        return reading.refuse(node.place, f"{name} can't be {shown(node)}; {hint}")

    def schema(self) -> Schema:
        with_options = [
            {"type": "object", "additionalProperties": False, "required": [name], "properties": {name: keys.schema()}}
            for name, keys in self._with_options.items()
        ]
        return {"anyOf": [{"enum": list(self._names)}, *with_options]}


def _needs(when: Schema, needed: str, is_broken: Callable[[Any], bool], message: str) -> Condition:
    """That where keys have certain values, another key is there."""
    return Condition(
        lambda value: (next(iter(when)), message) if is_broken(value) else None,
        {
            "if": {"required": list(when), "properties": {key: {"const": value} for key, value in when.items()}},
            "then": {"required": [needed]},
        },
    )


FIELD_RULE: Final = Keys(
    FieldRule,
    {
        "drift": Key(
            Choice(*get_args(Policy)),
            "What is done when the field differs from what the workflows wrote: put it right, take the new value over, tell, or"
            " nothing.",
        ),
        "conflict": Key(
            Choice(*get_args(Strategy)),
            "Who wins when somebody else changed the field and an undo would change it too.",
        ),
        "normalise": Key(Items(_Normaliser(), most=16), "What two values may differ in and still be equal, in order."),
        "kind": Key(Choice(*get_args(Kind)), "What the value is, so that parts of it can be undone on their own."),
        "key": Key(EXACT_PATH, "The path, inside a member of a keyed list, of what tells the members apart."),
        "sensitive": Key(Flag(), "Whether the value is masked wherever people see it."),
        "sources": Key(Items(NAME, least=1, most=100), "Ids or kinds of writers, the best first, for source_priority."),
        "immutable": Key(Flag(), "Whether an undo that would change the field is blocked."),
        "generated": Key(Flag(), "Whether the target fills the field in itself, so that it is nobody's edit."),
        "confirm": Key(Choice(1, 2), "In how many observations running drift must be seen before it is corrected."),
    },
    _needs(
        {"kind": "keyed"},
        "key",
        lambda rule: rule.kind == "keyed" and rule.key is None,
        "a keyed list needs the key that tells its members apart, such as key: /id",
    ),
    _needs(
        {"conflict": "merge"},
        "kind",
        lambda rule: rule.conflict == "merge" and rule.kind is None,
        "merge needs the kind of the value: set, keyed, counter or map",
    ),
    _needs(
        {"conflict": "source_priority"},
        "sources",
        lambda rule: rule.conflict == "source_priority" and not rule.sources,
        "source_priority needs sources, the best writer first",
    ),
    Condition(
        lambda rule: (
            (
                "generated",
                "the target fills a generated field in itself, so it can't be corrected; take one of them out",
            )
            if rule.generated and rule.drift == "correct"
            else None
        ),
        {
            "not": {
                "required": ["generated", "drift"],
                "properties": {"generated": {"const": True}, "drift": {"const": "correct"}},
            }
        },
    ),
)

_SECONDS: Final = Number(0, LONGEST_S)
_SOME_SECONDS: Final = Number(0, LONGEST_S, exclusive=True)
_ROLES: Final = Items(NAME, most=100)

_CREATE_UNDO: Final = Keys(
    CreateUndo,
    {
        "by": Key(Choice("delete", "archive", "keep"), "Delete what was created, archive it, or leave it."),
        "set": Key(Table(EXACT_PATH, AnyJson(), least=1), "The values by path that archive it."),
    },
    _needs(
        {"by": "archive"},
        "set",
        lambda create: create.by == "archive" and not create.set,
        "archive needs set, the values by path that make a record archived",
    ),
)

_UNDO: Final = Keys(
    Undo,
    {
        "until_s": Key(
            _SECONDS, "The age of an operation, in seconds, after which it can't be undone; left out: never."
        ),
        "observed_within_s": Key(
            _SECONDS,
            "How old the last observation of a record may be, in seconds, for its undo to start from it; 0: the record is"
            " observed anew.",
        ),
        "create": Key(_CREATE_UNDO, "How a create is undone."),
        "delete": Key(
            Keys(
                DeleteUndo,
                {"by": Key(Choice("recreate", "keep"), "Make it again from the snapshot, or leave it deleted.")},
            ),
            "How a delete is undone.",
        ),
        "dependants": Key(
            Choice("block", "cascade", "orphan"),
            "What happens to an operation on which others stand that aren't undone: it is blocked, they are undone too, or they"
            " are left as they are.",
        ),
        "late_actions": Key(
            Choice("report", "reverse"), "What happens to an action that arrives when its run has been undone."
        ),
        "compensations": Key(
            Table(NAME, Keys(CompensationRule, {"by": Key(NAME, "The compensation's name.", True)})),
            "What makes good an effect that can't be taken back, by the name of the compensation or the step.",
        ),
        "forbid": Key(
            Items(
                Keys(
                    Forbid,
                    {
                        "when": Key(Expression(PLAN), "A CEL expression over the plan.", True),
                        "because": Key(NAME, "What people are told.", True),
                    },
                ),
                most=100,
            ),
            "What rejects a plan.",
        ),
    },
)

CONTRACT: Final = Keys(
    Contract,
    {
        "contract": Key(
            CONTRACT_NAME, "The resource type that the contract is for: system/type, system/* or *.", True, "name"
        ),
        "version": Key(Number(1, 2**31 - 1, whole=True), "The contract's version, raised with each change."),
        "labels": Key(Table(LABEL_KEY, NAME), "What people call the resource and its fields."),
        "fields": Key(
            Table(FIELD_PATH, FIELD_RULE),
            "The rules for fields, by path; a trailing /* matches all below, the longest wins.",
        ),
        "resolvers": Key(
            Items(
                Keys(
                    Resolver,
                    {
                        "when": Key(Expression(CONFLICT), "A CEL expression over the conflict.", True),
                        "take": Key(Choice(*get_args(Take)), "What is taken where it is true.", True),
                    },
                ),
                most=100,
            ),
            "Rules that decide conflicts before the fields' own strategy; the first that answers wins.",
        ),
        "conflict_scope": Key(
            Choice("resource", "field"), "Whether a conflict left to people holds the whole resource or only its field."
        ),
        "existence": Key(
            Keys(
                Existence,
                {
                    "missing": Key(
                        Choice("report", "correct"), "What is done when the resource is gone but should be there."
                    ),
                    "unexpected": Key(Choice("report", "correct"), "What is done when it is there but should be gone."),
                },
            ),
            "What is done when the resource itself drifts.",
        ),
        "undo": Key(_UNDO, "What can be undone, and how."),
        "requesters": Key(
            Keys(Requesters, {"roles": Key(_ROLES, "Roles of which one is needed; none: everybody may ask.")}),
            "Who may ask for a rollback.",
        ),
        "approvals": Key(
            Items(
                Keys(
                    ApprovalRule,
                    {
                        "when": Key(Expression(PLAN), "A CEL expression over the plan; left out: every plan."),
                        "roles": Key(_ROLES, "Roles of which each approver has one; none: everybody may approve."),
                        "count": Key(Number(1, 100, whole=True), "How many people, other than the one who asked."),
                    },
                ),
                most=100,
            ),
            "Who must approve which plans.",
        ),
        "references": Key(
            Table(EXACT_PATH, RESOURCE_TYPE), "Fields that name another resource, with its type: they order the undo."
        ),
        "audit": Key(
            Keys(
                Audit, {"on_reversal": Key(Choice("keep", "archive"), "Whether they stay as they are or are archived.")}
            ),
            "What becomes of the target's own audit entries about what is undone.",
        ),
        "timing": Key(
            Keys(
                Timing,
                {
                    "settle_s": Key(_SECONDS, "How long after a write observations aren't judged, in seconds."),
                    "in_flight_s": Key(_SECONDS, "How long an action that began counts as under way, in seconds."),
                    "sample_every_s": Key(_SOME_SECONDS, "How often the resource is observed, in seconds."),
                    "pre_state_max_age_s": Key(
                        _SECONDS, "How old an observation may be to tell what a field held before a write, in seconds."
                    ),
                },
            ),
            "Times.",
        ),
        "retry": Key(
            Keys(
                Retry,
                {
                    "attempts": Key(Number(1, 1_000, whole=True), "How often a command is tried."),
                    "first_s": Key(_SOME_SECONDS, "The wait before the second attempt, in seconds."),
                    "factor": Key(Number(1, 1_000), "By what each wait is longer than the one before."),
                    "cap_s": Key(_SOME_SECONDS, "The longest wait, in seconds."),
                },
            ),
            "Attempts at a command that fails for a passing reason.",
        ),
        "fallback": Key(
            Choice("halt", "skip", "compensate"),
            "What follows a command that fails for good: stop, go on, or compensate.",
        ),
        "service": Key(
            Keys(
                Service,
                {
                    "ack_within_s": Key(_SOME_SECONDS, "How soon it answers a command, in seconds."),
                    "promises": Key(Items(Choice(*get_args(Promise)), most=2), "What it guarantees."),
                },
            ),
            "What the service that owns the target promises.",
        ),
    },
    Condition(
        lambda contract: (
            ("fallback", "compensate needs undo.compensations, which name what makes good a step")
            if contract.fallback == "compensate" and not contract.undo.compensations
            else None
        ),
        {
            "if": {"required": ["fallback"], "properties": {"fallback": {"const": "compensate"}}},
            "then": {
                "required": ["undo"],
                "properties": {
                    "undo": {
                        "required": ["compensations"],
                        "properties": {"compensations": {"minProperties": 1}},
                    }
                },
            },
        },
    ),
)


def json_schema() -> Schema:
    """The JSON Schema of a contract file, for editors."""
    return {
        "$schema": SCHEMA_DIALECT,
        "title": "Contract of the reconciler",
        "description": "The machine-enforced rules for one resource type.",
    } | CONTRACT.schema()
