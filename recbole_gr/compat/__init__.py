"""Shims that keep RecBole 1.2.1 running on today's numpy, scipy and pandas.

One function per break, each naming its cause upstream. Each does nothing where the library still
has what RecBole uses, or where it has been applied before.

Two more breaks need no shim here:

* `torch.load` of RecBole's checkpoints fails on torch >= 2.6, whose default is `weights_only=True`:
  RecBole pickles its Config into them. `recbole_gr.trainer.base` saves and loads plain data.
* ray 2.6.3 does not exist for Python >= 3.12, and only `recbole.quick_start` (hyper-parameter
  search) imports it. Nothing here imports `recbole.quick_start`, and RecBole is installed without
  its metadata, which demand that ray.
"""

import contextlib
import functools
import inspect
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

import numpy as np

from recbole_gr.compat.moved import keep_former_names

INSTALL_RECBOLE = "pip install --no-deps recbole==1.2.1"


def apply() -> None:
    """Apply the shims that cost no import; called by `import recbole_gr`."""
    numpy_names()
    keep_former_names()
    name_the_missing_recbole()


def apply_to_recbole() -> None:
    """Apply those that need scipy, pandas or RecBole; called where RecBole is first imported."""
    apply()
    scipy_dok_update()
    pandas_sequence_columns()
    pandas_missing_values()
    collector_of_plain_numbers()
    bars_of_a_terminal()
    silence_recbole()


class _MissingRecBole:
    """The last finder of modules: what asks it for RecBole has not found it."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        """Raise a ModuleNotFoundError with the remedy where RecBole is looked for."""
        if name == "recbole":
            raise ModuleNotFoundError(
                f"RecBole is not installed: {INSTALL_RECBOLE} (without its metadata, which demand "
                "a ray that ends at Python 3.11)",
                name=name,
            )


def name_the_missing_recbole() -> None:
    """Let the import of a RecBole that is not there say how to install it.

    Cause: this package cannot name RecBole among its dependencies, as pip would then look for the
    ray of RecBole's metadata.
    """
    if _MissingRecBole not in sys.meta_path:
        sys.meta_path.append(_MissingRecBole)


def installed(*names: str) -> dict[str, str]:
    """Versions of installed packages by name, without importing them; those that are not installed
    are left out. FAISS has one name here, whichever of its builds is there."""
    found: dict[str, str] = {}
    for name in names:
        for distribution in ("faiss-gpu", "faiss-cpu") if name == "faiss" else (name,):
            with contextlib.suppress(PackageNotFoundError):
                found.setdefault(name, version(distribution))
    return found


def collector_of_plain_numbers() -> None:
    """Let RecBole's metrics over items (ItemCoverage, AveragePopularity, GiniIndex...) run.

    Cause, with every torch: `Collector.get_data_struct` moves all that it has collected to
    the CPU, but for these metrics the number of items and their counts are no tensors.
    """
    import copy

    import torch
    from recbole.evaluator.collector import Collector

    per_evaluation = ("rec.topk", "rec.meanrank", "rec.score", "rec.items", "data.label")

    def get_data_struct(self: Any) -> Any:
        struct = copy.copy(self.data_struct)
        struct._data_dict = {
            name: value.cpu() if isinstance(value, torch.Tensor) else value
            for name, value in self.data_struct._data_dict.items()
        }
        for name in per_evaluation:
            self.data_struct._data_dict.pop(name, None)
        return struct

    Collector.get_data_struct = get_data_struct


def bars_of_a_terminal() -> None:
    """Let RecBole's trainers draw their bars as ours, see :class:`~recbole_gr.terminal.bars.Bar`.

    Cause: each of their bars leaves a line behind, and where standard error is a file, one for
    every update.
    """
    import recbole.trainer.trainer as module

    from recbole_gr.terminal.bars import Bar

    module.tqdm = Bar


def silence_recbole() -> None:
    """Hide warnings about RecBole's own calls of interfaces that are being phased out.

    Cause: `torch.cuda.amp.GradScaler`, pandas `fillna(inplace=True)`, tensors on read-only columns
    (which RecBole never writes to) and the like, once a batch or a column. A user of RecBole can do
    nothing about them, and the shims here cover their consequences.
    """
    import pandas as pd

    for category in (FutureWarning, DeprecationWarning, pd.errors.ChainedAssignmentError):
        warnings.filterwarnings("ignore", category=category, module=r"recbole\.")
    for message in ("The given NumPy array is not writable", "torch.sparse.SparseTensor"):
        warnings.filterwarnings("ignore", message=message, module=r"recbole\.")


def without_pickles(model_class: type) -> type:
    """Let the module of one of RecBole's models load plain data alone; returns the class.

    Cause: LDiffRec reads `item_emb.npy` beside the data with `allow_pickle=True`, and before torch
    2.6 `torch.load` unpickled the files that `pre_model_path` and the like name. Both run code from
    the file.
    """
    import torch

    module = sys.modules[model_class.__module__]
    source = inspect.getsource(module)
    for name, library, safe in (
        ("np", np, {"allow_pickle": False}),
        ("torch", torch, {"weights_only": True}),
    ):
        if getattr(module, name, None) is library and f"{name}.load(" in source:
            setattr(module, name, _SafelyLoading(library, safe))
    return model_class


class _SafelyLoading:
    """A library whose `load` takes no pickled objects."""

    def __init__(self, library: Any, safe: dict[str, bool]) -> None:
        self._library, self._safe = library, safe

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def load(self, *args: Any, **kwargs: Any) -> Any:
        """As the library's."""
        return self._library.load(*args, **{**kwargs, **self._safe})


def numpy_names() -> None:
    """Give numpy 2 back the aliases that it removed and RecBole reads.

    Cause: `recbole.config.Config.compatibility_settings` sets `np.float = np.float_` and the like,
    for the metrics and data modules to use. numpy 2.0 removed `float_`, `complex_` and `unicode_`.
    """
    for name, value in (
        ("float_", np.float64),
        ("complex_", np.complex128),
        ("unicode_", np.str_),
        ("bool8", np.bool_),
    ):
        if name not in np.__dict__:
            setattr(np, name, value)


def scipy_dok_update() -> None:
    """Give `scipy.sparse.dok_matrix` back its `_update`.

    Cause: LightGCN, NGCF, NCL, GCMC, SpectralCF, KGIN and MCCLK build their graph by
    `dok_matrix._update(dict)`. scipy 1.13 removed it when the class stopped being a dict.
    """
    from scipy.sparse import dok_matrix

    if not hasattr(dok_matrix, "_update"):
        dok_matrix._update = lambda self, values: self._dict.update(values)


def pandas_sequence_columns() -> None:
    """Let RecBole read and count sequences in the columns of atomic files.

    Cause, twice in pandas 3. `Dataset._load_feat` calls `df[field].fillna(value="", inplace=True)`
    before it splits texts into sequences; with copy-on-write that fills a temporary column and the
    table keeps its NaN. And seven places call `feat[field].agg(len)` for the length of each
    sequence, where pandas 3 returns the length of the column. RecBole's module gets a pandas whose
    tables do both as before; pandas itself is left alone.
    """
    from recbole.data.dataset import dataset as module

    if _copy_on_write() and not isinstance(module.pd, _PandasOfRecBole):
        module.pd = _PandasOfRecBole(module.pd)


class _PandasOfRecBole:
    """The pandas module as `recbole.data.dataset.dataset` needs it."""

    def __init__(self, pandas: Any) -> None:
        class Column(pandas.Series):
            @property
            def _constructor(self) -> type:
                return Column

            def agg(self, func: Any = None, *args: Any, **kwargs: Any) -> Any:
                return self.map(len) if func is len else super().agg(func, *args, **kwargs)

        class Table(pandas.DataFrame):
            @property
            def _constructor(self) -> type:
                return Table

            @property
            def _constructor_sliced(self) -> type:
                return Column

        self._pandas = pandas
        self.DataFrame = Table

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pandas, name)

    def read_csv(self, *args: Any, **kwargs: Any) -> Any:
        """As pandas', with empty text for missing sequences ("field:token_seq" and the like)."""
        table = self.DataFrame(self._pandas.read_csv(*args, **kwargs))
        for column in table.columns:
            if str(column).endswith("_seq"):
                table[column] = table[column].fillna("")
        return table


def pandas_missing_values() -> None:
    """Fill missing tokens with 0 and missing numbers with the mean, as RecBole means to.

    Cause: `Dataset._fill_nan` calls `feat[field].fillna(value=..., inplace=True)`, without effect
    on the table under the copy-on-write of pandas 3.
    """
    from recbole.data.dataset.dataset import Dataset
    from recbole.utils import FeatureType

    if not _copy_on_write() or hasattr(Dataset._fill_nan, "__wrapped__"):
        return
    original = Dataset._fill_nan

    @functools.wraps(original)
    def fill_nan(self: Any) -> None:
        for feat_name in self.feat_name_list:
            feat = getattr(self, feat_name)
            for field in feat:
                kind = self.field2type[field]
                if kind == FeatureType.TOKEN:
                    feat[field] = feat[field].fillna(0)
                elif kind == FeatureType.FLOAT:
                    feat[field] = feat[field].fillna(feat[field].mean())
        original(self)

    Dataset._fill_nan = fill_nan


def _copy_on_write() -> bool:
    """Whether filling a column in place leaves the table as it was, which trips RecBole up."""
    import pandas as pd

    table = pd.DataFrame({"a": [None, 1.0]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table["a"].fillna(0.0, inplace=True)
    return bool(table["a"].isna().any())
