"""Log-likelihood of the test targets after one temperature for all codes, fitted on validation.

A model that is kept at the epoch of its best ranking is too sure of itself by then, one that was
trained with a regulariser less so. Their log-likelihoods differ by that, whatever they know of the
items. The logits of all codes are divided by the temperature under which the validation targets are
likeliest; what remains is compared, user by user, with the first checkpoint.

Run: ``python benchmarks/tempered.py saved/PIT-a.pth saved/PIT-b.pth`` (generative models that were
tested on the same users; ``--data_path=...`` where the data lie elsewhere now).
"""

import argparse
import math

import torch
from paired import print_table

from recbole_gr.serving.restore import load_data_and_model

LOWEST, HIGHEST, STEPS = 0.5, 3.0, 8


@torch.no_grad()
def likelihood(model, loader, temperature=1.0, most=None):
    """``[n]`` log-probability of the targets, in the order of the users' numbers.

    Args:
        most: users at most, of the first batches.
    """
    start = type(model).start

    def tempered(batch):
        step = start(model, batch)
        return lambda *parts: step(*parts) / temperature

    model.start = tempered
    values, users, seen = [], [], 0
    try:
        for batch, *_ in loader:
            values.append(model.predict(batch))
            users.append(batch["user_id"])
            seen += len(batch)
            if most is not None and seen >= most:
                break
    finally:
        del model.start
    return torch.cat(values)[torch.cat(users).argsort()]


def fitted_temperature(model, loader, most):
    """The temperature under which validation targets are likeliest, by a golden section of its
    logarithm; the mean log-probability has one maximum."""
    ratio = (math.sqrt(5) - 1) / 2
    low, high = math.log(LOWEST), math.log(HIGHEST)

    def mean(place):
        return float(likelihood(model, loader, math.exp(place), most).mean())

    inner = [high - ratio * (high - low), low + ratio * (high - low)]
    found = [mean(place) for place in inner]
    for _ in range(STEPS):
        if found[0] > found[1]:
            high, inner[1], found[1] = inner[1], inner[0], found[0]
            inner[0] = high - ratio * (high - low)
            found[0] = mean(inner[0])
        else:
            low, inner[0], found[0] = inner[0], inner[1], found[1]
            inner[1] = low + ratio * (high - low)
            found[1] = mean(inner[1])
    return math.exp((low + high) / 2)


def difference(values, others):
    """Mean over users, with its standard error."""
    gap = values - others
    return f"{float(gap.mean()):+.4f} +- {float(gap.std()) / math.sqrt(len(gap)):.4f}"


def main(arguments=None):
    """Print the table; returns ``{checkpoint: (temperature, mean, tempered mean)}``."""
    options = parser().parse_args(arguments)
    overrides = {"data_path": options.data_path} if options.data_path else {}
    found, first, rows = {}, None, []
    for file in options.checkpoints:
        _, model, _, _, valid, test = load_data_and_model(file, **overrides)
        model.eval()
        temperature = fitted_temperature(model, valid, options.users)
        both = [likelihood(model, test, t) for t in (1.0, temperature)]
        first = first or both
        rows.append(
            (
                file, f"{temperature:.2f}", f"{float(both[0].mean()):.4f}",
                difference(both[0], first[0]), f"{float(both[1].mean()):.4f}",
                difference(both[1], first[1]),
            )
        )  # fmt: skip
        found[file] = temperature, float(both[0].mean()), float(both[1].mean())
    heads = "temperature", "log-likelihood", "over the first", "tempered", "over the first"
    print_table(("checkpoint", *heads), rows)
    gained = [tempered - plain for _, plain, tempered in found.values()]
    print(f"ratio: a temperature gives {min(gained):.3f} to {max(gained):.3f} nats")
    return found


def parser():
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("checkpoints", nargs="+", help="checkpoints of generative models")
    made.add_argument("--data_path", help="folder of the data sets")
    made.add_argument("--users", type=int, default=6000, help="validation users to fit by")
    return made


if __name__ == "__main__":
    main()
