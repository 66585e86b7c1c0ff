"""The command `serve-demo`: a page on this machine on which a trained model is asked.

recbole-gr serve-demo saved/TIGER-ml-100k-....pth
recbole-gr serve-demo saved/TIGER-ml-100k-....pth --port=8000
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from recbole_gr.config.arguments import Arguments
from recbole_gr.terminal.command_line import run_command

ARGUMENTS = Arguments(
    "serve-demo",
    "CHECKPOINT [--port=N] [--key=value ...]",
    "saved/TIGER-ml-100k.pth",
    """\
Opens a page on 127.0.0.1, for this machine alone, on which a user is picked or a history typed: it
shows titles, scores and the beams of the search by level. Ctrl-C ends it. It answers one request at
a time and is no server for others: recbole-gr export makes a program for one. Settings not given
are those of the training.""",
    settings=("run", "data", "decoding"),
)
ARGUMENTS.add_file("checkpoint", "a file, as a run printed it")
ARGUMENTS.add("port", "N", "of the page; 0 takes a free one", "0 <= int <= 65535", default=0)
ARGUMENTS.add("model", "NAME", "your class, package.module:Class, where the checkpoint is of one")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code, 2 where something given cannot be used."""
    return run_command(_run, ARGUMENTS, argv, logging.WARNING)


def _run(own: dict[str, Any], settings: list[str]) -> None:
    from recbole_gr.config.parsing import parse_arguments
    from recbole_gr.errors import ConfigError
    from recbole_gr.serving.demo_data import Demo
    from recbole_gr.serving.demo_server import LOOPBACK, DemoServer
    from recbole_gr.serving.recommender import Recommender

    overrides = {"show_progress": False, **parse_arguments(settings)}
    recommender = Recommender.load(own["checkpoint"], own.get("model"), **overrides)
    try:
        server = DemoServer(Demo(recommender), own["port"])
    except OSError as error:
        raise ConfigError(
            f"--port={own['port']}: {LOOPBACK} cannot be listened to there "
            f"({error.strerror or error}); give another one, or none"
        ) from error
    config = recommender.config
    with server:
        print(f"{config['model']} on {config['dataset']}: {server.address} (Ctrl-C ends it)")
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # the way to end it
            print("Ended.")


if __name__ == "__main__":
    sys.exit(main())
