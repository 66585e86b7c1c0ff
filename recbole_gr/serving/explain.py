"""Why a model recommends what it does: the beams of its search and what became of the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_gr.data.titles import item_titles
from recbole_gr.errors import ConfigError
from recbole_gr.generation.beam_search import NEVER
from recbole_gr.generation.exact import AT_ONCE
from recbole_gr.generation.ranking import TAIL_SCORE
from recbole_gr.registry import is_generative, models_where
from recbole_gr.serving.levels import Levels
from recbole_gr.serving.queries import check_count
from recbole_gr.serving.sources import left_out, merged, sources_of_beams, sources_of_scores

if TYPE_CHECKING:
    from recbole_gr.serving.recommender import Recommender

NEXT = 5  # items after the last one of an answer that are named
Names = Callable[[Iterable[int]], list[dict[str, str]]]


@torch.no_grad()
def explain(
    recommender: Recommender,
    user: str | None = None,
    history: Iterable | None = None,
    k: int = 10,
    *,
    exclude_history: bool | None = None,
    beam_size: int | None = None,
    why: Iterable[str] = (),
    n_dropped: int | None = 5,
    titles: Mapping[str, str] | None = None,
    unknown: str = "error",
) -> dict[str, Any]:
    """The answer of `Recommender.recommend` for one user or history, and the way to it.

    Logarithms are natural; probabilities of prefixes are those that the search ranks by, of the
    softmax over the codebook of a level or, with `renormalise`, the codes that lead to an item.

    Args:
        recommender (Recommender): of a model that generates SIDs.
        user, history: one of them, as an element of `users` or `histories` of `recommend`.
        k, exclude_history, beam_size, unknown: as for `recommend`.
        why: tokens of items that are followed through the levels, in the answer or not.
        n_dropped (int | None): how many dropped prefixes of a level are listed, the most probable
            ones for each reason; None: all. They are counted and weighed in any case.
        titles (dict | None): by item token; None reads them from the `.item` file.

    Returns:
        dict: plain data, which JSON can hold. An item is its token, `item`, and its `title` where
        there are titles.

        * `model`, `n_items`, `user`; `history`: all items, of which the model reads the last
          `n_read`; `settings`: `k`, `beam_size` (most beams), `renormalise`, `exclude_history`.
        * `decoding`: `"beam"`, or `"exact"` where every SID is scored and nothing is searched: then
          `levels` is empty.
        * `levels`: each with the number of `candidates`, prefixes that could follow the beams;
          `kept`, the beams, best first; `dropped`, with `why` (`"beam"`: below the last beam, whose
          log-probability is `threshold`; `"history"`: all its items are left out) and `missed_by`,
          the difference to the threshold; `n_dropped` by why; `items`, how many could be reached
          `before` and can be after (`kept`), and why the others cannot; `probability`, likewise,
          and `no_item`, what went to codes that lead to no item.

          A prefix has its codes, `parent` (the beam of the level before, from 0), `log_prob`,
          `probability`, `code_log_prob` (of the last code given those before), the number of
          `items` below it and the most frequent as `examples`; a beam also `children`, the beams of
          the next level that extend it, and `ranks`, which items of the answer are below it.
        * `items`: the answer, each with `rank`, `score`, `probability` and `sources`, the SIDs that
          its score is made of: `beam` (of the last level, from 0; None without a search), `sid`,
          `code_log_probs` (None where a SID is scored as a whole), `normaliser` (what RPG adds to
          their sum, else None), `log_share` (of an item that shares its SID, else 0) and
          `log_prob`, the sum of these. `added` is what a softmax over items, or a pointer, adds, or
          None.
          `filled`: it is on no beam and fills a place for its popularity.
        * `removed`: items of the beams that the history left out; `next`: what would follow.
        * `why`: items, each with its `rank` (None: not in the answer); its `score` and `place` if
          all items were scored and none searched (None where there are too many); whether it is
          `left_out` as one of the history; `sources` and `added`, as above; and for each of its
          SIDs the `steps`: prefix, `place` among the candidates, why it was `dropped` or None.

    Raises:
        ConfigError: as of `recommend`; or a model without SIDs.
    """
    asked = _ask(recommender, user, history, k, exclude_history, beam_size, unknown)
    titles = item_titles(recommender.config) if titles is None else titles
    tokens, model = recommender.item_tokens, recommender.model

    def names(items: Iterable[int]) -> list[dict[str, str]]:
        found = [{"item": tokens[item]} for item in items]
        return [{**x, "title": titles.get(x["item"], "")} for x in found] if titles else found

    watched = recommender.item_ids(why, "why")
    levels = Levels(model.trie, asked.gone, _frequency(recommender), names)
    beams = recommender.predictor.beams(asked.batch, asked.k, asked.gone, beam_size, observe=levels)
    found = model.rank(beams, asked.k + NEXT, asked.batch)
    ranked = [
        (item, score)
        for item, score in zip(found.items[0].tolist(), found.scores[0].tolist())
        if item and score != NEVER
    ]
    items = _items(recommender, asked, levels, ranked[: asked.k], names)
    ranks: dict[int, list[int]] = {}
    for item in items:
        for source in item["sources"]:
            if source["beam"] is not None:
                ranks.setdefault(source["beam"], []).append(item["rank"])
    after = [(item, score) for item, score in ranked[asked.k :] if score > TAIL_SCORE]
    return {
        "model": recommender.config["model"],
        "n_items": len(tokens) - 1,
        "user": user if user is None else str(user),
        "history": names(asked.history),
        "n_read": min(len(asked.history), int(recommender.config["MAX_ITEM_LIST_LENGTH"])),
        "settings": {
            "k": asked.k,
            "beam_size": max(asked.k, beam_size or model.beam_size),
            "renormalise": bool(model.renormalise),
            "exclude_history": asked.gone is not None,
        },
        "decoding": "beam" if levels.levels else "exact",
        "levels": levels.described(ranks, n_dropped),
        "items": items,
        "removed": names(left_out(model, beams, levels, asked.gone)),
        "next": [
            {"rank": rank, **name, "score": score}
            for rank, (name, (_, score)) in enumerate(
                zip(names(item for item, _ in after), after), asked.k + 1
            )
        ],
        "why": _followed(recommender, asked, levels, ranked, watched, names),
    }


class _Asked(NamedTuple):
    """One query as the model takes it: `gone` [1, H] are the items left out, or None."""

    batch: Interaction
    gone: Tensor | None
    history: list[int]
    k: int


def _ask(
    recommender: Recommender,
    user: str | None,
    history: Iterable | None,
    k: int,
    exclude_history: bool | None,
    beam_size: int | None,
    unknown: str,
) -> _Asked:
    if not recommender.generative:
        raise _nothing_to_explain(recommender)
    if (user is None) == (history is None):
        raise ConfigError("explain: give one user or one history")
    k = recommender.check_k(k)
    if beam_size is not None:
        check_count(beam_size, "beam_size")
    users, histories = None if user is None else [user], None if history is None else [history]
    source, rows, names = recommender.asked(users, histories, unknown == "skip")
    batch = recommender.predictor.batch(source, rows, names is not None)
    taken = source.items(rows)
    gone = None
    if recommender.leaves_out_history(exclude_history):
        gone = taken.to(recommender.config["device"])
    return _Asked(batch, gone, taken[0].tolist(), k)


def _nothing_to_explain(recommender: Recommender) -> ConfigError:
    name, members = recommender.config["model"], getattr(recommender.model, "names", None)
    remedy = (
        f"explain the checkpoints of its members ({' and '.join(members)})"
        if members
        else f"take a checkpoint of one that does ({', '.join(models_where(is_generative))})"
    )
    return ConfigError(
        f"explain: {name} scores all items at once and searches no semantic IDs, so there are no "
        f"beams to show; recommend without explain gives its items and scores, or {remedy}"
    )


def _frequency(recommender: Recommender) -> Tensor:
    """[n_items + 1] interactions of each item in all histories, 0 where these are not known."""
    n_items = recommender.model.trie.n_items
    if recommender.histories is None:
        return torch.zeros(n_items + 1)
    items = recommender.histories.fields[recommender.dataset.iid_field]
    return torch.bincount(items, minlength=n_items + 1)


def _items(
    recommender: Recommender,
    asked: _Asked,
    levels: Levels,
    ranked: list[tuple[int, float]],
    names: Names,
) -> list[dict[str, Any]]:
    model, items = recommender.model, [item for item, _ in ranked]
    scores = [score for _, score in ranked]
    added: list[float | None] = [None] * len(items)
    if levels.levels:
        sources = [sources_of_beams(model, levels, item) for item in items]
        if model.ranks_items:
            added = [score - merged(model, found) for score, found in zip(scores, sources)]
    else:
        sources, added = sources_of_scores(recommender.predictor, asked.batch, items, scores)
    return [
        {
            "rank": rank,
            **name,
            "score": score,
            "probability": math.exp(score) if model.item_probabilities and own else None,
            "sources": own,
            "added": more,
            "filled": not own,
        }
        for rank, (name, score, own, more) in enumerate(
            zip(names(items), scores, sources, added), 1
        )
    ]


def _followed(
    recommender: Recommender,
    asked: _Asked,
    levels: Levels,
    ranked: list[tuple[int, float]],
    watched: list[int],
    names: Names,
) -> list[dict[str, Any]]:
    model, known = recommender.model, dict(ranked)
    rank_of = {item: rank for rank, (item, _) in enumerate(ranked[: asked.k], 1)}
    gone = set() if asked.gone is None else set(asked.gone[0].tolist())
    exact = None
    if watched and (not levels.levels or model.exact_width() <= AT_ONCE):
        with recommender.predictor.precision():
            exact = model.exact(asked.batch)[0]
    added: list[float | None] = [None] * len(watched)
    if levels.levels:
        sources = [sources_of_beams(model, levels, item) for item in watched]
    else:
        own = [] if exact is None else exact[watched].tolist()
        sources, added = sources_of_scores(recommender.predictor, asked.batch, watched, own)
    return [
        {
            **name,
            "rank": rank_of.get(item),
            "score": known.get(item) if exact is None else float(exact[item]),
            "place": None if exact is None else int((exact > exact[item]).sum()) + 1,
            "left_out": item in gone,
            "sources": own_sources,
            "added": more,
            "sids": levels.followed(item),
        }
        for item, name, own_sources, more in zip(watched, names(watched), sources, added)
    ]
