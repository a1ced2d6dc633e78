"""From one page of a list to the next. A page that can't be followed is an error: half a list is no list."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from yarl import URL

from reconciler.targets.http.addresses import list_path
from reconciler.targets.http.config import ListConfig, NextCursor, NextLink, PageNumber
from reconciler.targets.http.exchange import Answer, Exchange, NoAnswer, told
from reconciler.targets.http.reading import parsed, read_list, text_of
from reconciler.values.errors import InputError
from reconciler.values.json_value import Absent, Json
from reconciler.values.pointer import tokens_of, value_at

_LINK: Final = re.compile(r"<([^>]*)>((?:\s*;\s*[^,;\"]+(?:\"[^\"]*\")?)*)")
_NEXT: Final = re.compile(r";\s*rel\s*=\s*\"?[^\";]*\bnext\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page of a list: its items with their ids."""

    answer: Answer
    body: Json
    items: list[tuple[str, Json]]


def read_page(listing: ListConfig, answer: Answer | NoAnswer) -> Page | str:
    """A page, or why the answer is none."""
    if isinstance(answer, NoAnswer):
        return answer.reason
    if answer.status != 200:
        return told(answer.status)
    body = parsed(answer.body)
    if isinstance(body, InputError):
        return str(body)
    try:
        return Page(answer=answer, body=body, items=read_list(body, listing))
    except InputError as error:
        return str(error)


def first_page(listing: ListConfig) -> str:
    """The path of the first page."""
    paging = listing.paging
    return (
        list_path(listing, **{paging.parameter: str(paging.first)})
        if isinstance(paging, PageNumber)
        else list_path(listing)
    )


def next_page(listing: ListConfig, path: str, page: Page, exchange: Exchange) -> str | None:
    """The path of the page after this one, None after the last. Raises InputError where the answer points nowhere we may go."""
    paging = listing.paging
    if isinstance(paging, NextLink):
        link = _linked(page.answer) if paging.pointer is None else _text(value_at(page.body, tokens_of(paging.pointer)))
        following = None if link is None else _followed(link, path, exchange)
    elif isinstance(paging, NextCursor):
        cursor = _text(value_at(page.body, tokens_of(paging.pointer)))
        following = None if cursor is None else _with(path, paging.parameter, cursor)
    elif isinstance(paging, PageNumber):
        number = int(URL(path, encoded=True).query.get(paging.parameter, str(paging.first)))
        following = None if not page.items else _with(path, paging.parameter, str(number + 1))
    else:
        following = None
    if following == path:
        raise InputError("the list's next page is the same page again")
    return following


def _text(value: Json | Absent) -> str | None:
    """Where the next page is; no value, null and the empty text all mean that there is none."""
    if isinstance(value, Absent) or value is None or value == "":
        return None
    text = text_of(value)
    if text is None:
        raise InputError("the list's place of the next page is no text")
    return text


def _linked(answer: Answer) -> str | None:
    for target, parameters in _LINK.findall(answer.headers.get("link", "")):
        if _NEXT.search(parameters) is not None:
            return str(target)
    return None


def _followed(link: str, path: str, exchange: Exchange) -> str:
    here = exchange.url(path)
    try:
        there = here.join(URL(link))
    except ValueError:
        raise InputError("the list's link to the next page is no address") from None
    base = exchange.url("")
    base_path = base.raw_path.rstrip("/")
    if not exchange.same_origin(there) or not there.raw_path.startswith(f"{base_path}/"):
        raise InputError("the list's link to the next page leaves the target's `base_url`, where we don't follow")
    return there.raw_path_qs[len(base_path) :]


def _with(path: str, parameter: str, value: str) -> str:
    url = URL(f"http://list{path}", encoded=True)
    return url.update_query({parameter: value}).raw_path_qs
