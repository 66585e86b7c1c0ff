"""GenerationTrainer: evaluation, schedule, accumulation and resuming, on a generated data set."""

import math

import pytest
import torch
from recbole.trainer import Trainer
from recbole.utils import init_seed

from recbole_gr import registry
from recbole_gr.config import Config
from recbole_gr.data import create_dataset, data_preparation
from recbole_gr.errors import ConfigError
from recbole_gr.sid.table import SIDTable
from recbole_gr.trainer.generation import GenerationTrainer, learning_rate_factor

SMALL = {
    "hidden_size": 16,
    "n_layers": 1,
    "n_heads": 2,
    "head_size": 8,
    "inner_size": 32,
    "dropout": 0.1,
    "beam_size": 15,
    "train_batch_size": 16,
    "MAX_ITEM_LIST_LENGTH": 10,
    "warmup_steps": 3,
    "epochs": 3,
    "show_progress": False,
    "topk": [5, 10],
}


@pytest.fixture
def parts(tiny_folder, tmp_path, monkeypatch):
    """A function from options to ``(config, trainer, train, valid, test)``."""
    monkeypatch.chdir(tmp_path)

    def make(shared=False, **options):
        folders = {"data_path": str(tiny_folder), "checkpoint_dir": str(tmp_path / "saved")}
        config = Config("TIGER", "tiny", config_dict={**SMALL, **folders, **options})
        init_seed(config["seed"], True)
        loaders = data_preparation(config, create_dataset(config))
        n_items = loaders[0]._dataset.item_num - 1
        number = torch.arange(n_items) // (2 if shared else 1)  # shared: two items on each SID
        table = SIDTable.from_item_codes(torch.stack([number // 7, number % 7], 1), (7, 7))
        model = registry.get_model("TIGER")(config, loaders[0]._dataset, table)
        return config, GenerationTrainer(config, model), *loaders

    return make


@pytest.mark.parametrize("shared", [False, True])
def test_metrics_of_ranked_lists_equal_recboles_evaluator_on_dense_scores(parts, shared):
    metrics = ["Recall", "NDCG", "MRR", "Hit", "Precision", "ItemCoverage"]
    config, trainer, train, valid, test = parts(shared, metrics=metrics, epochs=2)
    trainer.fit(train, valid, saved=False)
    ranked = trainer.evaluate(test, load_best_model=False)
    dense = Trainer.evaluate(trainer, test, load_best_model=False)
    if not shared:  # among equal scores RecBole's topk takes any, ours the lower item id
        assert dict(ranked) == dict(dense)
    figures = trainer.generation_figures
    assert figures["invalid_beams"] == 0.0
    if shared:
        assert figures["sid_recall@10"] >= ranked["recall@10"]
    else:
        assert figures["sid_recall@10"] == ranked["recall@10"]


@pytest.mark.parametrize("metrics, dense", [(["NDCG"], False), (["GAUC", "NDCG"], True)])
def test_only_metrics_that_need_every_score_take_the_dense_path(parts, monkeypatch, metrics, dense):
    _, trainer, train, valid, test = parts(epochs=1, metrics=metrics)
    calls, predict = [], trainer.model.full_sort_predict
    monkeypatch.setattr(trainer.model, "full_sort_predict", lambda x: calls.append(1) or predict(x))
    trainer.eval_collector.data_collect(train)
    trainer.evaluate(test, load_best_model=False)
    assert bool(calls) == dense


def test_learning_rate_factors():
    constant = [learning_rate_factor(step, "constant", 4, 9) for step in range(6)]
    assert constant == [0.25, 0.5, 0.75, 1, 1, 1]
    assert learning_rate_factor(14, "cosine", 4, 24) == pytest.approx(0.5)
    assert learning_rate_factor(24, "cosine", 4, 24) == pytest.approx(0.0)
    assert learning_rate_factor(99, "inverse_sqrt", 25, 0) == pytest.approx(math.sqrt(25 / 100))


def test_unknown_schedule_is_refused(parts):
    with pytest.raises(ConfigError, match="lr_scheduler"):
        parts(lr_scheduler="linear")


def test_accumulated_batches_make_the_step_of_their_mean_gradient(parts):
    options = dict(dropout=0.0, shuffle=False, learner="sgd", warmup_steps=0)
    options |= dict(lr_scheduler="constant", epochs=1, clip_grad_norm=None)
    options |= dict(weight_decay=0.0, learning_rate=0.1)
    _, trainer, train, _, _ = parts(accumulation_steps=3, **options)
    _, other, _, _, _ = parts(**options)
    other.model.load_state_dict(trainer.model.state_dict())
    batches = list(train)
    assert len(batches) % 3  # the last group is smaller
    trainer._train_epoch(train, 0)
    other.model.train()
    for first in range(0, len(batches), 3):
        group = batches[first : first + 3]
        loss = sum(other.model.calculate_loss(batch) for batch in group) / len(group)
        grads = torch.autograd.grad(loss, list(other.model.parameters()))
        with torch.no_grad():
            for parameter, grad in zip(other.model.parameters(), grads, strict=True):
                parameter -= 0.1 * grad
    for a, b in zip(trainer.model.parameters(), other.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert trainer.n_steps == -(-len(batches) // 3)


def test_same_seed_gives_the_same_weights_and_another_seed_does_not(parts):
    weights = []
    for seed in (1, 1, 2):
        _, trainer, train, valid, _ = parts(seed=seed, epochs=2)
        result = trainer.fit(train, valid, saved=False)
        weights.append((trainer.model.heads[0].weight.detach().clone(), result[0]))
    assert torch.equal(weights[0][0], weights[1][0]) and weights[0][1] == weights[1][1]
    assert not torch.equal(weights[0][0], weights[2][0])


def test_resumed_training_equals_uninterrupted_training(parts):
    # Validation is off, so that every epoch is saved and the second is the one to go on from.
    options = dict(eval_step=0, lr_scheduler="inverse_sqrt")
    _, whole, train, _, _ = parts(epochs=4, **options)
    whole.fit(train, None, saved=False)
    _, first, train, _, _ = parts(epochs=4, **options)
    first.epochs = 2
    first.fit(train, None, saved=True)
    _, second, train, _, _ = parts(epochs=4, **options)
    second.resume_checkpoint(first.saved_model_file)
    assert second.n_steps == first.n_steps and second.start_epoch == 2
    second.fit(train, None, saved=False)
    assert second.n_steps == whole.n_steps
    for a, b in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_validation_on_a_sample_returns_the_result_of_all_users(parts):
    _, trainer, train, valid, _ = parts(valid_users=10, epochs=2)
    score, result = trainer.fit(train, valid, saved=True)
    assert len(trainer._valid_sample._dataset) == 10
    whole = trainer.evaluate(valid, load_best_model=True)
    assert dict(result) == dict(whole) and score == whole["ndcg@10"]


def test_sampled_ranking_goes_through_predict(parts):
    mode = {"mode": {"valid": "uni10", "test": "uni10"}}
    _, trainer, train, valid, test = parts(eval_args=mode, epochs=1)
    trainer.fit(train, valid, saved=False)
    result = trainer.evaluate(test, load_best_model=False)
    assert 0 < result["recall@10"] <= 1


def test_mixed_precision_and_compiled_loss_train(parts):
    _, plain, train, _, _ = parts(dropout=0.0)
    _, compiled, _, _, _ = parts(dropout=0.0, torch_compile=True)
    compiled._loss = torch.compile(compiled.model.calculate_loss, backend="eager", dynamic=True)
    compiled.model.load_state_dict(plain.model.state_dict())
    for batch in list(train)[:3]:
        assert torch.allclose(plain.model.calculate_loss(batch), compiled._loss(batch), atol=1e-5)
    _, half, train, valid, _ = parts(enable_amp=True, epochs=1)
    score, _ = half.fit(train, valid, saved=False)
    assert half.train_loss_dict[0] > 0 and score >= 0
