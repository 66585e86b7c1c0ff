"""Collaborative item vectors that are trained here: data seen, warm start, cache, random states."""

import logging
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import write_tiny_dataset

from recbole_gr.commands.tokenize import tokenize
from recbole_gr.config import Config
from recbole_gr.continual import vectors
from recbole_gr.data import create_dataset, data_preparation
from recbole_gr.data.vector_files import collaborative_file
from recbole_gr.errors import ConfigError
from recbole_gr.pipeline.item_vectors import (
    ITEMS,
    ItemVectors,
    cached_item_vectors,
    grown,
    load_item_vectors,
    save_item_vectors,
    train_item_vectors,
)
from recbole_gr.pipeline.signals import tokenizer_signals
from recbole_gr.storage.checkpoint import load_checkpoint, save_checkpoint

SETTINGS = {
    "tokenizer": "DACT", "rqvae_dim": 8, "rqvae_hidden": [16], "codebook_size": 6,
    "cf_epochs": 2, "tokenizer_epochs": 2, "tokenizer_warmup_epochs": 1, "content_dim": 8,
    "MAX_ITEM_LIST_LENGTH": 10, "topk": [5, 10], "show_progress": False, "sid_gate": "off",
}  # fmt: skip
PERIODS = {"continual_cuts": [0.4, 0.7, 1.0]}


@pytest.fixture
def make(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(model="TIGER", **options):
        settings = {**SETTINGS, "data_path": str(tiny_folder), **options}
        return Config(model, "tiny", config_dict=settings)

    return make


def test_vectors_are_the_item_embedding_fixed_by_the_seed_and_in_the_order_of_the_ids(make):
    config = make()
    first, again = train_item_vectors(config), train_item_vectors(config)
    n_items = create_dataset(config).item_num - 1
    assert first.vectors.shape == (n_items, 8) and first.vectors.device.type == "cpu"
    assert torch.equal(first.vectors, first.state[ITEMS][1:])
    assert torch.equal(first.vectors, again.vectors)
    assert not torch.equal(first.vectors, train_item_vectors(make(seed=1)).vectors)
    assert first.figures["epochs"] == 2 and first.figures["best_valid_score"] >= 0
    # The items of any model: another's options do not reach the training.
    other = train_item_vectors(make(hidden_size=4, n_layers=1, learning_rate=0.5))
    assert torch.equal(first.vectors, other.vectors)


@pytest.mark.slow
def test_neighbours_in_sequences_become_neighbours_of_vectors(make):
    config = make(cf_epochs=60, cf_learning_rate=0.01)
    vectors = torch.nn.functional.normalize(train_item_vectors(config).vectors, dim=1)
    tokens = create_dataset(config).field2id_token["item_id"][1:]
    number = torch.tensor([int(token[1:]) for token in tokens])
    apart = (number.unsqueeze(1) - number).abs()
    apart = torch.minimum(apart, 40 - apart)  # users walk around the catalogue
    cosines = vectors @ vectors.T
    near = cosines[(apart >= 1) & (apart <= 3)].mean()
    assert near > cosines[apart >= 12].mean() + 0.1


def test_only_the_training_targets_of_the_period_are_learned_from(make):
    config = make(continual_period=1, **PERIODS)
    n_train = len(data_preparation(config, create_dataset(config))[0]._dataset)
    assert train_item_vectors(config).figures["n_training_targets"] == n_train
    whole = make(continual_period=1, continual_train="all", **PERIODS)
    assert train_item_vectors(whole).figures["n_training_targets"] > n_train


def test_a_later_period_goes_on_from_the_one_before(make, tmp_path):
    periods = {**PERIODS, "data_path": str(write_tiny_dataset(tmp_path, n_items=200))}
    first = train_item_vectors(make(continual_period=0, **periods))
    later = make(continual_period=1, cf_continual_learning_rate=1e-9, **periods)
    second = train_item_vectors(later, first.state)
    n_old = len(first.vectors)
    assert len(second.vectors) > n_old
    # At a rate of nearly nothing the old vectors stay, and the new ones start from zero.
    assert torch.allclose(second.vectors[:n_old], first.vectors, atol=1e-6)
    assert second.vectors[n_old:].abs().max() < 1e-6
    moved = train_item_vectors(make(continual_period=1, **periods), first.state)
    assert not torch.equal(moved.vectors[:n_old], first.vectors)
    cold = train_item_vectors(make(continual_period=1, **periods))
    distance = (moved.vectors[:n_old] - first.vectors).norm()
    assert distance < (cold.vectors[:n_old] - first.vectors).norm()


def test_without_validation_targets_the_last_epoch_counts(make):
    config = make(eval_args={"split": {"RS": [0.9, 0.0, 0.1]}})
    figures = train_item_vectors(config).figures
    assert figures["best_valid_score"] is None and figures["best_epoch"] == 1


def test_new_items_have_rows_of_zeros():
    previous = {ITEMS: torch.ones(4, 2), "bias": torch.ones(3)}
    fresh = {ITEMS: torch.randn(6, 2), "bias": torch.randn(3)}
    result = grown(previous, fresh)
    assert result[ITEMS].tolist() == [[1, 1]] * 4 + [[0, 0]] * 2
    assert torch.equal(result["bias"], previous["bias"]) and len(previous[ITEMS]) == 4


@pytest.mark.parametrize(
    "previous, complaint",
    [
        ({ITEMS: torch.ones(9, 2), "bias": torch.ones(3)}, "continual_period must ascend"),
        ({ITEMS: torch.ones(4, 3), "bias": torch.ones(3)}, "keep cf_size"),
        ({ITEMS: torch.ones(4, 2), "bias": torch.ones(2)}, "keep cf_size"),
        ({ITEMS: torch.ones(4, 2)}, "bias is not in both"),
    ],
)
def test_weights_of_other_sizes_are_refused(previous, complaint):
    with pytest.raises(ConfigError, match=complaint):
        grown(previous, {ITEMS: torch.ones(6, 2), "bias": torch.ones(3)})


def test_random_states_and_logging_stay_as_they_were(make, tmp_path):
    config = make()
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(11)
    expected = random.random(), np.random.rand(), float(torch.rand(1))
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(11)
    train_item_vectors(config)
    assert (random.random(), np.random.rand(), float(torch.rand(1))) == expected
    assert (root.level, list(root.handlers)) == before
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize("name", ["DACT", "LETTER"])
def test_a_tokenizer_without_a_file_trains_its_vectors_once(make, name, caplog):
    config = make(tokenizer=name)
    train = create_dataset(config).build()[0]
    with caplog.at_level(logging.INFO):
        first = tokenizer_signals(config, train)()["cf_vectors"]
        assert "SASRec learns" in caplog.text and "kept in" in caplog.text
        caplog.clear()
        again = tokenizer_signals(config, train)()["cf_vectors"]
        assert "SASRec learns" not in caplog.text and "vectors from" in caplog.text
    assert torch.equal(first, again)
    assert torch.equal(first, train_item_vectors(config).vectors)


@pytest.mark.slow
def test_other_data_settings_or_starting_weights_are_trained_for_anew(make, tmp_path):
    def count():
        return len(list(tmp_path.rglob("tiny-itemcf-*.pth")))

    first = cached_item_vectors(make(continual_period=0, **PERIODS))
    for options in ({"seed": 1}, {"cf_epochs": 1}, {"cf_size": 4}, {"MAX_ITEM_LIST_LENGTH": 5}):
        cached_item_vectors(make(continual_period=0, **PERIODS, **options))
    cached_item_vectors(make(continual_period=1, **PERIODS))
    cached_item_vectors(make(continual_period=1, **PERIODS), first.state)
    assert count() == 7
    cached_item_vectors(make(continual_period=0, **PERIODS), item_tokens=None)
    assert count() == 7


def test_a_damaged_cache_is_made_anew(make, tmp_path):
    config = make()
    first = cached_item_vectors(config)
    (path,) = tmp_path.rglob("tiny-itemcf-*.pth")
    path.write_bytes(b"nothing")
    assert torch.equal(cached_item_vectors(config).vectors, first.vectors)
    assert torch.equal(load_item_vectors(path).vectors, first.vectors)


def test_vectors_that_were_changed_in_the_cache_are_made_anew(make, tmp_path, caplog):
    first = cached_item_vectors(make())
    (path,) = tmp_path.rglob("tiny-itemcf-*.pth")
    state = load_checkpoint(path)
    state["item_vectors"]["vectors"] = first.vectors.flip(0)
    save_checkpoint(path, state)
    with pytest.raises(ConfigError, match="was changed"):
        load_item_vectors(path)
    assert torch.equal(cached_item_vectors(make()).vectors, first.vectors)
    assert "it is made again" in caplog.text


def test_vectors_are_saved_without_pickled_objects(make, tmp_path):
    result = train_item_vectors(make())
    save_item_vectors(tmp_path / "v.pth", result)
    loaded = load_item_vectors(tmp_path / "v.pth")
    assert torch.equal(loaded.vectors, result.vectors) and loaded.figures == result.figures
    assert set(loaded.state) == set(result.state)
    torch.load(tmp_path / "v.pth", weights_only=True)
    torch.save({"x": 1}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match="w.pth"):
        load_item_vectors(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"cf_size": 0.5}, "cf_size: .* must be an integer of at least 1"),
        ({"cf_size": 7}, "cf_size: 7 must be a multiple"),
        ({"cf_epochs": 0}, "cf_epochs: .* must be an integer of at least 1"),
        ({"cf_learning_rate": -1}, "cf_learning_rate: .* must be a number above 0"),
    ],
)
def test_options_out_of_range_are_refused(make, options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        train_item_vectors(make(**options))


def test_items_of_another_order_are_refused(make):
    with pytest.raises(ConfigError, match="give collaborative vectors as cf_file"):
        cached_item_vectors(make(), item_tokens=["[PAD]", "i1"])


def test_a_file_comes_first_and_one_that_is_missing_is_an_error(make, tmp_path):
    config = make(cf_file="absent.npy")
    train = create_dataset(config).build()[0]
    with pytest.raises(ConfigError, match="cf_file: absent.npy does not exist.*leave it out"):
        tokenizer_signals(config, train)()
    np.save(tmp_path / "cf.npy", np.ones((40, 8), dtype=np.float32))
    signals = tokenizer_signals(make(cf_file="cf.npy"), train)()
    assert signals["cf_vectors"].eq(1).all() and not list(tmp_path.rglob("*-itemcf-*"))


def test_the_command_tokenizes_any_data_set(make, tiny_folder, tmp_path):
    for name in ("LETTER", "DACT"):
        settings = {**SETTINGS, "tokenizer": name, "data_path": str(tiny_folder)}
        tokenize("tiny", f"out-{name}", config_dict=settings)
        assert (tmp_path / f"out-{name}" / "sid.json").is_file()
    assert len(list(tmp_path.rglob("tiny-itemcf-*.pth"))) == 1


def test_in_a_period_the_file_of_the_whole_log_is_not_taken_by_itself(make, tmp_path):
    folder = write_tiny_dataset(tmp_path / "data")
    np.save(folder / "tiny" / "tiny.itemcf.npy", np.ones((40, 8), dtype=np.float32))
    assert collaborative_file(make(data_path=str(folder))).endswith("tiny.itemcf.npy")
    period = {"data_path": str(folder), "continual_period": 0, **PERIODS}
    assert collaborative_file(make(**period)) is None
    assert collaborative_file(make(cf_file="mine.npy", **period)) == "mine.npy"


def test_vectors_of_a_period_that_were_changed_are_made_anew(tmp_path, monkeypatch, caplog):
    fresh = ItemVectors(torch.ones(3, 2), {"w": torch.ones(1)}, {})
    monkeypatch.setattr(vectors, "train_item_vectors", lambda *_: fresh)
    content = SimpleNamespace(item_tokens=["[PAD]", "a", "b", "c"])
    items = SimpleNamespace(folder=tmp_path, config={"cf_file": None}, train=None, content=content)
    save_checkpoint(
        tmp_path / "cf.pth",
        {"item_vectors": fresh._replace(vectors=torch.zeros(3, 2))._asdict(), "hash": "another"},
    )
    assert torch.equal(vectors.CollaborativeVectors().advance(items), fresh.vectors)
    assert "it is made again" in caplog.text
    assert torch.equal(load_item_vectors(tmp_path / "cf.pth").vectors, fresh.vectors)
