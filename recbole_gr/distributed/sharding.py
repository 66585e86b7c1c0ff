"""Shards of training and evaluation batches for the processes of a run, and their reduction.

`train_batch_size` is the size of the whole batch. Every process makes the same batch (its order
comes from the loader's own generator, negative items from numpy's, and both are seeded alike),
takes every n-th row of it and weighs the mean loss of these rows by their share of the targets.
Summed over the processes, the gradients are those of the whole batch, and so is the loss; a mean of
means would count the targets of a process that has few of them more than the others. The gradients
are summed here rather than in `DistributedDataParallel`, since that averages, wants every parameter
used in every pass, and knows nothing of phases and accumulation.

Each process draws dropout from a seed of its own.

An evaluation shard is whole batches, consecutive ones for each process. So every batch is computed
as it would be in a run of one process, to the last bit, no user is counted twice, and the metrics
are computed once over the lists of all users in their order.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from functools import cache
from logging import getLogger
from typing import TYPE_CHECKING, Any

import torch
from recbole.evaluator import Evaluator
from recbole.trainer import Trainer
from recbole.utils import ModelType

from recbole_gr.distributed import processes
from recbole_gr.errors import ConfigError

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataloader import AbstractDataLoader
    from recbole.data.interaction import Interaction
    from recbole.evaluator.collector import DataStruct
    from recbole.model.abstract_recommender import AbstractRecommender
    from recbole.trainer import Trainer as _Base  # what the mixin goes before
    from torch import Tensor
else:
    _Base = object

# What RecBole's collector holds of an evaluation, a row for each user or pair.
COLLECTED = ("rec.topk", "rec.items", "rec.meanrank", "rec.score", "data.label")
N_TARGETS = "n_targets"


class ShardedBatches:
    """This process's rows of the whole batches of a training loader.

    Attributes:
        share (float): of the present batch's targets, those in this process's rows; 1 where there
            is one process. Where a batch has fewer rows than there are processes, an empty shard is
            padded by one row with a share of 0, so that all go through the same collectives.
    """

    def __init__(self, loader: Any):
        self._loader = loader
        self.share = 1.0

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Interaction]:
        rank, size = processes.rank(), processes.world_size()
        for batch in self._loader:
            if size == 1:
                yield batch
                continue
            own = torch.arange(rank, len(batch), size)
            weight = batch[N_TARGETS] if N_TARGETS in batch else torch.ones(len(batch))
            self.share = float(weight[own].sum()) / float(weight.sum())
            yield batch[own if len(own) else torch.zeros(1, dtype=torch.long)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def evaluation_shard(loader: AbstractDataLoader) -> AbstractDataLoader:
    """A loader of this process's evaluation batches; `loader` itself where there is one process."""
    if processes.world_size() == 1:
        return loader
    shard, n_batches = copy.copy(loader), len(loader)
    kind: Any = type(loader)
    shard.__class__ = _shard_class(kind)
    if processes.is_rank_zero() and n_batches < processes.world_size():
        getLogger().info(
            f"{n_batches} batches to evaluate for {processes.world_size()} processes: a smaller "
            "eval_batch_size gives all of them something to do"
        )
    return shard


@cache
def _shard_class(loader_class: type) -> type:
    class Shard(loader_class):
        def _own(self) -> range:
            n, size, rank = super().__len__(), processes.world_size(), processes.rank()
            return range(n * rank // size, n * (rank + 1) // size)

        def __len__(self) -> int:
            return len(self._own())

        def __bool__(self) -> bool:
            return True  # RecBole takes a loader without batches for none, and returns nothing

        def __iter__(self) -> Iterator[Any]:
            # Through all batches: sampled negatives are drawn in the order of one process.
            own = self._own()
            for number, batch in enumerate(super().__iter__()):
                if number in own:
                    yield batch

    return Shard


class DistributedEvaluator(Evaluator):
    """RecBole's metrics over what all processes have collected, computed on rank 0 for all."""

    def evaluate(self, dataobject: DataStruct) -> OrderedDict:
        """As RecBole's, from the rows of all processes, as Python's numbers: numpy 2 prints its own
        as `np.float64(0.1)`."""
        if processes.world_size() == 1:
            return self._metrics(dataobject)
        own = {name: dataobject[name] for name in COLLECTED if name in dataobject}
        parts = processes.gather_object(own) or []
        for name in COLLECTED:
            rows = [part[name] for part in parts if name in part]
            if rows:
                dataobject.set(name, torch.cat(rows))
        return processes.broadcast_object(lambda: self._metrics(dataobject))

    def _metrics(self, dataobject: DataStruct) -> OrderedDict:
        result = super().evaluate(dataobject)
        return OrderedDict((name, float(value)) for name, value in result.items())


def gather_lists(*lists: list[Tensor]) -> list[list[Tensor]]:
    """Lists of tensors with one entry a batch, joined over all processes in the order of batches.

    Returns:
        list[list[Tensor]]: on rank 0; empty lists on the others.
    """
    parts = processes.gather_object([list(entries) for entries in lists]) or []
    return [[entry for part in parts for entry in part[i]] for i in range(len(lists))]


class DistributedTrainerMixin(_Base):
    """Training steps of a RecBole `Trainer` class, which it goes before, on several processes.

    The loss of a process counts by its share of the rows, and the gradients of all are summed
    before the optimiser's step. That is the gradient of the whole batch where a loss is a mean over
    rows, such as cross-entropy or BPR; a loss that relates the rows of a batch to each other
    (contrastive terms, norms over the batch) relates those of each process. Models that count
    instead of learning (Pop, ItemKNN) see all rows in every process.

    Raises:
        ConfigError: a trainer with steps of its own, or `enable_scaler`, whose scale would differ
            between processes.
    """

    def __init__(self, config: Config, model: AbstractRecommender):
        if processes.world_size() > 1:
            _check_trainer(type(self), config)
        super().__init__(config, model)

    def _train_epoch(
        self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False
    ) -> Any:
        counts = self.config["MODEL_TYPE"] == ModelType.TRADITIONAL
        if processes.world_size() == 1 or counts:
            return super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
        shards = ShardedBatches(train_data)
        whole_loss = loss_func or self.model.calculate_loss

        def loss_of_shard(interaction: Interaction) -> Any:
            losses = whole_loss(interaction)
            if isinstance(losses, tuple):
                return tuple(loss * shards.share for loss in losses)
            return losses * shards.share

        # RecBole would clip the gradients of this process alone.
        clip: Any = self.clip_grad_norm  # type: ignore[has-type]
        self.clip_grad_norm = None

        def before_step(*_: Any) -> None:
            processes.all_reduce_gradients(self.model.parameters())
            if clip:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), **clip)

        hook = self.optimizer.register_step_pre_hook(before_step)
        try:
            loss = super()._train_epoch(shards, epoch_idx, loss_of_shard, show_progress)
        finally:
            hook.remove()
            self.clip_grad_norm = clip
        processes.broadcast_weights(self.model)  # for batch statistics
        parts = loss if isinstance(loss, tuple) else (loss,)
        total = torch.tensor(parts, dtype=torch.float64, device=self.device)
        summed = processes.all_reduce_sum(total)
        return tuple(summed.tolist()) if isinstance(loss, tuple) else float(summed)


def _check_trainer(trainer: type, config: Any) -> None:
    ours = [parent for parent in trainer.__mro__ if parent.__module__.startswith("recbole.")]
    for method in ("fit", "_train_epoch"):
        if getattr(ours[0], method) is not getattr(Trainer, method):
            raise ConfigError(
                f"nproc: {config['model']} is trained by RecBole's {ours[0].__name__}, whose steps "
                "cannot be shared between processes; use --nproc=1"
            )
    if config["enable_scaler"]:
        raise ConfigError(
            f"enable_scaler: {config['model']} with nproc above 1 would scale its losses apart in "
            "each process; use --enable_scaler=False"
        )
