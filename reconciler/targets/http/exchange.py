"""One request and its answer, as values: an answer, or why there is none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import aiohttp
from yarl import URL

from reconciler.targets.http.config import HttpConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Method: TypeAlias = Literal["GET", "PUT", "POST", "PATCH", "DELETE"]
Monotonic: TypeAlias = Callable[[], float]

_COMING_BACK: Final = frozenset({401, 408, 425, 429, 500, 502, 503, 504, 507, 509})
"""Statuses that don't mean this request, so that it may be repeated. 401 among them: whose fault is it? Not the command's."""
_TURNED_AWAY: Final = frozenset({401, 425, 429})
_BUSY: Final = frozenset({429, 503})
_LONGEST_PAUSE_S: Final = 3_600.0
_DEFAULT_PAUSE_S: Final = 1.0
_CHUNK_BYTES: Final = 65_536


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A whole answer, whatever its status. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def etag(self) -> str | None:
        """The version that it tells."""
        return self.headers.get("etag")


@dataclass(frozen=True, kw_only=True)
class NoAnswer:
    """Why there is none that can be used. ``maybe_done`` False: it surely did nothing, as it never left or was turned away."""

    kind: Literal["transient", "permanent"]
    reason: str
    retry_after_s: float | None = None
    maybe_done: bool = True


class _InDoubtError(aiohttp.ClientError):
    """A write whose connection broke."""


async def _write_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keeps aiohttp from sending a PUT or DELETE again by itself when its connection breaks.

    Had the first one arrived, the second would be answered with 412, and the write that was done would pass for one that
    wasn't.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # it never left
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        if request.method == "GET":
            raise
        raise _InDoubtError from error


class Exchange:
    """Sends requests to one target: at most so many at once, and none while it asks us to wait."""

    def __init__(self, config: HttpConfig, *, monotonic: Monotonic = time.monotonic) -> None:
        self._config = config
        self._monotonic = monotonic
        self._session: aiohttp.ClientSession | None = None
        self._places: asyncio.Semaphore | None = None
        self._paused_until = 0.0
        self._pause_reason = ""
        self._origin = URL(config.base_url).origin()

    def url(self, path: str) -> URL:
        """The address of an encoded path (with its query) below `base_url`."""
        return URL(self._config.base_url + path, encoded=True)

    def same_origin(self, url: URL) -> bool:
        """Whether an address that the target told is the target's: we send our credentials nowhere else."""
        return url.origin() == self._origin

    async def close(self) -> None:
        """Ends the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def pause_s(self) -> float:
        """For how long the target has asked us to wait."""
        return max(0.0, self._paused_until - self._monotonic())

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[aiohttp.ClientSession]:
        if self._session is None:
            # identity: a server that compresses may weaken its ETags, and a weak one guards nothing.
            self._session = aiohttp.ClientSession(
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                    "User-Agent": "reconciler",
                    **{name: value.get_secret_value() for name, value in self._config.headers.items()},
                },
                timeout=aiohttp.ClientTimeout(total=self._config.timeout_s),
                connector=aiohttp.TCPConnector(limit=self._config.concurrency),
                cookie_jar=aiohttp.DummyCookieJar(),
                middlewares=(_write_once,),
            )
            self._places = asyncio.Semaphore(self._config.concurrency)
        assert self._places is not None
        async with self._places:
            yield self._session

    async def send(
        self, method: Method, url: URL, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer | NoAnswer:
        """The answer, if it has a status that is one. Never raises for what the target does."""
        async with self._place() as session:
            pause_s = self.pause_s()
            if pause_s > 0:
                return NoAnswer(kind="transient", reason=self._pause_reason, retry_after_s=pause_s, maybe_done=False)
            try:
                async with session.request(method, url, headers=headers, data=body, allow_redirects=False) as response:
                    received = await self._received(response)
            except TimeoutError:
                return NoAnswer(kind="transient", reason=f"no answer within {self._config.timeout_s:g} s")
            except aiohttp.ClientConnectorError:
                return NoAnswer(kind="transient", reason="no connection", maybe_done=False)
            except (aiohttp.ClientError, OSError):
                return NoAnswer(kind="transient", reason="the answer broke off")
        return received if isinstance(received, NoAnswer) else self._judged(received)

    async def _received(self, response: aiohttp.ClientResponse) -> Answer | NoAnswer:
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            body += chunk
            if len(body) > self._config.max_body_bytes:
                response.close()
                return NoAnswer(
                    kind="permanent", reason=f"the answer is longer than {self._config.max_body_bytes} bytes"
                )
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(status=response.status, headers=headers, body=bytes(body))

    def _judged(self, answer: Answer) -> Answer | NoAnswer:
        if answer.status in _COMING_BACK:
            retry_after_s = retry_after(answer.headers.get("retry-after"))
            if answer.status in _BUSY:
                wait_s = _DEFAULT_PAUSE_S if retry_after_s is None else retry_after_s
                self._paused_until = max(self._paused_until, self._monotonic() + wait_s)
                self._pause_reason = told(answer.status)
            return NoAnswer(
                kind="transient",
                reason=told(answer.status),
                retry_after_s=retry_after_s,
                maybe_done=answer.status not in _TURNED_AWAY,
            )
        if answer.status >= 500 or 300 <= answer.status < 400:
            return NoAnswer(kind="permanent", reason=told(answer.status))
        return answer


def told(status: int) -> str:
    """A status for people, the same words whatever the server's."""
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def retry_after(text: str | None) -> float | None:
    """Seconds from a Retry-After header (RFC 9110, 10.2.3), at most an hour; None where there is none to be read."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return min(float(text), _LONGEST_PAUSE_S)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return min(max(0.0, moment.timestamp() - time.time()), _LONGEST_PAUSE_S)
