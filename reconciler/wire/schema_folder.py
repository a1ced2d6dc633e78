"""The schemas that this installation brings, and the lock that gives each committed version its packaged id.

    schemas/action.avsc                what `action` is to be: the working schema
    schemas/versions/action/1.avsc     what it was when version 1 was committed: never changed again
    schemas/lock.json                  the packaged id and the fingerprint of every committed version

Packaged ids stand in a range of their own, from `FIRST_PACKAGED_ID` on, which no registry reaches: registries count from
1. So an id says by itself which of the two gave it, and records written with either can lie side by side in one topic.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec

from reconciler.values.json_value import canonical
from reconciler.wire.errors import SchemaFolderError
from reconciler.wire.strict_reader import AvroSchema

FIRST_PACKAGED_ID: Final = 0x52430001
LAST_PACKAGED_ID: Final = 0x5243FFFF
"""The range of packaged ids; its first two bytes are "RC" in ASCII."""

LOCK_FILE: Final = "lock.json"
VERSIONS_FOLDER: Final = "versions"


def is_packaged(schema_id: int) -> bool:
    """Whether an id is one of ours rather than a registry's."""
    return FIRST_PACKAGED_ID <= schema_id <= LAST_PACKAGED_ID


class LockEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the lock says about one committed version."""

    version: int
    id: int
    fingerprint: str


class Lock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The lock file."""

    schemas: dict[str, list[LockEntry]]


class SchemaVersion(msgspec.Struct, frozen=True):
    """One committed version of a schema. ``text`` has no white space around it: some registries find a schema by its text, and
    clients strip it."""

    name: str
    version: int
    id: int
    schema: dict[str, Any]
    text: str


class SchemaFolder:
    """A folder of schemas. Reading a committed version checks it against the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def lock(self) -> Lock:
        """The lock. Raises SchemaFolderError."""
        file = self.path / LOCK_FILE
        try:
            return msgspec.json.decode(_read(file), type=Lock)
        except msgspec.DecodeError as error:
            raise SchemaFolderError(f"{file} can't be used: {error}; restore it from version control") from None

    @cached_property
    def versions(self) -> dict[str, tuple[SchemaVersion, ...]]:
        """The committed versions by schema name, oldest first. Raises SchemaFolderError."""
        return {
            name: tuple(self._version(name, entry) for entry in entries) for name, entries in self.lock.schemas.items()
        }

    @cached_property
    def by_id(self) -> dict[int, SchemaVersion]:
        """The committed versions by packaged id."""
        return {version.id: version for versions in self.versions.values() for version in versions}

    def latest(self, name: str) -> SchemaVersion:
        """The newest committed version. Raises SchemaFolderError where there is none."""
        versions = self.versions.get(name, ())
        if not versions:
            raise SchemaFolderError(f"{self.path} has no committed version of the schema {name}; reinstall the package")
        return versions[-1]

    def working_names(self) -> list[str]:
        """The names of the working schemas."""
        return sorted(file.stem for file in self.path.glob("*.avsc"))

    def working(self, name: str) -> tuple[str, AvroSchema]:
        """The text of a working schema, and what it says. Raises SchemaFolderError."""
        return _schema(self.path / f"{name}.avsc")

    def version_file(self, name: str, version: int) -> Path:
        """Where a committed version lies."""
        return self.path / VERSIONS_FOLDER / name / f"{version}.avsc"

    def _version(self, name: str, entry: LockEntry) -> SchemaVersion:
        file = self.version_file(name, entry.version)
        text, schema = _schema(file)
        if fingerprint(schema) != entry.fingerprint:
            raise SchemaFolderError(
                f"{file} was changed after it was committed; restore it, and put the change into {name}.avsc"
            )
        if not is_packaged(entry.id):
            raise SchemaFolderError(
                f"{self.path / LOCK_FILE} gives {name} the id {entry.id}, outside of the packaged range"
            )
        return SchemaVersion(name, entry.version, entry.id, schema, text.strip())


def fingerprint(schema: AvroSchema) -> str:
    """A digest (BLAKE2b, 16 bytes, hex) of all that a schema says, docs included; white space and order of keys don't count."""
    return hashlib.blake2b(canonical(schema), digest_size=16).hexdigest()


def packaged_folder() -> SchemaFolder:
    """The schemas beside this code: inside the installed package, or at the root of a checkout."""
    package = Path(__file__).resolve().parents[1]
    for path in (package / "_schemas", package.parent / "schemas"):
        if (path / LOCK_FILE).is_file():
            return SchemaFolder(path)
    raise SchemaFolderError(f"the schemas are missing beside {package}; reinstall the package")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise SchemaFolderError(f"{file} can't be read: {error.strerror}") from None


def _schema(file: Path) -> tuple[str, AvroSchema]:
    text = _read(file)
    try:
        return text, msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise SchemaFolderError(f"{file} is not JSON: {error}") from None
