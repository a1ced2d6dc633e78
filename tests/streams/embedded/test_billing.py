"""The embedded billing service, as any client sees it."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from streams.embedded.billing import BillingService
from streams.embedded.documents import Documents, MemoryDocuments, SqliteDocuments
from tests.support.ports import free_port
from tests.support.waiting import wait_until


@pytest.fixture(params=["memory", "sqlite"])
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BillingService]:
    documents: Documents = MemoryDocuments() if request.param == "memory" else SqliteDocuments(tmp_path / "billing.db")
    async with BillingService(documents, page_size=3) as started:
        yield started


@pytest.fixture
async def client(service: BillingService) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(service.url) as session:
        yield session


async def call(client: aiohttp.ClientSession, method: str, path: str, **more: Any) -> tuple[int, Any, str | None]:
    async with client.request(method, path, **more) as answer:
        body = await answer.json(content_type=None) if answer.status != 204 else None
        return answer.status, body, answer.headers.get("ETag")


NEW = {"If-None-Match": "*"}


async def test_writes_are_guarded(client: aiohttp.ClientSession) -> None:
    assert (await call(client, "GET", "/invoices/1"))[0] == 404
    assert (await call(client, "PUT", "/invoices/1", json={"a": 1}))[0] == 428
    status, body, first = await call(client, "PUT", "/invoices/1", json={"a": 1}, headers=NEW)
    assert (status, body) == (201, {"a": 1})
    assert (await call(client, "PUT", "/invoices/1", json={"a": 2}, headers=NEW))[0] == 412
    assert (await call(client, "GET", "/invoices/1")) == (200, {"a": 1}, first)
    status, body, second = await call(client, "PUT", "/invoices/1", json={"a": 2}, headers={"If-Match": str(first)})
    assert (status, body) == (200, {"a": 2})
    assert second != first
    assert (await call(client, "PUT", "/invoices/1", json={"a": 3}, headers={"If-Match": str(first)}))[0] == 412
    assert (await call(client, "DELETE", "/invoices/1", headers={"If-Match": str(first)}))[0] == 412
    assert (await call(client, "DELETE", "/invoices/1", headers={"If-Match": str(second)}))[0] == 204
    assert (await call(client, "DELETE", "/invoices/1", headers={"If-Match": str(second)}))[0] == 404
    _, _, third = await call(client, "PUT", "/invoices/1", json={"a": 2}, headers=NEW)
    assert third not in (first, second), "an ETag never comes back"


async def test_patches(client: aiohttp.ClientSession) -> None:
    _, _, etag = await call(client, "PUT", "/invoices/1", json={"a": {"b": 1}, "c": 1}, headers=NEW)
    merge = {"If-Match": str(etag), "Content-Type": "application/merge-patch+json"}
    _, body, etag = await call(client, "PATCH", "/invoices/1", data=b'{"a": {"d": 2}, "c": null}', headers=merge)
    assert body == {"a": {"b": 1, "d": 2}}
    patch = {"If-Match": str(etag), "Content-Type": "application/json-patch+json"}
    bad = b'[{"op": "test", "path": "/a/b", "value": 7}, {"op": "remove", "path": "/a/b"}]'
    assert (await call(client, "PATCH", "/invoices/1", data=bad, headers=patch))[0] == 409
    good = b'[{"op": "test", "path": "/a/b", "value": 1}, {"op": "remove", "path": "/a/b"}]'
    _, body, _ = await call(client, "PATCH", "/invoices/1", data=good, headers=patch)
    assert body == {"a": {"d": 2}}
    assert (await call(client, "PATCH", "/invoices/1", data=good, headers=patch))[0] == 412


async def test_lists_in_pages(client: aiohttp.ClientSession) -> None:
    for number in range(7):
        await call(client, "PUT", f"/invoices/i-{number}", json={"n": number}, headers=NEW)
    found, cursor = [], ""
    while True:
        _, page, _ = await call(client, "GET", f"/invoices?limit=100&cursor={cursor}")
        found += page["items"]
        cursor = page["next"]
        if cursor is None:
            break
    assert found == [{"id": f"i-{number}", "n": number} for number in range(7)]
    _, page, _ = await call(client, "GET", "/invoices?ids=i-5,none,i-1")
    assert page == {"items": [{"id": "i-5", "n": 5}, {"id": "i-1", "n": 1}], "next": None}
    assert (await call(client, "GET", "/invoices?limit=0"))[0] == 400


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b'{"id": 1}', b'{"a": NaN}'])
async def test_what_is_no_document_is_refused(client: aiohttp.ClientSession, body: bytes) -> None:
    status, problem, _ = await call(client, "PUT", "/invoices/1", data=body, headers=NEW)
    assert status == 400
    assert problem["title"]


async def test_throttles_every_nth_request() -> None:
    async with (
        BillingService(throttle_every=3, retry_after_s=9) as service,
        aiohttp.ClientSession(service.url) as client,
    ):
        statuses = []
        for _ in range(6):
            async with client.get("/invoices") as answer:
                statuses.append((answer.status, answer.headers.get("Retry-After")))
        assert statuses == [(200, None), (200, None), (429, "9")] * 2
        async with client.get("/ready") as answer:
            assert answer.status == 200


def test_runs_as_a_program_and_keeps_its_documents(tmp_path: Path) -> None:
    port = free_port()
    program = [
        sys.executable,
        "-m",
        "streams.embedded.billing",
        "--port",
        str(port),
        "--database",
        str(tmp_path / "b.db"),
    ]

    def is_ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    for start in range(2):
        with subprocess.Popen(program) as process:
            try:
                wait_until(is_ready, deadline_s=60, what="the billing service is ready")
                if start == 0:
                    request = urllib.request.Request(
                        f"http://127.0.0.1:{port}/invoices/1", data=b'{"a": 1}', method="PUT", headers=NEW
                    )
                    urllib.request.urlopen(request, timeout=60).close()
                else:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/invoices/1", timeout=60) as answer:
                        assert answer.read() == b'{"a":1}'
            finally:
                process.terminate()
            assert process.wait(60) == 0
