"""Many more random histories than hypothesis gets through, from seeds: a failure names the seed that shows it again.

`RECONCILER_SEEDS=100000 pytest tests/core/test_random_histories.py` goes on for as long as one likes.
"""

from __future__ import annotations

import os
import random
from typing import Any

from reconciler.contracts.model import DEFAULT_CONTRACT
from reconciler.history.tree import equal
from reconciler.history.undo import without
from reconciler.records import Action
from tests.core.histories import make_action
from tests.core.test_history_against_replay import both, tree_of

SEEDS = int(os.environ.get("RECONCILER_SEEDS", "1500"))
_NAMES = "abc"
_SCALARS: list[Any] = [None, True, 0, 1, 1.0, "1", "", "x", [], [1], ["a", "b"]]


def _value(rnd: random.Random, depth: int = 0) -> Any:
    if rnd.random() < 0.5 or depth > 2:
        return rnd.choice(_SCALARS)
    return {rnd.choice(_NAMES): _value(rnd, depth + 1) for _ in range(rnd.randint(0, 2))}


def _path(rnd: random.Random) -> str:
    return "".join(f"/{rnd.choice(_NAMES)}" for _ in range(rnd.randint(1, 3)))


def _actions(rnd: random.Random) -> list[Action]:
    actions = []
    for number in range(1, rnd.randint(1, 9) + 1):
        operation = rnd.choice(["create", *["update"] * 6, "delete", "effect"])
        set_ = {_path(rnd): _value(rnd) for _ in range(rnd.randint(0, 3))} if operation in ("create", "update") else {}
        places = {_path(rnd): None for _ in range(rnd.randint(0, 2))} if operation == "update" else {}
        unset = [path for path in places if path not in set_]
        before = None
        if operation in ("update", "delete") and rnd.random() < 0.85:
            written = [*set_, *unset]
            before = {
                (_path(rnd) if rnd.random() < 0.3 or not written else rnd.choice(written)): _value(rnd)
                for _ in range(rnd.randint(0, 3))
            }
        shared = rnd.random() < 0.2
        actions.append(
            make_action(
                number,
                operation=operation,
                set=set_,
                unset=unset,
                before=before,
                operation_id=f"op-{rnd.randint(1, 6) if shared else number + 10}",
            )
        )
    return actions


def test_fold_and_undo_are_the_replay_on_every_seed() -> None:
    for seed in range(SEEDS):
        rnd = random.Random(seed)
        actions = _actions(rnd)
        history, replay = both(actions)
        assert equal(history.tree, tree_of(replay.now)), f"fold, seed {seed}"
        undone = {name for name in sorted({action.operation_id for action in actions}) if rnd.random() < 0.4}
        numbers = {entry.number for entry in history.entries if entry.operation_id in undone}
        left = without(history.entries, numbers, DEFAULT_CONTRACT)
        assert equal(left, tree_of(replay.without(undone))), f"undo, seed {seed}"
