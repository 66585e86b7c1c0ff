"""Claims about a run of several models and about the command line."""

import json
import logging
import os
import re
import signal
from pathlib import Path

import pytest
from runs import arguments

from recbole_gr import quick_start
from recbole_gr.errors import ConfigError
from recbole_gr.quick_start import run_recbole_gr
from recbole_gr.registry import get_model
from recbole_gr.storage import memory
from recbole_gr.trainer.generation import GenerationTrainer
from run_recbole_gr import main


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def settings(tiny_folder):
    return {"data_path": str(tiny_folder), "epochs": 1, "show_progress": False}


def test_several_models_end_in_one_table_written_in_four_formats(settings):
    outcome = run_recbole_gr("Pop,BPR", "tiny", config_dict=settings)
    assert [result["model"] for result in outcome["results"]] == ["Pop", "BPR"]
    rows = Path(outcome["files"]["md"]).read_text().count("\n| ")
    # Head, rule, two models; again without history; the same of three buckets each.
    assert rows == (2 + 2) + (2 + 2) + (2 + 6)
    assert all(Path(file).stat().st_size > 100 for file in outcome["files"].values())
    pop, bpr = outcome["results"]
    assert pop["test_targets"] == bpr["test_targets"] and pop["test_targets"]["count"] == 60
    assert bpr["parameters"] == (61 + 41) * 64 and bpr["sid"] is None
    assert bpr["seconds_total"] > bpr["seconds_per_epoch"] > 0 and bpr["peak_memory_bytes"] > 1e7


def test_one_model_returns_its_result_and_equals_its_row_among_several(settings):
    alone = run_recbole_gr("BPR", "tiny", config_dict=settings)
    beside = run_recbole_gr(["Pop", "BPR"], "tiny", config_dict=settings)["results"][1]
    assert alone["test_result"] == beside["test_result"]
    assert alone["best_valid_result"] == beside["best_valid_result"]
    assert (
        json.loads(Path(alone["files"]["json"]).read_text())[0]["test_result"]
        == alone["test_result"]
    )


def test_a_model_class_is_as_good_as_its_name(settings):
    named = run_recbole_gr("BPR", "tiny", config_dict=settings)
    alone = run_recbole_gr(get_model("BPR"), "tiny", config_dict=settings)
    assert alone["test_result"] == named["test_result"]
    mixed = run_recbole_gr(["Pop", get_model("BPR")], "tiny", config_dict=settings)["results"]
    assert [result["model"] for result in mixed] == ["Pop", "BPR"]
    assert mixed[1]["test_result"] == alone["test_result"]


def test_unsaved_run_leaves_no_checkpoint_and_tests_the_last_epoch(settings, tmp_path):
    result = run_recbole_gr("BPR", "tiny", config_dict=settings, saved=False)
    assert result["checkpoint"] is None and not list(tmp_path.glob("saved/*.pth"))
    assert (
        result["test_result"] == run_recbole_gr("BPR", "tiny", config_dict=settings)["test_result"]
    )


def test_bad_settings_of_the_last_model_stop_the_run_before_the_first_trains(settings, tmp_path):
    with pytest.raises(ConfigError, match="Unknown model 'SASRek'"):
        run_recbole_gr("Pop,SASRek", "tiny", config_dict=settings)
    with pytest.raises(ConfigError, match="'n_layer'.*'n_layers'"):
        run_recbole_gr("Pop,SASRec", "tiny", config_dict={**settings, "n_layer": 2})
    assert list(tmp_path.iterdir()) == []


def test_a_key_of_one_model_reaches_that_model_alone(settings):
    given = {**settings, "embedding_size": 8}
    pop, bpr = run_recbole_gr("Pop,BPR", "tiny", config_dict=given)["results"]
    assert bpr["config"]["embedding_size"] == 8 and pop["parameters"] == 1


def test_a_failing_model_does_not_take_the_finished_ones_with_it(settings, monkeypatch, tmp_path):
    run_model = quick_start.run_model

    def failing(config, saved):
        if config["model"] == "LightGCN":
            raise MemoryError("too big")
        return run_model(config, saved=saved)

    monkeypatch.setattr(quick_start, "run_model", failing)
    with pytest.raises(RuntimeError, match=r"LightGCN \(too big\).*results\.md"):
        run_recbole_gr("Pop,LightGCN,BPR", "tiny", config_dict=settings)
    (report,) = tmp_path.glob("results/*/results.json")
    assert [result["model"] for result in json.loads(report.read_text())] == ["Pop", "BPR"]


def test_models_tested_on_different_targets_are_called_incomparable(tmp_path, caplog):
    folder = tmp_path / "short"
    folder.mkdir()
    lengths = {"a": 9, "b": 8, "c": 7, "d": 2}  # d has no history for a sequential model
    rows = [
        f"{user}\ti{(index + 3 * shift) % 12}\t1\t{index}"
        for shift, (user, length) in enumerate(lengths.items())
        for index in range(length)
    ]
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    (folder / "short.inter").write_text("\n".join([head, *rows]) + "\n")
    given = {"data_path": str(tmp_path), "epochs": 1, "show_progress": False}
    with caplog.at_level(logging.WARNING):
        outcome = run_recbole_gr("Pop,GRU4Rec", "short", config_dict=given)
    assert [result["test_targets"]["count"] for result in outcome["results"]] == [4, 3]
    assert "not comparable" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        fair = run_recbole_gr(
            "Pop,GRU4Rec", "short", config_dict={**given, "user_inter_num_interval": "[3,inf)"}
        )
    assert len({result["test_targets"]["digest"] for result in fair["results"]}) == 1
    assert "not comparable" not in caplog.text


def test_topk_beyond_the_catalogue_is_refused(settings):
    with pytest.raises(ConfigError, match="topk 50.*40 items"):
        run_recbole_gr("Pop", "tiny", config_dict={**settings, "topk": [10, 50]})


def test_resuming_needs_one_model_and_an_existing_file(settings):
    with pytest.raises(ConfigError, match="resume.*nowhere"):
        run_recbole_gr("BPR", "tiny", config_dict={**settings, "resume": "nowhere.pth"})
    Path("some.pth").touch()
    with pytest.raises(ConfigError, match="resume"):
        run_recbole_gr("BPR,Pop", "tiny", config_dict={**settings, "resume": "some.pth"})


def test_command_line_reports_what_cannot_be_used_in_one_line(tiny_folder, capsys):
    data = f"--data_path={tiny_folder}"
    assert main(["--model=Nope", "--dataset=tiny", data]) == 2
    assert main(["--model=Pop", "--dataset=none", data]) == 2
    assert main(["--model=Pop", "--dataset=tiny", data, "--epoch=1"]) == 2
    assert main(["--dataset=tiny", data]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4 and all(line.startswith("error: ") for line in errors)
    assert "did you mean 'epochs'" in errors[2] and "--model=TIGER" in errors[3]


def test_help_is_printed_on_request_and_without_arguments(capsys):
    assert main(["--help"]) == 0 and main([]) == 2
    assert capsys.readouterr().out.count("usage: recbole-gr run --model=") == 2


def test_peak_memory_sees_a_large_tensor_and_forgets_it():
    import torch

    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux forgets its peak")
    memory.reset_peak()
    before = memory.peak_memory(torch.device("cpu"))
    tensor = torch.ones(200 * 2**20 // 4)
    peak = memory.peak_memory(torch.device("cpu"))
    assert peak - before > 150 * 2**20
    del tensor
    memory.reset_peak()
    assert memory.peak_memory(torch.device("cpu")) < peak - 100 * 2**20


def test_ctrl_c_says_how_to_go_on_and_the_run_ends_as_if_never_stopped(
    tiny_folder, monkeypatch, capsys, request
):
    # A process in the background ignores the signal; here it is as in the foreground.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    command = arguments("TIGER", tiny_folder, epochs=4, stopping_step=10)
    whole = run_recbole_gr(cmd_args=command)
    train, epochs = GenerationTrainer._train_epoch, []

    def stopped(trainer, data, epoch, *args, **kwargs):
        epochs.append(epoch)
        if len(epochs) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return train(trainer, data, epoch, *args, **kwargs)

    monkeypatch.setattr(GenerationTrainer, "_train_epoch", stopped)
    assert main(command) == 130
    message = capsys.readouterr().err
    found = re.search(r"Stopped\. (--resume=\S+\.pth) goes on", message)
    assert found and "Traceback" not in message
    resumed = run_recbole_gr(cmd_args=[*command, found[1]])
    assert resumed["test_result"] == whole["test_result"]
    epochs[:] = [0, 0]
    assert main(command) == 130  # in the very first epoch
    assert "Stopped. Nothing was saved yet." in capsys.readouterr().err
