"""Short work for processes that test_processes.py starts; it imports nothing of RecBole's."""

import signal

import torch

from recbole_gr.distributed import processes
from recbole_gr.errors import ConfigError


class Pickled:
    """What calls a function as it is unpickled."""

    def __reduce__(self):
        return who, ()


def fails_in_one():
    """Process 1 stops where process 0 waits for it."""
    processes.init_process_group("cpu")
    if processes.rank() == 1:
        raise RuntimeError("out of luck")
    processes.all_reduce_sum(torch.zeros(1))


def refuses_on_rank_zero():
    """Process 0 finds something wrong while the others wait."""
    processes.init_process_group("cpu")

    def check():
        raise ConfigError("topk: too many")

    processes.broadcast_object(check)


def is_told_to_stop():
    """Process 1 gets a SIGTERM while process 0 waits for it."""
    processes.init_process_group("cpu")
    if processes.rank() == 1:
        signal.raise_signal(signal.SIGTERM)
    processes.all_reduce_sum(torch.zeros(1))


def is_killed():
    """Process 1 is ended by the system while process 0 waits for it."""
    processes.init_process_group("cpu")
    if processes.rank() == 1:
        signal.raise_signal(signal.SIGKILL)
    processes.all_reduce_sum(torch.zeros(1))


def who():
    """Which process this is, and how many there are."""
    processes.init_process_group("cpu")
    return [processes.rank(), processes.world_size(), processes.gather_object(processes.rank())]
