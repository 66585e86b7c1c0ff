"""The package's top shows the public names, and loads what is used."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from runs import rest_slow

import recbole_gr
from recbole_gr import registry

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "recbole", "faiss", "pandas", "scipy", "sklearn", "matplotlib")


def loaded_after(code):
    """Packages and modules of ours that a new process has loaded after `code`."""
    script = f"import sys\n{code}\nprint(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    loaded = loaded_after("import recbole_gr\ndir(recbole_gr)")
    assert not loaded & set(HEAVY)
    assert {name for name in loaded if name.startswith("recbole_gr")} <= {
        "recbole_gr",
        "recbole_gr.compat",
        "recbole_gr.compat.memory",
        "recbole_gr.compat.moved",
    }


@pytest.mark.parametrize(
    "name", rest_slow("SIDTable", "SIDTrie", "register_backbone", "RKMeans", "TIGER")
)
def test_a_name_loads_what_it_is_made_of_and_no_other_model_or_tokenizer(name):
    loaded = loaded_after(f"from recbole_gr import {name}")
    assert "faiss" not in loaded or name in registry.TOKENIZERS  # k-means is FAISS's
    classes = set(registry.MODELS.values()) | set(registry.TOKENIZERS.values())
    modules = {target.partition(":")[0] for target in classes}
    own = f"recbole_gr.{recbole_gr._MODULES[name]}"
    assert loaded & modules == {own} & modules
    if name.startswith("SID"):
        assert "recbole" not in loaded


def test_all_public_names_are_shown_and_can_be_imported():
    assert set(recbole_gr.__all__) <= set(dir(recbole_gr))
    assert {"__version__", "__doc__"} <= set(dir(recbole_gr))
    assert not [name for name in dir(recbole_gr) if name in ("Any", "compat", "importlib")]
    for name in recbole_gr.__all__:
        found = getattr(recbole_gr, name)
        assert found.__name__ == name and inspect.getdoc(found), name
    with pytest.raises(AttributeError, match="no attribute 'TIGGER'"):
        recbole_gr.TIGGER  # noqa: B018


def test_type_checkers_see_the_same_names_in_the_same_modules():
    tree = ast.parse(Path(recbole_gr.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.asname: part.module for part in block.body for alias in part.names}
    assert seen == {name: f"recbole_gr.{where}" for name, where in recbole_gr._MODULES.items()}


def test_every_tokenizer_and_every_model_with_a_network_of_its_own_is_at_the_top():
    for name in registry.TOKENIZERS:
        assert getattr(recbole_gr, name) is registry.get_tokenizer(name)
    for name in ("TIGER", "PIT", "IntRR", "RPG"):
        assert getattr(recbole_gr, name) is registry.get_model(name)
