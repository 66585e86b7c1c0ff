"""Claims about the shims: each restores what a newer library lacks and does nothing otherwise."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from recbole.data.dataset import dataset as recbole_dataset

from recbole_gr import compat
from recbole_gr.config import Config
from recbole_gr.data import create_dataset

ROOT = Path(__file__).resolve().parent.parent


def test_names_gone_from_numpy_come_back(monkeypatch):
    for name in ("float_", "complex_", "unicode_"):
        monkeypatch.delattr(np, name, raising=False)
    compat.numpy_names()
    assert (np.float_, np.complex_, np.unicode_) == (np.float64, np.complex128, np.str_)


def test_names_that_numpy_has_are_left_alone(monkeypatch):
    monkeypatch.setattr(np, "float_", "numpy's own", raising=False)
    compat.numpy_names()
    assert np.float_ == "numpy's own"


def test_dok_matrix_gets_its_update_back(monkeypatch):
    class NewDok:
        """As in scipy >= 1.13: holds a dict instead of being one."""

        def __init__(self):
            self._dict = {}

    monkeypatch.setattr(scipy.sparse, "dok_matrix", NewDok)
    compat.scipy_dok_update()
    matrix = NewDok()
    matrix._update({(0, 1): 1.0})
    assert matrix._dict == {(0, 1): 1.0}


def test_dok_update_is_left_alone_where_scipy_has_it(monkeypatch):
    class OldDok:
        def _update(self, values):
            pass

    own = OldDok._update
    monkeypatch.setattr(scipy.sparse, "dok_matrix", OldDok)
    compat.scipy_dok_update()
    assert OldDok._update is own


def test_graph_that_lightgcn_builds_is_complete():
    from scipy.sparse import dok_matrix

    graph = dok_matrix((3, 3), dtype=np.float32)
    graph._update({(np.int32(0), np.int32(2)): 1, (np.int32(2), np.int32(0)): 1})
    assert graph.tocoo().sum() == 2 and graph.toarray()[0, 2] == 1


@pytest.fixture
def holes(tmp_path):
    """A data set with a missing rating, a missing title and a missing age."""
    folder = tmp_path / "holes"
    folder.mkdir()
    rows = [(user, item, user + item, 10 * user + item) for user in range(4) for item in range(4)]
    inter = [f"u{u}\ti{i}\t{rating}\t{time}" for u, i, rating, time in rows]
    inter[5] = inter[5].rsplit("\t", 2)[0] + "\t\t" + inter[5].rsplit("\t", 1)[1]
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    (folder / "holes.inter").write_text("\n".join([head, *inter]) + "\n")
    items = ["i0\tblue sky", "i1\t", "i2\tgreen", "i3\tred red"]
    (folder / "holes.item").write_text("\n".join(["item_id:token\ttitle:token_seq", *items]) + "\n")
    users = ["u0\t20\tx", "u1\t\t", "u2\t40\ty", "u3\t30\tx"]
    (folder / "holes.user").write_text(
        "\n".join(["user_id:token\tage:float\tjob:token", *users]) + "\n"
    )
    columns = {
        "inter": ["user_id", "item_id", "rating", "timestamp"],
        "item": ["item_id", "title"],
        "user": ["user_id", "age", "job"],
    }
    return {"data_path": str(tmp_path), "load_col": columns, "normalize_all": False}


def features(settings):
    dataset = create_dataset(Config("Pop", "holes", config_dict=settings))
    titles = [list(title) for title in dataset.item_feat["title"]]
    jobs = [dataset.field2id_token["job"][int(job)] for job in dataset.user_feat["job"]]
    return dataset.inter_feat["rating"].tolist(), titles, dataset.user_feat["age"].tolist(), jobs


def test_missing_values_are_filled_under_copy_on_write_as_without(holes, monkeypatch):
    # What pandas 3 always does can be switched on in pandas 2.
    monkeypatch.setattr(recbole_dataset, "pd", pd)
    monkeypatch.setattr(
        recbole_dataset.Dataset, "_fill_nan", unwrapped(recbole_dataset.Dataset._fill_nan)
    )
    in_pandas_3 = int(pd.__version__.split(".")[0]) >= 3
    expected = None if in_pandas_3 else features(holes)
    switched_on = nullcontext() if in_pandas_3 else pd.option_context("mode.copy_on_write", True)
    with switched_on:
        compat.pandas_sequence_columns()
        compat.pandas_missing_values()
        compat.pandas_sequence_columns()  # twice is as good as once
        compat.pandas_missing_values()
        filled = features(holes)
    ratings, titles, ages, jobs = filled
    assert ratings[5] == pytest.approx(np.mean([r for i, r in enumerate(ratings) if i != 5]))
    assert titles[2] == [] and len(titles[1]) == 2  # row 0 is padding
    assert ages[2] == pytest.approx(30.0) and jobs[2] == "[PAD]"
    assert expected is None or filled == expected


def test_without_the_shims_copy_on_write_breaks_recbole(holes, monkeypatch):
    if int(pd.__version__.split(".")[0]) >= 3:
        pytest.skip("pandas 3: the shims are applied for good")
    monkeypatch.setattr(recbole_dataset, "pd", pd)
    monkeypatch.setattr(
        recbole_dataset.Dataset, "_fill_nan", unwrapped(recbole_dataset.Dataset._fill_nan)
    )
    with pd.option_context("mode.copy_on_write", True):
        with pytest.raises(AttributeError, match="split"):  # of sequences, as RecBole reads them
            recbole_dataset.Dataset(Config("Pop", "holes", config_dict=holes))
        with pytest.raises(ValueError, match="NaN"):  # a missing token stays one
            features(holes)


def test_sequences_are_counted_one_by_one_where_pandas_counts_the_column(monkeypatch):
    monkeypatch.setattr(pd.Series, "agg", lambda self, func: func(self))  # as in pandas 3
    table = compat._PandasOfRecBole(pd).DataFrame(
        {"id": [1, 2, 3], "words": [["a"], [], ["b", "c"]]}
    )
    assert list(table["words"].agg(len)) == [1, 0, 2]
    assert list(table[table["id"] > 1]["words"].agg(len)) == [0, 2]
    merged = pd.merge(table[["id"]], table, on="id", how="left")
    assert list(merged["words"].agg(len)) == [1, 0, 2]
    assert pd.Series([[1], [2, 3]]).agg(len) == 2  # pandas itself is as it was


def unwrapped(function):
    return getattr(function, "__wrapped__", function)


@pytest.mark.slow
def test_a_run_needs_no_ray_and_never_imports_recboles_quick_start(tiny_folder, tmp_path):
    script = """
import sys
sys.modules["ray"] = None
from run_recbole_gr import main
code = main(sys.argv[1:])
assert "recbole.quick_start" not in sys.modules
sys.exit(code)
"""
    arguments = ["--model=Pop", "--dataset=tiny", f"--data_path={tiny_folder}"]
    run = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
