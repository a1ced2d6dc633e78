"""A real schema registry: Apicurio, in memory, with the API of Confluent's registry."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from tests.support import maven
from tests.support.needs import need_java
from tests.support.ports import free_port
from tests.support.processes import Server, ServerProcess

_READY_WITHIN_S = 150.0
_WARM_UP = "warm-up"


class SchemaRegistry(Server):
    """One registry. It forgets its schemas at `stop`; `start` brings an empty one back on the same port."""

    def __init__(self) -> None:
        self._java = need_java()
        self._jar = _unpacked_jar(maven.fetch("registry"))
        self._folder = Path(tempfile.mkdtemp(prefix="reconciler-registry-"))
        self._port = free_port()
        self._process: ServerProcess | None = None

    @property
    def url(self) -> str:
        """The root of the API, for `schema.registry.url`."""
        return f"http://127.0.0.1:{self._port}/apis/ccompat/v7"

    def start(self) -> None:
        """Starts the registry and returns when it answers."""
        command = [
            str(self._java),
            "-Xmx384m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Dquarkus.http.host=127.0.0.1",
            f"-Dquarkus.http.port={self._port}",
            "-jar",
            str(self._jar),
        ]
        self._process = ServerProcess("registry", command, log=self._folder / "server.log", folder=self._folder)
        self._process.wait_ready(self._answers, deadline_s=_READY_WITHIN_S)
        self._warm_up()

    def stop(self) -> None:
        """Ends the registry; clients see refused connections."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def close(self) -> None:
        """Ends the registry and takes its folder away."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _warm_up(self) -> None:
        """Asks once what our clients ask. A fresh JVM's first answers take seconds on a busy machine, and our clients wait for
        three and then go on without a registry, as they should."""
        body = json.dumps({"schema": '"string"'}).encode()
        headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
        for path in (f"/subjects/{_WARM_UP}/versions", f"/subjects/{_WARM_UP}"):
            question = urllib.request.Request(f"{self.url}{path}", body, headers)
            with urllib.request.urlopen(question, timeout=_READY_WITHIN_S) as response:
                schema_id = json.load(response)["id"]
        with urllib.request.urlopen(f"{self.url}/schemas/ids/{schema_id}", timeout=_READY_WITHIN_S):
            pass

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=2) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def _unpacked_jar(folder: Path) -> Path:
    """The jar that runs, out of the archive in `folder`, which is unpacked beside it once."""
    (archive,) = folder.glob("*.tar.gz")
    unpacked = folder / "unpacked"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not unpacked.is_dir():
            unfinished = Path(tempfile.mkdtemp(dir=folder))
            # Not by tarfile: its safe filter isn't in Debian 12's Python 3.11.2 yet.
            subprocess.run(["tar", "-xzf", archive, "-C", unfinished], check=True)
            unfinished.rename(unpacked)
    (jar,) = unpacked.rglob("*-runner.jar")
    return jar
