"""The notebook: kept without outputs, valid, set up as it says, and run to its end."""

import importlib.util
import json
import subprocess

import pytest
from pages import ROOT, text_of

NAME = "examples/quickstart.ipynb"
CELLS = json.loads(text_of(NAME))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


def test_the_notebook_is_kept_without_outputs():
    assert len(CODE) >= 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CODE)
    assert all(cell["metadata"] == {} for cell in CELLS)


def test_the_notebook_is_of_a_valid_format():
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(ROOT / NAME, as_version=nbformat.NO_CONVERT)
    assert notebook.nbformat == 4
    nbformat.validate(notebook)


@pytest.fixture
def installed(monkeypatch):
    """What the first cell runs where the package is not there; `set_up(address)` runs it."""
    commands = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command[4:]))

    def set_up(address=""):
        source = "".join(CODE[0]["source"])
        assert source.count('ADDRESS = ""') == 1
        exec(source.replace('ADDRESS = ""', f'ADDRESS = "{address}"'), {})
        return commands

    return set_up


@pytest.mark.parametrize("folder", [".", "examples"])
def test_the_first_cell_installs_from_the_repository_that_it_lies_in(
    folder, installed, monkeypatch
):
    monkeypatch.chdir(ROOT / folder)
    assert installed() == [["-q", f"{ROOT}[cpu]"], ["-q", "--no-deps", "recbole==1.2.1"]]


def test_the_first_cell_installs_from_an_address_elsewhere_and_asks_for_it(
    installed, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="address into ADDRESS"):
        installed()
    first, second = installed("git+https://example.org/recbole_gr")
    assert first == ["-q", "recbole_gr[cpu] @ git+https://example.org/recbole_gr"]
    assert second == ["-q", "--no-deps", "recbole==1.2.1"]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    notebook = nbformat.read(ROOT / NAME, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources=place
    ).execute()
    shown = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert all(outputs for outputs in shown[1:])
