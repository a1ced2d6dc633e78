"""Contracts of YAML: text in, typed values out; and, at the end, the one function that reads files.

Each file holds one contract. Everything is strict: what isn't known, or says two things, is a fault with file and line. All
faults of all files are found before anything is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from reconciler.contracts.checks import contradictions, set_contradictions
from reconciler.contracts.errors import ContractError, Fault
from reconciler.contracts.form import CONTRACT
from reconciler.contracts.model import Contract, ContractSet
from reconciler.contracts.shapes import BAD, Reading
from reconciler.contracts.yaml_tree import MAX_BYTES, Node, UnreadableError, place_of, read_tree
from reconciler.values.errors import InputError

SUFFIXES: Final = (".yaml", ".yml")
SCENARIO_SUFFIX: Final = ".test.yaml"
"""Files of scenarios (`reconciler.scenarios`), which stand beside the contracts and are none."""
MAX_FILES: Final = 10_000


class Source(msgspec.Struct, frozen=True):
    """The text of one file."""

    file: str
    text: str


class Loaded(msgspec.Struct, frozen=True):
    """A contract with the tree that it was read from, so that faults found later have their lines."""

    file: str
    tree: Node
    contract: Contract

    def fault(self, path: tuple[str | int, ...], message: str, *, is_warning: bool = False) -> Fault:
        """A fault at a path of keys."""
        line, column = place_of(self.tree, *path)
        return Fault(self.file, line, column, message, "warning" if is_warning else "error")

    def says(self, *path: str) -> bool:
        """Whether the file has a key."""
        node = self.tree
        for key in path:
            if not isinstance(node.value, dict) or key not in node.value:
                return False
            node = node.value[key]
        return True


def parse_contract(text: str, file: str = "contract.yaml") -> Contract:
    """The contract of a text. Raises ContractError with all of its faults."""
    faults: list[Fault] = []
    loaded = parse(Source(file, text), faults)
    if loaded is None or faults:
        raise ContractError(sorted(faults))
    return loaded.contract


def parse(source: Source, faults: list[Fault]) -> Loaded | None:
    """The contract of a file with what it was read from; None, and faults, where it can't be used."""
    found: list[Fault] = []
    loaded = None
    try:
        tree = read_tree(source.text, source.file, found)
    except UnreadableError as error:
        found.append(error.fault)
    else:
        contract = CONTRACT.read(tree, "a contract", Reading(source.file, found))
        if contract is not BAD:
            loaded = Loaded(source.file, tree, contract)
            found.extend(loaded.fault(path, message) for path, message in contradictions(contract))
    faults.extend(found)
    return None if found else loaded


def parse_all(sources: list[Source], faults: list[Fault]) -> list[Loaded]:
    """The contracts of some files, and the faults of each and of them together."""
    all_loaded = [loaded for source in sources if (loaded := parse(source, faults)) is not None]
    by_contract = {id(loaded.contract): loaded for loaded in all_loaded}
    for contract, (path, message) in set_contradictions([loaded.contract for loaded in all_loaded]):
        faults.append(by_contract[id(contract)].fault(path, message))
    return all_loaded


def contract_set(sources: list[Source]) -> ContractSet:
    """The contracts of some files. Raises ContractError with all of their faults."""
    faults: list[Fault] = []
    loaded = parse_all(sources, faults)
    if faults:
        raise ContractError(sorted(faults))
    return ContractSet(tuple(item.contract for item in loaded))


def load_contracts(folder: Path) -> ContractSet:
    """The contracts of a folder: its ``*.yaml`` and ``*.yml``, but for scenarios, and not those of folders below. An empty
    folder gives none.

    Raises InputError where the folder or a file can't be read, ContractError with all faults of the contracts.
    """
    return contract_set(read_sources(folder))


def read_sources(folder: Path) -> list[Source]:
    """The contracts of a folder, in the order of their files' names; or of one file."""
    return _read_all(folder, _is_contract)


def read_scenarios(folder: Path) -> list[Source]:
    """The files of scenarios beside the contracts of a folder, in the order of their names; or one file."""
    return _read_all(folder, _is_scenario)


def _read_all(folder: Path, is_wanted: Callable[[Path], bool]) -> list[Source]:
    if folder.is_file():
        return [_read(folder)]
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give the folder that holds the contracts")
    try:
        files = sorted(file for file in folder.iterdir() if is_wanted(file))
    except OSError as error:
        raise InputError(f"{folder} can't be read: {error.strerror}; check its permissions") from None
    if len(files) > MAX_FILES:
        raise InputError(f"{folder} holds more than {MAX_FILES} contracts; give the folder of the contracts alone")
    return [_read(file) for file in files]


def _is_contract(file: Path) -> bool:
    # A link that leads nowhere counts, and is then an error: a contract must not be missing silently.
    is_yaml = file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and not file.is_dir()
    return is_yaml and not file.name.endswith(SCENARIO_SUFFIX)


def _is_scenario(file: Path) -> bool:
    return file.name.endswith(SCENARIO_SUFFIX) and not file.name.startswith(".") and not file.is_dir()


def _read(file: Path) -> Source:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{file} can't be read: {error.strerror}; check the path and its permissions") from None
    if len(data) > MAX_BYTES:
        return Source(str(file), data.decode("utf-8", "replace"))  # which is refused for its size
    try:
        return Source(str(file), data.decode("utf-8"))
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8; save it as UTF-8") from None
