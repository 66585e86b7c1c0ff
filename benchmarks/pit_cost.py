"""What co-evolution costs: an epoch of PIT's second phase against the first, and its index.

Claims checked:

* an epoch of co-evolution takes at most 1.5 times one of warm-up, the refresh of the index
  included: where items evolve in an epoch that judges, and ends a round; where pairs do with 4
  candidates, Item-to-Token frozen (``free`` trains it on);
* the index takes a fixed number of bytes per item;
* a refresh of 1 million items with 4 SIDs each, and the trie built from it, take seconds.

Both phases run their trainer's own epoch over ``--batches`` of its batches, in turns, as in
``train_speed.py``; seconds are scaled to the epoch and a refresh is added to those of co-evolution.
SIDs and content are random: no time depends on them. The large index is synthetic.

Run: ``python benchmarks/pit_cost.py`` (ml-100k, comes with RecBole).
"""

import argparse
from functools import partial
from statistics import median
from time import perf_counter

import torch
from paired import in_turns, print_setting, print_table, ratio, spread
from train_speed import Side
from train_speed import parser as training_parser
from trie_scale import random_sids

from recbole_gr.model.pit.index import EMPTY, BeamIndex

WARM_UP, ITEMS, FROZEN, FREE = "warm-up", "items evolve", "pairs evolve", "pairs evolve, free"


def main(arguments=None):
    """Print the tables; returns seconds by side, bytes per item and seconds of a refresh."""
    options = parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    sides = {
        WARM_UP: Phase(1, {"evolve": "pairs"}, options),
        ITEMS: Phase(2, {"evolve": "items", "evolve_every": 1}, options),
        FROZEN: Phase(2, {"evolve": "pairs"}, options),
        FREE: Phase(2, {"evolve": "pairs", "freeze_i2t": False}, options),
    }
    model = sides[FROZEN].trainer.model
    print_setting(
        dataset=options.dataset,
        targets=sides[WARM_UP].targets,
        candidates=model.n_candidates,
        batches="all" if options.full else options.batches,
        repeats=options.repeats,
        bfloat16=options.enable_amp,
    )
    seconds = in_turns(
        {name: side.run for name, side in sides.items()}, options.repeats, options.warm_up
    )
    epochs = {
        name: [side.scale * s + side.refresh for s in seconds[name]] for name, side in sides.items()
    }
    rows = [
        (name, spread(epochs[name], 2), f"{side.refresh:.3f}", f"{len(side.all_batches)}")
        for name, side in sides.items()
    ]
    print_table(("phase", "seconds an epoch", "of them the refresh", "batches"), rows)

    large = large_index(options)
    print()
    print_table(
        ("items x SIDs", "index bytes an item", "trie bytes an item", "refresh s", "trie s"),
        [
            (
                f"{options.items:,} x {options.sids}",
                f"{large['index_bytes']:.0f}",
                f"{large['trie_bytes']:.0f}",
                f"{large['refresh']:.2f}",
                f"{large['trie']:.2f}",
            )
        ],
    )
    gains = {name: ratio(epochs[name], epochs[WARM_UP]) for name in (ITEMS, FROZEN, FREE)}
    text = ", ".join(f"{gain:.2f} ({name})" for name, gain in gains.items())
    print(f"ratio: an epoch of co-evolution takes x times one of warm-up: {text}")
    return {"epochs": epochs, **large}


class Phase(Side):
    """PIT in one of its phases and the batches it is timed on."""

    def __init__(self, phase, settings, options):
        options.settings = settings
        super().__init__("PIT", "auto", options.batch_size, options)
        self.refresh = 0.0
        if phase == 2:
            self.trainer.model.start_co_evolution()
            self.run()
            start = perf_counter()
            self.end_epoch()
            self.refresh = perf_counter() - start


def large_index(options):
    """Bytes per item and seconds of a synthetic index; medians over ``--index_repeats``."""
    sizes = (options.codes,) * 3
    generator = torch.Generator().manual_seed(0)
    start = torch.cat([torch.zeros(1, 3).long(), random_sids(options.items, sizes)])
    index = BeamIndex(start, sizes, options.sids, options.sids, 0.5, 1.0, 0.01)
    codes = torch.stack(
        [start, *(random_sids(len(start), sizes, seed) for seed in range(1, options.sids))], 1
    )
    log_prob = -3 * torch.rand(codes.shape[:2], generator=generator)
    log_prob[0] = EMPTY
    refresh, build = [], []
    for _ in range(options.index_repeats):
        begun = perf_counter()
        index.refresh(codes, log_prob)
        refreshed = perf_counter()
        trie = index.trie()
        build.append(perf_counter() - refreshed)
        refresh.append(refreshed - begun)
    return {
        "index_bytes": index.memory_bytes() / options.items,
        "trie_bytes": trie.memory_bytes() / options.items,
        "refresh": median(refresh),
        "trie": median(build),
    }


def parser():
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[training_parser(add_help=False)],
        conflict_handler="resolve",
    )
    number = partial(made.add_argument, type=int)
    number("--batch_size", default=32, help="windows in a batch")
    number("--items", default=1_000_000, help="items of the synthetic index")
    number("--sids", default=4, help="SIDs of each of its items")
    number("--codes", default=256, help="codes of each of its 3 levels")
    number("--index_repeats", default=3, help="refreshes that are timed")
    return made


if __name__ == "__main__":
    main()
