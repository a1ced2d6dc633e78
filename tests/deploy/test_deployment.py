"""The files that people deploy with say what the code understands, and keep the promises of docs/operations.md."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from streams.cli.main import cli
from streams.settings import Settings

_ROOT = Path(__file__).parents[2]
_JOBS = {"schemas-init", "topics-init"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content: dict[str, Any] = YAML(typ="safe", pure=True).load(_ROOT / "docker-compose.yml")
    return content


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    assert found
    return found


def test_every_variable_of_ours_is_a_setting(services: dict[str, dict[str, Any]]) -> None:
    known = {f"RECONCILER_{name.upper()}" for name in Settings.model_fields}
    dockerfile = set(re.findall(r"\bRECONCILER_[A-Z_]+", (_ROOT / "Dockerfile").read_text()))
    compose = {name for service in services.values() for name in service.get("environment", {}) if "RECONCILER" in name}
    assert dockerfile and compose
    assert (dockerfile | compose) - known == set()


def test_every_command_of_ours_exists(services: dict[str, dict[str, Any]]) -> None:
    commands = {name: service["command"][0] for name, service in services.items() if "build" in service}
    assert commands
    known = set(cli.list_commands(click.Context(cli)))
    assert {name: command for name, command in commands.items() if command not in known} == {}


def test_images_are_pinned_to_a_release(services: dict[str, dict[str, Any]]) -> None:
    images = {service["image"] for service in services.values() if "build" not in service}
    images |= set(re.findall(r"(?m)^FROM (\S+)", (_ROOT / "Dockerfile").read_text()))
    assert images
    assert {image for image in images if not re.search(r":v?\d+\.\d+(\.\d+)?([.-][\w.]+)?$", image)} == set()


def test_services_are_watched_bounded_and_restarted(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        limits = service["deploy"]["resources"]["limits"]
        assert limits["cpus"] and limits["memory"], name
        assert service["restart"], name
        if name in _JOBS:
            assert service["healthcheck"] == {"disable": True}, name
        else:
            assert service["healthcheck"]["test"], name
            assert service["restart"] == "unless-stopped", name


def test_ports_are_open_to_this_machine_alone(services: dict[str, dict[str, Any]]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_what_is_kept_is_kept_in_named_volumes(compose: dict[str, Any], services: dict[str, dict[str, Any]]) -> None:
    mounts = [mount for service in services.values() for mount in service.get("volumes", [])]
    named = {mount.split(":")[0] for mount in mounts if not mount.startswith("./")}
    assert named == set(compose["volumes"])
    assert all(mount.endswith(":ro") for mount in mounts if mount.startswith("./"))


def test_no_secret_stands_in_a_file() -> None:
    example = (_ROOT / "deploy" / "env.example").read_text()
    secrets = re.findall(r"(?m)^(\w*(?:PASSWORD|SECRET|TOKEN)\w*)=(.*)$", example)
    assert secrets
    assert [name for name, value in secrets if value] == []
    compose = (_ROOT / "docker-compose.yml").read_text()
    assert re.findall(r"(?m)PASSWORD: (?!\$\{\w+:-\}$)(.+)$", compose) == []


def test_the_environment_file_has_every_variable_and_new_passwords_each_time() -> None:
    first, second = (_made_environment() for _ in range(2))
    used = set(re.findall(r"\$\{(\w+)", (_ROOT / "docker-compose.yml").read_text()))
    assert used == set(first)
    for name, value in first.items():
        if name.endswith("PASSWORD"):
            assert re.fullmatch(r"[0-9a-f]{48}", value)
            assert value != second[name]
        else:
            assert value == second[name] != ""


def _made_environment() -> dict[str, str]:
    done = subprocess.run(["sh", _ROOT / "deploy" / "make-env"], capture_output=True, text=True, check=True)
    return dict(re.findall(r"(?m)^([A-Z_]+)=(.*)$", done.stdout))


def test_the_image_and_the_makefile_use_one_version_of_uv() -> None:
    (makefile,) = re.findall(r"(?m)^UV_VERSION := (\S+)$", (_ROOT / "Makefile").read_text())
    assert re.findall(r"uv==(\S+)", (_ROOT / "Dockerfile").read_text()) == [makefile]


def test_the_scripts_can_be_run() -> None:
    for script in (".ci/run", "deploy/postgresql/01-crm.sh"):
        assert os.access(_ROOT / script, os.X_OK), script
