"""Artefacts from Maven Central, through the ordinary client, fetched once into a cache folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.needs import need_java, need_program

_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_POMS = Path(__file__).parent / "maven"
_CHECKOUT = Path(__file__).parents[2]
_DEADLINE_S = 900


def cache_folder() -> Path:
    """Where what was downloaded stays: $XDG_CACHE_HOME/reconciler if that is set, else `.cache` in the checkout."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = Path(base) / "reconciler" if base else _CHECKOUT / ".cache"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fetch(name: str) -> Path:
    """The folder with every run-time artefact of `maven/<name>.pom.xml`. Skips the test where Maven is missing or fails.

    The folder's name holds the digest of the pom, so another version never meets leftovers of the one before.
    """
    pom = _POMS / f"{name}.pom.xml"
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    folder = cache_folder() / f"{name}-{digest}"
    if folder.is_dir():
        return folder
    maven = need_program("mvn", package="maven")
    with _locked(cache_folder() / f"{name}.lock"):
        if not folder.is_dir():
            _copy_dependencies(maven, pom, folder)
    return folder


def fetch_ahead(names: Iterable[str]) -> None:
    """Fetches before any test runs, whose time-out a download could exceed. What fails here, the test that needs it reports."""
    for name in names:
        with suppress(pytest.skip.Exception):
            need_java()
            fetch(name)


def _copy_dependencies(maven: Path, pom: Path, folder: Path) -> None:
    print(f"fetching what {pom.name} names, by Maven, into {folder}", file=sys.stderr, flush=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        done = subprocess.run(
            [
                *(str(maven), "-B", "-q", "-f", str(pom), f"{_PLUGIN}:copy-dependencies"),
                *("-DincludeScope=runtime", f"-DoutputDirectory={unfinished}"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
            check=False,
        )
        if done.returncode != 0:
            pytest.skip(f"Maven could not fetch what {pom} names:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        # The last step, and atomic: a folder of this name is always complete.
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one test process at a time downloads."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
