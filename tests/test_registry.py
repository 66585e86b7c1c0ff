"""Claims about names of models and tokenizers."""

import sys

import pytest
import torch
from recbole.utils import ModelType

from recbole_gr import registry
from recbole_gr.config.defaults import default_settings
from recbole_gr.errors import ConfigError
from recbole_gr.tokenizer.base import Tokenizer


def test_every_recbole_model_is_listed_in_its_own_spelling():
    names = registry.recbole_models()
    assert {"SASRec", "BPR", "Pop", "Random", "DeepFM", "KGAT", "GRU4RecKG", "xDeepFM"} <= names
    assert len(names) > 80
    for name in ("Random", "GRU4RecCPR", "KD_DAGFM"):
        assert registry.get_model(name).__name__ == name


@pytest.mark.parametrize(
    "name, near", [("SASrec", "SASRec"), ("bpr", "BPR"), ("LightGNC", "LightGCN")]
)
def test_unknown_model_lists_ours_and_recboles_nearest_first(name, near):
    with pytest.raises(ConfigError) as error:
        registry.get_model(name)
    text = str(error.value)
    assert "TIGER" in text and f"RecBole's models: {near}," in text and "NeuMF" in text


def test_unknown_tokenizer_lists_those_that_exist():
    with pytest.raises(
        ConfigError,
        match="Unknown tokenizer 'foo'. "
        "Tokenizers: DACT, I2IRKMeans, LETTER, OPQ, PRQKMeans, R3VAE, RKMeans, RQVAE, RVQ.",
    ):
        registry.get_tokenizer("foo")


def test_class_outside_the_package_is_given_by_module_and_class():
    assert registry.get_model("collections:OrderedDict").__name__ == "OrderedDict"
    with pytest.raises(ConfigError, match="no module 'no_such_module'"):
        registry.get_model("no_such_module:X")
    with pytest.raises(ConfigError, match="no class 'X'"):
        registry.get_model("collections:X")


def test_missing_dependency_of_an_existing_module_is_not_called_an_unknown_model(
    tmp_path, monkeypatch
):
    (tmp_path / "needs_more.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        registry.get_model("needs_more:X")


def test_registered_names_are_found(monkeypatch):
    monkeypatch.setattr(registry, "MODELS", dict(registry.MODELS))
    monkeypatch.setattr(registry, "TOKENIZERS", dict(registry.TOKENIZERS))
    registry.register_model("Mine", "collections:Counter")
    own = type("Own", (Tokenizer,), {})
    registry.register_tokenizer("MyTokens", own)
    assert registry.get_model("Mine").__name__ == "Counter"
    assert registry.get_tokenizer("MyTokens") is own


@pytest.mark.parametrize(
    "get, kind", [(registry.get_tokenizer, "Tokenizer"), (registry.get_backbone, "Backbone")]
)
def test_a_class_of_another_kind_is_refused_with_the_one_to_derive_it_from(get, kind):
    with pytest.raises(ConfigError, match=f"OrderedDict' is no {kind}: .* recbole_gr.{kind}"):
        get("collections:OrderedDict")


def test_everything_listed_can_be_imported():
    for name in registry.MODELS:
        assert registry.get_model(name).__name__ == name
    for name in registry.TOKENIZERS:
        assert registry.get_tokenizer(name).__name__ == name


def test_importing_a_model_of_recbole_leaves_anomaly_detection_as_it_was():
    """RecBole's SINE switches it on, and every model trained after it would be slow."""
    for enabled in (False, True):
        sys.modules.pop("recbole.model.sequential_recommender.sine", None)
        with torch.autograd.set_detect_anomaly(enabled):
            registry.get_model("SINE")
            assert torch.is_anomaly_enabled() is enabled


def test_tree_models_have_the_names_of_their_classes_and_say_what_they_need(monkeypatch):
    assert {"XGBoost", "LightGBM"} <= registry.recbole_models()
    monkeypatch.setitem(sys.modules, "lightgbm", None)  # not installed
    for name in [name for name in sys.modules if "exlib_recommender" in name]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match="XGBoost.*needs the package 'lightgbm'.*pip install"):
        registry.get_model("XGBoost")


def test_tree_models_get_the_defaults_of_their_file():
    tree = type("XGBoost", (), {"type": ModelType.DECISIONTREE})
    defaults, known = default_settings(tree, "ml-100k")[:2]
    assert defaults["xgb_num_boost_round"] > 0 and "xgb_params" in known
