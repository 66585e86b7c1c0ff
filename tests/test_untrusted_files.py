"""Files that lack something, or hold something else than they should, are refused by name."""

import copy
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_gr import Recommender, verify
from recbole_gr.data.content import _cached
from recbole_gr.data.raw.lines import LineFile
from recbole_gr.data.raw.movielens import MovieLens
from recbole_gr.data.vector_files import load_array
from recbole_gr.errors import ConfigError
from recbole_gr.manifest import data_hashes
from recbole_gr.restore import restore
from recbole_gr.search.stages import Best
from recbole_gr.search.store import TrialStore
from recbole_gr.sid.exchange import read_json, read_npy
from recbole_gr.sid.table import LEAST_LARGE, SIDTable
from recbole_gr.tokenizer.rkmeans import RKMeans
from recbole_gr.trainer.checkpoint import load_checkpoint, save_checkpoint
from recbole_gr.trainer.contents import require_weights
from recbole_gr.trainer.trees import with_trees
from recbole_gr.untrusted.archives import load_npy, load_npz
from recbole_gr.untrusted.shapes import OrNone, Rule, require, taking

DROPPED = object()
WRONG = (DROPPED, None, "x", [1], -7, {"a": 1}, 1.5, True)


def paths(value, depth, above=()):
    """Keys of nested dicts down to a depth, as tuples."""
    for key, item in value.items():
        yield (*above, key)
        if depth > 1 and isinstance(item, dict):
            yield from paths(item, depth - 1, (*above, key))


def changed(value, path, to):
    """A copy with another value at a path, or without it."""
    value = copy.copy(value)
    if len(path) > 1:
        value[path[0]] = changed(value[path[0]], path[1:], to)
    elif to is DROPPED:
        del value[path[0]]
    else:
        value[path[0]] = to
    return value


def variants(state, depth, keep=lambda path: True, wrong=WRONG):
    """Every state that differs in one key, with the key."""
    for path in filter(keep, paths(state, depth)):
        for to in wrong:
            yield ".".join(map(str, path)), changed(state, path, to)


def refused(use, file, key, required):
    """Whether `use` refuses a file, in words that name it and, where it must, the key."""
    try:
        use()
    except ConfigError as error:
        assert file in str(error)
        assert key.split(".")[0] in str(error) or not required
        return True
    return False


@pytest.mark.parametrize("name", ["TIGER", "SASRec"])
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
        monkeypatch.setattr("recbole_gr.restore.load_checkpoint", lambda *_, o=other, **__: o)
        n_refused += refused(lambda: restore("a.pth"), "a.pth", key, key in whole)
    assert n_refused > 20


@pytest.mark.parametrize(
    "key, value", [("amp_dtype", "x"), ("amp_dtype", [1]), ("beam_size", None)]
)
def test_settings_that_only_an_answer_needs_are_checked_before_it(key, value, trained, monkeypatch):
    state = load_checkpoint(trained("TIGER")["checkpoint"])
    other = changed(state, ("config", key), value)
    monkeypatch.setattr("recbole_gr.restore.load_checkpoint", lambda *_, **__: other)
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
    needed = set(trainer.resumes_with) - {"place?", "random_states_of_others?"}
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
    monkeypatch.setattr("recbole_gr.launch.run_processes", lambda *_: [])


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


@pytest.mark.parametrize("key", ["content_file", "sid_file", "cf_file"])
def test_a_number_in_the_place_of_a_file_is_no_open_file(key, tmp_path):
    with open(tmp_path / "open", "w+b") as file:
        config = {"data_path": str(tmp_path), "dataset": "tiny", key: file.fileno()}
        config = {**dict.fromkeys(("content_file", "sid_file", "cf_file")), **config}
        with pytest.raises(ConfigError, match=key):
            data_hashes(config)
        with pytest.raises(ConfigError, match=key):
            load_array(file.fileno(), key)
        os.fstat(file.fileno())  # it would have been closed


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
        with pytest.raises(ConfigError, match=r"m\.json.*JSON"):
            verify.verify(str(file))


@pytest.fixture
def tokenizer_file(tmp_path):
    tokenizer = RKMeans({"codebook_size": 4, "sid_levels": 2}, 3)
    tokenizer.fit(torch.randn(20, 3), progress=False)
    tokenizer.save(tmp_path / "t.pth")
    return tmp_path / "t.pth"


def test_a_tokenizer_of_any_other_content_is_refused_in_words(tokenizer_file):
    state = torch.load(tokenizer_file, weights_only=True)
    seen = set()
    for key, other in variants(state, 1):
        torch.save(other, tokenizer_file)
        assert refused(lambda: RKMeans.load(tokenizer_file), "t.pth", key, key != "state_dict")
        seen.add(key)
    assert seen == {"tokenizer", "dim", "sizes", "options", "state_dict"}
    for key, huge in (("dim", 2**40), ("sizes", [2**40, 4])):
        torch.save({**state, key: huge}, tokenizer_file)
        with pytest.raises(ConfigError, match=r"t\.pth.*dim and sizes"):
            RKMeans.load(tokenizer_file)
    torch.save([1], tokenizer_file)
    with pytest.raises(ConfigError, match=r"t\.pth"):
        RKMeans.load(tokenizer_file)


TOKENS = ["[PAD]", "a", "b", "c"]
HUGE = (10**9, 2**62, 2**63 - 1, 2**63, 2**70, 10**5000 - 1, LEAST_LARGE)


@pytest.mark.parametrize(
    "codes",
    [
        *([[0, 1], [0, 2], [0, code]] for code in (*HUGE[:5], LEAST_LARGE, -1, -(2**70))),
        *([[0, 1], [0, 2], [0, code]] for code in (1.0, True, None, [1], "<b_1", "<b_1>x", "")),
        *([["<a_1>"], ["<a_2>"], [f"<a_{code}>"]] for code in ("9" * 18, "9" * 5000, -1)),
        [[0], [1, 2], [3]],
        [[0], [1], []],
        [[0], [1], 2],
        [[0] * 300, [1] * 300, [2] * 300],
    ],
    ids=lambda codes: str(codes)[:40],
)
def test_a_json_of_codes_that_no_tokenizer_gives_is_refused_before_any_memory_is_taken(
    codes, tmp_path
):
    (tmp_path / "sid.json").write_text(json.dumps(dict(zip("abc", codes))))
    with pytest.raises(ConfigError, match=r"sid\.json"):
        read_json(tmp_path / "sid.json", TOKENS)


def test_json_that_is_too_deep_or_too_long_a_number_is_refused(tmp_path):
    for text in ("[" * 100_000, '{"a": [' + "9" * 5000 + "]}", '{"a\0": [1]}', "\0"):
        (tmp_path / "sid.json").write_text(text)
        with pytest.raises(ConfigError, match=r"sid\.json"):
            read_json(tmp_path / "sid.json", TOKENS)


BAD_ARRAYS = {
    **{f"of {code}": np.array([[0], [1], [code]]) for code in (10**9, 2**62, 2**63 - 1, -1)},
    "unsigned": np.array([[0], [1], [2**63]], dtype=np.uint64),
    "float": np.array([[0.0], [1.0], [2.0]]),
    "bool": np.array([[False], [True], [True]]),
    "flat": np.arange(3),
    "none": np.zeros((0, 2), dtype=np.int64),
    "wide": np.zeros((3, 300), dtype=np.int64),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_an_array_of_codes_that_no_tokenizer_gives_is_refused(name, tmp_path):
    np.save(tmp_path / "sid.npy", BAD_ARRAYS[name])
    with pytest.raises(ConfigError, match=r"sid\.npy"):
        read_npy(tmp_path / "sid.npy", None, TOKENS)
    arrays = {"codes": BAD_ARRAYS[name], "meta": np.frombuffer(b"{}", dtype=np.uint8)}
    most = min(int(arrays["codes"].max(initial=0)) + 1, 2**63 - 1)
    levels = arrays["codes"].shape[-1]
    np.savez(tmp_path / "sid.npz", **arrays, sizes=np.full(levels, most, dtype=np.int64))
    with pytest.raises(ConfigError, match=r"sid\.npz"):
        SIDTable.load(tmp_path / "sid.npz", None)


@pytest.fixture
def table_file(tmp_path):
    table = SIDTable.from_item_codes(torch.tensor([[0], [1], [2]]), (3,))
    table.save(tmp_path / "sid.npz", TOKENS)
    return tmp_path / "sid.npz"


def test_a_table_that_lacks_something_or_holds_something_else_is_refused(table_file):
    arrays = load_npz(table_file)
    del arrays["hash"]
    for name in ("codes", "sizes", "meta", "item_tokens"):
        for to in (DROPPED, np.array(1.5), np.array(["x"]), np.zeros((2, 2, 2)), np.int64([[1]])):
            if to is DROPPED and name == "item_tokens":
                continue
            with open(table_file, "wb") as file:
                np.savez(file, **changed(arrays, (name,), to))
            with pytest.raises(ConfigError, match=r"sid\.npz"):
                SIDTable.load(table_file, TOKENS)
    for meta in (
        *("[]", "{", "\xff", '{"content_levels": "x"}', '{"content_levels": 0}', '{"options": 3}'),
        *('{"file": "../../a"}', '{"file": 3}', '{"tokenizer": ["x"]}', '{"fit": [1]}'),
    ):
        array = np.frombuffer(meta.encode("latin-1"), dtype=np.uint8)
        with open(table_file, "wb") as file:
            np.savez(file, **{**arrays, "meta": array})
        with pytest.raises(ConfigError, match=r"sid\.npz"):
            SIDTable.load(table_file, TOKENS)


def head(shape, descr="<f4", version=b"\x01\x00"):
    """The bytes of a `.npy` file that says what it holds, and holds nothing."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text


HEADS = {
    "huge": head((2**40, 4)),
    "overflowing": head((2**62, 2**62)),
    "negative": head((-1, 4)),
    "too short": head((2, 2)) + bytes(8),
    "objects": head((2, 2), "|O") + bytes(64),
    "no dtype": head((2, 2), "nothing"),
    "no shape": head("x"),
    "deep": head("(" * 5000),
    "version": head((2, 2), version=b"\x09\x00"),
    "cut": head((2, 2))[:20],
    "empty": b"",
    "text": b"\0" * 100,
    "pickle": b"\x80\x04N.",
}


@pytest.mark.parametrize("name", HEADS)
def test_an_array_file_whose_head_lies_is_refused_before_any_memory_is_taken(name, tmp_path):
    file = tmp_path / "a.npy"
    file.write_bytes(HEADS[name])
    with pytest.raises(ValueError, match=r"\.npy file|too short|objects"):
        load_npy(file)
    with pytest.raises(ConfigError, match=r"content_file .*a\.npy"):
        load_array(file)
    with pytest.raises(ConfigError, match=r"a\.npy"):
        read_npy(file, None, TOKENS)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("codes.npy", HEADS[name])
    with pytest.raises(ConfigError, match=r"a\.npz"):
        SIDTable.load(tmp_path / "a.npz", TOKENS)
    cache = tmp_path / "tiny-text-0123456789abcdef.npy"
    cache.write_bytes(HEADS[name])
    config = {"content_cache_dir": str(tmp_path), "dataset": "tiny"}
    made = np.ones((2, 2), dtype=np.float32)
    assert _cached(config, "text", "0123456789abcdef", 2, lambda: made)[0] is made


def locked(content):
    """A zip file whose parts say that they have a password."""
    content = bytearray(content)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(mark)
        while place >= 0:
            content[place + offset] |= 1
            place = content.find(mark, place + 4)
    return bytes(content)


def damaged(content):
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 0xFF for byte in content[middle:])


DAMAGES = {
    "locked": locked,
    "damaged": damaged,
    **{f"cut at {s}": lambda c, s=s: c[: int(len(c) * s)] for s in (0, 0.01, 0.5, 0.95)},
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_locked_cut_or_damaged_archive_is_refused_in_words(
    name, tmp_path, table_file, tokenizer_file
):
    checkpoint = tmp_path / "c.pth"
    save_checkpoint(checkpoint, {"w": torch.zeros(100)})
    uses = {
        checkpoint: lambda: load_checkpoint(checkpoint),
        table_file: lambda: SIDTable.load(table_file, TOKENS),
        tokenizer_file: lambda: RKMeans.load(tokenizer_file),
    }
    for file, use in uses.items():
        file.write_bytes(DAMAGES[name](file.read_bytes()))
        with pytest.raises(ConfigError, match=file.name):
            use()


@pytest.mark.parametrize("name", DAMAGES)
def test_a_locked_cut_or_damaged_zip_of_raw_data_is_refused_in_words(name, tmp_path):
    file = tmp_path / "ml.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ml/u.data", "1\t2\t3\t4\n" * 2000)
    file.write_bytes(DAMAGES[name](file.read_bytes()))

    def open_file(path, member=None, encoding="utf-8"):
        return LineFile(path, member, encoding, progress=False)

    with pytest.raises(ConfigError, match=r"ml\.zip"):
        list(MovieLens(open_file, str(file)).interactions()[1])


def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path):
    for file, load in (
        (tmp_path / "sid.npz", lambda file: SIDTable.load(file, TOKENS)),
        (tmp_path / "c.pth", load_checkpoint),
    ):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("codes.npy", head((2**25,), "|i1") + bytes(2**25))
        with pytest.raises(ConfigError, match=rf"{file.name}.*would take"):
            load(file)
    for tensor in (
        torch.zeros(1).expand(10**10),
        torch.empty(10**10, device="meta"),
        torch.sparse_coo_tensor(torch.zeros(1, 1).long(), [1.0], (10**10,)),
    ):
        torch.save({"format_version": 1, "w": tensor}, tmp_path / "c.pth")
        with pytest.raises(ConfigError, match=r"c\.pth"):
            load_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize("version", [None, "1", [1], 0, -1, 1.5, True])
def test_a_format_that_is_no_version_is_refused(version, tmp_path):
    torch.save({"format_version": version}, tmp_path / "c.pth")
    with pytest.raises(ConfigError, match=r"c\.pth.*no version"):
        load_checkpoint(tmp_path / "c.pth")
    (tmp_path / "m.json").write_text(json.dumps({"format_version": version, "runs": []}))
    with pytest.raises(ConfigError, match=r"m\.json.*no version"):
        verify.verify(tmp_path / "m.json")
    (tmp_path / "s.jsonl").write_text(json.dumps({"format_version": version}) + "\n")
    with pytest.raises(ConfigError, match=r"s\.jsonl.*no version"):
        TrialStore(tmp_path / "s.jsonl", {})


def test_the_trials_of_a_search_are_whole_and_have_no_other_file_removed(tmp_path):
    file, whole = tmp_path / "s.jsonl", {"stage": "trial", "number": 0, "params": {}}
    whole |= {"status": "finished", "valid_score": 0.5, "seconds": 1.0}
    for key in whole:
        for to in (DROPPED, [1], None):
            file.unlink(missing_ok=True)
            store = TrialStore(file, {})
            store.records.append(changed(whole, (key,), to))
            with pytest.raises(ConfigError, match=rf"s\.jsonl.*line 2.*{key}"):
                store.of_stage("trial")
            store.close()
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
