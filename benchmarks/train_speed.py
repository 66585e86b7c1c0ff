"""Seconds per epoch: whole sequences against prefix samples, and against RecBole's SASRec.

Claim checked: decoder-only TIGER trained on whole sequences (``train_sample: sequence``) makes an
epoch at least 5 times as fast as the same model on prefix samples (Amazon_Beauty), with the same
targets. RecBole's SASRec, with RecBole's own loader, stands beside it.

Whole epochs on prefix samples take long, so each side trains on batches drawn evenly over an
epoch, in turns with the others, and its seconds are scaled by the targets it has covered.

Run: ``python benchmarks/train_speed.py --dataset=Amazon_Beauty --data_path=../shared/data``
"""

import argparse
import os

import torch
from paired import in_turns, print_setting, print_table, ratio, spread
from recbole.utils import init_seed

from recbole_gr.config import Config
from recbole_gr.data import create_dataset, data_preparation
from recbole_gr.registry import get_trainer
from recbole_gr.sid.table import SIDTable

SIDES = {
    "TIGER, sequence": ("TIGER", {"train_sample": "sequence"}),
    "TIGER, prefix": ("TIGER", {"train_sample": "prefix"}),
    "SASRec": ("SASRec", {}),
}


def main(arguments=None):
    """Print the table; returns the seconds per epoch of each side by name."""
    options = parser().parse_args(arguments)
    sides = {name: side(*spec, options) for name, spec in SIDES.items()}
    print_setting(dataset=options.dataset, batches=options.batches, bf16=options.enable_amp)
    steps = {name: part["step"] for name, part in sides.items()}
    seconds = in_turns(steps, options.repeats)
    epochs = {
        name: [value * part["targets"] / part["covered"] for value in seconds[name]]
        for name, part in sides.items()
    }
    rows = [
        [name, f"{part['parameters']:,}", spread(epochs[name], 1)]
        + [f"{part['targets'] / sorted(epochs[name])[len(epochs[name]) // 2]:,.0f}"]
        for name, part in sides.items()
    ]
    print_table(["side", "parameters", "seconds an epoch", "targets a second"], rows)
    for other in ("TIGER, prefix", "SASRec"):
        print(f"ratio: {other} / sequence: {ratio(epochs[other], epochs['TIGER, sequence']):.2f}")
    return epochs


def side(model_name, settings, options):
    """What one side needs: ``step`` trains on its batches once, ``covered`` of all ``targets``."""
    settings = {**settings, "show_progress": False, "enable_amp": options.enable_amp}
    if options.data_path:
        settings["data_path"] = options.data_path
    if model_name == "TIGER":
        settings.update(train_batch_size=options.batch_size)
    config = Config(model_name, options.dataset, config_dict=settings)
    init_seed(config["seed"], True)
    train, _, _ = data_preparation(config, create_dataset(config))
    parts = [config, train._dataset]
    if model_name == "TIGER":
        n_items = train._dataset.item_num - 1
        codes = torch.randint(256, (n_items, 3))
        suffix = torch.arange(n_items).unsqueeze(1) % 16
        sid = SIDTable.from_item_codes(torch.cat([codes, suffix], 1), (256, 256, 256, 16))
        parts.append(sid)
    model = config.model_class(*parts)
    trainer = get_trainer(config, config.model_class)(config, model)
    batches = list(train)
    chosen = batches[:: max(1, len(batches) // options.batches)][: options.batches]
    covered = sum(int(b["n_targets"].sum()) if "n_targets" in b else len(b) for b in chosen)

    def step():
        model.train()
        for batch in chosen:
            trainer.optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=options.enable_amp):
                loss = model.calculate_loss(batch)
            loss.backward()
            trainer.optimizer.step()

    return {
        "step": step,
        "covered": covered,
        "targets": len(train._dataset),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def parser():
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    result.add_argument("--dataset", default="ml-100k")
    result.add_argument("--data_path", default=None)
    result.add_argument("--batches", type=int, default=8, help="batches of a side in each round")
    result.add_argument("--batch_size", type=int, default=128, help="rows of a TIGER batch")
    result.add_argument("--repeats", type=int, default=3)
    result.add_argument("--enable_amp", action="store_true", help="bfloat16")
    return result


if __name__ == "__main__":
    os.makedirs("saved", exist_ok=True)
    main()
