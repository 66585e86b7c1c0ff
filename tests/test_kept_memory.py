"""Memory that stays with the process: where it does and does not, and that nothing else changes."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import hashlib, os, resource
import recbole_gr
from recbole_gr.compat.memory import keep_memory
import torch

torch.set_num_threads(1)
torch.manual_seed(0)
x = torch.randn(10_000_000)
for _ in range(2):  # the first takes what is kept
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        y = x * 2  # 40 MB, freed each time
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(keep_memory(), os.environ.get("THP_MEM_ALLOC_ENABLE"), faults)
print(hashlib.sha256(y.numpy().tobytes()).hexdigest())
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")


def run(**given):
    taken = ("MALLOC_", "THP_MEM", "LD_PRELOAD", "GLIBC_TUNABLES", "RECBOLE_GR_KEEP")
    env = {key: value for key, value in os.environ.items() if not key.startswith(taken)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**env, **given}, check=True, capture_output=True
    )
    (kept, pages, faults), (digest,) = map(str.split, done.stdout.decode().splitlines())
    return kept == "True", pages, int(faults), digest


def test_a_process_keeps_its_memory_unless_told_otherwise():
    kept, pages, faults, digest = run()
    if not kept:
        pytest.skip("no glibc")
    assert pages == "1"
    for given in ({"RECBOLE_GR_KEEP_MEMORY": "0"}, {"MALLOC_ARENA_MAX": "2"}):
        other_kept, other_pages, other_faults, other_digest = run(**given)
        assert (other_kept, other_pages) == (False, "None") and other_digest == digest
        assert faults < other_faults / 10  # thousands of pages, over and over again
