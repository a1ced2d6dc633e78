"""The smallest command that puts drift right, as far as the contract lets us."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.command import corrective
from reconciler.contracts.model import Contract
from reconciler.records import Change, Command, CommandAction, FieldDrift, Observation
from reconciler.values.json_value import ABSENT


def correction(
    resource: str,
    changes: Sequence[FieldDrift],
    observation: Observation,
    contract: Contract,
    drift_id: str | None = None,
) -> Command | None:
    """The command for the differences that the contract wants corrected, or None where there are none."""
    wanted = [change for change in changes if change.policy == "correct"]
    if not wanted:
        return None
    action: CommandAction = "patch"
    version = None
    if wanted[0].path == "":
        action = "create" if wanted[0].actual is ABSENT else "delete"
        version = observation.version if action == "delete" else None
    return corrective(
        resource,
        action,
        [
            Change(path=change.path, op="unset", expect=change.actual)
            if change.expected is ABSENT
            else Change(path=change.path, op="set", value=change.expected, expect=change.actual)
            for change in wanted
        ],
        reason=_reason(action, len(wanted)),
        contract=f"{contract.name}@{contract.version}",
        drift_id=drift_id,
        expect_version=version,
    )


def _reason(action: CommandAction, count: int) -> str:
    if action == "create":
        return "The record is gone, though no workflow took it away."
    if action == "delete":
        return "The record is there, though a workflow took it away."
    return f"{count} field{'' if count == 1 else 's'} no longer hold what the workflows wrote."
