"""The targets file: what it makes, and what it says about mistakes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from reconciler.targets.config import KINDS, TargetsFileError, load_targets
from reconciler.targets.port import ApplyingTarget, ScanningTarget
from reconciler.values.errors import InputError

ALL = """
shop:
  kind: memory
  resources: {contact: {"1": {name: Ana}}}
crm:
  kind: sqlite
  path: crm.db
  resources:
    contact:
      table: contacts
      id: id
      fields:
        /name: name
        /phone: {column: phone, null_means: absent}
erp:
  kind: postgresql
  dsn: postgresql://erp:${ERP_PASSWORD}@db/erp
  resources:
    order: {table: orders, schema: sales, id: id, fields: {/total: total}, version: xmin}
billing:
  kind: http
  base_url: https://billing.example
  headers: {Authorization: "Bearer ${TOKEN}"}
  dedup: {kind: redis, url: "redis://${REDIS}"}
  resources:
    invoice:
      item: /invoices/{id}
      list: {path: /invoices, items: /items, paging: {kind: link, pointer: /next}}
cache:
  kind: redis
  url: redis://localhost
  resources: {session: {key: "session:{id}"}}
"""
SQLITE = "crm:\n  kind: sqlite\n  path: x\n  resources:\n    a:\n      table: t\n      id: id\n      fields:\n"
LISTED = "billing:\n  kind: http\n  base_url: http://x\n  resources:\n    a:\n      item: /a/{id}\n      list:\n        path: /a\n"
BOMB = """
a: &a [1,1,1,1,1,1,1,1,1]
b: &b [*a,*a,*a,*a,*a,*a,*a,*a]
c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]
d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]
e: [*d,*d,*d,*d,*d,*d]
"""
ENVIRONMENT = {"ERP_PASSWORD": "secret", "TOKEN": "t", "REDIS": "localhost"}


def written(folder: Path, text: str) -> Path:
    path = folder / "targets.yaml"
    path.write_text(text)
    return path


async def test_every_kind_is_made(tmp_path: Path) -> None:
    targets = load_targets(written(tmp_path, ALL), ENVIRONMENT)
    assert list(targets) == ["shop", "crm", "erp", "billing", "cache"]
    for system, target in targets.items():
        assert isinstance(target, ApplyingTarget)
        assert isinstance(target, ScanningTarget)
        assert target.describe().system == system
        await target.close()
    assert {target.describe().kind for target in targets.values()} == set(KINDS)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    targets = load_targets(written(tmp_path, ALL), ENVIRONMENT)
    assert targets["crm"]._config.path == tmp_path / "crm.db"  # type: ignore[attr-defined]


def test_no_secret_is_shown(tmp_path: Path) -> None:
    targets = load_targets(written(tmp_path, ALL), ENVIRONMENT)
    assert "secret" not in repr(targets["erp"]._config)  # type: ignore[attr-defined]
    assert "Bearer" not in repr(targets["billing"]._config)  # type: ignore[attr-defined]


MISTAKES = [
    ("", 0, "is empty"),
    ("- a", 1, "must be a mapping"),
    ("shop: memory", 1, "must be a mapping that begins with `kind`"),
    ("shop:\n  path: x", 2, "needs a `kind`, one of memory, sqlite, postgresql, http, redis"),
    ("shop:\n  kind: oracle", 2, "needs a `kind`"),
    ("shop:\n  kind: memory\n  colour: red", 3, "the key 'colour' isn't known here"),
    ("shop:\n  kind: memory\nshop:\n  kind: memory", 3, "the key 'shop' stands twice"),
    ("shop:\n  kind: memory\n  bulk_size: 0", 3, "bulk_size: "),
    ("shop:\n  kind: sqlite\n  path: x.db", 2, "the key 'resources' is missing"),
    ("crm:\n  kind: redis\n  url: ${NO_SUCH}\n  resources: {a: {key: 'a:{id}'}}", 3, "'NO_SUCH' isn't set"),
    ("crm:\n  kind: redis\n  url: redis://x\n  resources:\n    a:\n      key: 'a'", 6, "must hold {id} once"),
    (
        SQLITE + "        /a: a\n        /a/b: b",
        8,
        "overlap",
    ),
    (
        SQLITE + "        /a:\n          column: a\n          kind: jsonb",
        11,
        "kind: ",
    ),
    (
        "crm:\n  kind: sqlite\n  path: x\n  resources:\n    a: {table: t, id: id, fields: {no: a}}",
        5,
        "must be empty or begin with '/'",
    ),
    (
        "billing:\n  kind: http\n  base_url: ftp://x\n  resources: {a: {item: '/a/{id}'}}",
        3,
        "is no http or https address",
    ),
    (
        LISTED + "        paging: {kind: number, parameter: page,\n                 first: x}",
        10,
        "first: ",
    ),
    ("shop: [", 1, "is no YAML"),
    (
        BOMB,
        6,
        "aliases written out",
    ),
]


@pytest.mark.parametrize(("text", "line", "message"), MISTAKES, ids=[case[2][:40] for case in MISTAKES])
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TargetsFileError) as caught:
        load_targets(path, {})
    fault = caught.value.faults[0]
    assert message in fault.message
    assert fault.line == line, str(fault)
    assert str(caught.value).startswith(str(path))


def test_all_mistakes_are_found_at_once(tmp_path: Path) -> None:
    text = "a:\n  kind: memory\n  x: 1\nb:\n  kind: memory\n  y: 1\nc: {kind: no}"
    with pytest.raises(TargetsFileError, match="and 2 more") as caught:
        load_targets(written(tmp_path, text), {})
    assert [fault.line for fault in caught.value.faults] == [3, 6, 7]


def test_a_value_that_may_be_secret_is_not_told(tmp_path: Path) -> None:
    text = "crm:\n  kind: redis\n  url: {password: hunter2}\n  resources: {a: {key: 'a:{id}'}}"
    with pytest.raises(TargetsFileError) as caught:
        load_targets(written(tmp_path, text), {})
    assert "hunter2" not in str(caught.value)


def test_a_dollar_can_be_written(tmp_path: Path) -> None:
    text = 'crm: {kind: memory, resources: {t: {"1": {a: "$${X} $$ ${X}"}}}}'
    targets = load_targets(written(tmp_path, text), {"X": "x"})
    assert targets["crm"].fields("crm/t/1") == {"a": "${X} $$ x"}  # type: ignore[attr-defined]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        load_targets(tmp_path / "none.yaml")


def test_a_driver_that_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    monkeypatch.delitem(sys.modules, "reconciler.targets.sql.postgresql", raising=False)
    with pytest.raises(TargetsFileError, match=r"pip install 'reconciler\[postgresql\]'"):
        load_targets(written(tmp_path, ALL), ENVIRONMENT)


def test_only_the_adapters_that_are_named_are_imported(tmp_path: Path) -> None:
    import subprocess

    path = written(tmp_path, "shop: {kind: memory}")
    code = (
        "import sys, pathlib; from reconciler.targets.config import load_targets; "
        f"load_targets(pathlib.Path({str(path)!r})); "
        "sys.exit(any(name in sys.modules for name in ('aiohttp', 'asyncpg', 'redis', 'sqlite3')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
