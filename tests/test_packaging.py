"""Claims about what an installation contains."""

import configparser
import re
from pathlib import Path

import recbole_gr

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


def test_version_is_the_same_everywhere():
    assert setup()["metadata"]["version"] == recbole_gr.__version__


def test_extras_that_messages_and_readme_name_exist():
    named = {"test", "text", "bench", "dev", "search", "ray"}
    assert named <= set(setup()["options.extras_require"])
