"""The settings of `reconciler serve`: environment variables with the prefix RECONCILER_SERVE_, besides the general ones."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from reconciler.records import CommandAction
from reconciler.sdk.consumer.settings import Entitlement
from reconciler.sdk.signing import HmacVerifier, Verifier
from reconciler.values.errors import InputError

_PREFIX = "RECONCILER_SERVE_"


class ServeSettings(BaseSettings):
    """Every setting, with its default."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid", frozen=True)

    group: str | None = Field(
        None, min_length=1, description="Consumer group; by default the name of the commands' topic."
    )
    apply_timeout_s: float = Field(20.0, gt=0, description="How long the target may take to apply one command.")
    concurrency: int = Field(8, ge=1, le=1_000, description="Resources that are worked on at a time.")
    max_waiting: int = Field(1_000, ge=1, description="Commands that are read ahead.")
    stop_timeout_s: float = Field(25.0, gt=0, description="How long a stop waits for the commands under way.")
    actions: frozenset[CommandAction] | None = Field(
        None, description='What the reconciler may do here, as JSON: ["patch", "create"]; everything by default.'
    )
    types: frozenset[str] | None = Field(
        None, description='Which resource types it may touch, as JSON: ["contact"]; all by default.'
    )
    signing_keys_file: Path | None = Field(
        None,
        description="JSON file of the keys that commands may be signed with, by their ids, each in base64; unsigned commands "
        "are then rejected.",
    )

    def entitlement(self) -> Entitlement:
        """What the reconciler may do here."""
        return Entitlement(actions=self.actions, types=self.types)

    def verifier(self) -> Verifier | None:
        """The verifier of signatures, None where none are asked for. Raises InputError for a file that can't be used."""
        return None if self.signing_keys_file is None else HmacVerifier(read_keys(self.signing_keys_file))


def read_keys(path: Path) -> dict[str, bytes]:
    """The keys of a file. Raises InputError, which never shows a key."""
    remedy = 'it must hold a JSON object such as {"2026-05": "<base64 of at least 32 random bytes>"}'
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"the signing keys {str(path)!r} can't be read: {error.strerror or error}") from None
    except ValueError:
        raise InputError(f"the signing keys {str(path)!r} can't be used: {remedy}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content.values()):
        raise InputError(f"the signing keys {str(path)!r} can't be used: {remedy}")
    try:
        return {key_id: base64.b64decode(key, validate=True) for key_id, key in content.items()}
    except ValueError:  # of which binascii.Error is one
        raise InputError(f"the signing keys {str(path)!r} can't be used: {remedy}") from None


def load_serve_settings(**overrides: Any) -> ServeSettings:
    """The settings of the environment, with what is given here on top. Raises InputError in one sentence."""
    try:
        return ServeSettings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper() if first["loc"] else ""
        message = first["msg"][:1].lower() + first["msg"][1:]
        raise InputError(f"the setting {_PREFIX}{name} can't be used: {message}") from None
    except SettingsError as error:
        raise InputError(f"the settings {_PREFIX}… can't be used: {error}") from None
