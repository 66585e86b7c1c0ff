"""The command `recommend`: the recommendations of a trained model.

python -m recbole_gr.recommend --checkpoint=saved/TIGER-ml-100k-....pth --user=196,186
python -m recbole_gr.recommend --checkpoint=... --history=50,181,258 --exclude_history=True
python -m recbole_gr.recommend --checkpoint=... --user=196 --explain
python -m recbole_gr.recommend --checkpoint=... --users_file=users.txt --output=answers.csv
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_gr.config.arguments import Arguments
from recbole_gr.terminal.command_line import run_command

if TYPE_CHECKING:
    import os
    from typing import TextIO

    from recbole_gr.serving.recommender import Recommendation

FORMATS = (".csv", ".jsonl")

ARGUMENTS = Arguments(
    "recommend",
    "--checkpoint=FILE --user=ID[,ID...] | --history=ITEM[,ITEM...] | --users_file=FILE\n"
    "                            [--key=value ...]",
    "--checkpoint=saved/TIGER-ml-100k.pth --user=196 --k=5",
    """\
Prints rank, item, title (where the .item file has one) and score. Of a user of the data the whole
history counts, up to the last interaction. Settings not given are those of the training.""",
    settings=("run", "data", "decoding"),
)
ARGUMENTS.add("checkpoint", "FILE", "as a run printed it", needed=True)
ARGUMENTS.add("user", "ID[,ID...]", "users of the data; one with a comma in double quotes")
ARGUMENTS.add("history", "ITEM[,ITEM...]", "what somebody took, in the order of time; likewise")
ARGUMENTS.add(
    "users_file", "FILE", "a user token on each line; - is standard input. Users, and items of a "
    "history, that are not in the data are named and left out",
)  # fmt: skip
ARGUMENTS.add(
    "output", "FILE", "write .csv (a line per item) or .jsonl (a line per user) instead of printing"
)
ARGUMENTS.add("k", "N", "items for each user", "int >= 1", default=10)
ARGUMENTS.add(
    "exclude_history", "True", "leave out the items of the history; without it as the model was "
    "evaluated", "bool",
)  # fmt: skip
ARGUMENTS.add(
    "new_items", "FILE", "items that the model does not know yet: JSON lines of their texts by "
    'column of the .item file, {"item": "new", "title": "winter garden"}, or of a "vector"',
)  # fmt: skip
ARGUMENTS.add(
    "explain", "[=FILE.json]", "show of one user or history why: the beams by level, what fell out "
    "where, and what each score is made of; a file gets all of it as JSON", alone="",
)  # fmt: skip
ARGUMENTS.add("why", "ITEM[,ITEM...]", "with --explain, items that are followed level by level")
ARGUMENTS.add("batch_size", "N", "users computed together", "int >= 1")
ARGUMENTS.add("model", "NAME", "your class, package.module:Class, where the checkpoint is of one")


def recommend(
    checkpoint: str | os.PathLike[str],
    users: Iterable | None = None,
    histories: Iterable | None = None,
    k: int = 10,
    exclude_history: bool | None = None,
    new_items: Mapping[str, Any] | None = None,
    model: str | type | None = None,
    batch_size: int | None = None,
    show_progress: bool | None = None,
    unknown: str = "error",
    **overrides: Any,
) -> list[Recommendation]:
    """The `k` best items for users or histories, by the trained model of a checkpoint.

    Loads the model and its data each time; `recbole_gr.Recommender` keeps them.

    Args:
        checkpoint (str | os.PathLike): a file that a run kept, of our models or RecBole's.
        users, histories, k, exclude_history, batch_size, show_progress, unknown: as for
            `Recommender.stream`.
        new_items (dict | None): text or content vector by token of items that the model does not
            know yet, as for `Recommender.add_items`.
        model, **overrides: as for `recbole_gr.load_data_and_model`.

    Returns:
        list[Recommendation]: `user`, `items` and `scores` for each user or history, in order.

    Raises:
        ConfigError: something given cannot be used.
    """
    from recbole_gr.serving.recommender import Recommender

    if show_progress is not None:
        overrides["show_progress"] = show_progress
    with_users = histories is None
    recommender = Recommender.load(checkpoint, model, with_users, **overrides)
    if new_items:
        recommender.add_items(new_items)
    return recommender.recommend(
        users, histories, k, exclude_history=exclude_history, batch_size=batch_size,
        unknown=unknown,
    )  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code, 2 where something given cannot be used."""
    return run_command(_run, ARGUMENTS, argv, logging.WARNING)


def _run(own: dict[str, Any], settings: list[str]) -> None:
    from recbole_gr.config.parsing import parse_arguments
    from recbole_gr.errors import ConfigError
    from recbole_gr.serving.explain_command import is_explained, listed, print_explained
    from recbole_gr.storage.files import require_writable

    overrides = parse_arguments(settings)
    if sum(name in own for name in ("user", "history", "users_file")) != 1:
        raise ConfigError("Give one of --user=ID, --history=ITEM,ITEM and --users_file=FILE.")
    output = Path(own["output"]) if "output" in own else None
    if output is not None and output.suffix not in FORMATS:
        raise ConfigError(f"--output={output}: the name must end in {' or '.join(FORMATS)}")
    if output is not None:
        require_writable(output.parent, "give another --output")
    explained = is_explained(own)
    users = listed(own["user"]) if "user" in own else None
    if users == []:
        raise ConfigError(f"--user={own['user']} names no user; write a user token of the data")
    if "users_file" in own:
        users = _lines(own["users_file"])
    histories = [listed(own["history"])] if "history" in own else None
    new_items = _new_items(own["new_items"]) if "new_items" in own else None
    options = {key: own.get(key) for key in ("batch_size", "exclude_history")}

    from recbole_gr.data.titles import item_titles
    from recbole_gr.serving.recommender import Recommender

    recommender = Recommender.load(
        own["checkpoint"], own.get("model"), with_users=explained or histories is None, **overrides
    )
    if new_items is not None:
        recommender.add_items(new_items)
    if explained:
        print_explained(recommender, users, histories, own)
        return
    if "users_file" not in own:
        options["show_progress"] = False
    answers = recommender.stream(users, histories, own["k"], unknown="skip", **options)
    titles = item_titles(recommender.config)
    if output is None:
        _print(answers, titles)
    else:
        n_users, user = _write(answers, titles, output)
        print(f"Written: {output}, {n_users} users")
        asked = {"user": user} if user else {"history": own.get("history")}
        print(_next(own, settings, recommender.generative, asked))


def _next(
    own: Mapping[str, Any], settings: list[str], generative: bool, asked: Mapping[str, str | None]
) -> str:
    """What goes on from a file of answers: the model as a program, or the answer to one of them."""
    from recbole_gr.config.command_lines import command, export_command

    file, shared = own["checkpoint"], {key: own.get(key) for key in ("model", "k")}
    if generative:
        return f"Serve the model: {export_command(file, *settings, **shared)}"
    options = {"checkpoint": file, **asked, **shared}
    return f"See one of them: {command('-m', 'recbole_gr.serving.recommend', *settings, **options)}"


def _lines(path: str) -> list[str]:
    """The tokens of a file, one on each line."""
    from recbole_gr.errors import ConfigError
    from recbole_gr.storage.text_files import read_text

    text = read_text(path, f"--users_file={path}")
    users = [line.strip() for line in text.split("\n") if line.strip()]
    if not users:
        raise ConfigError(f"--users_file={path} names no user; write one user token on each line")
    return users


def _new_items(path: str) -> dict[str, Any]:
    """Texts by column, or vectors, of the items of a file of JSON lines, by their token."""
    from recbole_gr.errors import ConfigError
    from recbole_gr.storage.text_files import read_text

    items: dict[str, Any] = {}
    for number, line in enumerate(read_text(path, f"--new_items={path}").split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = dict(json.loads(line))
            token = str(record.pop("item"))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ConfigError(
                f"--new_items={path}, line {number} cannot be read; write a JSON object with an "
                'item and its texts, {"item": "new", "title": "winter garden"}, or its vector, '
                '{"item": "new", "vector": [0.1, 0.2]}'
            ) from error
        if token in items:
            raise ConfigError(f"--new_items={path}, line {number}: {token!r} is there already")
        items[token] = record["vector"] if set(record) == {"vector"} else record
    return items


def _print(answers: Iterable[Recommendation], titles: Mapping[str, str]) -> None:
    from recbole_gr.report.table import aligned_table

    for user, items, scores in answers:
        head = ["title", "rank", "item", "score"]
        rows = [
            [titles.get(item, ""), str(rank), item, f"{score:.4f}"]
            for rank, (item, score) in enumerate(zip(items, scores), 1)
        ]
        if not titles:
            head, rows = head[1:], [row[1:] for row in rows]
        print(f"user {user}" if user is not None else "history")
        print(aligned_table([head, *rows]) + "\n")


def _write(
    answers: Iterable[Recommendation], titles: Mapping[str, str], output: Path
) -> tuple[int, str | None]:
    """Write the answers as they come, under another name until all are there.

    Returns:
        tuple: how many there are, and a user that stands for itself in `--user=`.
    """
    from recbole_gr.storage.files import atomic_write

    n_users, user = 0, None
    with atomic_write(output) as temporary:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            write = (
                _csv_rows(file, titles) if output.suffix == ".csv" else _json_lines(file, titles)
            )
            for answer in answers:
                write(answer)
                n_users += 1
                plain = not {",", '"'} & set(str(answer.user))
                user = user or (answer.user if plain else None)
    return n_users, user


def _csv_rows(file: TextIO, titles: Mapping[str, str]) -> Callable[[Recommendation], None]:
    from recbole_gr.report.table import write_csv

    write_csv(file, [["user", "rank", "item", *(["title"] if titles else []), "score"]])

    def write(answer: Recommendation) -> None:
        for rank, (item, score) in enumerate(zip(answer.items, answer.scores), 1):
            title = [titles.get(item, "")] if titles else []
            write_csv(file, [[answer.user, rank, item, *title, f"{score:.6g}"]])

    return write


def _json_lines(file: TextIO, titles: Mapping[str, str]) -> Callable[[Recommendation], None]:
    from recbole_gr.storage.json_files import json_text

    def write(answer: Recommendation) -> None:
        line = answer._asdict()
        if titles:
            line["titles"] = [titles.get(item, "") for item in answer.items]
        file.write(json_text(line, ensure_ascii=False) + "\n")

    return write


if __name__ == "__main__":
    sys.exit(main())
