"""Making commands: every one gets an id that is a digest of all that makes it what it is, so a repeated one is recognised."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from reconciler.records import Change, Command, CommandAction, Compensation
from reconciler.values.json_value import Json, canonical


def command_id(*inputs: Json) -> str:
    """The id of a command: a digest (BLAKE2b, 16 bytes, hex) of all that makes it what it is."""
    return hashlib.blake2b(canonical(list(inputs)), digest_size=16).hexdigest()


def corrective(
    resource: str,
    action: CommandAction,
    changes: list[Change],
    *,
    reason: str,
    contract: str,
    rollback_id: str | None = None,
    drift_id: str | None = None,
    expect_version: str | None = None,
    compensation: Compensation | None = None,
    compensated: str | None = None,
    audit: Literal["keep", "archive"] = "keep",
) -> Command:
    """A command with its id. ``compensated``: the action whose effect a compensation makes good, so that two executions of
    one effect give two commands."""
    identity = command_id(
        rollback_id or drift_id or "",
        resource,
        action,
        [msgspec.to_builtins(change) for change in changes],
        None if compensation is None else msgspec.to_builtins(compensation),
        *([] if compensated is None else [compensated]),
    )
    return Command(
        command_id=identity,
        resource=resource,
        action=action,
        changes=changes,
        expect_exists=action != "create",
        expect_version=expect_version,
        compensation=compensation,
        reason=reason,
        rollback_id=rollback_id,
        drift_id=drift_id,
        contract=contract,
        audit="archive" if audit == "archive" else None,
    )
