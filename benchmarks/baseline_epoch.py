"""Seconds per epoch of a causal baseline of RecBole's: its prefix samples against whole sequences.

Claim checked: ``train_sample: sequence`` makes an epoch of SASRec at least 5 times as fast as
RecBole's own on Amazon_Beauty (histories of 20), and 15 times on ml-100k (50), with the same
targets in batches of as many. ``--negatives K`` adds a third side with ``softmax_negatives: K``.

Epochs are the trainer's own, loading included, over ``--batches`` batches as in ``train_speed.py``
(``--full``: all), in turns.

Run: ``python benchmarks/baseline_epoch.py --dataset Amazon_Beauty --data_path ../shared/data``
(without ``--data_path`` RecBole's bundled ml-100k).
"""

import argparse
from statistics import median

import torch
import train_speed
from paired import in_turns, print_setting, print_table, ratio, spread

PREFIX, SEQUENCE, SAMPLED = "prefix", "sequence", "sequence, sampled softmax"


def main(arguments=None):
    """Print the table; returns the seconds per epoch of each side by name."""
    options = parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    length = {"MAX_ITEM_LIST_LENGTH": options.history} if options.history else {}
    whole = {**length, "train_sample": "sequence"}
    settings = {PREFIX: length, SEQUENCE: whole}
    if options.negatives:
        settings[SAMPLED] = {**whole, "softmax_negatives": options.negatives}
    sides = {name: side(options, given) for name, given in settings.items()}
    print_setting(
        model=options.model,
        dataset=options.dataset,
        targets=sides[PREFIX].targets,
        history=sides[PREFIX].loader.config["MAX_ITEM_LIST_LENGTH"],
        batch=options.sasrec_batch_size,
        batches="all" if options.full else options.batches,
        repeats=options.repeats,
        bfloat16=options.enable_amp,
    )
    runs = {name: one.run for name, one in sides.items()}
    seconds = in_turns(runs, options.repeats, options.warm_up)
    epochs = {name: one.epochs(seconds[name]) for name, one in sides.items()}
    header = ("train_sample", "batches of an epoch", "seconds an epoch", "targets a second")
    rows = [
        (
            name,
            f"{len(one.all_batches):,}",
            spread(epochs[name], 1),
            f"{one.targets / median(epochs[name]):,.0f}",
        )
        for name, one in sides.items()
    ]
    print_table(header, rows)
    gains = [
        f"{ratio(epochs[PREFIX], epochs[name]):.1f} x ({name})" for name in sides if name != PREFIX
    ]
    print(f"ratio: an epoch on prefix samples takes as long as {', '.join(gains)}")
    return epochs


def side(options, settings):
    """A side of ``train_speed.py`` with settings of its own."""
    own = argparse.Namespace(**{**vars(options), "settings": settings})
    return train_speed.Side(options.model, None, options.sasrec_batch_size, own)


def parser():
    """The command line: that of ``train_speed.py`` with the model and the sampled softmax."""
    made = train_speed.parser(__doc__)
    made.add_argument("--model", default="SASRec")
    made.add_argument("--negatives", type=int, default=0, help="adds a side of sampled softmax")
    made.add_argument("--history", type=int, help="MAX_ITEM_LIST_LENGTH")
    return made


if __name__ == "__main__":
    main()
