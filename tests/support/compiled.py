"""Modules that have a `.pxd` may be compiled (deploy/hatch_build.py), and Python takes the compiled one if it is there. So an old
one must not be tested in place of a source that has changed since; and the source is to be tested too."""

from __future__ import annotations

import sys
import sysconfig
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SUFFIX = str(sysconfig.get_config_var("EXT_SUFFIX"))
"""With what the names of this Python's extensions end."""


def outdated(root: Path) -> list[Path]:
    """The sources that have changed since they were compiled for this Python."""
    return [path for path in _sources(root) if _is_outdated(path)]


def _sources(root: Path) -> list[Path]:
    return [path.with_suffix(".py") for path in sorted(root.glob("[rs]*/**/*.pxd"))]


def _is_outdated(source: Path) -> bool:
    compiled = source.with_suffix(SUFFIX)
    if not compiled.exists():
        return False
    made_at = compiled.stat().st_mtime
    return any(path.stat().st_mtime > made_at for path in (source, source.with_suffix(".pxd")))


def from_source(module: ModuleType) -> ModuleType:
    """The same module once more, as Python runs its source."""
    assert module.__file__ is not None
    path = str(Path(module.__file__).with_name(module.__name__.rpartition(".")[2] + ".py"))
    name = f"{module.__name__}_as_source"
    spec = spec_from_file_location(name, path, loader=SourceFileLoader(name, path))
    assert spec is not None and spec.loader is not None
    made = module_from_spec(spec)
    sys.modules[made.__name__] = made
    spec.loader.exec_module(made)
    return made


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuses to test what is outdated."""
    found = outdated(ROOT)
    if found:
        names = ", ".join(str(path.relative_to(ROOT)) for path in found)
        pytest.exit(f"changed since it was compiled: {names}; run `make install`", returncode=4)


def pytest_report_header() -> str:
    """Says which are tested."""
    count = sum(path.with_suffix(SUFFIX).exists() for path in _sources(ROOT))
    return f"compiled modules: {count}"
