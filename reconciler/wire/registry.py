"""Schema ids from a registry that speaks Confluent's API: learned once, kept, and never in a record's way.

The registry is asked at the first sight of a subject or an id, and then never again for it. While it can't be reached it is
left alone for `RETRY_AFTER_S` at a time, so that a record waits at most once in that time, and for `TIMEOUT_S`; what was
learned before goes on working, also after a restart where there is a cache file. Ids that the registry doesn't know are
remembered too, as many as `MAX_UNKNOWN_IDS` and for as long as `RETRY_AFTER_S`.

Subjects are named by the TopicNameStrategy, `<topic>-value`, and their compatibility is FULL_TRANSITIVE.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from reconciler.wire.errors import NotRegisteredError, RegistryDownError, RegistryError
from reconciler.wire.schema_folder import SchemaVersion, is_packaged
from reconciler.wire.strict_reader import AvroSchema

COMPATIBILITY: Final = "FULL_TRANSITIVE"
TIMEOUT_S: Final = 3
RETRY_AFTER_S: Final = 30.0
MAX_UNKNOWN_IDS: Final = 1024

_AVRO: Final = "AVRO"
_LOG: Final = logging.getLogger(__name__)


class RegisteredVersion(msgspec.Struct, frozen=True):
    """What registering one version of a subject came to."""

    subject: str
    version: int
    id: int
    is_new: bool


class Registry:
    """One registry. Safe to share between threads."""

    def __init__(
        self,
        url: str,
        *,
        settings: Mapping[str, Any] | None = None,
        cache_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``settings`` are further ones of confluent-kafka's client (credentials, TLS); ``cache_file`` keeps what was learned."""
        self._url = url
        self._clock = clock
        try:
            self._client = SchemaRegistryClient(
                {"url": url, "timeout": TIMEOUT_S, "max.retries": 0, **(settings or {})}
            )
        except (ValueError, TypeError, OSError) as error:
            raise RegistryError(f"the settings of the schema registry can't be used: {error}") from None
        self._learned = _Learned(url, cache_file)
        self._rests_until = -1.0
        self._unknown: dict[int, float] = {}
        self._unregistered: dict[str, float] = {}

    def id_of(self, subject: str, version: SchemaVersion) -> int | None:
        """The id under which a subject has a schema; None where the registry can't be asked just now.

        Raises NotRegisteredError where it hasn't, RegistryError where its answer can't be used.
        """
        known = self._learned.id_of(subject, version)
        if known is not None:
            return known
        if self._clock() < self._unregistered.get(subject, -1.0):
            raise NotRegisteredError(_not_registered(subject, version))
        found = self._ask(lambda: self._client.lookup_schema(subject, Schema(version.text, _AVRO)))
        if found is _NOTHING:
            self._unregistered[subject] = self._clock() + RETRY_AFTER_S
            raise NotRegisteredError(_not_registered(subject, version))
        if found is None:
            return None
        schema_id = _usable(found.schema_id, subject)
        self._learned.keep(subject, version, schema_id)
        return schema_id

    def schema_of(self, schema_id: int) -> AvroSchema | None:
        """The schema of an id, None where there is none, or none of Avro. Raises RegistryDownError."""
        known = self._learned.schema_of(schema_id)
        if known is not None:
            return known
        if self._clock() < self._unknown.get(schema_id, -1.0):
            return None
        found = self._ask(lambda: self._client.get_schema(schema_id))
        if found is None:
            raise RegistryDownError(f"the schema id {schema_id} is unknown here, and the registry can't be asked now")
        schema = None if found is _NOTHING or found.schema_type != _AVRO else _parsed(found.schema_str)
        if schema is None:
            self._remember_unknown(schema_id)
            return None
        self._learned.keep_schema(schema_id, schema)
        return schema

    def register(self, subject: str, versions: Iterable[SchemaVersion]) -> list[RegisteredVersion]:
        """Registers all versions of a schema for a subject, oldest first, and sets the subject's compatibility. What is
        there already stays. Raises RegistryError."""
        try:
            is_set = self._set_compatibility(subject)
            done = [self._register(subject, version) for version in versions]
            if not is_set and not self._set_compatibility(subject):
                raise RegistryError(f"{subject}: the registry doesn't take {COMPATIBILITY} for it")
        except SchemaRegistryError as error:
            raise RegistryError(f"{subject}: the registry refused: {error.error_message}") from None
        except RegistryError:
            raise
        except Exception as error:  # noqa: BLE001  the client lets through whatever its HTTP library raises
            raise RegistryError(
                f"the schema registry at {self._url} can't be reached: {error}; is it running, and the address right?"
            ) from None
        return done

    def _register(self, subject: str, version: SchemaVersion) -> RegisteredVersion:
        schema = Schema(version.text, _AVRO)
        try:
            found: int | None = self._client.lookup_schema(subject, schema).schema_id
            is_new = False
        except SchemaRegistryError as error:
            if error.http_status_code != HTTPStatus.NOT_FOUND:
                raise
            found = self._client.register_schema(subject, schema)
            is_new = True
        schema_id = _usable(found, subject)
        self._learned.keep(subject, version, schema_id)
        return RegisteredVersion(subject, version.version, schema_id, is_new)

    def _set_compatibility(self, subject: str) -> bool:
        """False where the registry wants the subject to exist before it has settings."""
        try:
            self._client.set_compatibility(subject, COMPATIBILITY)
        except SchemaRegistryError as error:
            if error.http_status_code != HTTPStatus.NOT_FOUND:
                raise
            return False
        return True

    def _ask(self, question: Callable[[], Any]) -> Any:
        """The registry's answer; _NOTHING where it says that there is none; None where it can't be asked."""
        if self._clock() < self._rests_until:
            return None
        try:
            return question()
        except SchemaRegistryError as error:
            if error.http_status_code == HTTPStatus.NOT_FOUND:
                return _NOTHING
            reason = error.error_message
        except Exception as error:  # noqa: BLE001  the client lets through whatever its HTTP library raises
            reason = repr(error)
        self._rests_until = self._clock() + RETRY_AFTER_S
        _LOG.warning(
            "schema registry at %s can't be asked: %s; known schemas go on working, next try in %.0f s",
            self._url,
            reason,
            RETRY_AFTER_S,
        )
        return None

    def _remember_unknown(self, schema_id: int) -> None:
        if len(self._unknown) >= MAX_UNKNOWN_IDS:
            del self._unknown[next(iter(self._unknown))]
        self._unknown[schema_id] = self._clock() + RETRY_AFTER_S


_NOTHING: Final = object()


class _CacheFile(msgspec.Struct):
    """What was learned of one registry, as it lies on disk."""

    url: str
    ids: dict[str, dict[int, int]]
    """By subject, by packaged id of the schema."""
    schemas: dict[int, Any]
    """By the registry's id."""


class _Learned:
    """What was learned of a registry. Losing the file loses nothing but the independence from the registry at a start."""

    def __init__(self, url: str, file: Path | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._content = _CacheFile(url, {}, {})
        if file is not None and file.exists():
            try:
                content = msgspec.json.decode(file.read_bytes(), type=_CacheFile)
            except (msgspec.DecodeError, OSError) as error:
                _LOG.warning("%s can't be read and is begun anew: %s", file, error)
            else:
                if content.url == url:
                    self._content = content

    def id_of(self, subject: str, version: SchemaVersion) -> int | None:
        return self._content.ids.get(subject, {}).get(version.id)

    def schema_of(self, schema_id: int) -> AvroSchema | None:
        return self._content.schemas.get(schema_id)

    def keep(self, subject: str, version: SchemaVersion, schema_id: int) -> None:
        with self._lock:
            self._content.ids.setdefault(subject, {})[version.id] = schema_id
            self._content.schemas[schema_id] = version.schema
            self._save()

    def keep_schema(self, schema_id: int, schema: AvroSchema) -> None:
        with self._lock:
            self._content.schemas[schema_id] = schema
            self._save()

    def _save(self) -> None:
        if self._file is None:
            return
        unfinished = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(msgspec.json.encode(self._content))
            unfinished.replace(self._file)
        except OSError as error:
            _LOG.warning("%s can't be written: %s; the next start needs the registry", self._file, error)


def _usable(schema_id: int | None, subject: str) -> int:
    if schema_id is None:
        raise RegistryError(f"{subject}: the registry's answer has no id")
    if is_packaged(schema_id):
        raise RegistryError(
            f"{subject}: the registry gave the id {schema_id}, which stands in the range of packaged ids; "
            "take a registry, or an id range of it, that counts from 1"
        )
    return schema_id


def _parsed(text: str | None) -> AvroSchema | None:
    try:
        return None if text is None else msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None


def _not_registered(subject: str, version: SchemaVersion) -> str:
    return (
        f"{subject}: the registry hasn't version {version.version} of the schema {version.name}; "
        "run `reconciler schemas register`"
    )
