"""The codec that the settings ask for. Apart from `wiring`, so that who only reads and writes records loads no machines."""

from __future__ import annotations

from reconciler.wire.codec import Codec
from streams.settings import Settings


def codec_of(settings: Settings) -> Codec:
    """The codec with the configured registry's ids, or with the packaged ones."""
    if settings.registry_url is None:
        return Codec.packaged()
    # What the registry said is kept, so that a process can start while it is down.
    return Codec.with_registry(settings.registry_url, cache_file=settings.data_dir / "schema-ids.json")
