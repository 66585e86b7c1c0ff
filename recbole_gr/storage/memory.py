"""The most memory that a part of a run has used."""

import sys

import torch

from recbole_gr.compat.memory import give_back


def reset_peak() -> None:
    """Start measuring: forget the peaks so far and the memory that the process keeps, where the
    system allows it.

    Linux forgets the peak of resident memory when 5 is written to /proc/self/clear_refs (proc(5)).
    Elsewhere the peak of the whole process is reported.
    """
    give_back()
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory(device: torch.device) -> int:
    """Peak since `reset_peak`, in bytes.

    Args:
        device (torch.device): on CUDA the memory of tensors there, else resident memory of the
            process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return _process_peak()


def _process_peak() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere
