"""The run that turns out wrong: a campaign over both systems, told as it happens, with what came between it and its undo."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from reconciler.records import Actor, Compensation
from reconciler.sdk import Producer
from streams.dev.billing import Billing
from streams.dev.crm import Crm
from streams.dev.workflow import Written

RUN: Final = "campaign-1"
_WORKFLOW: Final = "spring-offer"
_LEADS: Final = (11, 12, 13, 14)
_BOT: Final = Actor(id="spring-offer", kind="workflow")
_SELLER: Final = Actor(id="ben@example.com", kind="user")

SENT: Final = "billing/invoice/i-11"
"""The invoice that the campaign sends: what can't be taken back, but made good."""
KEPT: Final = ("crm/contact/c-12", "/owner")
"""What somebody else wrote later, and told: the undo leaves it."""
CONFLICT: Final = ("crm/contact/c-13", "/owner")
"""What somebody else wrote later, and told nobody: a person decides."""


class Aftermath(msgspec.Struct, frozen=True):
    """What must stand once the campaign is undone, by system and id."""

    contacts: dict[str, dict[str, Any]]
    invoices: dict[str, dict[str, Any]]


def run_campaign(producer: Producer, crm: Crm, billing: Billing, written: Written) -> Aftermath:
    """Runs it, and lets two people work on after it. Returns what must stand once it is undone."""
    aftermath = Aftermath(
        {f"c-{lead}": dict(written.contacts[f"c-{lead}"]) for lead in _LEADS},
        {f"i-{lead}": dict(written.invoices[f"i-{lead}"]) for lead in _LEADS},
    )
    for sequence, lead in enumerate(_LEADS):
        _promote(producer, crm, lead, written, 3 * sequence)
        _discount(producer, billing, lead, written, 3 * sequence + 1)
    with producer.action(
        SENT, "effect", run_id=RUN, step_id="send-invoice-11", workflow_id=_WORKFLOW, actor=_BOT, sequence=99,
        depends_on=[f"{RUN}/discount-11"],
        compensation=Compensation(name="send-invoice", arguments={"amount_cents": written.invoices["i-11"]["amount_cents"]}),
    ):  # fmt: skip
        pass  # the mail goes out here
    _hand_over(producer, crm, written)
    aftermath.contacts["c-12"]["owner"] = written.contacts["c-12"]["owner"]
    crm.update("c-13", {"owner": "zoe"})
    aftermath.contacts["c-13"]["owner"] = "zoe"
    return aftermath


def _promote(producer: Producer, crm: Crm, lead: int, written: Written, sequence: int) -> None:
    contact = f"c-{lead}"
    changes = {"stage": "customer", "owner": "campaign"}
    with producer.action(
        f"crm/contact/{contact}", run_id=RUN, step_id=f"promote-{lead}", workflow_id=_WORKFLOW, actor=_BOT, sequence=sequence
    ) as action:  # fmt: skip
        action.before({name: written.contacts[contact][name] for name in changes})
        crm.update(contact, changes)
        for name, value in changes.items():
            action.set(f"/{name}", value)
    written.contacts[contact] |= changes


def _discount(producer: Producer, billing: Billing, lead: int, written: Written, sequence: int) -> None:
    invoice = f"i-{lead}"
    amount = written.invoices[invoice]["amount_cents"]
    with producer.action(
        f"billing/invoice/{invoice}", run_id=RUN, step_id=f"discount-{lead}", workflow_id=_WORKFLOW, actor=_BOT, sequence=sequence,
        depends_on=[f"{RUN}/promote-{lead}"],
    ) as action:  # fmt: skip
        action.before({"amount_cents": amount})
        billing.change(invoice, {"amount_cents": amount // 2})
        action.set("/amount_cents", amount // 2)
    written.invoices[invoice]["amount_cents"] = amount // 2


def _hand_over(producer: Producer, crm: Crm, written: Written) -> None:
    """A seller takes a contact over, in a tool that tells so."""
    with producer.action("crm/contact/c-12", run_id="handover-1", step_id="take", actor=_SELLER) as action:
        action.before({"owner": "campaign"})
        crm.update("c-12", {"owner": "ben"})
        action.set("/owner", "ben")
    written.contacts["c-12"]["owner"] = "ben"
