"""From answers to observations. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reconciler.records import Actor, Observation
from reconciler.targets.answers import found, missing, unknown
from reconciler.targets.http.config import HttpResourceConfig, ListConfig, Source
from reconciler.targets.http.exchange import Answer, NoAnswer, told
from reconciler.values.errors import InputError
from reconciler.values.instant import Instant, parse_instant
from reconciler.values.json_value import ABSENT, Absent, Json, parse
from reconciler.values.pointer import Tokens, tokens_of, value_at


def read_item(
    config: HttpResourceConfig, resource: str, id_: str, answer: Answer | NoAnswer, observed_at: Instant
) -> Observation:
    """What an item's own answer says. Only 200 with a JSON body says what it holds, only 404 and 410 that it isn't there."""
    if isinstance(answer, NoAnswer):
        return unknown(resource, answer.reason, observed_at)
    if answer.status in (404, 410):
        return missing(resource, observed_at)
    if answer.status != 200:
        return unknown(resource, told(answer.status), observed_at)
    body = parsed(answer.body)
    if isinstance(body, InputError):
        return unknown(resource, str(body), observed_at)
    if config.id is not None and text_of(value_at(body, tokens_of(config.id))) != id_:
        return unknown(resource, "the answer is about another resource", observed_at)
    try:
        return found(
            resource,
            value_at(body, tokens_of(config.fields)),
            observed_at,
            version=answer.etag,
            modified_at=_instant(_from_source(config.modified_at, answer.headers, body)),
            modified_by=_actor(_from_source(config.modified_by, answer.headers, body), config.modified_by_kind),
        )
    except InputError as error:
        return unknown(resource, str(error), observed_at)


def read_list(body: Json, config: ListConfig) -> list[tuple[str, Json]]:
    """The items of a list's page with their ids. Raises InputError where it is no page, or an item has no id."""
    items = value_at(body, tokens_of(config.items))
    if not isinstance(items, list):
        raise InputError("the answer holds no list of items")
    found_items = []
    for item in items:
        id_ = text_of(value_at(item, tokens_of(config.id)))
        if not id_:
            raise InputError("an item of the list has no id")
        found_items.append((id_, item))
    return found_items


def read_listed(
    config: HttpResourceConfig, listing: ListConfig, resource: str, item: Json, observed_at: Instant
) -> Observation:
    """What a list says about one resource."""
    etag = value_at(item, tokens_of(listing.etag)) if listing.etag is not None else ABSENT
    try:
        return found(
            resource,
            _without(value_at(item, tokens_of(listing.fields)), listing.leave_out),
            observed_at,
            version=etag if isinstance(etag, str) else None,
            modified_at=_instant(_at(item, listing.modified_at)),
            modified_by=_actor(_at(item, listing.modified_by), config.modified_by_kind),
        )
    except InputError as error:
        return unknown(resource, str(error), observed_at)


def _without(fields: Json | Absent, left_out: Iterable[str]) -> Json | Absent:
    for path in left_out:
        tokens = tokens_of(path)
        if tokens and not isinstance(value_at(fields, tokens), Absent):
            fields = _taken_out(fields, tokens)
    return fields


def _taken_out(value: Json, tokens: Tokens) -> Json:
    rest = {name: member for name, member in value.items() if name != tokens[0]}
    return {**rest, tokens[0]: _taken_out(value[tokens[0]], tokens[1:])} if len(tokens) > 1 else rest


def parsed(body: bytes) -> Json | InputError:
    """The JSON of a body, or what is wrong with it. An empty body says nothing at all."""
    if not body.strip():
        return InputError("the answer is empty")
    try:
        return parse(body)
    except InputError as error:
        is_no_json = error.message.startswith(("is not JSON", "is not UTF-8"))
        return InputError(f"the answer {'is no JSON' if is_no_json else error.message}")


def text_of(value: Json | Absent) -> str | None:
    """An id as text: interfaces tell it as text or as a whole number."""
    return str(value) if type(value) in (str, int) else None


def _from_source(source: Source | None, headers: Mapping[str, str], body: Json) -> Json | Absent:
    if source is None:
        return ABSENT
    if source.header is not None:
        return headers.get(source.header.lower(), ABSENT)
    return _at(body, source.pointer)


def _at(value: Json, pointer: str | None) -> Json | Absent:
    return ABSENT if pointer is None else value_at(value, tokens_of(pointer))


def _instant(value: Json | Absent) -> Instant | None:
    if isinstance(value, Absent) or value is None:
        return None
    if not isinstance(value, str):
        raise InputError("the answer tells the instant of its last change otherwise than as ISO 8601 text")
    return parse_instant(value)


def _actor(value: Json | Absent, kind: str) -> Actor | None:
    text = text_of(value)
    return None if text is None else Actor(id=text, kind=kind)
