"""The main job on real servers while its processes are killed: ten SIGKILLs under load, of workers and of the service that applies
commands. At the end the table is the pure fold of the log, and the target has carried out each command once."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.contracts.model import ContractSet
from reconciler.history.tree import equal, known_value
from reconciler.machines.head import Head, decode_head
from reconciler.plan.estate import estate_of
from reconciler.records import Action, Command, Operation
from reconciler.sdk import Producer
from reconciler.wire.changelog import ExpectedHead
from tests.e2e.system import PostgresqlCrm, System
from tests.support.estate import Estate
from tests.support.estate import action as counted
from tests.support.kafka import KafkaBroker
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

KILLS = 10
CONTACTS = 100
EDIT_EVERY = 4
BULK = 300
BULK_A_WRITE = 20
WITHIN_S = 120.0

# Each write to a row is put down with the command that it came from: what is written twice is seen here, and nowhere else.
AUDIT = """
CREATE TABLE audit (id bigserial PRIMARY KEY, command_id text NOT NULL, contact text NOT NULL);
CREATE FUNCTION note_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('reconciler.origin', true), '') <> '' THEN
        INSERT INTO audit (command_id, contact) VALUES (current_setting('reconciler.origin', true), coalesce(NEW.id, OLD.id));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER note_write AFTER INSERT OR UPDATE OR DELETE ON contact FOR EACH ROW EXECUTE FUNCTION note_write();
"""


@pytest.fixture
def crm(postgresql_dsn: str) -> PostgresqlCrm:
    crm = PostgresqlCrm(postgresql_dsn)
    crm.execute(AUDIT)
    return crm


@pytest.fixture
def system(kafka: KafkaBroker, redis_server: RedisServer, crm: PostgresqlCrm, tmp_path: Path) -> Iterator[System]:
    contract = "service: {ack_within_s: 5}\nretry: {attempts: 20, first_s: 0.5, cap_s: 2}\n"
    estate = Estate.real(kafka.bootstrap)
    whole = System(estate, crm, tmp_path, {"RECONCILER_REDIS_URL": redis_server.url}, contract=contract)
    try:
        yield whole
    finally:
        whole.stop()


class Busy(threading.Thread):
    """A workflow that goes on making and changing contacts, and people who edit behind its back, until told to end. Beside it
    many actions on resources that no target has, so that batches are full."""

    def __init__(self, estate: Estate, crm: PostgresqlCrm, producer: Producer) -> None:
        super().__init__(daemon=True)
        self._estate = estate
        self._crm = crm
        self._producer = producer
        self._ended = threading.Event()
        self._rng = random.Random(7)
        self.phones: dict[str, str] = {}
        """What each contact's phone must be in the end."""
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            number = 0
            while not self._ended.is_set():
                self._write(number)
                self._edit(number)
                for _ in range(BULK_A_WRITE):
                    resource = f"erp/order/{self._rng.randrange(BULK)}"
                    self._estate.send_record(self._estate.topics.actions, counted(resource, f"a{time.monotonic_ns()}"))
                number += 1
            self._estate.flush()
        except BaseException as error:  # noqa: BLE001 - told to the test
            self.error = error

    def _write(self, number: int) -> None:
        """Makes all contacts, and then changes those with even numbers, again and again."""
        contact = f"c{number if number < CONTACTS else 2 * number % CONTACTS}"
        phone, is_new = str(100_000 + number), contact not in self.phones
        operation: Operation = "create" if is_new else "update"
        with self._producer.action(
            f"crm/contact/{contact}", operation, run_id=f"run-{number}", step_id="write"
        ) as action:
            if is_new:
                self._crm.execute(f"INSERT INTO contact (id, phone) VALUES ('{contact}', '{phone}')")
            else:
                ((before,),) = self._crm.fetch(f"SELECT phone FROM contact WHERE id = '{contact}'")
                action.before({"phone": before})
                self._crm.execute(f"UPDATE contact SET phone = '{phone}' WHERE id = '{contact}'")
            action.set("/phone", phone)
        self.phones[contact] = phone

    def _edit(self, number: int) -> None:
        """Somebody edits those with odd numbers: each twice at most, because the third time would be a fight."""
        if number % EDIT_EVERY == 0 and CONTACTS <= number < CONTACTS + CONTACTS * EDIT_EVERY:
            edited = (2 * (number // EDIT_EVERY) + 1) % CONTACTS
            self._crm.execute(f"UPDATE contact SET phone = 'edited {number}' WHERE id = 'c{edited}'")

    def end(self) -> None:
        self._ended.set()
        self.join(60)
        if self.error is not None:
            raise self.error


@pytest.mark.timeout(900)
def test_ten_kills_lose_nothing_and_apply_nothing_twice(system: System, crm: PostgresqlCrm) -> None:
    service = system.service()
    worker = system.worker()
    with system.producer() as producer:
        busy = Busy(system.estate, crm, producer)
        busy.start()
        wait_until(
            lambda: crm.fetch("SELECT 1 FROM audit LIMIT 1"), deadline_s=WITHIN_S, what="a command is carried out"
        )
        rng = random.Random(3)
        for kill in range(KILLS):
            time.sleep(rng.uniform(0.2, 1.5))
            if kill % 3 == 2:
                service.kill()
                service = system.service()
            else:
                worker.kill()
                worker = system.worker()
        busy.end()

    def is_right() -> bool:
        return {name: fields["phone"] for name, fields in crm.contacts().items()} == busy.phones

    wait_until(is_right, deadline_s=WITHIN_S, what="every phone number is as the workflow wrote it last")
    system.estate.drained(WITHIN_S)
    worker.stop()
    _assert_is_the_fold_of_the_log(system.estate)
    sent = {record.command_id for record in _records(system.estate, system.estate.topics.reversal("crm"), Command)}
    applied = Counter(command_id for (command_id,) in crm.fetch("SELECT command_id FROM audit"))
    assert applied.keys() <= sent
    assert not {command_id: times for command_id, times in applied.items() if times > 1}
    assert len(applied) >= KILLS, "too few corrections for the kills to have hit any"


def _assert_is_the_fold_of_the_log(estate: Estate) -> None:
    actions = _records(estate, estate.topics.actions, Action)
    expected = estate_of(actions, ContractSet()).histories
    heads: dict[str, Head] = {}
    for record in _records(estate, estate.topics.expected, ExpectedHead):
        heads[record.resource] = decode_head(record.state)
    assert heads.keys() == expected.keys()
    for resource, head in heads.items():
        assert equal(head.tree, expected[resource].tree), resource
        assert known_value(head.tree)


def _records(estate: Estate, topic: str, kind: type[Any]) -> list[Any]:
    values = [found.value for found in estate.read(topic) if found.value is not None]
    records = [estate.codec.decode(value) for value in values]
    return [record for record in records if isinstance(record, kind)]
