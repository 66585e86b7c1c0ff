"""The processes that share a run: which of them this is, and what they tell each other.

Every process reads the same data, makes the same batches from the same seed and holds the same
weights. It computes its part of each training batch (:mod:`recbole_gr.distributed.sharing`) and its
part of the users to evaluate; process 0, the *main* one, learns SIDs, computes metrics and alone
writes files. In a run of one process all functions here do nothing, or return what they were given.

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
PATIENCE = timedelta(days=30)
MEETING = timedelta(minutes=10)  # for all machines to be started


class Place(NamedTuple):
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


_ALONE = Place(0, 1, 0)
_place = _ALONE  # of this process
_working_alone = 0  # how many blocks of `alone` are open
_values: Any = None  # the group that values go through: gloo, also where gradients take nccl


def announce(place: Place) -> None:
    """Say where this process stands; the others are met in :func:`connect`."""
    global _place
    _place = place


def announced() -> bool:
    """Whether this process is one of several, or of one that was started as such."""
    return _place is not _ALONE


def connect(kind: str) -> torch.device:
    """Meet the other processes, once; returns this one's device.

    Args:
        kind: ``cpu`` (gradients go through gloo) or ``cuda`` (through nccl).

    Raises:
        ConfigError: no GPU of its own for this process, a port in use, a rank given twice, or not
            all came.
    """
    global _values
    device = torch.device(kind, _place.local_rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        if _place.local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"nproc: {_place.local_rank + 1} processes or more on this machine, which has "
                f"{torch.cuda.device_count()} GPUs here; set --gpu_id=0,1,... to as many, or lower "
                "nproc"
            )
        torch.cuda.set_device(device)
    if _values is not None:
        return device
    backend = "nccl" if kind == "cuda" else "gloo"
    timeout = None if kind == "cuda" else PATIENCE
    if _place.ip is None and _place.file is None:
        dist.init_process_group(backend, timeout=timeout)
    else:
        store, rank, size = _meet(), _place.rank, _place.size
        dist.init_process_group(backend, timeout=timeout, store=store, rank=rank, world_size=size)
    _values = dist.group.WORLD if backend == "gloo" else dist.new_group(None, PATIENCE, "gloo")
    return device


def _meet() -> dist.Store:
    """The store at process 0, once every process has come to it."""
    ip, port, size = str(_place.ip), int(_place.port or 0), _place.size
    if _place.file is not None:
        store: dist.Store = dist.FileStore(_place.file, size)
        store.set_timeout(MEETING)
        return store
    try:
        store = dist.TCPStore(ip, port, None, _place.rank == 0, MEETING, wait_for_workers=False)
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        if "EADDRINUSE" in str(error) or "in use" in str(error):
            raise port_in_use(port) from error
        raise ConfigError(
            f"ip, port: the first process cannot be met at {ip}:{port}. Start the machine with "
            f"--group_offset=0, and give its address to all. {error}"
        ) from error
    if store.add(f"rank-{_place.rank}", 1) > 1:
        raise ConfigError(
            f"group_offset: process {_place.rank} of {size} was started twice. On every machine "
            "group_offset is the number of processes on the machines before it."
        )
    missing: list[int] = []
    for rank in range(size):
        try:
            store.wait([f"rank-{rank}"], timedelta(milliseconds=1) if missing else MEETING)
        except (dist.DistStoreError, RuntimeError):
            missing.append(rank)
    if missing:
        raise ConfigError(
            f"world_size: {size} processes are expected at {ip}:{port}, but {missing} did not come "
            f"within {MEETING}. Compare nproc, world_size and group_offset of all machines."
        )
    return store


def port_in_use(port: int) -> ConfigError:
    """The error of a port that another program holds."""
    return ConfigError(f"port: {port} is in use on this machine. Give another one, or none.")


def leave() -> None:
    """Part from the other processes."""
    global _place, _values
    if dist.is_initialized():
        dist.destroy_process_group()
    _place, _values = _ALONE, None


def rank() -> int:
    """Number of this process, from 0."""
    return 0 if _working_alone else _place.rank


def size() -> int:
    """Number of processes."""
    return 1 if _working_alone else _place.size


def is_main() -> bool:
    """Whether this process writes the files."""
    return rank() == 0


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside the block this process works as if it were the only one: nothing waits for others."""
    global _working_alone
    _working_alone += 1
    try:
        yield
    finally:
        _working_alone -= 1


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Inside the block, within :func:`alone`, the process works with the others again."""
    global _working_alone
    blocks, _working_alone = _working_alone, 0
    try:
        yield
    finally:
        _working_alone = blocks


def from_main(make: Callable[[], Any]) -> Any:
    """What ``make()`` returns in process 0, for all; it is called there alone.

    Args:
        make: returns tensors and plain values. If it raises, process 0 ends and the others with it.
    """
    if size() == 1:
        return make()
    if is_main():
        with alone():
            value = make()
        _send(_packed(value))
        return value
    return _unpacked(_send(None))


def gather(value: Any) -> list | None:
    """The ``value`` of every process by rank, in process 0; None in the others."""
    if size() == 1:
        return [value]
    own = _packed(value)
    lengths = [torch.zeros(1, dtype=torch.long) for _ in range(size())]
    dist.all_gather(lengths, torch.tensor([len(own)]), group=_values)
    longest = int(max(lengths))
    own = nn.functional.pad(own, (0, longest - len(own)))
    parts = [torch.empty_like(own) for _ in range(size())] if is_main() else None
    dist.gather(own, parts, dst=0, group=_values)
    if parts is None:
        return None
    return [_unpacked(part[: int(length)]) for part, length in zip(parts, lengths)]


def gather_rows(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The rows of all processes, by rank, in every process.

    Args:
        tensors: ``[n, ...]`` of one number of rows, which may differ between processes.

    Returns:
        ``[N, ...]`` for each.
    """
    if size() == 1:
        return tensors
    length = torch.tensor([len(tensors[0])])
    lengths = [torch.zeros_like(length) for _ in range(size())]
    dist.all_gather(lengths, length, group=_values)
    counts = torch.cat(lengths).tolist()
    gathered = []
    for tensor in tensors:
        own = tensor.new_zeros((max(counts), *tensor.shape[1:]))
        own[: len(tensor)] = tensor
        parts = [torch.empty_like(own) for _ in counts]
        dist.all_gather(parts, own)
        gathered.append(torch.cat([part[:n] for part, n in zip(parts, counts)]))
    return tuple(gathered)


def sum_(tensor: Tensor) -> Tensor:
    """Add the tensors of all processes up, in place; all get the same bits."""
    if size() > 1:
        dist.all_reduce(tensor)
    return tensor


def largest(value: int) -> int:
    """The largest ``value`` of all processes, in every process."""
    everyone = torch.tensor(value)
    if size() > 1:
        dist.all_reduce(everyone, dist.ReduceOp.MAX, group=_values)
    return int(everyone)


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by the sum of the gradients of all processes.

    They travel in one piece for each type of number. A parameter that no process used keeps no
    gradient, so the optimiser goes on leaving it alone; who used which is told without the device.
    """
    if size() == 1:
        return
    kinds: dict[torch.dtype, list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.requires_grad:
            kinds.setdefault(parameter.dtype, []).append(parameter)
    for group in kinds.values():
        users = torch.tensor([parameter.grad is not None for parameter in group]).int()
        dist.all_reduce(users, group=_values)
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in group]
        flat = sum_(torch.cat([gradient.flatten() for gradient in own]))
        parts = flat.split([parameter.numel() for parameter in group])
        for parameter, part, n_users in zip(group, parts, users.tolist()):
            parameter.grad = part.view_as(parameter) if n_users else None


@torch.no_grad()
def take_weights_of_main(module: nn.Module) -> None:
    """Give every process the parameters and buffers of process 0."""
    if size() > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.numel():
                whole = tensor.detach().contiguous()
                # As bytes: gloo knows no booleans and no 16-bit integers.
                dist.broadcast(whole.view(-1).view(torch.uint8), src=0)
                tensor.copy_(whole)


def draw_apart(seed: int) -> None:
    """Let torch draw other numbers (dropout) in each process; process 0 goes on as it was.

    Python's and numpy's generators go on alike everywhere: batches are made of them.
    """
    if rank():
        torch.manual_seed(seed + rank())


def _send(packed: Tensor | None) -> Tensor:
    """From process 0 to all."""
    length = torch.tensor([0 if packed is None else len(packed)])
    dist.broadcast(length, src=0, group=_values)
    if packed is None:
        packed = torch.empty(int(length), dtype=torch.uint8)
    dist.broadcast(packed, src=0, group=_values)
    return packed


def _packed(value: Any) -> Tensor:
    torch.save(value, buffer := io.BytesIO())
    return torch.frombuffer(bytearray(buffer.getbuffer()), dtype=torch.uint8)


def _unpacked(packed: Tensor) -> Any:
    # On the CPU: a tensor of another process's GPU would end up there.
    return torch.load(io.BytesIO(packed.numpy().tobytes()), weights_only=True, map_location="cpu")
