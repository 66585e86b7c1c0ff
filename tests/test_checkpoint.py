"""Claims about checkpoints: plain, complete, and never executed."""

import os
import pickle
import random
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import RUNS
from scipy import sparse

from recbole_gr import run_recbole_gr
from recbole_gr.errors import ConfigError
from recbole_gr.storage import files
from recbole_gr.storage.checkpoint import (
    FORMAT_VERSION,
    decode,
    encode,
    load_checkpoint,
    random_states,
    restore_random_states,
    save_checkpoint,
)
from recbole_gr.storage.files import DiskFull, atomic_write


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    state = {"w": torch.randn(3, 2), "epoch": 4, "nested": [{"a": (1, 2.5, None, "x")}], 7: True}
    save_checkpoint(tmp_path / "a.pth", state)
    loaded = load_checkpoint(tmp_path / "a.pth")
    assert torch.equal(loaded["w"], state["w"])
    assert loaded["nested"] == state["nested"] and loaded["epoch"] == 4 and loaded[7] is True
    assert loaded["format_version"] == FORMAT_VERSION and loaded["versions"]["torch"]


@pytest.mark.parametrize(
    "value", [np.zeros(2), np.float64(1), {1, 2}, object(), torch.device("cpu")]
)
def test_what_would_need_pickle_is_refused_by_name(tmp_path, value):
    with pytest.raises(TypeError, match=r"state\['config'\]\['x'\]"):
        save_checkpoint(tmp_path / "a.pth", {"config": {"x": value}})
    assert list(tmp_path.iterdir()) == []


def test_pickled_objects_are_refused_and_not_executed(tmp_path):
    for write in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))):
        write({"config": Evil(tmp_path / "executed")}, tmp_path / "evil.pth")
        with pytest.raises(ConfigError, match=r"evil\.pth"):
            load_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_truncated_file_is_refused_by_name(tmp_path, keep):
    path = tmp_path / "a.pth"
    save_checkpoint(path, {"w": torch.randn(100, 100)})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ConfigError, match=r"a\.pth.*not a complete checkpoint"):
        load_checkpoint(path)


def test_no_flipped_bit_is_loaded(tmp_path):
    path, flipped = tmp_path / "a.pth", tmp_path / "b.pth"
    weights = torch.randn(30, 30)
    save_checkpoint(path, {"w": weights, "config": {"model": "TIGER"}})
    content, draw, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(400):
        damaged, place = bytearray(content), draw.randrange(len(content))
        damaged[place] ^= 1 << draw.randrange(8)
        flipped.write_bytes(damaged)
        try:
            state = load_checkpoint(flipped)
        except ConfigError as error:
            refused += 1
            assert "b.pth" in str(error)
        else:  # a bit of the padding between the parts, or of their dates
            assert torch.equal(state["w"], weights) and state["config"] == {"model": "TIGER"}
    assert refused > 250


def test_a_damaged_file_is_refused_by_name(tmp_path):
    path = tmp_path / "a.pth"
    weights = torch.randn(30, 30)
    save_checkpoint(path, {"w": weights})
    content = bytearray(path.read_bytes())
    content[content.index(weights.numpy().tobytes()) + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.pth.*damaged.*train the model again"):
        load_checkpoint(path)


@contextmanager
def small_files():
    """The system refuses files of more than 40,000 bytes, as a full disk would refuse them.

    Inside a test only: pytest reports a test before its fixtures end, to what may be a long file.
    """
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_reported_and_the_older_checkpoint_survives(tmp_path):
    path = tmp_path / "a.pth"
    save_checkpoint(path, {"w": torch.zeros(100, 200)})
    before = path.read_bytes()
    said = r"a\.pth.*disk is full.*MiB free.*Make room"
    with small_files(), pytest.raises(DiskFull, match=said):
        save_checkpoint(path, {"w": torch.ones(100, 200)})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.pth"]
    assert load_checkpoint(path)["w"].sum() == 0


def test_training_on_a_full_disk_says_how_to_go_on(tiny_folder, tmp_path):
    model, own = RUNS["SASRec"]
    settings = {
        **own, "model": model, "dataset": "tiny", "data_path": str(tiny_folder), "epochs": 1,
        "checkpoint_dir": str(tmp_path / "saved"), "result_dir": str(tmp_path / "results"),
        "use_gpu": False, "show_progress": False, "eval_step": 0,
    }  # fmt: skip
    outcome = run_recbole_gr(config_dict=settings)
    before = Path(outcome["checkpoint"]).read_bytes()
    assert len(before) > 40_000
    said = "disk is full.*--resume=.*goes on from the best epoch"
    with small_files(), pytest.raises(DiskFull, match=said):
        run_recbole_gr(config_dict={**settings, "epochs": 3, "resume": outcome["checkpoint"]})
    assert Path(outcome["checkpoint"]).read_bytes() == before


def test_missing_foreign_and_future_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no checkpoint"):
        load_checkpoint(tmp_path / "none.pth")
    with open(tmp_path / "open", "wb") as file, pytest.raises(ConfigError, match="no checkpoint"):
        load_checkpoint(file.fileno())
    torch.save({"w": torch.zeros(1)}, tmp_path / "foreign.pth")
    with pytest.raises(ConfigError, match="not written by RecBole-GR"):
        load_checkpoint(tmp_path / "foreign.pth")
    torch.save({"format_version": FORMAT_VERSION + 1}, tmp_path / "future.pth")
    with pytest.raises(ConfigError, match="Update"):
        load_checkpoint(tmp_path / "future.pth")


def test_an_interrupted_write_leaves_the_older_file_and_no_rubbish(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as tmp:
        assert tmp.suffix == path.suffix and tmp.parent == path.parent
        tmp.write_text("ha")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done, sync, replace = [], files.os.fsync, files.os.replace

    def synced(descriptor):
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    def replaced(source, target):
        done.append(Path(target))
        replace(source, target)

    monkeypatch.setattr(files.os, "fsync", synced)
    monkeypatch.setattr(files.os, "replace", replaced)
    path = tmp_path / "a.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert done == [temporary, path, tmp_path]


def test_numpy_scipy_and_containers_survive_encoding(tmp_path):
    value = {
        "dense": np.arange(6, dtype=np.float32).reshape(2, 3),
        "words": np.array([["a", "b"]], dtype=object),
        "csr": sparse.random(5, 4, 0.5, format="csr", random_state=0),
        "lil": sparse.eye(3, format="lil"),
        "keys": {(1, 2): {3, 4}, 5: [np.int64(6), None]},
        "number": np.float64(0.5),
        "tensor": torch.arange(3),
    }
    save_checkpoint(tmp_path / "a.pth", {"other": encode(value)})
    back = decode(load_checkpoint(tmp_path / "a.pth")["other"])
    assert back["dense"].dtype == np.float32 and np.array_equal(back["dense"], value["dense"])
    assert np.array_equal(back["words"], value["words"])
    for name in ("csr", "lil"):
        assert back[name].format == name and type(back[name]) is type(value[name])
        assert (back[name] != value[name]).nnz == 0
    assert back["keys"] == value["keys"] and back["number"] == 0.5
    assert torch.equal(back["tensor"], value["tensor"])


def test_a_module_is_restored_into_the_one_that_is_there(tmp_path):
    trained, fresh = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    save_checkpoint(tmp_path / "a.pth", {"layer": encode(trained)})
    assert decode(load_checkpoint(tmp_path / "a.pth")["layer"], into=fresh) is fresh
    assert torch.equal(trained.weight, fresh.weight)


def test_restored_random_generators_draw_the_same_numbers(tmp_path):
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item(), np.random.randn()

    draw()  # randn leaves a cached second value in numpy's generator
    save_checkpoint(tmp_path / "a.pth", {"random": random_states()})
    expected = draw()
    draw()
    restore_random_states(load_checkpoint(tmp_path / "a.pth")["random"])
    assert draw() == expected
