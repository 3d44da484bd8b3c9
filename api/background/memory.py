"""Giving memory back between the stages of a long job, and taking less of it."""

from __future__ import annotations

import ctypes
import gc
import os


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


def lean_torch() -> None:
    """Keeps torch from hoarding memory and from spinning; to be called before it is first imported.

    Batches have many lengths, and oneDNN would keep compiled kernels for a thousand shapes: 1 GB in a few epochs.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, "16")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
