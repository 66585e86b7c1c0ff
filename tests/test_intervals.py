"""How sure metrics are: intervals over users."""

import numpy as np
import pytest
import torch
from recbole.evaluator import Evaluator
from runs import RUNS, arguments

from recbole_gr import registry, run_recbole_gr
from recbole_gr.config import Config
from recbole_gr.data import create_dataset, data_preparation
from recbole_gr.trainer.confidence import Z, interval, noting_intervals


def test_with_a_row_a_user_it_is_the_usual_interval_of_a_mean():
    values = np.random.default_rng(0).random(200)
    low, high = interval(values, np.arange(200))
    half = Z * values.std(ddof=1) / np.sqrt(200)
    assert low == pytest.approx(values.mean() - half)
    assert high == pytest.approx(values.mean() + half)


def test_it_is_about_the_bootstraps_over_users():
    generator = np.random.default_rng(1)
    users = np.repeat(np.arange(150), generator.integers(1, 6, 150))
    values = (generator.random(len(users)) < generator.random(150)[users] * 0.4).astype(float)
    order = generator.permutation(len(users))
    sums, counts = np.bincount(users, values), np.bincount(users)
    drawn = generator.integers(0, 150, (4000, 150))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    ends = interval(values[order], users[order])
    assert ends == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)
    wrong = interval(values, np.arange(len(values)))  # rows are no users
    assert ends[1] - ends[0] > 1.1 * (wrong[1] - wrong[0])


def test_it_stays_within_what_a_metric_can_be_and_needs_two_users():
    assert interval(np.array([0.0, 0.0, 0.1]), np.arange(3))[0] == 0.0
    assert interval(np.array([1.0, 1.0, 0.9]), np.arange(3))[1] == 1.0
    assert interval(np.array([0.5, 1.0]), np.array([0, 0])) is None
    assert interval(np.array([]), np.array([], dtype=int)) is None


@pytest.mark.parametrize("name", ["TIGER", "SASRec", "Pop"])
def test_a_run_has_it_for_each_metric_without_a_second_pass(name, tiny_folder, tmp_path,
                                                            monkeypatch):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    model, settings = RUNS[name]
    passes, evaluate = [], Evaluator.evaluate

    def counted(self, struct):
        passes.append(struct.get("rec.topk"))
        return evaluate(self, struct)

    monkeypatch.setattr(Evaluator, "evaluate", counted)
    result = run_recbole_gr(cmd_args=arguments(model, tiny_folder, **settings))
    assert len(passes) == result["epochs_run"] + 1  # validations and the test
    found = result["test_interval"]
    assert found["users"] == 60 and found["metrics"].keys() == result["test_result"].keys()
    hits = passes[-1][:, :10].bool().any(1).double()  # one target a user: recall is a hit
    half = 1.96 * float(hits.std()) / 60**0.5
    mean = float(hits.mean())
    wanted = [max(0, mean - half), mean + half]
    assert found["metrics"]["recall@10"] == pytest.approx(wanted, abs=1e-4)


def test_rows_of_one_user_are_no_users_of_their_own(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    split = {"eval_args": "{'split': {'RS': [0.5, 0.2, 0.3]}}"}
    result = run_recbole_gr(cmd_args=arguments("SASRec", tiny_folder, **split))
    assert result["test_targets"]["count"] > 100
    assert result["test_interval"]["users"] <= 60


def test_metrics_over_items_and_labels_have_none(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metrics = ["NDCG", "ItemCoverage"]
    given = arguments("Pop", tiny_folder, metrics=metrics, topk=[5], valid_metric="NDCG@5")
    result = run_recbole_gr(cmd_args=given)
    assert list(result["test_interval"]["metrics"]) == ["ndcg@5"]
    assert "itemcoverage@5" in result["test_result"]


def test_the_evaluator_is_as_before_afterwards(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config("Pop", "tiny", config_dict={"data_path": str(tiny_folder)})
    loaders = data_preparation(config, create_dataset(config))
    model = config.model_class(config, loaders[0]._dataset)
    trainer = registry.get_trainer(config, config.model_class)(config, model)
    with noting_intervals(trainer.evaluator, loaders[2]._dataset) as intervals:
        pass
    assert intervals.plain() is None
    assert not any("topk_result" in vars(m) for m in trainer.evaluator.metric_class.values())
    assert torch.is_tensor(loaders[2]._dataset.inter_feat["user_id"])
