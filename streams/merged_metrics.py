"""One page of metrics for several processes: the same metrics of each, told apart by a label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_LABEL: Final = "process"


def merged(pages: Mapping[str, bytes]) -> bytes:
    """A page in Prometheus' text format of the pages of several processes, by their names, which need no escaping.

    Every sample gets the label `process`. A metric's samples stand together, as the format wants it, under its first
    description.
    """
    families: dict[str, list[str]] = {}
    for name, page in pages.items():
        for family, lines in _families(page.decode()).items():
            samples = [_labelled(line, name) for line in lines if not line.startswith("#")]
            families.setdefault(family, [line for line in lines if line.startswith("#")]).extend(samples)
    return "".join(f"{line}\n" for lines in families.values() for line in lines).encode()


def _families(page: str) -> dict[str, list[str]]:
    """The lines of each metric, from its `# HELP` on."""
    families: dict[str, list[str]] = {}
    family: list[str] = []
    for line in page.split("\n"):
        if line.startswith("# HELP "):
            family = families.setdefault(line.split(" ", 3)[2], [])
        if line:
            family.append(line)
    return families


def _labelled(sample: str, process: str) -> str:
    """Neither a brace nor a space can stand in a metric's name, so the first of them ends it."""
    label = f'{_LABEL}="{process}"'
    end = next(index for index, character in enumerate(sample) if character in "{ ")
    if sample[end] == "{":
        return f"{sample[: end + 1]}{label},{sample[end + 1 :]}"
    return f"{sample[:end]}{{{label}}}{sample[end:]}"
