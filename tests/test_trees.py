"""RecBole's tree models: what is kept of them, and their figures by item."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from tree_packages import packages

from recbole_gr import load_data_and_model, registry, run_recbole_gr
from recbole_gr.config import Config
from recbole_gr.data import create_dataset, data_preparation
from recbole_gr.data.frequency import training_counts
from recbole_gr.distributed import processes
from recbole_gr.errors import ConfigError
from recbole_gr.serving.recommender import Recommender
from recbole_gr.storage.checkpoint import load_checkpoint, save_checkpoint
from run_recbole_gr import main

MODELS = {"XGBoost": "xgb", "LightGBM": "lgb"}  # with the start of their keys
EDGES = [0, 14, 18]
INSTALLED = all(importlib.util.find_spec(name) for name in ("xgboost", "lightgbm"))


@pytest.fixture(params=["stand-ins", "packages"])
def boosters(request, monkeypatch):
    """The packages of trees, stood in for where they are not installed."""
    if request.param == "packages":
        if not INSTALLED:
            pytest.skip("XGBoost and LightGBM are not installed")
        yield
        return
    for name in [name for name in sys.modules if "exlib_recommender" in name]:
        monkeypatch.delitem(sys.modules, name)
    for name, module in packages().items():
        monkeypatch.setitem(sys.modules, name, module)
    yield
    for name in [name for name in sys.modules if "exlib_recommender" in name]:
        del sys.modules[name]


@pytest.fixture
def arguments(tiny_folder, tmp_path, monkeypatch, boosters):
    monkeypatch.chdir(tmp_path)
    settings = {
        "data_path": tiny_folder, "show_progress": False, "threshold": "{'rating': 3}", "epochs": 3,
        "eval_buckets": str(EDGES).replace(" ", ""),
    }  # fmt: skip

    def arguments(model, **changed):
        rounds = {f"{MODELS[model]}_num_boost_round": 5}
        pairs = [f"--{key}={value}" for key, value in {**settings, **rounds, **changed}.items()]
        return [f"--model={model}", "--dataset=tiny", *pairs]

    return arguments


def auc(scores, labels):
    """The share of pairs of a liked and a disliked row that are in order, ties by half."""
    pairs = [
        1.0 if liked > other else 0.5 if liked == other else 0.0
        for liked, yes in zip(scores, labels)
        for other, no in zip(scores, labels)
        if yes and not no
    ]
    return sum(pairs) / len(pairs)


@pytest.mark.parametrize("model", MODELS)
def test_the_trees_of_a_checkpoint_give_its_metrics_and_its_buckets(model, arguments):
    result = run_recbole_gr(cmd_args=arguments(model))
    assert result["epochs_run"] == 3 and len(load_checkpoint(result["checkpoint"])["trees"])
    _, booster, _, train, valid, test = load_data_and_model(result["checkpoint"])
    config = Config(cmd_args=arguments(model))
    trainer = registry.get_trainer(config, config.model_class)(config, booster)
    again = trainer.evaluate(test, model_file=result["checkpoint"])
    assert {name: float(value) for name, value in again.items()} == result["test_result"]
    again = trainer.evaluate(valid, model_file=result["checkpoint"])
    assert {name: float(value) for name, value in again.items()} == result["best_valid_result"]

    trainer.evaluate(test, load_best_model=False)
    rows = test._dataset.inter_feat
    items, labels = rows[config["ITEM_ID_FIELD"]], rows[config["LABEL_FIELD"]].tolist()
    scores = trainer.eval_pred.tolist()
    counts = training_counts(train._dataset)[items].tolist()
    assert result["test_result"]["auc"] == pytest.approx(auc(scores, labels), abs=1e-4)
    bounds = list(zip(EDGES, [*EDGES[1:], float("inf")]))
    assert len(result["test_buckets"]) == len(bounds)
    compared = 0
    for (low, high), figures in zip(bounds, result["test_buckets"].values()):
        inside = [row for row, count in enumerate(counts) if low <= count < high]
        assert figures["targets"] == len(inside)
        of_bucket = [labels[row] for row in inside]
        if len(set(of_bucket)) == 2:
            expected = auc([scores[row] for row in inside], of_bucket)
            assert figures["auc"] == pytest.approx(expected, abs=1e-4)
            compared += 1
    assert compared >= 2
    assert sum(figures["targets"] for figures in result["test_buckets"].values()) == len(items)


def test_the_best_epoch_is_kept_and_not_the_last(arguments, tmp_path):
    config = Config(cmd_args=arguments("XGBoost"))
    train, valid, _ = data_preparation(config, create_dataset(config))
    model = config.model_class(config, train._dataset)
    trainer = registry.get_trainer(config, config.model_class)(config, model)
    trainer.saved_model_file = str(tmp_path / "best.pth")
    scores, grown = iter([0.5, 0.7, 0.6]), []

    def evaluate(*_, **__):
        grown.append(Path(trainer.temp_file).read_bytes())
        return {"auc": next(scores)}

    trainer.evaluate = evaluate
    assert trainer.fit(train, valid) == (0.7, {"auc": 0.7})
    saved = load_checkpoint(tmp_path / "best.pth")
    assert saved["best_epoch"] == saved["epoch"] == trainer.best_epoch == 1
    assert saved["best_valid_result"] and saved["best_valid_score"] == 0.7
    assert saved["trees"].numpy().tobytes() == grown[1] != grown[2]
    assert not list(tmp_path.glob("saved/*temp*"))


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_without_usable_trees_is_refused(model, arguments):
    state = load_checkpoint(run_recbole_gr(cmd_args=arguments(model, epochs=1))["checkpoint"])
    for trees in (torch.arange(9, dtype=torch.uint8), None):
        save_checkpoint("broken.pth", {**state, "trees": trees})
        with pytest.raises(ConfigError, match="'broken.pth' has no trees that .* can read"):
            load_data_and_model("broken.pth")


def test_what_trees_cannot_do_is_said(arguments, capsys, monkeypatch):
    file = run_recbole_gr(cmd_args=arguments("XGBoost", epochs=1))["checkpoint"]
    with pytest.raises(ConfigError, match="XGBoost does not rank all items"):
        Recommender.load(file)
    assert main(arguments("XGBoost", resume=file)) == 2
    assert "resume: " in capsys.readouterr().err
    monkeypatch.setattr(processes, "world_size", lambda: 2)
    config = Config(cmd_args=arguments("XGBoost"))
    with pytest.raises(ConfigError, match="nproc: the trees of XGBoost"):
        registry.get_trainer(config, config.model_class)(config, None)
