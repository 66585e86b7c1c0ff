"""The continual splitter against its rule in words, on generated logs and on DACT's own file."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from data_helpers import Generative, GenerativeWithAllFields, make_config, write_random_inter
from runs import SMALL, rest_slow

from recbole_gr.data.periods import (
    HEAD,
    PAST,
    TEST,
    TRAIN,
    VALID,
    WAITING,
    parts_of,
    periods_by_column,
    periods_by_cuts,
    target_counts,
)
from recbole_gr.data.prepare import create_dataset, data_preparation
from recbole_gr.errors import ConfigError
from recbole_gr.quick_start import run_recbole_gr

CUTS = [0.5, 0.7, 0.9, 1.0]
TOOLS = Path(__file__).parents[2] / "shared" / "data" / "Amazon_Tools_DACT"


def slow_parts(users, periods, present):
    """The rule user by user, period by period."""
    part = [None] * len(users)
    for user in set(users):
        rows = [i for i in range(len(users)) if users[i] == user]
        taken = False
        for period in range(present + 1):
            here = [i for i in rows if periods[i] == period]
            so_far = [i for i in rows if periods[i] <= period]
            for i in here:
                part[i] = PAST if taken else WAITING
            if not here or (not taken and len(so_far) < 3):
                continue
            targets = here
            if not taken:
                head = so_far[: len(so_far) - len(here)] or here[:1]
                targets = [i for i in here if i not in head]
                for i in head:
                    part[i] = HEAD if period == present else PAST
            taken = True
            for place, i in enumerate(reversed(targets)):
                now = TEST if place == 0 else VALID if place == 1 else TRAIN
                part[i] = now if period == present else PAST
        if not taken:
            for i in rows:
                part[i] = WAITING
    return part


@pytest.mark.parametrize("seed", range(6))
def test_parts_follow_the_rule_of_every_single_user(seed):
    rng = np.random.default_rng(seed)
    users, periods = rng.integers(0, 25, 150), np.sort(rng.integers(0, 4, 150))
    for present in range(4):
        known = periods <= present
        expected = slow_parts(users[known].tolist(), periods[known].tolist(), present)
        if present:
            # Rows of users who joined in an earlier period are all past, their heads too.
            assert PAST in expected
        assert parts_of(users[known], periods[known], present).tolist() == expected


@pytest.mark.parametrize("seed", range(6))
def test_targets_are_counted_as_the_rule_gives_them(seed):
    rng = np.random.default_rng(seed)
    users, periods = rng.integers(0, 25, 150), np.sort(rng.integers(0, 4, 150))
    expected = []
    for present in range(4):
        known = periods <= present
        parts = parts_of(users[known], periods[known], present).tolist()
        expected.append([parts.count(part) for part in (TRAIN, VALID, TEST)])
    assert target_counts(users, periods).tolist() == expected


def test_shares_cut_by_count_and_dates_by_time():
    times = np.arange(10.0)
    assert periods_by_cuts(times, [0.6, 0.7, 1.0]).tolist() == [0] * 6 + [1] + [2] * 3
    assert periods_by_cuts(times[:7], [0.5, 1.0]).tolist() == [0] * 4 + [1] * 3
    # 134,476 interactions as in DACT's Tools: windows of 13,447 or 13,448.
    sizes = np.bincount(periods_by_cuts(np.arange(134_476), [0.6, 0.7, 0.8, 0.9, 1.0]))
    assert sizes[0] == 80_686 and set(sizes[1:]) == {13_447, 13_448}
    days = np.array([0.0, 86_399.0, 86_400.0, 200_000.0])
    assert periods_by_cuts(days, ["1970-01-02"]).tolist() == [0, 0, 1, 1]


def test_labels_of_periods_are_ordered_as_numbers_where_they_are_numbers():
    assert periods_by_column(["9", "10", "9"], "p").tolist() == [0, 1, 0]
    assert periods_by_column(["b", "a", "b"], "p").tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    "cuts, complaint",
    [
        (0.6, "must be a list"),
        ([], "must be a list"),
        ([0.6, 0.9], "last share.*1.0"),
        ([0.9, 0.6, 1.0], "must ascend"),
        ([0.6, "soon"], "neither a share"),
        (["2014-01-01", "2013-01-01"], "must ascend"),
        ([0.01, 0.02, 1.0], "no interaction is in period 1"),
    ],
)
def test_cuts_that_make_no_sense_are_refused(cuts, complaint):
    with pytest.raises(ConfigError, match=f"continual_cuts.*{complaint}"):
        periods_by_cuts(np.arange(10.0), cuts)


@pytest.fixture
def log(tmp_path, quiet_argv):
    """A folder with a log in random order, and its rows in the order of time."""
    write_random_inter(tmp_path, "tiny", 3, n_users=30, n_items=150)
    rows = pd.read_csv(tmp_path / "tiny" / "tiny.inter", sep="\t", dtype=str)
    rows.columns = [column.split(":")[0] for column in rows.columns]
    rows["timestamp"] = rows["timestamp"].astype(float)
    # A third of the users come late.
    rows["timestamp"] += np.where(rows["user_id"].str.strip("u").astype(int) % 3 == 0, 1500.0, 0.0)
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    path = tmp_path / "tiny" / "tiny.inter"
    path.write_text(head + rows.to_csv(sep="\t", header=False, index=False))
    return tmp_path, rows.sort_values("timestamp", kind="stable", ignore_index=True)


def period(folder, present, model=Generative, **values):
    return create_dataset(
        make_config(folder, model, continual_cuts=CUTS, continual_period=present, **values)
    )


def rows_of(dataset):
    """External (user, history, target) of every row of a split."""
    feat = dataset.inter_feat
    token = dataset.id2token
    return [
        (
            token("user_id", int(feat["user_id"][i])),
            tuple(token("item_id", feat["item_id_list"][i, : feat["item_length"][i]].numpy())),
            token("item_id", int(feat["item_id"][i])),
        )
        for i in range(len(feat))
    ]


def expected_rows(rows, present, part, longest=5):
    window = periods_by_cuts(rows["timestamp"].to_numpy(), CUTS)
    rows = rows[window <= present].reset_index(drop=True)
    users, items = rows["user_id"].tolist(), rows["item_id"].tolist()
    parts = slow_parts(users, window[window <= present].tolist(), present)
    result = []
    for i, name in enumerate(parts):
        if name == part:
            history = [items[j] for j in range(i) if users[j] == users[i]]
            result.append((users[i], tuple(history[-longest:]), items[i]))
    return result


@pytest.mark.parametrize("model", [Generative, GenerativeWithAllFields])
def test_every_split_has_the_targets_and_histories_of_its_period(log, model):
    folder, rows = log
    for present in range(4):
        dataset = period(folder, present, model)
        assert dataset.n_periods == 4
        for split, part in zip(dataset.build(), (TRAIN, VALID, TEST)):
            assert sorted(rows_of(split)) == sorted(expected_rows(rows, present, part))
            assert not [name for name in split.inter_feat if "continual" in name]


def test_ids_are_the_same_in_every_period_and_grow_in_the_order_of_appearance(log):
    folder, rows = log
    sets = [period(folder, present) for present in range(4)]
    for field in ("item_id", "user_id"):
        order = ["[PAD]", *dict.fromkeys(rows[field])]
        for dataset in sets:
            tokens = dataset.field2id_token[field].tolist()
            assert tokens == order[: len(tokens)]
        assert len(sets[0].field2id_token[field]) < len(sets[-1].field2id_token[field])
        assert len(sets[-1].field2id_token[field]) == len(order)


def test_items_of_the_item_file_that_have_not_appeared_are_not_known(log):
    folder, rows = log
    items = sorted(set(rows["item_id"])) + ["never"]
    lines = "".join(f"{item}\tclass{n % 3}\n" for n, item in enumerate(items))
    (folder / "tiny" / "tiny.item").write_text("item_id:token\tclass:token\n" + lines)
    load = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]}
    first, last = (period(folder, present, load_col=load) for present in (0, 3))
    assert first.item_num < last.item_num == len(set(rows["item_id"])) + 1
    assert len(first.item_feat) == first.item_num


def test_training_on_all_adds_the_targets_of_earlier_periods_and_trains_whole_sequences(log):
    folder, rows = log
    now, everything = (
        period(folder, 2, continual_train=train).build()[0] for train in ("period", "all")
    )
    added = sorted(set(rows_of(everything)) - set(rows_of(now)))
    assert len(everything) > len(now) and len(added) > 0
    assert len(set(rows_of(now)) - set(rows_of(everything))) == 0
    for train in ("period", "all"):
        config = make_config(
            folder, Generative, continual_cuts=CUTS, continual_period=2, continual_train=train,
            train_sample="sequence",
        )  # fmt: skip
        loader = data_preparation(config, create_dataset(config))[0]
        counted = sum(int(batch["n_targets"].sum()) for batch in loader)
        assert counted == len(now if train == "period" else everything)


def test_parts_may_be_given_where_the_log_cannot_tell_them(log):
    folder, rows = log
    window = periods_by_cuts(rows["timestamp"].to_numpy(), CUTS)
    part = np.resize(["h", "train", "valid", "test"], len(rows))
    path = folder / "tiny" / "tiny.inter"
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\tperiod:token\tp:token\n"
    given = rows.assign(period=window, p=part)
    path.write_text(head + given.to_csv(sep="\t", header=False, index=False))
    load = {"inter": ["user_id", "item_id", "timestamp", "period", "p"]}
    options = {"load_col": load, "continual_field": "period", "continual_period": 2}
    splits = create_dataset(
        make_config(folder, Generative, continual_part_field="p", **options)
    ).build()
    for split, name in zip(splits, ("train", "valid", "test")):
        wanted = given[(window == 2) & (part == name)]
        first = ~rows.duplicated("user_id")  # has no history to be a target with
        wanted = wanted[~first[wanted.index]]
        found = sorted((user, item) for user, _, item in rows_of(split))
        assert found == sorted(zip(wanted["user_id"], wanted["item_id"]))
    path.write_text(path.read_text().replace("\tvalid\n", "\tdev\n"))
    with pytest.raises(ConfigError, match="continual_part_field.*'dev'; it may hold h, train"):
        create_dataset(make_config(folder, Generative, continual_part_field="p", **options))


def test_a_column_of_the_data_may_hold_the_periods(log):
    folder, rows = log
    rows = rows.assign(period=periods_by_cuts(rows["timestamp"].to_numpy(), CUTS) * 10 + 5)
    path = folder / "tiny" / "tiny.inter"
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\tperiod:token\n"
    path.write_text(head + rows.to_csv(sep="\t", header=False, index=False))
    load = {"inter": ["user_id", "item_id", "timestamp", "period"]}
    for present in range(4):
        config = make_config(
            folder, Generative, load_col=load, continual_field="period", continual_period=present
        )
        for split, part in zip(create_dataset(config).build(), (TRAIN, VALID, TEST)):
            assert sorted(rows_of(split)) == sorted(expected_rows(rows, present, part))


@pytest.mark.skipif(not TOOLS.is_dir(), reason="the published Tools data are not beside this")
@pytest.mark.slow
def test_the_published_tools_files_row_by_row(quiet_argv):
    counts = [
        (41_576, 11_693, 11_693, 9_610),
        (3_858, 2_993, 5_364, 9_885),
        (4_227, 3_007, 5_360, 10_043),
        (4_291, 3_003, 5_559, 10_137),
        (4_510, 2_995, 5_611, 10_217),
    ]
    # The files name the period in which a user joins for the whole head, also for what lay before.
    load = {"inter": ["user_id", "item_id", "timestamp", "period", "part"]}
    for present, (n_train, n_valid, n_test, n_items) in enumerate(counts):
        config = make_config(
            TOOLS.parent, Generative, TOOLS.name, load_col=load, continual_field="period",
            continual_part_field="part", continual_period=present, MAX_ITEM_LIST_LENGTH=20,
        )  # fmt: skip
        dataset = create_dataset(config)
        assert [len(split) for split in dataset.build()] == [n_train, n_valid, n_test]
        assert dataset.item_num - 1 <= n_items
    # Users with one item in their head were not there before, so the rule tells their parts.
    table = pd.read_csv(TOOLS / "Amazon_Tools_DACT.inter", sep="\t", dtype=str)
    table.columns = ["user", "item", "time", "period", "part"]
    table["time"] = table["time"].astype(float)
    table = table.sort_values("time", kind="stable", ignore_index=True)
    window = periods_by_column(table["period"], "period")
    for present in range(5):
        known = window <= present
        now = window[known] == present
        rows = table[known]
        parts = parts_of(rows["user"].to_numpy(), window[known], present)
        heads = (rows["part"] == "h").groupby(rows["user"]).transform("sum")
        sure = now & (heads == 1).to_numpy()
        published = rows["part"].replace("h", HEAD).to_numpy()
        assert sure.sum() > 0.7 * now.sum() and (parts[sure] == published[sure]).all()


@pytest.mark.parametrize(
    "values, complaint",
    [
        ({"continual_period": 4}, "continual_period: 4 is not one of 0 to 3"),
        ({"continual_period": "first"}, "continual_period: 'first' must be an integer"),
        ({"continual_period": None}, "needs continual_period and one of"),
        ({"continual_field": "x"}, "needs continual_period and one of"),
        ({"continual_train": "none"}, "continual_train: 'none' is not one of period, all"),
        ({"continual_cuts": None, "continual_field": "x"}, "no column 'x'"),
        ({"continual_cuts": None, "continual_field": "rating"}, "do not follow"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(log, values, complaint):
    settings = {"continual_cuts": CUTS, "continual_period": 0, **values}
    with pytest.raises(ConfigError, match=complaint):
        create_dataset(make_config(log[0], Generative, **settings))


@pytest.mark.parametrize("model", rest_slow("TIGER", "SASRec", "BPR", "DeepFM"))
def test_any_model_runs_on_one_period(tiny_folder, tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    labels = {"threshold": {"rating": 3}} if model == "DeepFM" else {}
    small = SMALL if model == "TIGER" else {"topk": [5, 10], "show_progress": False}
    result = run_recbole_gr(
        model=model,
        dataset="tiny",
        config_dict={
            **small,
            **labels,
            "data_path": str(tiny_folder),
            "continual_cuts": [0.6, 0.8, 1.0],
            "continual_period": 1,
            "epochs": 1,
        },
    )
    assert result["test_targets"]["count"] > 10
    assert all(np.isfinite(value) for value in result["test_result"].values())
