"""The folder of a continual run: everything of every period, found again by the same command."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_gr.data import sources
from recbole_gr.data.sources import SOURCES, changes, settings_that_count, sources_of
from recbole_gr.errors import ConfigError
from recbole_gr.storage.checkpoint import plain_config
from recbole_gr.storage.files import require_writable
from recbole_gr.storage.json_files import load_json, save_json
from recbole_gr.untrusted.shapes import require

if TYPE_CHECKING:
    from recbole.config import Config

FORMAT_VERSION = 2  # 1 did not note the files that a run was made of
# Keys that decide how far a run goes, or what it is of several; not what comes out of a part of it.
_UNHASHED_KEYS = frozenset(
    "model continual_model continual_sid_files continual_tokenizer continual_recommender "
    "continual_last eval_buckets eval_exact eval_likelihood".split()
)

# What a period keeps of the result of a run.
RESULT_KEYS = (
    *("best_valid_score", "best_valid_result", "test_result", "test_targets", "test_buckets"),
    *("test_result_without_history",),
    *("best_epoch", "epochs_run", "seconds_per_epoch", "parameters", "peak_memory_bytes"),
    *("checkpoint", "generation", "test_interval", "example"),
)


def settings_digest(settings: Config | Mapping[str, Any]) -> str:
    """sha256 (hexadecimal) of a Config or its plain form, but for keys that change no result, and
    for the names of files."""
    return sources.settings_digest(settings, _UNHASHED_KEYS)


class Store:
    """One folder a run: ``period-<p>/`` with collaborative vectors, tokenizers, code tables,
    recommenders and their results.

    The folder's name holds a hash of the settings. What it holds belongs to the files of the data
    set, of vectors and of texts that it was made of, wherever they lie; tables of
    ``continual_sid_files`` lie in it under their own hashes.

    Args:
        config: of the continual run.

    Raises:
        ConfigError: something is kept there of files that have changed since (says which), or by a
            version that did not note them. It stays as it is.
    """

    def __init__(self, config: Config):
        parent, dataset = Path(config["continual_dir"]), config["dataset"]
        digest = settings_digest(config)
        self.root = parent / f"{dataset}-v{FORMAT_VERSION}-{digest[:12]}"
        file, present = self.root / "config.json", sources_of(config)
        require_writable(parent, "set another --continual.dir")
        about = read_json(file)
        if about is None or not _holds_something(self.root):
            self._refuse_older(parent.glob(f"{glob.escape(dataset)}-v1-*"), config)
            about = {"format_version": FORMAT_VERSION, "config": plain_config(config)}
            save_json(file, {**about, "files": present})
            return
        require(about, {"files": SOURCES}, file, "Give another --continual_dir to start over.")
        wrong = changes(about["files"], present)
        if wrong:
            raise ConfigError(
                f"continual_dir: what is kept in '{self.root}' was made of other data: "
                f"{'; '.join(wrong)}. Give the files it was made of to go on, or another "
                "--continual_dir to start over."
            )
        if set(present) - set(about["files"]):  # of further periods
            save_json(file, {**about, "files": {**about["files"], **present}})

    def _refuse_older(self, folders: Iterable[Path], config: Config) -> None:
        """See that nothing with these settings was kept by the first versions."""
        now = json.loads(json.dumps(settings_that_count(config, _UNHASHED_KEYS)))
        for folder in folders:
            kept = (read_json(folder / "config.json") or {}).get("config", {})
            then = settings_that_count(kept, _UNHASHED_KEYS)
            same = all(then[key] == now[key] for key in then.keys() & now.keys())
            if "dataset" in then and same and _holds_something(folder):
                raise ConfigError(
                    f"continual_dir: '{folder}' was kept by an earlier version, which did not note "
                    "the data that it was made of; whether they are those of now cannot be told. "
                    "Give another --continual_dir to do it again, or remove that folder."
                )

    def period(self, period: int) -> Path:
        """Folder of a period; made if missing."""
        folder = self.root / f"period-{period}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _holds_something(folder: Path) -> bool:
    return any(path.is_file() for path in folder.glob("period-*/*"))


def read_json(path: Path) -> Any:
    """What is kept in a file; None where there is no such file.

    Raises:
        ConfigError: the file holds something else.
    """
    return load_json(path, remedy="Remove it to do it again.") if path.is_file() else None
