"""Errors of the wire.

ReconcilerError
├── InputError
│   └── WireError                       bytes or a record that can't cross the wire
│       ├── EncodeError                 a record that can't be written
│       │   └── EncodedTooLargeError    … because it has more bytes than the limit
│       └── DecodeError                 bytes that can't be used: whatever is wrong with them, it is this or one of these
│           ├── RecordTooLargeError     more bytes than the limit
│           └── UnknownSchemaError      a schema id that names no schema of ours
│               └── RegistryDownError   … as far as is known while the registry can't be asked: reading it later may work
├── SchemaFolderError                   the schemas that this installation brings are incomplete or contradict their lock
└── RegistryError                       the schema registry refused, or could not be asked, when a person asked for it
"""

from __future__ import annotations

from reconciler.values.errors import InputError, ReconcilerError


class WireError(InputError):
    """Bytes or a record that can't cross the wire. ``field`` is the place inside the record, such as ``changes[2].op``."""


class EncodeError(WireError):
    """A record that can't be written."""


class EncodedTooLargeError(EncodeError):
    """A record that has more bytes than the limit."""


class DecodeError(WireError):
    """Bytes that can't be used."""

    def within(self, place: str) -> DecodeError:
        """The same error, seen from the record around it."""
        separator = "" if not self.field or self.field.startswith("[") else "."
        return type(self)(self.message, field=f"{place}{separator}{self.field}")


class RecordTooLargeError(DecodeError):
    """More bytes than the limit."""


class UnknownSchemaError(DecodeError):
    """A schema id that names no schema of ours."""


class RegistryDownError(UnknownSchemaError):
    """A schema id that isn't known here while the registry can't be asked: reading it later may work."""


class SchemaFolderError(ReconcilerError):
    """The schemas that this installation brings are incomplete or contradict their lock."""


class RegistryError(ReconcilerError):
    """The schema registry refused, or could not be asked, when a person asked for it."""


class NotRegisteredError(RegistryError):
    """The registry was asked, and hasn't the schema."""
