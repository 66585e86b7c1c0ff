"""Claims about what an installation contains."""

import configparser
import re
import runpy
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
import setuptools

import recbole_gr
from recbole_gr import compat

ROOT = Path(__file__).resolve().parent.parent


def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_every_package_folder_is_listed_for_installation():
    folders = {path.parent for path in (ROOT / "recbole_gr").rglob("*.py")}
    found = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    listed = set(setup()["options"]["packages"].split())
    assert listed == found | {"recbole_gr.properties"}


def test_every_property_file_matches_the_package_data():
    patterns = re.split(r",\s*", setup()["options.package_data"]["recbole_gr.properties"].strip())
    properties = ROOT / "properties"
    installed = {path for pattern in patterns for path in properties.glob(pattern)}
    assert installed == {path for path in properties.rglob("*") if path.is_file()}


def test_every_file_of_the_demo_page_matches_the_package_data():
    pattern = setup()["options.package_data"]["recbole_gr.serving"]
    serving = ROOT / "recbole_gr" / "serving"
    code = (".py", ".pyc")
    files = {path for path in serving.rglob("*.*") if path.suffix not in code}
    assert set(serving.glob(pattern)) == files and len(files) == 4


def test_version_is_the_same_everywhere():
    assert setup()["metadata"]["version"] == recbole_gr.__version__


def test_extras_that_messages_and_readme_name_exist():
    named = {"cpu", "gpu", "test", "text", "bench", "dev", "search", "ray"}
    named |= {"docs", "notebook", "browser"}
    assert named <= set(setup()["options.extras_require"])


def names(requirements):
    found = (re.match(r"[A-Za-z0-9_.-]+", line) for line in requirements)
    return {match[0].lower().replace("_", "-") for match in found if match}


def test_everything_that_recbole_needs_is_installed_but_ray():
    of_recbole = names(line for line in requires("recbole") if "extra ==" not in line)
    own = names(setup()["options"]["install_requires"].split("\n"))
    assert of_recbole - own == {"ray"}
    assert "recbole" not in own  # pip would look for that ray


@pytest.mark.parametrize("version", [(3, 8), (3, 10, 13), (3, 15, 0)])
def test_a_python_that_cannot_work_is_refused_by_name_before_anything_is_installed(
    version, monkeypatch
):
    monkeypatch.setattr(setuptools, "setup", lambda: pytest.fail("went on"))
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit, match=f"this is Python 3.{version[1]}\\."):
        runpy.run_path(str(ROOT / "setup.py"))


@pytest.mark.parametrize("version", [(3, 11, 7), (3, 12), (3, 13, 0), (3, 14, 1)])
def test_a_python_of_the_tested_range_is_taken(version, monkeypatch):
    taken = []
    monkeypatch.setattr(setuptools, "setup", lambda: taken.append(True))
    monkeypatch.setattr(sys, "version_info", version)
    runpy.run_path(str(ROOT / "setup.py"))
    assert taken
    options, name = setup()["options"], f"Python :: 3.{version[1]}"
    assert options["python_requires"] == ">=3.11, <3.15"
    assert name in setup()["metadata"]["classifiers"]


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-numpy1.txt"])
def test_a_set_of_versions_pins_everything_that_figures_depend_on(file):
    pinned = names((ROOT / file).read_text(encoding="utf-8").split("\n"))
    own = names(setup()["options"]["install_requires"].split("\n"))
    assert own | {"recbole", "faiss-cpu", "faiss-gpu", "pytest"} <= pinned


def test_a_recbole_that_is_not_installed_is_named_with_the_command_that_installs_it(tmp_path):
    script = """
import sys
import recbole_gr
sys.meta_path = [f for f in sys.meta_path if getattr(f, "__name__", "") == "_MissingRecBole"]
import recbole
"""
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.stderr.strip().split("\n")[-1].startswith("ModuleNotFoundError: RecBole is not")
    assert compat.INSTALL_RECBOLE in run.stderr
    assert compat.INSTALL_RECBOLE in (ROOT / "README.md").read_text(encoding="utf-8")
