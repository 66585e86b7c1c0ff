"""Processor time of a test and of an epoch where a process keeps its memory, and where it does not.

Claim checked: keeping memory (``recbole_gr/compat/memory.py``) makes neither slower on a CPU, and a
test of TIGER at least a tenth faster.

It is settled when a process starts, so processes take turns: each trains on ``--batches`` batches
and searches for ``--users`` users, after a round that is not timed, and prints what a whole epoch
and a whole test would take. Weights are hardly trained, which changes nothing of the cost.

Run: ``python benchmarks/kept_memory.py --dataset Amazon_Beauty --data_path ../shared/data``
(without ``--data_path`` RecBole's bundled ml-100k).
"""

import argparse
import json
import os
import subprocess
import sys
from statistics import median
from time import process_time

from paired import print_setting, print_table, ratio, spread

from recbole_gr.compat.memory import SWITCH

SIDES = {"kept": "1", "given back": "0"}


def main(arguments=None):
    """Print the table; returns by side and kind the seconds of each process."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(arguments)
    if options.once:
        print(json.dumps(measure(options)))
        return None
    print_setting(dataset=options.dataset, beam=options.beam, processes=options.repeats)
    found = {name: {"test": [], "epoch": []} for name in SIDES}
    for _ in range(options.repeats):
        for name, switch in SIDES.items():
            command = [sys.executable, __file__, "--once", *arguments]
            done = subprocess.run(
                command, env={**os.environ, SWITCH: switch}, check=True, stdout=subprocess.PIPE
            )
            for kind, seconds in json.loads(done.stdout.splitlines()[-1]).items():
                found[name][kind].append(seconds)
    rows, gains = [], []
    for kind in ("test", "epoch"):
        sides = [found[name][kind] for name in SIDES]
        share = ratio(*sides)
        rows.append((kind, *(spread(seconds, 1) for seconds in sides), f"{share:.2f}"))
        gains.append(f"{share:.2f} of the time of a{'n' * (kind[0] == 'e')} {kind}")
    print_table(("", *(f"{name}, s" for name in SIDES), "ratio"), rows)
    print(f"ratio: a process that keeps its memory takes {' and '.join(gains)}")
    return found


def measure(options):
    """In this process: processor seconds of a test of all users and of an epoch."""
    import torch
    import train_speed

    from recbole_gr.trainer.evaluation import sample_users

    if options.threads:
        torch.set_num_threads(options.threads)
    settings = {"beam_size": options.beam, "tokenizer": "RKMeans"}
    own = argparse.Namespace(**{**vars(options), "settings": settings, "learn_sids": True})
    side = train_speed.Side("TIGER", "sequence", options.batch_size, own)
    users = sample_users(side.test, options.users, side.test.config["seed"])
    scale = len(side.test.dataset) / len(users.dataset)

    def test():
        side.trainer.evaluate(users, load_best_model=False)

    return {"test": timed(test) * scale, "epoch": timed(side.run) * side.scale}


def timed(function, times=3):
    """Median processor seconds of a call, after one that is not counted."""
    seconds = []
    for _ in range(times + 1):
        start = process_time()
        function()
        seconds.append(process_time() - start)
    return median(seconds[1:])


def parser():
    """The command line: that of ``train_speed.py`` with the beam and the users."""
    from train_speed import parser as of_speed

    made = of_speed(__doc__)
    made.add_argument("--beam", type=int, default=20, help="beam_size")
    made.add_argument("--users", type=int, default=2000, help="that are ranked")
    made.add_argument("--once", action="store_true", help="measure in this process")
    made.set_defaults(batch_size=64)
    return made


if __name__ == "__main__":
    main()
