"""Checkpoints of tensors and plain data: loading one never executes anything."""

from __future__ import annotations

import contextlib
import os
import platform
import random
import zipfile
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from torch import nn

from recbole_gr.compat import installed
from recbole_gr.errors import ConfigError
from recbole_gr.storage.files import atomic_write
from recbole_gr.untrusted.archives import check_archive, load_tensors
from recbole_gr.untrusted.shapes import require_version

if TYPE_CHECKING:
    from recbole.config import Config

FORMAT_VERSION = 2  # 1 was before T5's logits without a scale, see model/backbone.py
_PLAIN = (str, int, float, bool, type(None))
_KIND = "__kind__"


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write `state` to `path`, completely or not at all.

    Args:
        path (str | os.PathLike): the file.
        state (dict): tensors, str, int, float, bool, None, and dicts, lists and tuples of these.
            `encode` turns numpy and scipy data into such; `plain_config` does it for a Config.

    Raises:
        TypeError: `state` holds something else; names where.
        DiskFull: there is no space for it.
    """
    _require_plain(state, "state")
    state = {**state, "format_version": FORMAT_VERSION, "versions": versions()}
    # UserSettings a path, torch keeps to itself why the system would not write.
    with atomic_write(path) as tmp, open(tmp, "wb") as file:
        torch.save(state, file)


def versions() -> dict[str, str]:
    """The versions of what results depend on, by name."""
    import recbole

    import recbole_gr

    return {
        "recbole_gr": recbole_gr.__version__,
        "recbole": recbole.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        **installed("pandas", "scipy", "scikit-learn", "faiss"),
        "python": platform.python_version(),
    }


def load_checkpoint(
    path: str | os.PathLike[str], map_location: torch.device | str | None = None
) -> dict[str, Any]:
    """Read a checkpoint that `save_checkpoint` wrote.

    Args:
        path (str | os.PathLike): the file.
        map_location (torch.device | str | None): where its tensors shall be.

    Returns:
        dict: the state, with `format_version` and `versions` added.

    Raises:
        ConfigError: the file is missing, truncated, damaged, of another program, or holds pickled
            objects (which are not executed); names the file and the remedy.
    """
    # A number, which a setting may be, is an open file to Python.
    if not isinstance(path, (str, os.PathLike)) or not os.path.isfile(path):
        raise ConfigError(f"There is no checkpoint '{path}'.")
    if zipfile.is_zipfile(path):  # else cut or of another program: what torch says is clearer
        try:
            check_archive(path)
        except ValueError as error:
            raise ConfigError(
                f"'{path}' is damaged ({error}): it is not what was written. Take a copy of it, or "
                "train the model again."
            ) from error
    try:
        state = load_tensors(path, map_location)
    except Exception as error:  # torch raises a dozen types here, and the remedy is one
        if "weights_only" in str(error) or "Unsupported global" in str(error):
            raise ConfigError(
                f"'{path}' holds pickled Python objects, as RecBole's own checkpoints do. It was "
                "not loaded, because that would run code from the file. Train the model again with "
                "RecBole-GR."
            ) from error
        raise ConfigError(
            f"'{path}' is not a complete checkpoint ({type(error).__name__}). Take another file, "
            "or train the model again."
        ) from error
    if not isinstance(state, dict) or "format_version" not in state:
        raise ConfigError(
            f"'{path}' was not written by RecBole-GR: it has no format_version. Train the model "
            "again."
        )
    require_version(state["format_version"], FORMAT_VERSION, path)
    return state


def encode(value: Any) -> Any:
    """Turn numpy arrays, scipy matrices, sets and modules inside `value` into plain data.

    Modules are represented by their state dict. `decode` is the way back.

    Raises:
        TypeError: something inside has no plain form.
    """
    if isinstance(value, np.generic):  # before the plain types: np.float64 is a float
        return value.item()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "biufc":
            return {_KIND: "ndarray", "data": torch.from_numpy(np.ascontiguousarray(value))}
        return {
            _KIND: "object_ndarray",
            "text": value.dtype.kind == "U",
            "shape": list(value.shape),
            "data": encode(value.ravel().tolist()),
        }
    if sparse.issparse(value):
        coo = value.tocoo()
        return {
            _KIND: "sparse",
            "format": value.format,
            "array": not sparse.isspmatrix(value),
            "shape": list(value.shape),
            "row": torch.from_numpy(coo.row.astype(np.int64)),
            "col": torch.from_numpy(coo.col.astype(np.int64)),
            "data": torch.from_numpy(np.ascontiguousarray(coo.data)),
        }
    if isinstance(value, nn.Module):
        return {_KIND: "module", "state": dict(value.state_dict())}
    if isinstance(value, dict):
        return {
            _KIND: "dict",
            "items": [[encode(key), encode(item)] for key, item in value.items()],
        }
    if isinstance(value, (set, frozenset)):
        return {_KIND: "set", "items": [encode(item) for item in value]}
    if isinstance(value, (list, tuple)):
        return (tuple if isinstance(value, tuple) else list)(encode(item) for item in value)
    raise TypeError(f"A {type(value).__name__} cannot be put into a checkpoint.")


def decode(value: Any, into: nn.Module | None = None) -> Any:
    """Undo `encode`. A module's state is loaded into the module `into`, which is returned."""
    if isinstance(value, (list, tuple)):
        return type(value)(decode(item) for item in value)
    if not isinstance(value, dict):
        return value
    kind = value.get(_KIND)
    if kind == "dict":
        return {decode(key): decode(item) for key, item in value["items"]}
    if kind == "set":
        return {decode(item) for item in value["items"]}
    if kind == "ndarray":
        return value["data"].cpu().numpy()
    if kind == "object_ndarray":
        array = np.empty(len(value["data"]), dtype=object)
        array[:] = decode(value["data"])
        array = array.astype(str) if value.get("text") else array
        return array.reshape(value["shape"])
    if kind == "sparse":
        row, col, data = (value[name].cpu().numpy() for name in ("row", "col", "data"))
        make = sparse.coo_array if value["array"] else sparse.coo_matrix
        return make((data, (row, col)), shape=tuple(value["shape"])).asformat(value["format"])
    if kind == "module":
        assert into is not None, "a module's state needs the module"
        into.load_state_dict(value["state"])
        return into
    raise ValueError(f"Unknown kind of data in a checkpoint: {kind!r}.")


def plain_config(config: Config) -> dict[str, Any]:
    """A Config, or a dict, as a dict of plain values; what has no plain form becomes its text."""
    return plain(dict(config.final_config_dict))


def random_states() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's random generators, as plain data."""
    state = np.random.get_state()
    assert isinstance(state, tuple)  # the form that it has by default
    name, keys, position, has_gauss, cached = state
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Put the generators back into the states that `random_states` returned."""
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])


@contextlib.contextmanager
def random_states_kept() -> Iterator[None]:
    """Whatever is drawn inside the block, the generators are as before it afterwards."""
    states = random_states()
    try:
        yield
    finally:
        restore_random_states(states)


def plain(value: Any) -> Any:
    """Settings and figures as plain values, for reading and not for restoring: sets and tuples
    become lists, what has no plain form its text."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    return str(value)


def _require_plain(value: object, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, (str, int, float, bool)):
                raise TypeError(f"{where} has a key of type {type(key).__name__}.")
            _require_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _require_plain(item, f"{where}[{index}]")
    elif type(value) not in (*_PLAIN, torch.Tensor, nn.Parameter):
        raise TypeError(
            f"{where} is a {type(value).__name__}; a checkpoint holds tensors and plain data only."
        )


STOPPED = "-stopped"  # what the name of such a checkpoint ends in, before its suffix


def stopped_beside(checkpoint: str | os.PathLike[str]) -> Path:
    """Where the place of a stopped training is kept: beside its best `checkpoint`."""
    best = Path(checkpoint)
    return best.with_stem(f"{best.stem}{STOPPED}")


def best_of(checkpoint: str | os.PathLike[str]) -> Path:
    """The way back from `stopped_beside`; any other checkpoint is its own."""
    path = Path(checkpoint)
    return path.with_stem(path.stem.removesuffix(STOPPED))
