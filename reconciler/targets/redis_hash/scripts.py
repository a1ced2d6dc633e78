"""The scripts that Redis runs as a whole: compare, write and remember are one step, so no crash comes between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from reconciler.records import Record

_REMEMBERED: Final = """
local function remembered(key, attempt)
    local text = redis.call('GET', key)
    if not text then return nil end
    local first = cjson.decode(text)
    if first.status == 'applied' or first.status == 'already_applied' or attempt <= first.attempt then return text end
    return nil
end
"""

REMEMBER: Final = (
    _REMEMBERED
    + """
-- KEYS: remembered command. ARGV: what to remember, its attempt, seconds to keep it.
local first = remembered(KEYS[1], tonumber(ARGV[2]))
if first then return {'repeated', first} end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
return {'remembered'}
"""
)

WRITE: Final = (
    _REMEMBERED
    + """
-- KEYS: hash, remembered command.
-- ARGV: what to remember, its attempt, seconds to keep it, fields the hash must have (or '' for "any, but at least one"),
--       field to count writes in (or ''), 'delete' or 'write', then three counted lists: expected (field, text),
--       expected to be absent (field), to set (field, text), to take out (field).
local first = remembered(KEYS[2], tonumber(ARGV[2]))
if first then return {'repeated', first} end

local held = redis.call('HLEN', KEYS[1])
if ARGV[4] == '' then
    if held == 0 then return {'changed'} end
elseif held ~= tonumber(ARGV[4]) then
    return {'changed'}
end

local at = 7
local function counted(width, each)
    local count = tonumber(ARGV[at])
    at = at + 1
    for _ = 1, count do
        if each(ARGV[at], ARGV[at + 1]) == false then return false end
        at = at + width
    end
    return true
end

if not counted(2, function(field, text) return redis.call('HGET', KEYS[1], field) == text end) then return {'changed'} end
if not counted(1, function(field) return redis.call('HEXISTS', KEYS[1], field) == 0 end) then return {'changed'} end

if ARGV[6] == 'delete' then
    redis.call('DEL', KEYS[1])
else
    if ARGV[5] ~= '' then redis.call('HINCRBY', KEYS[1], ARGV[5], 1) end
    counted(2, function(field, text) redis.call('HSET', KEYS[1], field, text) end)
    counted(1, function(field) redis.call('HDEL', KEYS[1], field) end)
end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[3])
return {'applied', redis.call('HGETALL', KEYS[1])}
"""
)


class Write(Record, frozen=True, kw_only=True):
    """What `WRITE` compares and writes. ``held`` None: the hash must be there, with any number of fields."""

    held: int | None
    delete: bool = False
    expected: Mapping[bytes, bytes] = {}
    absent: tuple[bytes, ...] = ()
    set: Mapping[bytes, bytes] = {}
    unset: tuple[bytes, ...] = ()

    def arguments(self, remembered: bytes, attempt: int, keep_s: int, counter: str | None) -> list[bytes | int | str]:
        """The script's ARGV."""
        return [
            remembered,
            attempt,
            keep_s,
            "" if self.held is None else self.held,
            counter or "",
            "delete" if self.delete else "write",
            len(self.expected),
            *(text for pair in self.expected.items() for text in pair),
            len(self.absent),
            *self.absent,
            len(self.set),
            *(text for pair in self.set.items() for text in pair),
            len(self.unset),
            *self.unset,
        ]


def command_key(prefix: str, hash_key: bytes, command_id: str) -> bytes:
    """Where a command is remembered: in a cluster, in the same slot as its hash (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags)."""
    _, opened, rest = hash_key.partition(b"{")
    tag, closed, _ = rest.partition(b"}")
    if not (opened and closed and tag):
        tag = hash_key
    return b"%s{%s}:%s" % (prefix.encode(), tag, command_id.encode())
