"""The plan of the package: which room may import which, and how large a file may be."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "recbole_gr"
# From the ground up: a room imports those before it, and itself.
ROOMS = """
errors terminal compat untrusted registry storage distributed config sid generation data report
quality pages tokenizer pipeline model trainer run serving fusion convert search continual study
quick_start commands __init__ __main__
""".split()
ONLY_TORCH = ("sid", "generation")  # and what stands below: no RecBole, no data sets
MODULES = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): file
    for file in PACKAGE.rglob("*.py")
}


def room(module):
    return module.partition(".")[0]


def imported(file):
    """Modules that a file imports, in functions too; for type checkers alone does not count."""
    names, nodes = set(), [ast.parse(file.read_text(encoding="utf-8"))]
    for node in nodes:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own(names):
    """The modules of this package among names of modules and what is in them."""
    for name in names:
        below = name.removeprefix("recbole_gr.") if name.startswith("recbole_gr.") else ""
        while below and below not in MODULES:
            below = below.rpartition(".")[0]
        if below:
            yield below


IMPORTS = {name: set(own(imported(file))) - {name} for name, file in MODULES.items()}


def test_every_module_stands_in_a_room_of_the_list_and_the_top_holds_few():
    assert {room(name) for name in MODULES} == set(ROOMS)
    assert len(list(PACKAGE.glob("*.py"))) <= 6


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"__init__"}))
def test_imports_run_downwards(name):
    above = ROOMS[ROOMS.index(room(name)) + 1 :]
    assert not {other for other in IMPORTS[name] if room(other) in above}
    if room(name) in ONLY_TORCH:
        roots = {other.partition(".")[0] for other in imported(MODULES[name])}
        assert not roots & {"recbole", "pandas"}


def test_no_two_modules_import_each_other_even_by_others():
    left = {name: set(others) for name, others in IMPORTS.items()}
    while free := {name for name, others in left.items() if not others}:
        left = {name: others - free for name, others in left.items() if name not in free}
    assert not left


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_file_can_be_read_in_one_sitting_and_says_what_it_holds(name):
    text = MODULES[name].read_text(encoding="utf-8")
    assert text.count("\n") <= 320
    assert ast.get_docstring(ast.parse(text))
