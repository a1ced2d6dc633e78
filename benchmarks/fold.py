"""`reconciler fold` as a user runs it, against the least that a Python program could do with the same file."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.actions import lines

_RUNS = 3

# The last value of each path wins, and nothing else: no owners, no base, no history.
_NAIVE = """
import json, sys
state = {}
for line in open(sys.argv[1], "rb"):
    action = json.loads(line)
    fields = state.setdefault(action["resource"], {})
    fields.update(action.get("set", {}))
    for path in action.get("unset", ()):
        fields.pop(path, None)
for resource in sorted(state):
    print(json.dumps({"resource": resource, "fields": state[resource]}))
"""


def run(file: Path | None, records: int) -> None:
    """Prints actions a second of both, and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "actions.jsonl"
        count = 0
        with path.open("wb") as output:
            for line in lines(file, records):
                output.write(line.rstrip() + b"\n")
                count += 1
        ours, naive = [], []
        for _ in range(_RUNS):  # in turn, so that a machine that changes its speed changes both
            ours.append(_time([sys.executable, "-m", "streams.cli.main", "fold", "--actions", str(path)]))
            naive.append(_time([sys.executable, "-c", _NAIVE, str(path)]))
        ratio = statistics.median(one / other for one, other in zip(ours, naive, strict=True))
        result = {
            "benchmark": "fold",
            "actions": count,
            "actions_per_s": round(count / statistics.median(ours)),
            "json_module_actions_per_s": round(count / statistics.median(naive)),
            "times_the_json_module": round(ratio, 2),
        }
    click.echo(json.dumps(result))


def _time(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
