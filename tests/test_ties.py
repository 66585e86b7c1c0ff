"""Events of a user at one time: their order, and how many targets depend on it."""

import json
import logging
import random

import numpy as np
import pytest
import torch
from data_helpers import Generative, GenerativeWithTimes, make_config
from runs import arguments

from recbole_gr import run_recbole_gr
from recbole_gr.config import Config
from recbole_gr.data import create_dataset, data_preparation
from recbole_gr.data.ties import Ties, shuffled, tied_pairs
from recbole_gr.errors import ConfigError
from recbole_gr.pipeline.item_vectors import _sasrec_config
from recbole_gr.report.comparison import write_report
from recbole_gr.serving.histories import Histories

pytestmark = pytest.mark.usefixtures("quiet_argv")
NEGATIVES = {"distribution": "uniform", "sample_num": 1}
MODELS = [Generative, GenerativeWithTimes, "SASRec", "GRU4Rec", "BPR", "Pop", "FPMC"]
BY_SHARE = {"split": {"RS": [0.6, 0.2, 0.2]}, "order": "TO", "group_by": "user", "mode": "full"}
BY_TIME = {**BY_SHARE, "split": {"TS": [0.6, 0.2, 0.2]}}


@pytest.fixture
def days(tmp_path):
    """A log of 40 users, with a few events a day: (user, item, time) by line."""
    draw = random.Random(3)
    rows = [
        (f"u{user}", f"i{item}", 86400.0 * (draw.randrange(8) + 19000))
        for user in range(40)
        for item in draw.sample(range(30), draw.randrange(5, 10))
    ]
    draw.shuffle(rows)
    return write(tmp_path, rows), rows


def write(folder, rows, name="days"):
    path = folder / name / f"{name}.inter"
    path.parent.mkdir(exist_ok=True)
    head = "user_id:token\titem_id:token\ttimestamp:float\n"
    path.write_text(head + "".join(f"{u}\t{i}\t{t}\n" for u, i, t in rows))
    return folder


def config_of(folder, model=Generative, **values):
    if model in ("BPR", "FPMC", "GRU4Rec"):
        values = {"train_neg_sample_args": NEGATIVES, "loss_type": "BPR", **values}
    values = {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}, **values}
    return make_config(folder, model, values.pop("name", "days"), **values)


def in_order(rows, seed=None):
    """Slow reference: each user's events by time, then by line, or by what the seed draws."""
    draws = np.random.default_rng(seed).random(len(rows) + 2) if seed is not None else None
    by_user = {}
    for line, (user, item, time) in enumerate(rows, 2):
        by_user.setdefault(user, []).append((time, line if draws is None else draws[line], item))
    return {user: sorted(events) for user, events in by_user.items()}


def items_of(config):
    dataset = create_dataset(config)
    histories = Histories.known(dataset)
    items = dataset.field2id_token["item_id"]
    rows = histories.items(torch.arange(len(histories))).tolist()
    users = dataset.field2id_token["user_id"]
    return {
        str(users[user]): [str(items[item]) for item in row if item]
        for user, row in enumerate(rows)
        if user
    }


def pairs_of(split):
    """Pairs of tokens."""
    rows, users, items = split.inter_feat, *(
        split.field2id_token[field] for field in ("user_id", "item_id")
    )
    pairs = zip(rows["user_id"].tolist(), rows["item_id"].tolist())
    return sorted((str(users[user]), str(items[item])) for user, item in pairs)


@pytest.mark.parametrize("order, seed", [("file", None), ("shuffled", 2020), ("shuffled", 7)])
@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_the_order_that_is_asked_for(model, order, seed, days):
    folder, rows = days
    expected = in_order(rows, seed)
    config = config_of(folder, model, tie_order=order, seed=seed or 2020)
    assert items_of(config) == {u: [e[2] for e in events] for u, events in expected.items()}
    splits = create_dataset(config).build()
    for split, place in ((splits[1], -2), (splits[2], -1)):
        assert pairs_of(split) == sorted((u, e[place][2]) for u, e in expected.items())


@pytest.mark.parametrize("order", ["file", "shuffled"])
@pytest.mark.parametrize("split", [None, BY_SHARE, BY_TIME])
@pytest.mark.parametrize("model", [Generative, "BPR"])
def test_tied_targets_are_counted_as_in_plain_python(model, split, order, days):
    folder, rows = days
    values = {"eval_args": split} if split else {}
    config = config_of(folder, model, tie_order=order, seed=5, **values)
    test = data_preparation(config, create_dataset(config))[2]._dataset
    n_targets = {}
    for user, _ in pairs_of(test):
        n_targets[user] = n_targets.get(user, 0) + 1
    events = in_order(rows, 5 if order == "shuffled" else None)
    tied = sum(
        events[user][place][0] == events[user][place - 1][0]
        for user, n in n_targets.items()
        for place in range(len(events[user]) - n, len(events[user]))
        if place
    )
    assert 0 < test.tied_targets.sum() == tied < len(test)
    users, items = (test.inter_feat[field].numpy() for field in ("user_id", "item_id"))
    order = np.random.default_rng(0).permutation(len(test))
    pairs = zip(test.id2token("user_id", users[order]), test.id2token("item_id", items[order]))
    for (user, item), found in zip(pairs, tied_pairs(test, users[order], items[order])):
        last = events[user][-n_targets[user] - 1 :]
        before, own = next(pair for pair in zip([None, *last], last) if pair[1][2] == item)
        assert found == (before is not None and before[0] == own[0])


def test_times_less_than_a_float32_apart_are_not_tied(tmp_path):
    rows = [(f"u{u}", f"i{(u + n) % 9}", 1700000000 + n) for u in range(9) for n in range(5)]
    for order in ("file", "shuffled"):
        config = config_of(write(tmp_path, rows), tie_order=order)
        assert items_of(config)["u0"] == ["i0", "i1", "i2", "i3", "i4"]
        assert data_preparation(config, create_dataset(config))[2]._dataset.tied_targets.sum() == 0


def test_the_order_of_ties_depends_on_the_seed_and_on_no_other_line(days):
    folder, rows = days
    shuffle = {"tie_order": "shuffled", "seed": 1}
    whole = items_of(config_of(folder, **shuffle))
    assert whole == items_of(config_of(folder, **shuffle))
    assert whole != items_of(config_of(folder, **{**shuffle, "seed": 2}))
    assert whole != items_of(config_of(folder))
    # Lines that come later, and lines that are left out, leave the order of the others alone.
    write(folder, [*rows, *(("u99", f"i{n}", 86400.0 * 19000) for n in range(9))], "longer")
    longer = items_of(config_of(folder, name="longer", **shuffle))
    assert {user: items for user, items in longer.items() if user != "u99"} == whole
    write(folder, [(*row[:2], "") if n % 50 == 7 else row for n, row in enumerate(rows)], "gaps")
    gaps = items_of(config_of(folder, name="gaps", max_missing=0.1, **shuffle))
    gone = {(row[0], row[1]) for n, row in enumerate(rows) if n % 50 == 7}
    assert gaps == {u: [i for i in items if (u, i) not in gone] for u, items in whole.items()}


def test_all_orders_of_three_tied_events_are_drawn_equally_often():
    lines, ranks = np.arange(3000), np.arange(3000) // 3
    places, times = shuffled(ranks, lines, seed=0)
    assert sorted(places) == list(range(3000)) and (times[places] == ranks).all()
    orders = [tuple(np.argsort(places[n : n + 3]).tolist()) for n in range(0, 3000, 3)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6 and min(counts) > 120


def test_a_period_has_the_order_of_the_whole_log(days):
    folder, rows = days
    shuffle = {"tie_order": "shuffled", "seed": 4}
    whole = items_of(config_of(folder, **shuffle))
    for model in (Generative, "BPR"):
        period = {"continual_cuts": [0.5, 1.0], "continual_period": 1}
        config = config_of(folder, model, **shuffle, **period)
        assert items_of(config) == whole
        test = data_preparation(config, create_dataset(config))[2]._dataset
        events = in_order(rows, 4)
        tied = sum(events[u][-1][0] == events[u][-2][0] for u, _ in pairs_of(test))
        assert 0 < test.tied_targets.sum() == tied
    early = items_of(config_of(folder, **shuffle, continual_cuts=[0.5, 1.0], continual_period=0))
    assert all(whole[user][: len(items)] == items for user, items in early.items())


def test_a_log_in_random_order_has_no_ties_to_count(days):
    config = config_of(days[0], "Pop", eval_args={"order": "RO", "split": {"LS": "valid_and_test"},
                                                  "group_by": "user", "mode": "full"})  # fmt: skip
    dataset = create_dataset(config)
    assert Ties.of(dataset) is None
    test = data_preparation(config, dataset)[2]._dataset
    assert not hasattr(test, "tied_targets") and tied_pairs(test, *np.ones((2, 3), int)) is None


@pytest.mark.parametrize("value", ["random", 3, True])
def test_another_tie_order_is_refused_by_name(value, days):
    with pytest.raises(ConfigError, match=f"tie_order: {value!r} is not one of file, shuffled"):
        create_dataset(config_of(days[0], tie_order=value))


def test_vectors_that_a_run_trains_on_the_way_see_the_same_order(days):
    given = {"data_path": str(days[0]), "tokenizer": "LETTER", "tie_order": "shuffled", "seed": 9}
    nested = _sasrec_config(Config("TIGER", "days", config_dict=given), None)
    assert nested["tie_order"] == "shuffled" and nested["seed"] == 9


def test_report_and_log_say_how_many_targets_are_tied(days, tmp_path, caplog, monkeypatch):
    folder, rows = days
    monkeypatch.chdir(tmp_path)
    tied = sum(events[-1][0] == events[-2][0] for events in in_order(rows).values())
    said = f"est targets tied in time with another event of their user: {tied} of 40 ("
    results = []
    with caplog.at_level(logging.INFO):
        for model in ("Pop", "SASRec"):
            given = {"data_path": str(folder), "epochs": 1, "show_progress": False, "topk": [5, 10]}
            given["tie_order"] = "shuffled"
            results.append(run_recbole_gr(model, "days", config_dict=given))
    assert f"t{said}" in caplog.text and "tie_order: shuffled" in caplog.text
    assert results[0]["test_targets"] == results[1]["test_targets"]
    files = write_report(results, tmp_path / "report")
    page = open(files["md"], encoding="utf-8").read()
    assert page.count(f"T{said}") == 1 and "their order is drawn by the seed" in page
    kept = json.loads(open(files["json"], encoding="utf-8").read())
    assert [result["test_targets"]["tied"] for result in kept] == [tied, tied]


def test_a_checkpoint_answers_in_the_order_that_it_was_trained_in(days, tmp_path, monkeypatch):
    from recbole_gr.serving.restore import load_data_and_model

    monkeypatch.chdir(tmp_path)
    options = arguments("TIGER", days[0], "days", tie_order="shuffled", seed=6, sid_gate="warn")
    given = dict(option[2:].split("=", 1) for option in options[2:])
    result = run_recbole_gr("TIGER", "days", config_dict=given)
    test = load_data_and_model(result["checkpoint"])[5]._dataset
    expected = in_order(days[1], 6)
    assert pairs_of(test) == sorted((u, e[-1][2]) for u, e in expected.items())


def test_a_training_does_not_go_on_in_another_order(days, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"data_path": str(days[0]), "epochs": 1, "show_progress": False, "topk": [5, 10],
             "tie_order": "shuffled", "seed": 6}  # fmt: skip
    result = run_recbole_gr("SASRec", "days", config_dict=given)
    resume = {**given, "epochs": 2, "resume": result["checkpoint"]}
    for key, value in (("tie_order", "file"), ("seed", 7)):
        with pytest.raises(ConfigError, match=f"resume: .* was trained with {key}="):
            run_recbole_gr("SASRec", "days", config_dict={**resume, key: value})
    assert run_recbole_gr("SASRec", "days", config_dict=resume)["epochs_run"] == 1


def test_a_report_of_periods_says_how_many_targets_of_each_are_tied(tmp_path):
    from recbole_gr.continual.period_table import write_continual_report

    result = {"model": "Pop", "method": "finetune", "tokenizer": None, "churn": None,
              "tokenizer_seconds": None, "recommender_seconds": 1.0,
              "test_result": {"recall@5": 0.1}}  # fmt: skip
    targets = [{"count": 8, "digest": "", "tied": 2}, {"count": 4, "digest": "", "tied": 1}]
    results = [{**result, "period": p, "test_targets": t} for p, t in enumerate(targets)]
    page = open(write_continual_report(results, tmp_path)[0]["md"], encoding="utf-8").read()
    assert "- period 0: test targets tied in time" in page and "user: 1 of 4 (25.0 %)" in page
