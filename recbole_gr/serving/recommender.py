"""Recommendations of a trained model, in the tokens of its data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from logging import getLogger
from typing import Any, NamedTuple

import torch

from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.generation.beam_search import NEVER
from recbole_gr.pipeline.new_items import content_rows, kept_tokenizer, new_item_codes
from recbole_gr.registry import is_generative, models_where
from recbole_gr.serving.histories import Histories
from recbole_gr.serving.predictor import Predictor
from recbole_gr.serving.queries import check_count, token_lists, user_tokens
from recbole_gr.serving.restore import Restored, restore
from recbole_gr.terminal.bars import Bar
from recbole_gr.trainer.weights import require_finite

UNKNOWN = ("error", "skip")  # what becomes of tokens that are not in the data


class Recommendation(NamedTuple):
    """One answer: `user` (token, or None for a given history), `items` (tokens, best first) and
    their `scores` (log-probabilities of generative models, RecBole's scores otherwise)."""

    user: str | None
    items: list[str]
    scores: list[float]


class Recommender:
    """A trained model that answers for users of its data and for new histories.

    Of a user of the data everything is known: training, validation and test interactions are their
    history, so what is recommended is what comes after all of it. (An evaluation of the test split
    lacks the last one.) The model reads the last `MAX_ITEM_LIST_LENGTH` of them.

        recommender = Recommender.load("saved/TIGER-ml-100k-....pth")
        for user, items, scores in recommender.recommend(users=["196"], k=5):
            ...

    Attributes:
        model: in evaluation mode.
        predictor (Predictor): asks it.
        generative (bool): whether it generates SIDs.
        sequential (bool): whether it reads a history.
        item_tokens (list[str]): by item id, "[PAD]" first.
    """

    def __init__(self, restored: Restored):
        self.config, self.model, self.dataset = restored[:3]
        self.histories = restored.histories
        self._encoder, self._tokenizer = restored.encoder, restored.tokenizer
        self._check_encoder = restored.check_encoder
        self.predictor = Predictor(restored)
        self.generative, self.sequential = self.predictor.generative, self.predictor.sequential
        tokens = self.dataset.field2id_token[self.dataset.iid_field]
        self.item_tokens = [str(token) for token in tokens]
        self._item_ids = {token: item for item, token in enumerate(self.item_tokens) if item}

    @classmethod
    def load(
        cls,
        checkpoint: str | os.PathLike[str],
        model: str | type | None = None,
        with_users: bool = True,
        **overrides: Any,
    ) -> Recommender:
        """The recommender of a checkpoint; arguments as for `load_data_and_model`.

        Args:
            with_users (bool): False spares the memory of the users' histories where only new
                histories are asked for.

        Raises:
            ConfigError: as there; or the weights are no numbers (NaN, infinity), which is what a
                training that diverged leaves.
        """
        restored = restore(checkpoint, model, overrides, with_histories=with_users)
        require_finite(restored.model, checkpoint)
        return cls(restored)

    def recommend(
        self,
        users: Iterable | None = None,
        histories: Iterable | None = None,
        k: int = 10,
        **options: Any,
    ) -> list[Recommendation]:
        """As `stream`, all answers at once."""
        return list(self.stream(users, histories, k, **options))

    def stream(
        self,
        users: Iterable | None = None,
        histories: Iterable | None = None,
        k: int = 10,
        exclude_history: bool | None = None,
        beam_size: int | None = None,
        batch_size: int | None = None,
        show_progress: bool | None = None,
        unknown: str = "error",
    ) -> Iterator[Recommendation]:
        """The `k` best items for each user or history, in the order given.

        Args:
            users: user tokens; None with no `histories`: everyone who has a history. Of no users,
                or histories, there are no answers.
            histories: item tokens in the order of time, one list (or array, or tensor) for each
                answer. A model that hashes users (`user_tokens`) takes them all for one unknown
                user.
            k: items of an answer. It has fewer where the model finds no more: raise `beam_size`.
            exclude_history: leave out every item of the history, however long ago; None does as
                the configuration says (`exclude_history`, False for RecBole's models).
            beam_size: of generative models; None takes the configuration's. At least `k`.
            batch_size: answers computed together; None takes what the evaluation does.
            show_progress: a bar; None takes the configuration's.
            unknown: `"skip"` leaves out users, and items of a history, that are not in the data,
                with a warning that names them, as long as others remain; `"error"` refuses them.

        Raises:
            ConfigError: tokens that are not in the data (named), an empty history, or a model that
                cannot answer so. Raised before the first answer.
        """
        k = self.check_k(k)
        if batch_size is None:
            batch_size = self.predictor.batch_size
        check_count(batch_size, "batch_size")
        if beam_size is not None:
            check_count(beam_size, "beam_size")
        if unknown not in UNKNOWN:
            raise ConfigError(f"unknown: {unknown!r} is not one of {', '.join(UNKNOWN)}")
        source, rows, names = self.asked(users, histories, unknown == "skip")
        exclude = self.leaves_out_history(exclude_history)
        show = self.config["show_progress"] if show_progress is None else show_progress
        # What follows is a generator of its own, so that the checks above come at once.
        return self._answers(source, rows, names, k, exclude, beam_size, batch_size, show)

    @torch.no_grad()
    def _answers(
        self,
        source: Histories,
        rows: torch.Tensor,
        names: list[str] | None,
        k: int,
        exclude: bool,
        beam_size: int | None,
        batch_size: int,
        show: bool,
    ) -> Iterator[Recommendation]:
        bar = Bar(total=len(rows), ncols=100, desc="Recommend", unit="user", disable=not show)
        with bar:
            for start in range(0, len(rows), batch_size):
                part = rows[start : start + batch_size]
                batch = self.predictor.batch(source, part, names is not None)
                gone = source.items(part).to(self.config["device"]) if exclude else None
                found = self.predictor.best(batch, k, gone, beam_size)
                for row, (items, scores) in enumerate(
                    zip(found.items.tolist(), found.scores.tolist())
                ):
                    pairs = [(i, s) for i, s in zip(items, scores) if i and s != NEVER]
                    yield Recommendation(
                        None if names is None else names[start + row],
                        [self.item_tokens[item] for item, _ in pairs],
                        [score for _, score in pairs],
                    )
                bar.update(len(part))

    def add_items(self, content: Mapping) -> None:
        """Make items recommendable that are known by their content alone.

        They can be recommended and stand in histories from then on; the checkpoint is not changed.
        PIT asks its own item tokenizer for their SIDs; other models take those of the fitted
        tokenizer of their training, which the checkpoint holds.

        Args:
            content: by item token, a text where the content of the training was made of texts: the
                words of a title (`"winter garden"`) or cells of the `.item` file (`{"title":
                "winter garden", "genre": "drama"}`); or a vector, of the kind that `item_content`
                gave for the training (a line of the `content_file`).

        Raises:
            ConfigError: tokens that exist, texts that say nothing to the model, vectors of another
                length or not finite, or a model that needs training for a new item. Nothing is
                added then.
        """
        if not isinstance(content, Mapping):
            raise ConfigError(
                f"new items: {content!r:.100} is no dict of texts or vectors by item token"
            )
        tokens = [str(token) for token in content]
        if not all(tokens):
            raise ConfigError("new items: an item needs a token, and one has the empty text")
        known = [token for token in tokens if token in self._item_ids]
        if known:
            raise ConfigError(f"new items: {len(known)} are known already, first {known[0]!r}")
        if not self.generative or self.model.weights_per_item:
            able = models_where(lambda other: is_generative(other) and not other.weights_per_item)
            raise ConfigError(
                f"new items: {self.config['model']} has a vector of its own for each item that it "
                "was trained on, and none for new ones; train again with them, or take "
                f"{' or '.join(able)}"
            )
        if any(isinstance(given, (str, Mapping)) for given in content.values()):
            self._check_encoder()
        vectors = content_rows(content, self._encoder, str(self.config["device"]))
        if self.model.tokenizes_items:
            self.model.add_items(vectors)
        else:
            table = self.model.sid_table()
            trained = self.item_tokens[: self.dataset.item_num]
            tokenizer = kept_tokenizer(self.config, table, trained, self._tokenizer)
            self.model.add_sids(new_item_codes(tokenizer, table, vectors))
        first = len(self.item_tokens)
        self.item_tokens += tokens
        self._item_ids.update(zip(tokens, range(first, first + len(tokens))))

    # What is asked for

    def asked(
        self, users: Iterable | None, histories: Iterable | None, skip: bool = False
    ) -> tuple[Histories, torch.Tensor, list[str] | None]:
        """Histories, the rows of them that are asked about, and the users these belong to (None:
        they are given); arguments and errors as for `stream`."""
        if users is not None and histories is not None:
            raise ConfigError("give users or histories, not both")
        if histories is not None:
            source = self._given(histories, skip)
            return source, torch.arange(len(source)), None
        rows = self._user_rows(users, skip)
        assert self.histories is not None  # _user_rows has looked
        tokens = self.dataset.field2id_token[self.dataset.uid_field]
        return self.histories, rows, [str(tokens[row]) for row in rows.tolist()]

    def item_ids(self, tokens: Iterable, what: str) -> list[int]:
        """Ids of item tokens; a ConfigError that begins with `what` names unknown ones."""
        return _ids_of([str(token) for token in tokens], self._item_ids, what)

    def leaves_out_history(self, exclude_history: bool | None) -> bool:
        """What is asked for, or where that is None what the configuration says."""
        if exclude_history not in (None, True, False):
            raise ConfigError(f"exclude_history: {exclude_history!r} must be True, False or None")
        return bool(self.config["exclude_history"] if exclude_history is None else exclude_history)

    def check_k(self, k: int) -> int:
        """A number of items that an answer may have; a ConfigError otherwise."""
        n_items = len(self.item_tokens) - 1
        try:
            return check_count(k, "k", 1, n_items)
        except ConfigError as error:
            raise ConfigError(f"{error}, the items there are") from None

    def _user_rows(self, users: Iterable | None, skip: bool = False) -> torch.Tensor:
        """Ids [B] of user tokens, or of all users with a history."""
        if self.histories is None:
            why = (
                "of benchmark files, which hold samples and not what users have taken, there are "
                "none; give histories"
                if self.dataset.benchmark_filename_list is not None
                else "they were not loaded (with_users=False)"
            )
            raise ConfigError(f"users: their histories are not known: {why}")
        taken = self.histories.lengths()
        if users is None:
            return taken.nonzero().squeeze(1)
        ids = self.dataset.field2token_id[self.dataset.uid_field]
        rows = torch.tensor(_ids_of(user_tokens(users), ids, "users", skip), dtype=torch.long)
        empty = (taken[rows] == 0).nonzero().squeeze(1)
        if self.sequential and len(empty):
            user = self.dataset.id2token(self.dataset.uid_field, int(rows[empty[0]]))
            message = f"users: {len(empty)} have no interactions to go by, first {str(user)!r}"
            if not skip or len(empty) == len(rows):
                raise ConfigError(message)
            getLogger().warning("%s; they are left out", message)
            return rows[taken[rows] > 0]
        return rows

    def _given(self, histories: Iterable, skip: bool = False) -> Histories:
        if not self.sequential:
            raise ConfigError(
                f"histories: {self.config['model']} knows users by a vector of their own and reads "
                "no history; give users, or take a sequential model"
            )
        rows = [
            _ids_of(tokens, self._item_ids, f"histories: number {number}", skip)
            for number, tokens in enumerate(token_lists(histories), 1)
        ]
        return Histories.of(rows, self.dataset.iid_field)


def _ids_of(tokens: Iterable, ids: Mapping[str, int], what: str, skip: bool = False) -> list[int]:
    """Ids of tokens; a ConfigError names those that are not there. With `skip` they are left out,
    with a warning, as long as others remain."""
    tokens = list(tokens)
    found = [ids.get(token, 0) for token in tokens]
    unknown = [token for token, number in zip(tokens, found) if not number]
    if unknown:
        shown = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        hint = did_you_mean(unknown[0], ids) if len(ids) <= 100_000 else ""
        if not skip or len(unknown) == len(tokens):
            raise ConfigError(f"{what}: not in the data: {shown}{hint}")
        getLogger().warning(
            "%s: %d of %d are not in the data and left out: %s%s",
            what, len(unknown), len(tokens), shown, hint,
        )  # fmt: skip
    return [number for number in found if number]
