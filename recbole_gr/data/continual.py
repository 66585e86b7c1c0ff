"""Data that arrive in periods: what is known in one, and what it trains, validates and tests.

Source: the protocol of DACT (arXiv 2603.29705), as its published Tools files follow it row by row.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from recbole.data.dataset import SequentialDataset
from recbole.utils import FeatureSource, FeatureType

from recbole_gr.data.periods import (
    HEAD,
    PAST,
    PUBLISHED,
    TARGETS,
    TEST,
    TRAIN,
    VALID,
    labels_of,
    parts_of,
    periods_by_column,
    periods_by_cuts,
    target_counts,
)
from recbole_gr.data.verbatim import ExactDataset, exact
from recbole_gr.errors import ConfigError

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset

    from recbole_gr.config import Config

PART = "continual_part"  # the column that says what a row is in the present period

class ContinualMixin(ExactDataset):
    """One period of a data set, for any of RecBole's dataset classes (:func:`continual`).

    The data set of period p is the log up to the end of p, nothing later: its users and items are
    those that have appeared so far, numbered in the order of their first appearance. So an id is
    the same in every period, and new items are the ids from the last period's number of items on.
    Histories cross periods; targets (``build()``) are those of :func:`parts_of`. With
    ``continual_train: all`` the targets of earlier periods train too (retraining).

    Configuration: ``continual_cuts`` or ``continual_field``, ``continual_period``,
    ``continual_train``, ``continual_part_field`` (``properties/overall.yaml``).

    Attributes:
        n_periods (int): periods of the whole log.
        period_names (list[str]): what each is called in the settings or the data.
        items_so_far (list[int]): ``[n_periods]`` items that have appeared by the end of each.
        target_counts (numpy.ndarray): ``[n_periods, 3]`` training, validation and test targets of
            each.
    """

    n_periods: int
    period_names: list[str]
    items_so_far: list[int]
    target_counts: np.ndarray

    _rest_fields: np.ndarray

    def _data_filtering(self) -> None:
        super()._data_filtering()
        if self._time_ranks is None:
            raise ConfigError(
                f"periods need times: '{self.dataset_name}' gives no float column "
                f"{self.time_field!r} (TIME_FIELD); see load_col"
            )
        self._sort_by_time()
        feat = self.inter_feat
        period = self._periods_of(feat)
        self.n_periods = int(period.max()) + 1
        present = self.config["continual_period"]
        if isinstance(present, bool) or not isinstance(present, int):
            raise ConfigError(f"continual_period: {present!r} must be an integer")
        if not 0 <= present < self.n_periods:
            raise ConfigError(
                f"continual_period: {present} is not one of 0 to {self.n_periods - 1}, the periods "
                f"of '{self.dataset_name}'"
            )
        self.period_names = self._names_of_periods(feat)
        arrives = pd.Series(period).groupby(feat[self.iid_field].to_numpy()).min()
        self.items_so_far = np.bincount(arrives, minlength=self.n_periods).cumsum().tolist()
        if self.config["continual_part_field"] is None:
            self.target_counts = target_counts(feat[self.uid_field].to_numpy(), period)
        else:
            part = self._published_parts(feat)
            counts = [np.bincount(period[part == p], minlength=self.n_periods) for p in TARGETS]
            self.target_counts = np.stack(counts, 1)
        known = period <= present
        feat, period = feat[known].reset_index(drop=True), period[known]
        self._time_ranks = self._time_ranks[known]
        if self.config["continual_part_field"] is None:
            feat[PART] = parts_of(feat[self.uid_field].to_numpy(), period, present)
        else:
            feat[PART] = np.where(period == present, self._published_parts(feat), PAST)
        self.set_field_property(PART, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)
        self._rest_fields = np.append(self._rest_fields, PART)  # those that get ids of their own
        self.inter_feat = feat
        for name in self.feat_name_list:  # what will appear later is not known yet
            side = getattr(self, name)
            for group, field in (("user_id", self.uid_field), ("item_id", self.iid_field)):
                for column in self.alias[group] if name != "inter_feat" else ():
                    if column in side and self.field2type[column] == FeatureType.TOKEN:
                        side = side[side[column].isin(set(feat[field]))]
            setattr(self, name, side.reset_index(drop=True))
        if hasattr(self, "_filter_link"):  # of a knowledge graph: links of these items alone
            self._filter_link()

    def _periods_of(self, feat: pd.DataFrame) -> np.ndarray:
        cuts, field = self.config["continual_cuts"], self.config["continual_field"]
        if (cuts is None) == (field is None):
            raise ConfigError("give one of continual_cuts and continual_field")
        if field is None:
            return periods_by_cuts(feat[self.time_field].to_numpy(), cuts)
        if field not in feat:
            raise ConfigError(
                f"continual_field: the .inter file of '{self.dataset_name}' gives no column "
                f"{field!r}; add it to load_col: {{inter: [...]}}"
            )
        period = periods_by_column(feat[field].to_numpy(), field)
        if (np.diff(period) < 0).any():
            raise ConfigError(
                f"continual_field: the periods in {field!r} do not follow {self.time_field!r}"
            )
        return period

    def _names_of_periods(self, feat: pd.DataFrame) -> list[str]:
        cuts, field = self.config["continual_cuts"], self.config["continual_field"]
        if field is not None:
            return [f"{field} {label}" for label in labels_of(feat[field].to_numpy())]
        names = [f"up to {cut}" for cut in cuts]
        return names if len(names) == self.n_periods else [*names, f"from {cuts[-1]}"]

    def _published_parts(self, feat: pd.DataFrame) -> np.ndarray:
        field = self.config["continual_part_field"]
        if field not in feat:
            raise ConfigError(
                f"continual_part_field: the .inter file of '{self.dataset_name}' gives no column "
                f"{field!r}; add it to load_col: {{inter: [...]}}"
            )
        unknown = sorted(set(feat[field].astype(str)) - set(PUBLISHED))
        if unknown:
            raise ConfigError(
                f"continual_part_field: the column {field!r} of '{self.dataset_name}' holds "
                f"{unknown[0]!r}; it may hold {', '.join(PUBLISHED)}"
            )
        return feat[field].map(PUBLISHED).to_numpy()

    def _keeps(self, field: str) -> bool:  # of GenerativeDataset: a history of parts serves nobody
        return field != PART and super()._keeps(field)

    def build(self) -> list[Dataset]:
        """Training, validation and test split of the period, as RecBole's own ``build()``."""
        self._change_feat_format()
        number = self.field2token_id[PART]
        part = self.inter_feat[PART].numpy()
        self._del_col(self.inter_feat, PART)
        wanted = [TRAIN]
        if not isinstance(self, SequentialDataset):
            wanted.append(HEAD)  # known of the user, and there is no history to know it from
        if self.config["continual_train"] == "all":
            wanted.append(PAST)
        splits = []
        for names in (wanted, [VALID], [TEST]):
            chosen = np.isin(part, [number[name] for name in names if name in number])
            splits.append(self.copy(self.inter_feat[np.flatnonzero(chosen)]))
        return splits


@cache
def continual(dataset_class: type) -> type:
    """The subclass of a dataset class that holds one period."""
    name = f"Continual{dataset_class.__name__}"
    return type(name, (ContinualMixin, exact(dataset_class)), {})


def is_continual(config: Config) -> bool:
    """Whether a run asks for a period; checks the keys that can be checked without data.

    Raises:
        ConfigError: keys that contradict each other.
    """
    keys = ("continual_cuts", "continual_field", "continual_period")
    given = [key for key in keys if config[key] is not None]
    if not given:
        return False
    if "continual_period" not in given or len(given) != 2:
        raise ConfigError(
            "a period needs continual_period and one of continual_cuts and continual_field, given "
            f"are {given}"
        )
    if config["benchmark_filename"] is not None:
        raise ConfigError("continual_period: benchmark_filename has its own split; drop one")
    return True
