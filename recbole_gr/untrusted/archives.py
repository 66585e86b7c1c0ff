"""Files of arrays: read without pickles, and never larger in memory than they are on the disk."""

from __future__ import annotations

import io
import math
import os
import zipfile
from typing import IO, Any

import numpy as np
import torch
from torch import nn

_MOST = 100  # how much larger than a file its parts may be; ours are not compressed
_SMALL = 1 << 20  # bytes that no one needs to be protected from


def check_archive(path: str | os.PathLike[str]) -> None:
    """Compare all parts of a zip file with their checksums, which its readers may not do.

    Raises:
        ValueError: a part was changed since it was written, has a password or would be unpacked to
            far more than the file holds; says which.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            whole = sum(part.file_size for part in archive.infolist())
            if whole > max(_SMALL, _MOST * os.path.getsize(path)):
                raise ValueError(f"its parts would take {whole} bytes")
            damaged = archive.testzip()
    except ValueError:
        raise
    except Exception as error:  # a header that was changed asks for anything, a password too
        raise ValueError(str(error)) from error
    if damaged is not None:
        raise ValueError(damaged)


def load_tensors(path: str | os.PathLike[str], device: torch.device | str | None = None) -> Any:
    """What `torch.save` wrote, if it is plain data.

    Raises:
        ValueError: a tensor that is not wholly in the file.
        Exception: torch's, of a dozen types.
    """
    state = torch.load(path, map_location=device, weights_only=True)
    left, seen = [state], set()
    while left:
        value = left.pop()
        if isinstance(value, torch.Tensor):
            _require_held(value)
        elif isinstance(value, (dict, list, tuple, set)) and id(value) not in seen:
            seen.add(id(value))
            left += value.values() if isinstance(value, dict) else value
    return state


def _require_held(value: torch.Tensor) -> None:
    """A tensor can claim to be far larger than what is stored of it (a stride of 0), or to have no
    values at all."""
    plain = type(value) in (torch.Tensor, nn.Parameter) and value.layout == torch.strided
    if not plain or value.is_meta or value.is_quantized:
        raise ValueError(f"it holds a tensor of another kind ({type(value).__name__})")
    size = value.numel() * value.element_size()
    if size > max(_SMALL, _MOST * value.untyped_storage().nbytes()):
        raise ValueError(f"it holds a tensor of shape {list(value.shape)} without the values")


def load_npy(path: str | os.PathLike[str], mmap: bool = False) -> np.ndarray:
    """The array of a `.npy` file, or a view of the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file, holds Python objects, or fewer values than its head says.
    """
    if not isinstance(path, (str, os.PathLike)):  # a number is an open file to Python
        raise ValueError(f"{path!r} is no path of a file")
    with open(path, "rb") as file:
        _check_head(file, os.path.getsize(path))
    return np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)


def load_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file by name.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file, damaged, encrypted, or holds something else than arrays.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no .npz file, or not the whole of one")
    check_archive(path)
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            _check_head(io.BytesIO(data), len(data))
            arrays[name.removesuffix(".npy")] = np.load(io.BytesIO(data), allow_pickle=False)
    return arrays


def _check_head(file: IO[bytes], size: int) -> None:
    """numpy makes room for whatever the head of a file asks for before it reads on."""
    formats = np.lib.format
    try:
        version = formats.read_magic(file)
        reads = {(1, 0): formats.read_array_header_1_0, (2, 0): formats.read_array_header_2_0}
        if version not in reads:
            raise ValueError(f"it is of version {version} of the format, made for tables")
        shape, _, dtype = reads[version](file)
        rest = size - file.tell()
        fits = all(length >= 0 for length in shape) and math.prod(shape) * dtype.itemsize <= rest
    except Exception as error:  # its head is a Python literal, in which anything may be wrong
        raise ValueError(f"it is no .npy file: {error}") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not loaded")
    if not fits:
        raise ValueError(f"its head says shape {list(shape)}, and it is too short for that")
