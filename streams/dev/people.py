"""What people do behind the workflow's back: edits and deletions, in the systems themselves and told to nobody."""

from __future__ import annotations

from typing import Any

import msgspec

from streams.dev.billing import Billing
from streams.dev.crm import Crm


class Edit(msgspec.Struct, frozen=True):
    """One edit: what was done to which resource, and what the contract says about it."""

    resource: str
    what: str
    policy: str


class Edits(msgspec.Struct):
    """All edits, and what of them is nobody's but the people's: by resource, the fields that must be left alone."""

    done: list[Edit]
    theirs: dict[str, dict[str, Any]]
    reported: dict[str, str]
    """Of the resources whose drift is only reported, the path: a person decides those."""


def edit_behind_the_back(crm: Crm, billing: Billing) -> Edits:
    """Somebody has a busy morning."""
    edits = Edits([], {}, {})

    def done(resource: str, what: str, policy: str) -> None:
        edits.done.append(Edit(resource, what, policy))

    crm.update("c-3", {"phone": "+1 555 0100"})
    done("crm/contact/c-3", "phone number changed", "correct")
    crm.update("c-4", {"email": None})
    done("crm/contact/c-4", "e-mail address emptied", "correct")
    crm.update("c-5", {"phone": "(49) 30-1005"})
    done("crm/contact/c-5", "phone number written differently", "no drift: the same digits")
    edits.theirs["crm/contact/c-5"] = {"phone": "(49) 30-1005"}
    crm.update("c-6", {"note": "call back on Friday"})
    done("crm/contact/c-6", "a note, which no workflow owns", "left alone")
    edits.theirs["crm/contact/c-6"] = {"note": "call back on Friday"}
    crm.delete("c-7")
    done("crm/contact/c-7", "deleted", "correct")
    crm.update("c-8", {"owner": "somebody-else", "note": "mine now"})
    done("crm/contact/c-8", "owner and a note changed", "report")
    edits.theirs["crm/contact/c-8"] = {"note": "mine now"}
    edits.reported["crm/contact/c-8"] = "/owner"
    crm.update("c-9", {"stage": "lost", "note": "no budget"})
    done("crm/contact/c-9", "stage changed, and a note", "correct")
    edits.theirs["crm/contact/c-9"] = {"note": "no budget"}

    billing.change("i-2", {"amount_cents": 1})
    done("billing/invoice/i-2", "amount changed", "correct at once")
    billing.change("i-4", {"status": "paid", "memo": "paid in cash"})
    done("billing/invoice/i-4", "status changed, and a memo", "correct")
    edits.theirs["billing/invoice/i-4"] = {"memo": "paid in cash"}
    billing.delete("i-6")
    done("billing/invoice/i-6", "deleted", "correct")
    billing.change("i-8", {"memo": "send by post"})
    done("billing/invoice/i-8", "a memo, which no workflow owns", "left alone")
    edits.theirs["billing/invoice/i-8"] = {"memo": "send by post"}
    billing.change("i-10", {"customer": {"name": "Kai Lund", "city": "Atlantis"}})
    done("billing/invoice/i-10", "the customer's city changed", "correct")
    return edits
