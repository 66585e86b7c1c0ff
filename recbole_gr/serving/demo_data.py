"""What the page of `recbole-gr serve-demo` asks for, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from recbole_gr.data.titles import item_titles
from recbole_gr.errors import ConfigError
from recbole_gr.serving.explain import explain
from recbole_gr.serving.queries import check_count
from recbole_gr.serving.recommender import Recommender

LISTED = 20  # users or items of one list
MOST_ITEMS, MOST_BEAMS = 100, 1000  # of one answer
ASKED = ("user", "history", "k", "beam_size", "exclude_history", "why")


class Demo:
    """A trained model and the words of its data, for a page.

    Args:
        recommender (Recommender): of any model that `recommend` answers with.
    """

    def __init__(self, recommender: Recommender):
        self._recommender, self._titles = recommender, item_titles(recommender.config)
        self._items = recommender.item_tokens[1:]
        self._words = [self._titles.get(token, "").casefold() for token in self._items]
        self._users: list[str] = []
        self._n_taken: list[int] = []
        frequency = np.zeros(len(self._items) + 1)
        if recommender.histories is not None:
            source, rows, names = recommender.asked(None, None)
            self._users, self._n_taken = names or [], source.lengths()[rows].tolist()
            items = source.fields[recommender.dataset.iid_field]
            frequency = torch.bincount(items, minlength=len(frequency)).numpy()
        self._frequency = frequency[1:].tolist()
        self._random = np.random.default_rng()

    def about(self) -> dict[str, Any]:
        """What the page says and offers before anything is asked."""
        config, model = self._recommender.config, self._recommender.model
        generative = self._recommender.generative
        searches = generative and getattr(model, "decoding", "beam") == "beam"
        return {
            "model": config["model"],
            "dataset": config["dataset"],
            "n_users": len(self._users),
            "n_items": len(self._items),
            "k": min(10, len(self._items)),
            "most_items": min(MOST_ITEMS, len(self._items)),
            "beam_size": min(MOST_BEAMS, model.beam_size) if searches else None,
            "most_beams": MOST_BEAMS,
            "exclude_history": self._recommender.leaves_out_history(None),
            "takes_histories": self._recommender.sequential,
            "titles": bool(self._titles),
            "explains": generative,
        }

    def users(self, like: str = "", at_random: bool = False) -> dict[str, Any]:
        """Users of the data: the first ones, those whose token begins as `like`, or any."""
        found = [place for place, token in enumerate(self._users) if token.startswith(like)]
        total = len(found)
        if at_random and found:
            found = self._random.permutation(found)[:LISTED].tolist()
        return {
            "total": total,
            "users": [
                {"user": self._users[place], "n_items": self._n_taken[place]}
                for place in found[:LISTED]
            ],
        }

    def items(self, like: str = "") -> dict[str, Any]:
        """Items whose token begins as `like`, or whose title holds all of its words: the token
        itself first, then titles that begin so, then the most frequent."""
        text = like.strip().casefold()
        words, found = text.split(), []
        for place, (token, title) in enumerate(zip(self._items, self._words)):
            own = token.casefold()
            if own.startswith(text) or (words and all(word in title for word in words)):
                order = (own != text, not title.startswith(text), -self._frequency[place], place)
                found.append(order)
        places = [order[-1] for order in sorted(found)[:LISTED]]
        return {"total": len(found), "items": [self._named(self._items[p]) for p in places]}

    def answer(self, asked: Any) -> dict[str, Any]:
        """The explained answer to a query, `explain`'s; of RecBole's models items and scores.

        Args:
            asked: `{"user": ...}` or `{"history": [...]}`, with `k`, `beam_size`,
                `exclude_history` and `why` as for `explain`, each of which may be left out.

        Raises:
            ConfigError: something else.
        """
        query = _checked(asked)
        if self._recommender.generative:
            return explain(self._recommender, **query, titles=self._titles)
        query.pop("why", None), query.pop("beam_size", None)
        user, history = query.pop("user", None), query.pop("history", None)
        if (user is None) == (history is None):
            raise ConfigError("give one user or one history")
        users, histories = None if user is None else [user], None if history is None else [history]
        (given,) = self._recommender.recommend(users, histories, **query)
        source, rows, _ = self._recommender.asked(users, histories)
        tokens = self._recommender.item_tokens
        return {
            "model": self._recommender.config["model"],
            "user": user,
            "history": [self._named(tokens[item]) for item in source.items(rows)[0].tolist()],
            "decoding": "none",
            "levels": [],
            "items": [
                {"rank": rank, **self._named(item), "score": score, "sources": []}
                for rank, (item, score) in enumerate(zip(given.items, given.scores), 1)
            ],
            "next": [],
            "removed": [],
            "why": [],
        }

    def _named(self, token: str) -> dict[str, str]:
        return {"item": token, "title": self._titles.get(token, "")}


def _checked(asked: Any) -> dict[str, Any]:
    if not isinstance(asked, Mapping):
        raise ConfigError('give an object, as in {"user": "196"} or {"history": ["50", "181"]}')
    unknown = sorted(set(asked) - set(ASKED))
    if unknown:
        raise ConfigError(f"{unknown[0]!r:.100} is not one of {', '.join(ASKED)}")
    query = {name: value for name, value in asked.items() if value is not None}
    for name, kind in (("user", str), ("history", list), ("why", list), ("exclude_history", bool)):
        if not isinstance(query.get(name, kind()), kind):
            raise ConfigError(f"{name}: {query[name]!r:.100} must be a JSON {_JSON[kind]}")
    for name in ("history", "why"):
        if not all(isinstance(token, str) for token in query.get(name, [])):
            raise ConfigError(f"{name}: every item must be a JSON string")
    for name, most in (("k", MOST_ITEMS), ("beam_size", MOST_BEAMS)):
        if name in query:
            check_count(query[name], name, 1, most)
    return query


_JSON = {str: "string", list: "array", bool: "true or false"}
