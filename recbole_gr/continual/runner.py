"""The runner of `run_recbole_gr.py --model=DACT`: all periods of a data set, all methods.

Source: DACT (arXiv 2603.29705), sections 2.3, 4 and 7.5 of the method.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_gr import registry
from recbole_gr.config import Config
from recbole_gr.config.user_settings import UserSettings
from recbole_gr.continual.checks import check_models, check_periods
from recbole_gr.continual.disruption import write_disruption
from recbole_gr.continual.given import content_of_all, sid_files
from recbole_gr.continual.methods import FINETUNE, FROZEN, RETRAIN, Method, methods
from recbole_gr.continual.period_table import write_continual_report
from recbole_gr.continual.ranks import release_ranks, run_on_all_ranks, serve_rank_zero
from recbole_gr.continual.store import RESULT_KEYS, Store, read_json, settings_digest
from recbole_gr.continual.tokens import (
    PeriodItems,
    TokenizerChain,
    first_items,
    log_churn,
)
from recbole_gr.continual.vectors import CollaborativeVectors
from recbole_gr.continual.walks import PeriodWalks
from recbole_gr.data import item_content, prepared_data
from recbole_gr.data.frequency import popularity
from recbole_gr.distributed import processes
from recbole_gr.pages.periods import write_periods_page
from recbole_gr.report.ranks import write_rank_file
from recbole_gr.run.log_file import start_log
from recbole_gr.run.model import WarmStart, needs_content
from recbole_gr.storage.checkpoint import load_checkpoint, stopped_beside
from recbole_gr.storage.json_files import save_json
from recbole_gr.storage.manifest import write_continual_manifest
from recbole_gr.storage.run_files import held, report_folder
from recbole_gr.terminal.log import say
from recbole_gr.trainer.contents import CONFIG
from recbole_gr.untrusted.shapes import require

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset

    from recbole_gr.pipeline.item_sids import ItemSIDs


class ContinualRun:
    """Every period with every method, and the table of periods and methods.

    Period 0 is learned from scratch once; every method goes on from it. In later periods

    * collaborative vectors are trained on with that period's interactions, or read from a file,
    * the tokenizer follows as its method says (:class:`TokenizerChain`),
    * the recommender stays as it was (``frozen``), goes on with the targets of the period
      (``finetune``), or starts over with all targets so far (``retrain``),

    and what results is tested on the period's own targets. Everything is kept in one folder, in
    which the same command goes on: what is finished is not done again, and a recommender that was
    interrupted goes on from its last checkpoint.

    Args:
        models (list): the model `DACT`, and RecBole's sequential models to stand beside it.
        dataset (str | None): data set name; None takes the key `dataset`.
        given (UserSettings): what the user has set.

    Raises:
        ConfigError: settings or data cannot be used; before anything is trained.
    """

    def __init__(self, models: Sequence[str | type], dataset: str | None, given: UserSettings):
        self.models = [m if isinstance(m, str) else m.__name__ for m in models]
        self.dataset, self.given = dataset, given
        own = next(m for m in models if registry.spans_periods(registry.get_model(m)))
        self.baselines = [n for n, model in zip(self.models, models) if model is not own]
        recommender = given.get("continual_model") or "TIGER"
        others = [*self.baselines, recommender]
        self.config = Config(own, dataset, other_models=others, given=given)
        self.recommender = self.config["continual_model"]
        check_models(self.recommender, self.baselines)
        self.methods = methods(self.config, self.baselines)
        self.others = [own, self.recommender, *self.baselines]
        ways = dict.fromkeys(method.tokenizer for method in self.methods if method.tokenizer)
        files = sid_files(self.config)
        self.chains = {how: TokenizerChain(how, self.config, files.get(how)) for how in ways}
        self.n_periods, self.all_periods = check_periods(self)
        self.walks = PeriodWalks()
        self._counts: dict[int, np.ndarray] = {}  # training targets of each item in a period

    def run(self) -> dict[str, Any] | None:
        """Do what is not done yet.

        Returns:
            dict: ``results`` (one dict a period and method: ``period``, ``method``, ``model``,
            ``tokenizer``, ``recommender``, ``test_result``, ``best_valid_result``, ``churn``,
            ``tokenizer_seconds``, ``recommender_seconds``, ...), ``table`` (markdown),
            ``bucket_table`` (None), ``folder`` and ``files``. None on all ranks but 0.
        """
        if not processes.is_rank_zero():
            serve_rank_zero(self.config_of)
            return None
        with processes.single_process():  # but for the training of recommenders
            outcome = self._run_periods()
        release_ranks()
        return outcome

    def _run_periods(self) -> dict[str, Any]:
        start_log(self.config)
        self.store = Store(self.config)
        say("Everything of every period is kept in %s", self.store.root)
        other = "give another --continual.dir"
        with held(self.store.root, other), report_folder([self.config]) as folder:
            return self._periods_reported_in(folder)

    def _periods_reported_in(self, folder: Path) -> dict[str, Any]:
        vectors = self._started()
        results, files, table = [], None, None
        for period in range(self.n_periods):
            given = self._item_sids(period, vectors)
            for method in self.methods:
                if method.tokenizer and method.tokenizer not in given:
                    continue  # its tables end before
                results.append(self._result(period, method, *given.get(method.tokenizer, ())))
            # After each period: what is finished stays, whatever happens to the next.
            files, table = write_continual_report(results, folder)
            files |= write_disruption(results, folder)
            files["manifest"] = write_continual_manifest(
                self.models, self.config, self.given.settings, results, folder
            )
            files["html"] = str(write_periods_page(folder))
        if files is not None:
            files |= self.walks.write(folder)
            write_periods_page(folder)  # again: it links to the page of SIDs
        return {
            "results": results, "table": table, "bucket_table": None,
            "folder": str(self.store.root), "files": files,
        }  # fmt: skip

    def config_of(self, period: int, model: str | type, **overrides: Any) -> Config:
        """Configuration of a model in a period."""
        keys = ("tokenizer", "continual_cuts", "continual_field", "continual_part_field")
        fixed = {key: self.config[key] for key in keys}
        if self.given.get("item_content") is None:
            fixed["item_content"] = "auto"  # a data set's own choice may be made of interactions
        files = self.config["continual_cf_files"]
        if files and period < len(files):
            fixed["cf_file"] = files[period]
        if period and "continual_train" not in overrides:
            for key in ("epochs", "learning_rate"):
                if self.config[f"finetune_{key}"]:
                    fixed[key] = self.config[f"finetune_{key}"]
        fixed = {**fixed, "continual_period": period, **overrides}
        given = self.given.with_settings(fixed)
        return Config(model, self.dataset, other_models=self.others, given=given)

    def _started(self) -> CollaborativeVectors:
        """Read the content that some method needs; returns vectors before the first period."""
        readers = [registry.get_model(self.recommender).reads_content(self.config)]
        readers += [chain.tokenizer_class for chain in self.chains.values()]
        readers += [needs_content(self.config_of(0, name)) for name in self.baselines]
        self.content = None
        if any(readers):
            last = self._data(self.all_periods - 1)
            self.content = content_of_all(*last, self.config["continual_cf_files"])
        return CollaborativeVectors()

    def tokenize(self) -> dict[str, list[Path]]:
        """Learn the SIDs of every period alone, without recommenders.

        Returns:
            dict: by tokenizer method the files of the periods' tables.
        """
        with processes.single_process():
            start_log(self.config)
            self.store = Store(self.config)
            with held(self.store.root, "give another --continual.dir"):
                vectors = self._started()
                for period in range(self.n_periods):
                    self._item_sids(period, vectors)
        return {
            how: [self.store.period(p) / f"{name}.npz" for p, name in enumerate(chain.names)]
            for how, chain in self.chains.items()
        }

    def tokens_of(self, period: int) -> list[str]:
        """Names of the items of a period by their ids, padding first."""
        train = self._data(period)[1]
        return [str(token) for token in train.field2id_token[train.iid_field]]

    def _item_sids(
        self, period: int, vectors: CollaborativeVectors
    ) -> dict[str | None, tuple[ItemSIDs, dict[str, Any]]]:
        """SIDs and figures of each tokenizer method in a period."""
        config, train = self._data(period)
        content = (
            first_items(self.content, train.item_num)
            if self.content
            else item_content(config, train)
        )
        targets = train.inter_feat[train.iid_field]
        self._counts[period] = np.bincount(targets, minlength=train.item_num)
        items = PeriodItems(period, self.store.period(period), config, train, content)
        made: dict[str | None, tuple[ItemSIDs, dict[str, Any]]] = {}
        chains = self.chains.values()
        needed = any(c.follows or (not period and "cf_vectors" in c.signals) for c in chains)
        cf = vectors.advance(items) if needed else None
        for how, chain in self.chains.items():
            if not chain.lasts(period):
                continue
            old_tokenizer, old_table = chain.tokenizer, chain.table
            made[how] = chain.advance(items, cf)
            self.walks.add(how, period, config, train, made[how][0])
            log_churn(how, period, made[how][1])
            if needed and old_table is not None:
                codes = old_table.codes[1:]
                made[how][1]["drift"] = vectors.report_drift(items, chain, old_tokenizer, codes)
        return made

    def _data(self, period: int) -> tuple[Config, Dataset]:
        """A recommender's configuration in a period, and the training split."""
        config = self.config_of(period, self.recommender)
        return config, prepared_data(config, trains=False)[1][0]._dataset

    def _result(
        self,
        period: int,
        method: Method,
        sids: ItemSIDs | None = None,
        figures: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Train (where the method does) and test one recommender in one period."""
        stem, folder = self._stem(period, method), self.store.period(period)
        way = method.recommender if period else FINETUNE  # all share the first period
        train_on = {"continual_train": "all"} if way == RETRAIN else {}
        own = {"checkpoint_dir": str(folder), "sid_dir": str(folder), **train_on}
        config = self.config_of(period, method.model, **own)
        digest = settings_digest(config)
        record = read_json(folder / f"{stem}.json")
        if record is None or record["settings"] != digest:
            checkpoint = folder / f"{stem}.pth"
            record = self._run(config, own, checkpoint, way, period, method, sids)
            record["settings"] = digest
            ranks = record.pop("test_ranks")
            if ranks is not None:
                popular = popularity(self._counts[period])[ranks["item"]]
                write_rank_file(folder / f"{stem}.ranks.npz", {**ranks, "popularity": popular})
            save_json(folder / f"{stem}.json", record)
        file = folder / f"{stem}.ranks.npz"
        figures = figures or {"seconds": None, "churn": None}
        return {
            "period": period, "method": str(method), **method._asdict(), **record,
            "churn": figures["churn"], "tokenizer_seconds": figures["seconds"],
            "drift": figures.get("drift"),
            "ranks": str(file) if file.is_file() else None,
        }  # fmt: skip

    def _run(
        self,
        config: Config,
        own: dict[str, Any],
        checkpoint: Path,
        way: str,
        period: int,
        method: Method,
        sids: ItemSIDs | None,
    ) -> dict[str, Any]:
        weights = None
        if period and way == FROZEN:
            weights = self._checkpoint(0, method)
        elif period and way == FINETUNE:
            weights = self._checkpoint(period - 1, method)
        train = not (period and way == FROZEN)
        for file in (checkpoint, stopped_beside(checkpoint)) if train else ():
            if file.is_file():  # of a run that was interrupted, or of other settings
                left = load_checkpoint(file, map_location="cpu")
                require(left, CONFIG, file, "Remove it to do it again.")
                if settings_digest(left["config"]) == settings_digest(config):
                    config["resume"] = str(file)
        say("Period %d, %s, %s", period, method.model, method)
        began = perf_counter()
        content = None
        if sids is None and self.content is not None and needs_content(config):
            content = first_items(self.content, len(self._counts[period])).vectors
        start = WarmStart(sids, weights, str(checkpoint), train, content=content)
        try:
            result = run_on_all_ranks(config, (period, method.model, own), start)
        except KeyboardInterrupt as stop:
            raise type(stop)("The same command goes on from there.") from None
        return {
            **{key: result[key] for key in (*RESULT_KEYS, "test_ranks")},
            "recommender_seconds": (result["seconds_per_epoch"] or 0.0) * result["epochs_run"],
            "total_seconds": perf_counter() - began,
        }

    def _stem(self, period: int, method: Method) -> str:
        """Name of a recommender's files: methods share the first period."""
        sids = self.chains[method.tokenizer].names[period] if method.tokenizer else None
        way = method.recommender if period else None
        return "-".join(part for part in (method.model, sids, way) if part)

    def _checkpoint(self, period: int, method: Method) -> str:
        return str(self.store.period(period) / f"{self._stem(period, method)}.pth")

