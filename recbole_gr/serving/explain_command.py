"""`recommend --explain`: what may be asked for, and what is printed and written."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_gr.errors import ConfigError
from recbole_gr.storage.files import require_writable

if TYPE_CHECKING:
    from recbole_gr.serving.recommender import Recommender


def listed(text: str) -> list[str]:
    """Tokens of a text with commas between them; one with a comma of its own in double quotes."""
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    return [token.strip() for row in rows for token in row if token.strip()]


def is_explained(own: Mapping[str, Any]) -> bool:
    """Whether the arguments of `recommend` ask for one answer explained.

    Raises:
        ConfigError: they ask for several, or for a file that cannot be written.
    """
    if "explain" not in own:
        if "why" in own:
            raise ConfigError(f"--why={own['why']} goes with --explain; add it")
        return False
    others = [f"--{name}" for name in ("users_file", "output") if name in own]
    if others or len(listed(own.get("user", ""))) > 1:
        raise ConfigError(
            "--explain prints the way to one answer: give one --user or --history"
            + (f", without {' and '.join(others)}" if others else "")
        )
    if own["explain"]:
        file = Path(own["explain"])
        if file.suffix != ".json":
            raise ConfigError(f"--explain={file}: the name must end in .json; alone it prints")
        require_writable(file.parent, "give another --explain")
    return True


def print_explained(
    recommender: Recommender,
    users: list[str] | None,
    histories: list[list[str]] | None,
    own: Mapping[str, Any],
) -> None:
    """Print the way to one answer, and write it where a file is named.

    Args:
        recommender (Recommender): the trained model.
        users, histories: a single one in one of them.
        own (dict): the arguments of `recommend`.
    """
    from recbole_gr.serving.explain import explain
    from recbole_gr.serving.explain_text import explained
    from recbole_gr.storage.json_files import save_json

    found = explain(
        recommender,
        users[0] if users else None,
        histories[0] if histories else None,
        own["k"],
        exclude_history=own.get("exclude_history"),
        why=listed(own.get("why", "")),
        unknown="skip",
    )
    print(explained(found), end="")
    if own["explain"]:
        save_json(own["explain"], found)
        print(f"\nWritten: {own['explain']}")
