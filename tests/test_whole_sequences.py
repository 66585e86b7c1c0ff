"""RecBole's causal models on whole sequences: the same targets, losses and gradients."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from tiny import write_tiny_dataset
from whole_models import NO_DROPOUT, make

from recbole_gr import run_recbole_gr
from recbole_gr.config import Config
from recbole_gr.errors import ConfigError
from recbole_gr.model import full_softmax
from recbole_gr.model.full_softmax import full_softmax_loss


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A function that gives a model and the loader of its training batches."""
    monkeypatch.chdir(tmp_path)
    return partial(make, write_tiny_dataset(tmp_path / "data"))


def mean_loss(model, train):
    """Loss and gradients of an epoch as one batch, each target counted once."""
    total, count = 0.0, 0
    for batch in train:
        n = int(batch["n_targets"].sum()) if "n_targets" in batch else len(batch)
        total, count = total + model.calculate_loss(batch) * n, count + n
    (total / count).backward()
    return float(total.detach()) / count, count, {k: p.grad for k, p in model.named_parameters()}


@pytest.mark.parametrize("model", NO_DROPOUT)
def test_whole_sequences_have_the_loss_and_gradients_of_prefix_samples(made, model):
    loss, n, gradients = mean_loss(*made(model))
    whole, n_whole, others = mean_loss(*made(model, train_sample="sequence"))
    assert n == n_whole and whole == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        assert torch.allclose(others[name], gradient, atol=1e-6, rtol=1e-4), name


def test_a_batch_has_as_many_targets_as_one_of_prefix_samples(made):
    (_, prefix), (_, whole) = made(), made(train_sample="sequence")
    counts = [int(batch["n_targets"].sum()) for batch in whole]
    assert abs(len(whole) - len(prefix)) <= 1
    assert max(counts) < 2 * 100 and sum(counts) == len(prefix._dataset)


def test_negatives_are_drawn_for_every_target_and_are_not_it(made):
    model, train = made(loss_type="BPR", train_sample="sequence")
    for batch in train:
        for row, length in enumerate(batch["item_length"].tolist()):
            drawn = batch["negative_items"][row, :length]
            targets = [*batch["item_id_list"][row, 1:length], batch["item_id"][row]]
            assert bool((drawn > 0).all()) and not bool((drawn == torch.stack(targets)).any())
        assert torch.isfinite(model.calculate_loss(batch))


def test_bpr_of_whole_sequences_is_that_of_prefix_samples_with_the_same_negatives(made):
    model, train = made(loss_type="BPR", train_sample="sequence")
    other, prefix = made(loss_type="BPR")
    negative = {}  # of a user's target
    total = count = 0
    for batch in train:
        loss, n = model.calculate_loss(batch), int(batch["n_targets"].sum())
        total, count = total + float(loss.detach()) * n, count + n
        for row in range(len(batch)):
            length = int(batch["item_length"][row])
            history = [*batch["item_id_list"][row, :length].tolist(), int(batch["item_id"][row])]
            for place in range(length - int(batch["n_targets"][row]), length):
                key = int(batch["user_id"][row]), tuple(history[max(0, place - 19) : place + 2])
                negative[key] = int(batch["negative_items"][row, place])
    expected = 0
    for batch in prefix:
        drawn = []
        for row in range(len(batch)):
            length = int(batch["item_length"][row])
            history = [*batch["item_id_list"][row, :length].tolist(), int(batch["item_id"][row])]
            drawn.append(negative[int(batch["user_id"][row]), tuple(history[-21:])])
        batch["neg_item_id"] = torch.tensor(drawn)
        expected += float(other.calculate_loss(batch).detach()) * len(batch)
    assert total / count == pytest.approx(expected / len(prefix._dataset), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("piece", [1, 37, 10**6])
def test_the_softmax_in_pieces_is_cross_entropy(monkeypatch, smoothing, piece):
    monkeypatch.setitem(full_softmax.PIECE, "cpu", piece * 11)
    torch.manual_seed(0)
    states, items = torch.randn(50, 8).double() * 30, torch.randn(11, 8).double()  # far apart
    targets = torch.randint(11, (50,))
    results = []
    for loss_of in (
        lambda s, w: full_softmax_loss(s, w, targets, smoothing),
        lambda s, w: F.cross_entropy(s @ w.T, targets, label_smoothing=smoothing),
    ):
        given = [states.clone().requires_grad_(), items.clone().requires_grad_()]
        loss = loss_of(*given)
        (loss * 3).backward()
        results.append([loss.detach(), *(value.grad for value in given)])
    for own, other in zip(*results):
        assert torch.allclose(own, other)


def test_the_softmax_in_pieces_under_autocast_is_near_that_in_float32():
    torch.manual_seed(0)
    states, items = torch.randn(50, 8, requires_grad=True), torch.randn(11, 8, requires_grad=True)
    targets = torch.randint(11, (50,))
    with torch.autocast("cpu"):
        low = full_softmax_loss(states, items, targets)
    low.backward()
    assert low.dtype == states.grad.dtype == torch.float32
    assert low.item() == pytest.approx(F.cross_entropy(states @ items.T, targets).item(), rel=0.02)


@pytest.mark.parametrize("model", ["BERT4Rec", "NARM", "BPR"])
def test_other_models_say_that_they_take_prefix_samples(tmp_path, model):
    given = {"data_path": str(write_tiny_dataset(tmp_path)), "train_sample": "sequence"}
    with pytest.raises(ConfigError, match=f"SASRec.*{model} takes train_sample=prefix"):
        Config(model, "tiny", config_dict=given)


def test_a_run_resumes_and_recommends_as_any_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_tiny_dataset(tmp_path / "data")
    given = {"data_path": str(folder), "train_sample": "sequence", "show_progress": False}
    settings = {**given, "hidden_size": 16, "inner_size": 16, "learning_rate": 0.01}
    whole = run_recbole_gr("SASRec", "tiny", config_dict={**settings, "epochs": 3})
    part = run_recbole_gr("SASRec", "tiny", config_dict={**settings, "epochs": 2})
    further = {**settings, "epochs": 3, "resume": part["checkpoint"]}
    if part["best_epoch"] == 1:  # the checkpoint is of the last epoch
        assert run_recbole_gr("SASRec", "tiny", config_dict=further)["test_result"] == (
            whole["test_result"]
        )
    assert whole["test_result"]["recall@10"] > 0
