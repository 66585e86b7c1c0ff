"""The command line: python run_recbole_gr.py --model=TIGER --dataset=ml-100k [--key=value ...]"""

from __future__ import annotations

import sys
from typing import Any

from recbole_gr.config.arguments import Arguments
from recbole_gr.config.help import OWNERS, models_help, tokenizers_help
from recbole_gr.terminal.command_line import run_command

ARGUMENTS = Arguments(
    "run",
    "--model=NAME[,NAME...] --dataset=NAME [--key=value ...]",
    "--model=TIGER --dataset=ml-100k --epochs=50 --learning_rate=1e-3",
    """\
Trains and tests models on a data set; several end in one table. DACT runs all periods of the data
(--continual.tokenizer=frozen,finetune,dact --continual.recommender=frozen,finetune,retrain
--continual.model=TIGER).""",
    settings=tuple(OWNERS),
    lists=(models_help, tokenizers_help),
)
ARGUMENTS.mention("model", "NAME[,NAME...]", "one of those below, or several")
ARGUMENTS.mention_data()


def main(argv: list[str] | None = None) -> int:
    """Run what the arguments say.

    Args:
        argv (list[str] | None): arguments without the program's name; None takes `sys.argv`.

    Returns:
        int: exit code: 0, 2 where something given cannot be used, 1 where some of several models
        failed or a process of the run was killed, 130 where it was stopped by Ctrl-C (143 by
        SIGTERM, 129 by SIGHUP). The table of results is printed on standard output; the log goes to
        standard error.
    """
    return run_command(_run, ARGUMENTS, argv, stopped="Stopped. {}")


def _run(_: dict[str, Any], arguments: list[str]) -> int:
    from recbole_gr import run_recbole_gr
    from recbole_gr.report.lines import closing_lines

    outcome = run_recbole_gr(cmd_args=arguments)
    if outcome is None:  # the first machine, or torchrun's first process, has it
        return 0
    print(outcome["table"])
    if outcome["bucket_table"]:
        print(f"\n{outcome['bucket_table']}")
    print("\n" + "\n".join(closing_lines(outcome, arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
