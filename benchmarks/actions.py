"""Actions to measure with: somebody's own file, or made from a seed."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator
from pathlib import Path

import orjson

_FIELDS = ("name", "email", "phone", "owner", "stage", "city", "tags", "score", "note", "tier")
_RESOURCES = 5_000


def lines(file: Path | None, records: int) -> Iterator[bytes]:
    """JSON Lines: those of a file, or so many generated ones."""
    if file is None:
        yield from _generated(records)
        return
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rb") as content:
        yield from (line for line in content if line.strip())


def _generated(records: int) -> Iterator[bytes]:
    """Updates of one to three of ten fields of 5,000 contacts, with a truthful `before`: seed 1."""
    rnd = random.Random(1)
    state: dict[int, dict[str, object]] = {}
    for number in range(records):
        contact = rnd.randrange(_RESOURCES)
        known = state.setdefault(contact, {})
        set_ = {f"/{name}": f"value {rnd.randrange(1000)}" for name in rnd.sample(_FIELDS, rnd.randint(1, 3))}
        before = {path: known[path] for path in set_ if path in known}
        known.update(set_)
        yield orjson.dumps(
            {
                "operation_id": f"run-{number // 4}/step-{number % 4}",
                "action_id": f"{number:032x}",
                "stage": "succeeded",
                "workflow_id": "lead-intake",
                "workflow_version": "12",
                "run_id": f"run-{number // 4}",
                "step_id": f"step-{number % 4}",
                "sequence": number % 4,
                "actor": {"id": "lead-intake", "kind": "workflow"},
                "occurred_at": f"2026-05-{1 + number * 27 // records:02d}T10:00:00Z",
                "resource": f"crm/contact/{contact}",
                "operation": "update",
                "before": before,
                "set": set_,
            }
        )
