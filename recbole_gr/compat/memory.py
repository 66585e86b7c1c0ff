"""Memory that a process keeps for its next tensors, instead of giving it back to the kernel.

glibc returns a large block to the kernel as soon as it is free, and the next tensor of that size is
zeroed page by page once more. A step on a CPU makes hundreds of such tensors: with memory that
stays, in pages of 2 MiB where the kernel has them, a test of TIGER takes a fifth less time and an
epoch a twelfth (docs/speed.md). A process keeps what it took at its peak.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

_TRIM, _PAD, _MMAP = -1, -2, -3  # numbers of mallopt's parameters, malloc.h
_FROM_THE_HEAP = (1 << 30, 1 << 25)  # older versions of glibc take no more than the second
_KEPT, _AT_ONCE = (1 << 31) - 1, 1 << 26
SWITCH = "RECBOLE_GR_KEEP_MEMORY"


def keep_memory() -> bool:
    """Let this process keep its memory; before torch makes its first tensor.

    Nothing is done where the environment has settings of malloc's or another allocator, where
    `RECBOLE_GR_KEEP_MEMORY` is 0, and where there is no glibc.

    Returns:
        bool: whether it does.
    """
    chosen = ("LD_PRELOAD", "GLIBC_TUNABLES")
    given = any(name.startswith("MALLOC_") or name in chosen for name in os.environ)
    if sys.platform != "linux" or given or os.environ.get(SWITCH) == "0":
        return False
    mallopt = _of_libc("mallopt")
    if mallopt is None or not any(mallopt(_MMAP, size) for size in _FROM_THE_HEAP):
        return False
    mallopt(_TRIM, _KEPT)
    mallopt(_PAD, _AT_ONCE)
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch then asks for pages of 2 MiB
    return True


def give_back() -> None:
    """Give what is free back to the kernel after all, so that a peak can be measured from here."""
    trim = _of_libc("malloc_trim") if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _of_libc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)
