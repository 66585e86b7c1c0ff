"""The snippets of README, docs/ and the other pages run, and command lines hold known keys only."""

import importlib
import os
import re
import shlex
from itertools import product
from pathlib import Path

import pytest
import raw_files
import yaml
from pages import ROOT, command_lines, snippets, text_of

from recbole_gr import registry
from recbole_gr.config import Config
from recbole_gr.config.schema import declared
from recbole_gr.config.user_settings import UserSettings
from recbole_gr.convert.command import main as convert_main
from recbole_gr.errors import ConfigError
from recbole_gr.report import tokenizers
from recbole_gr.search.space import read_space
from recbole_gr.study.study_file import read_study

PYTHON = snippets("python")
CONVERSIONS = [
    arguments
    for _, program, arguments in command_lines()
    if program in ("-m recbole_gr.data.convert", "-m recbole_gr.convert")
]
COMMANDS = [line for line in command_lines() if line[2] not in CONVERSIONS]


class Pages:
    """Runs the Python snippets of a page in its order, each once, in one namespace a page."""

    def __init__(self):
        self.namespaces = {}
        self.outcomes = {}

    def run(self, snippet):
        """The namespace after a snippet. Those before it on its page, which it may build on, run
        first; what goes wrong in one of them is the failure of its own test."""
        namespace = self.namespaces.setdefault(snippet.page, {"__name__": "snippets"})
        for earlier in PYTHON:
            if earlier.page == snippet.page and earlier.number <= snippet.number:
                if earlier not in self.outcomes:
                    self.outcomes[earlier] = self._outcome(earlier, namespace)
        if self.outcomes[snippet] is not None:
            raise self.outcomes[snippet]
        return namespace

    def _outcome(self, snippet, namespace):
        try:
            exec(compile(snippet.text, str(snippet), "exec"), namespace)
        except Exception as error:
            return error
        return None


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """`Pages`, in a folder of theirs; what snippets register is forgotten afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("pages"))
        for module, name in (
            (registry, "MODELS"),
            (registry, "TOKENIZERS"),
            (registry, "BACKBONES"),
            (tokenizers, "COLUMNS"),
        ):
            known = getattr(module, name)
            patch.setattr(module, name, known.copy())
        yield Pages()


def test_every_snippet_is_of_a_language_that_is_checked_here():
    assert {s.language for s in snippets()} <= {"python", "bash", "yaml", "text"}
    assert len(PYTHON) >= 13 and len(COMMANDS) >= 25


@pytest.mark.slow
@pytest.mark.parametrize("snippet", PYTHON, ids=str)
def test_a_python_snippet_runs(snippet, pages):
    pages.run(snippet)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page, given",
    [
        ("docs/serving.md", lambda names: [len(answer) for answer in names["answers"]] == [5, 5]),
        ("docs/extending.md", lambda names: names["result"]["test_result"]["recall@10"] > 0),
        (
            "docs/search.md",
            lambda names: [t["status"] for t in names["found"]["trials"]] == ["finished"] * 2,
        ),
        ("docs/baselines.md", lambda names: names["strong"]["test_result"]["recall@10"] > 0),
        ("docs/study.md", lambda names: names["outcome"]["done"] == 4),
        ("docs/fusion.md", lambda names: len(names["answers"][0].items) == 5),
    ],
)
def test_the_snippets_of_a_page_give_what_they_promise(page, given, pages):
    last = [snippet for snippet in PYTHON if snippet.page == page][-1]
    assert given(pages.run(last))


@pytest.mark.parametrize("snippet", snippets("yaml"), ids=str)
def test_a_yaml_snippet_holds_known_keys_or_declares_one(snippet, tmp_path):
    settings = yaml.safe_load(snippet.text)
    if "# (" in snippet.text:
        assert declared(snippet.text, "model", str(snippet)).keys() == settings.keys()
        return
    file = tmp_path / "my.yaml"
    file.write_text(snippet.text, encoding="utf-8")
    if snippet.page in ("docs/study.md", "docs/fusion.md"):
        read = read_study(file)
        assert len(read.cells()) == 3 * len(read.trained)
        return
    config = Config(config_file_list=[str(file)])
    sections = ("per_model", "per_tokenizer")
    assert settings == {key: settings[key] if key in sections else config[key] for key in settings}


@pytest.mark.parametrize("page, program, arguments", COMMANDS)
def test_a_command_line_holds_known_names_and_keys(page, program, arguments, monkeypatch):
    monkeypatch.chdir(ROOT)
    module = {"run_recbole_gr.py": None, "run_hyper.py": "recbole_gr.search.command"}.get(
        program, program.removeprefix("-m ")
    )
    arguments = shlex.split(arguments)
    if module is not None:
        arguments = importlib.import_module(module).ARGUMENTS.read(arguments)[1]
    given = UserSettings.read(cmd_args=arguments).settings
    dataset = given.get("dataset", "ml-100k")  # a checkpoint has its own
    models = str(given.get("model", "TIGER")).split(",")
    tokenizers = str(given.get("tokenizer", "RKMeans")).split(",")
    arguments = [a for a in arguments if "," not in a or not a.startswith("--tokenizer=")]
    for model, tokenizer in product(models, tokenizers):
        chosen = [f"--tokenizer={tokenizer}"] if "tokenizer" in given else []
        try:
            Config(model, dataset, cmd_args=[*arguments, *chosen], other_models=models)
        except ConfigError as error:
            # The data sets of some examples are not part of the project, nor are checkpoints.
            missing = "no folder" if "data_path" in given else "no checkpoint 'saved/"
            if missing not in str(error) or os.path.isdir(str(given.get("data_path"))):
                raise


@pytest.mark.parametrize("snippet", snippets("text"), ids=str)
def test_a_text_snippet_is_a_parameter_file_or_a_picture(snippet, tmp_path):
    if snippet.page == "docs/search.md":
        (tmp_path / "hyper.test").write_text(snippet.text, encoding="utf-8")
        assert len(read_space(tmp_path / "hyper.test")) == len(snippet.text.splitlines())
    elif snippet.page != "docs/serving.md":  # that one is checked by test_explain_text.py
        # Paths are checked with those of the page.
        assert "recbole_gr" in snippet.text or "->" in snippet.text


def test_the_installation_of_every_page_is_one_of_the_two_of_the_readme():
    start = "python -m venv "
    lines = [line for s in snippets("bash") for line in s.text.splitlines() if start in line]
    run, test, *others = lines
    assert run.endswith("run_recbole_gr.py --model=PIT --dataset=ml-100k")
    assert test.endswith('python -m pytest -q -m ""')
    assert all(run.startswith(line) or test.startswith(line) for line in others)


@pytest.mark.parametrize("arguments", CONVERSIONS)
def test_a_conversion_runs_on_a_miniature_of_the_file_it_names(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw_files.amazon(tmp_path)
    raw_files.movielens(tmp_path, "ml-1m")
    raw_files.table(tmp_path)
    assert convert_main([*arguments.split(), "--show_progress=False"]) == 0
    (name,) = re.findall(r"--dataset=(\S+)", arguments)
    assert Path("dataset", name, f"{name}.item").is_file()


def test_all_three_conversions_are_shown():
    assert len(CONVERSIONS) == 3 and all(line in text_of("docs/data.md") for line in CONVERSIONS)


@pytest.mark.parametrize(
    "file", sorted((ROOT / "properties" / "preset").glob("*.yaml")), ids=lambda file: file.stem
)
def test_a_preset_is_a_complete_configuration(file):
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    models = settings.get("model", "IntRR").split(",")  # without: a Stage 1, for any model
    for model in models:
        config = Config(model, "ml-100k", config_file_list=[str(file)], other_models=models)
        assert config["model"] == model
