"""The story of a rollback at each change of its status: what was planned, how far it is, what is open, what to do next.

Pure: the same facts give the same text. The machine that drives the rollback keeps the plan's story (it is small, whatever
the plan's size) and gives it here with the numbers as they stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import msgspec

from reconciler.contracts.masking import shown_error
from reconciler.contracts.model import ContractSet
from reconciler.plan.conflict_wording import found
from reconciler.plan.model import ApprovalNeeded
from reconciler.plan.story import Section, SectionKey, Story, lines, section, story
from reconciler.plan.telling import consent, consents, promise, what_stands_apart, what_waits
from reconciler.plan.wording import Wording, count, ended, listed, moment, number_word, one_line, upper_first
from reconciler.records import Actor, Approval, Record, RollbackStatus, StepConflict
from reconciler.values.instant import Instant

OpenKind: TypeAlias = Literal[
    "conflict",  # somebody changed it after the plan was made: a person must decide
    "outdated",  # more would have to be done than the plan says: plan again
    "failed",  # its system refused the change for good
    "contradicted",  # the change was made, and something else is there now
    "unverified",  # the change was made, and nobody has seen yet that it holds
    "waiting",  # sent, and not answered yet
    "skipped",  # refused, and left out as the rules say
    "compensated",  # refused, and made good in another way as the rules say
    "late",  # the undone work did something more after it had been planned
]


class OpenStep(Record, frozen=True, kw_only=True):
    """A record (or an effect on one) that isn't done, and why."""

    resource: str
    kind: OpenKind
    conflicts: list[StepConflict] = msgspec.field(default_factory=list)
    error: str | None = None


class Progress(Record, frozen=True, kw_only=True):
    """How a rollback stands. Numbers count the plan's commands; records that need no command aren't among them."""

    status: RollbackStatus
    mode: Literal["plan", "execute"] = "plan"
    plan: Story | None = None
    """The story of the plan that holds now; None before there is one."""
    wave: int = 0
    """The wave at work, from 1."""
    waves: int = 0
    total: int = 0
    done: int = 0
    """Settled for good: carried out, or found to be so already."""
    verified: int = 0
    open: list[OpenStep] = msgspec.field(default_factory=list)
    """What isn't done: all of it, or the first of it, ..."""
    open_total: int = 0
    """... of so many (0: what is given is all)."""
    approvals: list[Approval] = msgspec.field(default_factory=list)
    approvals_needed: list[ApprovalNeeded] = msgspec.field(default_factory=list)
    by: Actor | None = None
    """Who cancelled or stopped it, or refused."""
    reason: str = ""
    """Why it was stopped, rejected or cancelled."""
    expires_at: Instant | None = None
    """When the time for consent is up."""


_NUMBERS: Final = (
    *(
        "steps",
        "records",
        "systems",
        "effects",
        "cascaded",
        "kept",
        "left",
        "decisions",
        "conflicts",
        "blocked",
        "unchanged",
    ),
)

_CHANGES: Final[dict[RollbackStatus, str]] = {
    "executing": "What is being changed",
    "verifying": "What was changed",
    "completed": "What was changed",
    "partial": "What was planned, but for what is listed as not done",
    "halted": "What was planned",
    "cancelled": "What was planned",
    "rejected": "What was planned",
}
_EFFECTS: Final[dict[RollbackStatus, str]] = {
    "executing": "What is being made good",
    "verifying": "What was made good",
    "completed": "What was made good",
    **dict.fromkeys(("partial", "halted", "cancelled", "rejected"), "What was to be made good"),
}
_OPEN: Final[dict[RollbackStatus, str]] = {
    "executing": "What is still open",
    "verifying": "What is still to be confirmed",
    "partial": "What was not done",
    "halted": "What must be settled first",
    "cancelled": "What was open when it was cancelled",
}


def tell_progress(progress: Progress, contracts: ContractSet) -> Story:
    """The story of a rollback as it stands."""
    return _Teller(progress, Wording(contracts)).story()


class _Teller:
    def __init__(self, progress: Progress, words: Wording) -> None:
        self._progress = progress
        self._words = words
        self._open = max(progress.open_total, len(progress.open))
        self._planned = {**dict.fromkeys(_NUMBERS, 0), **({} if progress.plan is None else progress.plan.counts)}

    def story(self) -> Story:
        progress = self._progress
        numbers = {"total": progress.total, "done": progress.done, "verified": progress.verified, "open": self._open}
        return story(self._opening(), self._sections(), {**self._planned, **numbers})

    # -- the opening

    def _opening(self) -> Iterator[str]:
        progress, counts = self._progress, self._planned
        match progress.status:
            case "gathering":
                yield from self._gathering()
            case "executable" | "needs_approval" | "nothing_to_do":
                yield from promise(counts)
                yield from what_stands_apart(counts)
                yield from self._before_start()
            case "rejected":
                yield from self._rejected()
            case "executing":
                part = f", part {progress.wave:,} of {progress.waves:,}" if progress.waves > 1 else ""
                yield f"The undo is under way{part}: {self._of_total(progress.done, 'done')}."
                yield from self._open_sentences()
            case "verifying":
                sent = "All that could go ahead" if counts["decisions"] else "Everything"
                yield f"{sent} was sent, and is looked at again now: {self._of_total(progress.verified, 'confirmed')}."
            case "completed":
                yield from self._completed()
            case "partial":
                yield f"The undo is finished, but not whole: {self._of_total(progress.done, 'done')}."
                yield from self._open_sentences()
                yield from what_stands_apart(counts)
            case "halted":
                yield self._stopped("The undo has stopped")
                yield from what_waits(counts)
                yield from self._open_sentences()
            case "cancelled":
                yield self._stopped("The undo was cancelled")
                if progress.done:
                    yield "The rest is as it was."

    def _gathering(self) -> Iterator[str]:
        if self._progress.done:
            yield "What is left to be undone is being worked out anew."
            yield f"{upper_first(self._of_total(self._progress.done, 'done'))} so far."
        else:
            yield "What is to be undone is being looked up. Nothing has been changed yet."

    def _stopped(self, how: str) -> str:
        if not self._progress.done:
            return f"{how} before anything was changed."
        return f"{how}: {self._of_total(self._progress.done, 'done')}, and that stays."

    def _before_start(self) -> Iterator[str]:
        progress = self._progress
        if progress.status == "needs_approval":
            yield f"Nothing has been changed yet: {consent(progress.approvals_needed)} must agree first."
        elif progress.status == "executable" and progress.mode == "execute":
            yield "It begins now."
        elif progress.status == "executable":
            yield "Nothing has been changed yet: it waits for the word to begin."

    def _rejected(self) -> Iterator[str]:
        if self._progress.plan is not None and not self._progress.reason:
            yield self._progress.plan.opening
        else:
            yield "Nothing will be changed: this undo is not allowed."
            if self._progress.reason:
                yield ended(one_line(self._progress.reason))

    def _completed(self) -> Iterator[str]:
        progress, counts = self._progress, self._planned
        if not progress.total:
            yield "Done: nothing had to be changed."
        elif progress.total != counts["records"] + counts["effects"]:  # more than one plan had a part in it
            yield f"Done: {self._of_total(progress.done, 'made')}, and all was looked at again to make sure."
        else:
            steps = count(counts["steps"], "step of work was", "steps of work were")
            yield f"Done: {steps} undone."
            if counts["records"]:
                where = f" in {count(counts['systems'], 'system')}" if counts["systems"] > 1 else ""
                put = "was put right" if counts["records"] == 1 else "were put right"
                records = upper_first(count(counts["records"], "record"))
                yield f"{records}{where} {put}, and looked at again afterwards to make sure."
            if counts["effects"]:
                what = count(
                    counts["effects"], "thing that can't be taken back was", "things that can't be taken back were"
                )
                yield f"{upper_first(what)} made good in another way."
        yield from what_stands_apart({**counts, "decisions": 0})

    def _of_total(self, number: int, what: str) -> str:
        """How many of the changes are done, or confirmed."""
        total = self._progress.total
        if not total:
            return f"there is nothing to be {what}"
        if total == 1:
            return f"the one change is {what}" if number else f"the one change isn't {what} yet"
        if not number:
            return f"none of {count(total, 'change')} is {what} yet"
        if number == total:
            return f"both changes are {what}" if total == 2 else f"all {count(total, 'change')} are {what}"
        return f"{number_word(number)} of {count(total, 'change')} {'is' if number == 1 else 'are'} {what}"

    def _open_sentences(self) -> Iterator[str]:
        kinds: dict[str, int] = {}
        for item in self._progress.open:
            kinds[item.kind] = kinds.get(item.kind, 0) + 1
        told = 0
        for kind, (one, many) in _SAID.items():
            if kind in kinds:
                told += kinds[kind]
                yield f"{upper_first(count(kinds[kind], one, many))}."
        if self._open > len(self._progress.open):
            yield f"{upper_first(count(self._open, 'change is', 'changes are'))} open in all."

    # -- the sections

    def _sections(self) -> Iterator[Section | None]:
        progress = self._progress
        for item in () if progress.plan is None else progress.plan.sections:
            if item.key not in ("next", "about"):
                yield msgspec.structs.replace(item, title=self._title(item.key, item.title))
        yield lines("about", "What this is about", self._about())
        if progress.status == "halted" and progress.reason and not progress.open and not self._planned["decisions"]:
            yield lines("open", _OPEN["halted"], [ended(one_line(progress.reason))])
        opened = section("open", _OPEN.get(progress.status, "What is open"), progress.open, self._open_line)
        if opened is not None:
            more = opened.more + self._open - len(progress.open)
            yield msgspec.structs.replace(opened, more=more)
        yield lines("next", "What to do next", self._next_lines())

    def _title(self, key: SectionKey, title: str) -> str:
        if key == "changes":
            return _CHANGES.get(self._progress.status, title)
        if key == "effects":
            return _EFFECTS.get(self._progress.status, title)
        return title

    def _about(self) -> Iterator[str]:
        progress = self._progress
        about = None if progress.plan is None else progress.plan.section("about")
        if about is not None:
            yield from about.lines
        if progress.approvals:
            given = [
                f"{one_line(item.by.id)}"
                + (f" (as {' and '.join(map(one_line, item.roles))})" if item.roles else "")
                + (f" on {moment(item.approved_at)}" if item.approved_at is not None else "")
                for item in progress.approvals
            ]
            yield f"Agreed to by {listed(given)}."
        if progress.by is not None and progress.status in ("cancelled", "rejected"):
            did = "cancelled" if progress.status == "cancelled" else "refused"
            because = f": {ended(one_line(progress.reason))}" if progress.reason else "."
            yield f"{one_line(progress.by.id)} {did} it{because}"

    def _open_line(self, item: OpenStep) -> str:
        record = self._words.record(item.resource)
        error = shown_error(self._words.contract(item.resource), item.error)
        why = f" ({one_line(error).rstrip('.')})" if error else ""
        match item.kind:
            case "conflict":
                told = [found(self._words, item.resource, conflict) for conflict in item.conflicts]
                return f"{'; '.join(told) or f'{record} — somebody else changed it meanwhile'}."
            case "outdated":
                return f"{record} — more would have to be changed by now than was agreed to."
            case "failed":
                return f"{record} — its system refused the change{why}."
            case "contradicted":
                told = [found(self._words, item.resource, conflict) for conflict in item.conflicts]
                return (
                    f"{'; '.join(told) or f'{record} — it holds something else'}. The undo had changed it before that."
                )
            case "unverified":
                return f"{record} — the change was made; it isn't confirmed yet."
            case "waiting":
                return f"{record} — its system hasn't answered yet."
            case "skipped":
                return f"{record} — its system refused the change{why}, and the rules say to go on without it."
            case "compensated":
                return f"{record} — its system refused the change{why}, so it is made good in another way."
            case "late":
                return f"{record} — the undone work changed it once more, after the undo had been planned."

    def _next_lines(self) -> Iterator[str]:
        progress = self._progress
        kinds = {item.kind for item in progress.open}
        planned = None if progress.plan is None else progress.plan.section("next")
        if progress.status == "needs_approval":
            yield from consents(progress.approvals_needed)
            if progress.expires_at is not None:
                yield f"There is time for it until {moment(progress.expires_at)}; after that it must be asked for anew."
        if progress.status == "executable" and progress.mode == "plan":
            yield "Read what will be changed, and give the word to begin, or cancel it."
        yield from (line for kind, line in _REMEDIES.items() if kind in kinds and progress.status in _ASKING)
        if progress.status == "cancelled" and progress.done:
            yield "If what was already undone should come back, undo this undo."
        if planned is not None and progress.status != "cancelled":
            asked = set(consents(progress.approvals_needed))
            yield from (line for line in planned.lines if line not in asked and not line.startswith("Get the consent"))
        if progress.status == "halted":
            yield "When that is settled, let it go on, or cancel it: what is done stays, and the rest is left as it is."


_ASKING: Final = frozenset({"halted", "partial", "executing"})

_SAID: Final[dict[str, tuple[str, str]]] = {
    "conflict": (
        "record needs somebody's decision, because others changed it meanwhile",
        "records need somebody's decision, because others changed them meanwhile",
    ),
    "outdated": (
        "record changed so much that the plan must be made anew",
        "records changed so much that the plan must be made anew",
    ),
    "failed": ("change was refused by its system", "changes were refused by their systems"),
    "contradicted": (
        "record was changed, but doesn't hold what it should",
        "records were changed, but don't hold what they should",
    ),
    "unverified": ("change isn't confirmed yet", "changes aren't confirmed yet"),
    "waiting": ("change isn't answered yet", "changes aren't answered yet"),
    "skipped": ("change was refused and left out", "changes were refused and left out"),
    "compensated": (
        "change was refused and made good in another way",
        "changes were refused and made good in another way",
    ),
    "late": ("record was changed once more by the undone work", "records were changed once more by the undone work"),
}

_REMEDIES: Final[dict[str, str]] = {
    "conflict": (
        "Decide on what others changed: keep what is there, undo it all the same, or give the value that should be there."
    ),
    "outdated": "Let it be planned again, and agree to the new plan.",
    "failed": "Find out from the owners of the system why it refused, and mend that; or change the record by hand.",
    "contradicted": "Find out who writes these records, then undo again or put them right by hand.",
    "unverified": "Wait until the records were looked at again, or look at them yourself.",
    "waiting": "See whether the system that hasn't answered is running.",
    "skipped": "Put right by hand what was left out.",
    "late": "Undo the late work as well, and see to it that the run has really ended.",
}
