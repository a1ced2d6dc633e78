"""`reconciler rollback`: ask for a rollback, see its plan, approve it, decide its conflicts, and watch it go."""

from __future__ import annotations

import getpass
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec

from reconciler.json_form import to_json
from reconciler.plan.request import request_from_json
from reconciler.records import (
    Actor,
    Approval,
    RequestVerb,
    Resolution,
    RollbackEvent,
    RollbackRequest,
    RollbackStatus,
    Selector,
    StepConflict,
)
from reconciler.values.errors import InputError
from reconciler.values.instant import format_instant, parse_instant
from reconciler.values.json_value import ABSENT, Absent, Json, canonical, parse
from streams.cli.offline import located, read_json
from streams.cli.output import as_json, print_json_lines, print_table
from streams.codec import codec_of
from streams.rollbacks import Rollbacks, plan_of
from streams.settings import load_settings

F = TypeVar("F", bound=Callable[..., Any])

WAIT_S: Final = 30.0

EXIT_CODES: Final[dict[RollbackStatus, int]] = {
    "completed": 0,
    "nothing_to_do": 0,
    "rejected": 3,
    "partial": 4,
    "halted": 5,
    "cancelled": 6,
    "needs_approval": 7,
}
"""What `watch --until-done` exits with, by where the rollback stands. In mode `plan` a plan is the end, and 0."""
EXIT_TIMEOUT: Final = 8
_WAITS_FOR_PEOPLE: Final = ("executable", "needs_approval", "halted")
_SHOWN_VALUE_CHARACTERS: Final = 60

_bootstrap = click.option("--bootstrap-servers", help="Kafka brokers, host:port, separated by commas.")
_id = click.argument("rollback_id")


def _speaking(command: F) -> F:
    """What everybody who says something to a rollback says."""
    options = [
        click.option("--by", default=getpass.getuser, show_default="you", help="Who says it."),
        click.option("--role", "roles", multiple=True, help="A role in which they say it; may be given again."),
        click.option("--reason", default="", help="Why; it is kept."),
        click.option(
            "--wait", "wait_s", default=WAIT_S, show_default=True, help="Seconds to wait for the reaction; 0 for none."
        ),
        _bootstrap,
        as_json,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _selecting(command: F) -> F:
    """What is to be undone."""
    file = click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True)
    options = [
        click.option("--file", "request_file", type=file, help="The whole request, one JSON object; `-` reads it."),
        click.option("--id", "rollback_id", help="The rollback's id; otherwise one is made."),
        click.option("--run", "run_id", help="Undo this run."),
        click.option("--after-step", help="Of the run, only what came after this step."),
        click.option("--operation", "operations", multiple=True, help="Undo this operation; may be given again."),
        click.option("--workflow", "workflow_id", help="Undo what this workflow did, within --from and --to."),
        click.option("--actor", help="Undo what this actor did, within --from and --to."),
        click.option("--system", help="Undo what was done in this system, within --from and --to."),
        click.option("--resource", help="Put this resource back to how it was at --to."),
        click.option("--from", "from_at", help="ISO 8601 instant: only what happened then or later."),
        click.option("--to", "to_at", help="ISO 8601 instant: only what happened before."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def rollback() -> None:
    """Undo runs, steps or a time window across systems: plan, approve, watch, decide."""


# -- asking


@rollback.command()
@_selecting
@click.option(
    "--execute", is_flag=True, help="Carry the plan out as soon as the rules allow it; otherwise it is only planned."
)
@_speaking
def request(execute: bool, **given: Any) -> None:
    """Ask for a rollback. Prints its id."""
    asked = _request(given, "execute" if execute else "plan")
    answer = _say(given, asked)
    if given["is_json"]:
        print_json_lines([_row(answer) if answer is not None else {"rollback_id": asked.rollback_id}])
    else:
        click.echo(asked.rollback_id)
        click.echo(f"`reconciler rollback watch {asked.rollback_id}` shows what becomes of it.", err=True)


@rollback.command()
@_selecting
@click.option("--timeout", "timeout_s", default=600.0, show_default=True, help="Seconds to wait for the plan.")
@_speaking
def plan(timeout_s: float, **given: Any) -> None:
    """Ask for a plan, wait for it, and show it. Exits with 3 where the rules reject it."""
    asked = _request(given, "plan")
    _say(given, asked)
    last = _until(_rollbacks(given["bootstrap_servers"]), asked.rollback_id, timeout_s, lambda event: None)
    _show(given["bootstrap_servers"], asked.rollback_id, given["is_json"])
    sys.exit(EXIT_CODES["rejected"] if last is not None and last.status == "rejected" else _exit_code(last))


def _request(given: dict[str, Any], mode: Any) -> RollbackRequest:
    selector: dict[str, Any] = {
        name: given[name] for name in ("run_id", "after_step", "workflow_id", "actor", "system", "resource")
    } | {"operations": list(given["operations"]) or None}
    instants: dict[str, Any] = {name: given[name] for name in ("from_at", "to_at")}
    is_selecting = any(value is not None for value in (*selector.values(), *instants.values()))
    if given["request_file"] is not None:
        if is_selecting:
            raise InputError("--file says all that is to be undone; leave the other options about it out")
        return _of_file(given, mode)
    if not is_selecting:
        raise InputError("say what to undo, by --run, --operation, --workflow, --actor, --system, --resource or --file")
    selector |= {name: _instant(name, value) for name, value in instants.items()}
    select = Selector(**selector)
    return _spoken(given, given["rollback_id"] or f"rb-{secrets.token_hex(4)}", "request", select=select, mode=mode)


def _of_file(given: dict[str, Any], mode: str) -> RollbackRequest:
    file: Path = given["request_file"]
    data = read_json(file, RollbackRequest)
    if isinstance(data, dict):
        data = {"rollback_id": given["rollback_id"] or f"rb-{secrets.token_hex(4)}", **data}
    asked = located(file, None, request_from_json, data)
    own = _spoken(given, asked.rollback_id, "request")
    return msgspec.structs.replace(
        asked,
        rollback_id=given["rollback_id"] or asked.rollback_id,
        mode="execute" if mode == "execute" else asked.mode,
        requested_by=asked.requested_by or own.requested_by,
        roles=asked.roles or own.roles,
        reason=asked.reason or own.reason,
        requested_at=asked.requested_at or own.requested_at,
        traceparent=asked.traceparent or own.traceparent,
    )


def _instant(name: str, text: str | None) -> int | None:
    try:
        return None if text is None else parse_instant(text)
    except InputError as error:
        raise InputError(f"--{name.removesuffix('_at')}: {error.message}") from None


# -- seeing


@rollback.command()
@_id
@_bootstrap
@as_json
def show(rollback_id: str, bootstrap_servers: str | None, is_json: bool) -> None:
    """Show how a rollback stands, its plan, what must be decided or approved, and its story."""
    _show(bootstrap_servers, rollback_id, is_json)


@rollback.command("list")
@click.option("--open", "is_open", is_flag=True, help="Only those in which something can still happen.")
@_bootstrap
@as_json
def list_(is_open: bool, bootstrap_servers: str | None, is_json: bool) -> None:
    """List the rollbacks, the newest last."""
    last = {event.rollback_id: event for event in _rollbacks(bootstrap_servers).events()}
    rows = [event for event in last.values() if not (is_open and _is_over(event))]
    if is_json:
        print_json_lines(map(_row, rows))
        return
    print_table(
        ("ROLLBACK", "STATUS", "MODE", "SINCE", "BY", "WHAT"),
        [
            (
                event.rollback_id,
                event.status,
                event.mode,
                format_instant(event.occurred_at),
                "" if event.requested_by is None else event.requested_by.id,
                _selection(event),
            )
            for event in rows
        ],
    )


@rollback.command()
@_id
@click.option("--until-done", is_flag=True, help="Return when it is over or waits for people; the exit code says how.")
@click.option(
    "--timeout", "timeout_s", default=0.0, help="Seconds after which to give up, with exit code 8; 0 for never."
)
@_bootstrap
@as_json
def watch(rollback_id: str, until_done: bool, timeout_s: float, bootstrap_servers: str | None, is_json: bool) -> None:
    """Show each change of a rollback as it happens.

    With --until-done the exit code is 0 for completed, for nothing to do, and for a plan that was all that was asked for; 3
    rejected, 4 partial, 5 halted, 6 cancelled, 7 waiting for approval, 8 for a timeout.
    """
    rollbacks = _rollbacks(bootstrap_servers)

    def tell(event: RollbackEvent) -> None:
        if is_json:
            print_json_lines([_row(event)])
        else:
            click.echo(_line(event))

    last = _until(rollbacks, rollback_id, timeout_s, tell, is_endless=not until_done)
    if last is not None and not is_json and last.story:
        click.echo(f"\n{last.story}")
    sys.exit(_exit_code(last))


def _until(
    rollbacks: Rollbacks,
    rollback_id: str,
    timeout_s: float,
    tell: Callable[[RollbackEvent], None],
    *,
    is_endless: bool = False,
) -> RollbackEvent | None:
    """The event at which a rollback came to rest; None where it didn't in time."""
    end = time.monotonic() + timeout_s if timeout_s else float("inf")
    last: RollbackEvent | None = None
    for event in rollbacks.follow(rollback_id):
        if event is not None:
            last = event
            tell(event)
        elif time.monotonic() > end:
            return None
        elif last is not None and not is_endless and _is_at_rest(last):
            return last
    return last


def _is_at_rest(event: RollbackEvent) -> bool:
    """Whether nothing more happens by itself. One that could be carried out at once goes on in the same moment."""
    if _is_over(event):
        return True
    if event.status == "executable":
        return event.mode == "plan"
    return event.status in _WAITS_FOR_PEOPLE


def _is_over(event: RollbackEvent) -> bool:
    return event.status in ("completed", "partial", "rejected", "cancelled", "nothing_to_do")


def _exit_code(last: RollbackEvent | None) -> int:
    if last is None:
        return EXIT_TIMEOUT
    if last.mode == "plan" and last.status in ("executable", "needs_approval"):
        return 0
    return EXIT_CODES.get(last.status, 0)


# -- deciding


@rollback.command()
@_id
@click.option(
    "--plan", "plan_hash", required=True, help="The hash of the plan that you read, or its first 8 characters."
)
@click.option("--execute", is_flag=True, help="Carry it out as well, where it was only planned so far.")
@_speaking
def approve(rollback_id: str, plan_hash: str, execute: bool, **given: Any) -> None:
    """Approve the plan that you read. Nobody approves what he asked for himself."""
    whole = _whole_hash(_events(given["bootstrap_servers"], rollback_id), plan_hash)
    by = Actor(id=given["by"], kind="user")
    said = _spoken(
        given,
        rollback_id,
        "approve",
        plan_hash=whole,
        approvals=[Approval(by=by, roles=list(given["roles"]), plan_hash=whole)],
        mode="execute" if execute else "plan",
    )
    _say_and_tell(given, said)


@rollback.command()
@_id
@_speaking
def cancel(rollback_id: str, **given: Any) -> None:
    """Call a rollback off: nothing more is sent. What was done stays done."""
    _events(given["bootstrap_servers"], rollback_id)
    _say_and_tell(given, _spoken(given, rollback_id, "cancel"))


@rollback.command()
@_id
@click.option("--plan", "plan_hash", help="The hash of the plan that you read, or its first 8 characters.")
@click.option("--execute", is_flag=True, help="Carry it out as well, where it was only planned so far.")
@_speaking
def resume(rollback_id: str, plan_hash: str | None, execute: bool, **given: Any) -> None:
    """Let a halted rollback look anew, plan what is left, and go on; or carry out what was only planned."""
    events = _events(given["bootstrap_servers"], rollback_id)
    whole = None if plan_hash is None else _whole_hash(events, plan_hash)
    mode = "execute" if execute else "plan"
    _say_and_tell(given, _spoken(given, rollback_id, "resume", plan_hash=whole, mode=mode))


@rollback.command()
@_id
@click.option(
    "--take", type=click.Choice(["keep", "force", "value"]), help="Keep what is there, force the undo, or set a value."
)
@click.option("--value", help="With --take value: the JSON value.")
@click.option("--resource", help="Whose conflict; otherwise all that are open.")
@click.option("--path", help="Which field of it; otherwise all that are open.")
@click.option("--execute", is_flag=True, help="Carry it out as well, where it was only planned so far.")
@_speaking
def resolve(
    rollback_id: str,
    take: Any,
    value: str | None,
    resource: str | None,
    path: str | None,
    execute: bool,
    **given: Any,
) -> None:
    """Decide conflicts. Without --take they are listed. A decision counts on what the field holds now, and on nothing else."""
    events = _events(given["bootstrap_servers"], rollback_id)
    open_ = _rollbacks(given["bootstrap_servers"]).conflicts(rollback_id)
    chosen = [
        (name, conflict)
        for name, conflicts in open_.items()
        for conflict in conflicts
        if resource in (None, name) and path in (None, conflict.path)
    ]
    if take is None:
        _list_conflicts(events, chosen, given["is_json"])
        return
    if not chosen:
        raise InputError(
            f"no such conflict of the rollback {rollback_id} is open; `reconciler rollback resolve {rollback_id}` lists them"
        )
    if (value is None) == (take == "value"):
        raise InputError("--value goes with --take value, and with nothing else")
    wanted = ABSENT if value is None else _json_of(value)
    resolutions = [
        Resolution(resource=name, path=conflict.path, take=take, value=wanted, seen=conflict.actual)
        for name, conflict in chosen
    ]
    mode = "execute" if execute else "plan"
    said = _spoken(given, rollback_id, "resolve", resolutions=resolutions, plan_hash=events[-1].plan_hash, mode=mode)
    _say_and_tell(given, said)


def _json_of(text: str) -> Json:
    try:
        return parse(text)
    except InputError as error:
        raise InputError(f"--value {error.message}; a text needs its quotes, as in --value '\"new\"'") from None


def _list_conflicts(events: Sequence[RollbackEvent], chosen: Sequence[tuple[str, StepConflict]], is_json: bool) -> None:
    """The open conflicts, with what the plan shows of their values: there the contracts' sensitive fields are masked."""
    plan = plan_of(events) or {}
    shown = {(item["resource"], item["path"]): item for item in plan.get("conflicts", ())}
    rows = [shown.get((name, conflict.path), {"resource": name, "path": conflict.path}) for name, conflict in chosen]
    if is_json:
        print_json_lines(rows)
        return
    print_table(
        ("RESOURCE", "FIELD", "THERE NOW", "THE UNDO WANTS"),
        [
            (
                row["resource"],
                row["path"] or "the record",
                _value(row.get("actual", ABSENT)),
                _value(row.get("after", ABSENT)),
            )
            for row in rows
        ],
    )


# -- saying


def _spoken(given: dict[str, Any], rollback_id: str, verb: RequestVerb, **fields: Any) -> RollbackRequest:
    traceparent = None
    if verb == "request":
        from reconciler.sdk.tracing import new_traceparent  # noqa: PLC0415  the SDK is slow to load

        traceparent = new_traceparent()
    return RollbackRequest(
        rollback_id=rollback_id,
        verb=verb,
        request_id=secrets.token_hex(8),
        reason=given["reason"],
        requested_by=Actor(id=given["by"], kind="user"),
        roles=list(given["roles"]),
        requested_at=time.time_ns() // 1_000,
        traceparent=traceparent,
        **fields,
    )


def _say(given: dict[str, Any], said: RollbackRequest) -> RollbackEvent | None:
    answer = _rollbacks(given["bootstrap_servers"]).say(said, given["wait_s"])
    if answer is None and given["wait_s"]:
        click.echo("It was sent, and no worker has answered yet; see whether one runs.", err=True)
    return answer


def _say_and_tell(given: dict[str, Any], said: RollbackRequest) -> None:
    answer = _say(given, said)
    if answer is None:
        return
    if given["is_json"]:
        print_json_lines([_row(answer)])
    else:
        click.echo(_line(answer))


def _rollbacks(bootstrap_servers: str | None) -> Rollbacks:
    settings = load_settings(**({} if bootstrap_servers is None else {"bootstrap_servers": bootstrap_servers}))
    return Rollbacks(settings, codec_of(settings))


def _events(bootstrap_servers: str | None, rollback_id: str) -> list[RollbackEvent]:
    events = _rollbacks(bootstrap_servers).events(rollback_id)
    if not events:
        raise InputError(f"no rollback {rollback_id} is known; `reconciler rollback list` names those that are")
    return events


def _whole_hash(events: Sequence[RollbackEvent], given: str) -> str:
    known = events[-1].plan_hash
    if known is None:
        raise InputError(f"the rollback {events[-1].rollback_id} has no plan yet; wait for it, and read it")
    if len(given) < 8 or not known.startswith(given):
        raise InputError(
            f"the plan that holds now is {known}, and not {given}; read it with `reconciler rollback show "
            f"{events[-1].rollback_id}`, and name it by at least 8 characters"
        )
    return known


# -- showing


def _show(bootstrap_servers: str | None, rollback_id: str, is_json: bool) -> None:
    events = _events(bootstrap_servers, rollback_id)
    last, made = events[-1], plan_of(events)
    if is_json:
        print_json_lines([{**_row(last), "story": last.story, "plan": made}])
        return
    click.echo(_line(last))
    if last.error:
        click.echo(last.error)
    click.echo(f"\n{last.story}")
    if made is not None:
        _show_plan(last, made)
    if last.complete_up_to:
        _section(
            "The selection is complete up to",
            ("PARTITION OF workflow.actions", "OFFSET"),
            sorted((int(partition), offset) for partition, offset in last.complete_up_to.items()),
        )


def _show_plan(last: RollbackEvent, made: dict[str, Json]) -> None:
    click.echo(f"\nPlan {last.plan_hash}")
    commands = [(wave, command) for wave, commands in enumerate(made["waves"], 1) for command in commands]
    _section("Operations undone", ("OPERATION",), [(name,) for name in made["operations"]])
    _section(
        "What is done",
        ("WAVE", "RECORD", "", "FIELDS"),
        [(wave, each["resource"], each["action"], _changed(each)) for wave, each in commands],
    )
    _section(
        "Conflicts",
        ("RECORD", "FIELD", "THERE NOW", "THE UNDO WANTS", "DECIDED"),
        [
            (
                each["resource"],
                each["path"] or "the record",
                _value(each.get("actual", ABSENT)),
                _value(each.get("after", ABSENT)),
                each["resolution"],
            )
            for each in made["conflicts"]
        ],
    )
    _section(
        "Kept", ("RECORD", "FIELD", "OWNER"), [(each["resource"], each["path"], each["owner"]) for each in made["kept"]]
    )
    _section(
        "Blocked",
        ("OPERATION", "RULE", "WHY"),
        [(each["operation_id"], each["rule"], each["reason"]) for each in made["blocked"]],
    )
    if last.approvals_needed:
        _section(
            "Approvals needed",
            ("COUNT", "ROLES"),
            [(each["count"], ", ".join(each.get("roles", ())) or "anybody else") for each in made["approvals_needed"]],
        )


def _section(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    if rows:
        click.echo(f"\n{title}")
        print_table(header, rows)


def _changed(command: dict[str, Json]) -> str:
    return ", ".join(each["path"] or "the record" for each in command.get("changes", ()))


def _value(value: Json | Absent) -> str:
    text = "nothing" if value is ABSENT else canonical(value).decode()
    return text if len(text) <= _SHOWN_VALUE_CHARACTERS else text[: _SHOWN_VALUE_CHARACTERS - 1] + "…"


def _selection(event: RollbackEvent) -> str:
    if event.select is None:
        return ""
    return ", ".join(
        f"{name} {_word(value)}" for name, value in to_json(event.select).items() if value not in (None, [])
    )


def _word(value: Json) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _line(event: RollbackEvent) -> str:
    """An event in one line."""
    wave = "" if event.wave is None else f", wave {event.wave} of {event.waves}"
    counts = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in event.counts.items() if number)
    approvals = f", {event.approvals_needed} approvals needed" if event.approvals_needed else ""
    return f"{format_instant(event.occurred_at)}  {event.status}{wave}{approvals}{f'  ({counts})' if counts else ''}"


def _row(event: RollbackEvent) -> dict[str, Json]:
    """An event for programs, without the plan and the story, which `show` has."""
    row = to_json(event)
    for name in ("plan", "story"):
        row.pop(name, None)
    return row
