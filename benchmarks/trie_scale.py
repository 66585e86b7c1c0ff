"""The trie at ten million items: build time, memory, and search time against catalogue size.

Claims checked, on random SIDs of 3 levels of 8,192 codes:

* a trie of 10 million SIDs is built in under a minute and takes at most 32 bytes per item;
* recommending by a constrained beam search costs about the same at 100 thousand, 1 and 10 million
  items.

``TIGER`` is the whole of it: an untrained TIGER of default size reads histories of 20 items and
searches. Two stand-ins show the search alone. ``head``: the least that a model does, one output
head per level over ``--features`` features. ``bare``: logits drawn once, so nothing hides the cost
of the search itself. ``no trie`` is what a search without a constraint does too, step and
log-softmax. What grows is the number of codes that may follow a prefix (``most children``), which
the codebook bounds, not the depth or the number of look-ups.

Run: ``python benchmarks/trie_scale.py`` (about 4 GiB of memory).
"""

import argparse
import resource
import sys
from functools import partial
from statistics import median
from time import perf_counter

import torch
from catalogue import random_histories, untrained_tiger
from paired import in_turns, print_setting, print_table, ratio, spread

from recbole_gr.generation.beam_search import beam_search
from recbole_gr.sid.table import SIDTable
from recbole_gr.sid.trie import SIDTrie

MIB = 1 << 20


def main(arguments=None):
    """Print the tables; returns build seconds, bytes per item and search seconds by items."""
    options = parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    sizes = (options.codes,) * options.levels
    print_setting(
        levels=options.levels, codes=options.codes, users=options.users, beam=options.beam
    )
    tries, rows, figures = {}, [], {}
    for n_items in sorted(options.items):
        codes = random_sids(n_items, sizes)
        before = peak_bytes()
        start = perf_counter()
        tries[n_items] = trie = SIDTrie(codes, torch.arange(1, n_items + 1), sizes)
        built = perf_counter() - start
        bytes_per_item = trie.memory_bytes() / n_items
        figures[n_items] = {"build": built, "bytes_per_item": bytes_per_item}
        rows.append(
            (
                f"{n_items:,}",
                f"{built:.2f}",
                f"{bytes_per_item:.1f}",
                f"{trie.memory_bytes() / MIB:.0f}",
                f"{(peak_bytes() - before) / MIB:.0f}",
                trie.n_nodes[1:],
                trie.width,
            )
        )
        del codes
    header = ("items", "build s", "bytes per item", "MiB", "peak +MiB", "prefixes", "most children")
    print_table(header, rows)

    starts = {
        "TIGER": tiger(options.users, sizes),
        "head": head_model(options.users, options.beam, sizes, options.features),
        "bare": constant_model(options.users, options.beam, sizes),
    }
    search = {
        (n_items, name): partial(recommend, start, trie, options.users, options.beam)
        for name, start in starts.items()
        for n_items, trie in tries.items()
    }
    for name, start in starts.items():
        search["no trie", name] = partial(normalise, start, options.users, options.beam, sizes)
    with torch.no_grad():
        seconds = in_turns(search, options.repeats, warm_up=2)
    print()
    rows = []
    for what in [*tries, "no trie"]:
        label = what if isinstance(what, str) else f"{what:,}"
        times = ([1000 * s for s in seconds[what, name]] for name in starts)
        rows.append((label, *(spread(values, 1) for values in times)))
    print_table(("items", *(f"ms a search, {name}" for name in starts)), rows)
    for n_items, figure in figures.items():
        figure.update({name: median(seconds[n_items, name]) for name in starts})
    small, large = min(figures), max(figures)
    growth = {name: ratio(seconds[large, name], seconds[small, name]) for name in starts}
    text = ", ".join(f"{value:.2f} ({name})" for name, value in growth.items())
    print(f"ratio: a search over {large:,} items takes {text} x one over {small:,}")
    return figures


def random_sids(n_items, sizes, seed=0):
    """``[n_items, L]`` codes drawn evenly; with many more SIDs than items hardly any repeat."""
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randint(size, (n_items,), generator=generator) for size in sizes]
    return torch.stack(columns, 1)


def recommend(start, trie, n_users, beam):
    """A search of a batch: the model reads its users, then the beams go down the trie."""
    beam_search(start(), trie, n_users, beam)


def tiger(n_users, sizes, seed=0):
    """The ``start`` of an untrained TIGER of default size on ``n_users`` histories of 20 items."""
    n_known = min(sizes)  # items of the histories; the SIDs that it searches are another matter
    number = torch.arange(n_known).unsqueeze(1).expand(-1, len(sizes))
    model = untrained_tiger(SIDTable.from_item_codes(number, sizes), seed)
    return partial(model.start, random_histories(n_users, 20, n_known, seed))


def constant_model(n_users, beam, sizes, seed=0):
    """The ``start`` of a model whose logits were drawn once: it costs nothing."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(n_users, 1 if level == 0 else beam, size) for level, size in enumerate(sizes)]
    logits = [torch.randn(shape, generator=generator) for shape in shapes]

    def step(level, codes, parents):
        return logits[level] if codes is None else logits[level][:, : codes.shape[1]]

    return lambda: step


def head_model(n_users, beam, sizes, features, seed=0):
    """The ``start`` of one output head per level over hidden states drawn once."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n_users, beam, features, generator=generator)
    heads = [torch.randn(features, size, generator=generator) for size in sizes]

    def step(level, codes, parents):
        return hidden[:, : 1 if codes is None else codes.shape[1]] @ heads[level]

    return lambda: step


def normalise(start, n_users, beam, sizes):
    """What a search does before it looks at a trie: the model's steps and their log-softmax."""
    step = start()
    for level in range(len(sizes)):
        codes = torch.zeros(n_users, beam, dtype=torch.long) if level else None
        step(level, codes, codes).log_softmax(2)  # code 0 of beam 0, whatever the level


def peak_bytes():
    """Largest memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def parser():
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = partial(made.add_argument, type=int)
    add("--items", nargs="+", default=[100_000, 1_000_000, 10_000_000])
    add("--levels", default=3)
    add("--codes", default=8192, help="codes of a level")
    add("--users", default=32, help="users of a batch")
    add("--beam", default=20)
    add("--features", default=128, help="of the hidden states before the output head")
    add("--repeats", default=15, help="timed searches of each size, in turns")
    add("--threads", default=0, help="of torch; 0 leaves its default")
    return made


if __name__ == "__main__":
    main()
