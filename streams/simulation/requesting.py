"""People who ask for rollbacks: they request, approve, decide conflicts, resume, cancel, or never come back to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import msgspec

from reconciler.machines.rollback.head import CONFLICTS
from reconciler.records import (
    Actor,
    Approval,
    RequestVerb,
    Resolution,
    RollbackEvent,
    RollbackRequest,
    Selector,
    StepConflict,
)
from streams.simulation.chance import Chance
from streams.simulation.people import PERSON_ACTOR, Hands
from streams.store.producer import Outgoing

APPROVER: Final = Actor(id="bo@example.com", kind="user")
_MOST_WORDS: Final = 8
"""After so many words on one rollback people lose patience."""

Conflicts = Callable[[str], dict[str, list[StepConflict]]]
"""The open conflicts of a rollback, by resource, as its table has them."""


class Requester:
    """Asks for rollbacks and follows what becomes of them."""

    def __init__(self, hands: Hands, conflicts_of: Conflicts, seed: int) -> None:
        self._hands = hands
        self._conflicts_of = conflicts_of
        self._seed = seed
        self._words: dict[str, int] = {}
        self._last_sequence: dict[str, int] = {}
        self.resolved: list[Resolution] = []
        """What persons have decided on conflicts."""
        self.requested: list[str] = []
        hands.broker.listen(hands.topics.rollback_events, self._on_event)

    def request(self, number: int, chance: Chance) -> None:
        """Somebody wants something undone."""
        rollback_id = f"rb{number}"
        mode: Literal["plan", "execute"] = "execute" if chance.hits(0.8) else "plan"
        select = self._select(chance)
        self.requested.append(rollback_id)
        self._say(rollback_id, "request", PERSON_ACTOR, select=select, mode=mode, reason="it went wrong")

    def _select(self, chance: Chance) -> Selector:
        hands = self._hands
        reported = hands.reported
        runs = sorted({action.run_id for action in reported}) or ["run-1"]
        operations = sorted({action.operation_id for action in reported if action.stage == "succeeded"})
        if len(self.requested) > 1 and chance.hits(0.3):
            return Selector(operations=[f"{chance.pick(self.requested)}/undo"])
        match chance.below(8):
            case 0 if operations:
                return Selector(operations=chance.some(operations, 3))
            case 1:
                return Selector(run_id=chance.pick(runs), after_step="step-1")
            case 2:
                since = hands.schedule.now - chance.duration(60, 1200)
                return Selector(resource=chance.pick(hands.estate.resources), to_at=since)
            case 3:
                since = hands.schedule.now - chance.duration(60, 1200)
                return Selector(workflow_id=f"flow-{1 + chance.below(2)}", from_at=since, to_at=hands.schedule.now)
            case 4:
                return Selector(run_id=f"run-{1 + chance.below(9)}")  # which may not have begun
            case _:
                return Selector(run_id=chance.pick(runs))

    # -- following it

    def _on_event(self, partition: int) -> None:
        hands = self._hands
        record = hands.broker.log(hands.topics.rollback_events, partition).records[-1]
        event = hands.codec.decode(record.value)
        assert isinstance(event, RollbackEvent)
        if event.rollback_id not in self.requested:
            return
        hands.trace.add("rollback", "{} is {} ({})", event.rollback_id, event.status, event.error or event.reason)
        words = self._words.get(event.rollback_id, 0)
        if words >= _MOST_WORDS or event.sequence <= self._last_sequence.get(event.rollback_id, 0):
            return
        self._last_sequence[event.rollback_id] = event.sequence
        chance = Chance(self._seed, event.rollback_id, event.sequence)
        wait = chance.duration(1, 60)
        hands.schedule.after(wait, lambda: self._react(event, chance))

    def _react(self, event: RollbackEvent, chance: Chance) -> None:
        match event.status:
            case "needs_approval" if event.plan_hash is not None and chance.hits(0.9):
                approval = Approval(by=APPROVER, roles=["data-steward"])
                self._say(event.rollback_id, "approve", APPROVER, approvals=[approval], plan_hash=event.plan_hash)
            case "executable" if event.mode == "plan" and chance.hits(0.7):
                self._say(event.rollback_id, "resume", PERSON_ACTOR, mode="execute", plan_hash=event.plan_hash)
            case "executing" if chance.hits(0.06):
                self._say(event.rollback_id, "cancel", PERSON_ACTOR, reason="better not")
            case "halted":
                self._look_into(event, chance)
            case _:
                pass

    def _look_into(self, event: RollbackEvent, chance: Chance) -> None:
        """A person sees what keeps a rollback from going on."""
        if chance.hits(0.15):
            return
        if chance.hits(0.1):
            self._say(event.rollback_id, "cancel", PERSON_ACTOR, reason="it is not worth it")
            return
        resolutions = [
            self._resolution(resource, conflict, chance)
            for resource, conflicts in sorted(self._conflicts_of(event.rollback_id).items())
            for conflict in conflicts
        ]
        if resolutions:
            self.resolved += resolutions
            self._say(event.rollback_id, "resolve", PERSON_ACTOR, resolutions=resolutions)
        else:
            self._say(event.rollback_id, "resume", PERSON_ACTOR, reason="let us see")

    def _resolution(self, resource: str, conflict: StepConflict, chance: Chance) -> Resolution:
        take: Literal["keep", "force", "value"] = chance.pick(("keep", "force", "force", "value"))
        if take == "value" and conflict.path:
            value = self._hands.new_value("v")
            return Resolution(resource=resource, path=conflict.path, take="value", value=value, seen=conflict.actual)
        return Resolution(
            resource=resource, path=conflict.path, take="keep" if take == "keep" else "force", seen=conflict.actual
        )

    def _say(self, rollback_id: str, verb: RequestVerb, by: Actor, **fields: object) -> None:
        hands = self._hands
        number = self._words[rollback_id] = self._words.get(rollback_id, 0) + 1
        given: dict[str, object] = {
            "rollback_id": rollback_id,
            "verb": verb,
            "request_id": f"{rollback_id}-{number}",
            "requested_by": by,
            "roles": ["operator", "data-steward"],
            "requested_at": hands.schedule.now,
        }
        request = RollbackRequest(**(given | fields))  # type: ignore[arg-type]
        hands.trace.add(by.id.partition("@")[0], "says {} to {} {}", verb, rollback_id, request.select or "")
        value = hands.codec.encode(hands.topics.rollback_requests, request)
        hands.broker.send(by.id, Outgoing(hands.topics.rollback_requests, rollback_id.encode(), value))


def conflicts_in(entries: dict[str, bytes]) -> dict[str, list[StepConflict]]:
    """The open conflicts in a rollback's history."""
    return {
        entry_id.removeprefix(CONFLICTS): msgspec.json.decode(value, type=list[StepConflict])
        for entry_id, value in entries.items()
        if entry_id.startswith(CONFLICTS)
    }
