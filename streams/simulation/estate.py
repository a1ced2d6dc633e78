"""What a simulated estate is made of: systems, records and contracts, chosen by the seed."""

from __future__ import annotations

from typing import Final

import msgspec

from reconciler.contracts.model import (
    ApprovalRule,
    Contract,
    ContractSet,
    Existence,
    FieldRule,
    Retry,
    Service,
    Strategy,
    Timing,
    Undo,
)
from reconciler.records import Policy
from reconciler.values.json_value import Json
from streams.simulation.chance import Chance

SYSTEMS: Final = ("crm", "billing")
TYPES: Final = {"crm": ("contact", "account"), "billing": ("invoice",)}
PLAIN_FIELDS: Final = ("/phone", "/email", "/stage", "/note", "/address/city", "/address/zip")

ACK_WITHIN_S: Final = 30.0
IN_FLIGHT_S: Final = 120.0
RETRY_CAP_S: Final = 40.0


_STRATEGIES: Final[tuple[Strategy, ...]] = ("manual",) * 3 + ("expected_wins", "actual_wins", "latest_wins")


class Estate(msgspec.Struct, frozen=True):
    """Where a simulation takes place."""

    contracts: ContractSet
    resources: tuple[str, ...]
    initial: dict[str, dict[str, Json]]
    """What is there before anything happens."""
    systems: tuple[str, ...] = SYSTEMS


def make_estate(seed: int) -> Estate:
    """The estate of a seed."""
    chance = Chance(seed, "estate")
    contracts = tuple(
        _contract(chance, f"{system}/{type_}")
        for system in SYSTEMS
        for type_ in TYPES[system]
        if chance.hits(0.85)  # the others get the default contract
    )
    count = 2 + chance.below(4)
    resources = []
    for number in range(count):
        system = chance.pick(SYSTEMS)
        resources.append(f"{system}/{chance.pick(TYPES[system])}/{number}")
    initial = {resource: _first_fields(chance) for resource in resources if chance.hits(0.6)}
    return Estate(ContractSet(contracts), tuple(resources), initial)


def _first_fields(chance: Chance) -> dict[str, Json]:
    fields: dict[str, Json] = {"id": f"id{chance.below(1000)}"}
    for name in ("phone", "email", "memo"):
        if chance.hits(0.5):
            fields[name] = f"base-{name}"
    if chance.hits(0.5):
        fields["score"] = 10
    if chance.hits(0.5):
        fields["tags"] = ["base-tag"]
    if chance.hits(0.4):
        fields["address"] = {"city": "base-city"}
    return fields


def _contract(chance: Chance, name: str) -> Contract:
    policies: tuple[Policy, ...] = ("correct",) * 5 + ("report", "report", "adopt", "ignore")
    fields = {
        path: FieldRule(drift=chance.pick(policies), confirm=chance.pick((1, 2, 2)), conflict=chance.pick(_STRATEGIES))
        for path in ("/phone", "/email", "/stage", "/note", "/address")
        if chance.hits(0.85)
    }
    if chance.hits(0.5):
        fields["/tags"] = FieldRule(kind="set", conflict="merge", drift=chance.pick(("report", "correct")))
    if chance.hits(0.5):
        fields["/score"] = FieldRule(kind="counter", conflict="merge", drift=chance.pick(("report", "correct")))
    return Contract(
        name=name,
        fields=fields,
        existence=Existence(
            missing=chance.pick(("correct", "report")), unexpected=chance.pick(("correct", "report", "report"))
        ),
        undo=Undo(
            dependants=chance.pick(("block", "cascade", "orphan")), late_actions=chance.pick(("report", "reverse"))
        ),
        approvals=(ApprovalRule(),) if chance.hits(0.3) else (),
        conflict_scope=chance.pick(("resource", "field")),
        timing=Timing(settle_s=chance.pick((0.0, 10.0, 30.0)), in_flight_s=IN_FLIGHT_S, sample_every_s=120.0),
        retry=Retry(attempts=chance.pick((2, 3, 5)), first_s=2.0, factor=3.0, cap_s=RETRY_CAP_S),
        fallback=chance.pick(("halt", "halt", "skip")),
        service=Service(ack_within_s=ACK_WITHIN_S),
    )
