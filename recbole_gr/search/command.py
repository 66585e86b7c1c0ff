"""The command line of a search."""

import sys
from typing import Any

from recbole_gr.config.arguments import Arguments
from recbole_gr.config.help import OWNERS, models_help, tokenizers_help
from recbole_gr.terminal.command_line import run_command

ARGUMENTS = Arguments(
    "search",
    "--params_file=FILE --model=NAME --dataset=NAME [--key=value ...]",
    "--params_file=hyper.test --model=TIGER --dataset=ml-100k --algo=bayes",
    """\
Trains a model with the parameters of FILE and ends in a table of all trials by their validation
score, with the command that trains the best. Every trial is stored when it ends; the same command
goes on where it was stopped. Settings are those of every trial. Needs Optuna:
pip install "recbole_gr[search]".""",
    settings=tuple(OWNERS),
    lists=(models_help, tokenizers_help),
)
ARGUMENTS.add(
    "params_file", "FILE", "lines of 'name choice [v1,v2]', 'name uniform low,high', 'name "
    "quniform low,high,step' or 'name loguniform low,high' (exp of it), as in RecBole", needed=True,
)  # fmt: skip
ARGUMENTS.mention("model", "NAME", "one of those below")
ARGUMENTS.mention_data()
ARGUMENTS.add("algo", "NAME", "exhaustive (default), random, or bayes (Optuna's TPE)")
ARGUMENTS.add("max_evals", "N", "most trials; all, or 100 of random ones", "int >= 1")
ARGUMENTS.add(
    "search_seed", "N", "of the parameters that are proposed; --seed is the training's", "int >= 0",
    default=2020,
)  # fmt: skip
ARGUMENTS.add(
    "two_stage", "True", "first fit the tokenizers, then search on the SIDs of the best of them "
    "alone", "bool",
)  # fmt: skip
ARGUMENTS.add("keep_tokenizers", "N", "how many", "int >= 1", default=3)
ARGUMENTS.add("max_tokenizers", "N", "most to fit; all, or 20 of random ones", "int >= 1")
ARGUMENTS.add("tokenizer_criterion", "NAME", "figure of the SID report that ranks them (collision)")
ARGUMENTS.add(
    "tool", "NAME", "ray (on the nodes of a cluster), optuna (one trial after another), or auto: "
    "ray where it is installed (default)",
)  # fmt: skip
ARGUMENTS.add(
    "jobs", "N", "trials side by side by Ray, at most; as many as its cluster has room for",
    "int >= 1",
)  # fmt: skip
ARGUMENTS.add("parallel", "N", "with bayes, trials that are proposed together", "int >= 1", 1)
ARGUMENTS.add(
    "output_file", "FILE", "of the trials, a journal of Optuna's; without it "
    "saved/search/<model>-<dataset>-<params_file>.jsonl",
)  # fmt: skip
ARGUMENTS.add("keep_checkpoints", "True", "of all trials, not of the best alone", "bool")


def main(argv: list[str] | None = None) -> int:
    """Search as the arguments say; exit code 0, 1 where every trial failed, 2 where something given
    cannot be used, 130 where it was stopped by Ctrl-C (143 by SIGTERM, 129 by SIGHUP)."""
    stopped = "Stopped. The same command goes on from the last trial that ended."
    return run_command(_run, ARGUMENTS, argv, stopped=stopped)


def find(**options: Any) -> dict[str, Any]:
    """As `recbole_gr.search.runner.search`, imported when asked for: RecBole takes seconds."""
    from recbole_gr.search.runner import search

    return search(**options)


def _run(own: dict[str, Any], rest: list[str]) -> int:
    from recbole_gr.config.command_lines import example_in_file
    from recbole_gr.report.lines import outcome_lines

    outcome = find(cmd_args=rest, **own)
    print(outcome["table"])
    if outcome["command"] is None:
        print(f"error: every trial failed; see {outcome['files']['md']}", file=sys.stderr)
        return 1
    print(f"\nBest by validation:\n{outcome['command']}\n")
    best = outcome["best"]
    example = example_in_file(best.get("example"), rest)
    lines = outcome_lines({**best, "model": f"Trial {best['number']}", "example": example})
    print("\n".join(lines))
    print(f"Report: {outcome['files']['md']} and beside it.")
    return 0
