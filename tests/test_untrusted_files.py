"""Files that lack something, or hold something else than they should, are refused by name."""

import contextlib
import json
from pathlib import Path

import pytest
import torch
from changes import DROPPED, WRONG, changed, paths, refused, variants
from runs import rest_slow

from recbole_gr import Recommender
from recbole_gr.commands import verify
from recbole_gr.errors import ConfigError
from recbole_gr.search.journal import HEADER, StoredStudy, open_journal
from recbole_gr.search.study import Best
from recbole_gr.serving.restore import restore
from recbole_gr.storage.checkpoint import load_checkpoint
from recbole_gr.trainer.contents import require_weights
from recbole_gr.trainer.trees import with_trees
from recbole_gr.untrusted.shapes import OrNone, Rule, require, taking


@pytest.mark.parametrize("name", rest_slow("TIGER", "SASRec"))
def test_a_checkpoint_of_any_other_content_is_refused_in_words(name, trained, monkeypatch):
    state = load_checkpoint(trained(name)["checkpoint"])
    whole = ("config", "state_dict", "other_parameter", "sid", "data")
    read = {f"config.{key}" for key in ("model", "dataset", "data_path", "seed", "eval_args")}
    n_refused = 0

    def keep(path):
        if path[0] == "config" and len(path) > 1:
            return ".".join(path) in read
        return path[0] in whole and (len(path) == 1 or path[0] != "state_dict")

    for key, other in variants(state, 2, keep, WRONG[:4]):
        monkeypatch.setattr(
            "recbole_gr.serving.restore.load_checkpoint", lambda *_, o=other, **__: o
        )
        n_refused += refused(lambda: restore("a.pth"), "a.pth", key, key in whole)
    assert n_refused > 20


@pytest.mark.parametrize(
    "key, value", [("amp_dtype", "x"), ("amp_dtype", [1]), ("beam_size", None)]
)
def test_settings_that_only_an_answer_needs_are_checked_before_it(key, value, trained, monkeypatch):
    state = load_checkpoint(trained("TIGER")["checkpoint"])
    other = changed(state, ("config", key), value)
    monkeypatch.setattr("recbole_gr.serving.restore.load_checkpoint", lambda *_, **__: other)
    with pytest.raises(ConfigError, match=key):
        Recommender.load("a.pth")


@pytest.mark.parametrize("name", ["TIGER", "PIT"])
def test_training_goes_on_from_nothing_but_a_whole_checkpoint(name, parts, monkeypatch):
    small = {"codebook_size": 8, "n_candidates": 3} if name == "PIT" else {}
    _, trainer, train, *_ = parts(model=name, **small)
    trainer._identity, trainer._train_data = None, train
    random = trainer._checkpoint_state(0)["random_states"]
    place = {"batches": 1, "loss": None, "random": random, "best": "a.pth", "has_best": False}
    state = {**trainer._checkpoint_state(0), "place": place}
    monkeypatch.setattr("recbole_gr.trainer.weights.load_checkpoint", lambda *_, **__: state)
    trainer.resume_checkpoint("a.pth")
    needed = {key for key in trainer.resumes_with if not key.endswith("?")}
    assert needed <= set(state)

    def keep(path):
        return path[0] not in ("config", "state_dict", "data", "sid")

    seen = set()
    for key, other in variants(state, 2, keep):
        load = lambda *_, o=other, **__: o  # noqa: E731
        monkeypatch.setattr("recbole_gr.trainer.weights.load_checkpoint", load)
        if refused(lambda: trainer.resume_checkpoint("a.pth"), "a.pth", key, key in needed):
            seen.add(key)
    assert needed <= seen and {"place.batches", "place.random", "place.best"} <= seen


def test_a_warm_up_of_any_other_content_is_refused_in_words(parts, monkeypatch):
    _, trainer, train, *_ = parts(model="PIT", codebook_size=8, n_candidates=3)
    trainer._identity, trainer._train_data = None, train
    state = trainer._checkpoint_state(0)
    needed = {"phase", "epoch", "best_epoch", "best_valid_score", "epoch_figures"}
    for key, other in variants(state, 1):
        load = lambda *_, o=other, **__: o  # noqa: E731
        monkeypatch.setattr("recbole_gr.trainer.weights.load_checkpoint", load)
        was = refused(lambda: trainer._take_warm_up("w.pth"), "w.pth", key, key in needed)
        assert was or key != "epoch_figures"
        assert was or key not in needed or other.get(key) in (None, 1.5, 1, True, -7, [1])


def test_the_checkpoint_of_trees_holds_them():
    trees = torch.zeros(4, dtype=torch.uint8)
    state = {"config": {"model": "XGBoost", "dataset": "tiny"}, "data": None, "trees": trees}

    class Booster:
        def load_model(self, file):
            assert Path(file).read_bytes() == bytes(4)

    require_weights(state, "t.pth")
    assert with_trees(Booster(), state, "t.pth")
    for other in (None, "x", [1], 3, trees[:3], torch.sparse_coo_tensor(size=(4,))):
        with pytest.raises(ConfigError, match=r"t\.pth.*trees"):
            with_trees(Booster(), {**state, "trees": other}, "t.pth")
    for key in ("config", "data"):
        with pytest.raises(ConfigError, match=rf"t\.pth.*{key}"):
            require_weights({**state, key: 3}, "t.pth")


def test_optimisers_and_generators_of_another_size_are_refused(parts, monkeypatch):
    _, trainer, train, *_ = parts()
    trainer._identity, trainer._train_data = None, train
    state = trainer._checkpoint_state(0)
    n = len(list(trainer.model.parameters()))
    moments = {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}
    groups = state["optimizer"]["param_groups"]
    for key, other in (
        ("optimizer", {"state": {0: moments}, "param_groups": groups}),
        ("optimizer", {"state": {}, "param_groups": [{**groups[0], "lr": "fast"}, *groups[1:]]}),
        ("optimizer", {"state": {}, "param_groups": [{"params": list(range(n + 1))}]}),
        ("loader_states", [torch.zeros(3, dtype=torch.uint8)]),
        ("random_states", {**state["random_states"], "torch": torch.zeros(3, dtype=torch.uint8)}),
        ("random_states", {**state["random_states"], "python": [3, [1], None]}),
    ):
        load = lambda *_, o={**state, key: other}, **__: o  # noqa: E731
        monkeypatch.setattr("recbole_gr.trainer.weights.load_checkpoint", load)
        with pytest.raises(ConfigError, match=rf"a\.pth.*{key}"):
            trainer.resume_checkpoint("a.pth")


@pytest.fixture
def no_run(monkeypatch):
    monkeypatch.setattr("recbole_gr.distributed.launch.run_processes", lambda *_: [])


def test_a_manifest_of_any_other_content_is_refused_in_words(trained, no_run, tmp_path):
    file = tmp_path / "m.json"
    record = json.loads(Path(trained("TIGER")["files"]["manifest"]).read_text())
    compared = ("model", "dataset", "config", "data", "sid_digest", "test_targets", "test_result")
    for key in ("saved", "runs", "format_version"):
        for to in WRONG:
            if key == "saved" and to is True:
                continue
            file.write_text(json.dumps(changed(record, (key,), to)))
            assert refused(lambda: verify.verify(str(file)), "m.json", key, to is not DROPPED), to
    for key in compared:
        for to in (DROPPED, [1], -7):
            run = changed(record["runs"][0], (key,), to)
            file.write_text(json.dumps({**record, "runs": [run]}))
            assert refused(lambda: verify.verify(str(file)), "m.json", key, False)
            assert refused(lambda: verify.main([str(file)]) == 2 and verify.verify(str(file)),
                           "m.json", key, False)  # fmt: skip


@pytest.mark.parametrize(
    "key, value",
    [
        ("load_col", {"inter": 5}),
        ("eval_args", [1]),
        ("data_path", 3),
        ("metrics", {"a": 1}),
        ("sid_levels", "x"),
        ("lr_scheduler", [1]),
    ],
)
def test_settings_of_a_manifest_that_no_run_can_use_are_said_to_be_its_own(
    key, value, trained, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    record = json.loads(Path(trained("TIGER")["files"]["manifest"]).read_text())
    record["runs"][0]["config"][key] = value
    Path("m.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"m\.json"):
        verify.verify("m.json", show_progress=False)


def test_a_manifest_of_periods_without_a_model_of_periods_is_refused(tmp_path, tiny_folder):
    result = {"period": 0, "model": "SASRec", "method": "finetune", "churn": None}
    result |= {"test_result": {}, "best_valid_result": None}
    settings = {"data_path": str(tiny_folder)}
    part = {"models": ["SASRec"], "dataset": "tiny", "settings": settings, "data": {}}
    record = {"format_version": 1, "runs": [], "continual": {**part, "results": [result]}}
    (tmp_path / "m.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"m\.json"):
        verify.verify(str(tmp_path / "m.json"))


def test_a_manifest_of_periods_of_any_other_content_is_refused(no_run, tmp_path):
    result = {"period": 0, "model": "TIGER", "method": "start", "test_result": {"recall@5": 0.1}}
    result |= {"best_valid_result": None, "churn": None}
    part = {"models": ["DACT"], "dataset": "tiny", "settings": {}, "data": {}, "results": [result]}
    record, file = {"format_version": 1, "runs": [], "continual": part}, tmp_path / "m.json"

    def check(other):
        file.write_text(json.dumps(other))
        return verify.verify(str(file))

    assert check(record) == []
    for path in paths(record, 2):
        if path[0] == "continual":
            for to in (DROPPED, None, -7, 1.5, [1] if path[-1] != "churn" else 3):
                with pytest.raises(ConfigError, match=r"m\.json"):
                    check(changed(record, path, to))
    for key in result:
        for to in (DROPPED, [1], 1.5) if key != "churn" else (DROPPED,):
            other = changed(record, ("continual", "results"), [changed(result, (key,), to)])
            with pytest.raises(ConfigError, match=rf"m\.json.*results\[0\].{key}"):
                check(other)
    for text in ('{"a":' * 100_000, "\0", '"' + "\\u0000", "\xff"):
        file.write_text(text, encoding="latin-1")
        with pytest.raises(ConfigError, match=r"m\.json.*cannot be read"):
            verify.verify(str(file))


@pytest.mark.parametrize("version", [None, "1", [1], 0, -1, 1.5, True])
def test_a_format_that_is_no_version_is_refused(version, tmp_path):
    torch.save({"format_version": version}, tmp_path / "c.pth")
    with pytest.raises(ConfigError, match=r"c\.pth.*no version"):
        load_checkpoint(tmp_path / "c.pth")
    (tmp_path / "m.json").write_text(json.dumps({"format_version": version, "runs": []}))
    with pytest.raises(ConfigError, match=r"m\.json.*no version"):
        verify.verify(tmp_path / "m.json")
    for name, own, words in (("s", version, "no version"), ("t", 9, "Update RecBole-GR")):
        file = tmp_path / f"{name}.jsonl"
        with search_in(file) as study:
            study.study.set_user_attr(HEADER, {"format_version": own})
        with pytest.raises(ConfigError, match=f"{name}.jsonl.*{words}"), search_in(file):
            pass


@contextlib.contextmanager
def search_in(file):
    with open_journal(file) as storage:
        yield StoredStudy(storage, file, "trials", {})


def test_the_trials_of_a_search_are_whole_and_have_no_other_file_removed(tmp_path):
    file, whole = tmp_path / "s.jsonl", {"number": 0, "params": {}, "status": "finished"}
    whole |= {"valid_score": 0.5, "seconds": 1.0}
    with search_in(file) as study:
        study.add(whole, [], {})
    text = file.read_text()
    for key in whole:
        for to in (DROPPED, [1], None):
            lines = text.splitlines()
            lines[2] = json.loads(lines[2])
            lines[2] = json.dumps(changed(lines[2], ("user_attrs", "record", key), to))
            file.write_text("\n".join(lines) + "\n")
            if (key, to) == ("seconds", None):  # of a process that ended with its trial
                continue
            with pytest.raises(ConfigError, match=f"s.jsonl'.*trial 0 of trials.*{key}") as error:
                with search_in(file):
                    pass
            assert "Take the line of this trial out" in str(error.value)
    kept = tmp_path / "kept.pth"
    kept.touch()
    own = [tmp_path / f"s-{number}.pth" for number in (0, 1)]
    for path in own:
        path.touch()
    best = Best(True, clean=True, checkpoints=str(tmp_path / "s"))
    for number, score in ((0, 0.1), (1, 0.5), (2, 0.3)):
        best({**whole, "number": number, "valid_score": score, "checkpoint": str(kept)})
    assert kept.exists() and [path.exists() for path in own] == [False, True]


def test_a_shape_names_the_first_key_that_is_wrong_and_what_should_be_there():
    shape = {"a": int, "b?": [{"c": OrNone(str)}], "d?": {...: float}, "e?": Rule("odd", bool)}
    require({"a": 1, "b": [{"c": None}, {"c": "x"}], "d": {"x": 1}, "z": 0}, shape, "f", "Do.")
    for value, message in (
        ([], "'f': it is a list, and must be a mapping of names to values. Do."),
        ({1: 2}, "'f': it is a mapping, and must be a mapping of names to values. Do."),
        ({}, "'f' lacks a. Do."),
        ({"a": True}, "'f': a is True, and must be an integer. Do."),
        ({"a": 1, "b": 3}, "'f': b is 3, and must be a list. Do."),
        ({"a": 1, "b": [{"c": 1}]}, "'f': b[0].c is 1, and must be text. Do."),
        ({"a": 1, "d": {"x": "y"}}, "'f': d.x is 'y', and must be a number. Do."),
        ({"a": 1, "e": 0}, "'f': e is 0, and must be odd. Do."),
    ):
        with pytest.raises(ConfigError) as error:
            require(value, shape, "f", "Do.")
        assert str(error.value) == message


def test_what_goes_wrong_with_a_file_is_said_of_it_and_the_rest_goes_through():
    with pytest.raises(ConfigError, match=r"'f': its part cannot be used \(KeyError: 'x'\)\. Do\."):
        with taking("part", "f", "Do."):
            {}["x"]
    for error in (ConfigError("own"), ImportError("none"), KeyboardInterrupt()):
        with pytest.raises(type(error)), taking("part", "f", "Do."):
            raise error
