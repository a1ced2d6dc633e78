"""The targets file: which systems there are, and how each is reached.

One YAML document, keyed by system; `kind` says which adapter, and the rest is that adapter's own (docs/targets.md). Everything
is strict: what isn't known is an error with its line. ``${NAME}`` inside a text is the environment variable of that name, so
that no secret stands in the file; ``$${`` is a plain ``${``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from reconciler.contracts.errors import Fault
from reconciler.contracts.yaml_tree import Node, UnreadableError, read_tree
from reconciler.targets.port import Target
from reconciler.values.errors import InputError
from reconciler.values.json_value import Json

KINDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "memory": ("reconciler.targets.memory", "MemoryConfig", "MemoryTarget"),
    "sqlite": ("reconciler.targets.sql.sqlite", "SqliteConfig", "SqliteTarget"),
    "postgresql": ("reconciler.targets.sql.postgresql", "PostgresqlConfig", "PostgresqlTarget"),
    "http": ("reconciler.targets.http.target", "HttpConfig", "HttpTarget"),
    "redis": ("reconciler.targets.redis_hash.target", "RedisConfig", "RedisTarget"),
}
"""Kind -> module, its configuration, its target. A module is imported when the file names its kind."""

_VARIABLE: Final = re.compile(r"\$\$\{|\$\{([^}]*)\}")


class TargetsFileError(InputError):
    """A targets file that can't be used. The message is the first fault; ``faults`` holds all."""

    def __init__(self, faults: list[Fault]) -> None:
        more = len(faults) - 1
        super().__init__(f"{faults[0]}{f' (and {more} more)' if more else ''}")
        self.faults = tuple(faults)


def load_targets(path: Path, environment: Mapping[str, str] | None = None) -> dict[str, Target]:
    """System -> target. No I/O but reading the file: targets connect when they are first used.

    Raises TargetsFileError with the lines of all faults, InputError where the file can't be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the targets file {str(path)!r} can't be read: {error}") from None
    return parse_targets(text, path, os.environ if environment is None else environment)


def parse_targets(text: str, path: Path, environment: Mapping[str, str]) -> dict[str, Target]:
    """`load_targets` of a text; ``path`` is its name in faults, and what relative paths inside it are relative to."""
    faults: list[Fault] = []
    file = str(path)
    if not text.strip():
        raise TargetsFileError([Fault(file, 0, 0, "is empty; name at least one system and its `kind`")])
    try:
        tree = read_tree(text, file, faults)
    except UnreadableError as error:
        raise TargetsFileError([error.fault]) from None
    if not isinstance(tree.value, dict):
        raise TargetsFileError([Fault(file, *tree.place, "must be a mapping from systems to their targets")])
    reading = _Reading(file, path.absolute().parent, environment, faults)
    targets = {system: reading.target(system, node) for system, node in tree.value.items()}
    if faults:
        raise TargetsFileError(sorted(faults))
    return {system: target for system, target in targets.items() if target is not None}


class _Reading:
    """Reads one file, and gathers what is wrong with it."""

    def __init__(self, file: str, folder: Path, environment: Mapping[str, str], faults: list[Fault]) -> None:
        self._file = file
        self._folder = folder
        self._environment = environment
        self._faults = faults

    def target(self, system: str, node: Node) -> Target | None:
        """The target of a system; None, and faults, where it can't be made."""
        if not isinstance(node.value, dict):
            self._fault(node, (), f"the target {system!r} must be a mapping that begins with `kind`")
            return None
        kind = node.value.get("kind")
        if kind is None or kind.value not in KINDS:
            self._fault(node, ("kind",), f"the target {system!r} needs a `kind`, one of {', '.join(KINDS)}")
            return None
        faults_before = len(self._faults)
        settings = {name: self._plain(member) for name, member in node.value.items() if name != "kind"}
        if len(self._faults) > faults_before:
            return None
        module_name, config_name, target_name = KINDS[str(kind.value)]
        try:
            module = import_module(module_name)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if missing.partition(".")[0] in ("reconciler", ""):
                raise
            self._fault(
                node, ("kind",), f"needs {missing}, which isn't installed: pip install 'reconciler[{kind.value}]'"
            )
            return None
        return self._made(system, node, getattr(module, config_name), getattr(module, target_name), settings)

    def _made(self, system: str, node: Node, config_class: Any, target_class: Any, settings: Json) -> Target | None:
        try:
            config = config_class.model_validate(settings, context={"folder": self._folder})
        except ValidationError as error:
            for each in error.errors(include_url=False, include_context=False, include_input=False):
                self._fault(node, each["loc"], _message(each))
            return None
        target: Target = target_class(system, config)
        return target

    def _plain(self, node: Node) -> Json:
        value = node.value
        if isinstance(value, dict):
            return {name: self._plain(member) for name, member in value.items()}
        if isinstance(value, list):
            return [self._plain(member) for member in value]
        return self._expanded(value, node) if isinstance(value, str) else value

    def _expanded(self, text: str, node: Node) -> str:
        def value_of(match: re.Match[str]) -> str:
            name = match[1]
            if name is None:
                return "${"
            if name not in self._environment:
                self._fault(node, (), f"the environment variable {name!r} isn't set")
                return ""
            return self._environment[name]

        return _VARIABLE.sub(value_of, text)

    def _fault(self, node: Node, path: tuple[str | int, ...], message: str) -> None:
        self._faults.append(Fault(self._file, *_place(node, path), message))


def _place(node: Node, path: tuple[str | int, ...]) -> tuple[int, int]:
    """The place of what a path leads to; steps that aren't in the file (names of alternatives, missing keys) are passed over."""
    place = node.place
    for step in path:
        value = node.value
        if isinstance(value, dict) and isinstance(step, str) and step in value:
            place, node = node.keys[step], value[step]
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            node = value[step]
            place = node.place
    return place


def _message(error: Any) -> str:
    """What is wrong, without the value: it may be a secret."""
    name = error["loc"][-1] if error["loc"] else ""
    match error["type"]:
        case "extra_forbidden":
            return f"the key {name!r} isn't known here; docs/targets.md lists those that are"
        case "missing":
            return f"the key {name!r} is missing"
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"{name}: {message[:1].lower()}{message[1:]}" if isinstance(name, str) and name else message
