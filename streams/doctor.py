"""What `reconciler doctor` finds out: whether everything that the settings name is there, answers, and is as it must be.

Each check is one question with an answer in a sentence. None changes anything.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec
import redis

from reconciler.contracts.loader import load_contracts
from reconciler.targets.config import load_targets
from reconciler.targets.port import ScanningTarget, Target, TargetUnavailable
from reconciler.values.errors import ReconcilerError
from reconciler.wire import action_reader
from reconciler.wire.codec import subject_of
from reconciler.wire.conversion import RECORDS
from reconciler.wire.registry import Registry
from reconciler.wire.schema_folder import packaged_folder
from reconciler.wire.topics import TopicNames
from streams.processes import processes_of, usable_processors
from streams.settings import Settings
from streams.topics import Cluster

State: TypeAlias = Literal["ok", "wrong", "not checked"]

_SCHEMAS: Final = {kind: name for name, kind in RECORDS.items()}
_REDIS_TIMEOUT_S: Final = 3.0
_TARGET_TIMEOUT_S: Final = 15.0


class Finding(msgspec.Struct, frozen=True):
    """The answer to one question. ``detail`` is a sentence; where something is wrong, with the remedy."""

    check: str
    state: State
    detail: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, as it comes."""
    yield _told("contracts", lambda: _contracts(settings))
    targets: dict[str, Target] = {}
    yield _told("targets file", lambda: _targets_file(settings, targets))
    yield _told("data folder", lambda: _data_folder(settings.data_dir))
    yield _told("processes", lambda: _processes(settings))
    yield _told("hot path", _hot_path)
    systems = tuple(sorted(targets))
    cluster: list[Cluster] = []
    brokers = _told("brokers", lambda: _brokers(settings, cluster))
    yield brokers
    yield from _topics(settings, cluster[0], systems) if cluster else ()
    yield _told("schema registry", lambda: _registry(settings, systems))
    yield _told("redis", lambda: _redis(settings))
    yield from asyncio.run(_targets(targets))


class _Wrong(ReconcilerError):
    """Something is not as it must be."""


class _NotChecked(Exception):
    """There is nothing to check."""


def _told(check: str, ask: Callable[[], str]) -> Finding:
    try:
        return Finding(check, "ok", ask())
    except _NotChecked as reason:
        return Finding(check, "not checked", str(reason))
    except ReconcilerError as error:
        return Finding(check, "wrong", str(error))


def _contracts(settings: Settings) -> str:
    if settings.contracts_dir is None:
        raise _NotChecked("no folder is named by RECONCILER_CONTRACTS_DIR: drift is reported, and nothing is corrected")
    loaded = load_contracts(settings.contracts_dir)
    count = len(loaded.contracts)
    return f"{_count(count, 'contract')} in {settings.contracts_dir}"


def _targets_file(settings: Settings, targets: dict[str, Target]) -> str:
    if settings.targets_file is None:
        raise _NotChecked("none is named by RECONCILER_TARGETS_FILE: nothing is sampled, so no drift is seen")
    targets.update(load_targets(settings.targets_file))
    return f"{_count(len(targets), 'target')} in {settings.targets_file}: {', '.join(sorted(targets))}"


def _data_folder(folder: Path) -> str:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise _Wrong(f"{folder} can't be written ({existing}); set RECONCILER_DATA_DIR to a folder that can")
    return f"{folder} can be written"


def _processes(settings: Settings) -> str:
    processes, processors = processes_of(settings), usable_processors()
    sentence = f"of a worker on this machine {processes} fold; it may use {_count(processors, 'processor')}"
    if processes > math.ceil(processors):
        raise _Wrong(f"{sentence}: they would wait for each other; set RECONCILER_PROCESSES to no more than that")
    return f"{sentence}, and there are {_count(settings.partitions, 'partition')} to share"


def _hot_path() -> str:
    if action_reader.__file__.endswith(".py"):
        raise _NotChecked(
            "the hot path isn't compiled, and a worker folds about a quarter slower; install it where there is a C compiler"
        )
    return "the hot path is compiled"


def _brokers(settings: Settings, cluster: list[Cluster]) -> str:
    settings.ssl_context()  # files that can't be used are told in a sentence here, and by the client in none
    asked = Cluster(settings.client_config())
    count = asked.broker_count()
    cluster.append(asked)
    return f"{_count(count, 'broker')} at {settings.bootstrap_servers}"


def _topics(settings: Settings, cluster: Cluster, systems: tuple[str, ...]) -> Iterator[Finding]:
    specs = TopicNames(settings.topic_prefix).specs(systems)
    wanted = cluster.wanted(specs, partitions=settings.partitions, replication_factor=None)
    try:
        # The embedded broker can't be asked for settings; what it has is what there is.
        deviations = cluster.missing(wanted) if settings.fence == "none" else cluster.deviations(wanted)
    except ReconcilerError as error:
        yield Finding("topics", "wrong", str(error))
        return
    if not deviations:
        yield Finding("topics", "ok", f"all {len(wanted)} are as they must be")
    for found in deviations:
        yield Finding("topics", "wrong", f"{found.topic} {found.sentence}")


def _registry(settings: Settings, systems: tuple[str, ...]) -> str:
    if settings.registry_url is None:
        raise _NotChecked("none is named by RECONCILER_REGISTRY_URL: the packaged ids serve, which Kafka UI can't show")
    registry = Registry(settings.registry_url)
    schemas = packaged_folder()
    subjects = 0
    for spec in TopicNames(settings.topic_prefix).specs(systems):
        if spec.record is None:
            continue
        if registry.id_of(subject_of(spec.name), schemas.latest(_SCHEMAS[spec.record])) is None:
            raise _Wrong(f"the registry at {settings.registry_url} doesn't answer; packaged ids serve until it does")
        subjects += 1
    return f"{settings.registry_url} has the latest schema of all {subjects} subjects"


def _redis(settings: Settings) -> str:
    if settings.redis_url is None:
        raise _NotChecked("none is named by RECONCILER_REDIS_URL: each worker keeps to its own share of the rates")
    try:
        client = redis.Redis.from_url(
            settings.redis_url, socket_timeout=_REDIS_TIMEOUT_S, socket_connect_timeout=_REDIS_TIMEOUT_S
        )
        client.ping()
        client.close()
    except (redis.RedisError, ValueError) as error:
        raise _Wrong(
            f"Redis doesn't answer ({error}); check RECONCILER_REDIS_URL. Without it all works, slower"
        ) from None
    return "it answers"


async def _targets(targets: dict[str, Target]) -> list[Finding]:
    """All targets at a time, so that a dead one keeps nobody waiting but itself."""
    return list(await asyncio.gather(*(_target(system, targets[system]) for system in sorted(targets))))


async def _target(system: str, target: Target) -> Finding:
    check = f"target {system}"
    description = target.describe()
    try:
        if not isinstance(target, ScanningTarget) or not description.can_scan:
            return Finding(
                check, "not checked", f"{description.kind}: it lists nothing, so there is nothing to ask for"
            )
        page = await asyncio.wait_for(target.scan(None), _TARGET_TIMEOUT_S)
    except TimeoutError:
        return Finding(
            check, "wrong", f"{description.kind}: no answer within {_TARGET_TIMEOUT_S:.0f} s; check that it runs"
        )
    except (TargetUnavailable, ReconcilerError) as error:
        return Finding(check, "wrong", f"{description.kind}: {error}; check that it runs, and how it is reached")
    finally:
        await target.close()
    seen = _count(len(page.observations), "resource")
    writes = "observed and written" if description.can_apply else "observed"
    return Finding(check, "ok", f"{description.kind}: it answers, with {seen} on its first page; it can be {writes}")


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}"
