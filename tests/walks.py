"""Random SID tables of items with odd names, as walks."""

import numpy as np
import torch

from recbole_gr.pages.walk import gathered
from recbole_gr.quality.assessment import Behaviour
from recbole_gr.sid.table import SIDTable

ODD = ["a,b", 'q"uote', "=1+1", "-x", "<b>&amp;", "żółć", "007", "</script><img src=x>"]
N, SIZES = 60, (4, 3, 5)


def made(seed=0, n=N, sizes=SIZES, name="A", **given):
    """A random table of items with odd names, their content and histories."""
    rng = np.random.default_rng(seed)
    codes = torch.from_numpy(np.stack([rng.integers(0, size, n) for size in sizes], 1))
    tokens = ["[PAD]", *ODD, *(f"i{number}" for number in range(len(ODD), n))][: n + 1]
    content = torch.from_numpy(rng.normal(size=(n + 1, 6)).astype(np.float32))
    pairs = torch.from_numpy(rng.integers(0, n, (300, 2)))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    titles = {token: f"Title <i>of</i> {token} & ‹more›" for token in tokens[1:-2]}
    known = {"titles": titles, "content": content}
    known["behaviour"] = Behaviour(torch.from_numpy(rng.integers(0, 50, n)), pairs)
    walk = gathered(name, SIDTable.from_item_codes(codes, sizes), tokens, **{**known, **given})
    return walk, content[1:], pairs
