"""Signatures of commands: so that a service obeys the reconciler alone, and not whoever can write to its topic.

A signature is one text header, `reconciler.signature`, of the form ``<key id>:<HMAC-SHA256 of the payload, in hex>``.
The payload is the record's value, byte for byte as it is in the topic; the resource, the epoch and the expiry are inside
it. Key ids make rotation possible: verify with the old and the new key, sign with the new one, take the old one away.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final, Protocol

from reconciler.values.errors import InputError

SIGNATURE_HEADER: Final = "reconciler.signature"
MIN_KEY_BYTES: Final = 32
"""Shorter keys than the digest weaken the MAC (RFC 2104, section 3)."""

_KEY_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Signer(Protocol):
    """Signs what is sent."""

    def sign(self, payload: bytes) -> str:
        """The value of the signature header for a payload."""
        ...


class Verifier(Protocol):
    """Checks what is received."""

    def refusal(self, payload: bytes, signature: str | None) -> str | None:
        """Why a payload with this signature header (None: it has none) must not be obeyed, in one sentence; None: it may."""
        ...


class HmacSigner:
    """Signs with one key. Raises InputError for a key that is too short or an id that can't stand in the header."""

    def __init__(self, key_id: str, key: bytes) -> None:
        _check(key_id, key)
        self._key_id = key_id
        self._key = key

    def sign(self, payload: bytes) -> str:
        return f"{self._key_id}:{_digest(self._key, payload)}"


class HmacVerifier:
    """Verifies with any of several keys, named by their ids. Raises InputError for keys that can't be used."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise InputError("give at least one key to verify signatures with")
        for key_id, key in keys.items():
            _check(key_id, key)
        self._keys = dict(keys)

    def refusal(self, payload: bytes, signature: str | None) -> str | None:
        if signature is None:
            return f"the command is not signed; it needs the header {SIGNATURE_HEADER}"
        key_id, _, claimed = signature.partition(":")
        key = self._keys.get(key_id)
        if key is None:
            return "the command is signed with a key that isn't known here"
        # The comparison takes the same time wherever the texts differ; as bytes, because it refuses non-ASCII text.
        if not hmac.compare_digest(_digest(key, payload).encode(), claimed.encode()):
            return "the command's signature doesn't belong to its content"
        return None


def _check(key_id: str, key: bytes) -> None:
    if _KEY_ID.fullmatch(key_id) is None:
        raise InputError(f"the key id {key_id[:80]!r} may have letters, digits, '.', '_' and '-', at most 64 of them")
    if len(key) < MIN_KEY_BYTES:
        raise InputError(f"the key {key_id!r} has {len(key)} bytes; it needs at least {MIN_KEY_BYTES}")


def _digest(key: bytes, payload: bytes) -> str:
    return hmac.new(key, payload, hashlib.sha256).hexdigest()
