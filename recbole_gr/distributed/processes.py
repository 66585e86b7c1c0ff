"""The processes of a run: rank, world size, and collectives over tensors and plain values.

Every process reads the same data, makes the same batches from the same seed and holds the same
weights. It computes its shard of each training batch (:mod:`recbole_gr.distributed.sharding`) and
of the users to evaluate; rank 0 learns SIDs, computes metrics and alone writes files. In a run of
one process all functions here do nothing, or return what they were given.

RecBole's own switch for several processes (``single_spec``) stays off: its samplers fill up the
last batch with users that were evaluated before, and its metrics are means over unequal parts.
"""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recbole_gr.distributed.failures import end_lost
from recbole_gr.distributed.liveness import Liveness, choose_interface
from recbole_gr.distributed.rendezvous import RankInfo, store_of
from recbole_gr.errors import ConfigError

# Others wait for days while rank 0 learns SIDs. A process that ends closes its connection.
COLLECTIVE_TIMEOUT = timedelta(days=30)
_NOT_LAUNCHED = RankInfo(0, 1, 0)
_rank_info = _NOT_LAUNCHED  # of this process
_is_single = False  # inside of `single_process`
_liveness: Liveness | None = None  # where other machines take part
_gloo_group: Any = None  # for values, also where gradients take nccl


def set_rank(info: RankInfo) -> None:
    """Say which process this is; the others are met in :func:`init_process_group`."""
    global _rank_info
    _rank_info = info


def is_launched() -> bool:
    """Whether this process is one of several, or of one that was started as such."""
    return _rank_info is not _NOT_LAUNCHED


def init_process_group(kind: str) -> torch.device:
    """Meet the other processes, once; returns this one's device.

    Args:
        kind: ``cpu`` (gradients go through gloo) or ``cuda`` (through nccl).

    Raises:
        ConfigError: no GPU of its own for this process, a port in use, a rank given twice, or not
            all came.
    """
    global _gloo_group, _liveness
    local_rank, device = _rank_info.local_rank, torch.device(kind)
    if kind == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"nproc: {local_rank + 1} processes or more on this machine, which has "
                f"{torch.cuda.device_count()} GPUs here; set --gpu_id=0,1,... to as many, or lower "
                "nproc"
            )
        device = torch.device(kind, local_rank)
        torch.cuda.set_device(device)
    if _gloo_group is None:
        choose_interface(_rank_info)
        store = store_of(_rank_info)  # None: torchrun's, as -1 is its ranks
        own, size = (-1, -1) if store is None else _rank_info[:2]
        backend, timeout = ("nccl", None) if kind == "cuda" else ("gloo", COLLECTIVE_TIMEOUT)
        dist.init_process_group(backend, None, timeout, size, own, store)
        _gloo_group = dist.group.WORLD
        if kind == "cuda":
            _gloo_group = dist.new_group(None, COLLECTIVE_TIMEOUT, "gloo")
        if (info := _rank_info).spans_machines:
            _liveness = Liveness(info, broadcast_object, lambda error: end_lost(error, info))
    return device


def destroy_process_group() -> None:
    """Close the connections to the other processes."""
    global _rank_info, _gloo_group, _liveness
    if _liveness is not None:
        _liveness.close()
        _liveness = None
    if dist.is_initialized():
        dist.destroy_process_group()
    _rank_info, _gloo_group = _NOT_LAUNCHED, None


def await_verdict() -> None:
    """Call this where the run has failed: the process ends if a lost machine is the cause."""
    if _liveness is not None:
        _liveness.await_verdict()


def rank() -> int:
    """Number of this process, from 0."""
    return 0 if _is_single else _rank_info.rank


def world_size() -> int:
    """Number of processes."""
    return 1 if _is_single else _rank_info.world_size


def is_rank_zero() -> bool:
    """Whether this process writes the files."""
    return rank() == 0


@contextlib.contextmanager
def single_process(active: bool = True) -> Iterator[None]:
    """Inside the block this process works as if it were the only one: nothing waits for others."""
    global _is_single
    before, _is_single = _is_single, active
    try:
        yield
    finally:
        _is_single = before


def all_processes() -> contextlib.AbstractContextManager[None]:
    """Inside the block, within :func:`single_process`, the process works with the others again."""
    return single_process(active=False)


def broadcast_object(make: Callable[[], Any]) -> Any:
    """What ``make()`` returns on rank 0, for all; it is called there alone.

    Args:
        make: returns tensors and plain values. If it raises, rank 0 ends and the others with it.
    """
    if world_size() == 1:
        return make()
    value, packed = None, torch.empty(0, dtype=torch.uint8)
    if is_rank_zero():
        with single_process():
            value = make()
        packed = _packed(value)
    length = torch.tensor([len(packed)])
    dist.broadcast(length, src=0, group=_gloo_group)
    packed.resize_(int(length))
    dist.broadcast(packed, src=0, group=_gloo_group)
    return value if is_rank_zero() else _unpacked(packed)


def gather_object(value: Any) -> list | None:
    """The ``value`` (tensors and plain values) of every process by rank, on rank 0; None on the
    others."""
    if world_size() == 1:
        return [value]
    own = _packed(value)
    lengths = _all_gather_int(len(own))
    own = nn.functional.pad(own, (0, max(lengths) - len(own)))
    parts = [torch.empty_like(own) for _ in lengths] if is_rank_zero() else None
    dist.gather(own, parts, dst=0, group=_gloo_group)
    if parts is None:
        return None
    return [_unpacked(part[:length]) for part, length in zip(parts, lengths)]


# Why not torch's `broadcast_object_list` and `gather_object`: they unpickle what arrives. Over
# several machines whoever reaches rank 0's port is taken for the rank that it names, without a
# password, and a pickle can run anything; tensors and plain values in torch's file format, read
# with `weights_only=True`, cannot.
def _packed(value: Any) -> Tensor:
    torch.save(value, buffer := io.BytesIO())
    return torch.frombuffer(bytearray(buffer.getbuffer()), dtype=torch.uint8)


def _unpacked(packed: Tensor) -> Any:
    # On the CPU: a tensor of another process's GPU would end up there.
    return torch.load(io.BytesIO(packed.numpy().tobytes()), weights_only=True, map_location="cpu")


def _all_gather_int(own: int) -> list[int]:
    """A number of every process, by rank, in every process."""
    lengths = torch.zeros(world_size(), dtype=torch.long)
    lengths[rank()] = own
    dist.all_reduce(lengths, group=_gloo_group)
    return lengths.tolist()


def all_gather_rows(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The rows of all processes, by rank, in every process.

    Args:
        tensors: ``[n, ...]`` of one number of rows, which may differ between processes.

    Returns:
        ``[N, ...]`` for each.
    """
    if world_size() == 1:
        return tensors
    counts, gathered = _all_gather_int(len(tensors[0])), []
    for tensor in tensors:
        own = tensor.new_zeros((max(counts), *tensor.shape[1:]))
        own[: len(tensor)] = tensor
        parts = [torch.empty_like(own) for _ in counts]
        dist.all_gather(parts, own)
        gathered.append(torch.cat([part[:n] for part, n in zip(parts, counts)]))
    return tuple(gathered)


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Add the tensors of all processes up, in place; all get the same bits."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def all_reduce_max(value: int) -> int:
    """The largest ``value`` of all processes, in every process."""
    return value if world_size() == 1 else max(_all_gather_int(value))


@torch.no_grad()
def all_reduce_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by the sum of the gradients of all processes.

    They travel in one piece for each type of number. A parameter that no process used keeps no
    gradient, so the optimiser goes on leaving it alone; who used which is told without the device.
    """
    if world_size() == 1:
        return
    kinds: dict[torch.dtype, list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.requires_grad:
            kinds.setdefault(parameter.dtype, []).append(parameter)
    for group in kinds.values():
        users = torch.tensor([parameter.grad is not None for parameter in group]).int()
        dist.all_reduce(users, group=_gloo_group)
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in group]
        flat = all_reduce_sum(torch.cat([gradient.flatten() for gradient in own]))
        parts = flat.split([parameter.numel() for parameter in group])
        for parameter, part, n_users in zip(group, parts, users.tolist()):
            parameter.grad = part.view_as(parameter) if n_users else None


@torch.no_grad()
def broadcast_weights(module: nn.Module) -> None:
    """Give every process the parameters and buffers of rank 0."""
    if world_size() > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.numel():
                whole = tensor.detach().contiguous()
                # As bytes: gloo knows no booleans and no 16-bit integers.
                dist.broadcast(whole.view(-1).view(torch.uint8), src=0)
                tensor.copy_(whole)


def seed_per_rank(seed: int) -> None:
    """Let torch draw other numbers (dropout) in each process; rank 0 goes on as it was.

    Python's and numpy's generators go on alike everywhere: batches are made of them.
    """
    if rank():
        torch.manual_seed(seed + rank())
