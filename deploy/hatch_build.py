"""Compiles the hot path when the package is built, where that can be done.

A module beside which a `.pxd` lies, with the C types of its variables, is made a C extension of the very same source by
Cython. Where there is no C compiler the module stays what it is, does the same, and takes longer.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from Cython.Build import cythonize
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, ExecError, LinkError, PlatformError

CHOICE: Final = "COMPILE_MODULES"
"""The environment variable that says otherwise: `no`, or `required`, which makes it an error that it can't be done."""

_DIRECTIVES: Final = {
    "language_level": 3,
    # Only a `.pxd` says C types: to mypy `int` is an integer of any length, and a subclass of `dict` is a `dict`.
    "annotation_typing": False,
}


class CompiledModules(BuildHookInterface[Any]):
    """Adds the extensions to a wheel; an editable installation has them beside their sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the files of a wheel are collected."""
        choice = os.environ.get(CHOICE, "")
        if choice not in ("", "no", "required"):
            raise SystemExit(f"{CHOICE} is {choice!r}; it can be `no` or `required`, or be left out")
        root = Path(self.root)
        sources = [path.with_suffix(".py") for path in sorted(root.glob("[rs]*/**/*.pxd"))]
        self._folder = tempfile.TemporaryDirectory()
        try:
            built = {} if choice == "no" else compiled(root, sources, Path(self._folder.name))
        except (CompileError, ExecError, LinkError, PlatformError) as error:
            if choice == "required":
                raise
            self.app.display_warning(f"the hot path isn't compiled: {error}")
            built = {}
        if version == "editable":
            _put_beside(root, built)
        elif built:
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
            build_data["force_include"] |= {str(path): place for place, path in built.items()}

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called when the wheel is there."""
        self._folder.cleanup()


def compiled(root: Path, sources: list[Path], folder: Path) -> dict[str, Path]:
    """The extensions of some modules, made in a folder, by their places in the package. To be called in the root, as whoever builds
    a package calls (PEP 517). Raises setuptools' errors."""
    modules = [
        (".".join(path.relative_to(root).with_suffix("").parts), str(path.relative_to(root))) for path in sources
    ]
    extensions = [Extension(name, [path], extra_compile_args=["-O3", "-g0", "-fwrapv"]) for name, path in modules]
    made = cythonize(extensions, compiler_directives=_DIRECTIVES, build_dir=str(folder / "c"), quiet=True)
    command = build_ext(Distribution({"ext_modules": made}))
    command.build_lib = str(folder / "lib")
    command.build_temp = str(folder / "temp")
    command.parallel = len(made)
    command.ensure_finalized()
    command.run()
    return {command.get_ext_filename(name): folder / "lib" / command.get_ext_filename(name) for name, _ in modules}


def _put_beside(root: Path, built: dict[str, Path]) -> None:
    """In one step each: a process that runs keeps the file that it has. What this Python had before goes, since it would be found
    before a source that is newer."""
    for old in root.glob(f"[rs]*/**/*.{sys.implementation.cache_tag}-*.so"):
        if str(old.relative_to(root)) not in built:
            old.unlink()
    for place, path in built.items():
        new = (root / place).with_suffix(".new")
        shutil.copyfile(path, new)
        new.replace(root / place)
