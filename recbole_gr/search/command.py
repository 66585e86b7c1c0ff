"""The command line of a search."""

import sys
from typing import Any

from recbole_gr.terminal.command_line import run_command

USAGE = """\
usage: run_hyper.py --params_file=FILE --model=NAME --dataset=NAME [--key=value ...]

Trains a model with the parameters of FILE and ends in a table of all trials by their validation
score, with the command that trains the best. Every trial is stored when it ends; the same command
goes on where it was stopped. Needs Optuna: pip install "recbole_gr[search]".

  --params_file     lines of 'name choice [v1,v2]', 'name uniform low,high', 'name quniform
                    low,high,step' or 'name loguniform low,high' (exp of it), as in RecBole
  --algo            exhaustive (default), random, or bayes (Optuna's TPE)
  --max_evals       most trials (default: all with exhaustive, otherwise 100)
  --search_seed     of the parameters that are proposed (default: 2020); --seed is the training's
  --two_stage=True  first fit the tokenizers, then search on the SIDs of the best of them alone
  --keep_tokenizers       how many (default: 3)
  --max_tokenizers        most to fit (default: all with exhaustive, otherwise 20)
  --tokenizer_criterion   figure of the SID report that ranks them (default: collision)
  --tool            ray (Ray Tune), optuna (one trial after another), or auto: ray where it is
                    installed whole (default)
  --parallel        with bayes, trials that are proposed together (default: 1)
  --output_file     of the trials, a journal of Optuna's (default:
                    saved/search/<model>-<dataset>-<params_file>.jsonl)
  --keep_checkpoints=True   of all trials, not of the best alone
  --key=value       any setting of run_recbole_gr.py, for every trial
"""

NUMBERS = ("max_evals", "search_seed", "keep_tokenizers", "max_tokenizers", "parallel")
SWITCHES = ("two_stage", "keep_checkpoints")
TEXTS = ("params_file", "algo", "tool", "tokenizer_criterion", "output_file")
OWN = (*TEXTS, *NUMBERS, *SWITCHES)


def main(argv: list[str] | None = None) -> int:
    """Search as the arguments say; exit code 0, 1 where every trial failed, 2 where something given
    cannot be used, 130 where it was stopped by Ctrl-C (143 by SIGTERM, 129 by SIGHUP)."""
    from recbole_gr.config.help import models_help, tokenizers_help

    stopped = "Stopped. The same command goes on from the last trial that ended."
    lists = (models_help, tokenizers_help)
    return run_command(_run, USAGE, argv, stopped=stopped, lists=lists)


def find(**options: Any) -> dict[str, Any]:
    """As `recbole_gr.search.runner.search`, imported when asked for: RecBole takes seconds."""
    from recbole_gr.search.runner import search

    return search(**options)


def _run(arguments: list[str]) -> int:
    from recbole_gr.config.command_lines import example_in_file
    from recbole_gr.config.parsing import own_arguments, parse_switch, parse_value
    from recbole_gr.errors import ConfigError
    from recbole_gr.report.lines import outcome_lines

    own, rest = own_arguments(arguments, OWN)
    if not own.get("params_file"):
        raise ConfigError("No parameters are given: add --params_file=FILE.")
    options = {name: own[name] for name in TEXTS if name in own}
    options |= {name: parse_value(own[name]) for name in NUMBERS if name in own}
    options |= {name: parse_switch(own[name]) for name in SWITCHES if name in own}
    for name in SWITCHES:
        if not isinstance(options.get(name, False), bool):
            raise ConfigError(f"--{name}={own[name]}: write True or False")
    outcome = find(cmd_args=rest, **options)
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
