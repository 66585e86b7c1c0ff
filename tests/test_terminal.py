"""What reaches the terminal: lines, bars, levels."""

import io
import logging
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from runs import RUNS, arguments, rest_slow

from recbole_gr import Config, run_recbole_gr
from recbole_gr.errors import ConfigError
from recbole_gr.terminal.bars import Bar
from recbole_gr.terminal.log import brief, say, show, with_level
from recbole_gr.trainer.epoch_lines import epoch_line
from run_recbole_gr import main


class Screen(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def screen(alone, monkeypatch):
    """A function that makes standard error a terminal and returns it."""

    def make():
        alone()
        screen = Screen()
        monkeypatch.setattr(sys, "stderr", screen)
        return screen

    return make


@pytest.fixture
def run(alone, tiny_folder, capsys):
    """A function from a model and settings to the lines of standard output and error, and of the
    log file."""

    def run(model, *others, **settings):
        alone()
        name = model if model in RUNS else "SASRec"
        own = {**RUNS[name][1], "show_progress": True, "epochs": 2, **settings}
        assert main([*arguments(model, tiny_folder, **own), *others]) == 0
        out, err = capsys.readouterr()
        (file,) = Path("log", model).glob("*.log")
        return out.splitlines(), err.splitlines(), file.read_text(encoding="utf-8")

    return run


def epochs_of(err):
    return [line for line in err if re.match(r"(\w\S+ e|E)poch \d+: ", line)]


@pytest.mark.parametrize("model", ["SASRec", "BPR", "Pop"])
def test_a_redirected_run_of_recboles_models_writes_one_line_an_epoch(model, run):
    _, err, kept = run(model)
    assert err[0].startswith(f"{model} on tiny: 60 users, 40 items, ") and "log/" in err[0]
    assert len(err) == 1 + len(epochs_of(err))
    form = r"Epoch 0: loss [\d.]+, NDCG@10 0\.\d{4}, \d+\.\d s, best so far"
    assert re.fullmatch(form, err[1]) and "\033" not in "".join(err)
    for part in ("train_batch_size = ", "epoch 0 training", "valid result", "ndcg@10"):
        assert part in kept


def test_a_redirected_run_of_a_generative_model_adds_three_lines_of_its_sids(run):
    _, err, kept = run("TIGER")
    assert [line.split(" ")[0] for line in err] == [
        "TIGER", "RKMeans", "RKMeans", "SID", "Epoch", "Epoch",
    ]  # fmt: skip
    assert "collision policy" in kept or "level   size" in kept  # the whole report


@pytest.mark.slow
def test_the_phases_of_pit_are_named_in_their_lines(run):
    _, err, _ = run("PIT")
    names = [line.partition(":")[0] for line in epochs_of(err)]
    assert names == ["Warm-up epoch 0", "Co-evolve epoch 1", "Co-evolve epoch 2"]
    assert len(err) == 8  # the opening, three of the SIDs, and the end of the warm-up


def test_an_epoch_without_validation_has_its_line_without_a_score(run):
    _, err, _ = run("SASRec", eval_step=2)
    lines = epochs_of(err)
    assert len(lines) == 2 and "NDCG" not in lines[0] and "NDCG" in lines[1]


def test_quiet_leaves_the_outcome_on_standard_output_alone(run):
    out, err, kept = run("SASRec", "--quiet")
    assert err == [] and out[0].startswith("| model") and "epoch 0 training" in kept


def test_the_level_debug_shows_the_whole_log(run):
    _, err, _ = run("Pop", log_level="debug")
    assert any("train_batch_size = " in line for line in err)
    assert any("valid result" in line for line in err)


def test_state_keeps_its_meaning_and_log_level_wins_in_the_terminal(run):
    _, err, kept = run("Pop", state="ERROR")
    assert err == [] and kept == ""
    Path("log").rename("before")
    _, err, kept = run("Pop", state="WARNING", log_level="INFO")
    assert len(epochs_of(err)) == 1 and kept == ""


@pytest.mark.parametrize(
    "given, message",
    [
        (["--log_level=INF"], "log_level: 'INF' is not one of DEBUG, INFO, .*mean 'INFO'"),
        (["--quiet", "--log_level=INFO"], "--quiet and --log_level=INFO: leave one"),
        (["--quiet=often"], "--quiet=often: write --quiet"),
    ],
)
def test_a_level_that_is_none_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        with_level(given)


@pytest.mark.parametrize("key", ["log_level", "state"])
def test_a_level_in_a_file_or_dictionary_is_refused_by_its_key(key, tiny_folder):
    settings = {"data_path": str(tiny_folder), key: "loud"}
    with pytest.raises(ConfigError, match=f"{key}: 'loud' is not one of DEBUG, INFO"):
        Config("Pop", "tiny", config_dict=settings)


def test_the_level_is_a_setting_of_every_process():
    assert with_level(["--a=1", "--quiet"]) == (["--a=1", "--log_level=WARNING"], "WARNING")
    assert with_level(["--quiet=False", "--a=1"]) == (["--a=1"], None)
    assert with_level(["--log_level=debug"])[1] == "DEBUG"


def test_the_terminal_shows_what_is_marked_and_what_went_wrong(alone, capsys):
    alone()
    show("INFO")
    logging.getLogger().info("settings")
    say("line %d", 1)
    logging.getLogger().info("a report\nof many lines", extra=brief("a report"))
    logging.getLogger().warning("\033[31mred\033[0m")
    assert capsys.readouterr().err == "line 1\na report\nwarning: red\n"
    show("ERROR")
    say("line 2")
    logging.getLogger().warning("no")
    logging.getLogger().error("yes")
    assert capsys.readouterr().err == "error: yes\n"


def test_handlers_of_the_application_are_all_there_is(alone, capsys):
    alone()
    theirs = logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(theirs)
    show("DEBUG")
    assert logging.getLogger().handlers == [theirs]


def test_what_a_model_of_recboles_prints_is_logged(run, monkeypatch):
    from recbole.model.sequential_recommender.sasrec import SASRec

    make = SASRec.__init__

    def chatty(self, *args):
        print("5 layers", "of mine")
        make(self, *args)

    monkeypatch.setattr(SASRec, "__init__", chatty)
    out, err, kept = run("SASRec")
    assert "5 layers of mine" not in "\n".join(out + err) and "INFO  5 layers of mine" in kept


def test_bars_are_drawn_in_a_terminal_and_leave_nothing_behind(screen):
    screen = screen()
    show("INFO")
    for _ in Bar(range(3), desc="Train"):
        say("a line")
    drawn = screen.getvalue()
    assert "Train" in drawn and drawn.rpartition("\r")[2] == "" and "\na line\n" in drawn.replace(
        "\r", "\n"
    )


def test_bars_are_not_drawn_where_nobody_watches_or_all_is_to_be_quiet(screen, monkeypatch):
    screen = screen()
    show("WARNING")
    list(Bar(range(3)))
    show("INFO")
    monkeypatch.setattr(Screen, "isatty", lambda _: False)
    list(Bar(range(3)))
    assert screen.getvalue() == ""


def test_in_a_terminal_recboles_bars_vanish_too(screen, tiny_folder, monkeypatch):
    screen = screen()
    own = {**RUNS["SASRec"][1], "show_progress": True}
    monkeypatch.setattr(sys, "stdout", Screen())
    assert main(arguments("SASRec", tiny_folder, **own)) == 0
    text = screen.getvalue()
    assert "Report: " in sys.stdout.getvalue() and "\033" not in sys.stdout.getvalue()
    assert "Train     0" in text and "Evaluate" in text
    assert not any("it/s" in line.rpartition("\r")[2] for line in text.split("\n"))


def test_the_line_of_an_epoch_has_plain_numbers():
    line = epoch_line(3, np.float64(3.5), "NDCG@10", np.float64(0.25), np.float64(2.0), True)
    assert line == "Epoch 3: loss 3.5000, NDCG@10 0.2500, 2.0 s, best so far"


def plain(value):
    if isinstance(value, dict):
        return all(map(plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(plain, value))
    return not isinstance(value, np.generic)


@pytest.mark.parametrize("name", rest_slow("TIGER", "PIT", "SASRec"))
def test_nothing_that_is_logged_or_returned_holds_numpys_numbers(
    name, tiny_folder, tmp_path, monkeypatch, caplog
):
    """numpy 2 prints them as `np.float64(0.1)`."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)
    model, settings = RUNS[name]
    result = run_recbole_gr(cmd_args=arguments(model, tiny_folder, **settings))
    records = [r for r in caplog.records if r.name == "root"]
    assert len(records) > 8 and all(plain(r.args) for r in records)
    assert plain(result) and "np.float" not in caplog.text
