"""Compensations over HTTP: a name in the configuration stands for an endpoint.

Whether a compensation ran can't be seen in the resource. So it is repeated only where the endpoint knows repetitions by a
header; elsewhere a try whose end nobody knows is left to people.
"""

from __future__ import annotations

from reconciler.records import Command, Outcome, OutcomeStatus
from reconciler.targets.answers import Clock, outcome
from reconciler.targets.http.addresses import item_path
from reconciler.targets.http.config import HttpConfig, HttpResourceConfig
from reconciler.targets.http.exchange import Exchange, NoAnswer, told
from reconciler.targets.http.marks import marks_of
from reconciler.values.errors import InputError
from reconciler.values.json_value import canonical
from reconciler.values.resource_key import ResourceKey


class Compensating:
    """Runs compensations for one target."""

    def __init__(self, config: HttpConfig, exchange: Exchange, clock: Clock) -> None:
        self._config = config
        self._exchange = exchange
        self._clock = clock

    async def run(
        self, config: HttpResourceConfig, key: ResourceKey, command: Command, *, tried_before: bool
    ) -> tuple[Outcome, bool]:
        """The outcome of the compensation that the command names, and whether it may have run though nobody knows."""
        compensation = command.compensation
        if compensation is None:
            return self._ended(command, "rejected", "the command names no compensation")
        endpoint = config.compensations.get(compensation.name)
        if endpoint is None:
            error = f"the configuration of {key.system!r} has no compensation {compensation.name!r} for {key.type!r}"
            return self._ended(command, "rejected", error)
        if tried_before and endpoint.idempotency_header is None:
            return self._ended(
                command, "permanent", "it isn't known whether an earlier try ran, and the endpoint knows no repetitions"
            )
        headers = {"Content-Type": "application/json"}
        if endpoint.idempotency_header is not None:
            headers[endpoint.idempotency_header] = command.command_id
        headers |= marks_of(self._config, command)
        try:
            body = canonical(compensation.arguments)
        except InputError as error:
            return self._ended(command, "rejected", f"the compensation's arguments: {error}")
        url = self._exchange.url(item_path(endpoint.path, key.id))
        answer = await self._exchange.send(endpoint.method, url, headers, body)
        if isinstance(answer, NoAnswer):
            failed = outcome(
                command, answer.kind, self._clock(), error=answer.reason, retry_after_s=answer.retry_after_s
            )
            return failed, answer.maybe_done
        if not 200 <= answer.status < 300:
            return self._ended(command, "permanent", f"the target refuses the compensation: {told(answer.status)}")
        return self._ended(command, "applied", None)

    def _ended(self, command: Command, status: OutcomeStatus, error: str | None) -> tuple[Outcome, bool]:
        return outcome(command, status, self._clock(), error=error), False
