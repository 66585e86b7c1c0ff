"""Warm-ups of PIT that runs share, so that variants of the co-evolution start from the same one."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_gr.data.sources import settings_digest, sources_of
from recbole_gr.distributed import processes
from recbole_gr.storage.files import atomic_write

if TYPE_CHECKING:
    from recbole.config import Config

    from recbole_gr.model.pit.model import PIT

#: What decides the co-evolution alone: warm-ups that differ in nothing else are the same.
OF_THE_CO_EVOLUTION = frozenset(
    "evolve evolve_share evolve_every evolve_held_out evolve_neighbours evolve_margin "
    "evolve_accept evolve_gain evolve_interactions evolve_faded lambda_item freeze_i2t "
    "i2t_learning_rate n_candidates select coevo_rate epochs stopping_step warmup_from "
    "warmup_dir index_size index_decay index_prior_weight index_temperature index_threshold "
    "refresh_every ablate".split()
)


def shared_warm_up(config: Config, model: PIT) -> Path | None:
    """Where the warm-up of a run lies among those that runs share (``warmup_dir``), or will lie.

    It is known by the settings that decide it, seed and ablations that change it among them, the
    bytes of the data and the SIDs; runs that give it the same name make the same.

    Returns:
        None where runs do not share them.
    """
    if config["warmup_dir"] is None:
        return None

    def name() -> str:
        parts = (
            settings_digest(config, OF_THE_CO_EVOLUTION),
            [part for part in config["ablate"] if part in ("csa", "i2t")],
            {kind: source["sha256"] for kind, source in sources_of(config).items()},
            model.sid_table().digest(),
            model.results_version,
        )
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    digest = processes.broadcast_object(name)
    return Path(config["warmup_dir"]) / f"{config['model']}-{config['dataset']}-{digest[:16]}.pth"


def copy_checkpoint(file: Path, to: Path) -> None:
    """Put a copy of a checkpoint in place at once; rank 0 does it."""
    if processes.is_rank_zero():
        to.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(to) as unfinished:
            shutil.copyfile(file, unfinished)
