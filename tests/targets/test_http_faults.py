"""HTTP when things go wrong: what the adapter makes of bad answers, and that no fault makes it write twice or wrongly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from reconciler.records import Change, Command, Compensation, Observation
from reconciler.targets.dedup.config import MemoryDedupConfig, RedisDedupConfig
from reconciler.targets.dedup.memory import MemoryDedup
from reconciler.targets.dedup.redis import RedisDedup
from reconciler.targets.dedup.store import DedupStore, Entry, Held, Intent, StoreUnavailable
from reconciler.targets.first_outcome import FirstOutcome
from reconciler.targets.http.exchange import retry_after
from reconciler.targets.port import TargetUnavailable
from reconciler.values.errors import InputError
from reconciler.values.resource_key import resource_key
from streams.embedded.billing import BillingService
from tests.support.redis_server import RedisServer
from tests.targets.shapes import Fields
from tests.targets.suite import SYSTEM, TYPE, command, create, delete, key, set_
from tests.targets.test_http import COLLECTION, LIST, HttpStore, opened_store

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def store() -> AsyncIterator[HttpStore]:
    opened = await opened_store()
    yield opened
    await opened.close()


async def seen(store: HttpStore, id_: str = "1") -> Observation:
    (observation,) = await store.target.observe([key(id_)])
    return observation


def always(answer: Callable[[], web.StreamResponse]) -> Any:
    """A fault that gives one answer to everything."""

    async def fault(request: web.Request, handler: Handler) -> web.StreamResponse:
        return answer()

    return fault


def only(method: str, fault: Any) -> Any:
    """A fault for one method."""

    async def maybe(request: web.Request, handler: Handler) -> web.StreamResponse:
        result: web.StreamResponse = await (fault(request, handler) if request.method == method else handler(request))
        return result

    return maybe


async def lose_the_answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The service does what it is asked, and the connection breaks before it can say so."""
    await handler(request)
    assert request.transport is not None
    request.transport.abort()
    raise asyncio.CancelledError


async def lose_the_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The connection breaks before the service does anything."""
    assert request.transport is not None
    request.transport.abort()
    raise asyncio.CancelledError


# ── answers that say nothing ─────────────────────────────────────────────────────────────────────────────────────────

BAD_ANSWERS: list[tuple[str, Callable[[], web.StreamResponse], str, str]] = [
    ("empty", lambda: web.Response(status=200), "the answer is empty", "permanent"),
    ("white space", lambda: web.Response(status=200, body=b" \n"), "the answer is empty", "permanent"),
    ("html", lambda: web.Response(status=200, body=b"<html>"), "the answer is no JSON", "permanent"),
    ("cut off", lambda: web.Response(status=200, body=b'{"a": 1'), "the answer is no JSON", "permanent"),
    ("NaN", lambda: web.Response(status=200, body=b'{"a": NaN}'), "the answer is no JSON", "permanent"),
    ("infinity", lambda: web.Response(status=200, body=b'{"a": 1e999}'), "no JSON", "permanent"),
    ("a long integer", lambda: web.Response(status=200, body=b'{"a": 123456789012345678901}'), "64 bits", "permanent"),
    ("too deep", lambda: web.Response(status=200, body=b'{"a":' * 200 + b"1" + b"}" * 200), "100 levels", "permanent"),
    ("a list", lambda: web.Response(status=200, body=b"[]"), "no JSON object", "permanent"),
    ("null", lambda: web.Response(status=200, body=b"null"), "no JSON object", "permanent"),
    ("no content", lambda: web.Response(status=204), "HTTP 204 No Content", "permanent"),
    ("a part", lambda: web.Response(status=206, body=b'{"a": 1}'), "HTTP 206 Partial Content", "permanent"),
    ("elsewhere", lambda: web.Response(status=302, headers={"Location": "/"}), "HTTP 302 Found", "permanent"),
    ("bad request", lambda: web.Response(status=400), "HTTP 400 Bad Request", "permanent"),
    ("unauthorised", lambda: web.Response(status=401), "HTTP 401 Unauthorized", "transient"),
    ("forbidden", lambda: web.Response(status=403), "HTTP 403 Forbidden", "permanent"),
    ("slow", lambda: web.Response(status=408), "HTTP 408 Request Timeout", "transient"),
    ("broken", lambda: web.Response(status=500), "HTTP 500 Internal Server Error", "transient"),
    ("bad gateway", lambda: web.Response(status=502), "HTTP 502 Bad Gateway", "transient"),
    ("no such status", lambda: web.Response(status=599), "HTTP 599", "permanent"),
    ("too long", lambda: web.Response(status=200, body=b'"' + b"x" * 70_000 + b'"'), "longer than 65536", "permanent"),
]


@pytest.mark.parametrize(
    ("answer", "reason", "status"), [case[1:] for case in BAD_ANSWERS], ids=[c[0] for c in BAD_ANSWERS]
)
async def test_a_bad_answer_is_unknown_and_nothing_is_written(
    answer: Callable[[], web.StreamResponse], reason: str, status: str
) -> None:
    store = await opened_store(max_body_bytes=65_536)
    await store.put("1", {"a": 1})
    store.service.fault = only("GET", always(answer))
    first, again = await seen(store), await seen(store)
    assert first.exists is None
    assert reason in str(first.reason)
    assert first.reason == again.reason
    outcome = await store.target.apply(command("1", set_("/a", 2, 1)))
    assert outcome.status == status, outcome
    with pytest.raises(TargetUnavailable):
        await store.target.scan(None)
    assert await store.get("1") == {"a": 1}
    await store.close()


@pytest.mark.parametrize("status", [404, 410])
async def test_what_is_not_there_is_missing(store: HttpStore, status: int) -> None:
    await store.put("1", {"a": 1})
    store.service.fault = always(lambda: web.Response(status=status))
    assert (await seen(store)).exists is False


async def test_an_answer_that_breaks_off_is_unknown(store: HttpStore) -> None:
    async def cut(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"a": 1}')
        assert request.transport is not None
        request.transport.close()
        return response

    store.service.fault = cut
    observation = await seen(store)
    assert observation.exists is None
    assert "broke off" in str(observation.reason)


async def test_a_slow_answer_is_unknown() -> None:
    async def wait(request: web.Request, handler: Handler) -> web.StreamResponse:
        await asyncio.sleep(30)
        return await handler(request)

    store = await opened_store(timeout_s=0.1)
    store.service.fault = wait
    observation = await seen(store)
    assert (observation.exists, observation.reason) == (None, "no answer within 0.1 s")
    assert (await store.target.apply(command("1", set_("/a", 2, 1)))).status == "transient"
    await store.close()


async def test_an_answer_about_another_resource_is_unknown() -> None:
    store = await opened_store(id="/number")
    await store.put("1", {"number": 1, "a": 1})
    await store.put("2", {"number": 1, "a": 1})
    await store.put("3", {"a": 1})
    assert (await seen(store, "1")).exists is True
    assert (await seen(store, "2")).exists is None
    assert (await seen(store, "3")).exists is None
    await store.close()


@pytest.mark.parametrize("id_", ["a/b", "ä%2F?#&=+", "a b", "..a", "a,b", '"', "%00"])
async def test_an_id_is_one_segment_of_the_address_whatever_it_holds(id_: str) -> None:
    for listing in (LIST, {**LIST, "ids_parameter": "ids"}):
        store = await opened_store(list=listing)
        await store.put(id_, {"a": 1})
        resource = resource_key(SYSTEM, TYPE, id_)
        (observation,) = await store.target.observe([resource])
        assert observation.fields == {"a": 1}
        one = Command(command_id="c", resource=resource, action="patch", changes=[set_("/a", 2, 1)])
        assert (await store.target.apply(one)).status == "applied"
        assert await store.get(id_) == {"a": 2}
        await store.close()


@pytest.mark.parametrize("id_", [".", ".."])
async def test_an_id_that_would_climb_is_unknown(store: HttpStore, id_: str) -> None:
    resource = resource_key(SYSTEM, TYPE, id_)
    (observation,) = await store.target.observe([resource])
    assert observation.exists is None
    assert (await store.target.apply(Command(command_id="c", resource=resource, action="patch"))).status == "rejected"


# ── rate limits ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_target_that_asks_us_to_wait_is_left_alone() -> None:
    now = [100.0]
    store = await opened_store(monotonic=lambda: now[0], concurrency=1)
    for id_ in "123":
        await store.put(id_, {"a": 1})
    asked: list[str] = []

    async def busy(request: web.Request, handler: Handler) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=429, headers={"Retry-After": "7"})

    store.service.fault = busy
    observations = await store.target.observe([key(id_) for id_ in "123"])
    assert [observation.exists for observation in observations] == [None] * 3
    assert {observation.reason for observation in observations} == {"HTTP 429 Too Many Requests"}
    assert len(asked) == 1, "after the first refusal nothing more is sent"
    now[0] += 2
    outcome = await store.target.apply(command("1", set_("/a", 2, 1)))
    assert (outcome.status, outcome.retry_after_s) == ("transient", 5.0)
    assert len(asked) == 1
    now[0] += 5.1
    store.service.fault = None
    assert (await seen(store)).exists is True
    assert (await store.target.apply(command("1", set_("/a", 2, 1)))).status == "applied"
    await store.close()


async def test_a_write_that_is_turned_away_can_be_repeated() -> None:
    now = [100.0]
    store = await opened_store(monotonic=lambda: now[0])
    await store.put("1", {"count": 1, "name": "a"})
    one = command("1", Change(path="/count", op="increment", value=1))
    store.service.fault = only("PUT", always(lambda: web.Response(status=429, headers={"Retry-After": "1"})))
    outcome = await store.target.apply(one)
    assert (outcome.status, outcome.retry_after_s) == ("transient", 1.0)
    # Others write meanwhile. We know that our write wasn't done, so the command isn't in doubt.
    await store.put("1", {"count": 5, "name": "b"})
    store.service.fault = None
    now[0] += 1.1
    assert (await store.target.apply(one)).status == "applied"
    assert await store.get("1") == {"count": 6, "name": "b"}
    await store.close()


async def test_the_demo_service_throttles() -> None:
    service = BillingService(throttle_every=2, retry_after_s=0)
    await service.start()
    store = HttpStore(service, None)
    await store.put("1", {"a": 1})
    assert [(await seen(store)).exists for _ in range(4)] == [True, None, True, None]
    await store.close()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("12", 12.0),
        ("999999", 3600.0),
        ("-1", None),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_retry_after_is_read(text: str, seconds: float | None) -> None:
    assert retry_after(text) == seconds


async def test_no_more_requests_at_once_than_configured() -> None:
    store = await opened_store(concurrency=3, bulk_size=50)
    at_once, most = 0, 0
    together = asyncio.Event()

    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 3:
            together.set()
        await asyncio.wait_for(together.wait(), 60)
        try:
            return await handler(request)
        finally:
            at_once -= 1

    store.service.fault = count
    await store.target.observe([key(str(number)) for number in range(20)])
    assert most == 3
    await store.close()


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_bulk_answer_tells_what_is_left_out_only_where_it_is_known_to() -> None:
    for missing, expected in (("ask", None), ("absent", False)):
        store = await opened_store(list={**LIST, "ids_parameter": "ids", "missing": missing})
        await store.put("1", {"a": 1})
        single: list[str] = []

        async def fault(request: web.Request, handler: Handler, single: list[str] = single) -> web.StreamResponse:
            if request.match_info.get("id"):
                single.append(request.match_info["id"])
                return web.Response(status=500)
            return await handler(request)

        store.service.fault = fault
        one, two = await store.target.observe([key("1"), key("2")])
        assert (one.exists, two.exists) == (True, expected)
        assert single == (["2"] if missing == "ask" else [])
        await store.close()


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"items": null}', b'{"items": [{"a": 1}]}', b'{"items": [1]}', b'{"items": [{"id": ""}]}']
)
async def test_a_bulk_answer_that_is_none_is_unknown(body: bytes) -> None:
    store = await opened_store(list={**LIST, "ids_parameter": "ids", "missing": "absent"})
    await store.put("1", {"a": 1})
    store.service.fault = always(lambda: web.Response(status=200, body=body))
    assert (await seen(store)).exists is None
    with pytest.raises(TargetUnavailable):
        await store.target.scan(None)
    await store.close()


async def scanned(store: HttpStore) -> list[str]:
    found, cursor = [], None
    while True:
        page = await store.target.scan(cursor)
        found += [observation.resource for observation in page.observations]
        cursor = page.cursor
        if cursor is None:
            return found


def pages(body: Callable[[int], dict[str, Any]], link: Callable[[int], str | None] = lambda page: None) -> Any:
    """A list of three pages."""

    async def fault(request: web.Request, handler: Handler) -> web.StreamResponse:
        page = int(request.query.get("page", "1"))
        header = link(page)
        return web.json_response(body(page), headers={} if header is None else {"Link": header})

    return fault


def items_of(page: int) -> list[dict[str, Any]]:
    return [{"id": f"{page}-{number}"} for number in range(2)] if page <= 3 else []


EVERYTHING = [key(f"{page}-{number}") for page in (1, 2, 3) for number in range(2)]


@pytest.mark.parametrize(
    ("paging", "fault"),
    [
        ({"kind": "number", "parameter": "page"}, pages(lambda page: {"items": items_of(page)})),
        (
            {"kind": "link", "pointer": "/next"},
            pages(lambda page: {"items": items_of(page), "next": f"/things?page={page + 1}" if page < 3 else None}),
        ),
        (
            {"kind": "link", "pointer": "/next"},
            pages(lambda page: {"items": items_of(page), "next": f"?page={page + 1}" if page < 3 else ""}),
        ),
        (
            {"kind": "link"},
            pages(
                lambda page: {"items": items_of(page)},
                lambda page: (
                    f'</things?page=1>; rel="first", </things?page={page + 1}>; title="x"; rel="next"'
                    if page < 3
                    else '</things?page=1>; rel="first"'
                ),
            ),
        ),
        (
            {"kind": "cursor", "pointer": "/next", "parameter": "page"},
            pages(lambda page: {"items": items_of(page)} | ({"next": page + 1} if page < 3 else {})),
        ),
    ],
    ids=["number", "address", "relative address", "header", "cursor"],
)
async def test_every_way_of_paging(paging: Any, fault: Any) -> None:
    store = await opened_store(list={**LIST, "paging": paging})
    store.service.fault = fault
    assert await scanned(store) == EVERYTHING
    await store.close()


@pytest.mark.parametrize(
    "following",
    [
        "http://evil.example/things?page=2",
        "//evil.example/things",
        "/elsewhere",
        "/things/../../etc",
        7.5,
        {},
        "/things?limit=4",
    ],
)
async def test_a_next_page_that_leads_nowhere_is_no_end(following: Any) -> None:
    """It must not be followed, and the list must not pass for whole."""
    store = await opened_store(list={**LIST, "paging": {"kind": "link", "pointer": "/next"}})
    store.service.fault = pages(lambda page: {"items": items_of(page), "next": following})
    with pytest.raises(TargetUnavailable):
        await scanned(store)
    await store.close()


async def test_a_page_that_fails_is_no_end(store: HttpStore) -> None:
    for number in range(9):
        await store.put(f"{number}", {"a": 1})
    first = await store.target.scan(None)
    store.service.fault = always(lambda: web.Response(status=500))
    with pytest.raises(TargetUnavailable):
        await store.target.scan(first.cursor)
    store.service.fault = None
    assert len((await store.target.scan(first.cursor)).observations) == 4


async def test_a_cursor_of_somebody_else_is_an_error(store: HttpStore) -> None:
    for cursor in ("x", "[]", '["no such type", ""]'):
        with pytest.raises(InputError):
            await store.target.scan(cursor)


# ── writes whose end nobody knows ────────────────────────────────────────────────────────────────────────────────────

INCREMENT = Change(path="/count", op="increment", value=1)


async def test_a_write_that_was_done_without_an_answer_is_not_done_again(store: HttpStore) -> None:
    await store.put("1", {"count": 1})
    one = command("1", INCREMENT)
    store.service.fault = only("PUT", lose_the_answer)
    assert (await store.target.apply(one)).status == "transient"
    assert await store.get("1") == {"count": 2}
    store.service.fault = None
    assert (await store.target.apply(one)).status == "already_applied"
    assert await store.get("1") == {"count": 2}


async def test_a_write_is_never_sent_twice_by_the_client_itself(store: HttpStore) -> None:
    """Its second PUT would be refused with 412, which would look as if nothing had been done."""
    await store.put("1", {"count": 1})
    puts = 0

    async def lose_the_first_answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal puts
        puts += 1
        return await (lose_the_answer(request, handler) if puts == 1 else handler(request))

    store.service.fault = only("PUT", lose_the_first_answer)
    one = command("1", INCREMENT)
    assert (await store.target.apply(one)).status == "transient"
    assert puts == 1
    assert (await store.target.apply(one)).status == "already_applied"
    assert await store.get("1") == {"count": 2}


async def test_a_write_that_never_arrived_is_sent_again(store: HttpStore) -> None:
    await store.put("1", {"count": 1})
    one = command("1", INCREMENT)
    store.service.fault = only("PUT", lose_the_request)
    assert (await store.target.apply(one)).status == "transient"
    store.service.fault = None
    assert (await store.target.apply(one)).status == "applied"
    assert await store.get("1") == {"count": 2}


@pytest.mark.parametrize("fault", [lose_the_answer, lose_the_request])
async def test_a_write_in_doubt_after_others_wrote_is_refused(store: HttpStore, fault: Any) -> None:
    await store.put("1", {"count": 1})
    one = command("1", INCREMENT)
    store.service.fault = only("PUT", fault)
    assert (await store.target.apply(one)).status == "transient"
    store.service.fault = None
    await store.put("1", {"count": 7})
    outcome = await store.target.apply(one)
    assert outcome.status == "conflict"
    assert "isn't known" in str(outcome.error)
    assert await store.get("1") == {"count": 7}
    assert (await store.target.apply(one)).status == "conflict", "and stays so"


async def test_a_create_and_a_delete_without_an_answer(store: HttpStore) -> None:
    made = create("1", {"a": 1})
    store.service.fault = only("PUT", lose_the_answer)
    assert (await store.target.apply(made)).status == "transient"
    store.service.fault = None
    assert (await store.target.apply(made)).status == "already_applied"
    gone = delete("1", {"a": 1})
    store.service.fault = only("DELETE", lose_the_answer)
    assert (await store.target.apply(gone)).status == "transient"
    store.service.fault = None
    assert (await store.target.apply(gone)).status == "already_applied"
    await store.put("1", {"a": 1})
    assert (await store.target.apply(gone)).status == "already_applied"
    assert await store.get("1") == {"a": 1}


async def test_a_writer_that_is_stopped_before_its_write_leaves_the_command_to_the_next() -> None:
    """The intent is kept, the lease is held, nothing was sent: the next one waits for the lease, then does it."""
    now = [100.0]
    memory = MemoryDedup(MemoryDedupConfig(kind="memory"), monotonic=lambda: now[0])
    store = await opened_store(memory)
    await store.put("1", {"count": 1})
    one = command("1", INCREMENT)
    await memory.claim(one.command_id, "stopped", 60)
    await memory.keep(one.command_id, "stopped", Entry(intent=Intent(guard='"r1"', wanted="never seen")))
    outcome = await store.target.apply(one)
    assert (outcome.status, outcome.retry_after_s) == ("transient", 1.0)
    now[0] += 60.1
    assert (await store.target.apply(one)).status == "applied"
    assert await store.get("1") == {"count": 2}
    await store.close()


async def test_a_zombie_does_not_write_over_its_successor(store: HttpStore) -> None:
    """A PUT is held up on its way; its writer gives up, the next try succeeds; then the PUT arrives."""
    await store.put("1", {"count": 1})
    one = command("1", INCREMENT)
    held_up: list[tuple[dict[str, str], bytes]] = []

    async def hold_up(request: web.Request, handler: Handler) -> web.StreamResponse:
        held_up.append((dict(request.headers), await request.read()))
        return await lose_the_request(request, handler)

    store.service.fault = only("PUT", hold_up)
    assert (await store.target.apply(one)).status == "transient"
    store.service.fault = None
    assert (await store.target.apply(one)).status == "applied"
    import aiohttp

    ((headers, body),) = held_up
    async with aiohttp.ClientSession() as session:
        late = await session.put(
            f"{store.service.url}/{COLLECTION}/1", data=body, headers={"If-Match": headers["If-Match"]}
        )
    assert late.status == 412
    assert await store.get("1") == {"count": 2}


async def test_an_edit_between_look_and_write_sends_it_back(store: HttpStore) -> None:
    await store.put("1", {"a": 1, "count": 0})
    edits: Iterator[Fields] = iter([{"a": 1, "count": 10}, {"a": 1, "count": 20}])

    async def overtake(request: web.Request, handler: Handler) -> web.StreamResponse:
        edit = next(edits, None)
        if edit is not None:
            await store.put(request.match_info["id"], edit)
        return await handler(request)

    store.service.fault = only("PUT", overtake)
    assert (await store.target.apply(command("1", INCREMENT))).status == "applied"
    assert await store.get("1") == {"a": 1, "count": 21}
    edits = iter([{"a": 9, "count": 21}])
    assert (await store.target.apply(command("1", set_("/a", 2, 1)))).status == "conflict"
    assert await store.get("1") == {"a": 9, "count": 21}
    store.service.fault = only("DELETE", overtake)
    edits = iter([{"a": 9, "count": 22}])
    assert (await store.target.apply(delete("1", {"a": 9, "count": 21}))).status == "conflict"
    store.service.fault = only("PUT", overtake)
    edits = iter([{"a": "first"}])
    assert (await store.target.apply(create("2", {"a": "second"}))).status == "conflict"


async def test_a_resource_that_goes_in_between_is_a_conflict(store: HttpStore) -> None:
    await store.put("1", {"a": 1})

    async def take_away(request: web.Request, handler: Handler) -> web.StreamResponse:
        await store.remove("1")
        return web.Response(status=404)

    store.service.fault = only("PUT", take_away)
    outcome = await store.target.apply(command("1", set_("/a", 2, 1)))
    assert outcome.status == "conflict"
    assert outcome.observed is not None
    assert outcome.observed.exists is False


# ── targets that don't do as they say ────────────────────────────────────────────────────────────────────────────────


async def test_without_an_etag_nothing_is_written_unless_configured() -> None:
    async def without(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        response.headers.popall("ETag", None)
        return response

    for guard, status in (("etag", "rejected"), ("none", "permanent")):
        store = await opened_store(guard=guard)
        await store.put("1", {"a": 1})
        store.service.fault = without
        outcome = await store.target.apply(command("1", set_("/a", 2, 1)))
        # The service asks for a precondition, so that without one it refuses: the write was sent.
        assert outcome.status == status, outcome
        assert await store.get("1") == {"a": 1}
        await store.close()


async def test_an_unguarded_target_takes_the_write() -> None:
    body = {"a": 1}

    async def plain(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "PUT":
            assert "If-Match" not in request.headers
            body.update(await request.json())
        return web.json_response(body)

    store = await opened_store(guard="none")
    store.service.fault = plain
    assert (await store.target.apply(command("1", set_("/a", 2, 1)))).status == "applied"
    assert body == {"a": 2}
    await store.close()


async def test_a_target_that_ignores_a_write_is_not_believed(store: HttpStore) -> None:
    await store.put("1", {"a": 1})
    store.service.fault = only("PUT", always(lambda: web.Response(status=200)))
    outcome = await store.target.apply(command("1", set_("/a", 2, 1)))
    assert outcome.status == "permanent"
    assert "holds something else" in str(outcome.error)


async def test_a_target_that_refuses_its_own_etag_is_not_asked_forever(store: HttpStore) -> None:
    await store.put("1", {"a": 1})
    puts = 0

    async def refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal puts
        puts += 1
        return web.Response(status=412)

    store.service.fault = only("PUT", refuse)
    outcome = await store.target.apply(command("1", set_("/a", 2, 1)))
    assert outcome.status == "permanent"
    assert puts == 2


@pytest.mark.parametrize("status", [400, 403, 405, 409, 422])
async def test_a_write_that_is_refused_is_permanent_and_stays_so(store: HttpStore, status: int) -> None:
    await store.put("1", {"a": 1})
    store.service.fault = only("PUT", always(lambda: web.Response(status=status)))
    one = command("1", set_("/a", 2, 1))
    outcome = await store.target.apply(one)
    assert outcome.status == "permanent"
    assert f"HTTP {status}" in str(outcome.error)
    store.service.fault = None
    again = await store.target.apply(one)
    assert (again.status, again.error) == ("permanent", outcome.error)
    assert await store.get("1") == {"a": 1}


async def test_numbers_that_we_would_change_are_not_put_back() -> None:
    precise = b'{"a": 1, "price": 0.12345678901234567890}'
    sent: list[bytes] = []

    async def precise_one(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method != "GET":
            sent.append(await request.read())
        return web.Response(
            body=precise if not sent else precise.replace(b'"a": 1', b'"a": 2'), headers={"ETag": '"1"'}
        )

    for write, status in (("put", "rejected"), ("merge_patch", "applied"), ("json_patch", "applied")):
        sent.clear()
        store = await opened_store(write=write)
        store.service.fault = precise_one
        outcome = await store.target.apply(command("1", set_("/a", 2, 1)))
        assert outcome.status == status, outcome
        assert all(b"0.123" not in body for body in sent)
        await store.close()


async def test_a_merge_patch_cannot_say_null() -> None:
    store = await opened_store(write="merge_patch")
    await store.put("1", {"a": 1})
    for value in (None, {"b": None}):
        outcome = await store.target.apply(command("1", set_("/a", value, 1)))
        assert outcome.status == "rejected"
        assert "can't set null" in str(outcome.error)
    assert (await store.target.apply(command("1", set_("/a", [None], 1)))).status == "applied"
    assert await store.get("1") == {"a": [None]}
    await store.close()


async def test_a_compensation_without_repetitions_is_tried_once() -> None:
    endpoint = {"path": f"/{COLLECTION}/{{id}}/credit-notes", "idempotency_header": None}
    store = await opened_store(compensations={"credit-note": endpoint})
    runs = 0

    async def run(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal runs
        runs += 1
        if runs == 1:
            return web.Response(status=429, headers={"Retry-After": "0"})
        if runs == 2:
            return await lose_the_request(request, handler)
        return web.Response(status=201)

    store.service.fault = only("POST", run)
    one = command("1", action="compensate", compensation=Compensation(name="credit-note"))
    assert (await store.target.apply(one)).status == "transient"
    assert (await store.target.apply(one)).status == "transient"
    outcome = await store.target.apply(one)
    assert outcome.status == "permanent"
    assert "isn't known" in str(outcome.error)
    assert runs == 2
    another = command("1", action="compensate", compensation=Compensation(name="credit-note"))
    assert (await store.target.apply(another)).status == "applied"
    await store.close()


# ── stores of remembered commands ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["memory", "redis"])
async def memory(request: pytest.FixtureRequest) -> AsyncIterator[DedupStore]:
    if request.param == "memory":
        yield MemoryDedup(MemoryDedupConfig(kind="memory"))
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    opened = RedisDedup(RedisDedupConfig(kind="redis", url=SecretStr(server.url)))
    yield opened
    await opened.close()


async def test_one_owner_at_a_time(memory: DedupStore) -> None:
    assert await memory.claim("c", "one", 60) == Entry()
    with pytest.raises(Held):
        await memory.claim("c", "two", 60)
    assert await memory.claim("d", "two", 60) == Entry()
    with pytest.raises(Held):
        await memory.keep("c", "two", Entry())
    first = Entry(first=FirstOutcome(status="conflict", attempt=3, error="é"))
    await memory.keep("c", "one", first)
    await memory.release("c", "two")
    with pytest.raises(Held):
        await memory.claim("c", "two", 60)
    await memory.release("c", "one")
    assert await memory.claim("c", "two", 60) == first
    with pytest.raises(Held):
        await memory.keep("c", "one", Entry())


async def test_a_lease_ends(memory: DedupStore) -> None:
    await memory.claim("c", "one", 0.05)
    async with asyncio.timeout(60):
        while True:
            try:
                await memory.claim("c", "two", 60)
                break
            except Held:
                await asyncio.sleep(0.01)
    with pytest.raises(Held):
        await memory.keep("c", "one", Entry())


async def test_a_memory_forgets_what_is_old() -> None:
    now = [0.0]
    memory = MemoryDedup(MemoryDedupConfig(kind="memory", keep_s=3600), monotonic=lambda: now[0])
    for number in range(1_500):
        await memory.claim(f"{number}", "one", 60)
        await memory.keep(f"{number}", "one", Entry(first=FirstOutcome(status="applied", attempt=1)))
        await memory.release(f"{number}", "one")
        now[0] += 10
    assert await memory.claim("0", "one", 60) == Entry()
    assert (await memory.claim("1499", "one", 60)).first is not None
    assert len(memory._entries) < 1_000


async def test_without_the_store_nothing_is_written() -> None:
    with RedisServer() as server:
        dedup = RedisDedupConfig(kind="redis", url=SecretStr(server.url), timeout_s=10)
        service = BillingService()
        await service.start()
        store = HttpStore(service, None, dedup=dedup)
        await store.put("1", {"a": 1})
        one = command("1", set_("/a", 2, 1))
        server.kill()
        outcome = await store.target.apply(one)
        assert outcome.status == "transient"
        assert "can't be reached" in str(outcome.error)
        assert await store.get("1") == {"a": 1}
        assert (await seen(store)).exists is True, "observing needs no store"
        server.start()
        assert (await store.target.apply(one)).status == "applied"
        await store.close()


async def test_a_store_lost_between_write_and_decision_is_no_second_application() -> None:
    with RedisServer() as server:
        dedup = RedisDedupConfig(kind="redis", url=SecretStr(server.url), timeout_s=10)
        service = BillingService()
        await service.start()
        store = HttpStore(service, None, dedup=dedup)
        await store.put("1", {"count": 1})
        one = command("1", INCREMENT)
        target: Any = store.target
        keep = target._dedup.keep

        async def keep_no_decision(command_id: str, owner: str, entry: Entry) -> None:
            if entry.first is not None:
                raise StoreUnavailable("lost")
            await keep(command_id, owner, entry)

        target._dedup.keep = keep_no_decision
        assert (await store.target.apply(one)).status == "applied"
        target._dedup.keep = keep
        assert (await store.target.apply(one)).status == "already_applied"
        assert await store.get("1") == {"count": 2}
        await store.close()
