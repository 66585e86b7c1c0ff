"""Quality of SIDs over seeds: mean and spread, for tokenizers and for ways to initialise them.

``--study quality``: R3VAE, its mode of projections (the default of before), PRQKMeans, RKMeans,
RQVAE and OPQ with their defaults; how many distinct SIDs of RKMeans's R3VAE has, and dead codes.

``--study ablations``: R3VAE without its parts (table 8 of its paper), and with the summed error.

``--study init``: R3VAE and RQVAE from k-means, normal and uniform codebooks, RQVAE also without
restarts of dead codes; R3VAE in the mode whose gradients reach all codewords, too. Claim checked:
over seeds and initialisations, R3VAE's distinct-SID rate spreads several times less than RQVAE's.

``--common=1.8`` adds that many times their mean direction to the content vectors and scales them to
length 1: content with a strong common component, as of sentence encoders (MiniLM's vectors of
Amazon_Beauty have a mean cosine of .31, then .89; Sentence-T5's about .86).

Each fit is made again, nothing is cached. Distinct SIDs, collisions and codes are those before a
collision policy; ``dead`` counts codes without an item over all levels. SC and PD are by content,
the "own" ones by each tokenizer's vectors. Reconstruction is the mean squared error of the content
scaled to length 1 (R3VAE: from the codes alone). ``--output`` keeps what is finished, and a second
run with the same file goes on from there.

Run: ``python benchmarks/tokenizer_study.py --dataset Amazon_Beauty --data_path ../shared/data``
"""

import argparse
import json
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import torch
import torch.nn.functional as F
from paired import print_setting, print_table
from recbole.utils import init_seed
from tqdm import tqdm

from recbole_gr.config import Config
from recbole_gr.data import create_dataset, item_content
from recbole_gr.quality.assessment import assess
from recbole_gr.registry import get_tokenizer
from recbole_gr.storage import memory
from recbole_gr.storage.files import atomic_write

QUALITY = {
    "R3VAE": ("R3VAE", {}),
    "R3VAE, projections": ("R3VAE", {"rating_mode": "top1_projection"}),
    **{name: (name, {}) for name in ("PRQKMeans", "RKMeans", "RQVAE", "OPQ")},
}
ABLATIONS = {
    "R3VAE": ("R3VAE", {}),
    "no reference": ("R3VAE", {"reference_init": "none"}),
    "no SC": ("R3VAE", {"sc_regulariser": False}),
    "no PD": ("R3VAE", {"pd_regulariser": False}),
    "straight through": ("R3VAE", {"rating_mode": "ste"}),
    "summed error": ("R3VAE", {"reconstruction_loss": "mse_sum"}),
    "no decoder": ("R3VAE", {"decoder": "identity"}),
}
STARTS = {
    "k-means": {},
    "normal": {"kmeans_init": False},
    "uniform": {"kmeans_init": False, "random_init": "uniform"},
}
SOFT, DYING = {"rating_mode": "softmax"}, {"restart_dead_codes": False}
KINDS = {
    "R3VAE": ("R3VAE", {}),
    "R3VAE, softmax 1": ("R3VAE", SOFT),
    "R3VAE, softmax .05": ("R3VAE", {**SOFT, "rating_temperature": 0.05}),
    "RQVAE": ("RQVAE", {}),
    "RQVAE, no restart": ("RQVAE", DYING),
}
INIT = {
    f"{kind}, {start}": (tokenizer, {**changes, **how})
    for kind, (tokenizer, changes) in KINDS.items()
    for start, how in STARTS.items()
}
TOKENIZERS = sorted({name for name, _ in [*QUALITY.values(), *INIT.values()]})
STUDIES = {"quality": QUALITY, "ablations": ABLATIONS, "init": INIT}
DIGITS = {"distinct": 4, "sharing": 4, "utilisation": 4, "dead": 1, "perplexity": 1,
          "reconstruction": 4, "SC": 4, "SC content": 4, "PD": 3, "own SC": 4, "own PD": 3,
          "seconds": 1, "peak MiB": 0}  # fmt: skip


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
            other_tokenizers=TOKENIZERS,
        )
        for name in names
    }
    first = configs[names[0]]
    init_seed(first["seed"], True)
    content = with_common(
        item_content(first, create_dataset(first).build()[0]).vectors, options.common
    )
    print_setting(
        dataset=options.dataset, items=len(content) - 1, seeds=options.seeds, study=options.study,
        mean_cosine=f"{float(F.normalize(content[1:], dim=1).mean(0).square().sum()):.3f}",
    )  # fmt: skip
    kept = Path(options.output) if options.output else None
    found = json.loads(kept.read_text()) if kept and kept.is_file() else {}
    figures = {name: found.get(name, [])[: options.seeds] for name in variants}
    runs = [(seed, name) for seed in range(options.seeds) for name in variants]
    bar = tqdm(runs, disable=not options.show_progress)
    for seed, name in bar:
        bar.set_postfix_str(f"{name}, seed {seed}")
        if len(figures[name]) > seed:
            continue
        tokenizer, changes = variants[name]
        figures[name].append(one_fit(configs[tokenizer], tokenizer, changes, seed, content))
        if kept:
            with atomic_write(kept) as tmp:
                tmp.write_text(json.dumps({**found, **figures}, indent=2), encoding="utf-8")
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
        "own SC": report.semantics["own"].get("sc"),
        "own PD": report.semantics["own"].get("pd"),
        "seconds": fit.seconds,
        "peak MiB": peak / 2**20,
    }


def with_common(content, strength):
    """Content vectors with so many times their mean direction added, scaled to length 1."""
    if not strength:
        return content
    vectors = F.normalize(content[1:], dim=1)
    common = F.normalize(vectors.mean(0), dim=0)
    return torch.cat([content[:1], F.normalize(vectors + strength * common, dim=1)])


def _cell(seeds, key):
    values = [figures[key] for figures in seeds]
    if any(value is None for value in values):
        return "-"
    spread = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):.{DIGITS[key]}f} +- {spread:.{DIGITS[key]}f}"


def _print_ratio(figures, study):
    distinct = {name: [f["distinct"] for f in seeds] for name, seeds in figures.items()}
    if study == "quality" and {"R3VAE", "RKMeans"} <= set(figures):
        difference = mean(distinct["R3VAE"]) - mean(distinct["RKMeans"])
        dead = max(f["dead"] for f in figures["R3VAE"])
        print(f"ratio: R3VAE has {difference:+.2%} distinct SIDs of RKMeans, {dead} dead codes")
    if study != "init":
        return
    spreads = {}
    for kind in KINDS:
        own = [distinct.get(f"{kind}, {start}") for start in STARTS]
        if all(own):
            spreads[kind] = stdev(value for seeds in own for value in seeds)
    text = ", ".join(f"{kind} {spread:.4f}" for kind, spread in spreads.items())
    print(f"ratio: spread of the distinct-SID rate over seeds and starts: {text or '-'}")


def parser():
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--study", choices=STUDIES, default="quality")
    made.add_argument("--dataset", default="ml-100k")
    made.add_argument("--data_path", help="parent folder of the data set")
    made.add_argument("--config_files", nargs="*", help="YAML files of settings")
    made.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings")
    everything = sorted({*QUALITY, *ABLATIONS, *INIT})
    made.add_argument("--only", nargs="*", choices=everything, help="of the study")
    made.add_argument("--common", type=float, default=0.0, help="strength of a common component")
    made.add_argument("--seeds", type=int, default=5)
    made.add_argument("--output", help="JSON file for the figures of each seed")
    made.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves its default")
    made.add_argument("--show_progress", action="store_true")
    return made


if __name__ == "__main__":
    main()
