"""A small billing service: JSON documents behind a REST interface with ETags, paging and rate limits.

It is the second target system of the demo and of `reconciler dev`, and what the HTTP adapter is tried on.

    GET    /ready
    GET    /{collection}?limit=&cursor=&ids=a,b   {"items": [{"id": …, …document}], "next": cursor or null}
    GET    /{collection}/{id}                     the document, with ETag, X-Updated-At and X-Updated-By
    PUT    /{collection}/{id}                     the whole document; If-Match, or If-None-Match: * for a new one
    PATCH  /{collection}/{id}                     a merge patch (RFC 7396) or a JSON patch (RFC 6902); If-Match
    DELETE /{collection}/{id}                     If-Match
    POST   /{collection}/{id}/credit-notes        a credit note, one for each Idempotency-Key
    GET    /{collection}/{id}/credit-notes        {"items": […]}

Writes without a precondition are refused (428). Who writes says so in `X-Actor`; a command of the reconciler is known by
`X-Reconciler-Origin`.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Self, TypeAlias

from aiohttp import web

from reconciler.values.errors import InputError
from reconciler.values.instant import Instant, format_instant
from reconciler.values.json_value import Json, canonical, parse, same
from reconciler.values.pointer import tokens_of, value_at
from streams.embedded.documents import Document, Documents, MemoryDocuments, SqliteDocuments

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
Fault: TypeAlias = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]
"""Stands between a request and the service: may answer itself, wait, or spoil the answer."""

_MERGE_PATCH: Final = "application/merge-patch+json"
_JSON_PATCH: Final = "application/json-patch+json"
_LARGEST_PAGE: Final = 1_000


class BillingService:
    """The service, from `start` to `stop`; as an async context manager it does both."""

    def __init__(
        self,
        documents: Documents | None = None,
        *,
        page_size: int = 100,
        throttle_every: int = 0,
        retry_after_s: int = 1,
        fault: Fault | None = None,
        clock: Callable[[], Instant] = lambda: time.time_ns() // 1_000,
    ) -> None:
        """``throttle_every`` n answers each n-th request with 429 and Retry-After, 0 none. ``fault`` may be exchanged later."""
        self.documents: Documents = MemoryDocuments() if documents is None else documents
        self.fault = fault
        self._page_size = page_size
        self._throttle_every = throttle_every
        self._retry_after_s = retry_after_s
        self._clock = clock
        self._requests = 0
        self._writing = asyncio.Lock()
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def app(self) -> web.Application:
        """The service as an aiohttp application."""
        app = web.Application(middlewares=[self._between])
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/{collection}", self._list)
        app.router.add_get("/{collection}/{id}", self._get)
        app.router.add_put("/{collection}/{id}", self._put)
        app.router.add_patch("/{collection}/{id}", self._patch)
        app.router.add_delete("/{collection}/{id}", self._delete)
        app.router.add_get("/{collection}/{id}/credit-notes", self._credit_notes)
        app.router.add_post("/{collection}/{id}/credit-notes", self._add_credit_note)
        return app

    async def start(self, port: int = 0) -> None:
        """Listens on a port of the loopback address, a free one if none is given."""
        if isinstance(self.documents, SqliteDocuments):
            await self.documents.open()
        self._runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Ends the server; the documents stay with their store."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        await self.documents.close()

    # ── around every request ─────────────────────────────────────────────────────────────────────────────────────

    @web.middleware
    async def _between(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path == "/ready":
            return await handler(request)
        self._requests += 1
        if self._throttle_every and self._requests % self._throttle_every == 0:
            return _problem(429, "too many requests", {"Retry-After": str(self._retry_after_s)})
        try:
            return await (handler(request) if self.fault is None else self.fault(request, handler))
        except InputError as error:
            return _problem(400, str(error))

    async def _ready(self, request: web.Request) -> web.Response:
        return _json({"ready": True})

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _list(self, request: web.Request) -> web.Response:
        collection = request.match_info["collection"]
        if "ids" in request.query:
            asked = [await self.documents.get(collection, id_) for id_ in request.query["ids"].split(",")]
            return _json({"items": [_listed(document) for document in asked if document is not None], "next": None})
        size = self._size(request)
        page = await self.documents.page(collection, request.query.get("cursor", ""), size + 1)
        following = page[size - 1].id if len(page) > size else None
        return _json({"items": [_listed(document) for document in page[:size]], "next": following})

    def _size(self, request: web.Request) -> int:
        limit = request.query.get("limit", str(self._page_size))
        if not limit.isdecimal() or not 1 <= int(limit) <= _LARGEST_PAGE:
            raise InputError(f"must be a number from 1 to {_LARGEST_PAGE}", field="limit")
        return min(int(limit), self._page_size)

    async def _get(self, request: web.Request) -> web.Response:
        document = await self._found(request)
        return _problem(404, "there is no such document") if document is None else _whole(document)

    async def _found(self, request: web.Request) -> Document | None:
        return await self.documents.get(request.match_info["collection"], request.match_info["id"])

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _put(self, request: web.Request) -> web.Response:
        body = await _body(request)
        async with self._writing:
            document = await self._found(request)
            refused = _precondition(request, document)
            if refused is not None:
                return refused
            return await self._written(request, body, 201 if document is None else 200)

    async def _patch(self, request: web.Request) -> web.Response:
        patch = parse(await request.read())
        async with self._writing:
            document = await self._found(request)
            if document is None:
                return _problem(404, "there is no such document")
            refused = _precondition(request, document)
            if refused is not None:
                return refused
            if request.content_type == _MERGE_PATCH:
                body = merged(document.body, patch)
            elif request.content_type == _JSON_PATCH:
                body = json_patched(document.body, patch)
                if body is None:
                    return _problem(409, "a test of the patch failed")
            else:
                return _problem(415, f"send {_MERGE_PATCH} or {_JSON_PATCH}")
            return await self._written(request, body, 200)

    async def _written(self, request: web.Request, body: Json, status: int) -> web.Response:
        if not isinstance(body, dict) or "id" in body:
            raise InputError("a document is a JSON object without `id`, which is its address")
        by = "reconciler" if "X-Reconciler-Origin" in request.headers else request.headers.get("X-Actor", "somebody")
        collection, id_ = request.match_info["collection"], request.match_info["id"]
        return _whole(await self.documents.put(collection, id_, body, by, self._clock()), status)

    async def _delete(self, request: web.Request) -> web.Response:
        async with self._writing:
            document = await self._found(request)
            if document is None:
                return _problem(404, "there is no such document")
            refused = _precondition(request, document)
            if refused is not None:
                return refused
            await self.documents.delete(request.match_info["collection"], request.match_info["id"])
            return web.Response(status=204)

    # ── credit notes: what makes good an invoice that was sent ───────────────────────────────────────────────────

    async def _add_credit_note(self, request: web.Request) -> web.Response:
        body = await _body(request)
        collection, key = _notes(request), request.headers.get("Idempotency-Key", "")
        if not key:
            raise InputError("give each credit note a key of its own", field="Idempotency-Key")
        async with self._writing:
            note = await self.documents.get(collection, key)
            if note is not None:
                return _whole(note, 200)
            return _whole(await self.documents.put(collection, key, body, "reconciler", self._clock()), 201)

    async def _credit_notes(self, request: web.Request) -> web.Response:
        notes = await self.documents.page(_notes(request), "", _LARGEST_PAGE)
        return _json({"items": [_listed(note) for note in notes]})


def _notes(request: web.Request) -> str:
    return f"{request.match_info['collection']}/{request.match_info['id']}/credit-notes"


async def _body(request: web.Request) -> dict[str, Json]:
    body = parse(await request.read())
    if not isinstance(body, dict):
        raise InputError("must be a JSON object")
    return body


def _precondition(request: web.Request, document: Document | None) -> web.Response | None:
    """The refusal of a write that isn't made for what stands here (RFC 9110, 13.1)."""
    if_match, if_none_match = request.headers.get("If-Match"), request.headers.get("If-None-Match")
    if if_match is None and if_none_match != "*":
        return _problem(428, "send If-Match, or If-None-Match: * to make a new document")
    if if_none_match == "*" and document is not None:
        return _problem(412, "there is such a document already")
    if if_match is not None and (document is None or if_match != _etag(document)):
        return _problem(412, "the document is another by now")
    return None


def merged(target: Json, patch: Json) -> Json:
    """A merge patch applied (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def json_patched(target: dict[str, Json], operations: Json) -> dict[str, Json] | None:
    """A JSON patch applied (RFC 6902) to members of objects; None where one of its tests fails. Raises InputError."""
    if not isinstance(operations, list):
        raise InputError("a JSON patch is a list of operations")
    result: dict[str, Json] = parse(canonical(target))
    for operation in operations:
        tokens = tokens_of(operation["path"])
        node = value_at(result, tokens[:-1])
        if not tokens or not isinstance(node, dict):
            raise InputError(f"the path {operation['path']!r} names no member of an object")
        match operation["op"]:
            case "test":
                if not same(node.get(tokens[-1]), operation["value"]) or tokens[-1] not in node:
                    return None
            case "add" | "replace" as op:
                if op == "replace" and tokens[-1] not in node:
                    raise InputError(f"the path {operation['path']!r} has nothing to replace")
                node[tokens[-1]] = operation["value"]
            case "remove":
                if tokens[-1] not in node:
                    raise InputError(f"the path {operation['path']!r} has nothing to remove")
                del node[tokens[-1]]
            case op:
                raise InputError(f"the operation {op!r} isn't known here")
    return result


def _etag(document: Document) -> str:
    return f'"r{document.revision}"'


def _listed(document: Document) -> dict[str, Json]:
    return {"id": document.id, **document.body}


def _whole(document: Document, status: int = 200) -> web.Response:
    headers = {
        "ETag": _etag(document),
        "X-Updated-At": format_instant(document.updated_at),
        "X-Updated-By": document.updated_by,
    }
    return _json(document.body, status, headers)


def _json(body: Json, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=canonical(body), content_type="application/json", headers=headers)


def _problem(status: int, title: str, headers: dict[str, str] | None = None) -> web.Response:
    """RFC 9457."""
    return web.Response(
        status=status,
        body=canonical({"title": title, "status": status}),
        content_type="application/problem+json",
        headers=headers,
    )


async def _serve(arguments: argparse.Namespace) -> None:
    documents: Documents = MemoryDocuments() if arguments.database is None else SqliteDocuments(arguments.database)
    service = BillingService(documents, throttle_every=arguments.throttle_every)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await service.start(arguments.port)
    await stopped.wait()
    await service.stop()
    await documents.close()


def main() -> None:
    """`python -m streams.embedded.billing`."""
    parser = argparse.ArgumentParser(description="A small billing service with ETags, on the loopback address.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", type=Path, help="an SQLite file; left out, the documents are in memory")
    parser.add_argument("--throttle-every", type=int, default=0, help="answer each n-th request with 429")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
