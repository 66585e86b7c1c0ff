"""Whole runs on a device that is no CPU: trained, saved, resumed, restored and asked.

What torch writes of a GPU's tensors and reads to a GPU is done here by way of the CPU, as the file
formats know nothing of :mod:`made_up_device`: tensors are saved from it, and all tensors of a file
(random states too) are put where ``map_location`` says.
"""

import made_up_device
import pytest
import torch
from runs import RUNS, arguments

from recbole_gr import Recommender
from recbole_gr.config import Config
from recbole_gr.quick_start import run_recbole_gr
from recbole_gr.storage import checkpoint


def moved(value, device):
    """Plain data with its tensors on ``device``."""
    if isinstance(value, torch.Tensor):
        return value.detach().to(device)
    if isinstance(value, dict):
        return {name: moved(x, device) for name, x in value.items()}
    return type(value)(moved(x, device) for x in value) if type(value) in (list, tuple) else value


@pytest.fixture
def there(monkeypatch):
    """The device, which every configuration has and checkpoints come from and go to."""
    init, load, require = Config._init_device, checkpoint.load_tensors, checkpoint._require_plain
    save = torch.save

    def on_device(config):
        init(config)
        config.final_config_dict["device"] = torch.device(made_up_device.KIND)

    def loaded(path, device=None):
        return moved(load(path, "cpu"), device or "cpu")

    monkeypatch.setattr(Config, "_init_device", on_device)
    monkeypatch.setattr(checkpoint, "load_tensors", loaded)
    monkeypatch.setattr(checkpoint, "_require_plain", lambda x, at: require(moved(x, "cpu"), at))
    monkeypatch.setattr(torch, "save", lambda value, file: save(moved(value, "cpu"), file))
    with made_up_device.device() as device:
        yield device


@made_up_device.needed
@pytest.mark.parametrize(("name", "more"), [
    ("TIGER", {"exclude_history": True}), ("TIGER-share", {}), ("PIT", {"epochs": 1}),
    ("IntRR", {"decoding": "exact"}), ("RPG", {}), ("R3VAE", {}), ("SASRec", {}),
    ("SASRec-BPR", {}), ("Pop", {}),
    ("TIGER", {"metrics": "[Recall,GAUC]", "valid_metric": "Recall@10"}),
])  # fmt: skip
def test_a_run_is_trained_resumed_restored_and_asked_there(
    there, tiny_folder, tmp_path, monkeypatch, name, more
):
    monkeypatch.chdir(tmp_path)
    folders = {
        key: tmp_path / key
        for key in ("checkpoint_dir", "result_dir", "sid_dir", "content_cache_dir")
    }
    model, settings = RUNS[name]
    settings = {**settings, "eval_likelihood": True, **more, **folders}
    result = run_recbole_gr(cmd_args=arguments(model, tiny_folder, **settings))
    no_logits = ("SASRec-BPR", "Pop")
    assert ("log_likelihood" in result["test_ranks"]) == (name not in no_logits)
    own = Recommender.load(result["checkpoint"], show_progress=False)
    assert next(iter(own.model.state_dict().values())).device.type == there.type
    answer, other = own.recommend(["u1", "u2"], k=5)
    assert len(set(answer.items)) == len(set(other.items)) == 5
    if name in ("TIGER-share", "PIT"):
        own.add_items({"new": torch.randn(8)})
        assert "new" in own.recommend(["u1"], k=41)[0].items
    if name != "Pop":
        again = {**settings, "epochs": settings["epochs"] + 1, "resume": result["checkpoint"]}
        resumed = run_recbole_gr(cmd_args=arguments(model, tiny_folder, **again))
        assert len(resumed["test_result"]) == len(result["test_result"])
