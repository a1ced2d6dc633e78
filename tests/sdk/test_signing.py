from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.sdk.signing import HmacSigner, HmacVerifier
from reconciler.values.errors import InputError

OLD, NEW = b"o" * 32, b"n" * 32


@given(payload=st.binary())
def test_what_was_signed_is_accepted_by_every_key_of_a_rotation(payload: bytes) -> None:
    verifier = HmacVerifier({"2025": OLD, "2026": NEW})
    assert verifier.refusal(payload, HmacSigner("2025", OLD).sign(payload)) is None
    assert verifier.refusal(payload, HmacSigner("2026", NEW).sign(payload)) is None


@given(payload=st.binary(min_size=1), data=st.data())
def test_any_changed_bit_is_noticed(payload: bytes, data: st.DataObject) -> None:
    signature = HmacSigner("k", OLD).sign(payload)
    bit = data.draw(st.integers(0, len(payload) * 8 - 1))
    changed = bytearray(payload)
    changed[bit // 8] ^= 1 << bit % 8
    assert HmacVerifier({"k": OLD}).refusal(bytes(changed), signature) is not None


def test_the_header_is_what_other_languages_can_make() -> None:
    assert HmacSigner("k", OLD).sign(b"payload") == "k:" + hmac.new(OLD, b"payload", hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("signature", "why"),
    [
        (None, "not signed"),
        ("", "isn't known"),
        ("nobody:00", "isn't known"),
        (HmacSigner("other", NEW).sign(b"payload"), "isn't known"),
        (HmacSigner("k", NEW).sign(b"payload"), "doesn't belong"),
        ("k:", "doesn't belong"),
        ("k:ä", "doesn't belong"),
        (HmacSigner("k", OLD).sign(b"payload").upper(), "isn't known"),
        (HmacSigner("k", OLD).sign(b"payload") + "0", "doesn't belong"),
    ],
)
def test_anything_else_is_refused_with_its_reason(signature: str | None, why: str) -> None:
    refusal = HmacVerifier({"k": OLD}).refusal(b"payload", signature)
    assert refusal is not None and why in refusal


def test_weak_keys_and_strange_ids_are_refused_at_once() -> None:
    with pytest.raises(InputError, match="31 bytes"):
        HmacSigner("k", b"x" * 31)
    with pytest.raises(InputError, match="key id"):
        HmacSigner("a:b", OLD)
    with pytest.raises(InputError, match="31 bytes"):
        HmacVerifier({"k": b"x" * 31})
    with pytest.raises(InputError, match="at least one"):
        HmacVerifier({})
