"""How a command is carried out over HTTP.

    GET the item, judge the command on it, keep the intent, send the write with If-Match (or If-None-Match: * for what is to
    be made), GET the item again to see what stands; 412 sends it back to the beginning.

The guard is the ETag: whatever others wrote since our look refuses our write. The intent is for the answer that never comes:
whoever tries the command again sees by it whether the write arrived, and where that can't be told, the command is refused
rather than carried out twice.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from reconciler.records import Command, Observation, Outcome, OutcomeStatus
from reconciler.targets.answers import Clock, logger, outcome, sentence
from reconciler.targets.apply import Fields, Refusal, decide
from reconciler.targets.dedup.store import DedupStore, Entry, Held, Intent, StoreUnavailable
from reconciler.targets.first_outcome import REMEMBERED, FirstOutcome, repeated
from reconciler.targets.http.addresses import item_path
from reconciler.targets.http.compensating import Compensating
from reconciler.targets.http.config import HttpConfig, HttpResourceConfig
from reconciler.targets.http.exchange import Answer, Exchange, Method, NoAnswer, told
from reconciler.targets.http.marks import marks_of
from reconciler.targets.http.reading import read_item
from reconciler.targets.http.writing import CONTENT_TYPES, body_of, wrapped
from reconciler.values.errors import InputError
from reconciler.values.json_value import ABSENT, Absent, Json, canonical, parse
from reconciler.values.pointer import tokens_of, value_at
from reconciler.values.resource_key import ResourceKey

_TRIES: Final = 10
"""How often a command is judged again because somebody wrote in between, before it is given back as transient."""
_REFUSALS: Final = 2
"""How often a write may be refused for what looks unchanged: once it may be that others wrote, and wrote back."""
_REQUESTS_A_TRY: Final = 3
_NOBODY_ELSE_S: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class _Look:
    """The item as it was read."""

    observation: Observation
    answer: Answer | NoAnswer

    @property
    def current(self) -> Fields | Absent:
        return self.observation.fields if self.observation.exists else ABSENT

    @property
    def guard(self) -> str | None:
        """The version to guard a write with; None where the item isn't there (or has none)."""
        return self.answer.etag if self.observation.exists and isinstance(self.answer, Answer) else None

    def same_as(self, other: _Look) -> bool:
        """Whether nothing can be seen to have changed between two looks."""
        return self.observation.exists == other.observation.exists and self.guard == other.guard


@dataclass(frozen=True, kw_only=True)
class _Request:
    method: Method
    path: str
    headers: Mapping[str, str]
    body: bytes | None


class Applying:
    """Carries out commands for one target."""

    def __init__(self, config: HttpConfig, exchange: Exchange, dedup: DedupStore, clock: Clock) -> None:
        self._config = config
        self._exchange = exchange
        self._dedup = dedup
        self._clock = clock
        self._compensating = Compensating(config, exchange, clock)
        # Long enough for the slowest try: a lease that ends early only lets another one judge beside us, under the same guard.
        self._lease_s = (_REQUESTS_A_TRY * config.timeout_s + 1) * _TRIES

    async def apply(self, config: HttpResourceConfig, key: ResourceKey, command: Command) -> Outcome:
        """The outcome. Never raises for what the target or the store does."""
        owner = uuid.uuid4().hex
        try:
            entry = await self._dedup.claim(command.command_id, owner, self._lease_s)
        except Held:
            return self._transient(command, "the command is being carried out by another process", _NOBODY_ELSE_S)
        except StoreUnavailable as error:
            return self._transient(command, f"the store that remembers commands can't be reached ({error})")
        try:
            return await self._once(_Work(self, config, key, command, owner), entry)
        except Held:
            return self._transient(command, "the command was taken over by another process", _NOBODY_ELSE_S)
        except StoreUnavailable as error:
            return self._transient(command, f"the store that remembers commands can't be reached ({error})")
        finally:
            await self._dedup.release(command.command_id, owner)

    async def _once(self, work: _Work, entry: Entry) -> Outcome:
        command = work.command
        status = repeated(entry.first, command)
        if status is not None and entry.first is not None:
            look = await work.look()
            return outcome(command, status, self._clock(), observed=look.observation, error=entry.first.error)
        if command.action == "compensate":
            intent = Intent(guard=None, wanted="")
            await work.keep(Entry(intent=intent))
            result, maybe_done = await self._compensating.run(
                work.config, work.key, command, tried_before=entry.intent is not None
            )
            if result.status not in REMEMBERED and not maybe_done:
                await work.keep(Entry())
        else:
            result = await work.carried_out(entry.intent)
        if result.status in REMEMBERED:
            await work.remember(result)
        return result

    def _transient(self, command: Command, error: str, retry_after_s: float | None = None) -> Outcome:
        return outcome(command, "transient", self._clock(), error=error, retry_after_s=retry_after_s)


class _Work:
    """One command in the hands of one owner."""

    def __init__(
        self, applying: Applying, config: HttpResourceConfig, key: ResourceKey, command: Command, owner: str
    ) -> None:
        self.config = config
        self.key = key
        self.command = command
        self._settings = applying._config
        self._exchange = applying._exchange
        self._dedup = applying._dedup
        self._clock = applying._clock
        self._owner = owner

    async def keep(self, entry: Entry) -> None:
        await self._dedup.keep(self.command.command_id, self._owner, entry)

    async def remember(self, result: Outcome) -> None:
        """Writes the decision down. What is done is done: if that fails, the intent tells the next one."""
        first = FirstOutcome(status=result.status, attempt=self.command.attempt, error=result.error)
        try:
            await self.keep(Entry(first=first))
        except (Held, StoreUnavailable) as error:
            logger.warning("the decision on a command could not be kept (%s)", type(error).__name__)

    async def look(self) -> _Look:
        now = self._clock()
        answer = await self._exchange.send("GET", self._exchange.url(item_path(self.config.item, self.key.id)))
        return _Look(observation=read_item(self.config, self.command.resource, self.key.id, answer, now), answer=answer)

    async def carried_out(self, inherited: Intent | None) -> Outcome:
        refused_by: _Look | None = None
        refusals = 0
        for _ in range(_TRIES):
            look = await self.look()
            if look.observation.exists is None:
                return self._unreadable(look)
            if inherited is not None:
                result = self._arrived(inherited, look)
                if result is not None:
                    return result
            elif refused_by is not None and refused_by.same_as(look) and refusals >= _REFUSALS:
                return self._outcome(
                    "permanent", look, "the target refuses the write, though nothing changed since our look"
                )
            result = await self._tried(look, inherited=inherited is not None)
            if result is not None:
                return result
            # A 412 says that our write wasn't done; one that we inherited may still be on its way.
            refusals = refusals + 1 if refused_by is not None and refused_by.same_as(look) else 1
            refused_by = look
        return self._outcome("transient", None, "others write the resource faster than we can")

    def _unreadable(self, look: _Look) -> Outcome:
        answer = look.answer
        if isinstance(answer, NoAnswer):
            status: OutcomeStatus = answer.kind
            retry_after_s = answer.retry_after_s
        else:
            status, retry_after_s = "permanent", None
        return outcome(
            self.command,
            status,
            self._clock(),
            observed=look.observation,
            error=look.observation.reason,
            retry_after_s=retry_after_s,
        )

    def _arrived(self, intent: Intent, look: _Look) -> Outcome | None:
        """Whether a write of which nobody knows the end was done; None: it surely wasn't (yet), and the guard is still the same."""
        if _digest(self.command, look.current) == intent.wanted:
            return self._outcome("already_applied", look)
        if look.guard == intent.guard and (look.guard is not None or not look.observation.exists):
            return None
        if self.config.guard == "none" and all(change.op != "increment" for change in self.command.changes):
            return None  # what it expects to find is all the guard that there is
        return self._outcome(
            "conflict", look, "the resource changed after an earlier try of which it isn't known whether it was done"
        )

    async def _tried(self, look: _Look, *, inherited: bool) -> Outcome | None:
        """One try; None where somebody wrote between looking and writing."""
        current = look.current
        result = decide(current, look.observation.version, self.command)
        if isinstance(result, Refusal):
            return self._outcome(result.status, look, sentence(result))
        if result is current:
            return self._outcome("already_applied", look)
        if look.observation.exists and look.guard is None and self.config.guard == "etag":
            return self._outcome("rejected", look, "the target gives no ETag, so that no write can be guarded")
        try:
            request = self._request(look, result)
        except InputError as error:
            return self._outcome("rejected", look, str(error))
        await self.keep(Entry(intent=Intent(guard=look.guard, wanted=_digest(self.command, result))))
        answer = await self._exchange.send(
            request.method, self._exchange.url(request.path), request.headers, request.body
        )
        if isinstance(answer, NoAnswer):
            if not answer.maybe_done and not inherited:
                await self.keep(Entry())
            return outcome(
                self.command, answer.kind, self._clock(), error=answer.reason, retry_after_s=answer.retry_after_s
            )
        if answer.status == 412 or (answer.status == 409 and not look.observation.exists):
            return None
        if answer.status in (404, 410) and look.observation.exists:
            return None
        if not 200 <= answer.status < 300:
            return self._outcome("permanent", look, f"the target refuses the write: {told(answer.status)}")
        return await self._seen_to_be_done(answer, result)

    async def _seen_to_be_done(self, written: Answer, result: Fields | Absent) -> Outcome:
        """What stands after a write that was taken. A target that takes a write and does something else isn't believed."""
        look = await self.look()
        if look.observation.exists is None:
            return self._outcome("applied", None)
        nobody_wrote_since = written.etag is None or written.etag == look.guard
        if nobody_wrote_since and _digest(self.command, look.current) != _digest(self.command, result):
            return self._outcome(
                "permanent", look, "the target took the write, but holds something else than was written"
            )
        return self._outcome("applied", look)

    def _outcome(self, status: OutcomeStatus, look: _Look | None, error: str | None = None) -> Outcome:
        observed = None if look is None else look.observation
        return outcome(self.command, status, self._clock(), observed=observed, error=error)

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _request(self, look: _Look, result: Fields | Absent) -> _Request:
        """The guarded write. Raises InputError where it can't be said."""
        headers = marks_of(self._settings, self.command)
        path = item_path(self.config.item, self.key.id)
        if not look.observation.exists:
            assert not isinstance(result, Absent)
            return self._creation(headers, path, result)
        if look.guard is not None:
            headers["If-Match"] = look.guard
        if isinstance(result, Absent):
            return _Request(method="DELETE", path=path, headers=headers, body=None)
        assert isinstance(look.answer, Answer)
        method, content_type = CONTENT_TYPES[self.config.write]
        raw = look.answer.body
        body = body_of(self.config.write, self.config.fields, raw, parse(raw), look.observation.fields, result)
        return _Request(method=method, path=path, headers={**headers, "Content-Type": content_type}, body=body)

    def _creation(self, headers: dict[str, str], path: str, fields: Fields) -> _Request:
        create = self.config.create
        body: Json = wrapped(tokens_of(self.config.fields), fields, {})
        if self.config.id is not None and value_at(body, tokens_of(self.config.id)) is ABSENT:
            body = wrapped(tokens_of(self.config.id), self.key.id, body)
        return _Request(
            method=create.method,
            path=create.path or path,
            headers={**headers, "If-None-Match": "*", "Content-Type": "application/json"},
            body=canonical(body),
        )


def _digest(command: Command, fields: Fields | Absent) -> str:
    """A digest of what stands at the places that a command writes: enough to know it again, and nothing to read in the store.

    Of a create only the members that it names count: targets fill in others.
    """
    if command.action == "create":
        change = command.changes[0].value if command.changes else ABSENT
        names = sorted(change) if isinstance(change, dict) else []
        places: list[tuple[str, ...]] = [(name,) for name in names]
    else:
        places = [tokens_of(change.path) for change in command.changes]
    standing: list[Json] = [isinstance(fields, Absent)]
    for tokens in places:
        value = value_at(fields, tokens)
        standing.append([] if isinstance(value, Absent) else [value])
    return hashlib.blake2b(canonical(standing), digest_size=16).hexdigest()
