"""Cost of IntRR against its flattened counterpart: training, memory and the latency of a search.

Claims checked: with one token per item IntRR trains at least 3 times as many targets a second as
decoder-only TIGER on the same backbone and as long a history, keeps a fraction of the activations,
and answers faster at every beam width although TIGER decodes with a cache of keys and values.
RecBole's SASRec stands beside the epochs.

Training is timed as in ``train_speed.py``: each side's own epoch over ``--batches`` batches, in
turns, scaled to an epoch. Activations are the bytes that the forward pass of one batch (the one of
median length) keeps for the backward pass, storages counted once and weights left out; unlike the
peak of a process they do not depend on what ran before. Latency is that of ``generate`` for
``--users`` users with histories of ``--history`` items, the item tokens being ready as they are in
an evaluation; "exact" scores every item of the catalogue.

Run: ``python benchmarks/intrr_cost.py --dataset Amazon_Beauty --data_path ../shared/data``
(without ``--data_path`` RecBole's bundled ml-100k); the released sizes with
``--preset properties/preset/intrr_paper.yaml properties/preset/intrr_rkmeans.yaml``.
"""

from functools import partial
from statistics import median

import torch
from catalogue import random_histories
from paired import in_turns, print_setting, print_table, ratio, spread
from train_speed import Side
from train_speed import parser as train_parser

from recbole_gr.config.parsing import read_yaml

INTRR, TIGER, SASREC = "IntRR", "TIGER, flattened", "SASRec"
BACKBONE = (
    "backbone position hidden_size n_layers n_heads head_size inner_size feed_forward_depth "
    "dropout attention_dropout MAX_ITEM_LIST_LENGTH"
).split()


def main(arguments=None):
    """Print the tables; returns seconds an epoch, bytes and seconds of a search, by side."""
    options = parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    options.settings, options.other_models = sizes(options), ("IntRR", "TIGER")
    sides = {INTRR: Side("IntRR", "sequence", options.batch_size, options)}
    config = sides[INTRR].trainer.config
    shared = (*BACKBONE, "codebook_size", "sid_levels")
    options.settings = {key: config[key] for key in shared}
    sides[TIGER] = Side("TIGER", "sequence", options.batch_size, options)
    options.settings = {"MAX_ITEM_LIST_LENGTH": config["MAX_ITEM_LIST_LENGTH"]}
    sides[SASREC] = Side("SASRec", None, options.sasrec_batch_size, options)
    print_setting(
        dataset=options.dataset,
        targets=sides[INTRR].targets,
        batches="all" if options.full else options.batches,
        repeats=options.repeats,
        **{key: config[key] for key in BACKBONE},
    )
    epochs, kept = training(sides, options)
    searches = latency({name: sides[name].trainer.model for name in (INTRR, TIGER)}, options)
    faster = ", ".join(
        f"{ratio(times[TIGER], times[INTRR]):.2f} at {beam}" for beam, times in searches.items()
    )
    print(
        f"ratio: IntRR trains {ratio(epochs[TIGER], epochs[INTRR]):.2f} x as fast as TIGER, "
        f"{ratio(epochs[SASREC], epochs[INTRR]):.2f} x as fast as SASRec, keeps "
        f"{kept[INTRR] / kept[TIGER]:.2f} of TIGER's activations, and is faster to search by "
        f"{faster} beams"
    )
    return {"epochs": epochs, "kept": kept, "searches": searches}


def sizes(options):
    """IntRR's settings: those of the presets, and the backbone asked for."""
    settings = {}
    for file in options.preset or ():
        settings.update(read_yaml(file))
    for key in ("model", "train_batch_size", "train_sample", "accumulation_steps"):
        settings.pop(key, None)
    if options.backbone is not None:
        settings["backbone"] = options.backbone
    if options.heads is not None:
        settings["n_heads"], settings["head_size"] = options.heads
    return settings


def training(sides, options):
    """``(seconds an epoch of every round, bytes kept)`` of each side."""
    seconds = in_turns(
        {name: side.run for name, side in sides.items()}, options.repeats, options.warm_up
    )
    epochs = {name: side.epochs(seconds[name]) for name, side in sides.items()}
    kept = {name: kept_bytes(side) for name, side in sides.items()}
    rows = [
        (
            name,
            f"{side.parameters:,}",
            f"{len(side.all_batches):,} of {side.batch_size}",
            spread(epochs[name], 1),
            f"{side.targets / median(epochs[name]):,.0f}",
            f"{kept[name] / 2**20:.1f}",
        )
        for name, side in sides.items()
    ]
    header = ("side", "parameters", "batches", "seconds an epoch", "targets a second", "kept MiB")
    print_table(header, rows)
    return epochs, kept


def kept_bytes(side):
    """Bytes that the loss of a batch of median length keeps for the backward pass."""
    model = side.trainer.model.train()
    batch = side.loader.collate_fn(side.batches[len(side.batches) // 2])
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that none is reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model.calculate_loss(batch.to(side.trainer.device))
    return sum(size for pointer, (size, _) in seen.items() if pointer not in weights)


@torch.no_grad()
def latency(models, options):
    """``{beam: {side: seconds of every round}}``; exact scoring beside the beams."""
    n_items = models[INTRR].n_items - 1
    batch = random_histories(options.users, options.history, n_items)
    batch = batch.to(next(models[INTRR].parameters()).device)
    for model in models.values():
        model.eval()
    searches, rows = {}, []
    for beam in options.beams:
        functions = {
            name: partial(model.generate, batch, min(10, beam), beam)
            for name, model in models.items()
        }
        functions["exact"] = partial(models[INTRR].exact, batch)
        searches[beam] = in_turns(functions, options.search_repeats, 1)
        milliseconds = [[1000 * s for s in times] for times in searches[beam].values()]
        gain = ratio(searches[beam][TIGER], searches[beam][INTRR])
        rows.append((beam, *(spread(times, 1) for times in milliseconds), f"{gain:.2f}"))
    print_table(("beam", f"{INTRR}, ms", f"{TIGER}, ms", "IntRR exact, ms", "TIGER / IntRR"), rows)
    return searches


def parser():
    """The command line."""
    made = train_parser(conflict_handler="resolve")
    made.description = __doc__
    made.add_argument("--backbone", help="transformer, hstu or hstu_original; by default IntRR's")
    made.add_argument("--heads", type=int, nargs=2, help="their number and size")
    made.add_argument("--preset", nargs="*", help="properties/preset files with IntRR's sizes")
    made.add_argument("--beams", type=int, nargs="*", default=[10, 20, 30, 50])
    made.add_argument("--users", type=int, default=8, help="in a search (8: the paper's likely)")
    made.add_argument("--history", type=int, default=32, help="items of a history in a search")
    made.add_argument("--search_repeats", type=int, default=5, help="timed rounds of a search")
    return made


if __name__ == "__main__":
    main()
