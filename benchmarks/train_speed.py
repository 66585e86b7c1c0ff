"""Seconds per epoch: whole sequences against prefix samples, and against RecBole's SASRec.

Claim checked: decoder-only TIGER trained on whole sequences (``train_sample: sequence``) makes an
epoch at least 5 times as fast as the same model on prefix samples (Amazon_Beauty), with the same
targets. RecBole's SASRec, with RecBole's own loader and trainer, stands beside it.

Whole epochs on prefix samples take long. So each side runs its trainer's own epoch, loading
included, over ``--batches`` of its batches, in turns with the others. The batches of an epoch are
sorted by their longest history and drawn evenly from that order, and seconds are scaled by the
number of batches; what a model does once an epoch (the figures that IntRR and PIT state about
themselves) is timed apart and counted once. ``--full`` runs whole epochs.

All sides have the defaults of their property files except the batch size. TIGER on prefix samples
is no faster in larger batches (512 rows were slower than 128 on a CPU).

Run: ``python benchmarks/train_speed.py --dataset Amazon_Beauty --data_path ../shared/data``
(without ``--data_path`` RecBole's bundled ml-100k).
"""

import argparse
from functools import partial
from statistics import median
from time import perf_counter

import torch
from catalogue import skewed_table
from paired import in_turns, print_setting, print_table, ratio, spread
from recbole.utils import init_seed

from recbole_gr.config import Config
from recbole_gr.data import create_dataset, data_preparation
from recbole_gr.pipeline.item_sids import item_sids
from recbole_gr.registry import get_trainer
from recbole_gr.sid.sizes import codebook_sizes

SEQUENCE, PREFIX, SASREC = "TIGER, sequence", "TIGER, prefix", "SASRec"


def main(arguments=None):
    """Print the table; returns the seconds per epoch of each side by name."""
    options = parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    sides = {
        SEQUENCE: Side("TIGER", "sequence", options.batch_size, options),
        PREFIX: Side("TIGER", "prefix", options.prefix_batch_size, options),
        SASREC: Side("SASRec", None, options.sasrec_batch_size, options),
    }
    print_setting(
        dataset=options.dataset,
        targets=sides[SEQUENCE].targets,
        batches="all" if options.full else options.batches,
        repeats=options.repeats,
        bfloat16=options.enable_amp,
    )
    seconds = in_turns(
        {name: side.run for name, side in sides.items()}, options.repeats, options.warm_up
    )
    epochs = {name: side.epochs(seconds[name]) for name, side in sides.items()}
    rows = [
        (
            name,
            f"{side.parameters:,}",
            f"{len(side.all_batches):,} of {side.batch_size}",
            spread(epochs[name], 1),
            f"{side.targets / median(epochs[name]):,.0f}",
        )
        for name, side in sides.items()
    ]
    header = ("side", "parameters", "batches of an epoch", "seconds an epoch", "targets a second")
    print_table(header, rows)
    gains = {name: ratio(epochs[name], epochs[SEQUENCE]) for name in (PREFIX, SASREC)}
    text = ", ".join(f"{gain:.2f} x {name}" for name, gain in gains.items())
    print(f"ratio: whole sequences train as fast as {text}")
    return epochs


class Side:
    """One model with its trainer and the batches it is timed on; iterates over them as a loader."""

    def __init__(self, model, train_sample, batch_size, options):
        settings = {
            "show_progress": False,
            "enable_amp": options.enable_amp,
            "train_batch_size": batch_size,
        }
        if train_sample:
            settings["train_sample"] = train_sample
        settings.update(getattr(options, "settings", {}))
        if options.data_path:
            settings["data_path"] = options.data_path
        others = getattr(options, "other_models", ())
        files = options.config_files
        config = Config(model, options.dataset, files, settings, other_models=others)
        init_seed(config["seed"], True)
        self.loader, _, self.test = data_preparation(config, create_dataset(config))
        dataset = self.loader._dataset
        parts = [config, dataset]
        if getattr(options, "learn_sids", False):
            parts.append(item_sids(config, dataset).table)
        elif train_sample:
            # The speed does not depend on which SID an item has, so none are learned.
            levels = config["sid_levels"]
            size = codebook_sizes(config["codebook_size"], levels)[0]
            sizes = (size,) * levels + (() if config["collision"] == "share" else (16,))
            parts.append(skewed_table(dataset.item_num - 1, sizes, size))
        if getattr(config.model_class, "needs_content", False):
            parts.append(torch.randn(dataset.item_num, config["content_dim"]))
        network = config.model_class(*parts).to(config["device"])
        self.trainer = get_trainer(config, config.model_class)(config, network)
        self.parameters = sum(p.numel() for p in network.parameters())
        self.batch_size, self.targets = batch_size, len(dataset)
        self.all_batches = self._batches_by_length(dataset)
        n_all, n = len(self.all_batches), options.batches
        if options.full or n >= n_all:
            self.batches = self.all_batches
        else:  # the middle of each of n equal parts
            self.batches = [self.all_batches[(2 * i + 1) * n_all // (2 * n)] for i in range(n)]
        self.scale = n_all / len(self.batches)
        self.end_epoch = getattr(network, "end_epoch", dict)
        network.end_epoch = dict  # no figures after a part of an epoch
        self.shuffle = False  # read by RecBole's trainer, as of a loader

    def _batches_by_length(self, dataset):
        """The rows of every batch of one epoch, shortest histories first."""
        bucketed = getattr(self.loader, "_bucketed", None)
        batches = list((bucketed or self.loader).batch_sampler)
        rows = getattr(self.loader, "rows", torch.arange(len(dataset)))
        lengths = dataset.inter_feat[dataset.item_list_length_field][rows]
        return sorted(batches, key=lambda index: int(lengths[torch.as_tensor(index)].max()))

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return (self.loader.collate_fn(index) for index in self.batches)

    def run(self):
        """Train on the batches once."""
        self.trainer._train_epoch(self, 0, show_progress=False)

    def epochs(self, rounds):
        """Seconds of whole epochs from those of rounds over the batches."""
        start = perf_counter()
        self.end_epoch()
        once = perf_counter() - start
        return [self.scale * seconds + once for seconds in rounds]


def parser(description=__doc__, **options):
    """The command line, for a script of this description; ``options`` as of ``ArgumentParser``."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, **options
    )
    number = partial(made.add_argument, type=int)
    made.add_argument("--dataset", default="ml-100k")
    made.add_argument("--data_path", help="parent folder of the data set")
    made.add_argument("--config_files", nargs="*", help="YAML files of settings for all sides")
    number("--batch_size", default=128, help="windows in a batch of TIGER, sequence")
    number("--prefix_batch_size", default=128, help="rows in a batch of TIGER, prefix")
    number("--sasrec_batch_size", default=2048, help="rows in a batch of SASRec")
    number("--batches", default=12, help="batches of a side in each round")
    number("--repeats", default=3, help="timed rounds")
    number("--warm_up", default=1, help="rounds before them")
    number("--threads", default=0, help="of torch; 0 leaves its default")
    made.add_argument("--full", action="store_true", help="whole epochs")
    made.add_argument("--enable_amp", action="store_true", help="bfloat16 for TIGER and SASRec")
    return made


if __name__ == "__main__":
    main()
