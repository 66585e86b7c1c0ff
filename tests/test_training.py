"""GenerationTrainer: evaluation, schedule, accumulation and resuming, on a generated data set."""

import logging
import math
import shutil

import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer

from recbole_gr.errors import ConfigError
from recbole_gr.storage.checkpoint import random_states
from recbole_gr.trainer.generation import learning_rate_factor


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


@pytest.mark.parametrize("learner", ["adam", "adamw", "sgd"])
def test_the_optimiser_is_recboles(parts, learner):
    _, trainer, train, _, _ = parts(learner=learner, weight_decay=0.1, clip_grad_norm=None)
    name = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}[learner]
    reference = [p.detach().clone().requires_grad_() for p in trainer.model.parameters()]
    plain = getattr(torch.optim, name)(reference, lr=trainer.learning_rate, weight_decay=0.1)

    def follow(optimizer, *_):
        plain.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"]
        for p, q in zip(trainer.model.parameters(), reference):
            q.grad = p.grad.clone()
        plain.step()

    trainer.optimizer.register_step_post_hook(follow)
    trainer._train_epoch(train, 0)
    assert trainer.n_steps == len(train)
    for p, q in zip(trainer.model.parameters(), reference):
        assert torch.allclose(p, q, atol=1e-6)


def test_mixed_precision_and_compiled_loss_train(parts):
    _, plain, train, _, _ = parts(dropout=0.0)
    _, compiled, _, _, _ = parts(dropout=0.0, torch_compile=True)
    compiled._loss = compiled.model.compiled_loss(backend="eager")
    compiled.model.load_state_dict(plain.model.state_dict())
    for batch in list(train)[:3]:
        assert torch.allclose(plain.model.calculate_loss(batch), compiled._loss(batch), atol=1e-5)
    _, half, train, valid, _ = parts(enable_amp=True, epochs=1)
    score, _ = half.fit(train, valid, saved=False)
    assert half.train_loss_dict[0] > 0 and score >= 0


@pytest.mark.parametrize(
    "options, said",
    [
        ({"enable_amp": True, "hidden_size": 128}, True),
        ({"enable_amp": True, "hidden_size": 144}, False),
        ({"enable_amp": False, "hidden_size": 128}, False),
    ],
    ids=str,
)
def test_mixed_precision_that_seldom_pays_on_a_cpu_is_spoken_of(parts, caplog, options, said):
    with caplog.at_level(logging.INFO):
        parts(**options)
    assert caplog.text.count("enable_amp seldom pays on a CPU at hidden_size 128") == said


def learning_rates(trainer, train, epochs):
    """The learning rate of every optimiser step, and the parameters' change in it."""
    rates, changes = [], []
    before = [p.detach().clone() for p in trainer.model.parameters()]

    def note(optimizer, args, kwargs):
        rates.append(optimizer.param_groups[0]["lr"])
        now = [p.detach().clone() for p in trainer.model.parameters()]
        changes.append(math.sqrt(sum(float(((a - b) ** 2).sum()) for a, b in zip(now, before))))
        before[:] = now

    trainer.optimizer.register_step_post_hook(note)
    for epoch in range(epochs):
        trainer._train_epoch(train, epoch)
    return rates, changes


@pytest.mark.parametrize("schedule", ["constant", "cosine", "inverse_sqrt"])
def test_every_step_uses_the_learning_rate_of_the_schedule(parts, schedule):
    options = {"learning_rate": 0.01, "warmup_steps": 3, "lr_scheduler": schedule}
    _, trainer, train, _, _ = parts(accumulation_steps=2, epochs=2, **options)
    rates, _ = learning_rates(trainer, train, 2)
    total = 2 * math.ceil(len(train) / 2)
    assert len(rates) == total > 4
    for step, rate in enumerate(rates):
        number = step + 1
        factor = {
            "constant": 1.0,
            "cosine": (1 + math.cos(math.pi * (step - 3) / (total - 3))) / 2,
            "inverse_sqrt": math.sqrt(3 / number),
        }[schedule]
        assert rate == pytest.approx(0.01 * (number / 3 if number <= 3 else factor))
    assert [round(rate, 6) for rate in rates[:3]] == [0.003333, 0.006667, 0.01]


def test_gradients_are_clipped_over_all_parameters_together(parts):
    options = {"learner": "sgd", "weight_decay": 0.0, "learning_rate": 0.5, "warmup_steps": 0}
    options |= {"lr_scheduler": "constant", "epochs": 1}
    _, trainer, train, _, _ = parts(clip_grad_norm={"max_norm": 0.01}, **options)
    _, changes = learning_rates(trainer, train, 1)
    assert changes == pytest.approx([0.5 * 0.01] * len(changes), rel=1e-3)
    _, trainer, train, _, _ = parts(clip_grad_norm=None, **options)
    _, free = learning_rates(trainer, train, 1)
    assert min(free) > 0.5 * 0.01


def test_the_loss_of_an_epoch_is_the_mean_of_its_batches_and_theirs_of_their_targets(parts):
    options = {"dropout": 0.0, "learning_rate": 0.0, "weight_decay": 0.0, "train_batch_size": 7}
    _, trainer, train, _, _ = parts(**options)
    assert train._bucketed is not None
    state = train.generator.get_state()
    reported = trainer._train_epoch(train, 0)
    train.generator.set_state(state)  # the same batches again
    means, n_targets = [], []
    for batch in train:
        losses = []
        for row in range(len(batch)):
            length = int(batch["item_length"][row])
            items = batch["item_id_list"][row, :length].tolist() + [int(batch["item_id"][row])]
            for end in range(length - int(batch["n_targets"][row]) + 1, length + 1):
                prefix = {
                    "user_id": batch["user_id"][row : row + 1],
                    "item_id_list": torch.tensor([items[:end]]),
                    "item_length": torch.tensor([end]),
                }
                exact = trainer.model.exact(Interaction(prefix))
                losses.append(-float(exact[0, items[end]]))
        with torch.no_grad():
            loss = float(trainer.model.calculate_loss(batch))
        assert loss == pytest.approx(sum(losses) / len(losses), abs=1e-4)
        means.append(loss)
        n_targets.append(len(losses))
    assert sum(n_targets) == len(train._dataset) and len(set(n_targets)) > 1
    assert reported == pytest.approx(sum(means) / len(means), abs=1e-5)


def test_the_loss_of_an_epoch_that_goes_on_is_the_mean_of_the_batches_that_were_left(parts):
    options = {"dropout": 0.0, "learning_rate": 0.0, "weight_decay": 0.0, "train_batch_size": 7}
    _, trainer, train, _, _ = parts(**options)
    state = train.generator.get_state()
    with torch.no_grad():
        losses = [float(trainer.model.calculate_loss(batch)) for batch in train]
    assert len(losses) > 3 and losses[:2] != losses[2:4]
    train.generator.set_state(state)
    trainer._go_on_at = {"batches": 2, "random": random_states()}
    reported = trainer._train_epoch(train, 0)
    assert reported == pytest.approx(sum(losses[2:]) / len(losses[2:]), abs=1e-5)


class Interrupted(Exception):
    pass


def state_of(trainer):
    """All that decides how training goes on, as plain values and copies of tensors."""
    optimizer = trainer.optimizer.state_dict()
    moments = [value for state in optimizer["state"].values() for value in state.values()]
    tensors = [*trainer.model.state_dict().values(), *moments]
    plain = (trainer.n_steps, trainer.best_epoch, trainer.cur_step, trainer.best_valid_score)
    return plain, dict(trainer.best_valid_result), [t.detach().clone() for t in tensors]


def test_an_interrupted_run_goes_on_from_its_best_epoch_as_if_nothing_had_happened(parts):
    options = {"epochs": 6, "dropout": 0.2, "learning_rate": 0.01, "stopping_step": 10}
    _, whole, train, valid, test = parts(**options)
    whole.saved_model_file += "-whole"
    result = whole.fit(train, valid)
    expected = whole.evaluate(test, load_best_model=False)

    def interrupt(epoch, score):
        if epoch == 3:
            raise Interrupted

    _, first, train, valid, _ = parts(**options)
    with pytest.raises(Interrupted):
        first.fit(train, valid, callback_fn=interrupt)
    _, second, train, valid, test = parts(**options)
    torch.rand(7)  # what a new process has drawn before does not matter
    second.resume_checkpoint(first.saved_model_file)
    # The checkpoint is that of the best epoch so far, so the epochs after it are trained again.
    assert second.start_epoch == first.best_epoch + 1 <= 4
    assert second.fit(train, valid) == result
    assert second.evaluate(test, load_best_model=False) == expected
    (plain, metrics, tensors), (other, others, resumed) = state_of(whole), state_of(second)
    assert plain == other and metrics == others
    assert len(tensors) == len(resumed) and all(map(torch.equal, tensors, resumed))
    for epoch in range(second.start_epoch, 6):
        assert second.train_loss_dict[epoch] == whole.train_loss_dict[epoch]


def test_a_resumed_run_that_never_improves_returns_the_best_result_before(parts):
    options = {"stopping_step": 0, "learning_rate": 0.01}
    _, first, train, valid, _ = parts(epochs=2, **options)
    score, result = first.fit(train, valid)
    before = open(first.saved_model_file, "rb").read()
    _, second, train, valid, _ = parts(epochs=9, **options)
    second.resume_checkpoint(first.saved_model_file)
    worst = {name: 0.0 for name in result}
    second.evaluate = lambda data, **options: worst
    assert second.fit(train, valid) == (score, dict(result))
    assert second.best_epoch == first.best_epoch and len(second.epoch_seconds) == 1
    assert open(second.saved_model_file, "rb").read() == before


def test_resuming_a_finished_run_trains_nothing_and_keeps_its_checkpoint(parts):
    _, first, train, valid, test = parts(epochs=2, eval_step=2)
    outcome = first.fit(train, valid)
    expected = first.evaluate(test, load_best_model=True)
    before = open(first.saved_model_file, "rb").read()
    _, second, train, valid, test = parts(epochs=2, eval_step=2)
    second.resume_checkpoint(first.saved_model_file)
    assert second.fit(train, valid) == outcome and second.epoch_seconds == []
    assert second.evaluate(test, load_best_model=True) == expected
    assert open(second.saved_model_file, "rb").read() == before


def test_early_stopping_goes_back_to_the_best_epoch_for_the_test(parts):
    _, trainer, train, valid, test = parts(epochs=9, stopping_step=1, learning_rate=0.01)
    scores, weights, evaluate = iter([0.1, 0.3, 0.2, 0.2]), [], trainer.evaluate
    names = [f"{metric}@{k}" for metric in ("recall", "ndcg", "mrr") for k in (5, 10)]

    def scripted(data, **options):
        weights.append(trainer.model.heads[0].weight.detach().clone())
        return dict.fromkeys(names, next(scores))

    trainer.evaluate = scripted
    score, result = trainer.fit(train, valid)
    assert (score, trainer.best_epoch, len(trainer.epoch_seconds)) == (0.3, 1, 4)
    assert result == dict.fromkeys(names, 0.3)
    trainer.evaluate = evaluate
    trainer.evaluate(test, load_best_model=True)
    assert torch.equal(trainer.model.heads[0].weight, weights[1])
    assert not torch.equal(weights[1], weights[3])


NEEDS_A_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("normalisation", "backend"),
    [
        pytest.param("codebook", "aot_eager", marks=pytest.mark.slow),
        # The compiler that the trainer uses, once for all models: it takes minutes.
        pytest.param("trie", "inductor", marks=[NEEDS_A_COMPILER, pytest.mark.slow]),
    ],
)
def test_the_compiled_loss_equals_the_eager_one_for_batches_of_different_length(
    parts, normalisation, backend
):
    # Forward and backward; dropout is off.
    options = {"dropout": 0.0, "train_batch_size": 5, "torch_compile": True}
    options["loss_normalisation"] = normalisation
    _, trainer, train, _, _ = parts(**options)
    batches = {}
    for batch in train:
        batches.setdefault(batch["item_id_list"].shape[1], batch)
    assert len(batches) >= 3
    if backend != "inductor":
        trainer._loss = trainer.model.compiled_loss(backend=backend)
    for _, batch in sorted(batches.items())[:2]:
        loss, compiled = trainer.model.calculate_loss(batch), trainer._loss(batch)
        assert torch.allclose(loss, compiled, atol=1e-5)
        parameters = list(trainer.model.parameters())
        eager = torch.autograd.grad(loss, parameters)
        for a, b in zip(eager, torch.autograd.grad(compiled, parameters)):
            assert torch.allclose(a, b, atol=1e-5)
