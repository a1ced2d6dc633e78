"""How many processes of one worker fold, and what each is called.

A Python process folds on one core. So a worker has several of them, each with its own share of the partitions; left to
itself as many as it finds processors, as nginx does.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from streams.settings import Settings

MOST_BY_DEFAULT: Final = 4
"""More are for people to ask for: each costs memory, and a start on a large machine mustn't be a surprise."""
_GROUPS: Final = Path("/proc/self/cgroup")
_GROUPS_ROOT: Final = Path("/sys/fs/cgroup")
_UNIFIED: Final = "0::"


def usable_processors() -> float:
    """What this process may use: the processors that it may run on, or less where its control group has a quota."""
    return min(len(os.sched_getaffinity(0)), quota())


def processes_of(settings: Settings, processors: Callable[[], float] = usable_processors) -> int:
    """How many processes fold in a worker with these settings, at least 1.

    Where no number is given: one a processor, but not more than there are partitions to share, nor than
    `MOST_BY_DEFAULT`. One alone where there is no fence between those who hand partitions to each other.
    """
    if settings.processes is not None:
        return settings.processes
    if settings.fence == "none":
        return 1
    # Half a processor is none: what is throttled in the middle of a batch keeps a partition waiting.
    return max(1, min(math.floor(processors()), settings.partitions, MOST_BY_DEFAULT))


def name_of(pipeline: str, process: int) -> str:
    """What a process is called in logs, metrics, the data folder and the group. `process` counts from 1."""
    return f"{pipeline}-{process}"


def quota(groups: Path = _GROUPS, root: Path = _GROUPS_ROOT) -> float:
    """Processors' worth of time that this process' control group and those above it grant it; infinite without a limit.

    Of version 2 alone (`cpu.max`); where a container sees itself as the root, that is the root's.
    """
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    own = next((line.removeprefix(_UNIFIED) for line in lines if line.startswith(_UNIFIED)), None)
    if own is None:
        return math.inf
    folder = root / own.lstrip("/")
    return min(_granted(each / "cpu.max") for each in (folder, *folder.parents) if each.is_relative_to(root))


def _granted(file: Path) -> float:
    try:
        granted_us, period_us = file.read_text(encoding="utf-8").split()
        return math.inf if granted_us == "max" else int(granted_us) / int(period_us)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
