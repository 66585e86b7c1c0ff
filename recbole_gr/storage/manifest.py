"""The manifest of a run: its inputs and its results, so that it can be run again and compared."""

from __future__ import annotations

import glob
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from recbole_gr.errors import ConfigError
from recbole_gr.storage.checkpoint import plain, versions
from recbole_gr.storage.hashes import sha256
from recbole_gr.storage.json_files import load_json, save_json
from recbole_gr.untrusted.shapes import (
    ANY,
    OrNone,
    Rule,
    at_least,
    require,
    require_version,
)

if TYPE_CHECKING:
    from recbole.config import Config

FORMAT_VERSION = 1
NAME = "manifest.json"
REMEDY = f"Give the {NAME} beside a run's report as it was written."
_METRICS = OrNone({...: OrNone(float)})
_PROCESSES = OrNone(Rule("-1 or a number of processes", lambda n: type(n) is int and n < 1025))
_LAYOUT = {"nproc?": _PROCESSES, "world_size?": _PROCESSES}
_FILES = {...: OrNone(str)}
#: What a manifest holds in any case.
MANIFEST = {
    "runs": [{"model": str, "config": dict}],
    "continual?": {
        "models": [str],
        "dataset": str,
        "settings": {**_LAYOUT},
        "data": _FILES,
        "results": [
            {
                "period": at_least(0), "model": str, "method": str, "churn": ANY,
                "test_result": _METRICS, "best_valid_result": _METRICS,
            }
        ],
    },
    "versions?": dict,
    "machine?": dict,
}  # fmt: skip
#: What a run's part of it holds that is to be compared with another.
RUN = {
    "model": str,
    "dataset": str,
    "config": {"model": str, "dataset": str, **_LAYOUT},
    "data": _FILES,
    "sid_digest": OrNone(str),
    "test_targets": OrNone(dict),
    "test_result": _METRICS,
    "best_valid_result": _METRICS,
}
_FILE_KEYS = (  # settings that name a file a run reads
    *("sid_file", "content_file", "cf_file", "continual_start_sids", "continual_start_tokenizer"),
)
_FILES_OF_PERIODS = ("continual_cf_files", "continual_sid_files")
_RESULT_KEYS = (
    *("model", "dataset", "best_valid_score", "best_valid_result", "test_result"),
    *("test_interval", "test_buckets", "test_targets", "best_epoch", "epochs_run", "sid_digest"),
    *("checkpoint", "example"),
    *("seconds_per_epoch", "seconds_total", "parameters", "peak_memory_bytes", "config"),
)


def write_manifest(
    results: list[dict[str, Any]], folder: str | os.PathLike[str], saved: bool
) -> str:
    """Write `manifest.json` beside the report of a run.

    It holds the command, versions, the machine, and for each model its whole configuration (seed
    included), the sha256 of every file of its data set and of its SIDs, metrics, and times.

    Args:
        results (list[dict]): as `run_recbole_gr` returns them for one model.
        folder (str | os.PathLike): of the report.
        saved (bool): whether the best epoch was tested, not the last one.

    Returns:
        str: the path.
    """
    hashes: dict[str, str | None] = {}
    runs = []
    for result in results:
        run = {key: result.get(key) for key in _RESULT_KEYS}
        run["data"] = data_hashes(result["config"], hashes)
        runs.append(run)
    return write_record(folder, {"saved": saved, "runs": runs})


def write_continual_manifest(
    models: Sequence[str],
    config: Config,
    settings: Mapping[str, Any],
    results: list[dict[str, Any]],
    folder: str | os.PathLike[str],
) -> str:
    """Write `manifest.json` beside the report of a continual run.

    Args:
        models (list[str]): of the command, `DACT` among them.
        config (Config): of the continual run.
        settings (dict): what the user gave.
        results (list[dict]): one a period and method.
        folder (str | os.PathLike): of the report.

    Returns:
        str: the path.
    """
    kept = ("period", "model", "method", "test_result", "best_valid_result", "churn")
    also = ("test_interval", "checkpoint", "example")  # not in what earlier versions kept
    continual = {
        "models": models,
        "dataset": config["dataset"],
        "settings": settings,
        "data": data_hashes(config),
        "results": [
            {key: result[key] for key in kept} | {key: result.get(key) for key in also}
            for result in results
        ],
    }
    return write_record(folder, {"runs": [], "continual": continual})


def write_record(
    folder: str | os.PathLike[str], content: Mapping[str, Any], name: str = NAME
) -> str:
    """Write `content` with command, versions and machine; returns the path."""
    manifest = {
        "format_version": FORMAT_VERSION,
        "command": [sys.executable, *sys.argv],
        "versions": versions(),
        "machine": machine(),
        **content,
    }
    path = Path(folder, name)
    save_json(path, plain(manifest))
    return str(path)


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest at `path`.

    Raises:
        ConfigError: no such file, or no manifest, or one of a later version.
    """
    manifest = load_json(path, f"manifest '{path}'", REMEDY)
    if not isinstance(manifest, dict) or not {"format_version", "runs"} <= set(manifest):
        raise ConfigError(f"'{path}' is not a manifest; give the {NAME} beside a run's report")
    require_version(manifest["format_version"], FORMAT_VERSION, path)
    require(manifest, MANIFEST, path, REMEDY)
    return manifest


def data_hashes(
    config: Config | dict[str, Any], known: dict[str, str | None] | None = None
) -> dict[str, str | None]:
    """sha256 by file name of the files that a run reads.

    Args:
        config (dict | Config): plain settings of the run.
        known (dict | None): hashes by path that were computed before; filled.

    Returns:
        dict[str, str]: the data set's own files by their names, others by the key that names them.

    Raises:
        ConfigError: a key names no file.
    """
    known = {} if known is None else known
    own = glob.glob(os.path.join(glob.escape(config["data_path"]), f"{config['dataset']}.*"))
    files = {os.path.basename(path): path for path in sorted(own)}
    for key in _FILE_KEYS:
        path = _get(config, key)
        if path and not isinstance(path, (str, os.PathLike)):  # a number is an open file to Python
            raise ConfigError(f"{key}: {path!r} is no path of a file")
        if path:
            files[key] = path
    for key in _FILES_OF_PERIODS:
        given = _get(config, key) or ()
        lists = given if isinstance(given, Mapping) else {"": given}  # by names, or one
        for name, paths in lists.items():
            for number, path in enumerate(paths):
                files[f"{key}{f'[{name}]' if name else ''}[{number}]"] = path
    for path in files.values():
        if path not in known:
            known[path] = sha256(path)
    return {name: known[path] for name, path in files.items()}


def machine() -> dict[str, Any]:
    """What of a machine results and times depend on."""
    return {
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _get(config: Config | dict[str, Any], key: str) -> Any:
    return config.get(key) if isinstance(config, dict) else config[key]
