"""Folders that cannot be written are named before the work whose outcome they are to hold."""

import errno
import os
from pathlib import Path

import pytest
import torch
from runs import RUNS

from recbole_gr.commands.sid_features import sid_features
from recbole_gr.commands.tokenize import tokenize
from recbole_gr.errors import ConfigError
from recbole_gr.pipeline import sids as pipeline
from recbole_gr.search.journal import open_journal
from recbole_gr.serving.export import export
from recbole_gr.serving.recommend import main as recommend
from recbole_gr.sid.table import SIDTable
from recbole_gr.storage import files
from recbole_gr.storage.files import DiskFull, atomic_write, require_writable
from recbole_gr.storage.run_files import new_folder
from recbole_gr.tokenizer.rkmeans import RKMeans

FOLDERS = ("checkpoint_dir", "result_dir", "sid_dir", "content_cache_dir")


@pytest.fixture
def a_file(tmp_path, monkeypatch):
    """A file where a folder should be, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "taken"
    file.write_text("mine")
    return file


@pytest.mark.parametrize("below", ["", "below"])
@pytest.mark.parametrize("key", FOLDERS)
def test_a_file_in_the_place_of_a_folder_is_named_before_training(key, below, refused, a_file):
    message = refused(**{key: a_file / below})
    assert f"'{a_file}' is a file, not a folder. Set another {key}" in message
    assert a_file.read_text() == "mine"


@pytest.mark.parametrize("name", ["log", "log_tensorboard", "saved"])
def test_a_file_in_the_place_of_a_folder_of_recbole_is_named_before_training(name, refused, a_file):
    a_file.rename(name)
    assert f"'{name}' is a file, not a folder" in refused("SASRec")


def test_a_file_in_the_place_of_the_folder_of_periods_is_named_before_training(refused, a_file):
    own = {
        **RUNS["TIGER"][1], "continual_cuts": "[0.6,0.8,1.0]", "continual_tokenizer": "[frozen]",
        "continual_dir": a_file,
    }  # fmt: skip
    assert "is a file, not a folder. Set another --continual.dir" in refused("DACT", **own)


def test_folders_of_commands_are_named_before_their_work(a_file, tiny_folder, trained):
    given = {"dataset": "tiny", "data_path": str(tiny_folder)}
    checkpoint = trained("TIGER")["checkpoint"]
    inside = a_file / "x"
    for command in (
        lambda: tokenize(output=inside, config_dict=given),
        lambda: tokenize(output=a_file, config_dict=given),
        lambda: sid_features(output=str(a_file), config_dict=given),
        lambda: export(checkpoint, a_file / "x.pt2"),
        lambda: open_journal(a_file / "x.jsonl").__enter__(),
        lambda: new_folder(inside).__enter__(),
    ):
        with pytest.raises(ConfigError, match="is a file, not a folder"):
            command()
    arguments = [f"--checkpoint={checkpoint}", "--user=u1", f"--output={a_file / 'x.csv'}"]
    assert recommend(arguments) == 2
    with pytest.raises(ConfigError, match="Is a directory. Give another --output_file"):
        open_journal(a_file.parent).__enter__()


def test_a_folder_without_permission_is_refused_with_the_systems_words(tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(ConfigError, match="Read-only file system. Set another sid_dir, or make"):
        require_writable(tmp_path, "set another sid_dir")


def test_a_write_that_is_refused_names_the_file(a_file):
    with pytest.raises(ConfigError, match=f"'{a_file}' is a file"):
        with atomic_write(a_file / "b.txt") as temporary:
            temporary.write_text("new")
    with pytest.raises(FileNotFoundError), atomic_write(a_file.parent / "c.txt"):
        Path("not there").read_text()  # an error of the block is none of the write


@pytest.fixture
def full_disk(monkeypatch):
    """The disk is full for files whose names end so."""

    def full(suffix):
        replace = files.os.replace

        def refuse(source, target):
            if str(target).endswith(suffix):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(source, target)

        monkeypatch.setattr(files.os, "replace", refuse)

    return full


@pytest.mark.parametrize("suffix", [".tokenizer.pth", ".npz"])
def test_a_disk_that_is_full_as_sids_are_kept_leaves_nothing_half_written(
    suffix, full_disk, tmp_path, monkeypatch
):
    from types import SimpleNamespace

    content = SimpleNamespace(
        vectors=torch.randn(21, 4), digest="a", item_tokens=["[PAD]", *map(str, range(20))]
    )
    config = {"sid_dir": str(tmp_path / "sid"), "codebook_size": 4, "show_progress": False}
    full_disk(suffix)
    with pytest.raises(DiskFull, match="disk is full"):
        pipeline.prepare_sid(config, content)
    assert not list((tmp_path / "sid").iterdir())
    monkeypatch.undo()
    table, _ = pipeline.prepare_sid(config, content)
    assert isinstance(table, SIDTable)


def test_a_tokenizer_that_does_not_fit_on_the_disk_is_reported(tmp_path, monkeypatch):
    tokenizer = RKMeans({"codebook_size": 4}, 4)

    def full(state, file):
        assert hasattr(file, "write"), "given a path, torch hides what the system says"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DiskFull, match="disk is full"):
        tokenizer.save(tmp_path / "a.pth")
    assert not list(tmp_path.iterdir())


def test_an_array_that_numpy_could_not_write_whole_is_a_full_disk(tmp_path):
    with pytest.raises(DiskFull), atomic_write(tmp_path / "a.npy"):
        raise OSError("1000 requested and 992 written")


def test_a_file_that_cannot_be_replaced_is_called_no_folder(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")

    def refused(*_):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(files.os, "replace", refused)
    with (
        pytest.raises(ConfigError, match=r"page.html' cannot be written: Read-only file system\. "),
        atomic_write(path) as temporary,
    ):
        temporary.write_text("new")
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]
