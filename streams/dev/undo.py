"""The demo's second act: a run over both systems turns out wrong, and is undone, whatever came between."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any, Final

from reconciler.records import (
    Actor,
    Approval,
    Resolution,
    RollbackEvent,
    RollbackRequest,
    RollbackStatus,
    Selector,
)
from reconciler.wire.codec import Codec
from streams.dev.campaign import CONFLICT, RUN, SENT
from streams.dev.errors import DemoError
from streams.dev.estate import DevEstate
from streams.dev.watch import Watcher
from streams.rollbacks import Rollbacks
from streams.settings import load_settings

ROLLBACK_ID: Final = "undo-campaign-1"
_ANA: Final = Actor(id="ana@example.com", kind="user")
_DORA: Final = Actor(id="dora@example.com", kind="user")
_EVE: Final = Actor(id="eve@example.com", kind="user")
_ROLE: Final = "data-steward"
_REACTS_WITHIN_S: Final = 45.0
_OVER: Final[tuple[RollbackStatus, ...]] = ("completed", "partial", "halted", "rejected", "cancelled", "nothing_to_do")


class UndoAct:
    """Asks for the undo, decides, agrees, and waits for its end. ``until`` waits for something; ``phase`` says what goes on."""

    def __init__(
        self,
        estate: DevEstate,
        watcher: Watcher,
        phase: Callable[[str], None],
        until: Callable[[str, Callable[[], bool]], None],
    ) -> None:
        settings = load_settings(bootstrap_servers=estate.broker.bootstrap)
        self._estate = estate
        self._watcher = watcher
        self._phase = phase
        self._until = until
        self._rollbacks = Rollbacks(settings, Codec.packaged())

    def play(self) -> RollbackEvent:
        """From the request to the end. Returns the last event, which has the story."""
        self._phase("Ana asks to undo the campaign; it is planned, and nothing is done yet")
        self._say(
            "request", _ANA, select=Selector(run_id=RUN), mode="execute", reason="The offer went to the wrong people."
        )
        self._comes_to("the undo is planned", "needs_approval")
        resource, path = CONFLICT
        self._phase(f"Somebody has changed {resource}{path} since; Dora decides that it stays")
        found = self._rollbacks.conflicts(ROLLBACK_ID).get(resource, ())
        resolutions = [
            Resolution(resource=resource, path=each.path, take="keep", seen=each.actual)
            for each in found
            if each.path == path
        ]
        before = self._last.plan_hash
        self._say("resolve", _DORA, resolutions=resolutions, plan_hash=before)
        self._until("the plan has heeded the decision", lambda: self._last.plan_hash not in (None, before))
        self._comes_to("the undo is planned again", "needs_approval")
        self._phase(
            "Eve, a data steward who has asked for nothing and decided nothing, reads the plan and agrees to it"
        )
        whole = self._last.plan_hash
        approval = Approval(by=_EVE, roles=[_ROLE], plan_hash=whole)
        self._say("approve", _EVE, approvals=[approval], plan_hash=whole, mode="execute")
        self._phase("The undo goes through both systems, wave after wave, and each change is looked at again")
        return self._comes_to("the undo is over", *_OVER)

    def faults(self, last: RollbackEvent) -> list[str]:
        """What is not as it must be with the undo itself. It ends as partial, because a person let another's change stand."""
        found = []
        undone, counts = "the undo of the campaign", last.counts
        if last.status not in ("completed", "partial"):
            found.append(f"{undone} is {last.status}: {last.error or last.story.partition(chr(10))[0]}")
        elif counts["verified"] != counts["steps"]:
            found.append(f"{undone}: only {counts['verified']} of its {counts['steps']} steps are verified")
        notes = self._estate.billing.credit_notes(SENT.rpartition("/")[2])
        return found if len(notes) == 1 else [*found, f"{SENT}: has {len(notes)} credit notes, and should have 1"]

    @property
    def _last(self) -> RollbackEvent:
        return self._watcher.rollbacks[ROLLBACK_ID]

    def _say(self, verb: Any, by: Actor, **said: Any) -> None:
        request = RollbackRequest(
            rollback_id=ROLLBACK_ID,
            verb=verb,
            request_id=uuid.uuid4().hex,
            requested_by=by,
            roles=[_ROLE] if by is _EVE else [],
            requested_at=time.time_ns() // 1_000,
            **said,
        )
        self._rollbacks.say(request, _REACTS_WITHIN_S)

    def _comes_to(self, what: str, *statuses: RollbackStatus) -> RollbackEvent:
        """Waits for one of these statuses. Raises DemoError where the rollback comes to rest elsewhere."""

        def is_there() -> bool:
            last = self._watcher.rollbacks.get(ROLLBACK_ID)
            return last is not None and last.status in (*statuses, *_OVER)

        self._until(what, is_there)
        if self._last.status not in statuses:
            raise DemoError(
                f"waited until {what}, but it is {self._last.status}: {self._last.error or self._last.story}"
            )
        return self._last
