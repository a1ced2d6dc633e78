"""A real web server of records that can be slow, dead or lying, and a target that reads it in bulk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Literal

from aiohttp import ClientError, ClientSession, web
from msgspec import structs

from reconciler.records import Observation
from reconciler.targets.port import ScanPage, TargetDescription, TargetUnavailable
from reconciler.values.resource_key import parse_resource_key

Mood = Literal["well", "slow", "silent", "failing", "empty", "partial", "duplicate", "another", "garbage", "poisoned"]


class RecordServer:
    """Serves `/records?ids=1,2` as a JSON list, in whatever mood it is."""

    def __init__(self, records: dict[str, dict[str, Any]]) -> None:
        self.records = records
        self.mood: Mood = "well"
        self.poison: frozenset[str] = frozenset()
        self.slow_s = 0.3
        self.page_size = 25
        self.pages = 0
        self.asked: list[tuple[float, list[str]]] = []
        self.most_at_once = 0
        self._answering: list[list[str]] = []
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def at_once(self) -> int:
        """How many requests are being answered."""
        return len(self._answering)

    def being_read(self) -> set[str]:
        """The ids in the requests that are being answered."""
        return {one for ids in self._answering for one in ids}

    def reads(self, since: float = 0.0) -> int:
        """How many records were asked for since an instant of the monotonic clock."""
        return sum(len(ids) for at, ids in self.asked if at >= since)

    def ids(self, since: int = 0, until: int | None = None) -> list[str]:
        """The ids that were asked for, one after the other, in some of the requests."""
        return [one for _, ids in self.asked[since:until] for one in ids]

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/records", self._handle)
        app.router.add_get("/all", self._list)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> RecordServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _handle(self, request: web.Request) -> web.Response:
        ids = request.query["ids"].split(",")
        self.asked.append((time.monotonic(), ids))
        self._answering.append(ids)
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._answer(ids)
        finally:
            self._answering.remove(ids)

    async def _list(self, request: web.Request) -> web.Response:
        """All records, page by page."""
        self.pages += 1
        if self.mood == "silent":
            await asyncio.sleep(3_600)
        if self.mood == "failing":
            return web.Response(status=503)
        begin, names = int(request.query["cursor"]), sorted(self.records)
        page = [{"id": one, "fields": self.records[one]} for one in names[begin : begin + self.page_size]]
        if self.mood == "partial":
            page = page[::2]
        elif self.mood == "duplicate":
            page = page + page
        following = begin + self.page_size
        return web.json_response({"records": page, "cursor": following if following < len(names) else None})

    async def _answer(self, ids: list[str]) -> web.Response:
        if self.mood == "silent":
            await asyncio.sleep(3_600)
        if self.mood == "slow":
            await asyncio.sleep(self.slow_s)
        if self.mood == "failing" or (self.mood == "poisoned" and self.poison.intersection(ids)):
            return web.Response(status=503)
        if self.mood == "garbage":
            return web.Response(body=b'[{"id": "1", "fields"', content_type="application/json")
        found = [{"id": one, "fields": self.records[one]} for one in ids if one in self.records]
        if self.mood == "empty":
            found = []
        elif self.mood == "partial":
            found = found[: len(found) // 2]
        elif self.mood == "duplicate":
            found = found + found
        elif self.mood == "another":
            found = [{"id": f"{record['id']}-another", "fields": record["fields"]} for record in found]
        return web.json_response(found)


class WebTarget:
    """A trusting adapter: it hands on what the server says, and raises what goes wrong. A record that the server doesn't
    name is not in its answer: whether that means anything is for the sampler to judge."""

    def __init__(self, system: str, url: str, *, bulk_size: int = 10) -> None:
        self._system = system
        self._url = url
        self._bulk_size = bulk_size
        self._session: ClientSession | None = None
        self.is_closed = False

    def describe(self) -> TargetDescription:
        return TargetDescription(
            system=self._system,
            kind="test",
            can_apply=False,
            can_scan=False,
            compare_and_set=False,
            deduplicates=False,
            bulk_size=self._bulk_size,
        )

    async def observe(self, resources: Sequence[str]) -> list[Observation]:
        if self._session is None:
            self._session = ClientSession()
        ids = {parse_resource_key(resource).id: resource for resource in resources}
        async with self._session.get(f"{self._url}/records", params={"ids": ",".join(ids)}) as response:
            if response.status != 200:
                raise ClientError(f"HTTP {response.status}")
            records = await response.json()
        return [
            Observation(
                resource=ids.get(record["id"], f"{self._system}/record/{record['id']}"),
                exists=True,
                fields=record["fields"],
            )
            for record in records
        ]

    async def close(self) -> None:
        self.is_closed = True
        if self._session is not None:
            await self._session.close()


class ListingTarget(WebTarget):
    """One that can list what it has."""

    def describe(self) -> TargetDescription:
        return structs.replace(super().describe(), can_scan=True)

    async def scan(self, cursor: str | None) -> ScanPage:
        if self._session is None:
            self._session = ClientSession()
        async with self._session.get(f"{self._url}/all", params={"cursor": cursor or "0"}) as response:
            if response.status != 200:
                raise TargetUnavailable(f"HTTP {response.status}")
            page = await response.json()
        observations = [
            Observation(resource=f"{self._system}/record/{record['id']}", exists=True, fields=record["fields"])
            for record in page["records"]
        ]
        return ScanPage(observations=observations, cursor=page["cursor"] and str(page["cursor"]))
