"""Seconds per epoch with the loss over the trie against the loss over the codebook.

Claim checked: ``loss_normalisation: trie``, whose softmax is over the codes that lead to an item,
adds at most 10 % to an epoch of TIGER, PIT and IntRR.

One model of each kind trains on the same batches with either loss in turns, its trainer's own
epochs over ``--batches`` of them as in ``train_speed.py``, on SIDs that RKMeans learns of the
data's content: how many codes follow a prefix decides what the trie costs.

Run: ``python benchmarks/trie_loss.py --dataset Amazon_Beauty --data_path ../shared/data`` (without
``--data_path`` RecBole's bundled ml-100k).
"""

import argparse
from functools import partial
from statistics import median

import torch
import train_speed
from paired import in_turns, print_setting, print_table, ratio, spread

MODELS = ("TIGER", "PIT", "IntRR")
LOSSES = ("codebook", "trie")


def main(arguments=None):
    """Print the table; returns by model and loss the seconds of an epoch."""
    options = parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = {"tokenizer": "RKMeans"}
    own = {**vars(options), "settings": settings, "other_models": MODELS, "learn_sids": True}
    print_setting(dataset=options.dataset, batches=options.batches, repeats=options.repeats)
    rows, gains, figures = [], [], {}
    for name in MODELS:
        side = train_speed.Side(name, "sequence", options.batch_size, argparse.Namespace(**own))
        runs = {loss: partial(epoch, side, loss) for loss in LOSSES}
        seconds = in_turns(runs, options.repeats, options.warm_up)
        figures[name] = {loss: side.epochs(seconds[loss]) for loss in LOSSES}
        share = ratio(figures[name]["trie"], figures[name]["codebook"]) - 1
        widths = ", ".join(map(str, side.trainer.model.trie.width))
        times = (spread(figures[name][loss], 1) for loss in LOSSES)
        rows.append((name, widths, *times, f"{share:+.1%}"))
        gains.append(f"{share:+.1%} ({name}, {median(figures[name]['trie']):.0f} s)")
    titles = (f"{loss}, seconds an epoch" for loss in LOSSES)
    print_table(("model", "most codes after a prefix", *titles, "trie"), rows)
    print(f"ratio: the loss over the trie adds {', '.join(gains)}")
    return figures


def epoch(side, loss):
    """The batches of a side once, with this loss."""
    side.trainer.model.over_trie = loss == "trie"
    side.run()


def parser():
    """The command line: that of ``train_speed.py``."""
    made = train_speed.parser(__doc__)
    made.set_defaults(batch_size=64)
    return made


if __name__ == "__main__":
    main()
