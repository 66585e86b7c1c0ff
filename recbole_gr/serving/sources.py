"""What the score of each recommended item is made of: SIDs, their codes, shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_gr.generation.beam_search import Beams

if TYPE_CHECKING:
    from recbole_gr.serving.levels import Levels
    from recbole_gr.serving.predictor import Predictor

Source = dict[str, Any]


def sources_of_beams(model: Any, levels: Levels, item: int) -> list[Source]:
    """The finished beams that an item is on, best first; none: it is on no beam.

    Args:
        model: the one that was searched.
        levels: what the search did.
    """
    leaves, last = levels.leaves(), levels.levels[-1]
    own = set(model.trie.item_paths()[-1][item].tolist()) - {-1}
    found = []
    for beam, leaf in enumerate(leaves):
        if leaf in own:
            row = int(last.kept[beam])
            share = _log_share(model, leaf, item)
            found.append(
                {
                    "beam": beam,
                    "sid": list(last.prefix[row]),
                    "code_log_probs": levels.code_log_probs(beam),
                    "normaliser": None,
                    "log_share": share,
                    "log_prob": float(last.log_prob[row]) + share,
                }
            )
    return found


def sources_of_scores(
    predictor: Predictor, batch: Interaction, items: Sequence[int], scores: Sequence[float]
) -> tuple[list[list[Source]], list[float | None]]:
    """The SID of each item where every SID is scored, and what is added to its score.

    Args:
        predictor: asks the model.
        batch: of one user.
        items, scores: of an answer.
    """
    model = predictor.model
    if not items:
        return [], []
    first = torch.zeros(len(items), dtype=torch.long, device=model.codes.device)
    ids = torch.tensor(items, device=model.codes.device)
    rows = {name: batch[name][first] for name in batch.columns}
    with predictor.precision():
        of_codes = model.code_log_probs(Interaction({**rows, model.ITEM_ID: ids}))
        beside = model.added(batch)
    added = [None] * len(items) if beside is None else beside[0, ids].tolist()
    found = []
    for place, (item, score) in enumerate(zip(items, scores)):
        leaf = int(model.trie.item_paths()[-1][item, 0])
        share, log_prob = _log_share(model, leaf, item), score - (added[place] or 0.0)
        own = None if of_codes is None else of_codes[place].double().tolist()
        # Where codes follow each other there is nothing but rounding.
        rest = own is not None and not model.codes_in_order
        found.append(
            [
                {
                    "beam": None,
                    "sid": model.codes[item].tolist(),
                    "code_log_probs": own,
                    "normaliser": log_prob - share - sum(own or ()) if rest else None,
                    "log_share": share,
                    "log_prob": log_prob,
                }
            ]
        )
    return found, added


def merged(model: Any, sources: Sequence[Source]) -> float:
    """Log-probability of an item from those of its SIDs."""
    values = torch.tensor([source["log_prob"] for source in sources], dtype=torch.double)
    together = getattr(model, "merge", "logsumexp") == "logsumexp"
    return float(values.logsumexp(0) if together else values.max())


def left_out(model: Any, beams: Beams, levels: Levels, gone: Tensor | None) -> list[int]:
    """Items that share a SID of the beams with others and may not be returned."""
    if gone is None:
        return []
    leaves = torch.tensor(levels.leaves()) if levels.levels else beams.nodes[0].cpu()
    items = model.trie.items(leaves.to(gone.device)).unique()
    return items[torch.isin(items, gone) & (items > 0)].tolist()


def _log_share(model: Any, leaf: int, item: int) -> float:
    device = model.codes.device
    share = model.trie.log_share_of(
        torch.tensor([leaf], device=device), torch.tensor([item], device=device)
    )
    return float(share) + 0.0
