"""The folder of a continual run: everything of every period, found again by the same command."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_gr.errors import ConfigError
from recbole_gr.files import atomic_write, require_writable
from recbole_gr.trainer.checkpoint import plain_config

if TYPE_CHECKING:
    from recbole.config import Config

FORMAT_VERSION = 1
# Keys that decide where or how far a run goes, not what comes out of a part of it.
_ELSEWHERE = frozenset(
    "model continual_model continual_sid_files continual_tokenizer continual_recommender "
    "continual_last continual_dir show_progress device gpu_id use_gpu worker state sid_dir "
    "checkpoint_dir result_dir log_wandb "
    "content_cache_dir data_path resume eval_buckets dataset_save_path dataloaders_save_path "
    "save_dataset save_dataloaders nproc world_size ip port group_offset encoding".split()
)


def settings_digest(settings: Config | Mapping[str, Any]) -> str:
    """sha256 (hexadecimal) of a Config or its plain form, but for keys that change no result."""
    plain = settings if isinstance(settings, dict) else plain_config(settings)
    values = {key: value for key, value in plain.items() if key not in _ELSEWHERE}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class Store:
    """One folder a run: ``period-<p>/`` with collaborative vectors, tokenizers, code tables,
    recommenders and their results.

    Args:
        config: of the continual run; the folder's name holds a hash of it.
    """

    def __init__(self, config: Config):
        digest = settings_digest(config)
        name = f"{config['dataset']}-v{FORMAT_VERSION}-{digest[:12]}"
        self.root = Path(config["continual_dir"], name)
        require_writable(config["continual_dir"], "set another --continual.dir")
        about = {"format_version": FORMAT_VERSION, "config": plain_config(config)}
        if not (self.root / "config.json").is_file():
            write_json(self.root / "config.json", about)

    def period(self, period: int) -> Path:
        """Folder of a period; made if missing."""
        folder = self.root / f"period-{period}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, completely or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """What :func:`write_json` wrote; None where there is no such file.

    Raises:
        ConfigError: the file holds something else.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"{path} is no readable JSON ({error}); remove it to do it anew"
        ) from error
