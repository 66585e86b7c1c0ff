"""Seconds of a test of all users beside those of a training epoch.

Claim checked: ranking all 22,363 test users of Amazon_Beauty takes at most as long as an epoch of
training, for TIGER with ``--beam 20``, PIT and IntRR.

An epoch is timed as in ``train_speed.py``, over ``--batches`` batches of whole sequences. The test
is the trainer's own, over ``--users`` users drawn by the seed, scaled to all of them. Both take
turns. Weights are hardly trained: what a search costs does not depend on them.

Run: ``python benchmarks/evaluation_time.py --dataset Amazon_Beauty --data_path ../shared/data``
(without ``--data_path`` RecBole's bundled ml-100k).
"""

import argparse
from functools import partial
from statistics import median

import torch
import train_speed
from paired import in_turns, print_setting, print_table, ratio, spread

from recbole_gr.trainer.evaluation import sample_users

MODELS = ("TIGER", "PIT", "IntRR")


def main(arguments=None):
    """Print the table; returns by model the seconds of an epoch and of a test."""
    options = parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = {"beam_size": options.beam}
    own = argparse.Namespace(**{**vars(options), "settings": settings, "other_models": MODELS})
    rows, gains, figures = [], [], {}
    for name in MODELS:
        side = train_speed.Side(name, "sequence", options.batch_size, own)
        users = sample_users(side.test, options.users, side.test.config["seed"])
        scale = len(side.test.dataset) / len(users.dataset)
        test = partial(side.trainer.evaluate, users, load_best_model=False)
        run = {"epoch": side.run, "test": test}
        if not rows:
            print_setting(
                dataset=options.dataset,
                users=f"{len(users.dataset):,} of {len(side.test.dataset):,}",
                beam=options.beam,
                batch=options.batch_size,
                repeats=options.repeats,
                bfloat16=options.enable_amp,
            )
        seconds = in_turns(run, options.repeats, options.warm_up)
        epochs, tests = side.epochs(seconds["epoch"]), [scale * s for s in seconds["test"]]
        figures[name] = {"epoch": epochs, "test": tests}
        share = ratio(tests, epochs)
        rows.append((name, spread(epochs, 1), spread(tests, 1), f"{share:.2f}"))
        gains.append(f"{share:.2f} of an epoch ({name}, {median(tests):.0f} s)")
    print_table(("model", "seconds an epoch", "seconds a test of all users", "test / epoch"), rows)
    print(f"ratio: a test of all users takes {', '.join(gains)}")
    return figures


def parser():
    """The command line: that of ``train_speed.py`` with the beam and the users."""
    made = train_speed.parser(__doc__)
    made.add_argument("--beam", type=int, default=20, help="beam_size")
    made.add_argument("--users", type=int, default=4000, help="that are ranked in a round")
    made.set_defaults(batch_size=64)
    return made


if __name__ == "__main__":
    main()
