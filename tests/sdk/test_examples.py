"""Every program in examples/ runs as its docstring says, as a process of its own."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streams.embedded.broker import EmbeddedBroker
from tests.sdk.support import read_actions, unique

EXAMPLES = Path(__file__).parents[2] / "examples"
WITHIN_S = 100


class Scene:
    """A broker with topics, and the environment that leads there."""

    def __init__(self, broker: EmbeddedBroker, folder: Path) -> None:
        self.bootstrap = broker.bootstrap
        self.prefix = unique("example")
        self.folder = folder
        broker.create_topics(self.prefix + name for name in ("workflow.actions", "reversal.crm", "reversal.outcomes"))

    def start(self, program: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(EXAMPLES / program), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={
                **os.environ,
                "RECONCILER_BOOTSTRAP_SERVERS": self.bootstrap,
                "RECONCILER_TOPIC_PREFIX": self.prefix,
                **environment,
            },
        )

    def run(self, program: str, *arguments: str, **environment: str) -> str:
        process = self.start(program, *arguments, **environment)
        said, _ = process.communicate(timeout=WITHIN_S)
        assert process.returncode == 0
        return said

    @contextmanager
    def running(self, program: str, *arguments: str, **environment: str) -> Iterator[list[str]]:
        """A consumer beside the test, ended by Ctrl-C; the list then holds what it said."""
        process = self.start(program, *arguments, **environment)
        said: list[str] = []
        try:
            yield said
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=WITHIN_S)
            said += rest.splitlines()
            assert process.returncode == 0
        finally:
            if process.poll() is None:
                process.kill()

    def outcome(self, *arguments: str, **environment: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run("send_command.py", *arguments, **environment))
        return answer


@pytest.fixture
def scene(embedded_broker: EmbeddedBroker, tmp_path: Path) -> Scene:
    return Scene(embedded_broker, tmp_path)


def test_the_sync_producer(scene: Scene) -> None:
    assert "told: 3 actions" in scene.run("producer_sync.py")
    events = read_actions(scene.bootstrap, scene.prefix, 6)
    told = {(event.step_id, event.stage): event for event in events}
    assert set(told) == {
        ("update-contact", "initiated"),
        ("update-contact", "succeeded"),
        ("copy", "initiated"),
        ("copy", "succeeded"),
        ("clean-up", "initiated"),
        ("clean-up", "failed"),
    }
    update, create = told["update-contact", "succeeded"], told["copy", "succeeded"]
    assert (update.before, update.set, update.unset) == ({"/phone": "1", "/fax": "9"}, {"/phone": "2"}, ["/fax"])
    assert (create.set, create.depends_on) == ({"/name": "Bo", "/phone": "5"}, ["run-7/update-contact"])


def test_the_async_producer(scene: Scene) -> None:
    assert "told: 5 actions" in scene.run("producer_async.py")
    events = [event for event in read_actions(scene.bootstrap, scene.prefix, 10) if event.stage == "succeeded"]
    assert len(events) == 5
    for event in events:
        assert (event.set, event.unset) == ({"/stage": "customer"}, ["/note"])
        assert event.before == {"/note": "to be dropped", "/stage": "lead"}


def test_the_consumer_with_a_handler(scene: Scene) -> None:
    with scene.running("consumer_handler.py", "crm.db") as said:
        applied = scene.outcome("crm/contact/42", "/phone", '"2"', '"3"')
        assert (applied["status"], applied["observed"]["fields"]) == ("applied", {"phone": "2", "name": "Ana"})
        conflict = scene.outcome("crm/contact/42", "/phone", '"1"', '"3"')
        assert (conflict["status"], conflict["observed"]["fields"]["phone"]) == ("conflict", "2")
        assert scene.outcome("crm/contact/42", "/colour", '"red"', "null")["status"] == "permanent"
        assert scene.outcome("crm/invoice/1", "/phone", '"1"', '"3"')["status"] == "rejected"
    assert said[-1] == "ended in order"


def test_the_consumer_with_a_target(scene: Scene) -> None:
    key = base64.b64encode(b"k" * 32).decode()
    with scene.running("consumer_target.py", SIGNING_KEY=key) as said:
        assert scene.outcome("crm/contact/42", "/phone", '"1"', '"3"')["status"] == "rejected"
        assert scene.outcome("crm/contact/42", "/phone", '"2"', '"3"', SIGNING_KEY=key)["status"] == "applied"
    assert said[-1] == "ended in order; the contact holds {'phone': '2', 'name': 'Ana'}"


def test_the_broker(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, str(EXAMPLES / "broker.py")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        name, _, address = process.stdout.readline().strip().removeprefix("export ").partition("=")
        assert name == "RECONCILER_BOOTSTRAP_SERVERS"
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / "producer_sync.py")],
            env={**os.environ, name: address},
            capture_output=True,
            text=True,
            check=True,
            timeout=WITHIN_S,
        )
        assert "told: 3 actions" in done.stdout
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()


def test_no_example_is_left_out() -> None:
    tried = Path(__file__).read_text()
    assert all(f'"{path.name}"' in tried for path in EXAMPLES.glob("*.py"))
