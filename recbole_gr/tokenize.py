"""Learn SIDs, or judge given ones, without training a recommender.

    python -m recbole_gr.tokenize --dataset=ml-100k --tokenizer=RKMeans --output=sids/
    python -m recbole_gr.tokenize --dataset=ml-100k --sid_file=sids/sid.json --output=check/
"""

import logging
import sys
from pathlib import Path

USAGE = """\
usage: python -m recbole_gr.tokenize --dataset=NAME [--tokenizer=NAME] [--output=DIR] [--key=...]

Learns semantic IDs from the item content of a RecBole data set and writes them to DIR (default:
sids/<dataset>-<tokenizer>) as sid.json, sid.npy and sid.npz, with a quality report as report.txt,
report.json and report.png. With --sid_file=FILE it reads that file's SIDs instead of learning any.
"""


def tokenize(dataset=None, output=None, config_file_list=None, config_dict=None, cmd_args=None):
    """Learn or read the SIDs of a data set and write them with a quality report.

    Args:
        dataset: data set name; None takes the configuration's.
        output: folder for the files; None takes ``sids/<dataset>-<tokenizer>``.
        config_file_list, config_dict, cmd_args: as for :func:`recbole_gr.run_recbole_gr`.

    Returns:
        tuple: SIDTable, QualityReport, and the list of files written.

    Raises:
        ConfigError: something in the configuration or the files cannot be used.
    """
    from recbole.utils import init_seed

    from recbole_gr.config import Config
    from recbole_gr.data import create_dataset, item_content
    from recbole_gr.data.signals import tokenizer_signals
    from recbole_gr.tokenizer.pipeline import prepare_sid, write_sids

    # Any generative model does: SIDs depend on data and tokenizer alone.
    config = Config("TIGER", dataset, config_file_list, config_dict, cmd_args)
    init_seed(config["seed"], config["reproducibility"])
    train = create_dataset(config).build()[0]
    content = item_content(config, train)
    table, report = prepare_sid(config, content, tokenizer_signals(config, train))
    source = Path(config["sid_file"]).stem if config["sid_file"] else config["tokenizer"]
    output = Path(output or Path("sids") / f"{config['dataset']}-{source}")
    return table, report, write_sids(output, config, table, report, content.item_tokens)


def main(argv=None):
    """The command line; returns the exit code, 2 where something given cannot be used."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments or "--help" in arguments or "-h" in arguments:
        print(USAGE, end="")
        return 0 if arguments else 2
    from recbole_gr.errors import ConfigError

    given = [argument for argument in arguments if argument.startswith("--output=")]
    rest = [argument for argument in arguments if not argument.startswith("--output=")]
    output = given[-1].partition("=")[2] if given else None
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        _, _, files = tokenize(output=output, cmd_args=rest)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("Written: " + ", ".join(map(str, files)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
