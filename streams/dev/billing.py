"""The billing service of the embedded estate, as its other users see it: a plain REST client."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

_ATTEMPTS = 5  # an edit is made again where somebody else's came between


class Billing:
    """The billing service's own view of its invoices. ``url`` is that of the collection."""

    def __init__(self, url: str) -> None:
        self._url = url

    def create(self, invoice_id: str, fields: dict[str, Any]) -> None:
        """A new invoice. Raises urllib.error.HTTPError where there is one already."""
        self._call("PUT", f"/{invoice_id}", fields, {"If-None-Match": "*"})

    def change(self, invoice_id: str, fields: dict[str, Any]) -> None:
        """Some fields of an invoice."""
        for attempt in range(_ATTEMPTS):
            document, tag = self._read(invoice_id)
            try:
                self._call("PUT", f"/{invoice_id}", {**document, **fields}, {"If-Match": tag})
                return
            except urllib.error.HTTPError as error:
                if error.code != 412 or attempt == _ATTEMPTS - 1:
                    raise

    def delete(self, invoice_id: str) -> None:
        """Takes an invoice away."""
        _, tag = self._read(invoice_id)
        self._call("DELETE", f"/{invoice_id}", None, {"If-Match": tag})

    def invoices(self) -> dict[str, dict[str, Any]]:
        """All invoices as they are."""
        found: dict[str, dict[str, Any]] = {}
        address: str | None = "?limit=100"
        while address is not None:
            page, _ = self._call("GET", address, None, {})
            found |= {item["id"]: {name: item[name] for name in item if name != "id"} for item in page["items"]}
            address = f"?limit=100&cursor={page['next']}" if page.get("next") else None
        return found

    def credit_notes(self, invoice_id: str) -> list[dict[str, Any]]:
        """What was given back for an invoice that was sent."""
        answer, _ = self._call("GET", f"/{invoice_id}/credit-notes", None, {})
        notes: list[dict[str, Any]] = answer["items"]
        return notes

    def _read(self, invoice_id: str) -> tuple[dict[str, Any], str]:
        document, tag = self._call("GET", f"/{invoice_id}", None, {})
        return document, tag

    def _call(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[Any, str]:
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **headers},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
            return (json.loads(text) if text else None), answer.headers.get("ETag", "")
