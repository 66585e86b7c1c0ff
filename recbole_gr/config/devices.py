"""The GPUs that a process sees, which RecBole's Config decides for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_VISIBLE = "CUDA_VISIBLE_DEVICES"


@contextlib.contextmanager
def visible_gpus_kept() -> Iterator[None]:
    """Inside the block a Config may be made without deciding what this process and those that it
    starts see: at the end `CUDA_VISIBLE_DEVICES`, which RecBole sets by `gpu_id`, is as before."""
    before = os.environ.get(_VISIBLE)
    try:
        yield
    finally:
        os.environ.pop(_VISIBLE, None)
        if before is not None:
            os.environ[_VISIBLE] = before
