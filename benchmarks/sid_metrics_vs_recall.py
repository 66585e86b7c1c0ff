"""Do SID metrics tell, before a recommender is trained, which tokenizer it will do best on?

Trains the same TIGER on the SIDs of several tokenizer settings and prints the rank correlation
(Spearman) of SC, SC of the content, PD, collision rate and perplexity with test Recall@10. R3-VAE
reports 0.94 (SC), -0.75 (PD) and -0.93 (collision rate) over its tokenizers (arXiv 2604.11440,
table 7). Collapsed settings are part of the range, so the gate is off.

Run: ``python benchmarks/sid_metrics_vs_recall.py`` with ``--dataset Amazon_Beauty --data_path
../shared/data``. Trains one recommender a setting: hours. ``--set epochs=10`` shortens it;
``--output`` keeps what is finished, and a second run with the same file goes on from there.
"""

import argparse
import json
from pathlib import Path

from paired import print_setting, print_table
from scipy.stats import spearmanr

from recbole_gr.config import Config
from recbole_gr.quick_start import run_model
from recbole_gr.storage.files import atomic_write

SETTINGS = {
    "R3VAE": {"tokenizer": "R3VAE"},
    "R3VAE, top1_rating": {"tokenizer": "R3VAE", "rating_mode": "top1_rating"},
    "R3VAE, softmax 0.02": {
        "tokenizer": "R3VAE",
        "rating_mode": "softmax",
        "rating_temperature": 0.02,
    },
    "R3VAE, softmax 1": {"tokenizer": "R3VAE", "rating_mode": "softmax"},
    "R3VAE, no reference": {"tokenizer": "R3VAE", "reference_init": "none"},
    "R3VAE, random start": {"tokenizer": "R3VAE", "kmeans_init": False},
    "RQVAE": {"tokenizer": "RQVAE"},
    "RQVAE, random start, no restart": {
        "tokenizer": "RQVAE",
        "kmeans_init": False,
        "restart_dead_codes": False,
    },
    "RKMeans": {"tokenizer": "RKMeans"},
    "OPQ": {"tokenizer": "OPQ"},
}
METRICS = ("SC", "SC content", "PD", "collision rate", "perplexity")


def main(arguments=None):
    """Print figures and correlations; returns them as two dictionaries."""
    options = parser().parse_args(arguments)
    given = dict(pair.split("=", 1) for pair in options.set)
    if options.data_path:
        given["data_path"] = options.data_path
    names = options.only or list(SETTINGS)
    print_setting(dataset=options.dataset, settings=len(names), **given)
    kept = Path(options.output) if options.output else None
    figures = json.loads(kept.read_text()) if kept and kept.is_file() else {}
    for name in names:
        if name in figures:
            continue
        settings = {"sid_gate": "off", **given, **SETTINGS[name]}
        others = sorted({setting["tokenizer"] for setting in SETTINGS.values()})
        config = Config(
            options.model,
            options.dataset,
            options.config_files,
            settings,
            other_tokenizers=others,
        )
        figures[name] = _figures(run_model(config))
        if kept:
            with atomic_write(kept) as tmp:
                tmp.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    shown = [*METRICS, "recall@10"]
    figures = {name: figures[name] for name in names}
    print_table(
        ["tokenizer", *shown],
        [[name, *(_shown(row[key]) for key in shown)] for name, row in figures.items()],
    )
    correlations = correlated(figures)
    text = ", ".join(f"{key} {value:+.2f}" for key, value in correlations.items())
    print(f"ratio: rank correlation with Recall@10 over {len(compared(figures))} settings: {text}")
    return figures, correlations


def compared(figures):
    """Figures of all settings but those that put all items on one SID: they have no PD, and with a
    collision level their codes are no SIDs but item ids."""
    return [row for row in figures.values() if row["PD"] is not None]


def correlated(figures):
    """Spearman's correlation of each metric with Recall@10."""
    rows = compared(figures)
    recall = [row["recall@10"] for row in rows]
    return {
        key: float(spearmanr([row[key] for row in rows], recall).statistic) for key in METRICS
    }


def _shown(value):
    return "-" if value is None else f"{value:.4f}"


def _figures(result):
    sid = result["sid"]
    levels = sid["levels"][: sid["content_levels"]]
    return {
        "SC": sid["semantics"]["sc"],
        "SC content": sid["semantics"]["sc_content"],
        "PD": sid["semantics"]["pd"],
        "collision rate": sid["before_policy"]["collision_rate"],
        "perplexity": sum(level["perplexity"] for level in levels) / len(levels),
        "recall@10": result["test_result"]["recall@10"],
        "valid recall@10": result["best_valid_result"]["recall@10"],
    }


def parser():
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--model", default="TIGER")
    made.add_argument("--dataset", default="ml-100k")
    made.add_argument("--data_path", help="parent folder of the data set")
    made.add_argument("--config_files", nargs="*", help="YAML files of settings")
    made.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings")
    made.add_argument("--only", nargs="*", choices=SETTINGS, help="some of the settings")
    made.add_argument("--output", help="JSON file that keeps what is finished")
    return made


if __name__ == "__main__":
    main()
