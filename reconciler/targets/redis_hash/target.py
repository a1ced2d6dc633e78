"""The Redis target.

A command is judged on what was read, and written by a script that compares the very texts that were read: whatever was
changed in between sends it back to reading. What was decided is remembered in the same script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from reconciler.records import Command, Observation, Outcome
from reconciler.targets.answers import Clock, origin_of, outcome, sentence, system_clock, unknown
from reconciler.targets.apply import Refusal, decide
from reconciler.targets.first_outcome import FirstOutcome, repeated
from reconciler.targets.port import ScanPage, TargetDescription, TargetUnavailable
from reconciler.targets.redis_hash.config import HashConfig, RedisConfig
from reconciler.targets.redis_hash.hashes import observed, write_of
from reconciler.targets.redis_hash.scripts import REMEMBER, WRITE, command_key
from reconciler.targets.routing import addressed, by_type, chunks, read_cursor, write_cursor
from reconciler.values.errors import InputError
from reconciler.values.json_value import ABSENT
from reconciler.values.resource_key import resource_key

_TRIES: Final = 20
"""How often a command is judged again because somebody wrote in between, before it is given back as transient."""
_PERMANENT: Final = frozenset({"WRONGTYPE", exceptions.NoPermissionError.__name__})

_first = msgspec.json.Decoder(FirstOutcome)


class RedisTarget:
    """Resources in Redis hashes."""

    def __init__(self, system: str, config: RedisConfig, *, clock: Clock = system_clock) -> None:
        self._system = system
        self._config = config
        self._clock = clock
        self._client: Any = Redis.from_url(
            config.url.get_secret_value(),
            socket_timeout=config.timeout_s,
            socket_connect_timeout=config.timeout_s,
            # Once, for a connection that a restarted server has dropped. The scripts may run twice: they remember.
            retry=Retry(NoBackoff(), 1),
        )
        self._write = self._client.register_script(WRITE)
        self._remember = self._client.register_script(REMEMBER)

    def describe(self) -> TargetDescription:
        return TargetDescription(
            system=self._system,
            kind="redis",
            can_apply=True,
            can_scan=True,
            compare_and_set=True,
            deduplicates=True,
            bulk_size=self._config.bulk_size,
        )

    async def close(self) -> None:
        await self._client.aclose()

    # ── observing ────────────────────────────────────────────────────────────────────────────────────────────────

    async def observe(self, resources: Sequence[str]) -> list[Observation]:
        wanted, answered = by_type(resources, self._system, self._config.resources, self._clock())
        for type_, ids in wanted.items():
            config = self._config.resources[type_]
            for chunk in chunks(list(ids), self._config.bulk_size):
                keys = {ids[id_]: config.key_of(id_) for id_ in chunk}
                answered.update(await self._observed(config, keys))
        return [answered[resource] for resource in resources]

    async def _observed(self, config: HashConfig, keys: Mapping[str, bytes]) -> dict[str, Observation]:
        now = self._clock()
        try:
            return await self._read(config, keys)
        except exceptions.RedisError as error:
            reason = _trouble(error)[1]
            return {resource: unknown(resource, reason, now) for resource in keys}

    async def _read(self, config: HashConfig, keys: Mapping[str, bytes]) -> dict[str, Observation]:
        """All hashes in one trip. Raises RedisError where the trip fails; a key that is no hash is unknown alone."""
        now = self._clock()
        async with self._client.pipeline(transaction=False) as pipeline:
            for key in keys.values():
                pipeline.hgetall(key)
            answers = await pipeline.execute(raise_on_error=False)
        return {
            resource: unknown(resource, _trouble(answer)[1], now)
            if isinstance(answer, exceptions.RedisError)
            else observed(config, resource, answer, now)
            for resource, answer in zip(keys, answers, strict=True)
        }

    async def scan(self, cursor: str | None) -> ScanPage:
        types = list(self._config.resources)
        type_, place = (types[0], "0") if cursor is None else read_cursor(cursor, 2)
        if type_ not in types or not place.isdecimal():
            raise InputError("the cursor is none that this target gave; begin the scan again without one")
        config = self._config.resources[type_]
        before, after = config.around_id
        try:
            following, found_keys = await self._client.scan(
                int(place), match=_literally(before) + b"*" + _literally(after), count=self._config.bulk_size
            )
            keys = {
                resource_key(self._system, type_, id_): key
                for key in found_keys
                if (id_ := self._id_of(key, before, after)) is not None
            }
            observations = await self._read(config, keys) if keys else {}
        except exceptions.RedisError as error:
            raise TargetUnavailable(_trouble(error)[1]) from error
        here = [observation for observation in observations.values() if observation.exists is not False]
        if following:
            return ScanPage(observations=here, cursor=write_cursor(type_, str(following)))
        next_types = types[types.index(type_) + 1 :]
        return ScanPage(observations=here, cursor=write_cursor(next_types[0], "0") if next_types else None)

    def _id_of(self, key: bytes, before: bytes, after: bytes) -> str | None:
        """The id in a key; None where the key can't be a resource of ours."""
        raw = key[len(before) : len(key) - len(after)]
        if not raw or key.startswith(self._config.commands_prefix.encode()):
            return None
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return None

    # ── applying ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def apply(self, command: Command) -> Outcome:
        key = addressed(command.resource, self._system, self._config.resources)
        if isinstance(key, str):
            return outcome(command, "rejected", self._clock(), error=key)
        if command.action == "compensate":
            return outcome(command, "rejected", self._clock(), error="Redis runs no compensations")
        config = self._config.resources[key.type]
        try:
            for _ in range(_TRIES):
                result = await self._tried(config, config.key_of(key.id), command)
                if result is not None:
                    return result
        except exceptions.RedisError as error:
            kind, reason = _trouble(error)
            return outcome(command, "permanent" if kind == "permanent" else "transient", self._clock(), error=reason)
        return outcome(command, "transient", self._clock(), error="others write the resource faster than we can")

    async def _tried(self, config: HashConfig, key: bytes, command: Command) -> Outcome | None:
        """One try; None where somebody wrote between reading and writing."""
        now = self._clock()
        held = await self._client.hgetall(key)
        before = observed(config, command.resource, held, now)
        if before.exists is None:
            return await self._decided(
                config, key, outcome(command, "permanent", now, observed=before, error=before.reason), command
            )
        current = before.fields if before.exists else ABSENT
        result = decide(current, before.version, command)
        if isinstance(result, Refusal):
            refused = outcome(command, result.status, now, observed=before, error=sentence(result))
            return await self._decided(config, key, refused, command)
        if result is current:
            return await self._decided(config, key, outcome(command, "already_applied", now, observed=before), command)
        try:
            self._check_version(config, before)
            write = write_of(config, held, current, result, now, origin_of(command))
        except InputError as error:
            refused = outcome(command, "rejected", now, observed=before, error=str(error))
            return await self._decided(config, key, refused, command)
        if command.expect_version is not None and config.version is not None and before.version is not None:
            name = config.version.encode()
            write = msgspec.structs.replace(write, expected={**write.expected, name: held[name]})
        remembered = _remembered(outcome(command, "applied", now), command)
        answer = await self._write(
            keys=[key, self._command_key(key, command)],
            args=write.arguments(remembered, command.attempt, self._config.commands_ttl_s, config.version),
        )
        match answer[0]:
            case b"changed":
                return None
            case b"repeated":
                return await self._repeated(config, key, answer[1], command)
        pairs = answer[1]
        after = dict(zip(pairs[::2], pairs[1::2], strict=True))
        done_at = self._clock()
        return outcome(command, "applied", done_at, observed=observed(config, command.resource, after, done_at))

    def _check_version(self, config: HashConfig, before: Observation) -> None:
        version = before.version
        if config.version is not None and version is not None and not version.lstrip("-").isdecimal():
            raise InputError(f"the hash field {config.version!r} holds no whole number to add 1 to")

    async def _decided(self, config: HashConfig, key: bytes, result: Outcome, command: Command) -> Outcome:
        """Remembers a decision that writes nothing; unless the command was decided before."""
        answer = await self._remember(
            keys=[self._command_key(key, command)],
            args=[_remembered(result, command), command.attempt, self._config.commands_ttl_s],
        )
        return result if answer[0] == b"remembered" else await self._repeated(config, key, answer[1], command)

    async def _repeated(self, config: HashConfig, key: bytes, text: bytes, command: Command) -> Outcome:
        first = _first.decode(text)
        status = repeated(first, command)
        assert status is not None, "the script asked the same question"
        now = self._clock()
        seen = observed(config, command.resource, await self._client.hgetall(key), now)
        return outcome(command, status, now, observed=seen, error=first.error)

    def _command_key(self, key: bytes, command: Command) -> bytes:
        return command_key(self._config.commands_prefix, key, command.command_id)


def _remembered(result: Outcome, command: Command) -> bytes:
    first = FirstOutcome(status=result.status, attempt=command.attempt, error=result.error)
    return msgspec.json.encode(first)


def _literally(text: bytes) -> bytes:
    """A text as a glob that matches it alone."""
    return b"".join(b"\\" + bytes([byte]) if byte in b"*?[]\\^-" else bytes([byte]) for byte in text)


def _trouble(error: Exception) -> tuple[str, str]:
    """Whether it is ``transient`` or ``permanent``, and the sentence for it: the error's code, as its text may hold values."""
    if isinstance(error, exceptions.TimeoutError):
        return "transient", "Redis: no answer in time"
    if isinstance(error, exceptions.ConnectionError):
        return "transient", f"Redis: no connection ({type(error).__name__})"
    code = str(error).split(" ", 1)[0] if isinstance(error, exceptions.ResponseError) else ""
    if not code.isupper():
        code = type(error).__name__
    return "permanent" if code in _PERMANENT else "transient", f"Redis: {code}"
