"""What the commands of this package share: usage, log, and errors without a traceback."""

import logging
import sys
from collections.abc import Callable
from typing import TextIO

from recbole_gr.errors import ConfigError


def run_command(
    run: Callable[[list[str]], int | None],
    usage: str,
    argv: list[str] | None = None,
    level: int | None = logging.INFO,
    log: TextIO | None = None,
) -> int:
    """Run a command and turn what was given wrongly into a message.

    Args:
        run (callable): takes the list of arguments; returns an exit code, or None for 0.
        usage (str): printed for `--help`, and where there are no arguments.
        argv (list[str] | None): arguments without the program's name; None takes `sys.argv`.
        level (int | None): of the log; None leaves logging alone.
        log (file | None): where the log goes; standard error by default.

    Returns:
        int: exit code, 2 where something given cannot be used.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments or "--help" in arguments or "-h" in arguments:
        print(usage, end="")
        return 0 if arguments else 2
    if level is not None:
        logging.basicConfig(level=level, format="%(message)s", stream=log or sys.stderr)
    try:
        return run(arguments) or 0
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
