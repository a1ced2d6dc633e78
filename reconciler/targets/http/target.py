"""The HTTP target: what it is, how it is observed, and how it is scanned. How it applies is in `applying`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from reconciler.records import Command, Observation, Outcome
from reconciler.targets.answers import Clock, missing, outcome, system_clock, unknown
from reconciler.targets.dedup.opening import opened_dedup
from reconciler.targets.dedup.store import DedupStore
from reconciler.targets.http.addresses import id_problem, item_path, listed_path
from reconciler.targets.http.applying import Applying
from reconciler.targets.http.config import HttpConfig, HttpResourceConfig, ListConfig
from reconciler.targets.http.exchange import Answer, Exchange, Monotonic, NoAnswer
from reconciler.targets.http.pages import first_page, next_page, read_page
from reconciler.targets.http.reading import read_item, read_listed
from reconciler.targets.port import ScanPage, TargetDescription, TargetUnavailable
from reconciler.targets.routing import addressed, by_type, chunks, read_cursor, write_cursor
from reconciler.values.errors import InputError
from reconciler.values.json_value import Json
from reconciler.values.resource_key import resource_key


class HttpTarget:
    """Resources behind a REST interface."""

    def __init__(
        self,
        system: str,
        config: HttpConfig,
        *,
        dedup: DedupStore | None = None,
        clock: Clock = system_clock,
        monotonic: Monotonic = time.monotonic,
    ) -> None:
        self._system = system
        self._config = config
        self._clock = clock
        self._exchange = Exchange(config, monotonic=monotonic)
        self._dedup = opened_dedup(config.dedup) if dedup is None else dedup
        self._applying = Applying(config, self._exchange, self._dedup, clock)
        self._listed = [type_ for type_, resource in config.resources.items() if resource.list is not None]

    def describe(self) -> TargetDescription:
        return TargetDescription(
            system=self._system,
            kind="http",
            can_apply=True,
            can_scan=bool(self._listed),
            compare_and_set=all(resource.guard == "etag" for resource in self._config.resources.values()),
            deduplicates=self._dedup.shared,
            bulk_size=self._config.bulk_size,
        )

    async def close(self) -> None:
        await self._exchange.close()
        await self._dedup.close()

    # ── observing ────────────────────────────────────────────────────────────────────────────────────────────────

    async def observe(self, resources: Sequence[str]) -> list[Observation]:
        wanted, answered = by_type(resources, self._system, self._config.resources, self._clock())
        observed = await asyncio.gather(
            *(self._observed(self._config.resources[type_], ids) for type_, ids in wanted.items())
        )
        for part in observed:
            answered.update(part)
        return [answered[resource] for resource in resources]

    async def _observed(self, config: HttpResourceConfig, ids: dict[str, str]) -> dict[str, Observation]:
        listing = config.list
        if listing is None or listing.ids_parameter is None:
            return await self._one_by_one(config, ids)
        # An id with a comma can't stand in a list of ids, nor one that a path can't hold.
        alone = {id_: resource for id_, resource in ids.items() if "," in id_ or id_problem(id_) is not None}
        together = [id_ for id_ in ids if id_ not in alone]
        parts = await asyncio.gather(
            self._one_by_one(config, alone),
            *(
                self._together(config, listing, {id_: ids[id_] for id_ in chunk})
                for chunk in chunks(together, listing.ids_at_once)
            ),
        )
        return {resource: observation for part in parts for resource, observation in part.items()}

    async def _one_by_one(self, config: HttpResourceConfig, ids: dict[str, str]) -> dict[str, Observation]:
        observations = await asyncio.gather(*(self._one(config, id_, resource) for id_, resource in ids.items()))
        return dict(zip(ids.values(), observations, strict=True))

    async def _one(self, config: HttpResourceConfig, id_: str, resource: str) -> Observation:
        problem = id_problem(id_)
        if problem is not None:
            return unknown(resource, problem, self._clock())
        answer, now = await self._get(item_path(config.item, id_))
        return read_item(config, resource, id_, answer, now)

    async def _get(self, path: str) -> tuple[Answer | NoAnswer, int]:
        """The answer, and the instant before it was asked for: what it tells is at least as young."""
        now = self._clock()
        return await self._exchange.send("GET", self._exchange.url(path)), now

    async def _together(
        self, config: HttpResourceConfig, listing: ListConfig, ids: dict[str, str]
    ) -> dict[str, Observation]:
        """Many in one answer. What isn't in it is asked for alone, unless the interface leaves out only what isn't there."""
        now = self._clock()
        try:
            items = await self._listed_items(listing, list(ids))
        except InputError as error:
            return {resource: unknown(resource, str(error), now) for resource in ids.values()}
        observations = {
            ids[id_]: read_listed(config, listing, ids[id_], item, now) for id_, item in items.items() if id_ in ids
        }
        left_out = {id_: resource for id_, resource in ids.items() if id_ not in items}
        if listing.missing == "absent":
            return observations | {resource: missing(resource, now) for resource in left_out.values()}
        return observations | await self._one_by_one(config, left_out)

    async def _listed_items(self, listing: ListConfig, ids: Sequence[str]) -> dict[str, Json]:
        """The items of all pages by id, until all that was asked for is there. Raises InputError where a page is none."""
        wanted = set(ids)
        items: dict[str, Json] = {}
        path: str | None = listed_path(listing, ids)
        while path is not None and not wanted <= items.keys():
            answer, _ = await self._get(path)
            page = read_page(listing, answer)
            if isinstance(page, str):
                raise InputError(page)
            if items and not dict(page.items).keys() - items.keys():
                raise InputError("the list repeats itself")
            items.update(page.items)
            path = next_page(listing, path, page, self._exchange)
        return items

    # ── scanning ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def scan(self, cursor: str | None) -> ScanPage:
        if not self._listed:
            raise TargetUnavailable(f"the configuration of {self._system!r} has no `list`, so it can't be scanned")
        type_, path = (self._listed[0], "") if cursor is None else read_cursor(cursor, 2)
        config = self._config.resources.get(type_)
        if config is None or config.list is None:
            raise InputError("the cursor is none that this target gave; begin the scan again without one")
        listing = config.list
        path = path or first_page(listing)
        answer, now = await self._get(path)
        page = read_page(listing, answer)
        if isinstance(page, str):
            raise TargetUnavailable(page)
        observations = [
            read_listed(config, listing, resource_key(self._system, type_, id_), item, now) for id_, item in page.items
        ]
        try:
            following = next_page(listing, path, page, self._exchange)
        except InputError as error:
            raise TargetUnavailable(str(error)) from error
        if following is not None:
            return ScanPage(observations=observations, cursor=write_cursor(type_, following))
        rest = self._listed[self._listed.index(type_) + 1 :]
        return ScanPage(observations=observations, cursor=write_cursor(rest[0], "") if rest else None)

    # ── applying ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def apply(self, command: Command) -> Outcome:
        key = addressed(command.resource, self._system, self._config.resources)
        if not isinstance(key, str):
            problem = id_problem(key.id)
            if problem is None:
                return await self._applying.apply(self._config.resources[key.type], key, command)
            key = problem
        return outcome(command, "rejected", self._clock(), error=key)
