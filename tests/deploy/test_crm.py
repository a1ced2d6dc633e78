"""The CRM of docker-compose.yml on a real PostgreSQL: made by its script, reached by its targets file, bound by its contracts."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
import pytest

from reconciler.contracts.loader import load_contracts
from reconciler.records import Change, Command
from reconciler.targets.config import load_targets
from reconciler.targets.port import ApplyingTarget
from tests.deploy.crm import DEPLOY, make_crm
from tests.support.postgresql import PostgresqlServer

_CONTACT = "crm/contact/c-1"


@pytest.fixture(scope="module")
def crm_dsn() -> Iterator[str]:
    """How the crm account reaches its database, on a cluster of its own."""
    with PostgresqlServer() as server:
        yield make_crm(server)


async def test_a_drifted_row_is_seen_and_put_right_once(crm_dsn: str) -> None:
    target = load_targets(DEPLOY / "targets.yaml", {"CRM_DSN": crm_dsn})["crm"]
    assert isinstance(target, ApplyingTarget)
    try:
        (before,) = await target.observe([_CONTACT])
        assert before.exists is True, before
        assert (before.fields["phone"], before.fields["tags"]) == ("+49 30 1234", [])
        await _by_hand(crm_dsn, "UPDATE contact SET phone = 'drifted', modified_by = 'bo' WHERE id = 'c-1'")
        (drifted,) = await target.observe([_CONTACT])
        assert drifted.fields == {**before.fields, "phone": "drifted"}
        assert drifted.version != before.version
        assert drifted.modified_by is not None and drifted.modified_by.id == "bo"
        change = Change(path="/phone", op="set", value="+49 30 1234", expect="drifted")
        command = Command(command_id="c1", resource=_CONTACT, action="patch", changes=[change])
        assert [(await target.apply(command)).status for _ in range(2)] == ["applied", "already_applied"]
        (after,) = await target.observe([_CONTACT])
        assert after.fields == before.fields
        assert after.modified_by is not None and after.modified_by.id == "reconciler"
        late = Change(path="/phone", op="set", value="1", expect="drifted")
        stale = Command(command_id="c2", resource=_CONTACT, action="patch", changes=[late])
        assert (await target.apply(stale)).status == "conflict"
    finally:
        await target.close()


async def test_the_account_has_no_powers_beyond_its_tables(crm_dsn: str) -> None:
    powers = "SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
    assert await _by_hand(crm_dsn, powers) is False


async def _by_hand(dsn: str, statement: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def test_every_type_of_resource_has_a_contract_of_its_own() -> None:
    contracts = load_contracts(DEPLOY / "contracts")
    assert {contracts.for_resource(f"crm/{kind}/1").name for kind in ("contact", "account")} == {
        "crm/contact",
        "crm/account",
    }
