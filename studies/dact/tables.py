"""SID tables of the study of DACT, for every period of a data set.

    python studies/dact/tables.py Amazon_Tools_DACT --data_path=../shared/data
    python studies/dact/tables.py Amazon_Beauty --data_path=../shared/data
    python studies/dact/tables.py ml-100k

Tokenizers follow the periods by themselves, once, with one seed; five seeds of a recommender then
read their tables from `saved/dact/<data set>/`:

* `kept`: the tokenizer of period 0 codes new items, old ones keep their SIDs;
* `finetune`: it learns on with its first loss, and every item takes its new SID;
* `dact`: drift-aware fine-tuning and reassignment;
* `permuted`: as many items change as under `dact`, and the new SIDs go to random ones of them: a
  control for which item gets which SID;
* `published`, `published_kept`, `published_permuted` (Tools, period 1): the authors' own table,
  that of period 0 with their SIDs for new items, and the control of theirs.

All have one table of period 0, on Tools the authors'. `tables.md` there says how large the drift of
the collaborative vectors was, how many SIDs changed, and how long it took. The same command goes
on.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from recbole_gr.config.parsing import parse_arguments
from recbole_gr.config.user_settings import UserSettings
from recbole_gr.continual.runner import ContinualRun
from recbole_gr.report.table import aligned_table
from recbole_gr.sid.table import SIDTable
from recbole_gr.storage.files import atomic_write

FOLDER = Path("saved", "dact")
COMMON = {
    "continual_tokenizer": "frozen,finetune,dact", "seed": 2020, "rqvae_hidden": [256, 128],
    "show_progress": False, "continual_dir": str(FOLDER / "runs"), "sid_gate": "warn",
}  # fmt: skip
SETTINGS = {
    "Amazon_Tools_DACT": {"tokenizer_learning_rate": 0.002},
    "Amazon_Beauty": {"cf_epochs": 50, "cf_continual_learning_rate": 0.0005},
    "ml-100k": {  # a year and a half of ratings are seven months long: one period a month
        "continual_cuts": ["1997-12-01", "1998-01-01", "1998-02-01", "1998-03-01", "1998-04-01"],
        "codebook_size": 64, "cf_epochs": 50, "cf_continual_learning_rate": 0.001,
    },
}  # fmt: skip
NAMES = {"frozen": "kept", "finetune": "finetune", "dact": "dact"}
TOOLS = "Amazon_Tools_DACT"


def permutations(tables: list[torch.Tensor], seed: int) -> list[torch.Tensor]:
    """Tables in which, in every period, as many old items change their SIDs as in those given, and
    which of them takes which new SID is drawn.

    Args:
        tables: LongTensors `[n_p, L]` of the periods, without padding, items in one order.
        seed: of the draw.

    Returns:
        list[torch.Tensor]: tables with the same SIDs, that of period 0 as it is. New items have
        theirs; of the old ones exactly those change whose SID of before is gone.
    """
    generator = torch.Generator().manual_seed(seed)
    order, found = torch.arange(len(tables[0])), [tables[0]]  # item i has the SID of item order[i]
    for before, now in zip(tables, tables[1:]):
        changed = (now[: len(before)] != before).any(1)
        free = changed[order].nonzero().squeeze(1)  # items whose SID of before is gone
        drawn = order[free][torch.randperm(len(free), generator=generator)]
        order = order.index_copy(0, free, drawn)
        order = torch.cat([order, torch.arange(len(before), len(now))])
        found.append(now[order])
    return found


def unique(codes: np.ndarray) -> np.ndarray:
    """Codes with the last level raised where an item before has the same SID, as three items of the
    published table do."""
    codes, taken = codes.copy(), set()
    for row in codes:
        while tuple(row) in taken:
            row[-1] += 1
        taken.add(tuple(row))
    return codes


def published(folder: Path, tokens: list[list[str]], start: torch.Tensor) -> dict[str, list]:
    """The authors' tables of periods 0 and 1 and their controls, for items by `tokens`."""
    first, second = (
        np.load(folder / f"{TOOLS}.{name}.npy", allow_pickle=False).astype(np.int64)
        for name in ("sid_0.6", "sid_0.7.dact")
    )
    kept = unique(np.concatenate([first, second[len(first) :]]))
    rows = torch.tensor([int(token) - 1 for token in tokens[1][1:]])
    now, stays = (torch.from_numpy(codes)[rows] for codes in (unique(second), kept))
    return {
        "published": [start, now],
        "published_kept": [start, stays],
        "published_permuted": permutations([start, now], 2020),
    }


def main(arguments: list[str] | None = None) -> Path:
    """Learn and write the tables of a data set; returns their folder."""
    dataset, *rest = sys.argv[1:] if arguments is None else arguments
    given = {**COMMON, **SETTINGS.get(dataset, {}), **parse_arguments(rest)}
    run = ContinualRun(["DACT"], dataset, UserSettings.read(None, given, None))
    learned = run.tokenize()
    tokens = [run.tokens_of(period) for period in range(run.n_periods)]
    tables = {how: [SIDTable.load(file) for file in files] for how, files in learned.items()}
    codes = {NAMES[how]: [t.codes[1:] for t in own] for how, own in tables.items()}
    codes["permuted"] = permutations(codes["dact"], 2020)
    if dataset == TOOLS:
        data = Path(given.get("data_path", "dataset"), TOOLS)
        codes |= published(data, tokens, codes["kept"][0])
    out = FOLDER / dataset
    for name, periods in codes.items():
        for period, own in enumerate(periods):
            sizes = tables["frozen"][period].sizes
            like = replace(SIDTable.from_item_codes(own, sizes), meta={"source": name})
            like.save(out / f"{name}-{period}.npz", tokens[period])
    with atomic_write(out / "tables.md") as temporary:
        temporary.write_text(about(dataset, run, learned, codes), encoding="utf-8")
    print(f"Tables and tables.md are in {out}")
    return out


def about(dataset: str, run: ContinualRun, learned: dict, codes: dict) -> str:
    """What the tables are: drift, churn and seconds."""
    lines = [
        ["table", "period", "changed", "by level", "raw by level", "s", "median drift", "CDIM"]
    ]
    for name, periods in codes.items():
        how = {own: how for how, own in NAMES.items()}.get(name)
        for period in range(1, len(periods)):
            before, now = periods[period - 1 : period + 1]
            moved = now[: len(before)] != before
            cells = ["-"] * 4
            if how:
                file = learned[how][period]
                figures = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
                report = file.parent / f"drift-{how}" / "drift.json"
                drift = json.loads(report.read_text()) if report.is_file() else {}
                sure = [
                    f"{group.get('confidence', 0):.3f}" for group in drift.get("by_cf_drift", ())
                ]
                cells = [
                    " ".join(f"{share:.3f}" for share in figures["churn"]["raw"]),
                    f"{figures['seconds']:.0f}", f"{drift.get('median_drift') or 0:.3f}",
                    f"{sure[0]} to {sure[-1]}" if sure and how == "dact" else "-",
                ]  # fmt: skip
            by_level = " ".join(f"{share:.3f}" for share in moved.double().mean(0).tolist())
            changed = f"{float(moved.any(1).double().mean()):.3f}"
            lines.append([name, str(period), changed, by_level, *cells])
    return (
        f"# SID tables of {dataset}\n\n{aligned_table(lines)}\n\nchanged: share of the items of "
        "the period before that have another SID, and by level. raw: codes of the tokenizer "
        "against those of the one before. median drift: 1 - cosine of the collaborative vectors of "
        "an item, of this period and the one before. CDIM: mean drift confidence of the tenth of "
        "the items that drifted most and of that which drifted least.\n"
    )


if __name__ == "__main__":
    main()
