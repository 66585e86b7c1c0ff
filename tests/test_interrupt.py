"""Ctrl-C at any moment of training: what comes after `--resume` is what would have come anyway."""

import os
import signal
from pathlib import Path

import pytest
import torch
from kill_and_resume import equal
from runs import RUNS, rest_slow

from recbole_gr import run_recbole_gr
from recbole_gr.config.arguments import Arguments
from recbole_gr.errors import ConfigError
from recbole_gr.storage import files
from recbole_gr.storage.checkpoint import STOPPED, load_checkpoint
from recbole_gr.terminal.command_line import HungUp, Terminated, run_command, stopped_as_by_ctrl_c
from recbole_gr.trainer.interrupt import Interrupt, Steps
from run_recbole_gr import main


def press(number=signal.SIGINT):
    signal.raise_signal(number)


@pytest.fixture
def settings(tiny_folder, tmp_path):
    def of(name, **given):
        model, own = RUNS[name]
        return {
            **own, "model": model, "dataset": "tiny", "data_path": str(tiny_folder),
            "sid_dir": str(tmp_path / "sid"), "content_cache_dir": str(tmp_path / "content"),
            "result_dir": str(tmp_path / "results"), "use_gpu": False, "show_progress": False,
            "epochs": 3, "stopping_step": 10, "checkpoint_dir": str(tmp_path / "whole"), **given,
        }  # fmt: skip

    return of


@pytest.fixture
def count(monkeypatch):
    """A list that grows by each optimiser step; `at` presses Ctrl-C in the steps it names."""

    def watch(at=(), number=signal.SIGINT):
        made, begin = [], torch.optim.Optimizer.__init__

        def with_hook(optimizer, *args, **kwargs):
            begin(optimizer, *args, **kwargs)

            def after(*_):
                made.append(len(made))
                if made[-1] in at:
                    press(number)

            optimizer.register_step_post_hook(after)

        monkeypatch.setattr(torch.optim.Optimizer, "__init__", with_hook)
        return made

    yield watch
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("name", "batches_of_a_step"),
    [
        ("Pop", 1),
        ("TIGER", 4),  # the last step of its epochs has fewer
        *rest_slow(
            ("SASRec", 1), ("SASRec-whole", 1), ("TIGER", 1), ("TIGER-share", 1), ("PIT", 1),
            ("PIT", 3), ("IntRR", 1), ("RPG", 1),
        ),
    ],
)  # fmt: skip
def test_a_run_goes_on_after_the_step_in_which_it_was_stopped(
    name, batches_of_a_step, settings, count, monkeypatch, tmp_path
):
    given = settings(name)
    if batches_of_a_step > 1:
        given["accumulation_steps"] = batches_of_a_step
    run_recbole_gr(config_dict=given)  # makes what the others find
    with monkeypatch.context():
        steps = count()
        whole = run_recbole_gr(config_dict=given)
        n_steps = len(steps)
    reference = load_checkpoint(whole["checkpoint"])
    for at in sorted({0, n_steps // 3, n_steps // 2, n_steps - 1}) if n_steps else ():
        monkeypatch.undo()
        own = {**given, "checkpoint_dir": str(tmp_path / f"{at}")}
        steps = count([at])
        with pytest.raises(KeyboardInterrupt, match=STOPPED) as stopped:
            run_recbole_gr(config_dict=own)
        assert len(steps) == at + 1  # this step was finished, and no other begun
        monkeypatch.undo()
        own["resume"] = str(stopped.value).removeprefix("--resume=").split(" goes")[0]
        steps = count()
        report = run_recbole_gr(config_dict=own)
        assert len(steps) == n_steps - at - 1  # no step is made again
        assert report["test_result"] == whole["test_result"]
        assert report["best_valid_result"] == whole["best_valid_result"]
        assert report["valid_curve"] == whole["valid_curve"] and whole["valid_curve"]
        assert STOPPED not in report["checkpoint"] and not Path(own["resume"]).exists()
        assert equal(load_checkpoint(report["checkpoint"]), reference)


@pytest.mark.parametrize("name", ["SASRec", *rest_slow("TIGER", "PIT")])
@pytest.mark.parametrize("twice", rest_slow(False, True))
def test_validation_is_left_at_once_and_made_again(name, twice, settings, monkeypatch, tmp_path):
    given = settings(name)
    whole = run_recbole_gr(config_dict=given)
    from recbole.evaluator import Evaluator

    own, calls, evaluate = (
        {**given, "checkpoint_dir": str(tmp_path / "own")},
        [],
        Evaluator.evaluate,
    )

    def stop(self, struct):
        calls.append(1)
        if len(calls) == 2:
            press()
        return evaluate(self, struct)

    for _ in range(1 + twice):
        with monkeypatch.context() as patch:
            patch.setattr(Evaluator, "evaluate", stop)
            with pytest.raises(KeyboardInterrupt, match=STOPPED) as stopped:
                run_recbole_gr(config_dict=own)
        own["resume"] = str(stopped.value).removeprefix("--resume=").split(" goes")[0]
        calls[:] = [1]  # the second time in the validation that is made again
    report = run_recbole_gr(config_dict=own)
    assert report["test_result"] == whole["test_result"]
    assert equal(load_checkpoint(report["checkpoint"]), load_checkpoint(whole["checkpoint"]))


def test_stopped_while_the_best_checkpoint_is_written(settings, monkeypatch, tmp_path):
    given = settings("TIGER")
    whole = run_recbole_gr(config_dict=given)
    own, replace = {**given, "checkpoint_dir": str(tmp_path / "own")}, files.os.replace
    written = []

    def stop(source, target):
        if str(target).endswith(".pth") and STOPPED not in str(target):
            written.append(target)
            if len(written) == 1:
                press()
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", stop)
        with pytest.raises(KeyboardInterrupt, match=STOPPED) as stopped:
            run_recbole_gr(config_dict=own)
    own["resume"] = str(stopped.value).removeprefix("--resume=").split(" goes")[0]
    report = run_recbole_gr(config_dict=own)
    assert report["best_valid_result"] == whole["best_valid_result"]
    assert equal(load_checkpoint(report["checkpoint"]), load_checkpoint(whole["checkpoint"]))
    assert report["test_result"] == whole["test_result"]


@pytest.mark.parametrize("name", rest_slow("TIGER", "SASRec"))
@pytest.mark.parametrize("twice", rest_slow(False, True))
def test_stopped_between_two_epochs(name, twice, settings, count, monkeypatch, tmp_path):
    """Before the first batch of an epoch, and of one that was resumed in its middle."""
    given = settings(name, eval_step=3)
    steps = count()
    whole = run_recbole_gr(config_dict=given)
    own = {**given, "checkpoint_dir": str(tmp_path / "own")}
    per_epoch = len(steps) // 3
    if twice:
        monkeypatch.undo()
        count([per_epoch + per_epoch // 2])
        with pytest.raises(KeyboardInterrupt, match=STOPPED) as stopped:
            run_recbole_gr(config_dict=own)
        own["resume"] = str(stopped.value).removeprefix("--resume=").split(" goes")[0]
    monkeypatch.undo()
    made, init = [], Steps.__init__

    def stop(self, *args):
        init(self, *args)
        made.append(self)
        if len(made) == (1 if twice else 2):
            self._when_begun = True

    def begin(self):
        if self.__dict__.pop("_when_begun", False):
            press()
        return steps_of(self)

    steps_of = Steps.__iter__
    with monkeypatch.context() as patch:
        patch.setattr(Steps, "__init__", stop)
        patch.setattr(Steps, "__iter__", begin)
        with pytest.raises(KeyboardInterrupt, match=STOPPED) as stopped:
            run_recbole_gr(config_dict=own)
    own["resume"] = str(stopped.value).removeprefix("--resume=").split(" goes")[0]
    steps = count()
    report = run_recbole_gr(config_dict=own)
    assert len(steps) == per_epoch * 3 - per_epoch - (per_epoch // 2 + 1 if twice else 0)
    assert report["test_result"] == whole["test_result"]
    assert equal(load_checkpoint(report["checkpoint"]), load_checkpoint(whole["checkpoint"]))


def test_the_best_epoch_must_lie_beside_what_was_stopped(settings, count, monkeypatch, tmp_path):
    given = settings("TIGER")
    steps = count()
    run_recbole_gr(config_dict=given)
    last = len(steps) - 1
    monkeypatch.undo()
    count([last])
    own = {**given, "checkpoint_dir": str(tmp_path / "own")}
    with pytest.raises(KeyboardInterrupt):
        run_recbole_gr(config_dict=own)
    monkeypatch.undo()
    (stopped,) = Path(tmp_path, "own").glob(f"*{STOPPED}.pth")
    Path(tmp_path, "own", stopped.name.replace(STOPPED, "")).unlink()
    with pytest.raises(ConfigError, match="best epoch before it"):
        run_recbole_gr(config_dict={**own, "resume": str(stopped)})


def test_the_wish_waits_for_the_end_of_an_optimiser_step():
    interrupt, seen = Interrupt(), []
    with pytest.raises(KeyboardInterrupt), interrupt.watch():
        for batch in Steps(range(10), interrupt, every=3, after=None):
            seen.append(batch)
            if batch == 3:
                press()
    assert seen == [0, 1, 2, 3, 4, 5]


def test_a_second_time_does_not_wait():
    interrupt, seen, before = Interrupt(), [], signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interrupt.watch():
        for batch in Steps(range(10), interrupt, every=10, after=None):
            seen.append(batch)
            if batch in (3, 5):
                press()
    assert seen == [0, 1, 2, 3, 4, 5]
    assert signal.getsignal(signal.SIGINT) is before


TAKES = Arguments("wait", "--a=N", "--a=1", "Waits.", settings=["run"])
STOPS = {signal.SIGTERM: (Terminated, 143), signal.SIGHUP: (HungUp, 129)}


@pytest.mark.parametrize("number", rest_slow(*STOPS))
def test_schedulers_and_closed_terminals_do_what_ctrl_c_does(
    number, settings, count, monkeypatch, tmp_path, capsys
):
    given = settings("SASRec")
    whole = run_recbole_gr(config_dict=given)
    own = {**given, "checkpoint_dir": str(tmp_path / "own")}
    count([1], number)
    code = main([f"--{key}={value}" for key, value in own.items()])
    assert code == STOPS[number][1]
    monkeypatch.undo()
    own["resume"] = capsys.readouterr().err.rpartition("Stopped. --resume=")[2].split(" goes")[0]
    report = run_recbole_gr(config_dict=own)
    assert STOPPED in own["resume"] and report["test_result"] == whole["test_result"]
    assert equal(load_checkpoint(report["checkpoint"]), load_checkpoint(whole["checkpoint"]))


@pytest.mark.parametrize("number", STOPS)
def test_commands_without_training_end_with_the_code_of_the_signal(number, capsys):
    before = signal.getsignal(number)
    assert run_command(lambda *_: press(number), TAKES, ["--a=1"]) == STOPS[number][1]
    assert capsys.readouterr().err == "Stopped.\n" and signal.getsignal(number) is before


def test_ctrl_c_ends_a_command_without_a_traceback(capsys):
    assert run_command(lambda *_: press(), TAKES, ["--a=1"], stopped="Stopped. Again.") == 130
    assert capsys.readouterr().err == "Stopped. Again.\n"


@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None], ids=["nohup", "own"])
def test_signals_that_are_ignored_or_handled_stay_so(number, handler):
    before = signal.signal(number, handler)
    try:
        with stopped_as_by_ctrl_c(), Interrupt().watch():
            press(number)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)


def test_a_signal_to_the_process_and_to_its_parent_counts_once():
    interrupt, seen = Interrupt(), []
    with pytest.raises(Terminated), interrupt.watch():
        for batch in Steps(range(10), interrupt, every=3, after=None):
            seen.append(batch)
            if batch in (3, 4):
                press(signal.SIGTERM)
    assert seen == [0, 1, 2, 3, 4, 5]


def test_what_is_printed_after_the_terminal_was_closed_is_no_error(monkeypatch):
    main_end, terminal = os.openpty()
    os.close(main_end)
    copies = [os.dup(descriptor) for descriptor in (1, 2)]
    try:
        for descriptor in (1, 2):
            os.dup2(terminal, descriptor)
        with pytest.raises(HungUp), stopped_as_by_ctrl_c():
            press(signal.SIGHUP)
        os.write(2, b"still there?")
    finally:
        for descriptor, copy in zip((1, 2), copies):
            os.dup2(copy, descriptor)
