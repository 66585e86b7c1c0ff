"""The site of docs/: built strictly, complete, and fetching nothing from elsewhere."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import yaml
from pages import PAGES, ROOT, text_of

import recbole_gr

NEEDED = ("mkdocs", "material", "mkdocstrings")
SETTINGS = yaml.safe_load(text_of("mkdocs.yml"))
# What a browser fetches for a page by itself; `a` is followed by a reader alone.
FETCHED = {
    "link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src",
    "video": "src", "audio": "src", "embed": "src", "object": "data",
}  # fmt: skip


def nav_pages(entries):
    for entry in entries if isinstance(entries, list) else [entries]:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values():
                yield from nav_pages(below)


def build(root, output):
    for module in NEEDED:
        pytest.importorskip(module)
    command = [sys.executable, "-B", "-m", "mkdocs", "build", "--strict", f"--site-dir={output}"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    output = tmp_path_factory.mktemp("site")
    run = build(ROOT, output)
    assert run.returncode == 0, run.stderr
    return output


class Fetched(HTMLParser):
    """Addresses that a browser fetches for one page, and its inline styles and scripts."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.inline, self._inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self._inside = tag in ("style", "script")
        self.addresses += [attributes.get(FETCHED.get(tag)), attributes.get("srcset")]
        self.inline.append(attributes.get("style") or "")

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.inline.append(data)


def from_elsewhere(text):
    return re.findall(r"(?:url\(|@import|import\()\s*['\"]?\s*((?:https?:)?//[^'\")\s]+)", text)


def test_every_page_of_docs_is_in_the_navigation_once():
    listed = list(nav_pages(SETTINGS["nav"]))
    of_docs = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if "docs" in page.parts}
    assert {page for page in listed if not page.startswith("project/")} == of_docs
    assert len(listed) == len(set(listed))


def test_the_pages_of_the_api_hold_every_public_name_once():
    pages = [path for path in PAGES if path.parent.name == "api"]
    names = [
        name
        for page in pages
        for name in re.findall(r"^::: recbole_gr\.(\S+)$", page.read_text(encoding="utf-8"), re.M)
    ]
    assert set(recbole_gr.__all__) <= set(names) and len(names) == len(set(names))


@pytest.mark.slow
def test_the_site_is_built_strictly_with_every_page(site):
    for page in nav_pages(SETTINGS["nav"]):
        path = re.sub(r"(?:^|(?<=/))(?:index|README)\.md$", "", page).removesuffix(".md")
        assert (site / path / "index.html").is_file(), page
    assert not list(site.rglob("*.py*"))


@pytest.mark.slow
def test_a_page_of_the_api_shows_signatures_and_descriptions_without_marks_of_another_markup(site):
    text = (site / "api" / "serving" / "index.html").read_text(encoding="utf-8")
    assert 'id="recbole_gr.Recommender.add_items"' in text
    assert "Make items recommendable that are known by their content alone" in text
    for page in (site / "api").rglob("*.html"):
        assert not re.search(r":(?:class|meth|func|mod):|====", page.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_site_fetches_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        found = Fetched(page.read_text(encoding="utf-8"))
        outside = [a for a in found.addresses if a and re.match(r"(?:https?:)?//", a)]
        assert outside == [] and from_elsewhere(" ".join(found.inline)) == [], page
    for style in site.rglob("*.css"):
        assert from_elsewhere(style.read_text(encoding="utf-8")) == [], style


@pytest.mark.slow
def test_a_broken_link_or_anchor_ends_the_build(tmp_path):
    settings = {**SETTINGS, "plugins": [], "nav": ["index.md", {"The project": ["project/R.md"]}]}
    (tmp_path / "docs").mkdir()
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (tmp_path / "R.md").write_text("# R\n\n[a](docs/index.md#there) [b](S.md)\n", encoding="utf-8")
    (tmp_path / "S.md").write_text("# S\n\n[c](a.yaml)\n", encoding="utf-8")
    (tmp_path / "a.yaml").write_text("a: 1\n", encoding="utf-8")
    shutil.copy(ROOT / "docs" / "site_hooks.py", tmp_path / "docs")
    page = tmp_path / "docs" / "index.md"
    sound = (
        "# Start\n\n## There\n\n[d](../R.md) [e](../S.md#s) [f](#there)\n\n```text\n[g](h)\n```\n"
    )
    page.write_text(sound, encoding="utf-8")
    run = build(tmp_path, tmp_path / "site")
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "site" / "project" / "a.yaml" / "index.html").is_file()
    for broken in (
        "[x](nowhere.md)",
        "[x](../nowhere.md)",
        "[x](#nowhere)",
        "[x](../S.md#nowhere)",
    ):
        page.write_text(f"{sound}\n{broken}\n", encoding="utf-8")
        run = build(tmp_path, tmp_path / "site")
        assert run.returncode != 0 and "nowhere" in run.stderr, broken
