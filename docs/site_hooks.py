"""What the site does beyond MkDocs: pages from outside docs/, and marks of reStructuredText.

Links of a page are those of the repository (`../studies/README.md`, `../properties/overall.yaml`).
A file outside docs/ that a page links to, directly or by way of another such file, is part of the
site under `project/`: a page as it is, other text as a page that shows it, the rest as a file. A
link to what does not exist is left alone, for MkDocs to complain of.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
SHOWN = {
    ".yaml": "yaml",
    ".py": "python",
    ".cfg": "ini",
    ".txt": "text",
    ".toml": "toml",
    "": "text",
}
_FENCE = re.compile(r"(?ms)^(```|~~~).*?^\1$")
_LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(?=\))")
_ROLE = re.compile(r":(?:class|meth|func|mod|attr|data|exc):<code>~?([^<]+)</code>")
_links_of_pages: dict[str, str] = {}  # path in the site -> path from the root


def _target(page, link):
    """Path from the root of what a link of a page (from the root, too) leads to, or None."""
    path = normpath(PurePosixPath(page).parent / link)
    if (ROOT / path).is_dir():
        path += "/README.md"
    inside = not path.startswith("..") and (ROOT / path).is_file()
    return path if inside else None


def _place(path):
    """Where a file of the project stands in the site."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    shown = PurePosixPath(path).suffix in SHOWN
    return f"project/{path}.md" if shown else f"project/{path}"


def _prose(text, change):
    """A page with `change` done to what is not in a fenced block."""
    parts, start = [], 0
    for fence in _FENCE.finditer(text):
        parts += [change(text[start : fence.start()]), fence.group()]
        start = fence.end()
    return "".join([*parts, change(text[start:])])


def _outside(page, text):
    """The files outside docs/ that a page links to."""
    found = []
    _prose(text, lambda part: found.extend(match[2] for match in _LINK.finditer(part)) or part)
    targets = (_target(page, link) for link in found)
    return [target for target in targets if target and not target.startswith("docs/")]


def _shown(path, text):
    language = SHOWN[PurePosixPath(path).suffix]
    return f"# {path}\n\n```{language}\n{text.rstrip()}\n```\n"


def on_files(files, config):
    """Add the files outside docs/ that pages link to."""
    _links_of_pages.clear()
    todo = []
    for file in files.documentation_pages():
        path = f"docs/{file.src_uri}"
        _links_of_pages[file.src_uri] = path
        todo += _outside(path, file.content_string)
    wanted = [item["The project"] for item in config.nav if "The project" in item]
    todo += [uri.removeprefix("project/") for part in wanted for uri in part if "project/" in uri]
    added = set()
    while todo:
        path = todo.pop()
        if path in added:
            continue
        added.add(path)
        place, suffix = _place(path), PurePosixPath(path).suffix
        if suffix != ".md" and suffix not in SHOWN:
            files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
            continue
        text = (ROOT / path).read_text(encoding="utf-8")
        if suffix == ".md":
            _links_of_pages[place] = path
            todo += _outside(path, text)
        else:
            text = _shown(path, text)
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links of the repository as links of the site."""
    path = _links_of_pages.get(page.file.src_uri)
    if path is None:
        return markdown
    here = PurePosixPath(page.file.src_uri).parent

    def moved(match):
        target = _target(path, match[2])
        if target is None:
            return match.group()
        return match[1] + relpath(_place(target), here) + (match[3] or "")

    return _prose(markdown, lambda part: _LINK.sub(moved, part))


def on_page_content(html, page, config, files):
    """Roles of docstrings (`:class:`) as code alone, of which the name is left, and their `::`
    before a block as a colon."""
    html = _ROLE.sub(lambda match: f"<code>{match[1].split('.')[-1]}</code>", html)
    return html.replace("::</p>", ":</p>")
