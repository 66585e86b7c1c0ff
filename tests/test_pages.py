"""What the pages name exists: paths, links, modules, and the rooms of ARCHITECTURE.md."""

import importlib
import re

import pytest
import test_rooms
from pages import PAGES, ROOT, text_of

PACKAGE = ROOT / "recbole_gr"
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
TOPS = "recbole_gr properties tests benchmarks studies docs .ci".split()
# Where every path is one of the project; elsewhere many are files that runs read and write.
OF_THE_HOUSE = ("ARCHITECTURE.md", "CONTRIBUTING.md")


def paths(page):
    """Paths of the project in a page, without its links: `tests/runs.py`, `sid/`."""
    text = text_of(page)
    found = set(re.findall(rf"(?<![\w./-])(?:{'|'.join(map(re.escape, TOPS))})/[\w./*-]*", text))
    if page in OF_THE_HOUSE:
        found |= set(re.findall(r"`([\w.-]+(?:/[\w.*-]*)+|[\w-]+\.(?:py|md|cfg|toml))`", text))
    return sorted(path.rstrip(".") for path in found)


def links(page):
    text = re.sub(r"(?ms)^```.*?^```$", "", text_of(page))
    return sorted(set(re.findall(r"\]\(([^)\s]+)\)", text)))


def cases(parts):
    return [(page, part) for page in NAMES for part in parts(page)]


def modules(page):
    return sorted(set(re.findall(r"\brecbole_gr(?:\.[a-zA-Z_]\w*)+", text_of(page))))


@pytest.mark.parametrize("page, path", cases(paths))
def test_a_path_that_a_page_names_exists(page, path):
    places = (ROOT, PACKAGE) if page in OF_THE_HOUSE else (ROOT,)
    assert any(list(place.glob(path)) for place in places)


@pytest.mark.parametrize("page, link", cases(links))
def test_a_link_leads_somewhere(page, link):
    if "://" not in link:
        path, _, heading = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists()
        text = target.read_text(encoding="utf-8") if heading else ""
        headings = re.findall(r"^#+ (.*)$", text, re.M)
        marks = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings]
        assert not heading or heading in marks


@pytest.mark.parametrize("page, name", cases(modules))
def test_a_module_or_a_name_in_one_exists(page, name):
    parts, found = name.split("."), None
    for depth in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:depth]))
        except ModuleNotFoundError:
            continue
        break
    for part in parts[depth:]:
        found = getattr(found, part)


def test_every_page_of_docs_is_linked_from_the_readme_and_those_of_the_api_from_their_own():
    names = {name for name in NAMES if name != "README.md"}
    api = {name for name in names if name.startswith("docs/api/")} - {"docs/api/index.md"}
    assert names - api <= set(links("README.md"))
    assert api == {f"docs/api/{name}" for name in links("docs/api/index.md")}


def test_architecture_lists_the_rooms_from_the_ground_up():
    rows = re.findall(r"^\| `([\w/.]+)` \|", text_of("ARCHITECTURE.md"), re.M)
    listed = [row.removesuffix("/").removesuffix(".py") for row in rows]
    assert listed == [room for room in test_rooms.ROOMS if room != "__init__"]
