"""RecBole's own models through our command line: train, save, reload, evaluate."""

import json
import shutil

import numpy as np
import pytest
import torch
from recbole.trainer import KGTrainer, S3RecTrainer, Trainer
from recbole.utils import init_seed
from runs import rest_slow
from tiny import read_sequences

from recbole_gr import registry
from recbole_gr.config import Config
from recbole_gr.data import create_dataset, data_preparation
from recbole_gr.errors import ConfigError
from recbole_gr.quick_start import run_recbole_gr
from recbole_gr.storage.checkpoint import load_checkpoint
from recbole_gr.trainer.base import SafeTrainerMixin, safe_trainer
from recbole_gr.trainer.epoch_lines import EpochLines
from run_recbole_gr import main

MODELS = ["Pop", "BPR", "LightGCN", "SASRec", "GRU4Rec", "BERT4Rec", "DeepFM"]


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # runs write log/, saved/ and results/ where they are started


@pytest.fixture
def arguments(tiny_folder):
    """Arguments of a short run."""

    def arguments(model, **settings):
        settings = {
            "epochs": 1,
            "show_progress": False,
            "data_path": tiny_folder,
            **({"threshold": "{'rating': 3}"} if model == "DeepFM" else {}),
            **({"MAX_ITEM_LIST_LENGTH": 10} if model in ("SASRec", "GRU4Rec", "BERT4Rec") else {}),
            **settings,
        }
        pairs = [f"--{key}={value}" for key, value in settings.items()]
        return [f"--model={model}", "--dataset=tiny", *pairs]

    return arguments


def build(arguments):
    """A fresh, untrained trainer and the loaders of a run."""
    config = Config(cmd_args=arguments)
    init_seed(config["seed"], config["reproducibility"])  # DeepFM's split is random
    train, valid, test = data_preparation(config, create_dataset(config))
    model = config.model_class(config, train._dataset).to(config["device"])
    return registry.get_trainer(config, config.model_class)(config, model), train, valid, test


@pytest.mark.parametrize("model", rest_slow(*MODELS))
def test_model_trains_saves_and_gives_equal_metrics_when_reloaded(model, arguments, tmp_path):
    assert main(arguments(model)) == 0
    (report,) = tmp_path.glob("results/*/results.json")
    (result,) = json.loads(report.read_text())
    assert result["model"] == model and result["best_epoch"] == 0 and result["epochs_run"] == 1
    assert all(0 <= value <= 1 for value in result["test_result"].values())

    trainer, _, valid, test = build(arguments(model))
    assert isinstance(trainer, SafeTrainerMixin)
    again = trainer.evaluate(test, model_file=result["checkpoint"])
    assert dict(again) == result["test_result"]
    assert dict(trainer.evaluate(valid, load_best_model=False)) == result["best_valid_result"]
    saved = load_checkpoint(result["checkpoint"])
    assert saved["config"]["model"] == model and saved["epoch"] == 0


@pytest.mark.parametrize("model", rest_slow("BPR", "BERT4Rec"))
def test_resumed_training_equals_uninterrupted_training(model, arguments):
    # BPR draws negatives from numpy, BERT4Rec masks from Python's random and drops out by torch.
    every_epoch = {"eval_step": 0}  # without validation, every epoch is saved
    whole = run_recbole_gr(cmd_args=arguments(model, epochs=4, **every_epoch))
    half = run_recbole_gr(cmd_args=arguments(model, epochs=2, **every_epoch))
    halfway = load_checkpoint(half["checkpoint"])["state_dict"]
    rest = run_recbole_gr(
        cmd_args=arguments(model, epochs=4, resume=half["checkpoint"], **every_epoch)
    )
    assert rest["epochs_run"] == 2 and rest["best_epoch"] == whole["best_epoch"] == 3
    expected, resumed = (load_checkpoint(r["checkpoint"])["state_dict"] for r in (whole, rest))
    for name, value in expected.items():
        assert torch.equal(value, resumed[name]), name
    assert any(not torch.equal(value, halfway[name]) for name, value in expected.items())
    assert rest["test_result"] == whole["test_result"]


@pytest.fixture
def knowledge_folder(tiny_folder, tmp_path):
    """The data set with a knowledge graph: an item belongs to a fifth and has two neighbours."""
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_folder / "tiny", folder)
    links = [f"i{item}\te{item}\n" for item in range(40)]
    facts = [f"e{item}\tin\tfifth{item // 8}\n" for item in range(40)]
    facts += [f"e{item}\tnear\te{(item + step) % 40}\n" for item in range(40) for step in (1, 2)]
    (folder / "tiny.link").write_text("item_id:token\tentity_id:token\n" + "".join(links))
    (folder / "tiny.kg").write_text(
        "head_id:token\trelation_id:token\ttail_id:token\n" + "".join(facts)
    )
    return tmp_path


@pytest.mark.parametrize("model", ["CFKG", "CKE"])
def test_knowledge_aware_models_train_on_both_loaders_and_resume(
    model, arguments, knowledge_folder
):
    options = {"data_path": knowledge_folder, "eval_step": 0, "train_batch_size": 64}
    whole = run_recbole_gr(cmd_args=arguments(model, epochs=3, **options))
    half = run_recbole_gr(cmd_args=arguments(model, epochs=1, **options))
    checkpoint = half["checkpoint"]
    # The loader of triplets has an order of its own beside that of the interactions.
    assert len(load_checkpoint(checkpoint)["loader_states"]) == 2
    rest = run_recbole_gr(cmd_args=arguments(model, epochs=3, resume=checkpoint, **options))
    expected, resumed = (load_checkpoint(r["checkpoint"])["state_dict"] for r in (whole, rest))
    for name, value in expected.items():
        assert torch.equal(value, resumed[name]), name
    assert rest["test_result"] == whole["test_result"]
    assert whole["test_targets"]["count"] == 60


@pytest.mark.slow
def test_the_bundled_knowledge_graph_trains_a_model(arguments):
    settings = ["--model=CFKG", "--dataset=ml-100k", "--epochs=1", "--train_batch_size=16384"]
    result = run_recbole_gr(cmd_args=[*settings, "--embedding_size=8", "--show_progress=False"])
    assert result["test_result"]["recall@10"] > 0 and result["test_targets"]["count"] == 943


@pytest.mark.parametrize("model", ["Pop", "BPR", "SASRec"])
def test_targets_of_every_model_are_each_users_last_two_items(model, arguments, tiny_folder):
    _, train, valid, test = build(arguments(model))
    sequences = read_sequences(tiny_folder)
    for loader, place in ((valid, -2), (test, -1)):
        data = loader._dataset
        users = data.id2token("user_id", data.inter_feat["user_id"].numpy())
        items = data.id2token("item_id", data.inter_feat["item_id"].numpy())
        assert dict(zip(users, items)) == {user: seq[place] for user, seq in sequences.items()}
        assert len(users) == len(sequences)


def test_recall_of_pop_equals_a_count_by_hand(arguments, tiny_folder):
    result = run_recbole_gr(cmd_args=arguments("Pop", metric_decimal_place=10))
    sequences = read_sequences(tiny_folder)
    items = sorted({item for sequence in sequences.values() for item in sequence})
    counts = {item: 0 for item in items}
    for sequence in sequences.values():
        for item in sequence[:-2]:
            counts[item] += 1

    trainer, train, _, test = build(arguments("Pop"))
    trainer.evaluate(test, model_file=result["checkpoint"])
    learned = trainer.model.item_cnt[:, 0].tolist()
    assert {item: learned[train._dataset.token2id("item_id", item)] for item in items} == counts

    def recall(ties_count, hidden):
        hits = 0
        for sequence in sequences.values():
            target = sequence[-1]
            rivals = [item for item in items if item != target and item not in hidden(sequence)]
            better = sum(counts[item] > counts[target] for item in rivals)
            equal = sum(counts[item] == counts[target] for item in rivals)
            hits += better + (equal if ties_count else 0) < 10
        return hits / len(sequences)

    lowest, highest = (recall(ties, lambda sequence: ()) for ties in (True, False))
    assert lowest <= result["test_result"]["recall@10"] <= highest
    # The same count with the history hidden lies elsewhere, so a masked ranking would be noticed.
    assert recall(True, lambda sequence: sequence[:-1]) > highest


def test_trainers_of_all_kinds_are_made_safe_once():
    for trainer in (Trainer, KGTrainer, S3RecTrainer):
        made = safe_trainer(trainer)
        assert issubclass(made, trainer)
        assert made.__mro__[1:3] == (EpochLines, SafeTrainerMixin)
        assert safe_trainer(trainer) is made and safe_trainer(made) is made


@pytest.mark.parametrize("parts", rest_slow(1, 2))
def test_the_line_of_an_epoch_has_the_mean_loss_of_its_batches(
    parts, arguments, caplog, monkeypatch
):
    trainer, train, _, _ = build(arguments("SASRec", train_batch_size=32))
    losses, calculate = [], trainer.model.calculate_loss

    def watched(interaction):
        loss = calculate(interaction)
        losses.append(float(loss.detach()))
        return (loss / parts,) * parts if parts > 1 else loss

    monkeypatch.setattr(trainer.model, "calculate_loss", watched)
    with caplog.at_level("INFO"):
        trainer.fit(train)
    assert len(losses) == len(train) > 2
    (line,) = [text for text in caplog.messages if text.startswith("Epoch 0: loss")]
    assert float(line.split()[3].strip(",")) == pytest.approx(sum(losses) / len(losses), abs=1e-4)
    assert trainer.train_loss_dict[0] == pytest.approx(sum(losses))  # RecBole's own


def test_checkpoint_of_another_model_or_shape_is_refused(arguments):
    checkpoint = run_recbole_gr(cmd_args=arguments("BPR"))["checkpoint"]
    other, _, _, test = build(arguments("LightGCN"))
    with pytest.raises(ConfigError, match="checkpoint of model 'BPR'"):
        other.evaluate(test, model_file=checkpoint)
    wider, _, _, test = build(arguments("BPR", embedding_size=8))
    with pytest.raises(ConfigError, match="do not fit"):
        wider.evaluate(test, model_file=checkpoint)


def test_learning_changes_what_is_measured(arguments):
    """Guards the tests above against a trainer that evaluates without training."""
    settings = {"epochs": 10, "eval_step": 10, "learning_rate": 0.01, "train_batch_size": 128}
    trained = run_recbole_gr(cmd_args=arguments("GRU4Rec", **settings))
    popular = run_recbole_gr(cmd_args=arguments("Pop"))
    assert trained["test_result"]["ndcg@10"] > 1.5 * popular["test_result"]["ndcg@10"]
    assert np.isfinite(trained["best_valid_score"]) and trained["epochs_run"] == 10
