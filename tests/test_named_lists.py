"""Lists of names in property files, README and messages are those of the registry."""

import re
from pathlib import Path

import pytest

from recbole_gr import registry
from run_recbole_gr import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# The others are TIGER on the SIDs of the tokenizer of that name.
NETWORKS = set(registry.models_where(registry.is_generative)) - set(registry.TOKENIZERS)


def comment(file, key):
    """The comment of a key in a property file."""
    text = (ROOT / "properties" / file).read_text(encoding="utf-8")
    return re.search(rf"^{key}: .*?# (?:\([^)]*\) )?(.*)$", text, re.M)[1]


def names_in(text, known):
    return {name for name in known if re.search(rf"\b{re.escape(name)}\b", text)}


def test_the_comment_of_the_key_tokenizer_lists_every_tokenizer_and_no_other():
    listed = comment("overall.yaml", "tokenizer").removesuffix(", or package.module:Class")
    assert listed.split(" | ") == list(registry.TOKENIZERS)


@pytest.mark.parametrize("model", ["TIGER", "IntRR", "RPG"])
def test_the_comment_of_the_key_backbone_lists_every_backbone_and_no_other(model):
    text = comment(f"model/{model}.yaml", "backbone")
    listed = [
        re.sub(r" \(.*?\)", "", part) for part in text.removeprefix("Of decoder_only: ").split(", ")
    ]
    assert listed == [*registry.BACKBONES, "or package.module:Class."]


def test_the_comments_of_a_continual_run_name_what_can_follow_and_what_can_be_trained():
    able = registry.tokenizers_where(lambda tokenizer: tokenizer.fine_tunes)
    assert names_in(comment("model/DACT.yaml", "tokenizer"), registry.TOKENIZERS) == set(able)
    text = comment("model/DACT.yaml", "continual_model").partition(";")[0]
    assert names_in(text, registry.MODELS) == NETWORKS


@pytest.mark.parametrize(
    "row, names",
    [
        ("models", NETWORKS),
        ("backbones", set(registry.BACKBONES)),
        ("tokenizers", set(registry.TOKENIZERS)),
    ],
)
def test_the_table_of_the_readme_names_everything_that_is_registered(row, names):
    (text,) = re.findall(rf"^\| {row} \| (.*)$", README, re.M)
    assert set(re.findall(r"`(\w+)`", text)) >= names


def test_help_lists_every_model_and_tokenizer_with_a_line(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in (*registry.MODELS, *registry.TOKENIZERS):
        assert re.search(rf"^  {name} +\w.{{10}}", text, re.M), name


def test_what_is_registered_is_listed(monkeypatch, capsys):
    monkeypatch.setattr(registry, "MODELS", dict(registry.MODELS))
    registry.register_model("Mine", "recbole_gr.model.tiger:TIGER")
    assert main(["--help"]) == 0
    assert re.search(r"^  Mine +Generates the SID", capsys.readouterr().out, re.M)
    assert "Mine" in registry.models_where(registry.is_generative)
