"""How a REST interface becomes resources, as the targets file says it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator
from yarl import URL

from reconciler.targets.dedup.config import DedupConfig, MemoryDedupConfig
from reconciler.targets.settings import Strict
from reconciler.values.pointer import tokens_of

ID = "{id}"


def _pointer(path: str) -> str:
    tokens_of(path)
    return path


def _with_id(template: str) -> str:
    if template.count(ID) != 1:
        raise ValueError(f"{template!r} must hold {ID} once, where the id of the resource stands")
    return _relative(template)


def _relative(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"{path!r} must begin with '/': it is added to `base_url`")
    return path


Pointer: TypeAlias = Annotated[str, AfterValidator(_pointer)]
ItemPath: TypeAlias = Annotated[str, AfterValidator(_with_id)]
Path: TypeAlias = Annotated[str, AfterValidator(_relative)]


class Source(Strict):
    """Where an answer says something about a resource: in a header, or in its body."""

    header: str | None = None
    pointer: Pointer | None = None

    @model_validator(mode="after")
    def _one(self) -> Source:
        if (self.header is None) == (self.pointer is None):
            raise ValueError("needs one of `header` and `pointer`")
        return self


class NextLink(Strict):
    """The address of the next page stands in the body, or in a `Link` header with `rel="next"`."""

    kind: Literal["link"]
    pointer: Pointer | None = None
    """Left out: the header."""


class NextCursor(Strict):
    """A text in the body is given back in a parameter for the next page."""

    kind: Literal["cursor"]
    pointer: Pointer
    parameter: str


class PageNumber(Strict):
    """Pages are numbered; an empty page is past the last."""

    kind: Literal["number"]
    parameter: str
    first: int = 1


class OnePage(Strict):
    """The list is never divided."""

    kind: Literal["none"] = "none"


Paging: TypeAlias = Annotated[NextLink | NextCursor | PageNumber | OnePage, Field(discriminator="kind")]


class ListConfig(Strict):
    """The endpoint that lists resources of a type. Pointers go into one item, but `items`, which goes into the body."""

    path: Path
    items: Pointer = ""
    id: Pointer = "/id"
    fields: Pointer = ""
    leave_out: tuple[Pointer, ...] = ()
    """Places inside the fields that only the list tells, such as the id: they are no fields of the resource."""
    etag: Pointer | None = None
    """Must be the very text that the item's own `ETag` header has."""
    modified_at: Pointer | None = None
    modified_by: Pointer | None = None
    paging: Paging = OnePage()
    page_size_parameter: str | None = None
    page_size: int = Field(default=100, ge=1)
    ids_parameter: str | None = None
    """Asks for some ids alone: all in one, by commas. Left out, each resource is asked for on its own."""
    ids_at_once: int = Field(default=50, ge=1, le=1_000)
    missing: Literal["ask", "absent"] = "ask"
    """What it means that an item asked for by id isn't in the answer: `ask` for it on its own, or `absent`."""


class CreateConfig(Strict):
    """How a resource is made under an id that is given."""

    method: Literal["PUT", "POST"] = "PUT"
    path: Path | None = None
    """Left out: the item's own. Of a POST, usually the list's; the id must then stand in the fields."""


class CompensationConfig(Strict):
    """The endpoint of one compensation. Its arguments are sent as the JSON body."""

    path: ItemPath
    method: Literal["POST", "PUT"] = "POST"
    idempotency_header: str | None = "Idempotency-Key"
    """The header by which the endpoint knows a repetition; null if it has none, so that no repetition must reach it."""


class HttpResourceConfig(Strict):
    """One resource type."""

    item: ItemPath
    fields: Pointer = ""
    id: Pointer | None = None
    """Where an item says its id, which then must be the one asked for."""
    guard: Literal["etag", "none"] = "etag"
    """`none` is for interfaces without ETags: a change by others between our look and our write can then be overwritten."""
    modified_at: Source | None = None
    modified_by: Source | None = None
    modified_by_kind: str = "user"
    write: Literal["put", "merge_patch", "json_patch"] = "put"
    create: CreateConfig = CreateConfig()
    list: ListConfig | None = None
    compensations: dict[str, CompensationConfig] = Field(default={})


class HttpConfig(Strict):
    """``kind: http``."""

    base_url: str
    headers: dict[str, SecretStr] = Field(default={})
    resources: dict[str, HttpResourceConfig] = Field(min_length=1)
    timeout_s: float = Field(default=10.0, gt=0)
    concurrency: int = Field(default=8, ge=1, le=256)
    bulk_size: int = Field(default=200, ge=1, le=10_000)
    max_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    origin_header: str | None = "X-Reconciler-Origin"
    """A header of every write of ours, with the command's origin mark: its id."""
    dedup: Annotated[DedupConfig, Field(discriminator="kind")] = MemoryDedupConfig(kind="memory")

    @field_validator("base_url")
    @classmethod
    def _http(cls, base_url: str) -> str:
        url = URL(base_url)
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("is no http or https address")
        if url.query_string or url.fragment:
            raise ValueError("`base_url` can't have a query or a fragment")
        return base_url.rstrip("/")
