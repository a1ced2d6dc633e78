"""What the process does with memory: a worker makes and forgets many thousand small things a second, and keeps some for long."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

# mallopt(3), as glibc numbers its parameters.
_TRIM_THRESHOLD: Final = -1
_TOP_PAD: Final = -2
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
_ARENAS: Final = 2
"""Heaps of memory for all threads. By default each thread has one of its own, and what one of them frees serves no other."""
_MIB: Final = 1 << 20


def search_less_for_garbage() -> None:
    """States are trees without circles, which counting references gives back; what refers in circles is Faust's and asyncio's
    own, and little. By default, all heads in the cache would be looked through again and again for it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(500_000, 20, 100)


def keep_freed_memory() -> None:
    """Keeps what one batch has freed for the next. glibc gives it back to the system, which clears every page of it before the
    next batch gets it: a twentieth of all processor time. Another C library is left as it is."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or getattr(ctypes.CDLL(None), "gnu_get_libc_version", None) is None:
        return
    mallopt(_TRIM_THRESHOLD, 256 * _MIB)
    mallopt(_TOP_PAD, 16 * _MIB)
    mallopt(_MMAP_THRESHOLD, 32 * _MIB)
    mallopt(_ARENA_MAX, _ARENAS)
