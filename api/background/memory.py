"""Giving memory back between the stages of a long job."""

from __future__ import annotations

import ctypes
import gc


def release_memory() -> None:
    """Returns what is free to the system, as far as the allocators allow.

    The stages of a build each need a few hundred MB for a moment; allocators keep what was freed, and the sum of all
    peaks, not the largest, would be what the machine has to hold.
    """
    import pyarrow as pa

    gc.collect()
    pa.default_memory_pool().release_unused()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # not glibc
        return
