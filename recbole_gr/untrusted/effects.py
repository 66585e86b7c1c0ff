"""Settings with effects outside of a run (files, network), which those of others do not decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: Settings by which a run leaves files anywhere, or talks to another machine. Not taken from files.
OUTSIDE = frozenset(
    "log_wandb wandb_project save_dataset dataset_save_path save_dataloaders "
    "dataloaders_save_path nproc world_size ip port group_offset".split()
)
_FOLDERS = ("checkpoint_dir", "sid_dir", "content_cache_dir", "result_dir")


def confined(folder: str, continual: bool = False) -> dict[str, Any]:
    """Settings with which a run writes inside a folder alone and talks to nobody.

    Its logs are another matter, see :func:`recbole_gr.storage.run_files.without_logs`.

    Args:
        folder (str): all folders of the run come into it.
        continual (bool): with the folder of a continual run.

    Returns:
        dict: to be put over the settings of the run.
    """
    folders = (*_FOLDERS, "continual_dir") if continual else _FOLDERS
    off = {"log_wandb": False, "save_dataset": False, "save_dataloaders": False}
    nowhere = {"dataset_save_path": None, "dataloaders_save_path": None}
    return {**{key: str(Path(folder, key)) for key in folders}, **off, **nowhere}


def without_network(params: Any) -> Any:
    """Parameters of LightGBM without those by which it trains together with other machines."""
    if not isinstance(params, dict):
        return params
    of_machines = ("machine", "workers", "nodes", "mlist", "port")
    return {
        key: value
        for key, value in params.items()
        if not any(part in str(key).lower() for part in of_machines)
    }
