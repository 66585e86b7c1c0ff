"""Claims about what commands take: own arguments, settings, and the help that lists both."""

import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import run_recbole_gr
from recbole_gr import registry
from recbole_gr.__main__ import COMMANDS, main
from recbole_gr.config.arguments import Arguments
from recbole_gr.config.defaults import default_settings
from recbole_gr.config.help import OWNERS
from recbole_gr.errors import ConfigError

ROOT = Path(__file__).parent.parent
MODULES = {
    name: "recbole_gr.search.command" if name == "search" else target.partition(":")[0]
    for name, (target, _) in COMMANDS.items()
}
TAKES = {name: importlib.import_module(module).ARGUMENTS for name, module in MODULES.items()}
WITH_SETTINGS = [name for name, takes in TAKES.items() if takes.settings]
GENERATIVE = registry.models_where(registry.is_generative)


@cache
def keys_of(model, tokenizer=None):
    """What a run takes, as its configuration has it."""
    defaults = default_settings(registry.get_model(model), "sample", tokenizer)
    return {name: key for name, key in defaults.keys.items() if name in defaults.known}


def lines(text):
    """What follows `--name=` by name, of a help."""
    parts = re.split(r"\n  --(\w+)=", text)
    return dict(zip(parts[1::2], parts[2::2]))


def letters(text):
    """A text without the places where lines may be broken."""
    return re.sub(r"\s", "", text)


def assert_lists(command, text, keys):
    """A help has a line with type and help for each of `keys` that matter to its command."""
    found, takes = lines(text), TAKES[command]
    for name, key in keys.items():
        if key.owner in takes.settings and name not in takes.names:
            assert letters(f"({key.form}) {key.help}") in letters(found[name]), (command, name)


@pytest.mark.parametrize("command", WITH_SETTINGS)
def test_help_has_a_line_for_every_key_that_all_share(command):
    shared = dict(keys_of("SASRec"))
    for model, tokenizer in [("SASRec", None), ("DeepFM", None), ("BPR", None)] + [
        (model, name) for model in GENERATIVE for name in registry.TOKENIZERS
    ]:
        keys = keys_of(model, tokenizer)
        shared = {name: key for name, key in shared.items() if name in keys}
    assert len(shared) > 90
    names = {name for name, key in shared.items() if key.owner in TAKES[command].settings}
    assert names <= set(lines(TAKES[command].help()))


@pytest.mark.parametrize("model", sorted({*registry.MODELS, *registry.recbole_models()}))
def test_help_of_a_model_has_a_line_for_every_key_that_it_takes(model):
    try:
        keys = keys_of(model)
    except ConfigError:
        pytest.skip("its package is not installed")
    for command in ("run", "search", "recommend", "export"):
        assert_lists(command, TAKES[command].help([f"--model={model}"]), keys)


@pytest.mark.parametrize("tokenizer", registry.TOKENIZERS)
def test_help_of_a_tokenizer_has_a_line_for_every_key_that_it_takes(tokenizer):
    asked = f"--tokenizer={tokenizer}"
    for command in ("tokenize", "sid-features", "run", "search"):
        of_it = {
            n: key for n, key in keys_of("TIGER", tokenizer).items() if "tokenizer" == key.owner
        }
        assert len(of_it) > 15
        assert_lists(command, TAKES[command].help([asked]), of_it)
    for model in GENERATIVE:
        text = TAKES["run"].help([f"--model={model}", asked])
        assert_lists("run", text, keys_of(model, tokenizer))


def test_help_of_a_click_through_model_has_its_keys_and_those_of_the_sids():
    text = TAKES["sid-features"].help(["--compare=DeepFM", "--tokenizer=OPQ"])
    assert_lists("sid-features", text, keys_of("DeepFM"))
    assert {"mlp_hidden_size", "opq_iterations"} <= set(lines(text))


def test_a_run_takes_the_settings_of_every_owner():
    keys = [keys_of(model, name) for model in GENERATIVE for name in registry.TOKENIZERS]
    owners = {key.owner for found in keys for key in found.values()}
    assert owners == set(OWNERS) == set(TAKES["run"].settings) == set(TAKES["search"].settings)


def test_help_shows_the_defaults_of_a_model_and_of_a_data_set():
    found = lines(TAKES["run"].help(["--model", "PIT"]))
    assert letters(found["beam_size"]).startswith("50(int>=1)Prefixes")
    assert found["tokenizer"].startswith("I2IRKMeans ")
    on_ml_100k = lines(TAKES["run"].help(["--model=PIT", "--dataset=ml-100k"]))
    assert (found["codebook_size"][:5], on_ml_100k["codebook_size"][:3]) == ("auto ", "64 ")
    assert "select" not in lines(TAKES["run"].help()) and "select" in found


def test_help_of_a_model_that_is_none_names_the_nearest(capsys):
    assert main(["run", "--model=PITT", "--help"]) == 2
    assert "Unknown model 'PITT'. Models here: PIT," in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"export"}))
def test_help_comes_without_torch(command):
    code = (
        f"import sys; from recbole_gr.__main__ import main; main(['{command}', '--help']); "
        "assert not {'torch', 'recbole.config', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_own_arguments_are_read_in_both_spellings_and_settings_are_passed_on(command):
    takes = TAKES[command]
    needed = ["manifest.json"] * bool(takes._file)
    texts = {name: _some(takes, name) for name in takes.names}
    rest = ["--continual.tokenizer=dact", "--topk=[1,5]", "--learning_rate=-1"]
    joined = takes.read([*needed, *(f"--{n}={text}" for n, text in texts.items()), *rest])
    parts = [part for name, text in texts.items() for part in (f"--{name}", text)]
    parted = takes.read([*parts, "--continual.tokenizer", "dact", "--topk", "[1,5]",
                         "--learning_rate", "-1", *needed])  # fmt: skip
    assert joined == parted and joined[1] == rest
    assert set(joined[0]) - {takes._file} == set(takes.names)


def _some(takes, name):
    key = takes.keys.get(name)
    if key is None:
        return "007"
    return key.words[0] if key.words else "True" if key.form == "bool" else "1"


@pytest.fixture
def takes():
    takes = Arguments("ask", "--user=ID", "--user=1", "Asks.", settings=["run"])
    takes.add("user", "ID", "whom to ask", needed=True)
    takes.add("k", "N", "how many, 100 % of them", "int >= 1", default=10)
    takes.add("new", "True", "only new ones", "bool")
    takes.add("near", "X", "how near", "0 <= float <= 1")
    return takes


@pytest.mark.parametrize("text", ["196,186", "007", "1e3", "None", "[0.1,1.0]", "-5", "a b", "x=y"])
def test_text_stays_as_it_is_given(takes, text):
    assert takes.read([f"--user={text}"])[0] == takes.read(["--user", text])[0]
    assert takes.read([f"--user={text}"]) == ({"user": text, "k": 10}, [])


def test_values_have_the_types_that_they_are_declared_with(takes):
    own, _ = takes.read(["--user=1", "--k=1e2", "--new", "yes", "--near", ".5"])
    assert own == {"user": "1", "k": 100, "new": True, "near": 0.5} and type(own["k"]) is int
    for text, meant in {"true": True, "On": True, "FALSE": False, "no": False}.items():
        assert takes.read(["--user=1", f"--new={text}"])[0]["new"] is meant


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--k=0", r"--k: 0 must be an integer of at least 1 \(command line\)"),
        ("--k=many", "--k: 'many' must be an integer of at least 1"),
        ("--new=2", "--new: 2 must be True or False"),
        ("--near=-1", r"--near: -1 must be a number in \[0, 1\]"),
        ("--user=2", "--user is given twice: '1' and '2'"),
    ],
)
def test_what_cannot_be_used_is_named_with_what_can(takes, argument, message):
    with pytest.raises(ConfigError, match=message):
        takes.read(["--user=1", argument])
    takes.read(["--user=1", "--user=1"])


def test_an_argument_may_stand_alone_for_a_value_where_that_is_declared(takes):
    takes.add("why", "[=FILE]", "why so", alone="")
    for given in (["--why", "--user=1"], ["--user=1", "--why"], ["--why=", "--user", "1"]):
        assert takes.read(given) == ({"user": "1", "k": 10, "why": ""}, [])
    assert takes.read(["--user=1", "--why", "a"])[0]["why"] == "a"
    assert takes.read(["--user=1", "--new"])[1] == ["--new"]  # it was not declared so
    assert "\n  --why[=FILE] " in takes.help()


def test_what_is_no_own_argument_is_passed_on_as_it_is(takes):
    others = ["--kk=1", "-k=1", "more", "--k", "--eval_args={'order': 'RO'}", "--us=er"]
    assert takes.read(["--user=1", *others]) == ({"user": "1", "k": 10}, others)


def test_a_misspelt_argument_that_is_needed_is_found(takes):
    with pytest.raises(ConfigError) as refusal:
        takes.read(["--usr=1"])
    assert str(refusal.value) == (
        "No user is given: add --user=ID, whom to ask. Does --usr stand for --user?"
    )


@pytest.mark.parametrize(
    "command, arguments, name",
    [
        ("tokenize", ["--ouput=sids"], "output"),
        ("sid-features", ["--hashsize", "8"], "hash_size"),
        ("search", ["--params_file=a.test", "--model=TIGER", "--max_eval=1"], "max_evals"),
    ],
)
def test_a_misspelt_argument_names_the_nearest(
    command, arguments, name, tiny_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.test").write_text("learning_rate choice [0.1]\n")
    assert main([command, "--dataset=tiny", f"--data_path={tiny_folder}", *arguments]) == 2
    given = arguments[-2 if command == "sid-features" else -1].partition("=")[0]
    assert f"Does {given} stand for --{name}?" in capsys.readouterr().err


def test_a_misspelt_setting_is_no_misspelt_argument(tiny_folder, capsys):
    arguments = ["--dataset=tiny", f"--data_path={tiny_folder}", "--codebok_size=5"]
    assert main(["tokenize", *arguments]) == 2
    assert capsys.readouterr().err.endswith("did you mean 'codebook_size'?\n")


def test_the_scripts_of_recboles_users_are_the_same_commands(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["somewhere/run_recbole_gr.py", "--help"])
    arguments = Arguments("run", "--model=NAME", "--model=TIGER", "Runs.")
    assert arguments.help().startswith("usage: python run_recbole_gr.py --model=NAME\n")
    assert COMMANDS["run"][0] == "run_recbole_gr:main" and run_recbole_gr.main
