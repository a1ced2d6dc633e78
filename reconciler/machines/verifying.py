"""Whether an observation shows what a rollback changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from reconciler.contracts.model import Contract
from reconciler.history.members import equal_members
from reconciler.history.tree import Node, Object, Unknown, known_value, node_at
from reconciler.machines.head import Head, Unverified
from reconciler.machines.protocol import EmitReport
from reconciler.machines.recording import Stepped, digest
from reconciler.records import Observation, StepConflict, StepReport
from reconciler.values.instant import SECOND, Instant
from reconciler.values.json_value import ABSENT, Absent, Json
from reconciler.values.normalise import equivalent
from reconciler.values.pointer import Tokens, path_of, tokens_of, value_at


def verify(head: Head, observation: Observation, at: Instant, now: Instant, contract: Contract) -> Stepped:
    """Tells rollbacks what became of the steps that were applied. To be asked only of an observation on which drift could be
    judged: what others wrote at these places since is expected there, and no contradiction."""
    if not head.unverified:
        return Stepped(head)
    seen = [item for item in head.unverified if at - item.applied_at >= contract.timing.settle_s * SECOND]
    left = [item for item in head.unverified if item not in seen]
    reports = tuple(EmitReport(_report(head, item, observation, now, contract)) for item in seen)
    return Stepped(msgspec.structs.replace(head, unverified=left), reports)


def _report(head: Head, item: Unverified, observation: Observation, now: Instant, contract: Contract) -> StepReport:
    missing = list(unlike(head.tree, item.paths, observation, contract))
    status = "contradicted" if missing else "verified"
    return StepReport(
        report_id=digest("report", item.step_id, status, item.command_id),
        rollback_id=item.rollback_id,
        step_id=item.step_id,
        resource=head.resource,
        status="contradicted" if missing else "verified",
        conflicts=missing,
        command_id=item.command_id,
        error=f"{head.resource} was seen to hold something else." if missing else None,
        occurred_at=now,
        traceparent=item.traceparent,
    )


def unlike(tree: Node, paths: Sequence[str], observation: Observation, contract: Contract) -> Iterator[StepConflict]:
    """Where, at or below some paths, an observation isn't what is expected. What is there beside that isn't looked at."""
    whole: Json | Absent = observation.fields if observation.exists else ABSENT
    for path in paths:
        tokens = tokens_of(path)
        for place, node, actual in _unlike(tokens, node_at(tree, tokens), value_at(whole, tokens), contract):
            yield StepConflict(path=path_of(place), after=known_value(node), actual=actual)


def _unlike(
    tokens: Tokens, node: Node, actual: Json | Absent, contract: Contract
) -> Iterator[tuple[Tokens, Node, Json | Absent]]:
    if isinstance(node, Unknown) or contract.rule(path_of(tokens)).generated:
        return
    if isinstance(node, Object) and type(actual) is dict:
        for name, member in node.members.items():
            yield from _unlike((*tokens, name), member, actual.get(name, ABSENT), contract)
        return
    rule = contract.rule(path_of(tokens))
    expected = known_value(node)
    if not equivalent(expected, actual, rule.normalise) and not equal_members(rule, expected, actual):
        yield tokens, node, actual
