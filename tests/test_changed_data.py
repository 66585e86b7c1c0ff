"""What is kept of a run belongs to the data that it was made of, and is never given for others."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from runs import SMALL, arguments, rest_slow
from tiny import write_tiny_dataset

from recbole_gr.config import Config
from recbole_gr.config.user_settings import UserSettings
from recbole_gr.continual import tokens
from recbole_gr.continual.runner import ContinualRun
from recbole_gr.continual.store import Store
from recbole_gr.continual.tokens import TokenizerChain
from recbole_gr.data import content
from recbole_gr.data.content import ItemContent
from recbole_gr.errors import ConfigError
from recbole_gr.quick_start import run_recbole_gr
from recbole_gr.search.runner import search
from recbole_gr.sid.table import SIDTable
from recbole_gr.storage.hashes import sha256
from recbole_gr.storage.manifest import data_hashes
from run_recbole_gr import main


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_tiny_dataset(tmp_path / "data", n_users=30, n_items=20)
    np.save(tmp_path / "cf.npy", np.ones((20, 4), dtype=np.float32))
    return folder


@pytest.fixture
def store(data, tmp_path):
    """A function that opens the folder of a continual run, as the run does before it trains."""

    def store(**settings):
        given = {"data_path": str(data), "continual_dir": str(tmp_path / "kept"), **settings}
        return Store(Config("DACT", "tiny", config_dict=given, other_models=["TIGER"]))

    return store


def train(store):
    (store.period(0) / "TIGER-start.json").write_text("{}")
    return store


def append(path, text="u1\ti2\t3\t99999\n"):
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


def shuffle(path):
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *reversed(rows)]) + "\n")


CHANGES = {
    "appended interactions": (lambda d: append(d / "tiny/tiny.inter"), "tiny.inter'"),
    "shuffled interactions": (lambda d: shuffle(d / "tiny/tiny.inter"), "tiny.inter'"),
    "other titles": (lambda d: append(d / "tiny/tiny.item", "i99\tnew\tdrama\n"), "tiny.item'"),
    "vectors beside the data": (
        lambda d: np.save(d / "tiny/tiny.itememb.npy", np.ones((20, 4))), "tiny.itememb.npy' is th",
    ),
    "vectors of content_file": (lambda d: np.save("cf.npy", np.zeros((20, 4))), "content_file"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_continual_run_refuses_what_was_kept_of_other_data_and_keeps_it(name, data, store):
    change, named = CHANGES[name]
    given = {"content_file": "cf.npy"} if "content_file" in named else {}
    kept = train(store(**given))
    before = (kept.root / "config.json").read_bytes()
    assert store(**given).root == kept.root
    change(data)
    with pytest.raises(ConfigError, match="continual_dir: .*another --continual_dir") as error:
        store(**given)
    assert named in str(error.value) and "sha256" in str(error.value)
    assert (kept.root / "config.json").read_bytes() == before
    assert (kept.root / "period-0/TIGER-start.json").is_file()
    assert store(**given, continual_dir="elsewhere").root.parent.name == "elsewhere"


@pytest.mark.parametrize("key", ["cf_file", "content_file", "continual_cf_files"])
def test_files_that_moved_are_the_same_and_others_are_not(key, store, tmp_path):
    def value(path):
        return [str(path)] if key == "continual_cf_files" else str(path)

    kept = train(store(**{key: value(tmp_path / "cf.npy")}))
    shutil.move(tmp_path / "cf.npy", tmp_path / "moved.npy")
    assert store(**{key: value(tmp_path / "moved.npy")}).root == kept.root
    np.save(tmp_path / "moved.npy", np.zeros((20, 4)))
    with pytest.raises(ConfigError, match=f"{key}.*moved.npy' changed: its sha256 was"):
        store(**{key: value(tmp_path / "moved.npy")})


def test_a_data_set_that_moved_is_the_same(data, store, tmp_path):
    kept = train(store())
    shutil.move(data, tmp_path / "moved")
    assert store(data_path=str(tmp_path / "moved")).root == kept.root


def test_files_of_further_periods_may_come(store, tmp_path):
    np.save(tmp_path / "cf1.npy", np.zeros((20, 4)))
    one, two = str(tmp_path / "cf.npy"), str(tmp_path / "cf1.npy")
    kept = train(store(continual_cf_files=[one]))
    assert store(continual_cf_files=[one, two]).root == kept.root
    assert store(continual_cf_files=[one]).root == kept.root
    with pytest.raises(ConfigError, match=r"continual_cf_files\[1\]"):
        store(continual_cf_files=[one, one])


def test_data_may_change_as_long_as_nothing_was_made_of_them(data, store):
    store()
    append(data / "tiny/tiny.inter")
    kept = train(store())
    assert store().root == kept.root
    assert "tiny.inter" in json.loads((kept.root / "config.json").read_text())["files"]


def test_what_the_first_versions_kept_without_hashes_is_refused(store):
    kept = train(store())
    about = json.loads((kept.root / "config.json").read_text())
    del about["files"]
    (kept.root / "config.json").write_text(json.dumps(about))
    older = kept.root.with_name("tiny-v1-0123456789ab")
    kept.root.rename(older)
    with pytest.raises(ConfigError, match="tiny-v1-0123456789ab' was kept by an earlier version"):
        store()
    assert (older / "period-0/TIGER-start.json").is_file()
    assert store(hidden_size=8).root != kept.root  # nothing of these settings was kept


def test_a_period_is_known_by_the_sids_of_all_periods_so_far(monkeypatch):
    """A recommender goes on from the period before: other SIDs there are another model here."""

    def table(seed):
        codes = torch.randperm(16, generator=torch.Generator().manual_seed(seed))
        return SIDTable.from_item_codes(torch.stack([codes // 4, codes % 4], 1), (4, 4))

    def names(*seeds):
        chain = TokenizerChain("files", {}, ["table.json"] * len(seeds))
        made = iter([table(seed) for seed in seeds])
        monkeypatch.setattr(chain, "_from_file", lambda items, path: (next(made), {}))
        for period in range(len(seeds)):
            chain.advance(SimpleNamespace(content=ItemContent(None, "", "", []), train=None,
                                          config=None, period=period), None)  # fmt: skip
        return chain.names

    monkeypatch.setattr(tokens.ItemSIDs, "judged", lambda *_: None)
    first, second = names(0, 1)
    assert names(0, 1) == [first, second] and names(0, 2)[0] == first
    assert len({second, names(0, 2)[1], names(3, 1)[1]}) == 3


def test_a_continual_run_stops_before_it_trains(data, monkeypatch, tmp_path):
    settings = {
        **SMALL, "data_path": str(data), "continual_dir": str(tmp_path / "kept"),
        "continual_cuts": [0.6, 1.0],
    }  # fmt: skip
    run = ContinualRun(["DACT"], "tiny", UserSettings.read(config_dict=settings))
    train(Store(run.config))
    append(data / "tiny/tiny.inter")
    monkeypatch.setattr("recbole_gr.continual.runner.content_of_all", lambda *_: pytest.fail())
    with pytest.raises(ConfigError, match="tiny.inter' changed"):
        ContinualRun(["DACT"], "tiny", UserSettings.read(config_dict=settings)).run()


def test_the_hashes_of_a_run_name_the_files_of_its_periods(data):
    files = {"continual_cf_files": ["cf.npy"], "continual_sid_files": ["sid.json", "cf.npy"]}
    config = {"data_path": str(data / "tiny"), "dataset": "tiny", **files}
    hashes = data_hashes(config)
    assert hashes["continual_sid_files[0]"] is None  # there is no such file
    assert hashes["continual_sid_files[1]"] == hashes["continual_cf_files[0]"] == sha256("cf.npy")


@pytest.mark.parametrize("model", rest_slow("TIGER", "SASRec"))
def test_a_training_goes_on_with_the_data_it_began_with_alone(model, data, capsys, tmp_path):
    folders = {"checkpoint_dir": tmp_path / "saved", "result_dir": tmp_path / "results"}
    sizes = {"codebook_size": 4} if model == "TIGER" else {}  # for 20 items
    given = arguments(model, data, **sizes, **folders)
    checkpoint = run_recbole_gr(cmd_args=given)["checkpoint"]
    again = [*(a for a in given if "epochs" not in a), "--epochs=2", f"--resume={checkpoint}"]
    before = Path(checkpoint).read_bytes()
    file = data / "tiny" / "tiny.inter"
    interactions = file.read_bytes()
    append(file)  # of a user and an item that there are
    assert main(again) == 2
    message = capsys.readouterr().err
    assert "resume: " in message and "tiny.inter' changed: its sha256 was" in message
    assert Path(checkpoint).read_bytes() == before
    file.write_bytes(interactions)
    shutil.move(data, tmp_path / "moved")
    assert main([*(a for a in again if "data_path" not in a), f"--data_path={tmp_path}/moved"]) == 0


# The search


@pytest.fixture
def find(data, tmp_path):
    def find(ran, text="hidden_size choice [16,32]", **settings):
        def stub(job):
            ran.append(job.number)
            return {"valid_score": 1.0, "valid_result": {}, "test_result": {}, "checkpoint": None}

        Path("space.test").write_text(text)
        settings = {"data_path": str(data), **settings}
        return search("space.test", "TIGER", "tiny", config_dict=settings, tool="optuna",
                      output_file="found.jsonl", objective=stub)  # fmt: skip

    return find


def test_a_search_refuses_trials_of_other_data_and_knows_files_that_moved(find, data, tmp_path):
    ran = []
    find(ran, content_file="cf.npy")
    shutil.move(data, tmp_path / "moved")
    shutil.move("cf.npy", "vectors.npy")
    moved = {"data_path": str(tmp_path / "moved"), "content_file": "vectors.npy"}
    find(ran, **moved)
    assert ran == [0, 1]
    np.save("vectors.npy", np.zeros((20, 4)))
    with pytest.raises(ConfigError, match="data.content_file was .* and is"):
        find(ran, **moved)
    assert ran == [0, 1]


def test_a_search_over_files_refuses_trials_of_other_files(find):
    np.save("other.npy", np.ones((20, 3)))
    text, ran = "content_file choice ['cf.npy','other.npy']", []
    find(ran, text)
    find(ran, text)
    np.save("other.npy", np.zeros((20, 3)))
    with pytest.raises(ConfigError, match="data.content_file other.npy was"):
        find(ran, text)
    assert ran == [0, 1]


def test_a_search_of_an_earlier_version_is_refused_and_stays(find):
    text = '{"format_version": 1, "model": "TIGER"}\n{"stage": "trial", "number": 0}\n'
    Path("found.jsonl").write_text(text)
    ran = []
    with pytest.raises(ConfigError, match="found.jsonl .* an earlier version; give another"):
        find(ran)
    assert ran == [] and Path("found.jsonl").read_text() == text


def test_sentence_vectors_are_made_anew_where_the_encoder_in_a_folder_changed(
    data, monkeypatch, tmp_path
):
    encoder, made = tmp_path / "encoder", []
    encoder.mkdir()
    (encoder / "weights").write_text("1")

    def vectors(texts, *_):
        made.append(1)
        return np.full((len(texts), 2), len(made), dtype=np.float32)

    monkeypatch.setattr(content.text, "sentence_vectors", vectors)
    config = Config("TIGER", "tiny", config_dict={
        "data_path": str(data), "text_encoder": str(encoder), "content_cache_dir": str(tmp_path),
    })  # fmt: skip
    tokens = ["[PAD]", *(f"i{n}" for n in range(20))]
    first = content._sentence(config, None, tokens)[1]
    assert content._sentence(config, None, tokens)[1] == first and len(made) == 1
    (encoder / "weights").write_text("2")
    assert content._sentence(config, None, tokens)[1] != first and len(made) == 2
