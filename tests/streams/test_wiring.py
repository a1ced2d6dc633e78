"""What runs in which of a worker's processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconciler.contracts.model import ContractSet
from reconciler.machines.resource import ResourceMachine
from reconciler.machines.rollback import RollbackMachine
from reconciler.wire.codec import Codec
from streams.cli.worker import _companions
from streams.settings import Settings, load_settings
from streams.wiring import RESOURCES, ROLLBACKS, pipeline_of, services_of, settings_of

CONTRACTS = ContractSet()


def settings(**fields: Any) -> Settings:
    return load_settings(application_id="app", data_dir=Path("data"), topic_prefix="p.", **fields)


def test_each_process_has_its_machine_and_its_topics() -> None:
    resources = pipeline_of(RESOURCES, settings(), CONTRACTS)
    rollbacks = pipeline_of(ROLLBACKS, settings(), CONTRACTS)
    assert isinstance(resources.machine, ResourceMachine)
    assert isinstance(rollbacks.machine, RollbackMachine)
    assert (resources.name, rollbacks.name) == (RESOURCES, ROLLBACKS)
    assert rollbacks.heads == "p.reconciler.internal.rollbacks"
    assert not set(resources.input_topics) & set(rollbacks.input_topics)


def test_the_second_process_shares_neither_group_nor_data_folder_with_the_first() -> None:
    own = settings()
    assert settings_of(RESOURCES, own) == own
    second = settings_of(ROLLBACKS, own)
    assert (second.application_id, second.data_dir) == ("app-rollbacks", Path("data/rollbacks"))
    assert second.model_copy(update={"application_id": "app", "data_dir": Path("data")}) == own


@pytest.mark.parametrize(
    ("name", "fields", "services"),
    [
        (RESOURCES, {}, ["gatherer"]),
        (ROLLBACKS, {}, []),
        (ROLLBACKS, {"redis_url": "redis://127.0.0.1:1/0"}, ["fences"]),
    ],
)
def test_services_stand_where_they_are_needed(name: str, fields: dict[str, Any], services: list[str]) -> None:
    found = services_of(name, settings(**fields), CONTRACTS, Codec.packaged())
    assert [service.name for service in found] == services


def test_the_sampler_runs_beside_the_gatherer_where_there_are_targets(tmp_path: Path) -> None:
    file = tmp_path / "targets.yaml"
    file.write_text(
        "crm: {kind: sqlite, path: crm.sqlite, resources: {contact: {table: contact, id: id, fields: {/name: name}}}}"
    )
    found = services_of(RESOURCES, settings(targets_file=file), CONTRACTS, Codec.packaged())
    assert [service.name for service in found] == ["gatherer", "sampler"]


def test_the_other_processes_are_started_with_what_the_command_line_said() -> None:
    given = settings(bootstrap_servers="kafka:1", contracts_dir=Path("rules"), processes=3)
    companions = _companions(given, None)
    assert [peer.name for peer in companions.peers] == ["resources-2", "resources-3"]
    assert [other.name for other in companions.others] == ["rollbacks"]
    said = "--processes 3 --bootstrap-servers kafka:1 --data-dir data --contracts rules"
    assert [" ".join(each._arguments) for each in (*companions.peers, *companions.others)] == [
        f"-m streams.cli.main worker --only resources {said} --process 2",
        f"-m streams.cli.main worker --only resources {said} --process 3",
        f"-m streams.cli.main worker --only rollbacks {said}",
    ]


@pytest.mark.parametrize(
    ("only", "processes", "peers", "others"), [("resources", 2, 1, 0), ("rollbacks", 2, 0, 0), (None, 1, 0, 1)]
)
def test_one_half_alone_has_what_belongs_to_it(only: str | None, processes: int, peers: int, others: int) -> None:
    companions = _companions(settings(processes=processes), only)
    assert (len(companions.peers), len(companions.others)) == (peers, others)
