"""Data sets that are read exactly: what the file says, in the order of its times, or an error."""

from __future__ import annotations

from functools import cache
from logging import getLogger
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import dataset as recbole_dataset
from recbole.utils import FeatureSource, FeatureType

from recbole_gr.config.count_intervals import check_filters, intervals
from recbole_gr.data.atomic import AtomicTable, read_table
from recbole_gr.data.checks import check_ids, check_order, check_same_columns
from recbole_gr.data.columns import check_histories, rows_with, sequences, tokens
from recbole_gr.data.filters import check_rows_left, check_value_filter, rows_of_listed
from recbole_gr.data.joined import check_links, check_names, check_types, check_values
from recbole_gr.data.numbers import numbers, ranks
from recbole_gr.data.ties import in_order
from recbole_gr.errors import ConfigError

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset
    from recbole.data.dataset import Dataset as _AnyDataset
    from recbole.data.interaction import Interaction

else:
    _AnyDataset = object

MAX_MISSING = 0.01
_IDS = {  # keys of the columns without which a row of a file says nothing
    FeatureSource.INTERACTION: ("USER_ID_FIELD", "ITEM_ID_FIELD"),
    FeatureSource.USER: ("USER_ID_FIELD",),
    FeatureSource.ITEM: ("ITEM_ID_FIELD",),
    FeatureSource.KG: ("HEAD_ENTITY_ID_FIELD", "RELATION_ID_FIELD", "TAIL_ENTITY_ID_FIELD"),
    "link": ("ITEM_ID_FIELD", "ENTITY_ID_FIELD"),
}


class ExactDataset(_AnyDataset):
    """Reading, filtering and ordering of any of RecBole's data set classes (:func:`exact`).

    RecBole compares times after they became float32, whose grain is 128 s at today's Unix seconds:
    rows closer than that keep the order of the file. Here rows are put in the order of time once,
    while they are still what the file says; equal times in that of `tie_order`. RecBole's own
    sorts, which are stable, then change nothing. The numbering of users and items is RecBole's.

    Rows without a user or item id are left out, and those without a time or a label too, as long as
    they are few (``max_missing``). The history lists of benchmark files share the numbering of what
    they list and keep their newest entries.

    Raises:
        ConfigError: something cannot be used; names file, line and cell, or key, and the remedy.
    """

    inter_feat: Any  # a table while it is read, then an Interaction
    _rest_fields: np.ndarray  # those that get ids of their own
    _time_ranks: np.ndarray | None = None  # by label of inter_feat's rows, while it is a table
    _tied_times: np.ndarray | None = None  # by rank, where equal times have ranks of their own

    def _get_field_from_config(self) -> None:
        super()._get_field_from_config()
        self._of_first: dict[str, dict[str, str]] = {}  # benchmark file, its columns by type
        # RecBole's presets of benchmark files read it by this name, whatever the item field is.
        self.item_id_list_field = self.item_list_field

    @property
    def item_list_field(self) -> str:
        """The field of item histories, `item_id_list` unless fields have names of their own."""
        return f"{self.iid_field}{self.config['LIST_SUFFIX']}"

    def _load_feat(self, filepath: str, source: Any) -> Any:
        """Columns of an atomic file as RecBole has them, a row for each line that can be used."""
        load, unload = self._get_load_and_unload_col(source)
        if load == set():
            return None
        separator, encoding = self.config["field_separator"], self.config["encoding"]
        table = read_table(filepath, separator, encoding, load)
        self._check_header(filepath, source, table, load)
        columns = [name for name in table.cells if name not in (unload or ())]
        if not columns:
            getLogger().warning("%s: no column of it is loaded (load_col, unload_col)", filepath)
            return None
        if not len(table.cells):
            raise ConfigError(f"{filepath} has a header and no rows; write some, or remove it")
        table = self._usable(filepath, source, table, columns)
        if source == "link" and {self.iid_field, self.config["ENTITY_ID_FIELD"]} <= {*columns}:
            links = table.cells[self.iid_field], table.cells[self.config["ENTITY_ID_FIELD"]]
            check_links(*links, table.lines, filepath)
        feat: dict[str, Any] = {}
        for name in columns:
            kind = FeatureType(table.types[name])
            if source != "link":
                self._set_properties(name, kind, source)
            feat[name] = self._values(
                name, kind, source, table.cells[name].to_numpy(), table.lines,
                f"{filepath}, column {name!r}",
            )  # fmt: skip
        if source == FeatureSource.INTERACTION:
            lists = {name: feat[name] for name in feat if self._is_history(name)}
            if self.item_list_field in lists:
                check_histories(filepath, lists, self.item_list_field, table.lines)
            if table.types.get(self.time_field) == "float" and self.time_field in feat:
                times = table.cells[self.time_field].to_numpy()
                places = ranks(times, feat[self.time_field])
                self._time_ranks, self._tied_times = in_order(places, table.lines, self.config)
        # The table of RecBole's module, which compat lends what newer pandas lack.
        return recbole_dataset.pd.DataFrame(feat)

    def _check_header(self, path: str, source: Any, table: AtomicTable, load: Any) -> None:
        """See that ids are tokens, and that files which are put together have the same columns."""
        check_ids(path, table.types, {key: self.config[key] for key in _IDS.get(source, ())}, load)
        if source == FeatureSource.INTERACTION and self.benchmark_filename_list is not None:
            own = {name: table.types[name] for name in table.cells}
            check_same_columns(path, own, self._of_first.setdefault("columns", own))

    def _set_properties(self, name: str, kind: FeatureType, source: Any) -> None:
        self.field2source[name] = source
        self.field2type[name] = kind
        if kind in (FeatureType.TOKEN, FeatureType.FLOAT):
            self.field2seqlen[name] = 1
        if kind in (FeatureType.FLOAT, FeatureType.FLOAT_SEQ):
            self.field2bucketnum[name] = 2

    def _usable(
        self, path: str, source: Any, table: AtomicTable, columns: list[str]
    ) -> AtomicTable:
        """The rows that have ids, times and labels."""
        ids = [self.config[key] for key in _IDS.get(source, ())]
        table = rows_with(path, table, [name for name in ids if name in columns], 1.0)
        if source != FeatureSource.INTERACTION:
            return table
        share = self.config["max_missing"]
        for name in (self.time_field, self.label_field, *(self.config["threshold"] or {})):
            if name in columns and table.types[name] == "float":
                table = rows_with(path, table, [name], MAX_MISSING if share is None else share)
        return table

    def _values(
        self,
        name: str,
        kind: FeatureType,
        source: Any,
        cells: np.ndarray,
        lines: np.ndarray,
        where: str,
    ) -> Any:
        """A column's cells as RecBole keeps them in its tables."""
        if kind == FeatureType.FLOAT:
            return numbers(cells, lines, where)
        if kind == FeatureType.TOKEN:
            return tokens(cells, lines, where)
        kept = slice((self.config["seq_len"] or {}).get(name))
        if source == FeatureSource.INTERACTION and self._is_history(name):
            most = self.config["MAX_ITEM_LIST_LENGTH"]
            kept = slice(-min(most, kept.stop or most), None)  # the newest
        values = sequences(
            cells, lines, where, self.config["seq_separator"] or " ",
            kind == FeatureType.FLOAT_SEQ, kept,
        )  # fmt: skip
        self.field2seqlen[name] = max(map(len, values), default=0)
        return values

    def _is_history(self, name: str) -> bool:
        """Whether a column of benchmark files lists what a user has taken so far."""
        samples = self.benchmark_filename_list is not None
        return samples and name.endswith(self.config["LIST_SUFFIX"])

    def _load_inter_feat(self, token: str, dataset_path: str) -> None:
        super()._load_inter_feat(token, dataset_path)
        if self.benchmark_filename_list is not None:
            self._time_ranks = None  # of the last file alone; samples have no order to be put in

    def _benchmark_presets(self) -> None:
        if self.item_list_field not in self.inter_feat:
            raise ConfigError(
                f"benchmark_filename: the files of '{self.dataset_name}' give no column "
                f"{self.item_list_field!r} (ITEM_ID_FIELD + LIST_SUFFIX), the items before each "
                "target; name it in load_col: {inter: [...]}, or give the log as one .inter file"
            )
        super()._benchmark_presets()

    def _init_alias(self) -> None:
        """A history list is numbered as what it lists: `item_id_list` as `item_id`, and so on."""
        super()._init_alias()
        suffix = self.config["LIST_SUFFIX"]
        named = {name for names in self.alias.values() for name in names}
        self._lists_of: dict[str, str] = {}
        for name, kind in self.field2type.items():
            listed = name.removesuffix(suffix)
            if kind != FeatureType.TOKEN_SEQ or listed == name or name in named:
                continue
            if self.field2type.get(listed) not in (FeatureType.TOKEN, FeatureType.TOKEN_SEQ):
                continue
            group = next((key for key, names in self.alias.items() if listed in names), None)
            if group is None:
                self._lists_of[listed] = name
            else:
                self.alias[group] = np.append(self.alias[group], name)
            self._rest_fields = self._rest_fields[self._rest_fields != name]

    def _get_remap_list(self, field_list: Any) -> list:
        lists = [self._lists_of[name] for name in field_list if name in self._lists_of]
        return super()._get_remap_list([*field_list, *lists])

    def _remove_duplication(self) -> None:
        keep = self.config["rm_dup_inter"]
        if keep is None or self._time_ranks is None:
            super()._remove_duplication()
            return
        rows = self.log_by_time()  # with their labels, the places in the file
        self.inter_feat = rows.drop_duplicates([self.uid_field, self.iid_field], keep=keep)

    def _parse_intervals_str(self, intervals_str: Any) -> list | None:
        return intervals(intervals_str)

    def _filter_by_field_value(self) -> None:
        for field, wanted in (self.config["val_interval"] or {}).items():
            check_value_filter(field, wanted, self.field2type)
            for name in self.feat_name_list:
                feat = getattr(self, name)
                if field not in feat:
                    continue
                if self.field2type[field] == FeatureType.TOKEN:  # text, whatever it looks like
                    stays = feat[field].isin([str(value) for value in wanted])
                else:
                    stays = self._within_intervals(feat[field], intervals(wanted))
                setattr(self, name, feat[stays])

    def _filter_inter_by_user_or_item(self) -> None:
        for feat, field in ((self.user_feat, self.uid_field), (self.item_feat, self.iid_field)):
            if feat is not None and self.config["filter_inter_by_user_or_item"]:
                file = f"{self.dataset_name}.{'user' if feat is self.user_feat else 'item'}"
                self.inter_feat = rows_of_listed(self.inter_feat, feat, field, file)

    def _data_filtering(self) -> None:
        check_filters(self.config.final_config_dict)
        super()._data_filtering()
        self._check_rows_left()  # of a knowledge graph too, which filters further

    def _check_rows_left(self) -> None:
        for name in self.feat_name_list:
            check_rows_left(getattr(self, name), name.removesuffix("_feat"), self.config)

    def _reset_index(self) -> None:
        self._check_rows_left()
        if self._time_ranks is not None:
            self._time_ranks = self._time_ranks[self.inter_feat.index]
        super()._reset_index()

    def _fill_nan(self) -> None:
        feats = {name.removesuffix("_feat"): getattr(self, name) for name in self.feat_name_list}
        # Row 0 of users and items is padding.
        rows = {name: f[1:] if name in ("user", "item") else f for name, f in feats.items()}
        check_values(rows, self.field2type, self.dataset_name)
        super()._fill_nan()

    def _data_processing(self) -> None:
        check_names(self)
        check_types(self)
        super()._data_processing()
        if self._time_ranks is not None and self._evaluation("order") == "TO":
            self._sort_by_time()

    def _evaluation(self, key: str) -> Any:
        return (self.config["eval_args"] or {}).get(key)

    def log_by_time(self) -> pd.DataFrame:
        """The rows of the log, before it is split, in the order of time (if it has times)."""
        if self._time_ranks is None:
            return self.inter_feat
        present = self._time_ranks[self.inter_feat.index]
        return self.inter_feat.iloc[np.argsort(present, kind="stable")]

    def _sort_by_time(self) -> None:
        """Put the rows in the order of time."""
        assert self._time_ranks is not None
        present = self._time_ranks[self.inter_feat.index]
        self.inter_feat = self.log_by_time().reset_index(drop=True)
        self._time_ranks = np.sort(present)

    def times_of_rows(self) -> np.ndarray | None:
        """[n] place in time of each row of the log, equal times sharing one; None without times."""
        ranks, times = self._time_ranks, self._tied_times
        return ranks if ranks is None or times is None else times[ranks]

    def _dataframe_to_interaction(self, data: Any) -> Interaction:
        interaction = super()._dataframe_to_interaction(data)
        # RecBole's split by time compares with a quantile of all times, so they stay exact for it.
        by_time = "TS" in (self._evaluation("split") or {})
        if data is self.inter_feat and by_time and self.time_field in data:
            if interaction[self.time_field].dim() == 1:  # no numerical feature, which has two
                times = data[self.time_field].to_numpy(np.float64, copy=True)
                interaction.interaction[self.time_field] = torch.from_numpy(times)
        return interaction

    def build(self) -> list[Dataset]:
        """RecBole's splits; see its `Dataset.build`."""
        if self.benchmark_filename_list is None:
            check_order(self, self._time_ranks is not None)
        splits = super().build()
        for split in (*splits, self):
            columns = split.inter_feat.interaction
            for name in (self.time_field, f"{self.time_field}{self.config['LIST_SUFFIX']}"):
                if name in columns and columns[name].dtype == torch.float64:
                    columns[name] = columns[name].float()
        return splits


@cache
def exact(dataset_class: type) -> type:
    """The subclass of a data set class that reads exactly; the class itself if it does."""
    if issubclass(dataset_class, ExactDataset):
        return dataset_class
    return type(f"Exact{dataset_class.__name__}", (ExactDataset, dataset_class), {})
