"""What belongs to a class is inherited: a subclass of a model or tokenizer is one of its kind."""

import json
import sys
from pathlib import Path

import pytest
from recbole.trainer import trainer as recbole_trainers
from runs import RUNS, arguments, rest_slow

from recbole_gr import Recommender, registry
from recbole_gr.config import Config
from recbole_gr.config.defaults import default_settings
from recbole_gr.config.user_settings import UserSettings
from recbole_gr.continual.runner import ContinualRun
from recbole_gr.continual.tokens import TokenizerChain
from recbole_gr.errors import ConfigError
from recbole_gr.model.base import GenerativeRecommender
from recbole_gr.quick_start import run_recbole_gr
from recbole_gr.trainer.base import SafeTrainerMixin
from recbole_gr.trainer.figures import FiguresTrainer
from recbole_gr.trainer.generation import GenerationTrainer
from recbole_gr.trainer.pit import PITTrainer

MODELS = """
from recbole.model.general_recommender import RecVAE
from recbole.model.sequential_recommender import SASRec
from recbole_gr.continual.model import DACT
from recbole_gr.model.intrr.model import IntRR
from recbole_gr.model.pit.model import PIT
from recbole_gr.model.r3vae import R3VAE
from recbole_gr.tokenizer import rkmeans
from recbole_gr.tokenizer.collaborative import dact
from recbole_gr.tokenizer.r3vae import model as r3vae

class MyPIT(PIT): pass
class MyIntRR(IntRR): pass
class MyR3VAE(R3VAE): pass
class MyDACT(DACT): pass
class MyRecVAE(RecVAE): pass
class MySASRec(SASRec): pass
class MyTokens(dact.DACT): pass
class MyRatings(r3vae.R3VAE): pass
class MyMeans(rkmeans.RKMeans): pass
"""


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    """A module of the user's own, `mine`, in the folder of the run."""
    (tmp_path / "mine.py").write_text(MODELS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("mine", None)


@pytest.fixture
def pair(tiny_folder):
    """A function from a name of `runs.RUNS` to the results of that model and of its subclass, each
    run from the command line."""

    def pair(name, **more):
        model, settings = RUNS[name]
        given = arguments(model, tiny_folder, **{**settings, **more})[1:]
        return [
            run_recbole_gr(cmd_args=[f"--model={chosen}", *given])
            for chosen in (model, f"mine:My{model}")
        ]

    return pair


@pytest.mark.slow
def test_a_subclass_of_pit_warms_up_and_co_evolves_as_pit_does(pair):
    plain, own = pair("PIT")
    assert own["epochs_run"] == plain["epochs_run"] == 3
    stages = [epoch["stage"] for epoch in own["epoch_figures"]]
    assert stages == ["Warm-up", "Co-evolve", "Co-evolve"]
    assert own["test_result"] == plain["test_result"]
    assert own["model"] == "MyPIT" and own["example"]["model"] == "mine:MyPIT"
    with pytest.raises(ConfigError, match="MyPIT.*give the class yourself"):
        Recommender.load(own["checkpoint"])
    loaded = Recommender.load(own["checkpoint"], model="mine:MyPIT", show_progress=False)
    assert type(loaded.model).__name__ == "MyPIT"


def test_a_subclass_of_intrr_keeps_its_figures(pair):
    plain, own = pair("IntRR")
    assert own["epoch_figures"] == plain["epoch_figures"] and len(own["epoch_figures"]) == 1
    assert own["redistribution"] == plain["redistribution"] and own["redistribution"]
    assert own["test_result"] == plain["test_result"]


def test_a_subclass_of_r3vae_learns_its_sids_with_r3vae(pair):
    plain, own = pair("R3VAE")
    assert own["config"]["tokenizer"] == "R3VAE"
    assert own["sid_digest"] == plain["sid_digest"] and own["test_result"] == plain["test_result"]


@pytest.mark.slow
def test_a_subclass_of_dact_runs_over_all_periods(tiny_folder):
    given = arguments("TIGER", tiny_folder)[1:]
    given += ["--continual.cuts=[0.6,1.0]", "--cf_epochs=1", "--sid_gate=off"]
    given += ["--tokenizer_epochs=2", "--continual_epochs=2", "--sid_levels=2"]
    outcome = run_recbole_gr(cmd_args=["--model=mine:MyDACT", *given])
    assert {result["period"] for result in outcome["results"]} == {0, 1}
    record = json.loads(Path(outcome["files"]["manifest"]).read_text())
    assert record["continual"]["models"] == ["mine:MyDACT"]


def test_a_model_that_stands_for_periods_may_be_given_as_a_class(tiny_folder):
    given = arguments("TIGER", tiny_folder)[2:]
    own = registry.get_model("mine:MyDACT")
    given = UserSettings.read(None, {"continual_cuts": [0.6, 1.0]}, given)
    run = ContinualRun([own, "SASRec"], "tiny", given)
    assert run.config["model"] == "MyDACT" and run.config["tokenizer"] == "DACT"
    assert run.baselines == ["SASRec"]


@pytest.mark.parametrize(
    "name, trainer",
    [
        ("TIGER", GenerationTrainer),
        ("R3VAE", GenerationTrainer),
        ("mine:MyR3VAE", GenerationTrainer),
        ("IntRR", FiguresTrainer),
        ("mine:MyIntRR", FiguresTrainer),
        ("PIT", PITTrainer),
        ("mine:MyPIT", PITTrainer),
    ],
)
def test_a_trainer_is_named_by_the_class_and_inherited(name, trainer):
    assert registry.get_trainer({"MODEL_TYPE": None}, registry.get_model(name)) is trainer


@pytest.mark.parametrize("model", rest_slow("SASRec", "RecVAE"))
def test_a_subclass_of_a_model_of_recboles_has_its_settings_data_and_trainer(model, tiny_folder):
    given = arguments(model, tiny_folder)[1:]
    plain, own = (
        run_recbole_gr(cmd_args=[f"--model={n}", *given]) for n in (model, f"mine:My{model}")
    )
    assert own["test_result"] == plain["test_result"] and own["model"] == f"My{model}"
    assert own["config"] == {**plain["config"], "model": own["model"]}


def test_recboles_trainer_of_a_model_is_made_safe_for_its_subclass():
    model = registry.get_model("mine:MyRecVAE")
    trainer = registry.get_trainer({"MODEL_TYPE": model.type}, model)
    assert issubclass(trainer, recbole_trainers.RecVAETrainer)
    assert issubclass(trainer, SafeTrainerMixin)


def test_a_trainer_that_is_registered_with_a_model_serves_its_subclasses(monkeypatch):
    monkeypatch.setattr(registry, "MODELS", dict(registry.MODELS))
    monkeypatch.setattr(registry, "TRAINERS", {})
    own = type("Own", (GenerativeRecommender,), {})
    registry.register_model("Anything", own, trainer="recbole_gr.trainer.figures:FiguresTrainer")
    below = type("Below", (own,), {})
    for model in (own, below):
        assert registry.get_trainer({"MODEL_TYPE": None}, model) is FiguresTrainer
    assert registry.get_trainer({}, GenerativeRecommender) is GenerationTrainer


def test_a_class_of_the_same_name_is_not_trained_as_another_one():
    own = type("PIT", (GenerativeRecommender,), {})
    assert registry.get_trainer({"MODEL_TYPE": None}, own) is GenerationTrainer


def test_every_ability_has_a_default_on_the_base_class():
    base = GenerativeRecommender
    flags = ("continual", "needs_content", "weights_per_item", "tokenizes_items")
    assert not any(getattr(base, name) for name in flags)
    assert base.end_epoch(None) == {} and base.redistribution(None) is None
    sasrec = registry.get_model("SASRec")
    assert registry.is_generative(base) and not registry.is_generative(sasrec)
    assert not registry.is_generative(None) and not registry.spans_periods(sasrec)
    assert registry.spans_periods(registry.get_model("mine:MyDACT"))


@pytest.mark.parametrize("how", ["finetune", "dact"])
def test_a_subclass_of_a_tokenizer_goes_on_learning_as_it_does(how):
    able = "DACT or LETTER" if how == "finetune" else "DACT"
    assert TokenizerChain(how, {"tokenizer": "mine:MyTokens"}).signals == ("cf_vectors",)
    with pytest.raises(ConfigError, match=f"goes on learning, {able}; mine:MyMeans cannot"):
        TokenizerChain(how, {"tokenizer": "mine:MyMeans"})


def test_a_subclass_of_a_tokenizer_has_its_defaults_and_its_advice(tiny_folder):
    model = registry.get_model("TIGER")
    own, plain = (default_settings(model, "tiny", name)[0] for name in ("mine:MyRatings", "R3VAE"))
    assert {key: own[key] for key in own if key != "tokenizer"} == {
        key: plain[key] for key in plain if key != "tokenizer"
    }
    config = Config(
        "TIGER",
        "tiny",
        config_dict={"data_path": str(tiny_folder), "tokenizer": "mine:MyRatings"},
    )
    tokenizer = registry.get_tokenizer(config["tokenizer"])
    assert tokenizer.advice == registry.get_tokenizer("R3VAE").advice != ()
