"""What the user gave for a continual run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recbole_gr.config import Config
from recbole_gr.settings import external_settings


def asks_for_one_period(
    config_file_list: list[str] | None,
    config_dict: dict[str, Any] | None,
    cmd_args: list[str] | None,
) -> bool:
    """Whether the settings name a period, which is then an ordinary run."""
    sources = external_settings(config_file_list, config_dict, cmd_args)
    return any(settings.get("continual_period") is not None for _, settings in sources)


class Given:
    """What the user gave, as the source of the configurations of all parts of the run."""

    def __init__(
        self,
        dataset: str | None,
        config_file_list: list[str] | None,
        config_dict: dict[str, Any] | None,
        cmd_args: list[str] | None,
    ):
        sources = external_settings(config_file_list, config_dict, cmd_args)
        self.settings = {}
        for _, settings in sources:
            self.settings.update(settings)
        self.dataset = dataset or self.settings.get("dataset")
        self.files = [
            source.removeprefix("file '").removesuffix("'")
            for source, _ in sources
            if source.startswith("file ")
        ]
        self.direct = {}
        for source, settings in sources:
            if not source.startswith("file "):
                self.direct.update(settings)
        self.direct.pop("model", None)
        self.direct.pop("dataset", None)

    def config(self, model: str | type, others: Sequence[str], **overrides: Any) -> Config:
        """Configuration of `model`, with `overrides` over everything the user gave."""
        settings = {**self.direct, **overrides}
        return Config(model, self.dataset, self.files, settings, other_models=others)
