"""The program `recbole-gr`, or `python -m recbole_gr`: one command for each thing to do."""

from __future__ import annotations

import argparse
import importlib
import sys

from recbole_gr import __version__

# Command -> the function that runs it, imported when it is asked for, and what it does.
COMMANDS = {
    "run": ("run_recbole_gr:main", "train and test models on a data set, and compare them"),
    "tokenize": ("recbole_gr.commands.tokenize:main", "learn semantic IDs, and judge them"),
    "recommend": ("recbole_gr.serving.recommend:main", "ask a trained model for items"),
    "serve-demo": (
        "recbole_gr.serving.demo:main",
        "show a trained model at work on a page of this machine",
    ),
    "export": (
        "recbole_gr.serving.export:main",
        "write a trained model as a program that needs torch alone",
    ),
    "convert": ("recbole_gr.convert.command:main", "make atomic files of raw ones"),
    "verify": ("recbole_gr.commands.verify:main", "run a finished run again, and compare"),
    "search": ("run_hyper:main", "search for the settings that score best on validation"),
    "study": ("recbole_gr.study.command:main", "compare models over data sets and seeds"),
    "report": ("recbole_gr.pages.command:main", "write the page of what has run, or of SIDs"),
    "sid-features": (
        "recbole_gr.commands.sid_features:main",
        "give semantic IDs to click-through models",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run the command that the first argument names with the others.

    Arguments alone, `--model=NAME ...`, are those of `run`.

    Args:
        argv (list[str] | None): arguments without the program's name; None takes `sys.argv`.

    Returns:
        int: exit code of the command; 2 where there is none.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser = _parser()
    if not arguments:
        parser.print_help()
        return 2
    own = arguments[0] in ("-h", "--help", "--version")
    if arguments[0].startswith("-") and not own:
        arguments = ["run", *arguments]
    command = parser.parse_args(arguments[:1]).command
    module, _, function = COMMANDS[command][0].partition(":")
    return getattr(importlib.import_module(module), function)(arguments[1:])


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="recbole-gr",
        usage="%(prog)s COMMAND [--key=value ...]",
        description="Generative recommendation with RecBole.",
        epilog=f"commands:\n{listed}\n\n%(prog)s COMMAND --help tells what one takes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    parser.add_argument("--version", action="version", version=f"recbole-gr {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
