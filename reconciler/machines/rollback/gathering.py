"""Finding out what a rollback means: questions to all partitions, until nothing is missing that a plan needs.

The first question is the selector. What it matched is then asked about everywhere: where else those operations did
something, what depends on them, what refers to resources that they made. What the plan would undo as well joins in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from reconciler.machines.protocol import EmitQuery
from reconciler.machines.rollback.dossiers import Known, decode_dossier, known_of
from reconciler.machines.rollback.head import ASKED, DOSSIER, LEFT_BEHIND, MATCHED, Asked, Gathering, Round
from reconciler.machines.rollback.telling import tell
from reconciler.machines.rollback.turn import Refused, Turn
from reconciler.records import Gathered, GatherQuery, Selector

NAMES_IN_A_QUESTION: Final = 2_000
"""More are asked in several questions: a record has a greatest size."""

_names_decoder: Final = msgspec.json.Decoder(list[str])
_asked_decoder: Final = msgspec.json.Decoder(Asked)


def begin(turn: Turn, select: Selector | None = None, *, is_late_work: bool = False) -> None:
    """Asks every partition what is to be undone: what the request selects, or something else."""
    head = turn.head
    assert head.request is not None and head.request.select is not None
    forget(turn)
    is_new_watch = head.mode == "execute" and not head.is_watched
    gathering = Gathering(
        select=select or head.request.select,
        first_round=head.round + 1,
        rounds=[Round(number=head.round + 1)],
        since_at=turn.now,
        is_late_work=is_late_work,
    )
    if not is_late_work:
        turn.change(late=[])  # what the request selects has them in it
    turn.change(
        round=head.round + 1,
        gathering=gathering,
        is_watched=head.is_watched or is_new_watch,
        positions={},
        then=None,
        halted_for="",
        troubles=[step_id for step_id in head.troubles if _stays(turn, step_id)],
    )
    for partition in range(turn.partitions):
        turn.emit(
            EmitQuery(
                GatherQuery(
                    rollback_id=head.rollback_id,
                    round=gathering.first_round,
                    partition=partition,
                    select=gathering.select,
                    standing=is_new_watch,
                    occurred_at=turn.now,
                )
            )
        )
    tell(turn, "gathering")


def _stays(turn: Turn, step_id: str) -> bool:
    """Whether a step that isn't as it should be stays so, whatever is planned."""
    step = turn.step(step_id)
    return step is not None and step.state in LEFT_BEHIND


def forget(turn: Turn) -> None:
    """Forgets what was gathered."""
    turn.drop_all(DOSSIER, MATCHED, ASKED)


def take_answer(turn: Turn, answer: Gathered) -> bool:
    """Takes a partition's answer. Says whether everything that was asked is answered now."""
    gathering = turn.head.gathering
    asked = (
        None if gathering is None else next((item for item in gathering.rounds if item.number == answer.round), None)
    )
    if not 0 <= answer.partition < turn.partitions or not 1 <= answer.part <= answer.parts:
        raise Refused(f"is no answer of a partition: part {answer.part} of {answer.parts} of {answer.partition}")
    if gathering is None or asked is None or _has(asked, answer):
        return False  # of a question that is over, or the same once more
    keep(turn, answer, str(answer.part))
    if answer.round == gathering.first_round:
        up_to = max(answer.complete_up_to, turn.head.positions.get(answer.partition, 0))
        turn.change(positions={**turn.head.positions, answer.partition: up_to})
    asked = _with(asked, answer)
    is_over = len(asked.parts) == turn.partitions and not asked.seen
    rounds = [asked if item.number == asked.number else item for item in gathering.rounds]
    rounds = [item for item in rounds if not (is_over and item.number == asked.number)]
    turn.change(gathering=msgspec.structs.replace(gathering, rounds=rounds, since_at=turn.now))
    return not rounds


def keep(turn: Turn, answer: Gathered, name: str) -> None:
    """Keeps what an answer tells."""
    for dossier in answer.dossiers:
        turn.store(DOSSIER + dossier.resource, dossier)
    if answer.matched:
        turn.store(f"{MATCHED}{answer.round}:{answer.partition}:{name}", answer.matched)


def _has(asked: Round, answer: Gathered) -> bool:
    partition = answer.partition
    return partition in asked.parts and (
        partition not in asked.seen or answer.part in asked.seen[partition] or answer.parts != asked.parts[partition]
    )


def _with(asked: Round, answer: Gathered) -> Round:
    partition = answer.partition
    seen = sorted([*asked.seen.get(partition, ()), answer.part])
    open_parts = {name: parts for name, parts in asked.seen.items() if name != partition}
    if len(seen) < answer.parts:
        open_parts[partition] = seen
    return msgspec.structs.replace(asked, parts={**asked.parts, partition: answer.parts}, seen=open_parts)


def known(turn: Turn) -> Known:
    """The estate as far as it was told."""
    return known_of((decode_dossier(value) for _, value in turn.entries(DOSSIER)), turn.contracts)


def matched_by_partition(turn: Turn) -> dict[int, set[str]]:
    """The operations that the selector matched and that are meant, by the partition that said so."""
    matched: dict[int, set[str]] = {}
    for entry_id, value in turn.entries(MATCHED):
        matched.setdefault(int(entry_id.split(":")[2]), set()).update(_names_decoder.decode(value))
    return matched


def silent_partitions(turn: Turn) -> list[int]:
    """The partitions from which something is missing."""
    gathering = turn.head.gathering
    rounds = [] if gathering is None else gathering.rounds
    return [
        partition
        for partition in range(turn.partitions)
        if any(partition not in item.parts or partition in item.seen for item in rounds)
    ]


def widen(turn: Turn, found: Known, operations: Iterable[str], removals: Iterable[str]) -> bool:
    """Asks about operations that would be undone, and resources that would go, what wasn't asked yet. Says whether there was
    anything to ask."""
    asked = _asked(turn)
    undone = dict.fromkeys(operations)
    wanted = Asked(
        operations=_new([*undone, *_needed(found, undone)], asked.operations),
        depended_on=_new(undone, asked.depended_on),
        referenced=_new([*removals, *_made(found, undone)], asked.referenced) if _has_references(turn) else [],
    )
    if not (wanted.operations or wanted.depended_on or wanted.referenced):
        return False
    matched = matched_by_partition(turn)
    gathering = turn.head.gathering
    assert gathering is not None
    rounds = list(gathering.rounds)
    for piece in _pieces(wanted):
        number = turn.head.round + 1
        turn.change(round=number)
        turn.store(f"{ASKED}{number}", piece)
        rounds.append(_ask(turn, number, piece, matched))
    rounds = [item for item in rounds if len(item.parts) < turn.partitions or item.seen]
    turn.change(gathering=msgspec.structs.replace(gathering, rounds=rounds, since_at=turn.now))
    return bool(rounds)


def _asked(turn: Turn) -> Asked:
    """All that was asked about beyond the selection."""
    pieces = [_asked_decoder.decode(value) for _, value in turn.entries(ASKED)]
    return Asked(
        operations=[name for piece in pieces for name in piece.operations],
        depended_on=[name for piece in pieces for name in piece.depended_on],
        referenced=[name for piece in pieces for name in piece.referenced],
    )


def _ask(turn: Turn, number: int, wanted: Asked, matched: dict[int, set[str]]) -> Round:
    """One question to all partitions that may have something to say."""
    parts: dict[int, int] = {}
    for partition in range(turn.partitions):
        # What a partition matched it has told with all that the operation did there.
        told = matched.get(partition, set())
        operations = [name for name in wanted.operations if name not in told]
        if not (operations or wanted.depended_on or wanted.referenced):
            parts[partition] = 0
            continue
        turn.emit(
            EmitQuery(
                GatherQuery(
                    rollback_id=turn.head.rollback_id,
                    round=number,
                    partition=partition,
                    operations=operations,
                    depended_on=wanted.depended_on,
                    referenced=wanted.referenced,
                    occurred_at=turn.now,
                )
            )
        )
    return Round(number=number, parts=parts)


def _pieces(wanted: Asked) -> Iterator[Asked]:
    """The names in questions of a bounded size."""
    longest = max(len(wanted.operations), len(wanted.depended_on), len(wanted.referenced))
    for start in range(0, longest, NAMES_IN_A_QUESTION):
        piece = slice(start, start + NAMES_IN_A_QUESTION)
        yield Asked(
            operations=wanted.operations[piece],
            depended_on=wanted.depended_on[piece],
            referenced=wanted.referenced[piece],
        )


def _new(names: Iterable[str], asked: list[str]) -> list[str]:
    known_names = set(asked)
    return [name for name in dict.fromkeys(names) if name not in known_names]


def _needed(found: Known, operations: Iterable[str]) -> Iterator[str]:
    """What operations depend on: of that it matters whether it has ended."""
    for name in operations:
        operation = found.estate.operations.get(name)
        for action in () if operation is None else operation.actions:
            yield from action.depends_on


def _made(found: Known, operations: Iterable[str]) -> Iterator[str]:
    """The resources that operations made: without them, what refers to these would refer to nothing."""
    for name in operations:
        operation = found.estate.operations.get(name)
        for action in () if operation is None else operation.actions:
            if action.operation == "create":
                yield action.resource


def _has_references(turn: Turn) -> bool:
    return any(contract.references for contract in turn.contracts.contracts)
