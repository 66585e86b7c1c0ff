"""The README's snippets run, and its command lines hold known keys only."""

import os
import re
from itertools import product
from pathlib import Path

import pytest
import raw_files
import yaml

from recbole_gr import registry
from recbole_gr.config import Config
from recbole_gr.config.given import Given
from recbole_gr.config.parsing import own_arguments
from recbole_gr.convert.command import main as convert_main
from recbole_gr.errors import ConfigError
from recbole_gr.search.command import OWN as SEARCH_KEYS
from recbole_gr.search.space import read_space
from recbole_gr.serving import recommend
from recbole_gr.serving.export import OWN as EXPORT_KEYS
from recbole_gr.serving.export import export

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def command_lines():
    lines = [part for block in blocks("bash") for part in re.split(r"\n|&&", block)]
    mark = re.compile(r"python (run_recbole_gr\.py|run_hyper\.py|-m recbole_gr\.\w+) (.*)")
    return [found.groups() for found in map(mark.search, lines) if found]


@pytest.fixture
def known_names(monkeypatch):
    """Names that a snippet registers are forgotten afterwards."""
    for names in (registry.MODELS, registry.TOKENIZERS):
        monkeypatch.setattr(registry, "MODELS", dict(registry.MODELS))
        monkeypatch.setattr(registry, "TOKENIZERS", dict(registry.TOKENIZERS))
        assert names


def test_python_snippets_run_in_the_order_of_the_page(tmp_path, monkeypatch, known_names):
    monkeypatch.chdir(tmp_path)
    snippets, namespace = blocks("python"), {}
    assert len(snippets) == 7
    for snippet in snippets:
        if "served/" in snippet:  # what the command before it on the page writes
            export(namespace["result"]["checkpoint"], "served/tiger.pt2", k=5)
        exec(compile(snippet, "README.md", "exec"), namespace)
    assert namespace["result"]["model"] == "MeanOfHistory"
    assert namespace["result"]["test_result"]["recall@10"] > 0
    assert [len(answer) for answer in namespace["answers"]] == [5, 5]
    assert [trial["status"] for trial in namespace["found"]["trials"]] == ["finished"] * 2


def test_yaml_snippets_hold_known_keys(tmp_path):
    for number, block in enumerate(blocks("yaml")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block, encoding="utf-8")
        settings = yaml.safe_load(block)
        config = Config(config_file_list=[str(file)])
        assert config["beam_size"] == settings["beam_size"]


@pytest.mark.parametrize("program, arguments", command_lines())
def test_command_lines_hold_known_names_and_keys(program, arguments, monkeypatch):
    monkeypatch.chdir(ROOT)
    # Of the programs themselves.
    own = ("output", "compare", "hash_size", *recommend.OWN, *EXPORT_KEYS, *SEARCH_KEYS)
    own = () if program == "run_recbole_gr.py" else own
    arguments = own_arguments(arguments.split(), set(own) - {"model"})[1]
    given = Given.read(cmd_args=arguments).settings
    dataset = given.get("dataset", "ml-100k")  # a checkpoint has its own
    models = str(given.get("model", "TIGER")).split(",")
    tokenizers = str(given.get("tokenizer", "RKMeans")).split(",")
    arguments = [a for a in arguments if "," not in a or not a.startswith("--tokenizer=")]
    for model, tokenizer in product(models, tokenizers):
        chosen = [f"--tokenizer={tokenizer}"] if "tokenizer" in given else []
        try:
            Config(model, dataset, cmd_args=[*arguments, *chosen], other_models=models)
        except ConfigError as error:
            # The data sets of the last examples are not part of the project.
            if "there is no folder" not in str(error) or os.path.isdir(str(given.get("data_path"))):
                raise


def test_the_parameter_file_is_one(tmp_path):
    (block,) = blocks("text")
    (tmp_path / "hyper.test").write_text(block, encoding="utf-8")
    assert len(read_space(tmp_path / "hyper.test")) == 4


def test_conversions_run_on_miniatures_of_the_files_they_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw_files.amazon(tmp_path)
    raw_files.movielens(tmp_path, "ml-1m")
    raw_files.table(tmp_path)
    commands = re.findall(r"^python -m recbole_gr\.data\.convert (.*)$", README, re.M)
    assert len(commands) == 3
    for command in commands:
        assert convert_main([*command.split(), "--show_progress=False"]) == 0
    for name in ("Beauty", "ml-1m", "shop"):
        assert Path("dataset", name, f"{name}.item").is_file()


def test_the_presets_are_complete_configurations():
    for file in (ROOT / "properties" / "preset").glob("*.yaml"):
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        models = settings.get("model", "IntRR").split(",")  # without: a Stage 1, for any model
        for model in models:
            config = Config(model, "ml-100k", config_file_list=[str(file)], other_models=models)
            assert config["model"] == model
