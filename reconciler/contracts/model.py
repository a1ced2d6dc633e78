"""Contracts as typed, frozen values.

Every attribute is named as its key in the YAML file, and its default is the default of the key. Mappings inside are never
changed after a contract was made.

Which rule a path has: each rule stands under a path, and covers the field there and all below it; ``/a/*`` covers only what
is below ``/a``. The rule under the longest path wins, whole: it takes nothing over from shorter ones. At the same length an
exact path beats one with ``/*`` for the field itself, and ``/a/*`` beats ``/a`` for what is below. ``kind`` and ``key`` say
what the value at the rule's own path is, so a field that is covered only because it is below has neither, and where the rule
says ``merge`` its conflicts are for people.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from reconciler.records import Policy
from reconciler.values.errors import InputError
from reconciler.values.json_value import Json, canonical
from reconciler.values.normalise import Normaliser
from reconciler.values.pointer import tokens_of
from reconciler.values.resource_key import parse_resource_key

Strategy: TypeAlias = Literal["manual", "expected_wins", "actual_wins", "latest_wins", "source_priority", "merge"]
Kind: TypeAlias = Literal["set", "keyed", "counter", "map"]
ExistencePolicy: TypeAlias = Literal["report", "correct"]
Take: TypeAlias = Literal["expected", "actual", "manual", "pass"]
Promise: TypeAlias = Literal["compare_and_set", "deduplicates"]

Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
PositiveSeconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]

_CACHED_PATHS: Final = 65_536  # per contract; members of a map may bring any number of paths
_CACHED_TYPES: Final = 4_096  # resource types seen by a set


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of a contract's parts."""


class FieldRule(Part, frozen=True, kw_only=True):
    """What holds for one field, or for all below a path."""

    drift: Policy = "report"
    conflict: Strategy = "manual"
    normalise: tuple[Normaliser, ...] = ()
    kind: Kind | None = None
    key: str | None = None
    """The path, inside a member of a ``keyed`` list, of what tells the members apart."""
    sensitive: bool = False
    sources: tuple[Name, ...] = ()
    """Ids or kinds of writers, the best first, for ``source_priority``."""
    immutable: bool = False
    generated: bool = False
    confirm: Literal[1, 2] = 2
    """In how many observations running drift must be seen before it is corrected."""


class Resolver(Part, frozen=True, kw_only=True):
    """A CEL expression over a conflict, and what is taken where it is true."""

    when: str
    take: Take


class Existence(Part, frozen=True, kw_only=True):
    """What is done about a resource that should exist and doesn't (``missing``), or the other way round."""

    missing: ExistencePolicy = "report"
    unexpected: ExistencePolicy = "report"


class CreateUndo(Part, frozen=True, kw_only=True):
    """How a create is undone. ``set`` holds the values by path that archive a resource."""

    by: Literal["delete", "archive", "keep"] = "delete"
    set: Mapping[str, Json] = {}


class DeleteUndo(Part, frozen=True, kw_only=True):
    """How a delete is undone."""

    by: Literal["recreate", "keep"] = "recreate"


class CompensationRule(Part, frozen=True, kw_only=True):
    """What makes good an effect."""

    by: Name


class Forbid(Part, frozen=True, kw_only=True):
    """A CEL expression over a plan that rejects it, and the reason that people are told."""

    when: str
    because: Name


class Undo(Part, frozen=True, kw_only=True):
    """What can be undone, and how. ``until_s`` None: however old it is."""

    until_s: Seconds | None = None
    observed_within_s: Seconds = 0.0
    """How old an observation may be for an undo to start from it; 0: made for it."""
    create: CreateUndo = CreateUndo()
    delete: DeleteUndo = DeleteUndo()
    dependants: Literal["block", "cascade", "orphan"] = "block"
    late_actions: Literal["report", "reverse"] = "report"
    compensations: Mapping[str, CompensationRule] = {}
    forbid: tuple[Forbid, ...] = ()


class Requesters(Part, frozen=True, kw_only=True):
    """Who may ask for a rollback: whoever has one of the roles; without any, everybody."""

    roles: tuple[Name, ...] = ()


class ApprovalRule(Part, frozen=True, kw_only=True):
    """How many people, other than the one who asked, must approve a plan of which ``when`` is true (None: every plan).

    Each has one of the roles; without any, everybody may.
    """

    when: str | None = None
    roles: tuple[Name, ...] = ()
    count: Annotated[int, msgspec.Meta(ge=1)] = 1


class Audit(Part, frozen=True, kw_only=True):
    """What becomes of the target's own audit entries about an operation that is undone."""

    on_reversal: Literal["keep", "archive"] = "keep"


class Timing(Part, frozen=True, kw_only=True):
    """Times, in seconds."""

    settle_s: Seconds = 30.0
    in_flight_s: Seconds = 600.0
    sample_every_s: PositiveSeconds = 300.0
    pre_state_max_age_s: Seconds = 3600.0


class Retry(Part, frozen=True, kw_only=True):
    """Attempts at a command that fails for a passing reason: waits of first_s, first_s * factor, … up to cap_s."""

    attempts: Annotated[int, msgspec.Meta(ge=1)] = 5
    first_s: PositiveSeconds = 2.0
    factor: Annotated[float, msgspec.Meta(ge=1)] = 3.0
    cap_s: PositiveSeconds = 300.0


class Service(Part, frozen=True, kw_only=True):
    """What the service that owns the target promises."""

    ack_within_s: PositiveSeconds = 60.0
    promises: tuple[Promise, ...] = ()


class Contract(Part, frozen=True, kw_only=True, dict=True):
    """The rules for one resource type. ``name`` is ``crm/contact``, ``crm/*`` or ``*``; in the file its key is ``contract``."""

    name: str
    version: int = 1
    labels: Mapping[str, str] = {}
    fields: Mapping[str, FieldRule] = {}
    resolvers: tuple[Resolver, ...] = ()
    conflict_scope: Literal["resource", "field"] = "resource"
    existence: Existence = Existence()
    undo: Undo = Undo()
    requesters: Requesters = Requesters()
    approvals: tuple[ApprovalRule, ...] = ()
    references: Mapping[str, str] = {}
    audit: Audit = Audit()
    timing: Timing = Timing()
    retry: Retry = Retry()
    fallback: Literal["halt", "skip", "compensate"] = "halt"
    service: Service = Service()

    @cached_property
    def digest(self) -> str:
        """A digest (BLAKE2b, 16 bytes, hex) of all that the contract says, defaults included, however it was written."""
        content = msgspec.to_builtins(self, str_keys=True)
        return hashlib.blake2b(canonical(content), digest_size=16).hexdigest()

    @cached_property
    def kinds(self) -> Mapping[str, Kind]:
        """The paths under which a rule says a kind, and the kinds."""
        return {path: rule.kind for path, rule in self.fields.items() if rule.kind is not None}

    def rule(self, path: str) -> FieldRule:
        """The rule of a field. Raises InputError for what is no path."""
        rules = self._rules
        found = rules.get(path)
        if found is None:
            if len(rules) >= _CACHED_PATHS:
                rules.clear()
            _, found = self.rule_and_place(path)
            rules[path] = found
        return found

    def rule_and_place(self, path: str) -> tuple[str | None, FieldRule]:
        """The rule of a field, with the path under which the contract has it; None where it has none."""
        place = next(self.covering(path), None)
        if place is None:
            return None, _DEFAULT_RULE
        rule = self.fields[place]
        if place == path or place.endswith("/*"):
            return place, rule
        conflict = "manual" if rule.conflict == "merge" else rule.conflict
        return place, msgspec.structs.replace(rule, kind=None, key=None, conflict=conflict)

    def covering(self, path: str) -> Iterator[str]:
        """The paths in the contract whose rules cover a field, the one that wins first. Raises InputError for no path."""
        tokens = tokens_of(path)
        if path in self.fields:
            yield path
        above = path
        for _ in tokens:
            above = above[: above.rindex("/")]
            for place in (f"{above}/*", above):
                if place in self.fields:
                    yield place

    @cached_property
    def _rules(self) -> dict[str, FieldRule]:
        return {}


_DEFAULT_RULE: Final = FieldRule()

DEFAULT_CONTRACT: Final = Contract(name="default", approvals=(ApprovalRule(),))
"""For resource types without a contract: report drift, leave conflicts to people, and let one other person approve."""


class ContractSet(msgspec.Struct, frozen=True, dict=True):
    """All contracts of an estate, no two of one name."""

    contracts: tuple[Contract, ...] = ()

    def __post_init__(self) -> None:
        if len(self._by_type) != len(self.contracts):
            raise InputError("two contracts have the same name")

    @cached_property
    def digest(self) -> str:
        """A digest of all contracts, in whatever order they were given."""
        content = sorted((contract.name, contract.digest) for contract in self.contracts)
        return hashlib.blake2b(canonical(content), digest_size=16).hexdigest()

    def for_resource(self, resource: str) -> Contract:
        """The most specific contract for a resource: ``system/type``, then ``system/*``, then ``*``, then DEFAULT_CONTRACT.

        Raises InputError where the key names no type.
        """
        cut = resource.rfind("/")
        found = self._by_prefix.get(resource[:cut]) if cut > 0 else None
        if found is None:
            system, type_, _ = parse_resource_key(f"{resource[:cut]}/id")
            found = self.for_type(system, type_)
            if len(self._by_prefix) >= _CACHED_TYPES:
                self._by_prefix.clear()
            self._by_prefix[resource[:cut]] = found
        return found

    def for_type(self, system: str, type: str) -> Contract:
        """The most specific contract for a resource type, given by its plain parts."""
        for name in ((system, type), (system, "*"), ("*", "*")):
            if name in self._by_type:
                return self._by_type[name]
        return DEFAULT_CONTRACT

    @cached_property
    def _by_type(self) -> dict[tuple[str, str], Contract]:
        return {type_of(contract.name): contract for contract in self.contracts}

    @cached_property
    def _by_prefix(self) -> dict[str, Contract]:
        return {}


def type_of(name: str) -> tuple[str, str]:
    """System and type, each plain or ``*``, of a contract's name. Raises InputError for what is none."""
    if name == "*":
        return "*", "*"
    try:
        system, type_, _ = parse_resource_key(f"{name}/id")
    except InputError:
        system, type_ = "*", ""
    if system == "*" or (type_ == "*" and not name.endswith("/*")):
        raise InputError(f"{name!r} is no name of a contract; write system/type, system/* or *")
    return system, type_
