"""No checkpoint and no manifest has code run that the caller did not name himself."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_gr import Recommender, load_data_and_model, registry
from recbole_gr.commands import verify
from recbole_gr.compat import without_pickles
from recbole_gr.config.defaults import default_settings
from recbole_gr.config.names import check_names
from recbole_gr.errors import ConfigError
from recbole_gr.serving import export, recommend
from recbole_gr.storage.checkpoint import load_checkpoint
from recbole_gr.untrusted.shapes import is_plain_name

RESULT = {"period": 0, "model": "TIGER", "method": "start", "test_result": {"recall@5": 0.1}}
RESULT |= {"best_valid_result": {"recall@5": 0.1}, "churn": None}


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """A module `evil` that can be imported; says whether it was."""
    (tmp_path / "evil.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('executed').touch()\nclass X: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield (tmp_path / "executed").exists
    sys.modules.pop("evil", None)


@pytest.fixture
def checkpoint(trained, tmp_path):
    """A function from settings to a checkpoint of TIGER that has them in the place of its own."""
    state = load_checkpoint(trained("TIGER")["checkpoint"])

    def write(**settings):
        torch.save({**state, "config": {**state["config"], **settings}}, tmp_path / "file.pth")
        return str(tmp_path / "file.pth")

    return write


@pytest.fixture
def manifest(trained, tmp_path):
    """Likewise a manifest; with `models` that of a continual run."""

    def write(models=None, **settings):
        record = json.loads(Path(trained("TIGER")["files"]["manifest"]).read_text())
        if models is None:
            record["runs"][0]["config"].update(settings)
        else:
            part = {"models": models, "dataset": "tiny", "settings": settings, "data": {}}
            record.update(runs=[], continual={**part, "results": [RESULT]})
        (tmp_path / "file.json").write_text(json.dumps(record))
        return str(tmp_path / "file.json")

    return write


HIDDEN = r"'evil\x3aX'"  # a text that is read as 'evil:X' where settings are
NAMED = [
    *({key: "evil:X"} for key in ("model", "tokenizer", "backbone")),
    *({key: HIDDEN} for key in ("tokenizer", "backbone")),
    {"backbone": ["evil:X"]},
]


@pytest.mark.parametrize("settings", NAMED, ids=str)
def test_a_checkpoint_that_names_a_class_is_refused_and_it_is_not_imported(
    settings, checkpoint, executed, capsys
):
    (key,), file = settings, checkpoint(**settings)
    with pytest.raises(ConfigError, match=rf"file\.pth.*{key}.*yourself"):
        load_data_and_model(file)
    assert recommend.main([f"--checkpoint={file}", "--user=u1"]) == 2
    assert export.main([f"--checkpoint={file}", "--output=a.pt2"]) == 2
    assert capsys.readouterr().err.count("does not say what code to import") == 2
    assert not executed()


@pytest.mark.parametrize("settings", NAMED, ids=str)
def test_a_manifest_that_names_a_class_is_refused_and_it_is_not_imported(
    settings, manifest, executed, capsys
):
    assert verify.main([manifest(**settings)]) == 2
    assert "does not say what code to import" in capsys.readouterr().err and not executed()


@pytest.mark.parametrize(
    "models, settings",
    [
        (["evil:X"], {}),
        (["DACT", "evil:X"], {}),
        (["DACT"], {"tokenizer": "evil:X"}),
        (["DACT"], {"backbone": "evil:X"}),
        (["DACT"], {"continual_model": "evil:X"}),
        (["DACT"], {"continual_model": HIDDEN}),
        (["DACT"], {"per_model": {"TIGER": {"backbone": "evil:X"}}}),
        (["DACT"], {"per_model": "{'TIGER': {'backbone': 'evil:X'}}"}),
        (["DACT"], {"config_files": "own.yaml"}),
    ],
    ids=str,
)
def test_a_manifest_of_periods_that_names_a_class_is_refused_likewise(
    models, settings, manifest, executed, capsys
):
    Path("own.yaml").write_text("tokenizer: evil:X\n")
    assert verify.main([manifest(models, **settings)]) == 2
    assert "a file does not say" in capsys.readouterr().err.lower() and not executed()


def test_a_class_that_the_model_of_a_checkpoint_does_not_read_is_no_obstacle(checkpoint, executed):
    file = checkpoint(continual_model="evil:X")  # TIGER in a period of a continual run
    assert load_data_and_model(file, show_progress=False)[0]["model"] == "TIGER"
    assert not executed()


def test_what_the_caller_names_himself_is_imported(checkpoint, executed):
    with pytest.raises(ConfigError, match="is of model 'TIGER', not 'X'"):
        load_data_and_model(checkpoint(), model="evil:X")
    assert executed()


def test_a_run_of_a_class_of_ones_own_is_verified_with_the_class(manifest, executed, monkeypatch):
    seen = []
    monkeypatch.setattr("recbole_gr.commands.verify._check_data", lambda *_: None)
    monkeypatch.setattr(
        "recbole_gr.serving.restore.restored_config",
        lambda run, file, own, *_, **__: seen.append(own),
    )
    monkeypatch.setattr("recbole_gr.run.model.run_model", lambda *_, **__: 1 / 0)
    with pytest.raises(ConfigError, match=r"file\.json.*ZeroDivisionError"):
        verify.verify(manifest(model="X"), model="evil:X")
    assert executed() and seen[0].__name__ == "X"


@pytest.mark.parametrize("value", ["__import__('evil')", "exec", 3, ["CrossNet"]])
def test_settings_that_recbole_evaluates_are_names(value, executed):
    with pytest.raises(ConfigError, match="a.pth.*teacher"):
        check_names({"model": "KD_DAGFM", "teacher": value}, "a.pth")
    check_names({"model": "KD_DAGFM", "teacher": "CrossNet"}, "a.pth")
    assert not executed()


def test_an_encoder_of_texts_that_a_file_names_is_not_loaded(trained, manifest, capsys):
    assert verify.main([manifest(item_content="sentence", text_encoder="./folder")]) == 2
    assert "text_encoder './folder'" in capsys.readouterr().err
    assert verify.main([manifest(["DACT"], text_encoder="./folder")]) == 2
    assert "text_encoder './folder'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "a\\b", "..", "", "a\0", "a\nb", 3, None])
def test_a_data_set_of_a_file_is_a_name_and_no_path(name, checkpoint, manifest, capsys):
    assert not is_plain_name(name)
    if name is not None:
        with pytest.raises(ConfigError, match=r"file\.pth.*dataset"):
            load_data_and_model(checkpoint(dataset=name))
        assert verify.main([manifest(dataset=name)]) == 2
        assert "dataset" in capsys.readouterr().err


def test_settings_come_from_the_property_folders_alone(tmp_path):
    (tmp_path / "own.yaml").write_text("backbone: evil:X\n")
    model = registry.get_model("TIGER")
    defaults = default_settings(model, str(tmp_path / "own"))[0]
    assert defaults["backbone"] == default_settings(model, "tiny")[0]["backbone"]


def test_recboles_models_load_no_pickles_from_beside_the_data(tmp_path, executed):
    class Evil:
        def __reduce__(self):
            return __import__, ("evil",)

    np.save(tmp_path / "item_emb.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    (tmp_path / "state.pth").write_bytes(pickle.dumps(Evil()))
    for name, library, file in (
        ("LDiffRec", "np", "item_emb.npy"),
        ("ConvNCF", "torch", "state.pth"),
    ):
        module = sys.modules[registry.get_model(name).__module__]
        with pytest.raises((ValueError, pickle.UnpicklingError)):
            getattr(module, library).load(tmp_path / file)
    assert not executed()
    assert without_pickles(registry.get_model("SASRec")).__name__ == "SASRec"


@pytest.mark.parametrize(
    "name",
    [":X", "evil:", ".evil:X", "evil..a:X", "evil:X:Y", "evil:pathlib", "../evil:X", "a\0:X"],
)
def test_a_class_of_ones_own_is_a_name_of_a_class(name, executed):
    for get in (registry.get_model, registry.get_tokenizer, registry.get_backbone):
        with pytest.raises(ConfigError, match=r"package\.module:Class|has no class"):
            get(name)


@pytest.mark.parametrize("name", ["TIGER\0", "tiger/../TIGER", "Ｔ", "", " TIGER", "__class__"])
def test_odd_names_of_models_are_unknown_ones(name, checkpoint):
    assert not registry.is_named("model", name)
    with pytest.raises(ConfigError, match="Unknown model"):
        registry.get_model(name)
    with pytest.raises(ConfigError, match=r"file\.pth.*of model"):
        load_data_and_model(checkpoint(model=name))


def test_texts_of_new_items_load_no_encoder_that_a_checkpoint_alone_names(trained, monkeypatch):
    loaded = []

    def vectors(texts, encoder, device):
        loaded.append(encoder)
        return np.ones((len(texts), 8), dtype=np.float32)

    monkeypatch.setattr("recbole_gr.data.tfidf.sentence_vectors", vectors)
    result = trained("PIT")
    state = load_checkpoint(result["checkpoint"])
    state["content"] = {
        "source": "sentence", "columns": {"title": "token_seq"}, "separator": " ",
        "text_encoder": "somebody/encoder-with-code",
    }  # fmt: skip
    monkeypatch.setattr("recbole_gr.serving.restore.load_checkpoint", lambda *_, **__: state)
    own = Recommender.load(result["checkpoint"], show_progress=False)
    with pytest.raises(ConfigError, match="text_encoder 'somebody/encoder-with-code'.*yourself"):
        own.add_items({"new": "winter garden"})
    assert not loaded
    trusting = Recommender.load(
        result["checkpoint"], show_progress=False, text_encoder="mine/encoder"
    )
    trusting.add_items({"new": "winter garden"})
    assert loaded == ["mine/encoder"]
