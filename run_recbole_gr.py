"""The command line: python run_recbole_gr.py --model=TIGER --dataset=ml-100k [--key=value ...]"""

import sys

USAGE = """\
usage: run_recbole_gr.py --model=NAME[,NAME...] --dataset=NAME [--key=value ...]

  --model         one of those below; several end in one table.
                  DACT runs all periods of the data (--continual.tokenizer=frozen,finetune,dact
                  --continual.recommender=frozen,finetune,retrain --continual.model=TIGER)
  --dataset       a folder <data_path>/<dataset>/ of atomic files; ml-100k comes with RecBole
  --data_path     the parent folder of the data sets (default: dataset/)
  --tokenizer     what learns the semantic IDs, one of those below (default: RKMeans)
  --config_files  YAML files of settings, separated by commas
  --resume        a checkpoint to go on training from
  --nproc         processes on this machine (default: 1), one a GPU, or sharing the cores; with
                  several machines also --world_size, --ip, --port and --group_offset
  --key=value     any key of properties/ or of RecBole, such as --epochs=50 --learning_rate=1e-3
"""


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
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments or "--help" in arguments or "-h" in arguments:
        from recbole_gr.config.help import models_help, tokenizers_help
        from recbole_gr.terminal.command_line import print_usage

        print_usage(USAGE, (models_help, tokenizers_help))
        return 0 if arguments else 2
    from recbole_gr import run_recbole_gr
    from recbole_gr.errors import ConfigError, ModelsFailed, ProcessKilled
    from recbole_gr.report.lines import closing_lines
    from recbole_gr.terminal.command_line import exit_code, stopped_as_by_ctrl_c
    from recbole_gr.terminal.log import show, with_level

    try:
        arguments, level = with_level(arguments)
        show(level or "INFO")
        with stopped_as_by_ctrl_c():
            outcome = run_recbole_gr(cmd_args=arguments)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModelsFailed as error:
        print(error.table)
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ProcessKilled as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print(f"Stopped. {stopped}".rstrip(), file=sys.stderr)
        return exit_code(stopped)
    if outcome is None:  # the first machine, or torchrun's first process, has it
        return 0
    print(outcome["table"])
    if outcome["bucket_table"]:
        print(f"\n{outcome['bucket_table']}")
    print("\n" + "\n".join(closing_lines(outcome, arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
