"""Claims about the program `recbole-gr` and its commands."""

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

import recbole_gr
from recbole_gr.__main__ import COMMANDS, main

ROOT = Path(__file__).parent.parent


def started(*arguments):
    command = [sys.executable, "-m", "recbole_gr", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_the_function_it_names(command, capsys):
    assert main([command, "--help"]) == 0
    usage = capsys.readouterr().out
    assert usage.startswith(f"usage: recbole-gr {command} ")
    assert usage.count(f"\nexample: recbole-gr {command} ") == 1
    assert main([command]) == 2 and capsys.readouterr().out == usage  # without arguments


def test_every_module_with_a_command_line_is_a_command():
    targets = {target.partition(":")[0] for target, _ in COMMANDS.values()}
    for path in [*(ROOT / "recbole_gr").rglob("*.py"), *ROOT.glob("run_*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            behind = {"recbole_gr.__main__", "recbole_gr.search.command"}  # run_hyper calls it
            assert name in targets | behind


def test_arguments_reach_the_command_as_they_are(monkeypatch):
    heard = []
    monkeypatch.setattr(
        "recbole_gr.commands.verify.main", lambda arguments: heard.append(arguments) or 7
    )
    given = ["a/manifest.json", "--tolerance=0", "--", "--help", "--version"]
    assert main(["verify", *given]) == 7
    assert heard == [given]


def test_arguments_without_a_command_are_those_of_a_run(capsys):
    assert main(["--model=Nope", "--dataset=tiny"]) == 2
    assert "Unknown model 'Nope'" in capsys.readouterr().err


def test_an_unknown_command_is_refused_with_those_that_there_are(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["tokenise", "--dataset=tiny"])
    assert stop.value.code == 2
    assert "'tokenise'" in (text := capsys.readouterr().err) and "tokenize" in text


def test_help_lists_the_commands_and_version_is_the_packages():
    asked, alone, version = started("--help"), started(), started("--version")
    assert (asked.returncode, alone.returncode, version.returncode) == (0, 2, 0)
    assert asked.stdout == alone.stdout
    for name, (_, text) in COMMANDS.items():
        assert f"  {name} " in asked.stdout and text in asked.stdout
    assert version.stdout == f"recbole-gr {recbole_gr.__version__}\n"


def test_the_installed_program_is_this_one():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    scripts = parser["options.entry_points"]["console_scripts"].split("\n")
    assert "recbole-gr = recbole_gr.__main__:main" in scripts
