"""SIDs in place of item ids in a click-through model, for items that training has not seen.

    python studies/r3vae/cold_start.py --data_path=../shared/data --write

For each data set, seed and tokenizer DeepFM is trained on item ids, on SIDs in their place, and on
both. Amazon sets become click-through data by one negative a purchase: an item that the user never
bought, drawn evenly from those sold before, at the purchase's time. The split is by time (80, 10,
10 %), so that items of the test that training has not seen are new ones; ml-100k has its ratings
(4 and more are liked). AUC over the test rows of items with 0, 1 to 5 and more training rows; the
95 % intervals of differences are over items, whose rows are drawn together, the seeds averaged. A
control ranks by the number of an item's training rows alone.

What is finished is kept, and the same command goes on. `cold_start.md` is written beside the study.
"""

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from recbole_gr.commands.sid_features import VARIANTS, compare_features, sid_features
from recbole_gr.report.table import Column, table_text, write_files
from recbole_gr.run import model as run
from recbole_gr.storage.files import atomic_write
from recbole_gr.trainer.buckets import ItemBuckets

HERE = Path(__file__).parent
DATASETS = ("Amazon_Beauty", "Amazon_Toys_and_Games", "ml-100k")
TOKENIZERS = ("R3VAE", "PRQKMeans", "RKMeans", "RQVAE", "OPQ")
BUCKETS = {"0": (0, 1), "1-5": (1, 6), "6+": (6, np.inf)}
COUNTED = "(none: number of training rows)"
DRAWS = 1000
SETTINGS = {
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": None,
                  "mode": "labeled"},
    "metrics": ["AUC", "LogLoss"], "valid_metric": "AUC", "embedding_size": 16,
    "mlp_hidden_size": [64, 32], "train_batch_size": 2048, "epochs": 8, "stopping_step": 2,
    "learning_rate": 0.002, "show_progress": False, "sid_gate": "warn",
}  # fmt: skip


class Rows(ItemBuckets):
    """The buckets of a test, which keep their rows: item, label and score."""

    kept = None

    def __init__(self, edges, counts, config):
        super().__init__(edges, counts, config)
        Rows.kept = self
        self.counts, self.items = counts, []

    def add(self, scores, interaction, positive_u, positive_i):
        super().add(scores, interaction, positive_u, positive_i)
        self.items.append(interaction[self._config["ITEM_ID_FIELD"]])

    def arrays(self):
        items = np.concatenate([part.numpy() for part in self.items])
        parts = (self._labels, self._scores)
        labels, scores = (np.concatenate([p.float().numpy() for p in part]) for part in parts)
        return {
            "item": items.tolist(), "seen": self.counts[items].tolist(),
            "label": labels.astype(int).tolist(), "score": scores.astype(float).round(6).tolist(),
        }  # fmt: skip


def main(arguments=None):
    options = parser().parse_args(arguments)
    kept = Path(options.output)
    run.ItemBuckets = Rows
    found = json.loads(kept.read_text()) if kept.is_file() else {}
    runs = list(product(options.datasets, options.seeds, options.tokenizers))
    for dataset, seed, tokenizer in tqdm(runs, disable=not options.show_progress):
        name, settings = _data(dataset, options.data_path, kept.parent)
        given = {**SETTINGS, **settings, "seed": seed, "tokenizer": tokenizer}
        given |= dict(pair.split("=", 1) for pair in options.set)
        by_row = found.setdefault(dataset, {}).setdefault(str(seed), {})
        rows = {f"{tokenizer}, {variant}": variant for variant in VARIANTS[1:]}
        rows[VARIANTS[0]] = VARIANTS[0]
        if missing := {row: variant for row, variant in rows.items() if row not in by_row}:
            written = sid_features(name, str(kept.parent / "sids"), config_dict=given)
            for row, variant in missing.items():
                compare_features(written, "DeepFM", config_dict=given, variants=[variant])
                by_row[row] = Rows.kept.arrays()
                with atomic_write(kept) as temporary:
                    temporary.write_text(json.dumps(found))
    figures = {dataset: compared(by_seed) for dataset, by_seed in found.items()}
    page = "\n\n".join(_page(dataset, each) for dataset, each in figures.items()) + "\n"
    print(page)
    if options.write:
        write_files(HERE, "cold_start", md=page, data=figures)
    return figures


def _data(dataset, data_path, folder):
    """The name of a click-through data set, and its settings; made where it is not there."""
    if dataset == "ml-100k":
        fields = ["user_id", "item_id", "rating", "timestamp"]
        load_col = {"inter": fields, "item": ["item_id", "movie_title", "class"]}
        return dataset, {"threshold": {"rating": 4}, "load_col": load_col}
    name = f"{dataset}-clicks"
    target, source = folder / name, Path(data_path) / dataset
    if not (target / f"{name}.inter").is_file():
        clicks = with_negatives(pd.read_csv(source / f"{dataset}.inter", sep="\t", dtype=str))
        target.mkdir(parents=True, exist_ok=True)
        for suffix in (".item", ".itememb.npy"):
            with atomic_write(target / f"{name}{suffix}") as temporary:
                temporary.write_bytes((source / f"{dataset}{suffix}").read_bytes())
        with atomic_write(target / f"{name}.inter") as temporary:
            clicks.to_csv(temporary, sep="\t", index=False)
    fields = ["user_id", "item_id", "label", "timestamp"]
    load_col = {"inter": fields, "item": ["item_id"]}
    return name, {"data_path": str(folder), "load_col": load_col, "LABEL_FIELD": "label"}


def with_negatives(purchases, seed=0):
    """Purchases with one negative each, in the order of time; columns of an `.inter` file."""
    rng = np.random.default_rng(seed)
    user, item, time = (purchases[c] for c in ("user_id:token", "item_id:token", "timestamp:float"))
    times = time.astype(float).to_numpy()
    order = np.argsort(times, kind="stable")
    items, users = item.to_numpy()[order], user.to_numpy()[order]
    first = {}
    for place, token in enumerate(items):
        first.setdefault(token, place)
    sold = np.array(list(first))  # by their first sale
    known = np.searchsorted(np.array(list(first.values())), np.arange(len(items)), side="right")
    bought = set(zip(users, items))
    drawn = sold[rng.integers(0, known)]
    for _ in range(100):
        wrong = [n for n, pair in enumerate(zip(users, drawn)) if pair in bought]
        if not wrong:
            break
        drawn[wrong] = sold[rng.integers(0, known[wrong])]
    pairs = [(users, items, "1"), (users, drawn, "0")]
    parts = [
        pd.DataFrame({"user_id:token": u, "item_id:token": i, "label:float": label,
                      "timestamp:float": time.to_numpy()[order]})
        for u, i, label in pairs
    ]  # fmt: skip
    both = pd.concat(parts).iloc[np.argsort(np.tile(np.arange(len(items)), 2), kind="stable")]
    rows = both.iloc[:, :3].itertuples(index=False)
    return both[[label == "1" or (user, item) not in bought for user, item, label in rows]]


def compared(by_seed):
    """By bucket: `rows`, `items`, and by row of the table the mean AUC over seeds (`auc`) and its
    differences to item ids (`to_ids`) and to RKMeans's same variant (`to_rkmeans`), each
    ``[mean, low, high]``; None where labels are all alike."""
    return {bucket: _of_bucket(by_seed, *edges) for bucket, edges in BUCKETS.items()}


def _of_bucket(by_seed, low, high):
    one = next(iter(next(iter(by_seed.values())).values()))
    inside = (np.array(one["seen"]) >= low) & (np.array(one["seen"]) < high)
    items, place = np.unique(np.array(one["item"])[inside], return_inverse=True)
    labels = np.array(one["label"])[inside]
    figures = {"rows": int(inside.sum()), "items": len(items)}
    if len(set(labels)) < 2:
        return {**figures, "by_row": None}
    rng = np.random.default_rng(0)
    draws = rng.multinomial(len(items), np.full(len(items), 1 / len(items)), size=DRAWS)
    weights = [np.ones(len(labels)), *(draw[place] for draw in draws)]
    areas = {COUNTED: auc(labels, np.array(one["seen"])[inside], weights)}
    # By row [1 + DRAWS], the mean over seeds.
    for row in next(iter(by_seed.values())):
        own = [np.array(rows[row]["score"])[inside] for rows in by_seed.values() if row in rows]
        areas[row] = np.mean([auc(labels, scores, weights) for scores in own], 0)
    by_row = {}
    for row, area in areas.items():
        twin = f"RKMeans, {row.partition(', ')[2]}"
        by_row[row] = {
            "auc": _interval(area),
            "to_ids": _interval(area - areas[VARIANTS[0]]) if row != VARIANTS[0] else None,
            "to_rkmeans": _interval(area - areas[twin]) if twin in areas and twin != row else None,
        }
    return {**figures, "by_row": by_row}


def auc(labels, scores, weights):
    """Areas under the curve of rows for each of several weightings of them; ties count half."""
    _, place = np.unique(scores, return_inverse=True)
    areas = []
    for weight in weights:
        positive = np.bincount(place, weight * labels)
        negative = np.bincount(place, weight * (1 - labels))
        below = negative.cumsum() - negative / 2
        pairs = positive.sum() * negative.sum()
        areas.append((positive * below).sum() / pairs if pairs else np.nan)
    return np.array(areas)


def _interval(areas):
    low, high = np.nanquantile(areas[1:], [0.025, 0.975])
    return [float(areas[0]), float(low), float(high)]


def _page(dataset, figures):
    parts = [f"## {dataset}"]
    for bucket, found in figures.items():
        parts.append(
            f"Items with {bucket} training rows: {found['rows']} rows of {found['items']} items"
        )
        head = [Column(t) for t in ("DeepFM reads", "AUC", "minus item ids", "minus RKMeans")]
        lines = [
            [row, *(_text(values[k], k != "auc") for k in ("auc", "to_ids", "to_rkmeans"))]
            for row, values in (found["by_row"] or {}).items()
        ]
        parts.append(table_text(head, lines))
    return "\n\n".join(parts)


def _text(values, signed):
    if values is None:
        return None
    mean, low, high = (f"{value:{'+' if signed else ''}.3f}" for value in values)
    return f"{mean} [{low}, {high}]"


def parser():
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    made.add_argument("--data_path", default="../shared/data")
    made.add_argument("--output", default="saved/r3vae/cold_start.json")
    made.add_argument("--datasets", nargs="*", default=list(DATASETS))
    made.add_argument("--tokenizers", nargs="*", default=list(TOKENIZERS))
    made.add_argument("--seeds", nargs="*", type=int, default=[2020, 2021, 2022])
    made.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings")
    made.add_argument("--write", action="store_true", help="cold_start.md and .json of the study")
    made.add_argument("--show_progress", action="store_true")
    return made


if __name__ == "__main__":
    main()
