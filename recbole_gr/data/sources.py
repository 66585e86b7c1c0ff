"""The files that a run reads, by their bytes: whether what is kept of it still belongs to them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping
from logging import getLogger
from typing import TYPE_CHECKING, Any

from recbole_gr.data.atomic import atomic_path
from recbole_gr.data.ties import check_same_order
from recbole_gr.errors import ConfigError
from recbole_gr.storage.checkpoint import plain_config
from recbole_gr.storage.hashes import folder_sha256, sha256
from recbole_gr.untrusted.shapes import OrNone

if TYPE_CHECKING:
    from recbole_gr.config import Config

#: By a name that stays where the file moves, its `path` and the `sha256` of its bytes.
Sources = dict[str, dict[str, str | None]]

#: The shape of it in a file.
SOURCES = {...: {"path": OrNone(str), "sha256": OrNone(str)}}

#: Settings that name a file a run reads.
FILE_KEYS = ("content_file", "cf_file", "sid_file")

#: Settings that decide where and by what a run is done, not what comes out of it.
UNHASHED_KEYS = frozenset(
    "continual_dir show_progress device gpu_id use_gpu worker state sid_dir checkpoint_dir "
    "result_dir log_wandb log_level content_cache_dir data_path resume dataset_save_path "
    "dataloaders_save_path save_dataset save_dataloaders nproc world_size ip port group_offset "
    "encoding".split()
)


def settings_that_count(
    settings: Config | Mapping[str, Any], without: Collection[str] = ()
) -> dict[str, Any]:
    """Settings that a result depends on, as plain data. Of files it counts whether they are given;
    what is in them is told by :func:`sources_of`.

    Args:
        settings: a Config or its plain form.
        without: keys that are left out beside :data:`UNHASHED_KEYS`.
    """
    plain = settings if isinstance(settings, dict) else plain_config(settings)
    values = {k: value for k, value in plain.items() if k not in UNHASHED_KEYS and k not in without}
    given = {k: bool(values.get(k)) for k in (*FILE_KEYS, "continual_cf_files")}
    later = ("members", "continual_start_sids", "continual_start_tokenizer")
    return {**values, **given, **{key: True for key in later if values.get(key)}}


def settings_digest(
    settings: Config | Mapping[str, Any], without: Collection[str] = ()
) -> str:
    """sha256 (hexadecimal) of :func:`settings_that_count`."""
    counted = settings_that_count(settings, without)
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


def sources_of(
    config: Config, file_hash: Callable[[str], str | None] = sha256
) -> Sources:
    """The files that decide what comes out of a run.

    Args:
        config (Config): of the run.
        file_hash: gives the sha256 of a file's bytes, None where there is none.

    Returns:
        dict: `path` and `sha256` (None where there is no such file) by name: the data set's own
        files by theirs, others by the key that names them, with a number where it names several.
    """
    suffixes = ["inter", "item", "user", *(config["load_col"] or ())]
    suffixes += config["additional_feat_suffix"] or []
    suffixes += [f"{part}.inter" for part in config["benchmark_filename"] or ()]
    if not config["content_file"]:  # which would be read in its place
        suffixes.append("itememb.npy")
    own = (atomic_path(config, suffix) for suffix in dict.fromkeys(suffixes))
    files = {os.path.basename(path): path for path in own if os.path.isfile(path)}
    files |= {key: str(config[key]) for key in FILE_KEYS if config[key]}
    starts = ("continual_start_sids", "continual_start_tokenizer")
    files |= {key: str(config[key]) for key in starts if config[key]}
    for key in ("continual_cf_files", "members"):
        for number, path in enumerate(config[key] or ()):
            files[f"{key}[{number}]"] = str(path)
    found: Sources = {name: {"path": p, "sha256": file_hash(p)} for name, p in files.items()}
    encoder = config["text_encoder"]
    if config["item_content"] == "sentence" and encoder and os.path.isdir(encoder):
        found["text_encoder"] = {"path": str(encoder), "sha256": folder_sha256(encoder)}
    return found


def changes(kept: Mapping[str, Mapping[str, str | None]], now: Sources) -> list[str]:
    """What is not as it was, in words, each file by its path and its hashes then and now.

    A file of a period may come or go, as a run over periods may go further than before.

    Args:
        kept, now: of :func:`sources_of`.
    """
    wrong = []
    for name in sorted({*kept, *now}):
        before, present = kept.get(name), now.get(name)
        if before is None or present is None:
            file = present or before or {}
            if not name.startswith("continual_"):
                what = f"is there now (sha256 {_short(file)})" if present else "is not there now"
                wrong.append(f"{_called(name, file)} {what}, other than then")
        elif before["sha256"] != present["sha256"]:
            wrong.append(
                f"{_called(name, present)} changed: its sha256 was {_short(before)} and is "
                f"{_short(present)}"
            )
    return wrong


def check_sources(
    state: Mapping[str, Any], config: Config, file: str | os.PathLike[str]
) -> None:
    """See that a training goes on with the data it began with, to which its batches belong.

    Args:
        state (dict): the checkpoint; its `files` are missing or empty in those of the first
            versions, of which a warning says so.
        config (Config): of the run that goes on.
        file: the checkpoint, for messages.

    Raises:
        ConfigError: says which files changed, or that events at one time have another order.
    """
    check_same_order(state["config"], config, file)
    kept: Sources | None = state.get("files")
    if not kept:
        getLogger().warning(
            "resume: '%s' is of an earlier version, which did not note the files of its data; only "
            "its users and items are compared", file,
        )  # fmt: skip
        return
    wrong = changes(kept, sources_of(config))
    if wrong:
        raise ConfigError(
            f"resume: '{file}' was trained on other data: {'; '.join(wrong)}. Give the files it "
            "was trained on, or train on these from the start, without --resume."
        )


def _called(name: str, file: Mapping[str, str | None]) -> str:
    path = str(file.get("path"))
    return f"'{path}'" if os.path.basename(path) == name else f"{name} '{path}'"


def _short(file: Mapping[str, str | None]) -> str:
    return f"{(file['sha256'] or 'that of no file')[:16]}"
