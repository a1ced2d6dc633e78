"""A plan in its JSON form, with the values of sensitive fields masked where people read and not where programs act.

`reconciler plan` prints commands with their true values, because `apply` carries out what it printed; the report
(conflicts, what is kept, the story) is for people, and masked. What is published for people alone is masked all through.
The digest is of the true plan either way.
"""

from __future__ import annotations

from typing import Final

import msgspec

from reconciler.contracts.masking import masked
from reconciler.contracts.model import Contract, ContractSet
from reconciler.json_form import from_json, to_json
from reconciler.plan.model import Kept, Plan, PlannedConflict
from reconciler.records import Change, Command
from reconciler.values.errors import InputError
from reconciler.values.json_value import Json
from reconciler.values.pointer import tokens_of

_DISPENSABLE: Final[dict[str, Json]] = {"operations": [], "notes": [], "contracts": {}}
"""What tells more about a plan than it takes to carry it out."""


def plan_to_json(plan: Plan, contracts: ContractSet) -> dict[str, Json]:
    """The plan as `reconciler plan` prints it: commands can be carried out, and the report is masked."""
    return to_json(_with_masked_report(plan, contracts))


def plan_from_json(data: Json) -> Plan:
    """The plan of what `plan_to_json` gave. What a plan can be carried out without may be missing. Raises InputError naming
    the field."""
    plan = from_json(Plan, _DISPENSABLE | data if isinstance(data, dict) else data)
    for wave, commands in enumerate(plan.waves):
        for place, command in enumerate(commands):
            for number, change in enumerate(command.changes):
                try:
                    tokens_of(change.path)
                except InputError as error:
                    field = f"waves[{wave}][{place}].changes[{number}].path"
                    raise InputError(error.message, field=field) from None
    return plan


def plan_for_people(plan: Plan, contracts: ContractSet) -> dict[str, Json]:
    """The plan as it is published: nobody reads a sensitive value in it, and nobody can carry it out where it has any."""
    waves = [
        [masked_command(command, contracts.for_resource(command.resource)) for command in wave] for wave in plan.waves
    ]
    return to_json(msgspec.structs.replace(_with_masked_report(plan, contracts), waves=waves))


def masked_command(command: Command, contract: Contract) -> Command:
    """A command as people may see it."""
    compensation = command.compensation
    if compensation is not None:  # an argument may be a field of the effect, and is named by its path then
        arguments = {
            name: masked(contract, name, value) if name.startswith("/") else value
            for name, value in compensation.arguments.items()
        }
        compensation = msgspec.structs.replace(compensation, arguments=arguments)
    changes = [masked_change(change, contract) for change in command.changes]
    return msgspec.structs.replace(command, changes=changes, compensation=compensation)


def masked_change(change: Change, contract: Contract) -> Change:
    """A change as people may see it."""
    return msgspec.structs.replace(
        change,
        value=masked(contract, change.path, change.value),
        expect=masked(contract, change.path, change.expect),
    )


def _with_masked_report(plan: Plan, contracts: ContractSet) -> Plan:
    return msgspec.structs.replace(
        plan,
        conflicts=[_masked_conflict(item, contracts.for_resource(item.resource)) for item in plan.conflicts],
        kept=[_masked_kept(item, contracts.for_resource(item.resource)) for item in plan.kept],
    )


def _masked_conflict(conflict: PlannedConflict, contract: Contract) -> PlannedConflict:
    return msgspec.structs.replace(
        conflict,
        before=masked(contract, conflict.path, conflict.before),
        after=masked(contract, conflict.path, conflict.after),
        actual=masked(contract, conflict.path, conflict.actual),
    )


def _masked_kept(kept: Kept, contract: Contract) -> Kept:
    return msgspec.structs.replace(kept, value=masked(contract, kept.path, kept.value))
