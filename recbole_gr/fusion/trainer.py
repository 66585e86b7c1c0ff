"""The choice of a fusion's mixture in the place of a training."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from recbole.trainer import Trainer

from recbole_gr.errors import ConfigError
from recbole_gr.fusion.choice import Tried, measure_confidence, ranks_under
from recbole_gr.fusion.mixing import Candidate, candidates
from recbole_gr.terminal.bars import Bar
from recbole_gr.terminal.log import say
from recbole_gr.trainer.base import SafeTrainerMixin
from recbole_gr.trainer.evaluation import sample_users
from recbole_gr.trainer.ranks import hits_of, metrics_of_hits

if TYPE_CHECKING:
    from recbole.data.dataloader import AbstractDataLoader

    from recbole_gr.fusion.model import Fusion


FOR_CONFIDENCE = 2000  # users that mean and deviation of the confidence are taken of


class _Choice(Trainer):
    """Chooses where RecBole trains."""

    model: Fusion
    best_valid_result: dict[str, float] | None

    def fit(
        self,
        train_data: AbstractDataLoader,
        valid_data: AbstractDataLoader | None = None,
        verbose: bool = True,
        saved: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[float, dict[str, float] | None]:
        """Choose mixture, weight, slope and smoothing by ``valid_metric`` on the validation
        targets, of equal ones the first: either model alone comes first. The test is not read.

        Returns:
            tuple: the score of the choice, and its validation metrics.

        Raises:
            ConfigError: there are no validation targets to rank.
        """
        start = perf_counter()
        loader = self._validation(valid_data)
        seed = self.config["seed"]
        measure_confidence(self.model, sample_users(loader, FOR_CONFIDENCE, seed))
        shares = [n / self.config["fusion_steps"] for n in range(self.config["fusion_steps"] + 1)]
        tried = candidates(shares, self.config["fusion_slopes"], self.config["fusion_smoothing"])
        progress = kwargs.get("show_progress")
        bar = Bar(total=len(loader.dataset), desc="Mix", unit="user", disable=not progress)
        with bar:
            found = ranks_under(self.model, tried, loader, bar.update)
        scores = [self._metrics(found, n)[self._metric] for n in range(len(tried))]
        sign = 1 if self.valid_metric_bigger else -1
        best = max(range(len(tried)), key=lambda n: sign * scores[n])
        self.model.set_mixture(tried[best])
        self.best_valid_score, self.best_epoch = scores[best], 0
        self.best_valid_result = self._metrics(found, best)
        self.epoch_seconds.append(perf_counter() - start)
        self.valid_curve.append([0, self.best_valid_score])
        self._say(tried[best], scores[0], scores[1], scores[best])
        if saved:
            self._save_checkpoint(0, verbose=verbose)
        return self.best_valid_score, self.best_valid_result

    def _validation(self, valid_data: AbstractDataLoader | None) -> Any:
        if not valid_data or self.config["eval_args"]["mode"]["valid"] != "full":
            raise ConfigError(
                "Fusion chooses its weight on validation targets ranked among all items: split "
                "some off (eval_args: {split: {LS: valid_and_test}, mode: full})"
            )
        return sample_users(valid_data, self.config["valid_users"] or 0, self.config["seed"])

    @property
    def _metric(self) -> str:
        return str(self.config["valid_metric"]).lower()

    def _metrics(self, found: Tried, number: int) -> dict[str, Any]:
        """Validation metrics of a candidate.

        Raises:
            ConfigError: the metric to choose by does not follow from the places of the targets.
        """
        hits = hits_of(found.ranks[number], found.rows, found.n_rows, max(self.config["topk"]))
        metrics = metrics_of_hits(self.evaluator, hits)
        if self._metric not in metrics:
            raise ConfigError(
                f"valid_metric: a fusion is chosen by {', '.join(metrics)}, not by {self._metric}"
            )
        return metrics

    def _say(self, chosen: Candidate, first: float, second: float, score: float) -> None:
        (mixture, share, slope, smoothing), metric = chosen, self.config["valid_metric"]
        one, other = self.model.names
        if one == other:
            one, other = f"the first {one}", f"the second {other}"
        say("%s of %s alone %.4f, of %s alone %.4f", metric, one, first, other, second)
        how = f"{mixture}, weight {share:.2f} of {other}"
        if slope:
            how += f" where both are as sure as usual, log-odds {slope:+.1f} a deviation"
        if smoothing:
            how += f", neighbours of an item count as {smoothing:g} of its interactions"
        say("Fusion: %s: %s %.4f", how, metric, score)


class FusionTrainer(SafeTrainerMixin, _Choice):
    """Chooses how a fusion mixes its members; keeps them with it in one checkpoint."""

    def _checkpoint_state(self, epoch: int) -> dict[str, Any]:
        return {**super()._checkpoint_state(epoch), "members": self.model.kept}

    def resume_checkpoint(self, resume_file: Any) -> None:
        """There is no training to go on with: the mixture is chosen anew, and kept in that file."""
        self.saved_model_file = str(resume_file)
