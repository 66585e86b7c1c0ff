"""Do SC and PD tell how good a recommender on the SIDs will be? From the runs of `study.yaml`.

    python studies/r3vae/metrics.py --data_path=../shared/data

The SIDs of every finished run are judged by one definition, on the data set's own vectors, whatever
they were learned from; the rank correlation (Spearman) of each figure with the test Recall@10 is
over settings, as means of their seeds. Its 95 % interval is a bootstrap over settings and, within
each, over seeds. `metrics.json` and `metrics.md` are written beside the study.
"""

import argparse
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy.stats import norm, rankdata

from recbole_gr.config import Config
from recbole_gr.data import create_dataset, item_content
from recbole_gr.quality.measures import collision_figures
from recbole_gr.quality.semantics import semantic_figures
from recbole_gr.report.table import Column, table_text, write_files
from recbole_gr.storage.checkpoint import load_checkpoint
from recbole_gr.study.runner import FOLDER
from recbole_gr.study.store import finished
from recbole_gr.study.study_file import read_study

HERE = Path(__file__).parent
DATASET, DRAWS = "Amazon_Beauty", 2000
#: Rows of `study.yaml` that are no variants of one tokenizer.
OTHER_KINDS = (
    *("RKMeans", "R3VAE", "PRQKMeans", "RQVAE", "OPQ", "RVQ", "I2IRKMeans", "LETTER"),
    *("RKMeans of TF-IDF", "RKMeans of collaborative vectors", "Random codes"),
    "RKMeans, half the items permuted",
)
FIGURES = {
    "sc": "SC", "sc_content": "SC of the content", "pd": "PD", "collision": "items sharing",
    "distinct": "distinct SIDs",
}  # fmt: skip
#: As its paper reports them, over its tokenizers (table 7).
PUBLISHED = {"sc": 0.94, "pd": -0.75, "collision": -0.93}


def main(arguments=None):
    options = parser().parse_args(arguments)
    found = judged(HERE / "study.yaml", {"data_path": options.data_path})
    if not found:
        raise SystemExit(f"No run on {DATASET} has finished in {FOLDER / 'r3vae'}: run the study")
    settings = {"other kinds": [r for r in OTHER_KINDS if r in found], "all": list(found)}
    correlations = {
        name: {figure: correlation(found, rows, figure) for figure in FIGURES}
        for name, rows in settings.items()
        if len(rows) > 3
    }
    shown = ["recall@10", *FIGURES]
    head = [Column("SIDs"), *(Column(name, "{:.4f}") for name in shown)]
    lines = [[r, *(_mean(values, key) for key in shown)] for r, values in found.items()]
    text = [f"Means over seeds, {DATASET}:", table_text(head, lines)]
    for name, by_figure in correlations.items():
        n = len(settings[name])
        head = [Column(t) for t in ("figure", "rank correlation", "95 %", "published")]
        lines = [
            [FIGURES[f], f"{c['rho']:+.2f}", f"[{c['low']:+.2f}, {c['high']:+.2f}]",
             PUBLISHED.get(f)]
            for f, c in by_figure.items()
        ]  # fmt: skip
        text.append(
            f"With test Recall@10, {name} ({n} settings; a true correlation of "
            f"{detectable(n):.2f} or more would be told from 0 in four of five such studies):"
        )
        text.append(table_text(head, lines))
    page = "\n\n".join(text) + "\n"
    print(page)
    write_files(HERE, "metrics", md=page, data={"runs": found, "correlations": correlations})
    return found, correlations


def judged(file, settings):
    """By row the figures of the finished runs on `DATASET`, lists over seeds."""
    plan, found = read_study(file, settings), {}
    config = Config("TIGER", DATASET, None, {**plan.settings, "show_progress": False})
    content = item_content(config, create_dataset(config).build()[0]).vectors[1:]
    for cell in plan.cells():
        kept = finished(FOLDER / plan.name / cell.folder, cell) if cell.dataset == DATASET else None
        if kept is None:
            continue
        state = load_checkpoint(kept.folder / "model.pth")
        codes, sizes = state["state_dict"]["codes"][1:], state["sid"]["sizes"]
        levels = state["sid"]["meta"].get("content_levels", len(sizes) - 1)
        codes, sizes = codes[:, :levels].long(), sizes[:levels]
        figures = semantic_figures(codes, sizes, content)
        collisions = collision_figures(codes, sizes)
        run = {
            **{name: figures[name] for name in ("sc", "sc_content", "pd")},
            "collision": collisions["collision_rate"],
            "distinct": collisions["distinct"] / len(codes),
            "recall@10": kept.result["test_result"]["recall@10"],
        }
        row = found.setdefault(cell.row, {name: [] for name in run})
        for name, value in run.items():
            row[name].append(value)
    return found


def correlation(found, rows, figure, key="recall@10", seed=0):
    """Spearman's correlation over settings, and its bootstrap interval."""
    rows = [r for r in rows if None not in found[r][figure]]
    pairs = [np.array([found[r][figure], found[r][key]]) for r in rows]  # each [2, seeds]
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        some = [pairs[n] for n in rng.integers(len(pairs), size=len(pairs))]
        means = [p[:, rng.integers(p.shape[1], size=p.shape[1])].mean(1) for p in some]
        if len({tuple(m) for m in means}) > 2:
            drawn.append(_spearman(*np.array(means).T))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    rho = _spearman(*np.array([p.mean(1) for p in pairs]).T)
    return {"rho": float(rho), "low": float(low), "high": float(high), "settings": len(rows)}


def detectable(n, power=0.8, level=0.05):
    """The least true rank correlation that a test over `n` settings finds with that power, by
    Fisher's z with the variance of ranks, 1.06 / (n - 3)."""
    needed = norm.ppf(1 - level / 2) + norm.ppf(power)
    return float(np.tanh(needed * (1.06 / (n - 3)) ** 0.5))


def _spearman(x, y):
    return np.corrcoef(rankdata(x), rankdata(y))[0, 1]


def _mean(values, key):
    return None if None in values[key] else fmean(values[key])


def parser():
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    made.add_argument("--data_path", default="../shared/data")
    return made


if __name__ == "__main__":
    main()
