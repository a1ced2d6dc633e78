"""The sampler's settings: from the environment, with limits by target, and errors that name the setting."""

from __future__ import annotations

import pytest

from reconciler.values.errors import InputError
from reconciler.values.instant import SECOND
from streams.sampler.settings import load_sampler_settings


def test_the_defaults_can_be_used() -> None:
    settings = load_sampler_settings()
    assert settings.limits_of("crm") == settings.limits
    assert settings.pace().attention_first == 2 * SECOND
    assert settings.breaker_limits().failures == 5


def test_limits_of_one_target_take_the_rest_from_the_general_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_SAMPLER_LIMITS__TIMEOUT_S", "3")
    monkeypatch.setenv("RECONCILER_SAMPLER_TARGETS", '{"crm": {"reads_per_s": 20}}')
    settings = load_sampler_settings()
    assert (settings.limits_of("crm").reads_per_s, settings.limits_of("crm").timeout_s) == (20, 3)
    assert (settings.limits_of("erp").reads_per_s, settings.limits_of("erp").timeout_s) == (100, 3)


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("ROUTINE_SHARE", "1", "RECONCILER_SAMPLER_ROUTINE_SHARE"),
        ("LIMITS__BURST", "0", "RECONCILER_SAMPLER_LIMITS__BURST"),
        ("TARGETS", '{"crm": {"speed": 1}}', "RECONCILER_SAMPLER_TARGETS__CRM__SPEED"),
        ("TARGETS", "{not json", "RECONCILER_SAMPLER_TARGETS"),
    ],
)
def test_a_setting_that_cant_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, named: str
) -> None:
    monkeypatch.setenv(f"RECONCILER_SAMPLER_{name}", value)
    with pytest.raises(InputError, match=named):
        load_sampler_settings()
