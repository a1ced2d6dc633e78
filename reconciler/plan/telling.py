"""The story of a plan, from its facts alone: the same facts give the same text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from reconciler.plan.conflict_wording import decided, found
from reconciler.plan.estate import Estate
from reconciler.plan.model import ApprovalNeeded, Blocked, BlockRule, Kept, Plan, PlannedConflict
from reconciler.plan.story import LINES_TOLD, Section, Story, lines, section, story
from reconciler.plan.wording import (
    Wording,
    count,
    ended,
    listed,
    moment,
    one_line,
    sentence,
    span,
    spoken,
    upper_first,
    who,
)
from reconciler.records import Action, Change, Command, RollbackRequest, Selector
from reconciler.values.json_value import ABSENT
from reconciler.values.resource_key import parse_resource_key

_FIELDS_TOLD: Final = 6  # of one record, in one line
_RECORDS_TOLD: Final = 3  # by name, of many to which the same happens
_LOOKED_AT: Final = 1_000  # records that are compared for what they have in common
_STEPS_TOLD: Final = 5  # that are blocked for one and the same reason

_REMEDIES: Final[dict[BlockRule, str]] = {
    "unobserved": "Let the records that couldn't be looked at be read again, then plan again.",
    "expired": "Put right by hand what is too old to be undone.",
    "unknown_pre_state": "Put right by hand what nobody recorded the earlier state of.",
    "irreversible": "Make good by hand what can't be taken back, or name a compensation for it and plan again.",
    "dependants": "Undo as well what stands on the steps that can't be undone alone, or leave both as they are.",
    "outcome_unknown": "Find out how the unfinished steps ended, then plan again.",
    "immutable": "Put right by hand, in the system itself, what the rules don't let anybody change from outside.",
    "unknown_operation": "Check the names of the steps that nobody has heard of.",
}


def tell_plan(
    plan: Plan, request: RollbackRequest, estate: Estate, archived: AbstractSet[str] = frozenset(), cascaded: int = 0
) -> Story:
    """The story of a plan. ``archived``: the resources that its commands archive instead of deleting them; ``cascaded``: how
    many of the operations weren't asked for and are undone because others are."""
    return _Teller(plan, request, estate, archived, cascaded).story()


class _Teller:
    def __init__(
        self, plan: Plan, request: RollbackRequest, estate: Estate, archived: AbstractSet[str], cascaded: int
    ) -> None:
        self._plan = plan
        self._request = request
        self._estate = estate
        self._archived = archived
        self._cascaded = cascaded
        self._words = Wording(estate.contracts)
        commands = [command for wave in plan.waves for command in wave]
        self._changes = [command for command in commands if command.action != "compensate"]
        self._effects = [command for command in commands if command.action == "compensate"]
        self._open = [item for item in plan.conflicts if item.resolution == "manual"]

    def story(self) -> Story:
        return story(self._opening(), self._sections(), self._counts())

    def _counts(self) -> dict[str, int]:
        plan = self._plan
        return {
            "steps": len(plan.operations),
            "records": len(self._changes),
            "systems": len({parse_resource_key(item.resource).system for item in self._changes}),
            "effects": len(self._effects),
            "cascaded": self._cascaded,
            "kept": len(plan.kept),
            "left": sum(item.resolution == "actual" for item in plan.conflicts),
            "decisions": len(self._open),
            "conflicts": len(plan.conflicts) - len(self._open),
            "blocked": len(plan.blocked),
            "unchanged": len(plan.unchanged),
        }

    # -- the opening

    def _opening(self) -> Iterator[str]:
        plan, counts = self._plan, self._counts()
        if plan.status == "rejected":
            yield "Nothing will be changed: a rule for these records forbids it."
            yield from dict.fromkeys(item.reason for item in plan.blocked if item.rule == "forbidden")
            return
        yield from promise(counts)
        yield from what_stands_apart(counts)
        if plan.status == "needs_approval":
            yield f"Nothing has been changed yet: {consent(plan.approvals_needed)} must agree first."
        elif plan.status == "executable":
            yield "Nothing has been changed yet."

    # -- the sections

    def _sections(self) -> Iterator[Section | None]:
        plan = self._plan
        yield lines("about", "What this is about", self._about())
        yield self._changed()
        yield section("effects", "What will be made good", self._effects, self._effect_line)
        yield section("decisions", "What somebody must decide", self._open, self._decision_line)
        settled = [item for item in plan.conflicts if item.resolution != "manual"]
        yield section("conflicts", "What others changed meanwhile", settled, lambda item: decided(self._words, item))
        yield self._kept()
        blocked: dict[str, list[Blocked]] = {}
        for refused in plan.blocked:
            if refused.rule != "forbidden":
                blocked.setdefault(refused.reason, []).append(refused)
        yield section("blocked", "What can't be undone", blocked.values(), self._blocked_line)
        yield lines("next", "What to do next", self._next_lines())
        yield lines("notes", "Worth knowing", self._notes())

    def _about(self) -> Iterator[str]:
        actions = [
            action
            for name in [*self._plan.operations, *(item.operation_id for item in self._plan.blocked)]
            if name in self._estate.operations
            for action in self._estate.operations[name].actions
        ]
        yield sentence(self._subject())
        if actions:
            doers = sorted({who(action) for action in actions})
            instants = [action.occurred_at for action in actions]
            yield f"It was done by {listed(doers[:3], len(doers))}, {span(min(instants), max(instants))}."
        asked = self._request.requested_by
        if asked is not None:
            yield f"{one_line(asked.id)} asked for it."
        if self._request.reason:
            yield f"The reason given: {ended(one_line(self._request.reason))}"

    def _subject(self) -> str:
        """What the request selects."""
        select = self._request.select
        if select is None:
            return "a rollback"
        window = _window(select)
        if select.run_id is not None:
            after = "" if select.after_step is None else f" after its step “{one_line(select.after_step)}”"
            return f"all that the run {one_line(select.run_id)} did{after}"
        if select.operations is not None:
            picked = len(dict.fromkeys(select.operations))
            return f"{count(picked, 'step that was', 'steps that were')} picked one by one"
        if select.workflow_id is not None:
            return f"all that the workflow {one_line(select.workflow_id)} did{window}"
        if select.actor is not None:
            return f"all that {one_line(select.actor)} did{window}"
        if select.system is not None:
            return f"all that was done in {one_line(select.system)}{window}"
        if select.resource is not None and select.to_at is not None:
            return f"{self._words.record(select.resource)}, as it was on {moment(select.to_at)}"
        return "a rollback"

    def _changed(self) -> Section | None:
        """A line for each record, or for several to which the same happens."""
        groups: dict[str, list[str]] = {}
        for command in self._changes[:_LOOKED_AT]:
            groups.setdefault(self._what_happens(command), []).append(command.resource)
        told = section("changes", "What will be changed", groups.items(), lambda item: self._together(item[1], item[0]))
        if told is None:
            return None
        covered = sum(len(resources) for resources in list(groups.values())[: len(told.lines)])
        return msgspec.structs.replace(told, more=len(self._changes) - covered)

    def _together(self, resources: Sequence[str], happening: str) -> str:
        """What happens to one record or several."""
        if len(resources) == 1:
            return f"{self._words.record(resources[0])} — {happening}."
        names = listed(self._names(resources), len(resources))
        return f"{upper_first(count(len(resources), 'record'))} ({names}) — {happening}."

    def _names(self, resources: Sequence[str]) -> list[str]:
        return [self._words.record(resource) for resource in resources[:_RECORDS_TOLD]]

    def _what_happens(self, command: Command) -> str:
        if command.action == "delete":
            return "removed, because only the undone work had made it"
        if command.action == "create":
            return "made again as it was before it was removed"
        if command.resource in self._archived:
            told = [
                f"{self._words.field(command.resource, change.path)}:"
                f" {self._words.value(command.resource, change.path, change.value)}"
                for change in command.changes[:_FIELDS_TOLD]
            ]
            return f"put away instead of removed ({'; '.join(told)})"
        told = [self._change(command.resource, change) for change in command.changes[:_FIELDS_TOLD]]
        more = len(command.changes) - len(told)
        if more:
            told.append(f"and {count(more, 'more field', 'more fields')}")
        return "; ".join(told)

    def _change(self, resource: str, change: Change) -> str:
        field = self._words.field(resource, change.path)
        value = self._words.value(resource, change.path, change.value)
        was = self._words.value(resource, change.path, change.expect)
        if self._words.is_hidden(resource, change.path, change.value) or self._words.is_hidden(
            resource, change.path, change.expect
        ):
            return f"{field}: {'taken out' if change.op == 'unset' else 'put back'} (what it holds isn't shown)"
        match change.op:
            case "set":
                return f"{field}: {value} instead of {was}"
            case "unset":
                return f"{field}: taken out (it held {was})"
            case "increment":
                step = change.value if isinstance(change.value, int | float) else 0
                return f"{field}: raised by {spoken(step)}" if step >= 0 else f"{field}: lowered by {spoken(-step)}"
            case "add":
                return f"{field}: {value} put back in"
            case "remove":
                return f"{field}: {value} taken out"

    def _effect_line(self, command: Command) -> str:
        name = "" if command.compensation is None else one_line(command.compensation.name)
        return f"{self._words.record(command.resource)} — “{name}” makes good what can't be taken back."

    def _decision_line(self, conflict: PlannedConflict) -> str:
        whole = ""
        if self._words.contract(conflict.resource).conflict_scope == "resource" and conflict.path:
            whole = " Until somebody decides, nothing in this record is changed."
        return f"{found(self._words, conflict.resource, conflict)}.{whole}"

    def _kept(self) -> Section | None:
        """A line for each record and writer; of very many, one for each writer."""
        title = "What stays, and for whose sake"
        by_record: dict[tuple[str, str], list[Kept]] = {}
        for item in self._plan.kept:
            by_record.setdefault((item.resource, item.owner), []).append(item)
        if len(by_record) <= LINES_TOLD:
            return section("kept", title, by_record.values(), self._kept_line)
        by_writer: dict[str, list[Kept]] = {}
        for item in self._plan.kept:
            by_writer.setdefault(self._writer(item), []).append(item)
        return section("kept", title, by_writer.items(), lambda told: self._kept_by_writer(*told))

    def _kept_line(self, items: list[Kept]) -> str:
        """What one writer keeps of one record."""
        resource, owner = items[0].resource, items[0].owner
        fields = [
            f"{self._words.field(resource, item.path)} "
            + ("(taken out)" if item.value is ABSENT else f"({self._words.value(resource, item.path, item.value)})")
            for item in items[:_FIELDS_TOLD]
        ]
        verb = "stays" if len(items) == 1 else "stay"
        return f"{self._words.record(resource)} — {listed(fields, len(items))} {verb}: {self._owner(resource, owner)}."

    def _kept_by_writer(self, writer: str, items: list[Kept]) -> str:
        """What one writer keeps of all records."""
        records = list(dict.fromkeys(item.resource for item in items))
        verb = "stays" if len(items) == 1 else "stay"
        what = f"{count(len(items), 'field')} of {count(len(records), 'record')}"
        return f"{upper_first(what)} ({listed(self._names(records), len(records))}) {verb}: {writer}."

    def _writer(self, item: Kept) -> str:
        action = None if item.owner == "external" else _last_action(self._estate, item.owner, item.resource)
        if action is None:
            return self._owner(item.resource, item.owner)
        return f"{who(action)} wrote there later"

    def _owner(self, resource: str, owner: str) -> str:
        if owner == "external":
            return "somebody changed it later, outside of the workflows"
        action = _last_action(self._estate, owner, resource)
        if action is None:
            return f"the later step {one_line(owner)} set it"
        return f"{who(action)} set it later, on {moment(action.occurred_at)}"

    def _blocked_line(self, items: list[Blocked]) -> str:
        """The steps that can't be undone for one and the same reason."""
        steps = [f"“{one_line(item.operation_id)}”" for item in items[:_STEPS_TOLD]]
        return f"{listed(steps, len(items))}: {items[0].reason}"

    def _next_lines(self) -> Iterator[str]:
        plan = self._plan
        if plan.status == "rejected":
            yield "Leave the work as it is, or select less: what the rule protects must not be part of it."
            return
        yield from consents(plan.approvals_needed)
        if self._open:
            yield (
                "Decide on what is listed for decision: keep what is there, undo it all the same, or give the value that"
                " should be there."
            )
        rules = dict.fromkeys(item.rule for item in plan.blocked)
        yield from (remedy for rule, remedy in _REMEDIES.items() if rule in rules)

    def _notes(self) -> Iterator[str]:
        already = len(self._plan.unchanged)
        if already and (self._changes or self._effects or self._open):
            verb = "already holds what it should" if already == 1 else "already hold what they should"
            yield f"{upper_first(count(already, 'field'))} {verb}, so nothing is done about {'it' if already == 1 else 'them'}."
        yield from self._plan.notes


def promise(counts: dict[str, int]) -> Iterator[str]:
    """What a plan will do, in sentences without names."""
    records, effects, steps = counts["records"], counts["effects"], count(counts["steps"], "step")
    if records:
        where = f" in {count(counts['systems'], 'system')}" if counts["systems"] > 1 else ""
        what = count(records, "record")
        yield f"{upper_first(what)}{where} will be put back as if {steps} of work had never happened."
    if effects:
        also = "Also, " if records else ""
        what = count(effects, "thing that can't be taken back is", "things that can't be taken back are")
        yield upper_first(f"{also}{what} made good in another way.")
    if counts.get("cascaded"):
        what = count(counts["cascaded"], "of these steps wasn't", "of these steps weren't")
        yield f"{upper_first(what)} asked for, but can't stay without the others."
    if records or effects:
        return
    if counts["decisions"]:
        yield "Nothing will be changed for now."
    elif counts["blocked"]:
        yield "Nothing will be changed."
    elif not counts["steps"]:
        yield "Nothing will be changed: no work was found that the request describes."
    elif counts["unchanged"]:
        yield "Nothing needs to be changed: everything already is as it should be."
    else:
        yield "Nothing needs to be changed."


def what_stands_apart(counts: dict[str, int]) -> Iterator[str]:
    """What is left out of a plan and why, in sentences without names."""
    yield from what_waits(counts)
    if counts["kept"]:
        what = count(counts["kept"], "field stays as it is", "fields stay as they are")
        yield f"{upper_first(what)}, because others wrote {_it(counts['kept'])} later."
    if counts["left"]:
        what = count(
            counts["left"], "change that others made meanwhile stays", "changes that others made meanwhile stay"
        )
        yield f"{upper_first(what)}."
    if counts["blocked"]:
        yield f"{upper_first(count(counts['blocked'], 'step'))} can't be undone."


def what_waits(counts: dict[str, int]) -> Iterator[str]:
    """What a person must decide, in a sentence without names."""
    if counts["decisions"]:
        what = count(counts["decisions"], "decision waits", "decisions wait")
        yield f"{upper_first(what)} for somebody, because others made changes meanwhile."


def consent(needed: Iterable[ApprovalNeeded]) -> str:
    """Who must agree, as the subject of a sentence."""
    return count(max((item.count for item in needed), default=1), "other person", "other people")


def consents(needed: Iterable[ApprovalNeeded]) -> Iterator[str]:
    """Each consent that is missing, as something to do."""
    told = dict.fromkeys((item.count, tuple(item.roles)) for item in needed)
    for number, roles in told:
        role = f" with the role {' or '.join(map(one_line, roles))}" if roles else ""
        yield f"Get the consent of {count(number, 'person', 'people')}{role}, not of the one who asked."


def _last_action(estate: Estate, operation_id: str, resource: str) -> Action | None:
    operation = estate.operations.get(operation_id)
    actions = [] if operation is None else [item for item in operation.actions if item.resource == resource]
    return actions[-1] if actions else None


def _window(select: Selector) -> str:
    if select.from_at is None and select.to_at is None:
        return ""
    if select.to_at is None:
        assert select.from_at is not None
        return f" from {moment(select.from_at)} on"
    if select.from_at is None:
        return f" before {moment(select.to_at)}"
    return f" from {moment(select.from_at)} to before {moment(select.to_at)}"


def _it(number: int) -> str:
    return "it" if number == 1 else "them"
