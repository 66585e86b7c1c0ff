"""Files that `study.yaml` reads: content with a strong common component, and SIDs for controls.

    python studies/r3vae/contents.py --data_path=../shared/data --output=saved/r3vae

`common.npy`: the data set's vectors plus 1.8 times their mean direction, scaled to length 1.
`random.json`: three codes of 256 drawn for each item. `permuted.json`: the SIDs of RKMeans, those
of half the items exchanged among these.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from recbole_gr.config import Config
from recbole_gr.data import create_dataset, item_content
from recbole_gr.data.item_file import ItemFile
from recbole_gr.pipeline.item_sids import learned_sids
from recbole_gr.sid.exchange import write_json
from recbole_gr.sid.table import SIDTable
from recbole_gr.storage.files import atomic_write

STRENGTH, CODES, LEVELS = 1.8, 256, 3


def main(arguments=None):
    options = parser().parse_args(arguments)
    folder = Path(options.output)
    settings = {"data_path": options.data_path, "sid_gate": "warn", "show_progress": False}
    config = Config("TIGER", options.dataset, None, settings)
    content = item_content(config, create_dataset(config).build()[0])
    rows = ItemFile(config).cells[config["ITEM_ID_FIELD"]].tolist()
    vectors = np.zeros((len(rows), content.vectors.shape[1]), dtype=np.float32)
    known = {token: number for number, token in enumerate(content.item_tokens)}
    made = with_common(content.vectors[1:]).numpy()
    for place, token in enumerate(rows):
        if token in known:
            vectors[place] = made[known[token] - 1]
    with atomic_write(folder / "common.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, vectors)

    generator = torch.Generator().manual_seed(options.seed)
    n_items = len(content.item_tokens) - 1
    drawn = torch.randint(CODES, (n_items, LEVELS), generator=generator)
    table = learned_sids(Config("TIGER", options.dataset, None, {**settings, "collision": "share"}))
    codes = table.table.codes[1:].clone()
    half = torch.randperm(n_items, generator=generator)[: n_items // 2]
    codes[half] = codes[half[torch.randperm(len(half), generator=generator)]]
    for name, given in (("random", drawn), ("permuted", codes)):
        made = SIDTable.from_item_codes(given, (CODES,) * LEVELS)
        write_json(made, folder / f"{name}.json", content.item_tokens)


def with_common(vectors):
    """Content vectors ``[n, d]`` with `STRENGTH` times their mean direction, of length 1."""
    vectors = F.normalize(vectors, dim=1)
    return F.normalize(vectors + STRENGTH * F.normalize(vectors.mean(0), dim=0), dim=1)


def parser():
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    made.add_argument("--dataset", default="Amazon_Beauty")
    made.add_argument("--data_path", help="parent folder of the data set")
    made.add_argument("--output", default="saved/r3vae")
    made.add_argument("--seed", type=int, default=0)
    return made


if __name__ == "__main__":
    main()
