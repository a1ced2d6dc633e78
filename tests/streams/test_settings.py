"""Settings: the environment, what contradicts itself, and what reaches the clients."""

from __future__ import annotations

import ssl
from pathlib import Path

import faust
import pytest

from reconciler.values.errors import InputError
from streams.exits import ExitCode
from streams.settings import Settings, load_settings
from streams.worker.app import _credentials


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_BOOTSTRAP_SERVERS", "kafka:9092")
    monkeypatch.setenv("RECONCILER_PARTITIONS", "24")
    settings = load_settings()
    assert (settings.bootstrap_servers, settings.partitions) == ("kafka:9092", 24)
    assert load_settings(partitions=3).partitions == 3


def test_an_error_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_PARTITIONS", "many")
    with pytest.raises(
        InputError, match="the setting RECONCILER_PARTITIONS can't be used: input should be a valid integer"
    ):
        load_settings()


def test_a_misspelt_name_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_BOOTSTRAP_SERVER", "kafka:9092")
    with pytest.raises(InputError, match="did you mean RECONCILER_BOOTSTRAP_SERVERS"):
        load_settings()


def test_names_of_other_parts_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_SAMPLER_LIMITS__TIMEOUT_S", "3")
    monkeypatch.setenv("RECONCILER_REPLICATION_FACTOR", "3")
    load_settings()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"security_protocol": "SASL_SSL"}, "sasl_mechanism"),
        ({"ssl_key_file": Path("key.pem")}, "both or neither"),
        ({"session_timeout_s": 5, "heartbeat_interval_s": 3}, "a third"),
    ],
)
def test_contradictions(given: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_settings(**given)


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_secrets_are_not_shown() -> None:
    settings = load_settings(
        security_protocol="SASL_SSL", sasl_mechanism="PLAIN", sasl_username="me", sasl_password="hush"
    )
    assert "hush" not in repr(settings)
    assert settings.client_config()["sasl.password"] == "hush"


def test_row_13_tls_is_a_context() -> None:
    """Without this, `SSLCredentials(cafile=…)` raises TypeError, and no worker starts on a cluster with TLS."""
    with pytest.raises(TypeError):
        faust.SSLCredentials(cafile="/nowhere")
    credentials = _credentials(load_settings(security_protocol="SSL"))
    assert isinstance(credentials.context, ssl.SSLContext)
    settings = load_settings(
        security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-512", sasl_username="me", sasl_password="hush"
    )
    credentials = _credentials(settings)
    assert isinstance(credentials.ssl_context, ssl.SSLContext)
    assert (credentials.username, credentials.mechanism.value) == ("me", "SCRAM-SHA-512")
    assert _credentials(load_settings()) is None


def test_tls_files_that_cannot_be_read() -> None:
    with pytest.raises(InputError, match="RECONCILER_SSL_CA_FILE"):
        load_settings(security_protocol="SSL", ssl_ca_file="/nowhere/ca.pem").ssl_context()


def test_every_setting_stands_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "worker.md").read_text()
    missing = [name for name in Settings.model_fields if f"`RECONCILER_{name.upper()}`" not in page]
    assert missing == []


def test_every_exit_code_stands_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "worker.md").read_text()
    assert [code.name for code in ExitCode if f"| {code.value} |" not in page] == []
