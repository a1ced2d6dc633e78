"""Between a hash and the tree of a resource's fields. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.records import Actor, Observation
from reconciler.targets.answers import found, missing, unknown
from reconciler.targets.apply import Fields
from reconciler.targets.numbers import keeps_numbers
from reconciler.targets.redis_hash.config import HashConfig
from reconciler.targets.redis_hash.scripts import Write
from reconciler.values.errors import InputError
from reconciler.values.instant import Instant, format_instant, parse_instant
from reconciler.values.json_value import Absent, canonical, parse, same
from reconciler.values.pointer import path_of


def observed(config: HashConfig, resource: str, held: Mapping[bytes, bytes], observed_at: Instant) -> Observation:
    """A hash as an observation. Redis has no empty hash: one without fields isn't there."""
    if not held:
        return missing(resource, observed_at)
    fields: Fields = {}
    own: dict[str, str] = {}
    for raw_name, raw in held.items():
        try:
            name = raw_name.decode()
        except UnicodeDecodeError:
            return unknown(resource, f"the hash has a field {raw_name!r} whose name isn't UTF-8", observed_at)
        try:
            if name in config.own_fields:
                own[name] = raw.decode()
            else:
                fields[name] = parse(raw)
        except (UnicodeDecodeError, InputError):
            return unknown(
                resource, f"the hash field {name!r} holds no JSON text that we can keep exactly", observed_at
            )
    try:
        modified_at = _instant(config, own)
    except InputError as error:
        return unknown(resource, str(error), observed_at)
    modified_by = None if config.modified_by is None else own.get(config.modified_by)
    return found(
        resource,
        fields,
        observed_at,
        version=None if config.version is None else own.get(config.version),
        modified_at=modified_at,
        modified_by=None if modified_by is None else Actor(id=modified_by, kind=config.modified_by_kind),
    )


def _instant(config: HashConfig, own: Mapping[str, str]) -> Instant | None:
    if config.modified_at is None or config.modified_at not in own:
        return None
    try:
        return parse_instant(own[config.modified_at])
    except InputError as error:
        raise InputError(f"the hash field {config.modified_at!r}: {error.message}") from None


def write_of(
    config: HashConfig,
    held: Mapping[bytes, bytes],
    current: Fields | Absent,
    result: Fields | Absent,
    now: Instant,
    origin: str,
) -> Write:
    """What makes the hash, held as it is, into the result. Raises InputError naming what a hash can't be."""
    own = {name.encode() for name in config.own_fields}
    members = {name: text for name, text in held.items() if name not in own}
    if isinstance(result, Absent):
        return Write(held=len(held), delete=True, expected=members)
    before: Fields = {} if isinstance(current, Absent) else current
    changed = sorted(
        name
        for name in before.keys() | result.keys()
        if name not in before or name not in result or not same(before[name], result[name])
    )
    for name in changed:
        if name in config.own_fields:
            raise InputError("the hash keeps something of its own under this name", field=path_of((name,)))
        if name in before and isinstance(before[name], dict | list) and not keeps_numbers(held[name.encode()].decode()):
            raise InputError(
                "the hash holds a number here with more digits than we can give back", field=path_of((name,))
            )
    stays = config.version is not None or bool(own & held.keys()) or bool(_stamp(config, now, origin))
    if not result and not stays:
        raise InputError("a hash without fields vanishes: configure `version`, whose field stays")
    names = {name: name.encode() for name in changed}
    return Write(
        held=0 if isinstance(current, Absent) else None,
        expected={raw: members[raw] for raw in names.values() if raw in members},
        absent=tuple(raw for raw in names.values() if raw not in members),
        set={names[name]: canonical(result[name]) for name in changed if name in result} | _stamp(config, now, origin),
        unset=tuple(names[name] for name in changed if name not in result),
    )


def _stamp(config: HashConfig, now: Instant, origin: str) -> dict[bytes, bytes]:
    stamp: dict[bytes, bytes] = {}
    if config.origin_field is not None:
        stamp[config.origin_field.encode()] = origin.encode()
    if config.written_by is None:
        return stamp
    if config.modified_at is not None:
        stamp[config.modified_at.encode()] = format_instant(now).encode()
    if config.modified_by is not None:
        stamp[config.modified_by.encode()] = config.written_by.encode()
    return stamp
