"""Training batches of a generative model."""

import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.data.interaction import Interaction

from recbole_gr.data.samples import training_rows

CHUNK_BATCHES = 50  # rows are sorted by length among the rows of this many batches
N_TARGETS = "n_targets"


class LengthBuckets:
    """Batches of rows of about equal length, in random order; a batch sampler.

    Each epoch shuffles the rows, sorts them by length within chunks of `CHUNK_BATCHES` batches,
    cuts them into batches and shuffles those. Rows that do not fill a batch are drawn before the
    sorting, so that no length is favoured.

    Args:
        lengths (LongTensor): [n] length of each row.
        batch_size (int): rows of a batch.
        generator (torch.Generator): source of every random number; its state decides the epoch.
    """

    def __init__(self, lengths, batch_size, generator):
        self.lengths = lengths
        self.batch_size = batch_size
        self.generator = generator

    def __len__(self):
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self):
        shuffled = torch.randperm(len(self.lengths), generator=self.generator)
        n_full = len(shuffled) // self.batch_size
        full, rest = shuffled.tensor_split([n_full * self.batch_size])
        chunk = torch.arange(len(full)) // (self.batch_size * CHUNK_BATCHES)
        key = chunk * (int(self.lengths.max()) + 1) + self.lengths[full]
        batches = list(full[torch.argsort(key, stable=True)].split(self.batch_size)[:n_full])
        if len(rest):
            batches.append(rest)
        for i in torch.randperm(len(batches), generator=self.generator).tolist():
            yield batches[i].tolist()


class GenerativeTrainLoader(TrainDataLoader):
    """Batches of user, target, history, history length and `n_targets`; no negative items.

    `train_sample: prefix` gives RecBole's rows, `sequence` the rows of `samples.sequence_rows`. The
    loss of a row counts its last `n_targets` predictions. Histories are cut to the longest of the
    batch. `train_batch_size` counts rows. The order of an epoch follows from the state of
    `generator`, which a checkpoint saves and restores (`get_state`, `set_state`) to resume exactly.

    With several processes the rows are dealt out by RecBole's `DistributedSampler`, unsorted.

    Args:
        config (Config): `train_sample`, `window_overlap`, `bucket_by_length`, `train_batch_size`.
        dataset (GenerativeDataset): the training split; it keeps all its rows.
        sampler: ignored, as there are no negative items.
        shuffle (bool): a new order every epoch; otherwise the order of the data set.

    Attributes:
        rows (LongTensor): [m] rows of `dataset` that make up an epoch.
        n_targets (LongTensor): [m] predictions counted in each; their sum is `len(dataset)`.
    """

    def __init__(self, config, dataset, sampler=None, shuffle=False):
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
        self._bucketed = None
        if shuffle and config["single_spec"] and config["bucket_by_length"] is not False:
            lengths = dataset.inter_feat[self._length_field][self.rows]
            self._bucketed = torch.utils.data.DataLoader(
                range(self.sample_size),
                batch_sampler=LengthBuckets(lengths, self.step, self.generator),
                collate_fn=self.collate_fn,
                num_workers=config["worker"] or 0,
                generator=self.generator,
            )

    def _set_neg_sample_args(self, config, dataset, dl_format, neg_sample_args):
        none = {"distribution": "none", "sample_num": "none"}
        super()._set_neg_sample_args(config, dataset, dl_format, none)

    def __len__(self):
        return super().__len__() if self._bucketed is None else len(self._bucketed)

    def __iter__(self):
        return super().__iter__() if self._bucketed is None else iter(self._bucketed)

    def collate_fn(self, index):
        """The batch of the samples `index`, a list of positions in `rows`."""
        index = torch.as_tensor(index)
        rows = self.rows[index]
        table = self._dataset.inter_feat
        batch = {field: table[field][rows] for field in self._fields}
        longest = int(batch[self._length_field].max())
        for field in self._list_fields:
            batch[field] = batch[field][:, :longest]
        batch[N_TARGETS] = self.n_targets[index]
        return self.transform(self._dataset, Interaction(batch))
