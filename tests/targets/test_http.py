"""HTTP: the suite against a real server with ETags, in each way of writing and with each store of remembered commands."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from reconciler.records import Change, Compensation
from reconciler.targets.dedup.config import MemoryDedupConfig, RedisDedupConfig
from reconciler.targets.dedup.memory import MemoryDedup
from reconciler.targets.dedup.store import DedupStore
from reconciler.targets.http.config import HttpConfig, HttpResourceConfig
from reconciler.targets.http.target import HttpTarget
from reconciler.targets.port import ApplyingTarget
from reconciler.values.json_value import ABSENT, Absent
from streams.embedded.billing import BillingService
from tests.support.redis_server import RedisServer
from tests.targets.shapes import Documents, Fields
from tests.targets.suite import SYSTEM, TYPE, Store, TargetSuite, World, command, key, set_

COLLECTION = "things"
LIST = {
    "path": f"/{COLLECTION}",
    "items": "/items",
    "leave_out": ["/id"],
    "paging": {"kind": "cursor", "pointer": "/next", "parameter": "cursor"},
    "page_size_parameter": "limit",
    "page_size": 4,
}


def resource_config(**more: Any) -> HttpResourceConfig:
    """The billing service's resources as the adapter is told of them."""
    return HttpResourceConfig.model_validate(
        {
            "item": f"/{COLLECTION}/{{id}}",
            "modified_at": {"header": "X-Updated-At"},
            "modified_by": {"header": "X-Updated-By"},
            "list": LIST,
            **more,
        }
    )


class HttpStore(Store):
    """The service in the test's own process; its hands are its store of documents."""

    shape = Documents()

    def __init__(self, service: BillingService, memory: DedupStore | None, **more: Any) -> None:
        self.service = service
        self._memory = memory
        options = {name: more.pop(name) for name in ("clock", "monotonic") if name in more}
        settings: dict[str, Any] = {
            "bulk_size": 4,
            "timeout_s": 2,
            **{name: more.pop(name) for name in list(more) if name in HttpConfig.model_fields},
        }
        self.config = HttpConfig.model_validate(
            {"base_url": service.url, "resources": {TYPE: resource_config(**more)}, **settings}
        )
        self.target: HttpTarget = HttpTarget(SYSTEM, self.config, dedup=memory, **options)
        self._others: list[HttpTarget] = []

    async def put(self, id_: str, fields: Fields) -> None:
        await self.service.documents.put(COLLECTION, id_, fields, "hands", 1_777_802_400_000_000)

    async def get(self, id_: str) -> Fields | Absent:
        document = await self.service.documents.get(COLLECTION, id_)
        return ABSENT if document is None else document.body

    async def remove(self, id_: str) -> None:
        await self.service.documents.delete(COLLECTION, id_)

    async def another(self) -> ApplyingTarget:
        self._others.append(HttpTarget(SYSTEM, self.config, dedup=self._memory))
        return self._others[-1]

    async def break_(self) -> None:
        await self.service.stop()

    async def close(self) -> None:
        for target in (self.target, *self._others):
            await target.close()
        await self.service.stop()


async def opened_store(dedup: DedupStore | None = None, **more: Any) -> HttpStore:
    """A store over a service that was just started."""
    service = BillingService(page_size=4)
    await service.start()
    return HttpStore(service, MemoryDedup(MemoryDedupConfig(kind="memory")) if dedup is None else dedup, **more)


class TestPut(TargetSuite):
    async def opened(self) -> Store:
        return await opened_store()

    def test_a_compensation_is_an_endpoint(self, world: World) -> None:
        """Only HTTP runs compensations, so this stands here and not in the suite."""

        async def check() -> None:
            store = await opened_store(compensations={"credit-note": {"path": f"/{COLLECTION}/{{id}}/credit-notes"}})
            one = command("7", action="compensate", compensation=Compensation(name="credit-note", arguments={"of": 7}))
            assert (await store.target.apply(one)).status == "applied"
            assert (await store.target.apply(one)).status == "already_applied"
            notes = await store.service.documents.page(f"{COLLECTION}/7/credit-notes", "", 10)
            assert [(note.id, note.body) for note in notes] == [(one.command_id, {"of": 7})]
            unknown = command("7", action="compensate", compensation=Compensation(name="refund"))
            outcome = await store.target.apply(unknown)
            assert outcome.status == "rejected"
            assert "'refund'" in str(outcome.error)
            await store.close()

        world.run(check())


class TestListedInBulk(TargetSuite):
    async def opened(self) -> Store:
        return await opened_store(list={**LIST, "ids_parameter": "ids", "ids_at_once": 3})


class TestBulkWithoutWhatIsMissing(TargetSuite):
    async def opened(self) -> Store:
        return await opened_store(list={**LIST, "ids_parameter": "ids", "ids_at_once": 3, "missing": "absent"})


class TestMergePatch(TargetSuite):
    async def opened(self) -> Store:
        return await opened_store(write="merge_patch")


class TestJsonPatch(TargetSuite):
    async def opened(self) -> Store:
        return await opened_store(write="json_patch")


class TestRedisDedup(TargetSuite):
    @pytest.fixture(autouse=True)
    def _place(self, redis_server: RedisServer) -> None:
        self._url = redis_server.url

    async def opened(self) -> Store:
        service = BillingService(page_size=4)
        await service.start()
        dedup = RedisDedupConfig(kind="redis", url=SecretStr(self._url))
        return HttpStore(service, None, dedup=dedup)


async def test_who_and_when_are_told() -> None:
    store = await opened_store()
    await store.put("1", {"a": 1})
    (seen,) = await store.target.observe([key("1")])
    assert (seen.version, seen.modified_at) == ('"r1"', 1_777_802_400_000_000)
    assert seen.modified_by is not None
    assert (seen.modified_by.id, seen.modified_by.kind) == ("hands", "user")
    outcome = await store.target.apply(command("1", set_("/a", 2, 1)))
    assert outcome.observed is not None
    assert outcome.observed.modified_by is not None
    assert outcome.observed.modified_by.id == "reconciler", "the write carried its mark"
    await store.close()


async def test_describes_what_it_promises(redis_server: RedisServer) -> None:
    store = await opened_store()
    assert store.target.describe().deduplicates is False, "memory doesn't outlive the process"
    await store.close()
    shared = RedisDedupConfig(kind="redis", url=SecretStr(redis_server.url))
    resources = {TYPE: resource_config(guard="none", list=None)}
    target = HttpTarget(SYSTEM, HttpConfig(base_url="http://127.0.0.1:1", resources=resources, dedup=shared))
    described = target.describe()
    assert (described.deduplicates, described.compare_and_set, described.can_scan) == (True, False, False)
    await target.close()


@pytest.mark.parametrize("write", ["put", "merge_patch", "json_patch"])
async def test_fields_inside_an_envelope(write: str) -> None:
    store = await opened_store(write=write, fields="/data/fields", list=None)
    envelope = {"kind": "x", "data": {"etc": [1, None], "fields": {"a": 1, "b": {"c": 1}}}}
    await store.put("1", envelope)
    (seen,) = await store.target.observe([key("1")])
    assert seen.fields == {"a": 1, "b": {"c": 1}}
    changes = [set_("/b/c", 2, 1), Change(path="/a", op="unset", expect=1)]
    assert (await store.target.apply(command("1", *changes))).status == "applied"
    assert await store.get("1") == {"kind": "x", "data": {"etc": [1, None], "fields": {"b": {"c": 2}}}}
    await store.close()


async def test_a_new_resource_is_posted_where_configured() -> None:
    """The service takes PUT alone, so what is posted is seen by the fault that stands before it."""
    posted: list[Any] = []

    async def take(request: Any, handler: Any) -> Any:
        if request.method == "POST":
            posted.append((request.path, await request.json(), request.headers["If-None-Match"]))
            await store.put("9", {"number": "9", "a": 1, "made": True})
            from aiohttp import web

            return web.Response(status=201)
        return await handler(request)

    store = await opened_store(create={"method": "POST", "path": f"/{COLLECTION}"}, id="/number", list=None)
    store.service.fault = take
    one = command("9", set_("", {"a": 1}), action="create")
    outcome = await store.target.apply(one)
    assert outcome.status == "applied"
    assert posted == [(f"/{COLLECTION}", {"a": 1, "number": "9"}, "*")]
    assert outcome.observed is not None
    assert outcome.observed.fields == {"number": "9", "a": 1, "made": True}
    await store.close()


@pytest.mark.parametrize("name", ["X-Reconciler-Origin", "X-Ours", None])
async def test_writes_carry_the_mark_and_the_trace(name: str | None) -> None:
    seen: list[Any] = []

    async def look(request: Any, handler: Any) -> Any:
        seen.append((request.method, dict(request.headers)))
        return await handler(request)

    store = await (opened_store() if name == "X-Reconciler-Origin" else opened_store(origin_header=name))
    await store.put("1", {"a": 1})
    store.service.fault = look
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    one = command("1", set_("/a", 2, 1), traceparent=trace)
    two = command("1", set_("/a", 3, 2), traceparent="nonsense\r\nX: y", origin="undo é\n7", audit="archive")
    for each, mark, traced in ((one, one.command_id, trace), (two, "undo %C3%A9%0A7", None)):
        outcome = await store.target.apply(each)
        assert outcome.status == "applied"
        assert outcome.traceparent == traced
        writes = [headers for method, headers in seen if method == "PUT"]
        assert len(writes) == 1
        assert writes[0].get(name or "X-Reconciler-Origin") == (mark if name else None)
        assert writes[0].get("traceparent") == traced
        assert writes[0].get("X-Reconciler-Audit") == each.audit
        assert all("traceparent" not in headers for method, headers in seen if method == "GET")
        seen.clear()
    await store.close()
