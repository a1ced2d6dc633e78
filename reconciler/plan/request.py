"""Rollback requests in their JSON form: people may be named by their ids alone."""

from __future__ import annotations

from reconciler.json_form import from_json
from reconciler.records import RollbackRequest
from reconciler.values.errors import InputError
from reconciler.values.json_value import Json
from reconciler.values.resource_key import parse_resource_key


def request_from_json(data: Json) -> RollbackRequest:
    """The request that a parsed JSON object describes. Raises InputError naming the field."""
    if not isinstance(data, dict):
        raise InputError("a rollback request must be a JSON object")
    data = dict(data)
    if isinstance(data.get("requested_by"), str):
        data["requested_by"] = _person(data["requested_by"])
    approvals = data.get("approvals")
    if isinstance(approvals, list):
        data["approvals"] = [_approval(item) for item in approvals]
    request = from_json(RollbackRequest, data)
    if request.select is not None and request.select.resource is not None:
        try:
            parse_resource_key(request.select.resource)
        except InputError as error:
            raise InputError(error.message, field="select.resource") from None
    return request


def _person(name: str) -> Json:
    return {"id": name, "kind": "user"}


def _approval(item: Json) -> Json:
    """An approval, of which the simplest form is the id of who gave it."""
    if isinstance(item, str):
        return {"by": _person(item)}
    if isinstance(item, dict) and isinstance(item.get("by"), str):
        return {**item, "by": _person(item["by"])}
    if isinstance(item, dict) and "by" not in item and isinstance(item.get("id"), str):
        return {
            **{name: value for name, value in item.items() if name not in ("id", "kind")},
            "by": _person(item["id"]),
        }
    return item
