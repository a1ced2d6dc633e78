"""From ids to addresses. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from reconciler.targets.http.config import ID, ListConfig

_DOTS = frozenset({".", ".."})


def id_problem(id_: str) -> str | None:
    """Why an id can't stand in a path: dot segments would name another resource (RFC 3986, 5.2.4)."""
    return f"the id {id_!r} can't stand in an address" if id_ in _DOTS else None


def item_path(template: str, id_: str) -> str:
    """The encoded path of one item."""
    return template.replace(ID, quote(id_, safe=""))


def listed_path(listing: ListConfig, ids: Sequence[str]) -> str:
    """The encoded path that asks a list for these ids."""
    assert listing.ids_parameter is not None
    return with_parameters(
        listing.path, {listing.ids_parameter: ",".join(ids), **_sized(listing, max(len(ids), listing.page_size))}
    )


def list_path(listing: ListConfig, **more: str) -> str:
    """The encoded path of a list's first page."""
    return with_parameters(listing.path, {**_sized(listing, listing.page_size), **more})


def with_parameters(path: str, parameters: dict[str, str]) -> str:
    """A path with query parameters added."""
    if not parameters:
        return path
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in parameters.items())
    return f"{path}{'&' if '?' in path else '?'}{query}"


def _sized(listing: ListConfig, size: int) -> dict[str, str]:
    return {} if listing.page_size_parameter is None else {listing.page_size_parameter: str(size)}
