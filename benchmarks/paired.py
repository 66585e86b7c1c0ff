"""Timing of several functions in turns, so that their ratio stands whatever else a machine does."""

import os
import platform
from datetime import date
from statistics import median
from time import perf_counter

import torch


def in_turns(functions, repeats, warm_up=1):
    """Call every function once per round: A, B, A, B, ...

    Args:
        functions (dict[str, callable]): by name; called without arguments.
        repeats (int): rounds that are timed.
        warm_up (int): rounds before them that are not.

    Returns:
        dict[str, list[float]]: seconds of each call, by name.
    """
    seconds = {name: [] for name in functions}
    for turn in range(warm_up + repeats):
        for name, function in functions.items():
            start = perf_counter()
            function()
            if turn >= warm_up:
                seconds[name].append(perf_counter() - start)
    return seconds


def ratio(slow, fast):
    """Median over the rounds of ``slow`` divided by ``fast``, round by round."""
    return median(a / b for a, b in zip(slow, fast))


def spread(values, digits=3):
    """The median with the smallest and largest value, as text."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def print_table(header, rows):
    """A markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    print("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines))


def print_setting(**values):
    """Date, machine and versions, and the values of a run: without them a figure says nothing."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    machine = f"{os.cpu_count()} cores, {_processor()}, load {load}"
    software = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    print(f"{date.today()}, {machine}, {software}")
    print(", ".join(f"{name} {value}" for name, value in values.items()))


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
