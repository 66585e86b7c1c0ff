"""What the project's pages hold: snippets by language, command lines, and what they name."""

import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_COMMAND = re.compile(
    r"(?:python|torchrun .*) (run_recbole_gr\.py|run_hyper\.py|-m recbole_gr[.\w]*) (.*)"
)


def text_of(page):
    """The text of a page by its path from the root."""
    return (ROOT / page).read_text(encoding="utf-8")


class Snippet(NamedTuple):
    """One fenced block, with its number among those of its page and language."""

    page: str
    language: str
    number: int
    text: str

    def __str__(self):  # the id of a test
        return f"{self.page}-{self.number}"


def snippets(*languages):
    """The fenced blocks of all pages, of these languages or of any."""
    found, count = [], defaultdict(int)
    for path in PAGES:
        page = path.relative_to(ROOT).as_posix()
        for language, text in _BLOCK.findall(text_of(page)):
            count[page, language] += 1
            if not languages or language in languages:
                found.append(Snippet(page, language, count[page, language], text))
    return found


def command_lines():
    """`(page, program, arguments)` of the command lines in bash blocks that start a program of
    ours."""
    found = []
    for snippet in snippets("bash"):
        for part in re.split(r"\n|&&", snippet.text):
            match = _COMMAND.search(part)
            if match:
                found.append((snippet.page, *match.groups()))
    return found
