"""A training that diverges says in which epoch, what to lower and what is left of it."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from runs import RUNS, arguments

from recbole_gr import run_recbole_gr
from recbole_gr.config import Config
from recbole_gr.distributed import failures
from recbole_gr.errors import ConfigError, Diverged, ModelsFailed
from recbole_gr.pipeline.item_vectors import train_item_vectors
from recbole_gr.trainer.divergence import overflow_as
from recbole_gr.trainer.trees import SafeTreeMixin
from run_recbole_gr import main

NAMES = ("TIGER", "PIT", "IntRR", "RPG", "SASRec", "SASRec-BPR")


@pytest.fixture
def command(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def of(name, **given):
        model, own = RUNS[name]
        return arguments(model, tiny_folder, **{**own, "epochs": 4, "use_gpu": False, **given})

    return of


@pytest.mark.parametrize("name", NAMES)
def test_the_epoch_the_key_and_the_checkpoint_are_named(name, command, capsys):
    assert main(command(name, learning_rate=1e30)) == 2
    message = capsys.readouterr().err.rpartition("\nerror: ")[2]
    assert re.search(r"diverged in epoch \d \(.*\): lower learning_rate=1e\+30", message)
    assert "Traceback" not in message
    saved = re.search(r"Its best epoch, \d, is kept in (\S+\.pth)\.$", message.strip())
    assert Path(saved[1]).is_file() if saved else "Nothing was saved." in message


def test_weights_that_the_last_step_has_lost_are_noticed_before_they_are_tested(parts, monkeypatch):
    _, trainer, train, valid, _ = parts(epochs=1)
    step = trainer._step

    def lost(n_batches):
        step(n_batches)
        next(trainer.model.parameters()).data.fill_(float("nan"))

    monkeypatch.setattr(trainer, "_step", lost)
    monkeypatch.setattr(trainer, "_check_nan", lambda loss: None)
    with pytest.raises(Diverged, match="epoch 0 .weights are NaN or infinite.*learning_rate="):
        trainer.fit(train, valid)


def test_errors_that_are_none_of_lost_weights_stay_what_they_are(parts, monkeypatch):
    _, trainer, train, valid, _ = parts(epochs=1)

    def fail(n_batches):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(trainer, "_step", fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        trainer.fit(train, valid)


def test_one_of_several_models_that_diverges_does_not_end_the_others(command):
    Path("own.yaml").write_text("per_model: {SASRec: {learning_rate: 1.0e+30}}\n")
    _, *rest = command("SASRec", config_files="own.yaml")
    with pytest.raises(ModelsFailed, match="SASRec diverged"):
        run_recbole_gr(cmd_args=["--model=SASRec,Pop", *rest])


def test_collaborative_vectors_name_their_own_key(command):
    given = command("TIGER", tokenizer="LETTER", cf_epochs=3, cf_size=4, cf_learning_rate=1e30)
    with pytest.raises(ConfigError, match=r"SASRec diverged.*lower cf_learning_rate=1e\+30"):
        train_item_vectors(Config(cmd_args=given))


def test_trees_name_what_to_lower():
    trainer = SimpleNamespace(config={"model": "XGBoost"}, epoch_seconds=[1.0])
    with pytest.raises(Diverged, match="XGBoost diverged in epoch 1.*learning rate"):
        with overflow_as(lambda why: SafeTreeMixin._diverged(trainer, why)):
            raise ValueError("Input contains NaN.")
    with pytest.raises(ValueError, match="nanny"), overflow_as(Diverged):
        raise ValueError("no nanny")


def test_a_process_that_diverges_is_no_traceback(tmp_path):
    failures.keep_error(tmp_path / "error-1", 1, Diverged("SASRec diverged"))
    error = failures.first_error(str(tmp_path))
    assert isinstance(error, ConfigError) and str(error) == "SASRec diverged"


def test_a_loss_of_half_precision_may_be_infinite_in_a_step(parts):
    trainer = parts()[1]
    trainer.enable_scaler = True
    trainer._check_nan(torch.tensor(float("inf")))
    with pytest.raises(Diverged, match="loss is nan"):
        trainer._check_nan(torch.tensor(float("nan")))
