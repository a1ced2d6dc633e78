"""A workflow as a no-code tool runs it: for each lead a contact in the CRM and an invoice in billing, told as it happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from reconciler.records import Actor
from reconciler.sdk import Producer
from reconciler.values.json_value import Json
from streams.dev.billing import Billing
from streams.dev.crm import Crm

_PEOPLE = (
    "Ana Lima", "Bo Chen", "Cy Diaz", "Di Evans", "Ed Fox", "Flo Grün", "Gus Hahn", "Ida Ito", "Jo Klein", "Kai Lund",
    "Lea Moreau", "Max Novák", "Nia Okoye", "Ole Petersen", "Pia Quist", "Ray Sato", "Sue Tan", "Tom Urban", "Uma Vogt", "Vic Wong",
)  # fmt: skip
_CITIES = ("Berlin", "Lisboa", "Oslo", "Wien", "Zürich")
_WORKFLOW = "lead-intake"


class Written(msgspec.Struct):
    """What the workflow wrote, by system and id, as the workflow itself remembers it: the demo's own truth."""

    contacts: dict[str, dict[str, Any]]
    invoices: dict[str, dict[str, Any]]


def run_workflow(producer: Producer, crm: Crm, billing: Billing, told: Callable[[str], None]) -> Written:
    """Runs the workflow for every lead, and says what it is doing."""
    written = Written({}, {})
    for number, name in enumerate(_PEOPLE, 1):
        told(f"lead {number}: {name}")
        for step in _steps(number, name, producer, crm, billing, written):
            step()
    return written


def _steps(
    number: int, name: str, producer: Producer, crm: Crm, billing: Billing, written: Written
) -> Iterator[Callable[[], None]]:
    run_id, contact_id, invoice_id = f"run-{number}", f"c-{number}", f"i-{number}"
    contact, invoice = f"crm/contact/{contact_id}", f"billing/invoice/{invoice_id}"
    actor = Actor(id="lead-intake", kind="workflow")

    def create_contact() -> None:
        fields = {
            "name": name,
            "email": f"{name.split(maxsplit=1)[0].lower()}@example.com",
            "phone": f"+49 30 {1000 + number}",
            "owner": "unassigned",
            "stage": "lead",
        }
        with producer.action(
            contact, "create", run_id=run_id, step_id="create-contact", workflow_id=_WORKFLOW, sequence=1, actor=actor
        ) as action:
            crm.insert(contact_id, fields)
            _tell(action.set, fields)
        written.contacts[contact_id] = fields

    def create_invoice() -> None:
        fields: dict[str, Json] = {
            "contact_id": contact_id,
            "amount_cents": 9_900 + 100 * number,
            "status": "draft",
            "customer": {"name": name, "city": _CITIES[number % len(_CITIES)]},
        }
        with producer.action(
            invoice, "create", run_id=run_id, step_id="create-invoice", workflow_id=_WORKFLOW, sequence=2, actor=actor,
            depends_on=[f"{run_id}/create-contact"],
        ) as action:  # fmt: skip
            billing.create(invoice_id, fields)
            _tell(action.set, fields)
        written.invoices[invoice_id] = fields

    def qualify() -> None:
        changes = {"owner": f"seller-{number % 3}", "stage": "qualified"}
        before = {field: written.contacts[contact_id][field] for field in changes}
        with producer.action(
            contact, run_id=run_id, step_id="qualify", workflow_id=_WORKFLOW, sequence=3, actor=actor
        ) as action:
            action.before(before)
            crm.update(contact_id, changes)
            _tell(action.set, changes)
        written.contacts[contact_id] |= changes

    def send_invoice() -> None:
        with producer.action(
            invoice, run_id=run_id, step_id="open-invoice", workflow_id=_WORKFLOW, sequence=4, actor=actor
        ) as action:
            action.before({"status": "draft"})
            billing.change(invoice_id, {"status": "open"})
            action.set("/status", "open")
        written.invoices[invoice_id]["status"] = "open"

    yield from (create_contact, create_invoice, qualify, send_invoice)


def _tell(set_: Callable[[str, Json], None], fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        set_(f"/{name}", value)
