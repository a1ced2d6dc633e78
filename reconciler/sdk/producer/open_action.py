"""One action between its begin and its end: what the workflow's step tells about it, and the events that follow.

No clock and no I/O: the producers, sync and async, drive it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TypedDict

import msgspec

from reconciler.json_form import action_digest, complete_action
from reconciler.records import Action, Actor, Compensation, Observation, Operation, Stage
from reconciler.sdk.errors import ObservationError
from reconciler.sdk.producer.changes import Written, changes_between, members, own_copy, tree_of, values_before
from reconciler.sdk.tracing import current_origin, traceparent_for
from reconciler.values.errors import InputError
from reconciler.values.instant import Instant
from reconciler.values.json_value import ABSENT, Absent, Json
from reconciler.values.pointer import tokens_of
from reconciler.values.resource_key import parse_resource_key


class ActionDetails(TypedDict, total=False):
    """What may be said about an action besides resource, operation, run and step; the fields of `reconciler.Action`."""

    operation_id: str
    workflow_id: str
    workflow_version: str
    sequence: int
    actor: Actor | None
    rule: str
    depends_on: list[str]
    compensation: Compensation | None
    traceparent: str | None
    origin: str | None


class OpenAction:
    """An action that has begun. Made by `Producer.action` and `AsyncProducer.action`; belongs to one thread or task.

    Say what was written by `set` and `unset`, or give the state afterwards by `after` and let the difference be found.
    Saying it is better: a difference also claims fields that the target filled in itself.
    """

    def __init__(
        self,
        *,
        resource: str,
        operation: Operation,
        run_id: str,
        step_id: str,
        began_at: Instant,
        details: ActionDetails,
    ) -> None:
        parse_resource_key(resource)
        for name, value in (("run_id", run_id), ("step_id", step_id)):
            if not value:
                raise InputError("must not be empty", field=name)
        known = {
            **details,
            "traceparent": traceparent_for(details.get("traceparent")),
            "origin": details.get("origin") or current_origin.get(),
        }
        draft = Action(
            stage="initiated",
            run_id=run_id,
            step_id=step_id,
            occurred_at=began_at,
            resource=resource,
            operation=operation,
            **known,  # type: ignore[arg-type]  # TypedDict's keys are those of the record
        )
        # Through the same gate as a record from outside, so that a wrong type fails here and not at the encoder.
        try:
            self._draft = msgspec.convert(msgspec.to_builtins(draft), Action)
        except (msgspec.ValidationError, TypeError) as error:
            raise InputError(f"the action can't be told: {error}") from None
        self._before: dict[str, Json] | None = None
        self._version_before: str | None = None
        self._version_after: str | None = None
        self._writes: dict[str, Json | Absent] = {}
        self._after: dict[str, Json] | None = None

    @property
    def resource(self) -> str:
        """The resource's key."""
        return self._draft.resource

    @property
    def run_id(self) -> str:
        """The run that the action belongs to."""
        return self._draft.run_id

    @property
    def operation_id(self) -> str:
        """The operation's id, as later actions name it in ``depends_on``."""
        return self._draft.operation_id or f"{self._draft.run_id}/{self._draft.step_id}"

    @property
    def traceparent(self) -> str:
        """The trace that the action is a part of: pass it on to the target."""
        assert self._draft.traceparent is not None
        return self._draft.traceparent

    def before(self, fields: Mapping[str, Json] | None, *, version: str | None = None) -> None:
        """The state before the action: plain nested JSON, paths, or both; None where it is not known.

        It counts as whole: a path that is written and not found here was absent. Raises InputError; for a ``create`` too,
        before which there was nothing.
        """
        if self._draft.operation == "create":
            raise InputError(
                "a create has no state before it; a resource that was there before is updated", field="before"
            )
        self._before = None if fields is None else tree_of(fields)
        self._version_before = version

    def set(self, path: str, value: Json) -> None:
        """The action wrote this value at this path, whole. Raises InputError for a path or value that can't be."""
        self._check_writable()
        tokens_of(path)
        self._writes[path] = own_copy(value)

    def unset(self, path: str) -> None:
        """The action took the path away, with all below it. Raises InputError."""
        self._check_writable()
        tokens_of(path)
        self._writes[path] = ABSENT

    def after(self, fields: Mapping[str, Json], *, version: str | None = None) -> None:
        """The whole state after the action, as for `before`: what differs is what the action wrote.

        Explicit `set` and `unset` go before it. Raises InputError where the state before isn't known: nobody could tell
        then which fields are the action's own.
        """
        self._check_writable()
        if self._draft.operation == "update" and self._before is None:
            raise InputError(
                "the state before is not known, so the change can't be found: use set() and unset()", field="after"
            )
        self._after = tree_of(fields)
        self._version_after = version

    def version_after(self, version: str) -> None:
        """The version token that the target gave for the state after the action."""
        self._version_after = version

    def saw_before(self, seen: Observation, *, required: bool) -> None:
        """Takes an observation as the state before. Raises ObservationError where it tells nothing and ``required``,
        InputError where a resource that is to be created exists."""
        if seen.exists is None:
            if required:
                raise ObservationError(_unobserved(self.resource, seen, "so the action must not begin"))
            return
        self._version_before = seen.version
        if self._draft.operation == "create":
            if seen.exists:
                raise InputError(f"{self.resource} exists already, so it can't be created: use the operation 'update'")
        elif seen.exists:
            self._before = seen.fields
        elif self._draft.operation == "update":
            self._before = {}

    def saw_after(self, seen: Observation) -> None:
        """Takes an observation as the state after. Raises ObservationError where it doesn't tell what was written."""
        self._version_after = seen.version
        if self._writes or self._draft.operation in ("delete", "effect"):
            return
        if not seen.exists:
            raise ObservationError(_unobserved(self.resource, seen, "so what the action wrote is not known"))
        self.after(seen.fields, version=seen.version)

    def event(self, stage: Stage, occurred_at: Instant) -> Action:
        """The event of a stage. Only ``succeeded`` tells what was written. Raises InputError for writes that contradict."""
        action = msgspec.structs.replace(self._draft, stage=stage, occurred_at=occurred_at)
        if stage == "succeeded":
            action = self._told(action)
        return _identified(action, self._draft.occurred_at)

    def _told(self, action: Action) -> Action:
        written = self._written()
        return msgspec.structs.replace(
            action,
            set=written.set,
            unset=written.unset,
            before=self._said_before(written),
            version_before=self._version_before,
            version_after=self._version_after,
        )

    def _written(self) -> Written:
        if self._writes:
            set_ = {path: value for path, value in self._writes.items() if value is not ABSENT}
            return Written(set_, [path for path, value in self._writes.items() if value is ABSENT])
        if self._after is None:
            return Written({}, [])
        if self._draft.operation == "create":
            return Written(members(self._after), [])
        assert self._before is not None
        return changes_between(self._before, self._after)

    def _said_before(self, written: Written) -> dict[str, Json] | None:
        if self._before is None or self._draft.operation in ("create", "effect"):
            return None
        if self._draft.operation == "delete":
            return members(self._before)
        return values_before(self._before, sorted(map(tokens_of, [*written.set, *written.unset])))

    def _check_writable(self) -> None:
        if self._draft.operation in ("delete", "effect"):
            raise InputError(
                f"the operation {self._draft.operation!r} writes no fields; use 'update'", field="operation"
            )


def _identified(action: Action, began_at: Instant) -> Action:
    """The action with its ids. The instant of the attempt's begin goes into `action_id`: a retry whose content is the same
    is another event, not the same event twice, and `initiated` of a second attempt must count."""
    completed = complete_action(action)
    seed = f"{action_digest(completed)}@{began_at}"
    action_id = hashlib.blake2b(seed.encode(), digest_size=16).hexdigest()
    return msgspec.structs.replace(completed, action_id=action_id)


def _unobserved(resource: str, seen: Observation, consequence: str) -> str:
    why = "it isn't there" if seen.exists is False else seen.reason or "no reason given"
    return f"{resource} could not be observed ({why}), {consequence}"
