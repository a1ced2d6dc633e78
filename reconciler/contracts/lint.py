"""What is allowed in contracts and still looks like a mistake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.contracts.checks import Finding, reference_cycles
from reconciler.contracts.errors import Fault
from reconciler.contracts.loader import Loaded, Source, parse_all
from reconciler.contracts.model import Contract, FieldRule, type_of
from reconciler.values.normalise import Normaliser


def lint(sources: Sequence[Source]) -> list[Fault]:
    """All errors and warnings of some files, in the order of files and lines."""
    faults: list[Fault] = []
    loaded = parse_all(list(sources), faults)
    for item in loaded:
        faults.extend(item.fault(path, message, is_warning=True) for path, message in _warnings(item))
    faults.extend(_warnings_of_all(loaded))
    return sorted(faults)


def _warnings(item: Loaded) -> Iterator[Finding]:
    """What looks like a mistake in one contract."""
    contract = item.contract
    for path, rule in contract.fields.items():
        for key, message in _rule_warnings(rule):
            yield ("fields", path, *key), message
        yield from _lost_settings(item, path, rule)
        if rule.drift in ("report", "ignore") and item.says("fields", path, "confirm"):
            yield ("fields", path, "confirm"), f"confirm is used only by drift: correct and adopt, not by {rule.drift}"
    create = contract.undo.create
    if create.set and create.by != "archive":
        yield ("undo", "create", "set"), f"set is used only by archive, but creates are undone by {create.by}"
    if contract.retry.cap_s < contract.retry.first_s:
        yield ("retry", "cap_s"), "cap_s is below first_s, so every wait is cap_s"
    if not contract.requesters.roles and item.says("requesters", "roles"):
        yield ("requesters", "roles"), "without a role in the list everybody may ask; name one, or leave requesters out"
    for index, resolver in enumerate(contract.resolvers[:-1]):
        if resolver.when.strip() == "true" and resolver.take != "pass":
            yield ("resolvers", index), "this resolver always decides, so those after it are never asked"
    if item.says("service", "promises") and "compare_and_set" not in contract.service.promises and _corrects(contract):
        yield (
            ("service", "promises"),
            "drift is corrected, but the service doesn't promise compare_and_set: an edit made just before is overwritten",
        )
    if len(set(contract.service.promises)) < len(contract.service.promises):
        yield ("service", "promises"), "a promise is listed twice"


def _corrects(contract: Contract) -> bool:
    existence = contract.existence
    return "correct" in (existence.missing, existence.unexpected, *(rule.drift for rule in contract.fields.values()))


def _rule_warnings(rule: FieldRule) -> Iterator[Finding]:
    if rule.immutable and rule.drift == "correct":
        yield ("immutable",), "an undo never changes an immutable field, but drift: correct would"
    if rule.immutable and rule.conflict != "manual":
        yield (
            ("conflict",),
            f"an undo that would change an immutable field is blocked, so {rule.conflict} never decides",
        )
    if rule.key is not None and rule.kind != "keyed":
        yield ("key",), "key is used only by kind: keyed"
    if rule.sources and rule.conflict != "source_priority":
        yield ("sources",), "sources are used only by conflict: source_priority"
    if len(set(rule.sources)) < len(rule.sources):
        yield ("sources",), "a source is listed twice; the first place counts"
    names = [_name(normaliser) for normaliser in rule.normalise]
    if len(set(names)) < len(names):
        yield ("normalise",), "a normaliser is listed twice"
    if "sorted" in names and names.index("sorted") < len(names) - 1:
        yield ("normalise",), "sorted should be last: what comes after it changes what it sorted by"


def _lost_settings(item: Loaded, path: str, rule: FieldRule) -> Iterator[Finding]:
    """A rule takes nothing over from a shorter one, which people forget; what the file says itself is meant."""
    contract = item.contract
    covering = list(contract.covering(path.removesuffix("*") + "member" if path.endswith("/*") else path))
    shorter = covering[covering.index(path) + 1 :]
    for name in ("sensitive", "drift", "conflict"):
        value = getattr(rule, name)
        if shorter and not item.says("fields", path, name) and getattr(contract.fields[shorter[0]], name) != value:
            there, here = (str(each).lower() for each in (getattr(contract.fields[shorter[0]], name), value))
            message = f"{shorter[0]} says {name}: {there}, but a rule takes nothing over from a shorter one: here it is {here}"
            yield ("fields", path), f"{message}; say {name} in both"


def _name(normaliser: Normaliser) -> str:
    if isinstance(normaliser, str):
        return normaliser
    return "number" if hasattr(normaliser, "tolerance") else "instant"


def _warnings_of_all(loaded: Sequence[Loaded]) -> Iterator[Fault]:
    by_contract = {id(item.contract): item for item in loaded}
    contracts = [item.contract for item in loaded]
    known = {type_of(contract.name) for contract in contracts}
    for item in loaded:
        for path, referred in item.contract.references.items():
            system, type_ = type_of(referred)
            if known.isdisjoint({(system, type_), (system, "*"), ("*", "*")}):
                message = f"there is no contract for {referred}, so the safe default holds for it"
                yield item.fault(("references", path), message, is_warning=True)
    for contract, path, cycle in reference_cycles(contracts):
        message = f"{' refers to '.join(cycle)}: resources that refer to each other in a circle are undone in one wave"
        yield by_contract[id(contract)].fault(("references", path), message, is_warning=True)
