"""The common parts of all commands: help, log, signals, and errors without a traceback."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any

from recbole_gr.errors import ConfigError, MachineLost, ModelsFailed, ProcessKilled
from recbole_gr.terminal.log import show, with_level

if TYPE_CHECKING:
    from recbole_gr.config.arguments import Arguments

# A signal that reaches a process group also reaches its parent, which hands it on.
SAME_SIGNAL = 5.0  # seconds
_heard = -SAME_SIGNAL  # when the last signal to stop came


class Terminated(KeyboardInterrupt):
    """SIGTERM, at work as Ctrl-C: what schedulers send before they kill."""

    number = int(signal.SIGTERM)


class HungUp(KeyboardInterrupt):
    """SIGHUP, at work as Ctrl-C: the terminal was closed."""

    number = int(getattr(signal, "SIGHUP", 1))


STOPS: dict[int, type[KeyboardInterrupt]] = {int(signal.SIGINT): KeyboardInterrupt}
STOPS[Terminated.number] = Terminated
if hasattr(signal, "SIGHUP"):  # not on Windows
    STOPS[HungUp.number] = HungUp


def exit_code(stopped: KeyboardInterrupt) -> int:
    """What a shell expects of a program that a signal has stopped: 130 for Ctrl-C, 143 for SIGTERM,
    129 for SIGHUP."""
    return 128 + getattr(stopped, "number", int(signal.SIGINT))


def stop_asked_by(number: int) -> type[KeyboardInterrupt] | None:
    """What to raise for a signal; None for a SIGTERM or SIGHUP that has come already, for it goes
    to a process and again to the one that started it."""
    global _heard
    before, _heard = _heard, monotonic()
    if number == signal.SIGINT:
        return KeyboardInterrupt
    if number == HungUp.number:
        _leave_terminal()
    return None if _heard - before < SAME_SIGNAL else STOPS[number]


def _leave_terminal() -> None:
    """What is still printed goes nowhere where the terminal is gone, instead of being an error."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), descriptor)


@contextlib.contextmanager
def on_stop(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Inside the block `handler` takes the signals that ask a process to stop.

    One that is ignored stays so (`nohup`), and so does one that an application has a handler of its
    own for; only a `handler` of training takes Ctrl-C in any case. In a thread, where Python allows
    no handlers, nothing changes.
    """
    global _heard
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        _heard = -SAME_SIGNAL
        for number in STOPS:
            present = signal.getsignal(number)
            usual = present in (signal.SIG_DFL, signal.default_int_handler, _raise)
            if usual or (number == signal.SIGINT and handler is not _raise):
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, kept in before.items():
            signal.signal(number, kept)


def _raise(number: int, _: Any) -> None:
    stop = stop_asked_by(number)
    if stop is not None:
        raise stop


def stopped_as_by_ctrl_c() -> contextlib.AbstractContextManager[None]:
    """Inside the block SIGTERM and SIGHUP are exceptions, as Ctrl-C is."""
    return on_stop(_raise)


def run_command(
    run: Callable[[dict[str, Any], list[str]], int | None],
    takes: Arguments,
    argv: list[str] | None = None,
    level: int = logging.INFO,
    stopped: str = "Stopped.",
) -> int:
    """Run a command and turn what was given wrongly into a message.

    Args:
        run (callable): takes the command's own arguments by name, and the settings; returns an exit
            code, or None for 0.
        takes (Arguments): the arguments of the command; their help is printed for `--help`, and
            where there are none.
        argv (list[str] | None): arguments without the program's name; None takes `sys.argv`.
        level (int): of what standard error shows, unless `--quiet` or `--log_level` say otherwise.
        stopped (str): what to say after Ctrl-C, SIGTERM or SIGHUP; `{}` is what is known of it.

    Returns:
        int: exit code, 2 where something given cannot be used, 1 where some of several models
        failed, a process was killed or a machine lost, that of `exit_code` where it was stopped.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    asked_help = [argument for argument in arguments if argument in ("--help", "-h")]
    try:
        if asked_help or not arguments:
            others = (argument for argument in arguments if argument not in asked_help)
            print(takes.help(others), end="")
            return 0 if arguments else 2
        arguments, asked = with_level(arguments)
        show(asked or level)
        with stopped_as_by_ctrl_c():
            own, settings = takes.read(arguments)
            if asked and not takes.settings:
                settings.remove(f"--log_level={asked}")
            return run(own, settings) or 0
    except ConfigError as error:
        print(f"error: {error}{takes.remark(error, arguments)}", file=sys.stderr)
        return 2
    except (MachineLost, ModelsFailed, ProcessKilled) as error:
        if isinstance(error, ModelsFailed):
            print(error.table)
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(stopped.format(stop).rstrip(), file=sys.stderr)
        return exit_code(stop)
