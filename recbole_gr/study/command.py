"""The command line of a study."""

import sys
from typing import Any

from recbole_gr.config.arguments import Arguments
from recbole_gr.config.help import OWNERS
from recbole_gr.terminal.command_line import run_command

ARGUMENTS = Arguments(
    "study",
    "FILE.yaml [--jobs=N] [--tool=ray] [--tune=N] [--publish] [--key=value ...]",
    "losses.yaml --jobs=2",
    """\
Runs the models of a file on its data sets with its seeds, and ends in tables of means, spreads and
paired differences with intervals. The same command goes on where it was stopped, and runs only what
is not done or what has changed. Settings are those of every row; a row's own win.""",
    settings=tuple(OWNERS),
    models=None,
)
ARGUMENTS.add_file("study", "a YAML file with models, datasets, seeds, settings, baseline, tune")
ARGUMENTS.add(
    "jobs", "N", "runs side by side, each with its share of threads: one, by Ray as many as its "
    "cluster has room for", "int >= 1",
)  # fmt: skip
ARGUMENTS.add(
    "tool", "NAME", "what runs them: processes of this machine, or ray, on the nodes of a cluster",
    "processes | ray", "processes",
)  # fmt: skip
ARGUMENTS.add("tune", "N", "trials of every row over its space (tune: in the file)", "int >= 1")
ARGUMENTS.add(
    "publish", "True", "put the report beside the file and finished runs without data and weights, "
    "in runs/ there: the same study finds them on any machine", "bool", alone="True",
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run a study as the arguments say; exit code 0, 1 where some runs failed, 2 where something
    given cannot be used, 130 where it was stopped by Ctrl-C (143 by SIGTERM, 129 by SIGHUP)."""
    stopped = "Stopped. The same command goes on from there."
    return run_command(_run, ARGUMENTS, argv, stopped=stopped)


def _run(own: dict[str, Any], rest: list[str]) -> int:
    from recbole_gr.config.parsing import parse_arguments
    from recbole_gr.study.runner import study
    from recbole_gr.study.workers import by_ray, in_processes

    workers = by_ray if own["tool"] == "ray" else in_processes
    settings, publish = parse_arguments(rest), bool(own.get("publish"))
    outcome = study(own["study"], own.get("jobs"), settings, workers, own.get("tune"), publish)
    print(outcome["table"])
    print(f"Report: {outcome['files']['md']} and beside it.")
    for run, reason in outcome["failed"].items():
        print(f"error: {run} failed: {reason}", file=sys.stderr)
    return 1 if outcome["failed"] else 0
