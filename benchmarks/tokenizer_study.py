"""Quality of SIDs over seeds: mean and spread, for tokenizers and for ways to initialise them.

``--study quality``: R3VAE, RQVAE, RKMeans and OPQ with their defaults. Claim checked: R3VAE has at
least the distinct SIDs of RKMeans minus one point and no dead code.

``--study init``: R3VAE and RQVAE from k-means and from random codebooks, RQVAE also without
restarts of dead codes. Claim checked: over seeds and initialisations, R3VAE's distinct-SID rate
spreads several times less than RQVAE's.

Each fit is made again, nothing is cached. Distinct SIDs, collisions and codes are those before a
collision policy; ``dead`` counts codes without an item over all levels. Reconstruction is the mean
squared error of the content scaled to length 1 (R3VAE: from the codes alone).

Run: ``python benchmarks/tokenizer_study.py --dataset Amazon_Beauty --data_path ../shared/data``
"""

import argparse
import json
from functools import partial
from statistics import mean, stdev

import torch
from paired import print_setting, print_table
from recbole.utils import init_seed
from tqdm import tqdm

from recbole_gr.config import Config
from recbole_gr.data import create_dataset, item_content
from recbole_gr.quality.assessment import assess
from recbole_gr.registry import get_tokenizer
from recbole_gr.storage import memory
from recbole_gr.storage.files import atomic_write

QUALITY = {name: (name, {}) for name in ("R3VAE", "RQVAE", "RKMeans", "OPQ")}
RANDOM, DYING = {"kmeans_init": False}, {"restart_dead_codes": False}
INIT = {
    "R3VAE, k-means": ("R3VAE", {}),
    "R3VAE, random": ("R3VAE", RANDOM),
    "RQVAE, k-means": ("RQVAE", {}),
    "RQVAE, random": ("RQVAE", RANDOM),
    "RQVAE, k-means, no restart": ("RQVAE", DYING),
    "RQVAE, random, no restart": ("RQVAE", {**RANDOM, **DYING}),
}
STUDIES = {"quality": QUALITY, "init": INIT}
DIGITS = {"distinct": 4, "sharing": 4, "utilisation": 4, "dead": 1, "perplexity": 1,
          "reconstruction": 4, "SC": 4, "SC content": 4, "PD": 3, "seconds": 1,
          "peak MiB": 0}  # fmt: skip


def main(arguments=None):
    """Print the table; returns the figures of each seed by variant."""
    options = parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    given = dict(pair.split("=", 1) for pair in options.set)
    settings = {"data_path": options.data_path} if options.data_path else {}
    variants = STUDIES[options.study]
    if options.only:
        variants = {name: variants[name] for name in options.only if name in variants}
    names = sorted({name for name, _ in variants.values()})
    configs = {
        name: Config(
            "TIGER",
            options.dataset,
            options.config_files,
            {**settings, **given, "tokenizer": name},
            other_tokenizers=QUALITY,
        )
        for name in names
    }
    first = configs[names[0]]
    init_seed(first["seed"], True)
    content = item_content(first, create_dataset(first).build()[0]).vectors
    print_setting(
        dataset=options.dataset, items=len(content) - 1, seeds=options.seeds, study=options.study
    )
    figures = {name: [] for name in variants}
    runs = [(seed, name) for seed in range(options.seeds) for name in variants]
    bar = tqdm(runs, disable=not options.show_progress)
    for seed, name in bar:
        bar.set_postfix_str(f"{name}, seed {seed}")
        tokenizer, changes = variants[name]
        figures[name].append(one_fit(configs[tokenizer], tokenizer, changes, seed, content))
        if options.output:
            with atomic_write(options.output) as tmp:
                tmp.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    rows = [[name, *map(partial(_cell, seeds), DIGITS)] for name, seeds in figures.items()]
    print_table(["tokenizer", *DIGITS], rows)
    _print_ratio(figures, options.study)
    return figures


def one_fit(config, name, changes, seed, content):
    """Fit one tokenizer with one seed; its figures as plain numbers."""
    tokenizer_class = get_tokenizer(name)
    options = {key: config[key] for key in tokenizer_class.default_options()}
    options.update(changes, tokenizer_seed=seed)
    tokenizer = tokenizer_class(options, content.shape[1]).to(config["device"])
    memory.reset_peak()
    fit = tokenizer.fit(content[1:], progress=False)
    peak = memory.peak_memory(tokenizer.device)
    report = assess(tokenizer.tokenize(content), content, tokenizer, neighbours=0)
    levels, before = report.levels[: report.content_levels], report.before_policy
    error = fit.figures.get("reconstruction_hard", fit.figures.get("reconstruction"))
    return {
        "distinct": before["distinct"] / report.n_items,
        "sharing": before["collision_rate"],
        "utilisation": mean(level.utilisation for level in levels),
        "dead": sum(level.size - level.used for level in levels),
        "perplexity": mean(level.perplexity for level in levels),
        "reconstruction": error,
        "SC": report.semantics["sc"],
        "SC content": report.semantics["sc_content"],
        "PD": report.semantics["pd"],
        "seconds": fit.seconds,
        "peak MiB": peak / 2**20,
    }


def _cell(seeds, key):
    values = [figures[key] for figures in seeds]
    if any(value is None for value in values):
        return "-"
    spread = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):.{DIGITS[key]}f} +- {spread:.{DIGITS[key]}f}"


def _print_ratio(figures, study):
    distinct = {name: [f["distinct"] for f in seeds] for name, seeds in figures.items()}
    if not {"R3VAE", "RKMeans"} <= set(figures) and study == "quality":
        return
    if study == "quality":
        difference = mean(distinct["R3VAE"]) - mean(distinct["RKMeans"])
        dead = max(f["dead"] for f in figures["R3VAE"])
        print(f"ratio: R3VAE has {difference:+.2%} distinct SIDs of RKMeans, {dead} dead codes")
        return
    if not all(any(name.startswith(kind) for name in figures) for kind in ("R3VAE", "RQVAE")):
        return
    spreads = {}
    for kind in ("R3VAE", "RQVAE"):
        together = [v for name, seeds in distinct.items() if name.startswith(kind) for v in seeds]
        spreads[kind] = stdev(together)
    ratio = spreads["RQVAE"] / max(spreads["R3VAE"], 1e-12)
    print(
        f"ratio: over seeds and initialisations the distinct-SID rate spreads {ratio:.1f} times as "
        f"much with RQVAE ({spreads['RQVAE']:.4f}) as with R3VAE ({spreads['R3VAE']:.4f})"
    )


def parser():
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--study", choices=STUDIES, default="quality")
    made.add_argument("--dataset", default="ml-100k")
    made.add_argument("--data_path", help="parent folder of the data set")
    made.add_argument("--config_files", nargs="*", help="YAML files of settings")
    made.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings")
    made.add_argument("--only", nargs="*", choices=sorted({*QUALITY, *INIT}), help="of the study")
    made.add_argument("--seeds", type=int, default=5)
    made.add_argument("--output", help="JSON file for the figures of each seed")
    made.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves its default")
    made.add_argument("--show_progress", action="store_true")
    return made


if __name__ == "__main__":
    main()
