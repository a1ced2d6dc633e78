"""Records to bytes and back, in the Confluent wire format: 0x00, a 4-byte big-endian schema id, the Avro record.

Per record there is no look-up of a schema: a dict from the five leading bytes to a ready reader, and one from topic and
kind to a ready writer. Only an id that was never seen before is asked of the registry, where there is one.

**Two spaces of ids.** A packaged id comes from the lock file and stands in a range that no registry reaches
(`reconciler.wire.schema_folder`); any other id is the registry's. Every codec reads packaged ids; a codec with a registry
writes the registry's ids and reads both. So a topic may hold records of both, and nothing depends on who was up when.
Where the registry is down and an id of its was never learned, a record is written with the packaged id instead.

**Bounds.** A record is refused by its size before anything of it is read; lengths that it claims are held against the bytes
that are there (`strict_reader`); depth is bounded by the schema, and by `json_value.MAX_DEPTH` inside JSON text.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, cast

import fastavro

from reconciler.records import PlainUpdate, Record
from reconciler.wire import action_reader, changelog, plain_reader
from reconciler.wire.conversion import RECORDS, Conversion
from reconciler.wire.errors import (
    DecodeError,
    EncodedTooLargeError,
    EncodeError,
    RecordTooLargeError,
    RegistryError,
    SchemaFolderError,
    UnknownSchemaError,
)
from reconciler.wire.schema_folder import SchemaFolder, SchemaVersion, is_packaged, packaged_folder
from reconciler.wire.strict_reader import AvroSchema, UnreadableSchemaError, compile_reader, read_whole

MAX_RECORD_BYTES: Final = 1024 * 1024
"""Kafka's own default for a record batch (`message.max.bytes`, 1,048,588), less its overhead."""

MAX_STATE_BYTES: Final = 8 * 1024 * 1024
"""For heads, history entries and what is gathered of them, which we write ourselves;
`reconciler.wire.topics` sets their topics so."""

MAGIC: Final = 0
_PREFIX_BYTES: Final = 5

_LOG: Final = logging.getLogger(__name__)

Reader: TypeAlias = Callable[[bytes], Record]
Writer: TypeAlias = Callable[[Record], bytes]

_NAMES: Final = {kind: name for name, kind in RECORDS.items()}
_STATE_KINDS: Final = ("expected_head", "history_entry", "gathered")


class SchemaIds(Protocol):
    """Where ids come from, when not from the lock file alone: `reconciler.wire.registry`."""

    def id_of(self, subject: str, version: SchemaVersion) -> int | None:
        """The id under which a subject has this schema; None where it can't be had just now. Raises RegistryError where
        the registry hasn't it, or gives one that can't be used."""
        ...

    def schema_of(self, schema_id: int) -> AvroSchema | None:
        """The schema of an id, None where there is none. Raises RegistryDownError where it can't be asked."""
        ...


def subject_of(topic: str) -> str:
    """The registry's subject of a topic's values: the TopicNameStrategy, which Kafka UI expects."""
    return f"{topic}-value"


def schema_header(schema_id: int) -> bytes:
    """The five bytes that every record with this schema begins with."""
    return MAGIC.to_bytes(1, "big") + schema_id.to_bytes(4, "big")


class Codec:
    """Writes and reads records. Safe to share between threads."""

    def __init__(
        self, folder: SchemaFolder, ids: SchemaIds | None = None, *, max_record_bytes: int = MAX_RECORD_BYTES
    ) -> None:
        self._ids = ids
        self._max_record_bytes = max_record_bytes
        self._kinds = {name: _Kind(name, folder, self._limit(name)) for name in RECORDS}
        self._by_full_name = {kind.full_name: kind for kind in self._kinds.values()}
        self._readers: dict[bytes, Reader] = {}
        self._of_newest_actions: set[bytes] = set()
        """What actions begin with that are laid out as the readers by hand read them."""
        self._headers: dict[tuple[str, str], bytes] = {}
        self._warned: set[str] = set()
        for version in folder.by_id.values():
            self._learn(schema_header(version.id), self._kinds[version.name], version.schema)

    @classmethod
    def packaged(cls, *, folder: Path | None = None, max_record_bytes: int = MAX_RECORD_BYTES) -> Codec:
        """A codec that needs no registry: ids from the lock file."""
        return cls(packaged_folder() if folder is None else SchemaFolder(folder), max_record_bytes=max_record_bytes)

    @classmethod
    def with_registry(
        cls,
        url: str,
        *,
        settings: Mapping[str, Any] | None = None,
        cache_file: Path | None = None,
        max_record_bytes: int = MAX_RECORD_BYTES,
    ) -> Codec:
        """A codec that takes its ids from a registry; see `reconciler.wire.registry.Registry` for the settings. Nothing is
        asked of it yet. Raises RegistryError where the settings can't be used."""
        from reconciler.wire.registry import Registry  # noqa: PLC0415  costs half a second, which the packaged codec needn't pay

        registry = Registry(url, settings=settings, cache_file=cache_file)
        return cls(packaged_folder(), registry, max_record_bytes=max_record_bytes)

    def encode(self, topic: str, record: Record) -> bytes:
        """The wire bytes of a record for a topic (its whole name). Raises EncodeError."""
        name = _NAMES.get(type(record))
        if name is None:
            raise EncodeError(f"{type(record).__name__} is no record that travels on a topic")
        payload = self._kinds[name].write(self.header(topic, type(record)), record)
        limit = self._limit(name)
        if len(payload) > limit:
            raise EncodedTooLargeError(f"the record has {len(payload)} bytes, more than the limit of {limit}")
        return payload

    def decode(self, payload: bytes | None) -> Record:
        """The record of wire bytes. Raises DecodeError for whatever is wrong with them."""
        if payload is None:
            raise DecodeError("the value is null where a record must be")
        reader = self._readers.get(payload[:_PREFIX_BYTES])
        if reader is None:
            reader = self._unseen(payload)
        return reader(payload)

    def read_plain_update(self, payload: bytes | None) -> PlainUpdate | None:
        """The update of wire bytes, None where they must be decoded, or can't be. That its resource is a key isn't looked at."""
        if payload is None or payload[:_PREFIX_BYTES] not in self._of_newest_actions:
            return None
        return None if len(payload) > self._max_record_bytes else plain_reader.read_plain_update(payload)

    def header(self, topic: str, kind: type[Record]) -> bytes:
        """The magic byte and schema id for records of a kind on a topic: for writers that join bytes themselves."""
        name = _NAMES[kind]
        header = self._headers.get((topic, name))
        return self._new_header(topic, name) if header is None else header

    def prepare(self, uses: Iterable[tuple[str, type[Record]]]) -> None:
        """Learns the ids for topics and kinds beforehand, so that no record waits for the registry. Raises RegistryError
        where it was asked and hasn't them; where it is down, packaged ids serve until it is up."""
        for topic, kind in uses:
            name = _NAMES[kind]
            header = self._registry_header(topic, name)
            if header is not None:
                self._headers[topic, name] = header

    def _limit(self, name: str) -> int:
        return max(MAX_STATE_BYTES, self._max_record_bytes) if name in _STATE_KINDS else self._max_record_bytes

    def _new_header(self, topic: str, name: str) -> bytes:
        packaged = schema_header(self._kinds[name].latest.id)
        if self._ids is None:
            header: bytes | None = packaged
        else:
            try:
                header = self._registry_header(topic, name)
            except RegistryError as error:
                header = None
                if topic not in self._warned:
                    self._warned.add(topic)
                    _LOG.warning("%s; packaged ids serve until then, and Kafka UI can't show these records", error)
        if header is None:
            return packaged  # not remembered: the next record asks again, and the registry's client says when not to
        self._headers[topic, name] = header
        return header

    def _registry_header(self, topic: str, name: str) -> bytes | None:
        """The header with the registry's id; None where there is no registry, or it is down. Raises RegistryError."""
        if self._ids is None:
            return None
        version = self._kinds[name].latest
        schema_id = self._ids.id_of(subject_of(topic), version)
        if schema_id is None:
            return None
        header = schema_header(schema_id)
        if header not in self._readers:
            self._learn(header, self._kinds[name], version.schema)
        return header

    def _unseen(self, payload: bytes) -> Reader:
        """The reader for a schema id that was never seen before. Raises DecodeError."""
        if not payload:
            raise DecodeError("the value is empty where a record must be")
        if payload[0] != MAGIC:
            raise DecodeError(
                f"the value begins with the byte 0x{payload[0]:02x}, not with 0x00 and a schema id; "
                "its producer must write the Confluent wire format"
            )
        if len(payload) < _PREFIX_BYTES:
            raise DecodeError(f"the value ends after {len(payload)} bytes, inside its schema id")
        schema_id = int.from_bytes(payload[1:_PREFIX_BYTES], "big")
        schema = None if self._ids is None or is_packaged(schema_id) else self._ids.schema_of(schema_id)
        if schema is None:
            where = "here, and no registry is configured" if self._ids is None else "here and to the registry"
            raise UnknownSchemaError(f"the schema id {schema_id} is unknown {where}")
        kind = self._by_full_name.get(_full_name(schema))
        if kind is None:
            raise UnknownSchemaError(f"the schema id {schema_id} is {_full_name(schema)}, which is no record of ours")
        try:
            self._learn(payload[:_PREFIX_BYTES], kind, schema)
        except (UnreadableSchemaError, fastavro.schema.SchemaParseException, fastavro.schema.UnknownType) as error:
            raise UnknownSchemaError(f"the schema id {schema_id} can't be used: {error}") from None
        return self._readers[payload[:_PREFIX_BYTES]]

    def _learn(self, header: bytes, kind: _Kind, schema: AvroSchema) -> None:
        """From now on payloads that begin so are read. Raises UnreadableSchemaError."""
        self._readers[header] = kind.reader(schema)
        if plain_reader.IS_SHORTER and kind.reads_plainly(schema):
            self._of_newest_actions.add(header)


class _Kind:
    """One kind of record: how it is written and read in its newest version, and read in others."""

    def __init__(self, name: str, folder: SchemaFolder, limit: int) -> None:
        self.latest = folder.latest(name)
        self.full_name = _full_name(self.latest.schema)
        self._limit = limit
        self._parsed = fastavro.parse_schema(without_logical_types(self.latest.schema))
        self._canonical = fastavro.schema.to_parsing_canonical_form(self.latest.schema)
        try:
            self._conversion = Conversion(self.latest.schema)
        except (TypeError, KeyError) as error:
            raise SchemaFolderError(f"the schema {name} doesn't fit the records of this version: {error}") from None
        self._reads_by_hand = _reader_by_hand(name, self.latest.schema)
        self.write: Callable[[bytes, Record], bytes] = _JOINED.get(name, self._write)

    def reads_plainly(self, schema: AvroSchema) -> bool:
        """Whether records written with a schema may be plain updates."""
        return self._reads_by_hand is action_reader.read_action and self._is_newest(schema)

    def _is_newest(self, schema: AvroSchema) -> bool:
        return fastavro.schema.to_parsing_canonical_form(schema) == self._canonical

    def reader(self, schema: AvroSchema) -> Reader:
        """The reader of records written with a schema. Raises UnreadableSchemaError."""
        read = compile_reader(schema)
        limit = self._limit
        convert = self._conversion.record
        if self._is_newest(schema):

            def read_newest(payload: bytes) -> Record:
                _check_size(payload, limit)
                return convert(read_whole(read, payload, _PREFIX_BYTES))

            if self._reads_by_hand is None:
                return read_newest
            by_hand = self._reads_by_hand

            def read_hot(payload: bytes) -> Record:
                if len(payload) > limit or (record := by_hand(payload)) is None:
                    return read_newest(payload)
                return record

            return read_hot
        writer_schema = fastavro.parse_schema(without_logical_types(schema))
        reader_schema = self._parsed

        def read_other(payload: bytes) -> Record:
            _check_size(payload, limit)
            read_whole(read, payload, _PREFIX_BYTES)  # fastavro may then trust the bytes
            body = io.BytesIO(payload)
            body.seek(_PREFIX_BYTES)
            try:
                raw = fastavro.schemaless_reader(body, writer_schema, reader_schema)
            except (
                fastavro.read.SchemaResolutionError,
                ValueError,
                TypeError,
                KeyError,
                IndexError,
                EOFError,
            ) as error:
                raise DecodeError(f"was written with a schema that can't be read as ours: {error}") from None
            return convert(cast("dict[str, Any]", raw))

        return read_other

    def _write(self, header: bytes, record: Record) -> bytes:
        body = io.BytesIO()
        body.write(header)
        try:
            fastavro.schemaless_writer(body, self._parsed, self._conversion.raw(record))
        except EncodeError:
            raise
        except (ValueError, TypeError, OverflowError, AttributeError) as error:
            raise EncodeError(f"can't be written: {error}") from None
        return body.getvalue()


def _check_size(payload: bytes, limit: int) -> None:
    if len(payload) > limit:
        raise RecordTooLargeError(f"the record has {len(payload)} bytes, more than the limit of {limit}")


_JOINED: Final[dict[str, Callable[[bytes, Any], bytes]]] = {
    "expected_head": changelog.head_bytes,
    "history_entry": changelog.history_entry_bytes,
}
"""Writers that join bytes by hand."""

_BY_HAND: Final[dict[str, tuple[Callable[[AvroSchema], bool], Callable[[bytes], Record | None]]]] = {
    "action": (action_reader.reads, action_reader.read_action),
    "expected_head": (changelog.reads_head, changelog.read_head),
    "history_entry": (changelog.reads_history_entry, changelog.read_history_entry),
}
"""Readers by hand of what is usual in a schema's newest version, and whether they still fit it."""


def _reader_by_hand(name: str, schema: AvroSchema) -> Callable[[bytes], Record | None] | None:
    fits, read = _BY_HAND.get(name, (None, None))
    return read if fits is not None and fits(schema) else None


def _full_name(schema: AvroSchema) -> str:
    if not isinstance(schema, dict) or schema.get("type") != "record":
        return f"the type {schema if isinstance(schema, str) else '?'}"
    name: str = schema["name"]
    return name if "." in name or not schema.get("namespace") else f"{schema['namespace']}.{name}"


def without_logical_types(schema: AvroSchema) -> AvroSchema:
    """The same schema with plain integers and bytes where instants and decimals stand: a fifth faster to read."""
    if isinstance(schema, dict):
        return {key: without_logical_types(value) for key, value in schema.items() if key not in ("logicalType", "doc")}
    if isinstance(schema, list):
        return [without_logical_types(item) for item in schema]
    return schema
