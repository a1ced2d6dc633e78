"""The head of a resource: all that the resource machine knows but the history, as one frozen value of the table."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from reconciler.contracts.model import Contract
from reconciler.history.chain import FIRST
from reconciler.history.entry import Entry, Facts
from reconciler.history.resource import EMPTY_BASE, Base, ResourceHistory
from reconciler.history.tree import UNKNOWN, Node
from reconciler.machines.protocol import HistoryReader
from reconciler.records import Command, Dossier, FieldDrift, Observation, UndoStep, Verdict
from reconciler.values.instant import Instant
from reconciler.values.json_value import ABSENT, Absent, Json

ACTION_PREFIX: Final = "a:"
BASE_ENTRY: Final = "base"
OBSERVATION_ENTRY: Final = "observation"
"""The ids of the history's entries: an action's is its action_id after the prefix; the collapsed base and the last
observation have one each, written over."""

HoldKind: TypeAlias = Literal["person", "fight", "failure"]


class Drift(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A drift that is open."""

    drift_id: str
    verdict: Verdict
    changes: list[FieldDrift]
    seen: dict[str, int]
    """In how many observations running each path has drifted."""
    version: str | None = None
    observed_at: Instant | None = None
    traceparent: str | None = None
    """The trace of the last step that wrote one of the fields."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step of a rollback that waits for its turn, and then for an observation."""

    order: UndoStep
    fresh_at: Instant
    """Only an observation made then, or later, says what the step has to know."""
    give_up_at: Instant | None = None
    """When it has waited long enough; None until it is its turn."""
    tries: int = 0
    """How often its command was refused because the target had changed."""


class Adopted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value of somebody else's that an undo keeps, to be taken as expected."""

    path: str
    value: Json | Absent = ABSENT


class Doubt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The command is out of attempts, and nobody knows whether the target carried it out: an observation tells."""

    since_at: Instant
    until_at: Instant
    """Until then it may still be carried out."""
    error: str


class Sent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the pending command is to a rollback."""

    order: UndoStep
    reversals: list[str] = []
    """The action_ids of the reversals that were written down when the command was sent: taken back if it fails for good."""
    adopt: list[Adopted] = []
    tries: int = 0
    doubt: Doubt | None = None
    attempts_before: int = 0
    """Attempts at the same command that an earlier step has made."""


class Pending(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A command that was sent and of which the outcome isn't known, or that is to be sent once more at ``retry_at``."""

    command: Command
    deadline_at: Instant
    retry_at: Instant | None = None
    sent: Sent | None = None
    """Of a rollback's command."""


class Unverified(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step that was applied, by the word of the target, and is to be seen."""

    rollback_id: str
    step_id: str
    command_id: str
    paths: list[str]
    applied_at: Instant
    traceparent: str | None = None


class Hold(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A stop on corrections of this resource, until a person releases it."""

    kind: HoldKind
    reason: str
    since_at: Instant


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state of a resource."""

    resource: str
    tree: Node = UNKNOWN
    entries: int = 0
    """The number of the last entry of the history."""
    links: int = 0
    """How many records of the ledger were taken, at whatever stage."""
    chain: str = FIRST
    """The last link of the ledger's chain (`reconciler.history.chain`)."""
    collapsed: int = 0
    """Entries up to this number are no more in the history: they collapsed into its base."""
    undone: list[int] = []
    in_flight: dict[str, Instant] = {}
    """Operations that began and haven't ended, and when."""
    last_write_at: Instant | None = None
    observed_at: Instant | None = None
    unknown: str | None = None
    """Why the last sample could not be taken, if it could not."""
    drift: Drift | None = None
    pending: Pending | None = None
    hold: Hold | None = None
    corrected: dict[str, list[Instant]] = {}
    """When the paths were corrected in the last hour."""
    failed: list[str] = []
    """Signatures of commands that failed for good since the drift opened: they are not sent again."""
    settled: list[str] = []
    """The ids of the last commands of which the outcome is known, so that an outcome that comes again is recognised."""
    decided: list[str] = []
    """The ids of people's last decisions, likewise."""
    attempts: dict[str, int] = {}
    """The last attempts at commands that make an effect good and failed for good. One keeps its id in every plan, so that the
    effect is made good once; only a higher attempt makes its target judge it anew."""
    echoed: list[str] = []
    """The action_ids of the last echoes of our own commands, likewise."""
    steps: list[Waiting] = []
    """Steps of rollbacks whose turn has not come, or that wait for an observation."""
    unverified: list[Unverified] = []
    stepped: list[str] = []
    """The ids of the last steps that are over, so that one that comes again is recognised."""


_head_decoder: Final = msgspec.json.Decoder(Head)
_entry_decoder: Final = msgspec.json.Decoder(Entry)
_base_decoder: Final = msgspec.json.Decoder(Base)
_observation_decoder: Final = msgspec.json.Decoder(Observation)
_encoder: Final = msgspec.json.Encoder()


def encode(value: Head | Entry | Facts | Base | Observation) -> bytes:
    """The JSON text of a stored value; the same value gives the same bytes."""
    return _encoder.encode(value)


def decode_head(value: bytes) -> Head:
    """The head of a table value. Raises msgspec.DecodeError for bytes that no machine wrote."""
    return _head_decoder.decode(value)


def decode_entry(value: bytes) -> Entry:
    """An entry of the history's store. Raises msgspec.DecodeError likewise."""
    return _entry_decoder.decode(value)


def entry_of(history: HistoryReader, action_id: str) -> Entry | None:
    """The history's entry of an action."""
    value = history.get(ACTION_PREFIX + action_id)
    return None if value is None else _entry_decoder.decode(value)


def last_observation(history: HistoryReader) -> Observation | None:
    """The last observation of the resource that said anything."""
    value = history.get(OBSERVATION_ENTRY)
    return None if value is None else _observation_decoder.decode(value)


def whole_history(history: HistoryReader) -> tuple[Base, list[Entry]]:
    """The base and all entries in their order."""
    base = EMPTY_BASE
    entries: list[Entry] = []
    for entry_id, value in history.entries():
        if entry_id == BASE_ENTRY:
            base = _base_decoder.decode(value)
        elif entry_id.startswith(ACTION_PREFIX):
            entries.append(_entry_decoder.decode(value))
    return base, sorted(entries, key=lambda entry: entry.number)


def history_of(head: Head, history: HistoryReader, contract: Contract) -> ResourceHistory:
    """The whole history of a resource, put together again."""
    base, entries = whole_history(history)
    return ResourceHistory.restored(
        head.resource, contract, entries, base=base, collapsed=head.collapsed, in_flight=head.in_flight
    )


def history_in(dossier: Dossier, contract: Contract) -> ResourceHistory:
    """The history that a dossier tells of. Raises msgspec.DecodeError for texts that no machine wrote."""
    return ResourceHistory.restored(
        dossier.resource,
        contract,
        [_entry_decoder.decode(text) for text in dossier.entries],
        base=EMPTY_BASE if dossier.base is None else _base_decoder.decode(dossier.base),
        collapsed=dossier.collapsed,
        in_flight=dossier.in_flight,
    )
