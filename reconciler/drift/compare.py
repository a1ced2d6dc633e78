"""Comparing what is expected of a resource with what a target says, field by field that a workflow wrote."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.contracts.model import Contract
from reconciler.history.members import equal_members
from reconciler.history.tree import Gone, Leaf, Node, Object, Unknown, known_value
from reconciler.records import FieldDrift, Observation, Policy, Verdict
from reconciler.values.instant import SECOND, Instant
from reconciler.values.json_value import ABSENT, Absent, Json
from reconciler.values.normalise import equivalent
from reconciler.values.pointer import Tokens, path_of


def is_settling(
    contract: Contract, last_write_at: Instant | None, in_flight_since: Instant | None, at: Instant
) -> bool:
    """Whether it is too early for a verdict on an observation made `at`: work is in flight, or the last write is so young
    (or younger than the observation) that the target may not show it yet."""
    timing = contract.timing
    if in_flight_since is not None and at - in_flight_since < timing.in_flight_s * SECOND:
        return True
    return last_write_at is not None and at - last_write_at < timing.settle_s * SECOND


def is_empty(tree: Node, observation: Observation) -> bool:
    """Whether an observation says that a resource is there with no fields at all, though workflows wrote some: a target that
    answered so didn't answer."""
    return bool(
        observation.exists
        and not observation.fields
        and isinstance(tree, Object)
        and known_value(tree)
        and _owned(tree)
    )


def compare(tree: Node, observation: Observation, contract: Contract) -> tuple[Verdict, list[FieldDrift]]:
    """The verdict on an observation that is neither too early nor stale, and the fields that differ, without ignored ones.

    A resource that is missing or unexpected is one difference at the path ``""``.
    """
    if observation.exists is None or isinstance(tree, Unknown):
        return "unknown", []
    if is_empty(tree, observation):
        return "unknown", []
    if isinstance(tree, Gone):
        if not observation.exists or tree.owner <= 0:
            return "in_sync", []
        policy = contract.existence.unexpected
        return "unexpected", [FieldDrift(path="", policy=policy, actual=observation.fields)]
    if not observation.exists:
        if not _owned(tree):
            return "in_sync", []
        policy = contract.existence.missing
        return "missing", [FieldDrift(path="", policy=policy, expected=known_value(tree))]
    changes = [change for change in _differences((), tree, observation.fields, contract) if change.policy != "ignore"]
    return ("drifted" if changes else "in_sync"), changes


def _policy(tokens: Tokens, node: Object, contract: Contract) -> Policy:
    """The policy for an object as a whole: what all that a workflow wrote in it agree on, else `report`."""
    policies = set(_policies(tokens, node, contract))
    return policies.pop() if len(policies) == 1 else "report"


def _policies(tokens: Tokens, node: Node, contract: Contract) -> Iterator[Policy]:
    if isinstance(node, Object):
        if node.owner > 0:
            yield contract.rule(path_of(tokens)).drift
        for name, member in node.members.items():
            yield from _policies((*tokens, name), member, contract)
    elif isinstance(node, Leaf) and node.owner > 0:
        yield contract.rule(path_of(tokens)).drift


def _owned(node: Node) -> bool:
    """Whether a workflow wrote anything that is still there, at or below a node."""
    if isinstance(node, Object):
        return node.owner > 0 or any(map(_owned, node.members.values()))
    return isinstance(node, Leaf) and node.owner > 0


def _owned_value(node: Leaf | Gone | Object) -> Json | Absent:
    """What a workflow wrote of a node: what it only found there is somebody else's."""
    if not isinstance(node, Object):
        return known_value(node)
    return {
        name: _owned_value(member)
        for name, member in node.members.items()
        if isinstance(member, Leaf | Object) and _owned(member)
    }


def _is_exact(node: Object) -> bool:
    """Whether a workflow wrote the object whole, and with it that it has no other members."""
    return node.closed and node.owner > 0 and not node.made


def _differences(tokens: Tokens, node: Node, actual: Json | Absent, contract: Contract) -> Iterator[FieldDrift]:
    if isinstance(node, Object):
        if type(actual) is dict:
            for name in sorted(node.members):
                yield from _differences((*tokens, name), node.members[name], actual.get(name, ABSENT), contract)
            if tokens and _is_exact(node) and contract.rule(path_of(tokens)).kind != "map":
                for name in sorted(actual.keys() - node.members.keys()):
                    yield from _difference((*tokens, name), Gone(node.owner), actual[name], contract)
        elif _owned(node):
            yield from _difference(tokens, node, actual, contract)
    elif not isinstance(node, Unknown) and node.owner > 0:
        yield from _difference(tokens, node, actual, contract)


def _difference(
    tokens: Tokens, node: Leaf | Gone | Object, actual: Json | Absent, contract: Contract
) -> Iterator[FieldDrift]:
    path = path_of(tokens)
    rule = contract.rule(path)
    if rule.generated:
        return
    expected = _owned_value(node)
    if equivalent(expected, actual, rule.normalise) or equal_members(rule, expected, actual):
        return
    policy = _policy(tokens, node, contract) if isinstance(node, Object) else rule.drift
    yield FieldDrift(path=path, policy=policy, expected=expected, actual=actual)
