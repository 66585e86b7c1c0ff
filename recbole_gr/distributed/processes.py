"""The processes that share a run: which of them this is, and what they tell each other.

Every process reads the same data, makes the same batches from the same seed and holds the same
weights. It computes its shard of each training batch (:mod:`recbole_gr.distributed.sharding`) and
of the users to evaluate; rank 0 learns SIDs, computes metrics and alone writes files. In a run of
one process all functions here do nothing, or return what they were given.

RecBole's own switch for several processes (``single_spec``) stays off: its samplers fill up the
last batch with users that were evaluated before, and its metrics are means over unequal parts.

What is exchanged are tensors and plain values in torch's file format, read with
``weights_only=True``.
"""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recbole_gr.errors import ConfigError

# Others wait for days while process 0 learns SIDs. One that ends closes its connection.
COLLECTIVE_TIMEOUT = timedelta(days=30)
RENDEZVOUS_TIMEOUT = timedelta(minutes=10)  # for all machines to be started


class RankInfo(NamedTuple):
    """Where a process stands.

    Attributes:
        rank: from 0 over all machines.
        size: number of processes on all machines.
        local_rank: from 0 on this machine; the number of its GPU.
        ip, port: where process 0 is to be met; None takes what torchrun says.
        file: to meet through instead, where all are on one machine. A port that was free when the
            processes were started could be taken by the time they meet.
    """

    rank: int
    size: int
    local_rank: int
    ip: str | None = None
    port: int | None = None
    file: str | None = None


_NOT_LAUNCHED = RankInfo(0, 1, 0)
_rank_info = _NOT_LAUNCHED  # of this process
_single_process_depth = 0  # how many blocks of `single_process` are open
_gloo_group: Any = None  # the group that values go through: gloo, also where gradients take nccl


def set_rank(info: RankInfo) -> None:
    """Say where this process stands; the others are met in :func:`init_process_group`."""
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
    global _gloo_group
    device = torch.device(kind, _rank_info.local_rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        if _rank_info.local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"nproc: {_rank_info.local_rank + 1} processes or more on this machine, which has "
                f"{torch.cuda.device_count()} GPUs here; set --gpu_id=0,1,... to as many, or lower "
                "nproc"
            )
        torch.cuda.set_device(device)
    if _gloo_group is not None:
        return device
    backend = "nccl" if kind == "cuda" else "gloo"
    timeout = None if kind == "cuda" else COLLECTIVE_TIMEOUT
    if _rank_info.ip is None and _rank_info.file is None:
        dist.init_process_group(backend, timeout=timeout)
    else:
        store, rank, size = _rendezvous(), _rank_info.rank, _rank_info.size
        dist.init_process_group(backend, timeout=timeout, store=store, rank=rank, world_size=size)
    _gloo_group = (
        dist.group.WORLD if backend == "gloo" else dist.new_group(None, COLLECTIVE_TIMEOUT, "gloo")
    )
    return device


def _rendezvous() -> dist.Store:
    """The store at process 0, once every process has come to it."""
    ip, port, size = str(_rank_info.ip), int(_rank_info.port or 0), _rank_info.size
    if _rank_info.file is not None:
        store: dist.Store = dist.FileStore(_rank_info.file, size)
        store.set_timeout(RENDEZVOUS_TIMEOUT)
        return store
    try:
        store = dist.TCPStore(
            ip, port, None, _rank_info.rank == 0, RENDEZVOUS_TIMEOUT, wait_for_workers=False
        )
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        if "EADDRINUSE" in str(error) or "in use" in str(error):
            raise port_in_use(port) from error
        raise ConfigError(
            f"ip, port: the first process cannot be met at {ip}:{port}. Start the machine with "
            f"--group_offset=0, and give its address to all. {error}"
        ) from error
    if store.add(f"rank-{_rank_info.rank}", 1) > 1:
        raise ConfigError(
            f"group_offset: process {_rank_info.rank} of {size} was started twice. On every "
            "machine group_offset is the number of processes on the machines before it."
        )
    missing: list[int] = []
    for rank in range(size):
        try:
            store.wait(
                [f"rank-{rank}"], timedelta(milliseconds=1) if missing else RENDEZVOUS_TIMEOUT
            )
        except (dist.DistStoreError, RuntimeError):
            missing.append(rank)
    if missing:
        raise ConfigError(
            f"world_size: {size} processes are expected at {ip}:{port}, but {missing} did not come "
            f"within {RENDEZVOUS_TIMEOUT}. Compare nproc, world_size and group_offset of all "
            "machines."
        )
    return store


def port_in_use(port: int) -> ConfigError:
    """The error of a port that another program holds."""
    return ConfigError(f"port: {port} is in use on this machine. Give another one, or none.")


def destroy_process_group() -> None:
    """Part from the other processes."""
    global _rank_info, _gloo_group
    if dist.is_initialized():
        dist.destroy_process_group()
    _rank_info, _gloo_group = _NOT_LAUNCHED, None


def rank() -> int:
    """Number of this process, from 0."""
    return 0 if _single_process_depth else _rank_info.rank


def world_size() -> int:
    """Number of processes."""
    return 1 if _single_process_depth else _rank_info.size


def is_rank_zero() -> bool:
    """Whether this process writes the files."""
    return rank() == 0


@contextlib.contextmanager
def single_process() -> Iterator[None]:
    """Inside the block this process works as if it were the only one: nothing waits for others."""
    global _single_process_depth
    _single_process_depth += 1
    try:
        yield
    finally:
        _single_process_depth -= 1


@contextlib.contextmanager
def all_processes() -> Iterator[None]:
    """Inside the block, within :func:`single_process`, the process works with the others again."""
    global _single_process_depth
    blocks, _single_process_depth = _single_process_depth, 0
    try:
        yield
    finally:
        _single_process_depth = blocks


def broadcast_object(make: Callable[[], Any]) -> Any:
    """What ``make()`` returns in process 0, for all; it is called there alone.

    Args:
        make: returns tensors and plain values. If it raises, process 0 ends and the others with it.
    """
    if world_size() == 1:
        return make()
    if is_rank_zero():
        with single_process():
            value = make()
        _send(_packed(value))
        return value
    return _unpacked(_send(None))


def gather_object(value: Any) -> list | None:
    """The ``value`` of every process by rank, in process 0; None in the others."""
    if world_size() == 1:
        return [value]
    own = _packed(value)
    lengths = [torch.zeros(1, dtype=torch.long) for _ in range(world_size())]
    dist.all_gather(lengths, torch.tensor([len(own)]), group=_gloo_group)
    longest = int(max(lengths))
    own = nn.functional.pad(own, (0, longest - len(own)))
    parts = [torch.empty_like(own) for _ in range(world_size())] if is_rank_zero() else None
    dist.gather(own, parts, dst=0, group=_gloo_group)
    if parts is None:
        return None
    return [_unpacked(part[: int(length)]) for part, length in zip(parts, lengths)]


def all_gather_rows(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The rows of all processes, by rank, in every process.

    Args:
        tensors: ``[n, ...]`` of one number of rows, which may differ between processes.

    Returns:
        ``[N, ...]`` for each.
    """
    if world_size() == 1:
        return tensors
    length = torch.tensor([len(tensors[0])])
    lengths = [torch.zeros_like(length) for _ in range(world_size())]
    dist.all_gather(lengths, length, group=_gloo_group)
    counts = torch.cat(lengths).tolist()
    gathered = []
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
    everyone = torch.tensor(value)
    if world_size() > 1:
        dist.all_reduce(everyone, dist.ReduceOp.MAX, group=_gloo_group)
    return int(everyone)


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
    """Give every process the parameters and buffers of process 0."""
    if world_size() > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.numel():
                whole = tensor.detach().contiguous()
                # As bytes: gloo knows no booleans and no 16-bit integers.
                dist.broadcast(whole.view(-1).view(torch.uint8), src=0)
                tensor.copy_(whole)


def seed_per_rank(seed: int) -> None:
    """Let torch draw other numbers (dropout) in each process; process 0 goes on as it was.

    Python's and numpy's generators go on alike everywhere: batches are made of them.
    """
    if rank():
        torch.manual_seed(seed + rank())


def _send(packed: Tensor | None) -> Tensor:
    """From process 0 to all."""
    length = torch.tensor([0 if packed is None else len(packed)])
    dist.broadcast(length, src=0, group=_gloo_group)
    if packed is None:
        packed = torch.empty(int(length), dtype=torch.uint8)
    dist.broadcast(packed, src=0, group=_gloo_group)
    return packed


def _packed(value: Any) -> Tensor:
    torch.save(value, buffer := io.BytesIO())
    return torch.frombuffer(bytearray(buffer.getbuffer()), dtype=torch.uint8)


def _unpacked(packed: Tensor) -> Any:
    # On the CPU: a tensor of another process's GPU would end up there.
    return torch.load(io.BytesIO(packed.numpy().tobytes()), weights_only=True, map_location="cpu")
