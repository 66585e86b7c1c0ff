"""What cannot be used is refused before anything is trained, in one message and without harm."""

import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from runs import arguments
from tiny import write_tiny_dataset

from recbole_gr.errors import ConfigError
from recbole_gr.quick_start import run_recbole_gr
from recbole_gr.sid.table import SIDTable
from run_recbole_gr import main

SIDS = {f"i{item}": [f"<a_{item % 7}>", f"<b_{item // 7}>"] for item in range(40)}


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory):
    """Path of a checkpoint of the small TIGER after one epoch; the tests do not change it."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = run_recbole_gr(cmd_args=arguments("TIGER", tiny_folder))
        return Path(result["checkpoint"]).resolve()


def copy_of_the_data(tiny_folder, tmp_path, **edits):
    """A copy of the data set in `tmp_path`, one string of each named file replaced."""
    shutil.copytree(tiny_folder / "tiny", tmp_path / "tiny")
    for suffix, (old, new) in edits.items():
        path = tmp_path / "tiny" / f"tiny.{suffix}"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    return tmp_path


# Data


def test_no_interactions(refused, tiny_folder, tmp_path):
    folder = copy_of_the_data(tiny_folder, tmp_path)
    (folder / "tiny" / "tiny.inter").unlink()
    message = refused(folder=folder)
    assert "tiny.inter does not exist" in message and "data_path" in message
    assert "tiny.inter does not exist" in refused("Pop", folder=folder)


@pytest.mark.parametrize(
    "field, key", [("user_id", "USER_ID"), ("item_id", "ITEM_ID"), ("timestamp", "TIME")]
)
def test_missing_field(refused, tiny_folder, tmp_path, field, key):
    folder = copy_of_the_data(tiny_folder, tmp_path, inter=(f"{field}:", "other:"))
    message = refused(folder=folder)
    assert f"no column '{field}' ({key}_FIELD)" in message and "'other'" in message


def test_more_results_than_items(refused):
    message = refused(topk="[5,50]", beam_size=50, valid_metric="NDCG@5")
    assert "topk 50" in message and "40 items" in message


# SIDs


def write_json(path, sids):
    path.write_text(json.dumps(sids))
    return path


def test_sid_file_that_does_not_cover_the_items(refused, tmp_path):
    sids = {item: sid for item, sid in SIDS.items() if item not in ("i3", "i17", "i5")}
    message = refused(sid_file=write_json(tmp_path / "part.json", sids))
    first = re.search(r"part\.json does not cover 3 of 40 items, first '(i\d+)'", message)
    assert first and first[1] in ("i3", "i17", "i5")


def test_sid_file_that_is_not_there_or_no_json(refused, tmp_path):
    assert "none.json does not exist" in refused(sid_file="none.json")
    (tmp_path / "half.json").write_text('{"i1": ["<a_1>"')
    assert "half.json cannot be read as JSON" in refused(sid_file="half.json")
    assert ".json, .npy or .npz" in refused(sid_file=write_json(tmp_path / "sid.txt", SIDS))


def test_sids_of_different_lengths_or_with_other_tokens(refused, tmp_path):
    ragged = {**SIDS, "i4": ["<a_1>"]}
    assert "'i4'" in refused(sid_file=write_json(tmp_path / "ragged.json", ragged))
    words = {**SIDS, "i4": ["<a_1>", "two"]}
    assert "'two' at level 2" in refused(sid_file=write_json(tmp_path / "words.json", words))


def test_codes_outside_the_codebook(refused, tmp_path):
    negative = {**SIDS, "i4": ["<a_1>", "<b_-2>"]}
    message = refused(sid_file=write_json(tmp_path / "negative.json", negative))
    assert "negative.json: 1 items have SID codes outside their codebook" in message
    assert "code -2 at level 2" in message

    codes = torch.tensor([[n % 7, n // 7] for n in range(40)])
    tokens = ["[PAD]", *SIDS]
    SIDTable.from_item_codes(codes, (7, 6)).save(tmp_path / "table.npz", tokens)
    with np.load(tmp_path / "table.npz") as saved:
        arrays = {name: array for name, array in saved.items() if name != "hash"}
    np.savez(tmp_path / "small.npz", **{**arrays, "sizes": np.array([5, 6])})
    message = refused(sid_file="small.npz")
    assert "small.npz: " in message and "outside their codebook" in message and "size 5" in message


def test_sid_table_of_another_length(refused, tmp_path):
    np.save(tmp_path / "short.npy", np.arange(78).reshape(39, 2))
    message = refused(sid_file="short.npy")
    assert "short.npy has 39 rows for 40 items" in message
    np.save(tmp_path / "flat.npy", np.arange(40))
    assert "flat.npy must hold integers of shape [items, levels]" in refused(sid_file="flat.npy")


# Content


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_content_that_is_not_finite(refused, tmp_path, value):
    content = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    content[7, 2] = value
    np.save(tmp_path / "content.npy", content)
    message = refused(content_file="content.npy")
    assert "NaN or infinite values in 1 of" in message and "item 'i" in message
    assert "Mend its vector (content_file" in message


@pytest.mark.parametrize(
    "array, complaint",
    [
        (np.zeros((39, 6)), "has 39 rows, but .*tiny.item has 40 items"),
        (np.zeros(40), r"must hold a matrix \[items, d\]"),
        (np.zeros((40, 2, 3)), r"must hold a matrix \[items, d\]"),
        (np.zeros((40, 0)), r"must hold a matrix \[items, d\]"),
        (np.full((40, 6), "x"), "of numbers"),
        (np.full((40, 6), None), "no plain .npy array"),  # would have to be unpickled
    ],
)
def test_content_of_the_wrong_shape_or_kind(refused, tmp_path, array, complaint):
    np.save(tmp_path / "content.npy", array)
    message = refused(content_file="content.npy")
    assert "content.npy" in message and re.search(complaint, message)


def test_content_file_cut_short_or_absent(refused, tmp_path):
    np.save(tmp_path / "content.npy", np.zeros((40, 6)))
    data = (tmp_path / "content.npy").read_bytes()
    (tmp_path / "content.npy").write_bytes(data[: len(data) // 2])
    assert "content.npy" in refused(content_file="content.npy")
    assert "none.npy does not exist" in refused(content_file="none.npy")


def test_more_codes_than_items_are_refused_with_a_size_that_fits(tiny_folder, caplog, refused):
    message = refused(codebook_size=64)
    assert "level a has 40 codes for 40 items" in message and "codebook_size=8" in message
    with caplog.at_level(logging.WARNING):
        assert main(arguments("TIGER", tiny_folder, codebook_size=64, sid_gate="warn")) == 0
    assert "(64, 64, 64) codes for 40 items; reduced to (40, 40, 40)" in caplog.text


# Settings


def test_fewer_beams_than_results(refused):
    message = refused(beam_size=8)
    assert "beam_size 8" in message and "topk 10" in message and "Raise beam_size" in message
    assert "beam_size: 'wide' must be an integer" in refused(beam_size="wide")


@pytest.mark.parametrize(
    "settings, complaint",
    [
        ({"lr_scheduler": "linear"}, "lr_scheduler: 'linear' is not one of constant, cosine"),
        ({"amp_dtype": "int8"}, "amp_dtype: 'int8' is not one of bfloat16, float16"),
        ({"accumulation_steps": 0}, "accumulation_steps: 0 must be an integer of at least 1"),
        ({"warmup_steps": 0.5}, "warmup_steps: 0.5 must be an integer of at least 0"),
        ({"valid_users": -1}, "valid_users: -1 must be an integer of at least 0"),
        ({"window_overlap": 10}, "window_overlap=10 must be an integer from 1 to 9"),
        ({"train_sample": "whole"}, "train_sample: 'whole' is not one of auto, sequence, prefix"),
        ({"codebook_size": 0}, "codebook_size: 0 must be an integer of at least 1, or a list"),
        ({"collision": "merge"}, "merge"),
        ({"item_content": "txt"}, "did you mean 'text'"),
        ({"valid_metric": "MAP@10"}, "valid_metric 'MAP@10' is not measured"),
    ],
)
def test_values_that_make_no_sense(refused, settings, complaint):
    assert complaint in refused(**settings)


def test_unknown_names_on_the_command_line(refused):
    assert "Unknown model 'TIGRE'" in refused("TIGRE") and "TIGER" in refused("TIGRE")
    message = refused(tokenizer="RKMean")
    assert "Unknown tokenizer 'RKMean'" in message and "RKMeans" in message
    assert "'beam_sise' (command line), did you mean 'beam_size'" in refused(beam_sise=20)


@pytest.mark.parametrize(
    "settings, complaint",
    [
        ({"model": "TIGRE"}, "Unknown model 'TIGRE'.*TIGER"),
        ({"tokenizer": "RKMean"}, "Unknown tokenizer 'RKMean'.*RKMeans"),
        ({"beam_sise": 20}, r"Unknown key 'beam_sise' \(%s.*'beam_size'"),
    ],
)
def test_unknown_names_in_a_file_and_in_a_dictionary(tiny_folder, tmp_path, settings, complaint):
    given = {"model": "TIGER", "dataset": "tiny", "data_path": str(tiny_folder), **settings}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(given))
    source = "file '.*mine.yaml" if "%s" in complaint else None
    with pytest.raises(ConfigError, match=complaint % source if source else complaint):
        run_recbole_gr(config_file_list=[str(file)])
    source = "config_dict" if "%s" in complaint else None
    with pytest.raises(ConfigError, match=complaint % source if source else complaint):
        run_recbole_gr(config_dict=given)


def test_a_bad_file_of_the_last_model_stops_the_run_before_the_first_trains(refused, tmp_path):
    sids = write_json(tmp_path / "part.json", {"i1": ["<a_1>"], "i2": ["<a_2>"]})
    assert "part.json does not cover 38 of 40" in refused("Pop,TIGER", sid_file=sids)
    assert "part.json does not cover 38 of 40" in refused("TIGER,Pop", sid_file=sids)
    assert not list(tmp_path.glob("results/*"))


# Checkpoints


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.95])
def test_checkpoint_cut_short(refused, trained, tmp_path, keep):
    data = trained.read_bytes()
    half = tmp_path / "half.pth"
    half.write_bytes(data[: int(keep * len(data))])
    message = refused(resume=half, epochs=2)
    assert "half.pth' is not a complete checkpoint" in message
    assert half.read_bytes() == data[: int(keep * len(data))]


def test_checkpoint_of_another_model_or_data_set(refused, trained, tmp_path):
    before = trained.read_bytes()
    message = refused("SASRec", resume=trained)
    assert "checkpoint of model 'TIGER', this run's model is 'SASRec'" in message
    write_tiny_dataset(tmp_path, "other", 30, 30, 1)
    message = refused(folder=tmp_path, resume=trained, name="other")
    assert "checkpoint of dataset 'tiny', this run's dataset is 'other'" in message
    assert trained.read_bytes() == before


def test_checkpoint_of_other_sids_or_of_a_grown_catalogue(refused, trained, tmp_path):
    before = trained.read_bytes()
    message = refused(resume=trained, epochs=2, codebook_size=7)
    assert "other SIDs" in message and "--sid_file" in message
    write_tiny_dataset(tmp_path, "tiny", 60, 45, 0)
    assert "other SIDs" in refused(resume=trained, epochs=2, folder=tmp_path)
    message = refused(resume=trained, epochs=2, hidden_size=24)
    assert "do not fit this model" in message
    assert trained.read_bytes() == before


# The command line


def test_the_table_is_printed_whatever_is_logged(tiny_folder, capsys):
    assert main(arguments("Pop,BPR", tiny_folder, state="ERROR")) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [line.split()[1] for line in table[:1] + table[2:4]] == ["model", "Pop", "BPR"]


def test_a_model_that_fails_leaves_the_table_of_the_others(tiny_folder, capsys, monkeypatch):
    from recbole_gr import quick_start

    run_model = quick_start.run_model

    def failing(config, saved):
        if config["model"] == "BPR":
            raise MemoryError("too big")
        return run_model(config, saved=saved)

    monkeypatch.setattr(quick_start, "run_model", failing)
    assert main(arguments("BPR,Pop", tiny_folder)) == 1
    out, err = capsys.readouterr()
    assert "| Pop" in out and "error: Failed: BPR (too big)" in err
