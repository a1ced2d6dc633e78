"""What `reconciler.sdk` promises to export, and the tree of errors that its docstring draws."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import reconciler
import streams
from reconciler import sdk
from reconciler.sdk import errors
from reconciler.values.errors import InputError, ReconcilerError


def test_all_public_names_are_exported() -> None:
    assert len(sdk.__all__) == len(set(sdk.__all__))
    public = {name for name, value in vars(sdk).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert public == set(sdk.__all__)


def test_the_docstring_draws_the_tree_of_errors_as_it_is() -> None:
    assert sdk.__doc__ is not None
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in sdk.__doc__.splitlines():
        match = re.match(r"    ([│ ├└─]*)([A-Z]\w+Error)\b", line)
        if match:
            depth = len(match[1]) // 4
            above = above[:depth]
            if above:
                drawn[match[2]] = above[-1]
            above.append(match[2])
    real = {
        kind.__name__: kind.__bases__[0].__name__
        for kind in vars(errors).values()
        if inspect.isclass(kind) and issubclass(kind, errors.SdkError)
    }
    assert drawn == real | {"InputError": "ReconcilerError"}
    assert issubclass(InputError, ReconcilerError)


def test_every_error_of_the_sdk_is_exported() -> None:
    kinds = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, errors.SdkError)}
    assert kinds <= set(sdk.__all__)


def test_both_packages_are_typed() -> None:
    for package in (reconciler, streams):
        assert package.__file__ is not None
        assert (Path(package.__file__).parent / "py.typed").exists()
