"""What a GPU would show: every model, tokenizer and run on a device that is made in Python.

They are checked in a process of their own (``tests/made_up``), since torch takes such a device only
before its first backward pass and has an accelerator from then on. One file alone::

    python -m pytest tests/made_up/check_models.py
"""

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import made_up_device
import pytest
import torch

from recbole_gr.registry import get_tokenizer
from recbole_gr.tokenizer import kmeans as kmeans_module
from recbole_gr.tokenizer.kmeans import kmeans
from recbole_gr.trainer.weights import load_weights

HERE = Path(__file__).parent


@pytest.mark.slow
@made_up_device.needed
def test_models_tokenizers_and_runs_on_a_made_up_device():
    files = sorted(map(str, (HERE / "made_up").glob("check_*.py")))
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", *files]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.parametrize("sees", [0, 2])
def test_vectors_on_a_cpu_are_clustered_on_the_cpu(sees, monkeypatch):
    """A run that was told to use the CPU has the figures of a machine without GPUs."""
    asked, faiss_kmeans = [], kmeans_module.faiss.Kmeans

    def on_cpu(*args, gpu, **options):
        asked.append(gpu)
        return faiss_kmeans(*args, **options)

    monkeypatch.setattr(kmeans_module.faiss, "get_num_gpus", lambda: sees)
    monkeypatch.setattr(kmeans_module.faiss, "Kmeans", on_cpu)
    kmeans(torch.randn(48, 12), 4)
    assert asked == [False]


def test_random_states_of_several_gpus_are_kept_without_a_warning(monkeypatch):
    tokenizer, kept = get_tokenizer("RKMeans")({}, 4), []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    def fork_rng(devices):
        kept.extend(devices)
        return nullcontext()

    monkeypatch.setattr(torch.random, "fork_rng", fork_rng)
    with tokenizer.seeded():
        pass
    assert kept == [0, 1]


class Counting(torch.nn.Module):
    """As Pop and LightGCN of RecBole: what it knows is there only after training."""

    device = torch.device("meta")
    known = None

    def other_parameter(self):
        return {"known": self.known}

    def load_other_parameter(self, values):
        self.known = values["known"]


def test_what_a_model_has_only_after_training_is_restored_to_its_device():
    model = Counting()
    load_weights(model, {"state_dict": {}, "other_parameter": {"known": torch.ones(3)}}, "file")
    assert model.known.device == model.device
