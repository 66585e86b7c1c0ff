"""Seconds per epoch and peak memory of training a tokenizer: R3VAE against RQVAE.

Random content of ``--items`` x ``--dim``, 3 levels of 256 codes, each tokenizer with its own
defaults. Start-up (k-means), a pass over all items and the training that the defaults ask for
(R3VAE's steps, RQVAE's epochs) are apart, the last computed from the pass; memory is the peak above
what the process held with the content alone. ``--batches`` times only so many of an epoch's batches
and scales.

Run: ``python benchmarks/tokenizer_cost.py --threads 1``
"""

import argparse
from functools import partial
from time import perf_counter

import torch
from paired import print_setting, print_table

from recbole_gr.registry import get_tokenizer
from recbole_gr.storage import memory
from recbole_gr.tokenizer.r3vae.fit import Fit


def main(arguments=None):
    """Print the table; returns seconds and bytes by tokenizer."""
    options = parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    content = torch.empty(options.items, options.dim)
    content.normal_(generator=torch.Generator().manual_seed(options.seed))
    print_setting(items=options.items, dim=options.dim, codes=options.codes)
    figures = {}
    for name, measure in (("R3VAE", _r3vae), ("RQVAE", _rqvae)):
        tokenizer = get_tokenizer(name)(
            {"codebook_size": options.codes, "seed": options.seed}, options.dim
        )
        memory.reset_peak()
        held = memory.peak_memory(torch.device("cpu"))
        with tokenizer.seeded():
            figures[name] = measure(tokenizer, content, options.batches)
        figures[name]["bytes"] = memory.peak_memory(torch.device("cpu")) - held
    rows = [
        (
            name,
            f"{figure['start']:.1f}",
            f"{figure['epoch']:.1f}",
            f"{figure['batches']:,} of {figure['batch size']}",
            f"{figure['whole']:,.0f}",
            f"{figure['bytes'] / 2**20:,.0f}",
        )
        for name, figure in figures.items()
    ]
    head = "tokenizer", "start, s", "epoch, s", "batches of an epoch", "training, s", "peak MiB"
    print_table(head, rows)
    # Small catalogues may fit into memory that the process already had.
    epoch, whole, space = (
        figures["R3VAE"][k] / max(figures["RQVAE"][k], 1e-9) for k in ("epoch", "whole", "bytes")
    )
    print(
        f"ratio: an epoch of R3VAE takes {epoch:.2f} x RQVAE's time, the start and training of the "
        f"defaults {whole:.3f} x, and {space:.2f} x its memory"
    )
    return figures


def _r3vae(tokenizer, content, most):
    fit, start = Fit(tokenizer, content, False), perf_counter()
    fit.initialize()
    started, optimizer = perf_counter(), fit.optimizer()
    n_batches = len(content) // fit.batch_size
    n = min(n_batches, most or n_batches)
    for _, rows in zip(range(n), fit.batches()):
        fit.step(rows, optimizer)
    seconds = (perf_counter() - started) * n_batches / n
    passes = fit.steps / n_batches
    return _figures(started - start, seconds, n_batches, fit.batch_size, passes)


def _rqvae(tokenizer, content, most):
    start = perf_counter()
    content = tokenizer._normalized(content)
    tokenizer._initialize_codebooks(content)
    started, size = perf_counter(), tokenizer.options["tokenizer_batch_size"]
    n_batches = -(-len(content) // size)
    n = min(n_batches, most or n_batches)
    optimizer = torch.optim.AdamW(tokenizer.parameters())
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_batches)
    tokenizer._train_epoch(content[: n * size], {}, size, optimizer, decay)
    seconds = (perf_counter() - started) * n_batches / n
    passes = tokenizer.options["tokenizer_epochs"]
    return _figures(started - start, seconds, n_batches, size, passes)


def _figures(start, epoch, batches, size, passes):
    whole = start + passes * epoch
    return {"start": start, "epoch": epoch, "batches": batches, "batch size": size, "whole": whole}


def parser():
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    number = partial(made.add_argument, type=int)
    number("--items", default=1_000_000)
    number("--dim", default=384)
    number("--codes", default=256)
    number("--batches", default=0, help="batches that are timed; 0 = the whole epoch")
    number("--seed", default=0)
    number("--threads", default=0, help="of torch; 0 leaves its default")
    return made


if __name__ == "__main__":
    main()
