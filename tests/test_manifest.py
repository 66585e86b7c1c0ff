"""A run's manifest says all that the run needs to be run again, and a rerun is compared with it."""

import hashlib
import json
import logging
import shutil
import sys
from pathlib import Path

import pytest
from runs import arguments, rest_slow

from recbole_gr.commands.verify import main, verify
from recbole_gr.errors import ConfigError
from recbole_gr.quick_start import run_recbole_gr
from recbole_gr.serving.restore import restored_config
from recbole_gr.storage.checkpoint import load_checkpoint
from recbole_gr.terminal.log import logs_are_kept
from recbole_gr.untrusted import effects


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["SASRec-BPR", "Pop", *rest_slow("TIGER", "IntRR", "PIT")])
def test_a_run_from_its_manifest_is_equal(name, trained, capsys):
    result = trained(name)
    assert verify(result["files"]["manifest"], show_progress=False) == []
    if name == "TIGER":
        assert main([result["files"]["manifest"], "--show_progress=False"]) == 0
        assert "Equal" in capsys.readouterr().out


def test_the_manifest_holds_what_the_run_was_made_of(trained, tiny_folder):
    result = trained("TIGER")
    manifest = json.loads(Path(result["files"]["manifest"]).read_text())
    (run,) = manifest["runs"]
    for suffix in ("inter", "item"):
        content = (tiny_folder / "tiny" / f"tiny.{suffix}").read_bytes()
        assert run["data"][f"tiny.{suffix}"] == hashlib.sha256(content).hexdigest()
    assert run["test_result"] == result["test_result"] and run["sid_digest"] == result["sid_digest"]
    assert run["config"]["seed"] == 2020 and run["seconds_total"] > 0
    assert manifest["versions"]["torch"] and manifest["machine"]["threads"] >= 1
    assert manifest["command"]


@pytest.mark.slow
def test_several_models_are_compared_and_the_last_epoch_is_tested_where_it_was(tiny_folder, capsys):
    run = arguments("SASRec,Pop", tiny_folder, MAX_ITEM_LIST_LENGTH=10, epochs=3)
    file = run_recbole_gr(cmd_args=run, saved=False)["files"]["manifest"]
    assert verify(file, show_progress=False) == []
    manifest = json.loads(Path(file).read_text())
    manifest["runs"][1]["test_result"]["recall@10"] += 0.01
    manifest["runs"][0]["test_targets"]["count"] = 3
    manifest["versions"]["torch"] = "0.4"
    Path("changed.json").write_text(json.dumps(manifest))
    assert main(["changed.json", "--show_progress=False"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("SASRec: test_targets is") and "was {'count': 3" in lines[0]
    assert lines[1].startswith("Pop: test_result recall@10 is") and len(lines) == 3
    assert "torch" in lines[2] and "was 0.4" in lines[2]
    difference = verify("changed.json", tolerance=0.02, show_progress=False)
    assert len(difference) == 1 and "test_targets" in difference[0]


def test_other_data_are_named_before_anything_runs(trained, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("recbole_gr.run.model.run_model", None)
    shutil.copytree(tiny_folder / "tiny", tmp_path / "tiny")
    with open(tmp_path / "tiny" / "tiny.item", "a") as file:
        file.write("i99\tmore\tdrama\n")
    manifest = trained("TIGER")["files"]["manifest"]
    with pytest.raises(ConfigError, match=r"not the data of the run: tiny\.item of tiny"):
        verify(manifest, data_path=str(tmp_path))


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "cannot be read: No such file"),
        ("{", "cannot be read as JSON"),
        ("[]", "is not a manifest"),
        ('{"runs": [], "format_version": 99}', "Update RecBole-GR"),
        (
            '{"runs": [{"model": "TIGER", "config": {"resume": "a.pth"}}], "format_version": 1}',
            "resumed from a.pth",
        ),
        ('{"runs": [], "format_version": 1}', "holds no run to compare"),
        (
            '{"runs": [], "continual": {"models": ["DACT"], "dataset": "tiny", "settings": {}, '
            '"data": {}, "results": []}, "format_version": 1}',
            "holds no run to compare",
        ),
    ],
)
def test_what_is_no_manifest_is_refused(text, message, tmp_path, capsys):
    if text is not None:
        (tmp_path / "file.json").write_text(text)
    assert main(["file.json"]) == 2
    error = capsys.readouterr().err
    assert message in error and "file.json" in error
    assert main(["file.json", "--tolerance=much"]) == 2


OUTSIDE = {
    **{
        key: "outside"
        for key in ("checkpoint_dir", "sid_dir", "content_cache_dir", "result_dir", "wandb_project")
    },
    "dataset_save_path": "outside/data",
    "dataloaders_save_path": "outside/loaders",
    **dict.fromkeys(("log_wandb", "save_dataset", "save_dataloaders"), True),
}
OF_OTHER_MACHINES = {"world_size": 2, "ip": "192.0.2.1", "port": 9, "group_offset": 1}


@pytest.mark.parametrize("name", rest_slow("SASRec", "TIGER", "PIT"))
def test_a_manifest_has_no_effect_outside_of_a_temporary_folder(
    name, trained, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)  # to import it is an error
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    record = json.loads(Path(trained(name)["files"]["manifest"]).read_text())
    record["runs"][0]["config"].update(OUTSIDE)
    Path("m.json").write_text(json.dumps(record))
    root = logging.getLogger()
    with monkeypatch.context() as patch:
        patch.setattr(root, "handlers", [])  # RecBole's log would have its file
        assert verify("m.json", show_progress=False) == []
    assert [path.name for path in place.rglob("*")] == ["m.json"]


def test_a_manifest_of_periods_has_no_effect_outside_either(tmp_path, monkeypatch):
    seen = {}

    def run(models, dataset, given):
        seen.update(given.settings, logs=logs_are_kept())
        raise ConfigError("enough")

    def run_here(body, request, layout):
        seen.update(layout=layout)
        return body(*request)

    monkeypatch.setattr("recbole_gr.continual.runner.ContinualRun", run)
    monkeypatch.setattr("recbole_gr.distributed.launch.run_processes", run_here)
    settings = {**OUTSIDE, "continual_dir": "outside", **OF_OTHER_MACHINES, "epochs": 2}
    continual = {"models": ["DACT"], "dataset": "tiny", "settings": settings, "data": {}}
    continual["results"] = [{"period": 0, "model": "TIGER", "method": "dact/finetune"}]
    continual["results"][0] |= {"test_result": {}, "best_valid_result": None, "churn": None}
    record = {"format_version": 1, "runs": [], "continual": continual}
    Path("m.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="enough"):
        verify("m.json")
    assert seen["epochs"] == 2 and seen["layout"] == {"nproc": 2} and not seen["logs"]
    assert not any("outside" in str(value) for value in seen.values())
    assert not any(seen.get(key) for key in [*OF_OTHER_MACHINES, "log_wandb", "save_dataset"])
    assert logs_are_kept()
    settings["resume"] = "a.pth"
    Path("m.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="resumed from a.pth"):
        verify("m.json")


def test_a_checkpoint_turns_on_nothing_that_writes_or_talks(trained):
    state = load_checkpoint(trained("TIGER")["checkpoint"])
    before = restored_config(state, "a.pth")
    state["config"].update(OUTSIDE)
    config = restored_config(state, "a.pth")
    for key in OUTSIDE.keys() & effects.OUTSIDE:
        assert config[key] == before[key]
    asked = restored_config(state, "a.pth", overrides={"log_wandb": True})
    assert asked["log_wandb"]


def test_trees_are_not_trained_together_with_other_machines():
    params = {"num_leaves": 31, "num_machines": 2, "machines": "192.0.2.1:9", "mlist": "a.txt"}
    assert effects.without_network({**params, "local_listen_port": 9}) == {"num_leaves": 31}
