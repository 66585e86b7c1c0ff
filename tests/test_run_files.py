"""The files of a run are its own, whatever else runs at the same time."""

import logging
import os
import signal
from pathlib import Path

import pytest
from recbole.utils import logger as recbole_logger
from runs import RUNS, SHORT

from recbole_gr import run_recbole_gr
from recbole_gr.commands.tokenize import compare_tokenizers, tokenize
from recbole_gr.config import Config
from recbole_gr.errors import ConfigError
from recbole_gr.run.log_file import start_log
from recbole_gr.storage import files, run_files
from recbole_gr.storage.checkpoint import STOPPED
from recbole_gr.storage.files import atomic_write
from recbole_gr.storage.run_files import held, in_use, new_folder, own_checkpoint, report_folder
from recbole_gr.trainer.base import SafeTrainerMixin


@pytest.fixture
def one_second(monkeypatch, tmp_path):
    """Everything happens in the same second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_files, "_time", lambda: "20260101-000000")
    monkeypatch.setattr(recbole_logger, "get_local_time", lambda: "Jan-01-2026_00-00-00")


@pytest.fixture
def settings(tiny_folder, tmp_path):
    return {
        **SHORT, "model": "SASRec", "dataset": "tiny", "data_path": str(tiny_folder),
        "use_gpu": False, "show_progress": False, "sid_dir": str(tmp_path / "sid"),
        "content_cache_dir": str(tmp_path / "content"),
    }  # fmt: skip


@pytest.fixture
def config(settings, one_second):
    return Config(config_dict=settings)


def during_the_training_of_the_first(do, monkeypatch):
    """Call `do` once, when a training has come to its end and is not yet tested."""
    fit, called = SafeTrainerMixin.fit, []

    def trained(trainer, *args, **kwargs):
        outcome = fit(trainer, *args, **kwargs)
        if not called:
            called.append(True)
            do()
        return outcome

    monkeypatch.setattr(SafeTrainerMixin, "fit", trained)


def without_handlers(monkeypatch):
    """RecBole logs into files where nobody else, such as pytest, takes the log."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])


@pytest.mark.slow
@pytest.mark.usefixtures("one_second")
def test_two_runs_started_together_keep_their_own_files(settings, monkeypatch):
    without_handlers(monkeypatch)
    both = [{**settings, "learning_rate": rate} for rate in (0.001, 0.05)]
    alone = [run_recbole_gr(config_dict=own) for own in both]
    assert alone[0]["test_result"] != alone[1]["test_result"]
    second = []
    during_the_training_of_the_first(
        lambda: second.append(run_recbole_gr(config_dict=both[1])), monkeypatch
    )
    together = [run_recbole_gr(config_dict=both[0]), *second]
    for ran, expected in zip(together, alone):
        assert ran["test_result"] == expected["test_result"]
    runs = [*alone, *together]
    for own in (
        {run["checkpoint"] for run in runs},
        {run["log"] for run in runs},
        {run["files"]["md"] for run in runs},
        set(Path("log_tensorboard").iterdir()),
    ):
        assert len(own) == 4


@pytest.mark.usefixtures("one_second")
def test_a_run_that_fails_before_anything_is_saved_leaves_no_files(settings, monkeypatch):
    def fail(*_, **__):
        assert list(Path("saved").glob(f".*{run_files.IN_USE}"))  # the name is held
        raise RuntimeError("out of luck")

    monkeypatch.setattr(SafeTrainerMixin, "fit", fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        run_recbole_gr(config_dict=settings)
    assert not os.listdir("saved") and not os.listdir("results")


@pytest.mark.usefixtures("one_second")
def test_an_unsaved_run_holds_no_checkpoint(settings, monkeypatch):
    monkeypatch.setattr(run_files, "_hold", lambda path: pytest.fail(f"{path} is held"))
    run_recbole_gr(config_dict=settings, saved=False)


def test_names_of_checkpoints_are_free_of_side_files_and_of_those_held(config):
    with own_checkpoint(config) as first, own_checkpoint(config) as second:
        assert second == first.replace(".pth", "-2.pth") and not Path(first).exists()
        Path(first).with_stem(Path(first).stem + STOPPED).touch()
    with own_checkpoint(config) as third:
        assert third == second


def test_a_report_folder_is_new_and_goes_if_it_stays_empty(config):
    with report_folder([config]) as first, report_folder([config]) as second:
        assert first != second and first.is_dir() and second.is_dir()
        (second / "results.md").touch()
    assert not first.exists() and second.is_dir()
    with new_folder(first) as again:
        assert again == first


def test_logs_of_equal_runs_of_one_second_are_two_files(config, monkeypatch):
    without_handlers(monkeypatch)
    first, second = start_log(config), start_log(config)
    assert first != second and Path(first).is_file() and Path(second).is_file()


def test_a_name_is_held_against_other_processes_until_its_process_is_killed(tmp_path):
    path, (reader, writer) = tmp_path / "a.pth", os.pipe()
    child = os.fork()
    if not child:
        run_files._hold(path)
        os.write(writer, b"!")
        signal.pause()
    try:
        os.read(reader, 1)
        with pytest.raises(ConfigError, match=r"a\.pth' is in use.*or mend it"):
            held(path, "mend it").__enter__()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert in_use(path).exists()  # the mark of a killed run holds nothing
    with held(path, "mend it"):
        pass
    assert not list(tmp_path.iterdir())


def test_without_locks_who_makes_the_mark_has_the_name(tmp_path, monkeypatch):
    monkeypatch.setattr(run_files, "fcntl", None)
    with held(tmp_path / "a", ""):
        with pytest.raises(ConfigError, match="in use.*a.in-use"), held(tmp_path / "a", ""):
            pass
    with held(tmp_path / "a", ""):
        pass


@pytest.mark.usefixtures("one_second")
def test_two_runs_do_not_go_on_in_one_checkpoint(settings):
    file = run_recbole_gr(config_dict=settings)["checkpoint"]
    again = {**settings, "resume": file, "epochs": 2}
    with held(file, ""), pytest.raises(ConfigError, match="in use by another run.*a copy"):
        run_recbole_gr(config_dict=again)
    assert run_recbole_gr(config_dict=again)["checkpoint"] == file


@pytest.mark.usefixtures("one_second")
def test_two_tokenize_commands_do_not_write_one_folder(settings):
    given = {key: value for key, value in settings.items() if key not in ("model", *SHORT)}
    message = "in use by another run.*--output"
    with held("sids", ""), pytest.raises(ConfigError, match=message):
        tokenize(output="sids", config_dict=given)
    with held("sids", ""), pytest.raises(ConfigError, match=message):
        compare_tokenizers(["RKMeans", "OPQ"], output="sids", config_dict=given)


@pytest.mark.usefixtures("one_second")
@pytest.mark.slow
def test_a_pretrained_model_that_another_run_writes_is_not_tested(settings, monkeypatch):
    own = {
        **settings, "model": "S3Rec", "train_stage": "pretrain", "pretrain_epochs": 1,
        "save_step": 1, "item_attribute": "genre",
        "load_col": {
            "inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "genre"],
        },
        "train_neg_sample_args": None,
    }  # fmt: skip
    alone = run_recbole_gr(config_dict=own)
    during_the_training_of_the_first(
        lambda: Path("saved", "S3Rec-tiny-1.pth").write_bytes(b"of another run"), monkeypatch
    )
    assert run_recbole_gr(config_dict=own)["test_result"] == alone["test_result"]


@pytest.mark.usefixtures("one_second")
def test_equal_continual_commands_do_not_work_in_one_folder(settings):
    own = {
        **RUNS["TIGER"][1], **settings, "model": "DACT", "continual_cuts": [0.6, 0.8, 1.0],
        "continual_tokenizer": ["frozen"], "continual_recommender": ["frozen"], "cf_epochs": 1,
        "sid_gate": "off",
    }  # fmt: skip
    taken = []

    def refuse(path, remedy):
        taken.append((path, remedy))
        raise ConfigError("taken")

    from recbole_gr.continual import runner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "held", refuse)
        with pytest.raises(ConfigError, match="taken"):
            run_recbole_gr(config_dict=own)
    ((path, remedy),) = taken
    assert Path(path).parent == Path("saved/continual") and "continual.dir" in remedy


def test_temporary_files_of_killed_runs_are_removed_by_the_next(config):
    folder = Path(config["checkpoint_dir"])
    (folder / "below").mkdir(parents=True)
    child = os.fork()  # whose process number is free once it has ended
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    here, day = files._here(), 24 * 3600

    def left(name, days=0):
        file = folder / name
        file.touch()
        os.utime(file, (file.stat().st_mtime - days * day,) * 2)
        return file

    gone = [
        left(f".a.{child}-{here}-0123abcd.pth"),
        left(f"below/.a.{child}-{here}-0123abcd.npz"),
        left(".a.1-89abcdef-0123abcd.pth", days=8),  # of another machine, long ago
        left(".a.1-0123abcd.pth", days=8),  # as earlier versions wrote them
        in_use(folder / "b.pth"),
    ]
    gone[-1].touch()
    kept = [
        left(f".a.{os.getpid()}-{here}-0123abcd.pth"),
        left(f".a.{child}-89abcdef-0123abcd.pth", days=6),
        left(f".a.{child}-0123abcd.pth"),
        left(".mine.pth", days=100),
        left("a.pth", days=100),
    ]
    with held(folder / "c.pth", ""):
        kept.append(in_use(folder / "c.pth"))
        with own_checkpoint(config):
            pass
        assert not any(file.exists() for file in gone)
        assert all(file.exists() for file in kept)


def test_temporary_files_are_known_as_such(tmp_path):
    with atomic_write(tmp_path / "a.b.tokenizer.pth") as temporary:
        temporary.touch()
        assert files._LEFTOVER.fullmatch(temporary.name)["here"] == files._here()


def test_a_name_of_the_dead_is_taken_where_nothing_else_lets_go_of_it(tmp_path, monkeypatch):
    name = tmp_path / "a"
    with run_files.held(name, "wait"):  # it lives: its lock says so
        run_files.take_from_the_dead(name, 0.3)
        assert run_files.in_use(name).exists()
    run_files.in_use(name).touch()  # of one that was killed: the name is free as it is
    run_files.take_from_the_dead(name, 60)

    def none(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(run_files.fcntl, "flock", none)
    with pytest.raises(ConfigError, match="in use"), run_files.held(name, "wait"):
        pass
    run_files.take_from_the_dead(name, 0.3)
    with run_files.held(name, "wait"):
        pass
