"""How hashes become resources, as the targets file says it."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator

from reconciler.targets.first_outcome import KEPT_S
from reconciler.targets.settings import Strict

ID = "{id}"


class HashConfig(Strict):
    """One resource type. The hash fields named here are the store's own, and no members of the resource."""

    key: str
    """The key, with `{id}` where the resource's id stands."""
    version: str | None = None
    """A hash field that counts the writes. It also lets a resource without members be there, since an empty hash vanishes."""
    modified_at: str | None = None
    modified_by: str | None = None
    modified_by_kind: str = "user"
    written_by: str | None = None
    """What a write of ours puts into `modified_by`, with the instant in `modified_at`; left out, both stay as they are."""
    origin_field: str | None = None
    """A hash field into which a write of ours puts the command's origin mark."""

    @field_validator("key")
    @classmethod
    def _one_id(cls, key: str) -> str:
        if key.count(ID) != 1:
            raise ValueError(f"{key!r} must hold {ID} once, where the id of the resource stands")
        return key

    @property
    def own_fields(self) -> frozenset[str]:
        """The hash fields that aren't members of the resource."""
        names = (self.version, self.modified_at, self.modified_by, self.origin_field)
        return frozenset(name for name in names if name is not None)

    def key_of(self, id_: str) -> bytes:
        """The Redis key of a resource."""
        return self.key.replace(ID, id_).encode()

    @property
    def around_id(self) -> tuple[bytes, bytes]:
        """What stands before and after the id in every key."""
        before, _, after = self.key.partition(ID)
        return before.encode(), after.encode()


class RedisConfig(Strict):
    """``kind: redis``."""

    url: SecretStr
    resources: dict[str, HashConfig] = Field(min_length=1)
    bulk_size: int = Field(default=200, ge=1, le=10_000)
    timeout_s: float = Field(default=5.0, gt=0)
    commands_prefix: str = Field(default="reconciler:command:", min_length=1)
    """Where it is remembered which commands were carried out."""
    commands_ttl_s: int = Field(default=KEPT_S, ge=3600)
