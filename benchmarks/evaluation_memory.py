"""Memory and time of evaluating a large catalogue: no score matrix of users by items is ever made.

Untrained models of their default sizes rank random histories of 20 items in batches, and their
lists go where RecBole's metrics read them, as in an evaluation. The peak is that of the process
while users pass through, beside what it held before the first (model, trie, and IntRR's item side,
which is computed once). A matrix of scores in float32 is stated for comparison.

Run: ``python benchmarks/evaluation_memory.py`` (1 million items, 10,000 users; about 6 GiB).
"""

import argparse
from time import perf_counter

import torch
from catalogue import random_histories, untrained
from paired import print_setting, print_table
from trie_scale import random_sids

from recbole_gr.sid.table import SIDTable
from recbole_gr.storage.memory import peak_memory, reset_peak
from recbole_gr.trainer.evaluation import RankedLists

MIB = 1 << 20
CPU = torch.device("cpu")


def main(arguments=None):
    """Print the table; returns start-up and evaluation figures by model."""
    options = parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    sizes = (options.codes,) * options.levels
    print_setting(items=options.items, users=options.users, codes=options.codes,
                  levels=options.levels, batch=options.batch_size, beam=options.beam)  # fmt: skip
    # Rows in the order of their SIDs, so that no two are alike: a suffix level is not the point.
    codes = random_sids(options.items + options.items // 10, sizes).unique(dim=0)
    table = SIDTable.from_item_codes(codes[: options.items], sizes)
    figures = {name: evaluate(name, table, options) for name in options.models}
    dense = 4 * options.users * options.items
    rows = [
        (
            name,
            f"{figure['before'] / MIB:.0f}",
            f"{figure['more'] / MIB:.0f}",
            f"{figure['first_seconds']:.1f}",
            f"{1000 * figure['seconds_per_user']:.2f}",
        )
        for name, figure in figures.items()
    ]
    header = ("model", "MiB before", "MiB more at the peak", "first batch s", "ms a user")
    print_table(header, rows)
    print(f"a matrix of scores would take {dense / MIB:,.0f} MiB")
    return figures


@torch.no_grad()
def evaluate(name, table, options):
    """Rank all users with one model.

    Returns:
        dict: `before`, resident bytes when the first batch is done; `more`, the peak beyond that;
        `first_seconds` of that batch, `seconds_per_user` of the others; `n_users` ranked.
    """
    model = untrained(name, table, beam_size=options.beam)
    lists = RankedLists(model.trie, [5, 10])
    first = more = 0
    began = start = perf_counter()
    for batch, users in enumerate(torch.arange(options.users).split(options.batch_size)):
        histories = random_histories(len(users), 20, table.n_items - 1, seed=batch)
        beams = model.search(histories)
        items = model.rank(beams, lists.k, histories).items
        lists.add(beams, items, torch.arange(len(users)), histories["item_id"])
        if batch == 0:
            first = perf_counter() - start
            before = peak_after_reset()
            began = perf_counter()
    more = peak_memory(CPU) - before
    rest = max(1, options.users - options.batch_size)
    return {
        "before": before, "more": max(0, more), "first_seconds": first,
        "seconds_per_user": (perf_counter() - began) / rest,
        "n_users": sum(map(len, lists.items)),
    }  # fmt: skip


def peak_after_reset():
    """Resident bytes now, as the peak of what follows begins with them."""
    reset_peak()
    return peak_memory(CPU)


def parser():
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    made.add_argument("--items", type=int, default=1_000_000)
    made.add_argument("--users", type=int, default=10_000)
    made.add_argument("--levels", type=int, default=3)
    made.add_argument("--codes", type=int, default=256)
    made.add_argument("--beam", type=int, default=20)
    made.add_argument("--batch_size", type=int, default=256)
    made.add_argument("--models", nargs="+", default=["TIGER", "IntRR"])
    made.add_argument("--threads", type=int)
    return made


if __name__ == "__main__":
    main()
