"""The rendezvous of a run's processes: who each of them is, and the store where all meet."""

from datetime import timedelta
from typing import NamedTuple

import torch.distributed as dist

from recbole_gr.errors import ConfigError

RENDEZVOUS_TIMEOUT = timedelta(minutes=10)  # for all machines to be started


class RankInfo(NamedTuple):
    """A process among those of its run.

    Attributes:
        rank: from 0 over all machines.
        world_size: number of processes on all machines.
        local_rank: from 0 on this machine; the number of its GPU.
        ip, port: address of rank 0's store; None takes what torchrun says.
        file: a store in its place, where all are on one machine. A port that was free when the
            processes were started could be taken by the time they meet.
        n_local: number of processes on this machine; None: all of them.
    """

    rank: int
    world_size: int
    local_rank: int
    ip: str | None = None
    port: int | None = None
    file: str | None = None
    n_local: int | None = None

    @property
    def local_size(self) -> int:
        """Number of processes on this machine."""
        return self.world_size if self.n_local is None else self.n_local

    @property
    def first_rank(self) -> int:
        """Rank of this machine's first process."""
        return self.rank - self.local_rank

    @property
    def spans_machines(self) -> bool:
        """Whether other machines have processes of the run."""
        return self.local_size < self.world_size


def store_of(info: RankInfo) -> dist.Store | None:
    """The store of a run, once every process has come to it; None under torchrun, which has one.

    Raises:
        ConfigError: a port in use, no store at the address, a rank given twice, or not all came.
    """
    rank, size, _, ip, port, file, _ = info
    if file is not None:
        shared = dist.FileStore(file, size)
        shared.set_timeout(RENDEZVOUS_TIMEOUT)
        return shared
    if ip is None or port is None:
        return None
    try:
        store = dist.TCPStore(
            ip, port, None, rank == 0, RENDEZVOUS_TIMEOUT, wait_for_workers=False
        )  # fmt: skip
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        if "EADDRINUSE" in str(error) or "in use" in str(error):
            raise port_in_use(port) from error
        raise ConfigError(
            f"ip, port: the first process cannot be met at {ip}:{port}. Start the machine with "
            f"--group_offset=0, and give its address to all. {error}"
        ) from error
    if store.add(f"rank-{rank}", 1) > 1:
        raise ConfigError(
            f"group_offset: process {rank} of {size} was started twice. On every machine "
            "group_offset is the number of processes on the machines before it."
        )
    missing: list[int] = []
    for other in range(size):
        try:
            store.wait(
                [f"rank-{other}"], timedelta(milliseconds=1) if missing else RENDEZVOUS_TIMEOUT
            )
        except (dist.DistStoreError, RuntimeError):
            missing.append(other)
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
