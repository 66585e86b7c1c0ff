"""Figures that a model states about itself after every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

from recbole_gr.storage.checkpoint import decode, encode
from recbole_gr.trainer.contents import FIGURES, GENERATIVE, REMEDY
from recbole_gr.trainer.generation import GenerationTrainer
from recbole_gr.untrusted.shapes import at_least, require

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataloader import AbstractDataLoader

    from recbole_gr.model.base import GenerativeRecommender


_EPOCHS = [{"epoch": at_least(0), "stage": str, "figures": {...: dict}}]


def figures_in(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures of each epoch that a checkpoint holds.

    Raises:
        ConfigError: they are none.
    """
    figures = decode(state["epoch_figures"])
    require(figures, _EPOCHS, "epoch_figures", REMEDY)
    return figures


class FiguresTrainer(GenerationTrainer):
    """Keeps what ``model.end_epoch()`` returns, ``{topic: {name: value}}``, through checkpoints.

    The report draws them as curves over the epochs (:mod:`recbole_gr.report.epochs`).

    Attributes:
        epoch_figures (list[dict]): per epoch ``epoch``, ``stage`` and ``figures`` by topic.
        unlogged (tuple[str]): topics that only the plot shows.
    """

    unlogged: tuple[str, ...] = ()
    resumes_with = {**GENERATIVE, **FIGURES}

    def __init__(self, config: Config, model: GenerativeRecommender):
        super().__init__(config, model)
        self.epoch_figures: list[dict[str, Any]] = []

    def _train_epoch(
        self, train_data: AbstractDataLoader, epoch_idx: int, *args: Any, **kwargs: Any
    ) -> float:
        loss = super()._train_epoch(train_data, epoch_idx, *args, **kwargs)
        start = perf_counter()
        figures = self.model.end_epoch()
        self.epoch_seconds[-1] += perf_counter() - start
        self.epoch_figures.append({"epoch": epoch_idx, "stage": self.stage, "figures": figures})
        self.logger.info(f"{self.stage} {epoch_idx}: {self._one_line(figures)}")
        return loss

    def _valid_epoch(self, *args: Any, **kwargs: Any) -> tuple[float, dict[str, float]]:
        score, result = super()._valid_epoch(*args, **kwargs)
        self.epoch_figures[-1]["figures"]["validation"] = {self.valid_metric: float(score)}
        return score, result

    def _checkpoint_state(self, epoch: int) -> dict[str, Any]:
        return {**super()._checkpoint_state(epoch), "epoch_figures": encode(self.epoch_figures)}

    def _resume_from(self, state: dict[str, Any]) -> None:
        super()._resume_from(state)
        self.epoch_figures = figures_in(state)

    def _one_line(self, figures: Mapping[str, Mapping[str, float]]) -> str:
        topics = {topic: values for topic, values in figures.items() if topic not in self.unlogged}
        return "; ".join(
            f"{topic}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            for topic, values in topics.items()
        )
