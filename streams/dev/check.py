"""The demo's last word: it reads the targets themselves and compares them with what the workflow and the people remember."""

from __future__ import annotations

from typing import Any

from streams.dev.billing import Billing
from streams.dev.crm import Crm
from streams.dev.people import Edits
from streams.dev.workflow import Written

_UNTOUCHED_NOTE = "new"


def faults(written: Written, edits: Edits, crm: Crm, billing: Billing) -> list[str]:
    """Everything that is not as it must be; empty where every owned field is right and no other field was touched."""
    found: list[str] = []
    contacts, invoices = crm.contacts(), billing.invoices()
    for contact_id, fields in written.contacts.items():
        resource = f"crm/contact/{contact_id}"
        wanted = {**fields, "note": _UNTOUCHED_NOTE, **edits.theirs.get(resource, {})}
        found += _differences(resource, wanted, contacts.get(contact_id))
    for invoice_id, fields in written.invoices.items():
        resource = f"billing/invoice/{invoice_id}"
        found += _differences(resource, {**fields, **edits.theirs.get(resource, {})}, invoices.get(invoice_id))
    found += [f"crm/contact/{extra}: nobody made it" for extra in sorted(contacts.keys() - written.contacts.keys())]
    found += [f"billing/invoice/{extra}: nobody made it" for extra in sorted(invoices.keys() - written.invoices.keys())]
    return found


def _differences(resource: str, wanted: dict[str, Any], actual: dict[str, Any] | None) -> list[str]:
    if actual is None:
        return [f"{resource}: it is not there"]
    return [
        f"{resource}/{name}: holds {actual.get(name)!r}, and should hold {wanted.get(name)!r}"
        for name in sorted(wanted.keys() | actual.keys())
        if wanted.get(name) != actual.get(name)
    ]
