"""IntRR in the trainer and from the command line."""

from pathlib import Path

import pytest
import torch
from runs import arguments

from recbole_gr.config.parsing import properties_dir
from recbole_gr.quick_start import run_recbole_gr

SMALL = {"uid_size": 12, "ran_hidden_size": 24, "lambda_aln": 0.1, "learning_rate": 0.01}


@pytest.fixture
def intrr(parts):
    """A function from options to `(config, trainer, train, valid, test)` of a very small IntRR."""
    return lambda **options: parts(model="IntRR", **{**SMALL, **options})


@pytest.mark.parametrize("sample, epochs", [("sequence", 16), ("prefix", 8)])
def test_training_lowers_the_loss_and_finds_items(intrr, sample, epochs):
    _, trainer, train, valid, test = intrr(epochs=epochs, train_sample=sample)
    score, _ = trainer.fit(train, valid)
    losses = list(trainer.train_loss_dict.values())
    assert losses[-1] < 0.9 * losses[0] and score > 0
    assert trainer.evaluate(test)["recall@10"] > 10 / 40  # better than chance


def test_same_seed_gives_the_same_weights_and_another_seed_does_not(intrr):
    weights = []
    for seed in (1, 1, 2):
        _, trainer, train, valid, _ = intrr(seed=seed, epochs=2)
        result = trainer.fit(train, valid, saved=False)
        weights.append((trainer.model.uid_embedding.weight.detach().clone(), result[0]))
    assert torch.equal(weights[0][0], weights[1][0]) and weights[0][1] == weights[1][1]
    assert not torch.equal(weights[0][0], weights[2][0])


def test_resumed_training_equals_uninterrupted_training(intrr):
    options = dict(eval_step=0, lr_scheduler="inverse_sqrt", epochs=4)
    _, whole, train, _, _ = intrr(**options)
    whole.fit(train, None, saved=False)
    _, first, train, _, _ = intrr(**options)
    first.epochs = 2
    first.fit(train, None, saved=True)
    _, second, train, _, _ = intrr(**options)
    second.resume_checkpoint(first.saved_model_file)
    second.fit(train, None, saved=False)
    for a, b in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert second.epoch_figures == whole.epoch_figures


@pytest.mark.slow
def test_mixed_precision_and_compiled_loss_train(intrr):
    _, plain, train, _, _ = intrr(dropout=0.0)
    _, compiled, _, _, _ = intrr(dropout=0.0, torch_compile=True)
    compiled._loss = compiled.model.compiled_loss(backend="eager")
    compiled.model.load_state_dict(plain.model.state_dict())
    for batch in list(train)[:3]:
        assert torch.allclose(plain.model.calculate_loss(batch), compiled._loss(batch), atol=1e-4)
    _, half, train, valid, _ = intrr(enable_amp=True, epochs=1)
    score, _ = half.fit(train, valid, saved=False)
    assert half.train_loss_dict[0] > 0 and score >= 0


@pytest.mark.parametrize("decoding", ["beam", "exact"])
def test_a_run_from_the_command_line(tiny_folder, tmp_path, monkeypatch, decoding):
    monkeypatch.chdir(tmp_path)
    settings = {**SMALL, "hidden_size": 16, "n_layers": 1, "inner_size": 16, "codebook_size": 8}
    settings |= {"content_dim": 8, "decoding": decoding, "train_batch_size": 16}
    result = run_recbole_gr(cmd_args=arguments("IntRR", tiny_folder, **settings))
    assert 0 < result["test_result"]["recall@10"] <= 1
    assert result["config"]["train_sample"] == "sequence"
    folder = Path(result["files"]["md"]).parent
    for name in ("epochs-IntRR.png", "redistribution-IntRR.png", "redistribution-IntRR.json"):
        assert (folder / name).stat().st_size > 0
    assert result["sid"]["collision_rate"] == 0  # the collision level is the last of the SID


@pytest.mark.slow
def test_one_preset_trains_intrr_and_its_flattened_counterpart(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    presets = [properties_dir() / "preset" / f"intrr_{part}.yaml" for part in ("paper", "rkmeans")]
    small = {"hidden_size": 16, "n_layers": 1, "n_heads": 2, "head_size": 8, "inner_size": 16}
    small |= {"uid_size": 8, "ran_hidden_size": 16, "codebook_size": 8, "content_dim": 8}
    small |= {"epochs": 1, "show_progress": False, "data_path": str(tiny_folder)}
    for backbone in ("transformer", "hstu"):
        settings = {**small, "backbone": backbone}
        both = run_recbole_gr(None, "tiny", [str(file) for file in presets], settings)["results"]
        assert [result["model"] for result in both] == ["IntRR", "TIGER"]
        assert both[0]["sid"] == both[1]["sid"]
        for key in ("backbone", "n_layers", "feed_forward_depth", "learner", "renormalise"):
            assert both[0]["config"][key] == both[1]["config"][key]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("normalisation", ["codebook", "trie"])
def test_the_compiler_leaves_loss_and_gradients_as_they_are(intrr, normalisation):
    options = {"dropout": 0.0, "train_batch_size": 5, "torch_compile": True}
    _, trainer, train, _, _ = intrr(**options, loss_normalisation=normalisation)
    trainer._loss = trainer.model.compiled_loss(backend="aot_eager")
    for batch in list(train)[:2]:
        loss, compiled = trainer.model.calculate_loss(batch), trainer._loss(batch)
        assert torch.allclose(loss, compiled, atol=1e-5)
        parameters = list(trainer.model.parameters())
        eager = torch.autograd.grad(loss, parameters)
        for a, b in zip(eager, torch.autograd.grad(compiled, parameters), strict=True):
            assert torch.allclose(a, b, atol=1e-5)
