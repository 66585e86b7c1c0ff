"""The recommender on the code tables that DACT's authors published (Tools, periods 0 and 1).

TIGER learns period 0 on their table S_0. Then, on the targets of period 1,

* ``frozen``: it stays as it is, on S_0 with the codes of new items from S_1 (the authors' frozen
  tokenizer is not published, so new items have the codes that DACT gave them);
* ``finetune``: it goes on with the targets of period 1, on S_1.

Beside them the paper's rows (arXiv 2603.29705, Table 2, TIGER on Tools, period 1). Arguments are
those of run_recbole_gr.py:

    python benchmarks/dact_published.py --data_path=../shared/data --enable_amp=True
"""

import sys
from pathlib import Path

import numpy as np
import torch

from recbole_gr import run_recbole_gr
from recbole_gr.sid.exchange import write_json
from recbole_gr.sid.table import SIDTable

DATASET = "Amazon_Tools_DACT"
PAPER = {"frozen": (0.0283, 0.0123), "finetune": (0.0414, 0.0201)}  # H@10, N@10


def unique(codes):
    """Codes with the last level of an item changed to a free one where an item before has the same
    SID: the authors' code leaves a few such pairs (spec 6.2), which TIGER could not tell apart."""
    codes, taken = codes.copy(), set()
    for row in codes:
        while tuple(row) in taken:
            row[-1] += 1
        taken.add(tuple(row))
    return codes


def write_tables(folder, out):
    """SID files of both periods, and of period 1 with the old items' codes unchanged.

    Args:
        folder (pathlib.Path): the data set with the published tables, row r = item r + 1.
        out (pathlib.Path): where to write.

    Returns:
        dict[str, list[str]]: the files of the two periods for each way.
    """
    first = np.load(folder / f"{DATASET}.sid_0.6.npy", allow_pickle=False)
    second = np.load(folder / f"{DATASET}.sid_0.7.dact.npy", allow_pickle=False)
    second = unique(second)
    stale = unique(np.concatenate([first, second[len(first) :]]))
    paths = {}
    for name, codes in (("first", first), ("second", second), ("stale", stale)):
        codes = torch.from_numpy(codes.astype(np.int64))
        sizes = [max(256, int(column.max()) + 1) for column in codes.unbind(1)]
        table = SIDTable.from_item_codes(codes, sizes)
        paths[name] = str(out / f"{name}.json")
        write_json(table, paths[name], ["[PAD]", *(str(i + 1) for i in range(len(codes)))])
    return {
        "frozen": [paths["first"], paths["stale"]],
        "finetune": [paths["first"], paths["second"]],
    }


def main(arguments=None):
    """Run both ways and print their test metrics beside the paper's; returns them."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    given = dict(argument.lstrip("-").split("=", 1) for argument in arguments)
    out = Path(given.get("continual_dir", "saved/continual"), "published")
    tables = write_tables(Path(given.get("data_path", "dataset"), DATASET), out)
    found = {}
    for way, files in tables.items():
        outcome = run_recbole_gr(
            "DACT",
            DATASET,
            config_dict={
                "continual_tokenizer": "files", "continual_sid_files": files,
                "continual_recommender": way, "continual_last": 1, "sid_gate": "off",
                "item_content": "collaborative",
            },
            cmd_args=arguments,
        )  # fmt: skip
        found[way] = next(r for r in outcome["results"] if r["period"] == 1)["test_result"]
    print("| period 1 | H@10 | N@10 | paper H@10 | paper N@10 |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for way, result in found.items():
        figures = (result["recall@10"], result["ndcg@10"], *PAPER[way])
        print(f"| {way} | " + " | ".join(f"{figure:.4f}" for figure in figures) + " |")
    return found


if __name__ == "__main__":
    main()
