"""Training batches of a generative model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.data.interaction import Interaction

from recbole_gr.data.augment import crop_or_shuffle
from recbole_gr.data.samples import targets_by_position, training_rows
from recbole_gr.errors import ConfigError

if TYPE_CHECKING:
    from recbole_gr.config import Config
    from recbole_gr.data.dataset import GenerativeDataset

CHUNK_BATCHES = 50  # rows are sorted by length among the rows of this many batches
N_TARGETS, NEGATIVES, SEED = "n_targets", "negative_items", "batch_seed"


class LengthBuckets:
    """Batches of rows of about equal length and of equally many targets, in random order.

    A loss is a mean over the targets of its batch. Were batches cut by rows, those of short rows
    would hold few targets and each of these would weigh more than the others. So an epoch's rows
    are shuffled, sorted by length within chunks of `CHUNK_BATCHES` batches, and cut where the
    targets counted so far fill another batch; then the batches are shuffled. There are as many
    batches as if they held `batch_size` rows each, and short rows come in larger ones.

    Args:
        lengths (LongTensor): [n] length of each row.
        n_targets (LongTensor): [n] targets counted in each, at least 1.
        batch_size (int): rows of a batch on average.
        generator (torch.Generator): source of every random number; its state decides the epoch.
    """

    def __init__(
        self,
        lengths: torch.Tensor,
        n_targets: torch.Tensor,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        self.lengths = lengths
        self.n_targets = n_targets
        self.batch_size = batch_size
        self.generator = generator

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order()
        sizes = torch.bincount(equal_shares(self.n_targets[order], len(self)))
        batches = order.split(sizes.tolist())
        for i in torch.randperm(len(batches), generator=self.generator).tolist():
            yield batches[i].tolist()

    def _order(self) -> torch.Tensor:
        """All rows, sorted within random chunks: the even chunks from short to long, the odd ones
        back, so that rows of about equal length meet where a batch spans two chunks."""
        shuffled = torch.randperm(len(self.lengths), generator=self.generator)
        chunk = torch.arange(len(shuffled)) // (self.batch_size * CHUNK_BATCHES)
        length = self.lengths[shuffled]
        longest = int(self.lengths.max())
        upwards = torch.where(chunk % 2 == 0, length, longest - length)
        return shuffled[torch.argsort(chunk * (longest + 1) + upwards, stable=True)]


def equal_shares(weights: torch.Tensor, n_shares: int) -> torch.Tensor:
    """Cut a list into consecutive shares of about equal weight, none of them empty.

    Args:
        weights (LongTensor): [n] weight of each entry, at least 1.
        n_shares (int): number of shares, at most n.

    Returns:
        LongTensor: [n] share of each entry, from 0 to `n_shares - 1`, never falling.
    """
    place = torch.arange(len(weights))
    before = weights.cumsum(0) - weights
    share = before * n_shares // weights.sum()
    # An entry heavier than a share would leave the next one empty: rise by one at a time ...
    share = place + (share - place).cummin(0).values
    # ... and keep an entry for every share that is still to come.
    return share.maximum(n_shares - len(weights) + place)


class GenerativeTrainLoader(TrainDataLoader):
    """Batches of user, target, history, history length and `n_targets`; no negative items.

    `train_sample: prefix` gives RecBole's rows, `sequence` the rows of `samples.sequence_rows`. The
    loss of a row counts its last `n_targets` predictions. Histories are cut to the longest of the
    batch. `train_batch_size` counts rows, on average where `bucket_by_length` gives every batch as
    many targets as the others. The order of an epoch follows from the state of
    `generator`, which a checkpoint saves and restores (`get_state`, `set_state`) to resume exactly.

    Several processes make the same batches and shard each (:mod:`recbole_gr.distributed.sharding`).

    Args:
        config (Config): `train_sample`, `window_overlap`, `bucket_by_length`, `train_batch_size`.
        dataset (GenerativeDataset): the training split; it keeps all its rows.
        sampler: ignored, as there are no negative items.
        shuffle (bool): a new order every epoch; otherwise the order of the data set.

    Attributes:
        rows (LongTensor): [m] rows of `dataset` that make up an epoch.
        n_targets (LongTensor): [m] predictions counted in each; their sum is `len(dataset)`.
    """

    def __init__(
        self, config: Config, dataset: GenerativeDataset, sampler: Any = None, shuffle: bool = False
    ) -> None:
        self.rows, self.n_targets = training_rows(
            dataset,
            config["train_sample"] or "prefix",
            config["MAX_ITEM_LIST_LENGTH"],
            config["window_overlap"],
        )
        self._set_neg_sample_args(config, dataset, config["MODEL_INPUT_TYPE"], None)
        self.sample_size = len(self.rows)
        self._length_field = dataset.item_list_length_field
        self._list_fields = [getattr(dataset, f"{f}_list_field") for f in dataset.history_fields]
        self._fields = [
            dataset.uid_field,
            *dataset.history_fields,
            self._length_field,
            *self._list_fields,
        ]
        # RecBole's constructor would count the rows of the data set instead of the samples.
        super(TrainDataLoader, self).__init__(config, dataset, sampler, shuffle=shuffle)
        self._bucketed: torch.utils.data.DataLoader | None = None
        if shuffle and config["bucket_by_length"] is not False:
            lengths = dataset.inter_feat[self._length_field][self.rows]
            rows = self._rows_of_a_batch()
            self._bucketed = torch.utils.data.DataLoader(
                range(self.sample_size),  # type: ignore[arg-type]  # has what a loader needs
                batch_sampler=LengthBuckets(lengths, self.n_targets, rows, self.generator),
                collate_fn=self.collate_fn,
                num_workers=config["worker"] or 0,
                generator=self.generator,
            )

    def _set_neg_sample_args(
        self, config: Config, dataset: GenerativeDataset, dl_format: Any, neg_sample_args: Any
    ) -> None:
        none = {"distribution": "none", "sample_num": "none"}
        super()._set_neg_sample_args(config, dataset, dl_format, none)

    def _rows_of_a_batch(self) -> int:
        return self.step

    def __len__(self) -> int:
        return super().__len__() if self._bucketed is None else len(self._bucketed)

    def __iter__(self) -> Iterator[Interaction]:
        return super().__iter__() if self._bucketed is None else iter(self._bucketed)

    def collate_fn(self, index: list[int]) -> Interaction:
        """The batch of the samples `index`, a list of positions in `rows`."""
        chosen = torch.as_tensor(index)
        rows = self.rows[chosen]
        table = self._dataset.inter_feat
        batch = {field: table[field][rows] for field in self._fields}
        longest = int(batch[self._length_field].max())
        for field in self._list_fields:
            batch[field] = batch[field][:, :longest]
        batch[N_TARGETS] = self.n_targets[chosen]
        return self.transform(self._dataset, Interaction(batch))


class WholeSequenceLoader(GenerativeTrainLoader):
    """Batches of whole sequences for RecBole's causal models (`recbole_gr.model.whole_sequences`).

    `train_batch_size` counts targets, as it does for RecBole's samples of one target each, so that
    an epoch has as many steps of as many targets. Where the loss takes a negative item for each
    target, RecBole's sampler draws them: `negative_items` [B, T], by position.

    With `crop_shuffle` a share of the rows is changed as :mod:`recbole_gr.data.augment` says; with
    `softmax_negatives` a batch holds the seed of its negatives, `batch_seed` [B]. Both follow from
    a draw of `generator` at the start of an epoch and the rows of the batch: all processes and
    workers, and a run that is resumed, make the same.
    """

    def __init__(
        self, config: Config, dataset: GenerativeDataset, sampler: Any = None, shuffle: bool = False
    ) -> None:
        negatives = config["train_neg_sample_args"]
        self._negatives = sampler if negatives["distribution"] != "none" else None
        drawn = (negatives["sample_num"], negatives["dynamic"])
        if self._negatives is not None and drawn != (1, False):
            raise ConfigError(
                f"train_neg_sample_args: {negatives} with train_sample=sequence: one negative for "
                "each target is drawn, not by its score; take train_sample=prefix for others"
            )
        self._changed = config["crop_shuffle"] or 0.0
        self._seeded = bool(config["softmax_negatives"])
        self._epoch_seed = 0
        super().__init__(config, dataset, sampler, shuffle)

    def __iter__(self) -> Iterator[Interaction]:
        if self._changed or self._seeded:
            self._epoch_seed = int(torch.randint(2**62, (1,), generator=self.generator))
        return super().__iter__()

    def _rows_of_a_batch(self) -> int:
        return max(1, round(self.step * len(self.rows) / int(self.n_targets.sum())))

    def collate_fn(self, index: list[int]) -> Interaction:
        """As of `GenerativeTrainLoader`, changed and with negatives."""
        batch = super().collate_fn(index)
        if self._changed or self._seeded:
            of_batch = np.random.SeedSequence([self._epoch_seed, int(index[0])]).generate_state(2)
            if self._changed:
                self._change(batch, torch.Generator().manual_seed(int(of_batch[0])))
            if self._seeded:
                seed = torch.full((len(batch),), int(of_batch[1]))
                batch.update(Interaction({SEED: seed}))
        if self._negatives is None:
            return batch
        data = self._dataset
        items = targets_by_position(
            batch[data.item_list_field], batch[self._length_field], batch[data.iid_field]
        )
        users = batch[data.uid_field].unsqueeze(1).expand_as(items).reshape(-1)
        drawn = self._negatives.sample_by_user_ids(users.numpy(), items.reshape(-1).numpy(), 1)
        batch.update(Interaction({NEGATIVES: drawn.view_as(items)}))
        return batch

    def _change(self, batch: Interaction, generator: torch.Generator) -> None:
        """Crop or shuffle some of the rows, in place."""
        lengths, row = batch[self._length_field], torch.arange(len(batch))
        width = batch[self._list_fields[0]].shape[1]
        place, length, counted = crop_or_shuffle(
            lengths, batch[N_TARGETS], width, self._changed, generator
        )
        beyond = torch.arange(width + 1) >= length.unsqueeze(1)
        changed = {self._length_field: length, N_TARGETS: counted}
        for field, list_field in zip(self._dataset.history_fields, self._list_fields):
            items, target = batch[list_field], batch[field]
            whole = torch.cat([items, torch.zeros_like(items[:, :1])], 1)
            whole[row, lengths] = target.to(whole.dtype)
            whole = whole[row.unsqueeze(1), place]
            changed[field] = whole[row, length].to(target.dtype)
            whole[beyond] = 0
            changed[list_field] = whole[:, : int(length.max())]
        batch.update(Interaction(changed))
