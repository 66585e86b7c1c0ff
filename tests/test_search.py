"""The search for settings: its file, its proposals, its store, and what it chooses."""

import contextlib
import csv
import math
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from fake_ray import FakeRay
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import create_trial
from runs import SIDS, SMALL, rest_slow

from recbole_gr.errors import ConfigError
from recbole_gr.search import workers
from recbole_gr.search.command import main
from recbole_gr.search.journal import StoredStudy, open_journal
from recbole_gr.search.runner import search
from recbole_gr.search.samplers import draws, grid, make_sampler
from recbole_gr.search.space import read_space
from recbole_gr.search.trial import run_trial
from recbole_gr.search.two_stage import choose_tokenizers

SPACE = """\
# in RecBole's form
hidden_size choice [16, 32]
n_layers quniform 1,3,1
train_batch_size choice [8,16]

learning_rate loguniform -8, -2
dropout uniform 0.1,0.3
"""


def written(folder, text=SPACE, name="space.test"):
    path = folder / name
    path.write_text(text)
    return path


# The file


def test_the_forms_of_recbole_are_read(tmp_path):
    space = {p.name: p for p in read_space(written(tmp_path))}
    assert list(space) == [
        "hidden_size",
        "n_layers",
        "train_batch_size",
        "learning_rate",
        "dropout",
    ]
    assert space["hidden_size"].grid() == [16, 32]
    assert space["n_layers"].grid() == [1, 2, 3]
    drawn = {name: [p[name] for p in draws(list(space.values()), 500, 0)] for name in space}
    assert 0.1 <= min(drawn["dropout"]) < 0.11 and 0.29 < max(drawn["dropout"]) <= 0.3
    rates = drawn["learning_rate"]
    assert math.exp(-8) <= min(rates) < math.exp(-7.5) and math.exp(-2.5) < max(rates)
    assert max(rates) <= math.exp(-2)  # the bounds are logarithms, as hyperopt's
    assert set(drawn["n_layers"]) == {1, 2, 3}


@pytest.mark.parametrize(
    "line, values",
    [
        ("a choice ['BPR','CE']", ["BPR", "CE"]),
        ("a choice [BPR, CE]", ["BPR", "CE"]),
        ("a choice [[8,16],[4]]", [[8, 16], [4]]),
        ("a choice [None, True, 1e-3]", [None, True, 0.001]),
        ("a\tchoice   [1,2]", [1, 2]),
        ("a quniform 0.1,0.5,0.2", [0.1, 0.3, 0.5]),
        ("a quniform 1,4,2", [1, 3]),
    ],
)
def test_values_of_a_line(line, values, tmp_path):
    (parameter,) = read_space(written(tmp_path, line))
    assert parameter.grid() == values
    assert {repr(p["a"]) for p in draws([parameter], 99, 0)} == set(map(repr, values))


@pytest.mark.parametrize(
    "text, message",
    [
        ("a", "line 1: 'a' alone; write 'a choice [1,2,3]'"),
        ("\na choise [1]", "line 2: 'choise' is none of choice"),
        ("a choise [1]", "did you mean 'choice'"),
        ("a choice", "is no list of values; write 'a choice [1,2,3]'"),
        ("a choice 5", "'5' is no list of values"),
        ("a choice []", "is no list of values"),
        ("a choice [1,1]", "holds a value twice"),
        ("a choice [True,False,True]", "holds a value twice"),
        ("a choice __import__('os')", "is no list of values"),
        ("a uniform 1", "'1' is not what uniform takes; write 'a uniform 0.1,0.5'"),
        ("a uniform x,y", "is not what uniform takes"),
        ("a uniform 2,1", "the lower bound 2 is not below the upper one 1"),
        ("a uniform 0,inf", "is not what uniform takes"),
        ("a quniform 1,5", "is not what quniform takes; write 'a quniform 1,5,1'"),
        ("a quniform 1,5,0", "the step 0 must be above 0"),
        ("a quniform 1,5,9", "the step 9 must be above 0 and fit the bounds"),
        ("a loguniform -8", "write 'a loguniform -8,0'"),
        ("a loguniform -8,1000", "its bounds are natural logarithms, within +-700"),
        ("a choice [1]\nb choice [1]\na choice [2]", "line 3: a stands on line 1 already"),
        ("# nothing\n\n", "names no parameter"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_with_its_remedy(text, message, tmp_path):
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        read_space(path)
    assert str(path) in str(error.value) and message in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="none.test cannot be read"):
        read_space(tmp_path / "none.test")


# What is proposed


def test_a_grid_is_the_product_of_all_values(tmp_path):
    space = read_space(written(tmp_path, "a choice [1,2]\nb quniform 0,2,1"))
    expected = [{"a": a, "b": b} for a in (1, 2) for b in (0, 1, 2)]
    assert grid(space) == expected
    sampler = make_sampler("exhaustive", space, 4, 0, True)
    assert sampler([], 99) == expected[:4] and sampler([None], 2) == expected[1:3]


def test_random_parameters_are_distinct_and_follow_from_the_seed(tmp_path):
    space = read_space(written(tmp_path))
    assert draws(space, 9, 1) == draws(space, 9, 1) != draws(space, 9, 2)
    assert draws(space, 4, 1) == draws(space, 9, 1)[:4]
    finite = read_space(written(tmp_path, "a choice [1,2]\nb choice [3,4,5]"))
    drawn = draws(finite, 100, 0)
    assert sorted(map(str, drawn)) == sorted(map(str, grid(finite)))


def peak(params):
    """Best near learning_rate = e^-5 and dropout = 0.2."""
    off = abs(math.log(params["learning_rate"]) + 5) + 10 * abs(params["dropout"] - 0.2)
    return 1 / (1 + off) + (params["hidden_size"] == 32) * 0.1


def proposed(space, seed, n=40, bigger=True):
    sampler, trials, ended = make_sampler("bayes", space, n, seed, bigger), [], []
    distributions = {parameter.name: parameter.distribution for parameter in space}
    while asked := sampler(ended, 1):
        trials.append((asked[0], peak(asked[0]) * (1 if bigger else -1)))
        ended.append(
            create_trial(params=asked[0], distributions=distributions, value=trials[-1][1])
        )
    return trials


def test_tree_parzen_follows_from_seed_and_scores_and_learns_from_them(tmp_path):
    space = read_space(written(tmp_path))
    trials = proposed(space, 3)
    assert trials == proposed(space, 3) and trials != proposed(space, 4)
    assert [p for p, _ in trials] == [p for p, _ in proposed(space, 3, bigger=False)]
    scores = [score for _, score in trials]
    assert sum(scores[20:]) / 20 > sum(scores[:10]) / 10


# The journal

FAILED_TRIAL = {"params": {}, "status": "failed", "message": "no", "seconds": 1.0}


@contextlib.contextmanager
def opened(path, header=None, name="trials"):
    with open_journal(Path(path)) as storage:
        yield StoredStudy(storage, Path(path), name, header or {"model": "TIGER"})


def journal(path, n):
    """A journal of so many trials; what it holds."""
    with opened(path) as study:
        for number in range(n):
            study.add({**FAILED_TRIAL, "number": number, "valid_score": float("nan")}, [], {})
    return path.read_bytes()


def test_a_journal_loses_what_was_half_written_and_nothing_else(tmp_path):
    path = tmp_path / "a.jsonl"
    whole = journal(path, 3)
    ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    assert len(ends) == 5  # the study, what is searched, and a line for each trial
    cuts = {*range(0, len(whole), 17), *(end + step for end in ends for step in range(-3, 3))}
    for cut in sorted(cut for cut in cuts if 0 <= cut <= len(whole)):
        path.write_bytes(whole[:cut])
        n_trials = max(0, whole[:cut].count(b"\n") - 2)
        with opened(path) as study:
            assert [r["number"] for r in study.records] == list(range(n_trials))
            study.add({**FAILED_TRIAL, "number": 7}, [], {})
        assert [r["number"] for r in read_records(path)] == [*range(n_trials), 7]


KILLED = """
import json, os, signal, sys
from pathlib import Path
from optuna.storages.journal import JournalFileBackend
from recbole_gr.search.journal import StoredStudy, open_journal

path = Path(sys.argv[1])
record = {"params": {}, "status": "failed", "message": "no", "seconds": 1.0}

def half(self, logs):
    os.symlink("held", f"{path}.lock")  # as Optuna locks
    with open(path, "ab") as file:
        file.write(json.dumps(logs[0], separators=(",", ":")).encode()[:99])
    os.kill(os.getpid(), signal.SIGKILL)

with open_journal(path) as storage:
    study = StoredStudy(storage, path, "trials", {"model": "TIGER"})
    study.add({**record, "number": 0}, [], {})
    JournalFileBackend.append_logs = half
    study.add({**record, "number": 1}, [], {})
"""


@pytest.mark.slow
def test_a_search_killed_in_a_write_leaves_a_journal_that_goes_on_at_once(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)])
    assert done.returncode == -signal.SIGKILL
    assert not path.read_bytes().endswith(b"\n") and Path(f"{path}.lock").is_symlink()
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)  # how Optuna waits for its lock
    with opened(path) as study:
        assert [r["number"] for r in study.records] == [0]
        study.add({**FAILED_TRIAL, "number": 1}, [], {})
    assert [r["number"] for r in read_records(path)] == [0, 1] and not waits
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize("damage", [b"", b"[1]", b"{}", b'{"op_code":4,\xff\x00', b"[" * 100_000])
def test_a_damaged_line_is_named_with_what_takes_it_out(damage, tmp_path):
    path = tmp_path / "a.jsonl"
    lines = journal(path, 4).split(b"\n")
    lines[3] = damage
    path.write_bytes(damaged := b"\n".join(lines))
    with pytest.raises(ConfigError, match="a.jsonl, line 4 is damaged") as error, opened(path):
        pass
    assert path.read_bytes() == damaged
    subprocess.run(shlex.split(str(error.value).partition("alone is lost: ")[2]), check=True)
    with opened(path) as study:
        assert [record["number"] for record in study.records] == [0, 2, 3]
        study.add({**FAILED_TRIAL, "number": 1}, [], {})
    with opened(path) as study:
        assert [record["number"] for record in study.records] == [0, 1, 2, 3]


def test_two_searches_do_not_write_one_file(tmp_path):
    with opened(tmp_path / "a.jsonl"):
        with pytest.raises(ConfigError, match="being written by another search"):
            with opened(tmp_path / "a.jsonl"):
                pass
    with opened(tmp_path / "a.jsonl"):
        pass


@pytest.mark.parametrize(
    "text", ["words\n", "words", '{"format_version": 1}\n{"stage": "trial"}\n', "\n", "[]\n"]
)
def test_a_file_of_something_else_stays_as_it_was(text, tmp_path):
    path = tmp_path / "b.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match="b.jsonl is not the journal of a search"), opened(path):
        pass
    assert path.read_text() == text


@pytest.mark.parametrize("line", ['{"op_code":99}', '{"op_code":4}', '{"op_code":0,"a":1}'])
def test_a_line_that_optuna_cannot_use_is_said_of_the_file(line, tmp_path):
    path = tmp_path / "b.jsonl"
    path.write_bytes(text := journal(path, 2) + line.encode() + b"\n")
    with pytest.raises(ConfigError, match=r"b.jsonl': its journal cannot be used"), opened(path):
        pass
    assert path.read_bytes() == text


def test_a_journal_is_read_without_pickles(tmp_path, monkeypatch):
    journal(path := tmp_path / "a.jsonl", 2)
    monkeypatch.setattr("pickle.loads", lambda *_, **__: pytest.fail("a pickle was loaded"))
    monkeypatch.setattr("pickle.Unpickler", lambda *_, **__: pytest.fail("a pickle was loaded"))
    with opened(path) as study:
        assert len(study.records) == 2
    assert not hasattr(JournalFileBackend, "load_snapshot")  # the one part of Optuna's with pickles


def test_a_study_of_somebody_else_is_not_taken_for_a_search(tmp_path):
    path = tmp_path / "b.jsonl"
    storage = JournalStorage(JournalFileBackend(str(path)))
    study = optuna.create_study(storage=storage, study_name="trials")
    study.add_trial(create_trial(value=1.0))
    with pytest.raises(ConfigError, match="b.jsonl is not the journal of a search"), opened(path):
        pass
    with opened(path, name="tokenizers") as study:  # other studies may stand beside ours
        assert study.records == []


# The search, with a stub in the place of training


class Stub:
    """Scores by `peak`, notes what it ran; `stop` raises at that trial, `fail` is a failure."""

    def __init__(self, stop=None, fail=()):
        self.stop, self.fail, self.ran = stop, fail, []

    def __call__(self, job):
        if job.number == self.stop:
            raise KeyboardInterrupt
        self.ran.append(job.number)
        if job.number in self.fail:
            raise RuntimeError("out of memory")
        score = peak({"learning_rate": 0.01, "dropout": 0.2, "hidden_size": 16, **job.params})
        # The test says the opposite of the validation.
        results = {"valid_result": {"ndcg@10": score}, "test_result": {"ndcg@10": 2 - score}}
        return {"valid_score": score, **results, "checkpoint": None}


@pytest.fixture
def find(tiny_folder, tmp_path, monkeypatch):
    """A function that searches with a stub on the generated data, trial after trial."""
    monkeypatch.chdir(tmp_path)

    def find(objective, text=SPACE, options=None, **settings):
        options = {"algo": "random", "max_evals": 6, "tool": "optuna", **(options or {})}
        settings = {"data_path": str(tiny_folder), "show_progress": False, **settings}
        model = settings.pop("model", "TIGER")
        return search(
            written(tmp_path, text), model, "tiny", config_dict=settings, objective=objective,
            **options,
        )  # fmt: skip

    return find


def plain(records):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


@pytest.mark.parametrize(
    "algo, parallel", [("exhaustive", 1), ("random", 1), ("bayes", 1), ("bayes", 4)]
)
@pytest.mark.parametrize("stop", rest_slow(3, 0, 13))
def test_a_stopped_search_goes_on_to_the_same_end(algo, parallel, stop, find):
    text = "hidden_size choice [16,32]\nn_layers quniform 1,3,1\ndropout choice [0.1,0.2,0.3]"
    text = text if algo == "exhaustive" else SPACE
    options = {"algo": algo, "max_evals": 15, "parallel": parallel}
    whole = find(Stub(fail=(2, 9)), text, {**options, "output_file": "whole.jsonl"})
    with pytest.raises(KeyboardInterrupt):
        find(Stub(stop=stop, fail=(2, 9)), text, options)
    rest = Stub(fail=(2, 9))
    resumed = find(rest, text, options)
    assert rest.ran == list(range(stop, 15))
    assert plain(resumed["trials"]) == plain(whole["trials"])
    assert resumed["best"]["number"] == whole["best"]["number"]
    assert resumed["command"] == whole["command"]
    nothing = Stub()
    assert plain(find(nothing, text, options)["trials"]) == plain(whole["trials"])
    assert nothing.ran == []


def test_more_trials_can_be_added_later(find):
    find(Stub(), options={"max_evals": 3})
    more = Stub()
    outcome = find(more, options={"max_evals": 5})
    assert more.ran == [3, 4] and len(outcome["trials"]) == 5
    nothing = Stub()  # fewer are asked for than there are: none is hidden
    before = Path(outcome["files"]["jsonl"]).read_bytes()
    assert find(nothing, options={"max_evals": 2})["best"] == outcome["best"]
    assert nothing.ran == [] and Path(outcome["files"]["jsonl"]).read_bytes() == before


def test_values_may_be_lists_of_which_optuna_says_nothing(find, recwarn):
    text = "mlp_hidden_size choice [[8,16],[4],[]]\nembedding_size choice [None,'a',True]"
    options = {"max_evals": None}
    with pytest.raises(KeyboardInterrupt):
        find(Stub(stop=5), text, options, model="DeepFM")
    outcome = find(Stub(), text, options, model="DeepFM")
    assert len(outcome["trials"]) == 9
    sizes = [trial["params"]["mlp_hidden_size"] for trial in outcome["trials"]]
    assert {repr(size) for size in sizes} == {"[8, 16]", "[4]", "[]"}
    assert not [warning for warning in recwarn if "categorical" in str(warning.message)]


@pytest.mark.parametrize(
    "text, options, settings, message",
    [
        (SPACE.replace("32", "64"), {}, {}, "hidden_size.choices was [16, 32] and is [16, 64]"),
        (SPACE + "beam_size choice [20]", {}, {}, "parameters.beam_size is new"),
        (SPACE, {"algo": "exhaustive"}, {}, "infinitely many values"),
        (SPACE, {"search_seed": 1}, {}, "search_seed was 2020 and is 1"),
        (SPACE, {}, {"epochs": 7}, "settings.epochs is new (7)"),
    ],
)
def test_a_file_of_another_search_is_refused_with_what_differs(
    text, options, settings, message, find
):
    before = Path(find(Stub())["files"]["jsonl"]).read_bytes()
    stub = Stub()
    with pytest.raises(ConfigError) as error:
        find(stub, text, options, **settings)
    assert message in str(error.value) and stub.ran == []
    assert Path("saved/search/TIGER-tiny-space.jsonl").read_bytes() == before


def test_progress_and_device_may_differ(find):
    find(Stub(), show_progress=False)
    stub = Stub()
    find(stub, show_progress=True, use_gpu=False)
    assert stub.ran == []


def test_failed_trials_are_kept_and_end_nothing(find):
    outcome = find(Stub(fail=(0, 4)))
    failed = [trial for trial in outcome["trials"] if trial["status"] == "failed"]
    assert [trial["number"] for trial in failed] == [0, 4] and len(outcome["trials"]) == 6
    assert {trial["message"] for trial in failed} == {"RuntimeError: out of memory"}
    assert "failed: RuntimeError: out of memory" in outcome["table"]
    nothing = find(Stub(fail=range(9)), options={"output_file": "b.jsonl"})
    assert nothing["best"] is None and nothing["command"] is None
    lines = Path("b.md").read_text().splitlines()
    assert len([line for line in lines if "out of memory" in line]) == 6


def test_the_best_is_chosen_by_validation_and_never_by_the_test(find):
    outcome = find(Stub(), config_files=[])
    trials = outcome["trials"]
    best = max(trials, key=lambda trial: trial["valid_score"])
    assert outcome["best"] == best
    assert best["test_result"]["ndcg@10"] == min(t["test_result"]["ndcg@10"] for t in trials)
    with open(outcome["files"]["csv"], newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["valid score"]) for row in rows]
    assert scores == sorted(scores, reverse=True) and int(rows[0]["trial"]) == best["number"]
    assert rows[0]["test ndcg@10"] == str(best["test_result"]["ndcg@10"])
    command = shlex.split(outcome["command"])
    assert command[:4] == ["python", "run_recbole_gr.py", "--model=TIGER", "--dataset=tiny"]
    assert {f"--{name}={value}" for name, value in best["params"].items()} < set(command)
    assert outcome["command"] in Path(outcome["files"]["md"]).read_text()


def test_a_smaller_score_is_better_where_the_metric_says_so(find):
    settings = {
        "metrics": ["RMSE", "MAE"],
        "valid_metric": "RMSE",
        "eval_args": {"mode": "labeled"},
    }
    outcome = find(Stub(), "embedding_size choice [8,16,32]\nlearning_rate choice [0.1,0.006]",
                   model="DeepFM", **settings)  # fmt: skip
    scores = [trial["valid_score"] for trial in outcome["trials"]]
    assert outcome["best"]["valid_score"] == min(scores) < max(scores)


@pytest.mark.parametrize(
    "text, options, settings, message",
    [
        ("hiden_size choice [1]", {}, {}, "line 1: Unknown key 'hiden_size', did you mean 'hidden"),
        (SPACE, {"algo": "grid"}, {}, "--algo=grid: none of exhaustive, random, bayes"),
        (SPACE, {"tool": "hyperopt"}, {}, "--tool=hyperopt: none of auto, ray, optuna"),
        (SPACE, {"max_evals": 0}, {}, "--max_evals=0"),
        (SPACE, {"search_seed": "x"}, {}, "--search_seed=x"),
        (SPACE, {}, {"dropout": 0.5}, "'dropout' is a parameter (line 7 of the file) and given"),
        (SPACE, {}, {"epochs": -1}, "epochs"),
        (SPACE, {}, {"model": "TIGER,SASRec"}, "a search is for one model"),
        (SPACE, {}, {"model": "DACT"}, "no single validation score"),
        (SPACE, {"two_stage": True}, {}, "no parameter belongs to the tokenizer"),
        ("sid_levels choice [2]", {"two_stage": True, "keep_tokenizers": 0}, {}, "keep_tokenizers"),
        ("sid_levels choice [2]", {"two_stage": True}, {"sid_file": "a.json"}, "sid_file"),
        ("sid_levels choice [2]", {"tokenizer_criterion": "size"}, {}, "criterion=size: none of"),
        ("tokenizer choice [RKMeanz]", {}, {}, "RKMeanz"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_a_trial(text, options, settings, message, find):
    stub = Stub()
    with pytest.raises(ConfigError) as error:
        find(stub, text, options, **settings)
    assert message in str(error.value) and stub.ran == []
    assert not Path("saved", "search").exists()


@pytest.mark.parametrize("algo", ["exhaustive", "random", "tpe"])
def test_a_search_without_optuna_is_refused_with_the_remedy(algo, find, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install \"recbole_gr\[search\]\""):
        find(Stub(), options={"algo": algo})


@pytest.mark.slow
def test_the_package_and_the_help_of_a_search_do_without_optuna():
    blocked = "import sys; sys.modules['optuna'] = None\n"
    rooms = "import recbole_gr, run_recbole_gr, recbole_gr.search.runner as runner, run_hyper\n"
    for code, end, words in (
        ("sys.exit(run_hyper.main(['--help']))", 0, "--params_file"),
        ("sys.exit(run_hyper.main(['--params_file=x', '--model=TIGER']))", 2, "recbole_gr[search]"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", blocked + rooms + code], capture_output=True, text=True
        )
        assert done.returncode == end and words in done.stdout + done.stderr


# Two stages


def report(number, collision, distinct="", collapsed=(), **other):
    figures = {"collision": collision, "gini": 1 - collision}
    return {
        "number": number, "params": {"sid_levels": number},
        "status": "finished", "figures": figures, "collapsed": list(collapsed),
        "sid_digest": distinct or str(number), **other,
    }  # fmt: skip


def test_tokenizers_are_chosen_by_their_report():
    records = [
        report(0, 0.3),
        report(1, 0.0, collapsed=["level 1 uses 3 of 64 codes"]),
        report(2, 0.2),
        report(3, 0.2, distinct="2"),  # the same SIDs as 2
        {**report(4, 0.0), "status": "failed", "message": "ValueError: no"},
        report(5, 0.1),
    ]
    assert [r["number"] for r in choose_tokenizers(records, 2, "collision")] == [5, 2]
    assert [r["number"] for r in choose_tokenizers(records, 9, "gini")] == [0, 2, 5]
    with pytest.raises(ConfigError) as error:
        choose_tokenizers([records[1], records[4]], 2, "collision")
    assert "uses 3 of 64 codes" in str(error.value) and "ValueError: no" in str(error.value)


TWO = "codebook_size choice [4,8,16]\nhidden_size choice [16,32]\nsid_levels choice [2,3]\n"


def test_two_stages_search_on_the_sids_of_the_best_tokenizers_alone(find):
    collisions = {(4, 2): 0.9, (4, 3): 0.2, (8, 2): 0.1, (8, 3): 0.5, (16, 2): 0.05, (16, 3): 0.6}
    fitted = []

    def fit(job):
        pair = job.params["codebook_size"], job.params["sid_levels"]
        assert set(job.params) == {"codebook_size", "sid_levels"}
        fitted.append(pair)
        collapsed = ["level 1 uses 1 code"] if pair == (16, 2) else []
        figures = {"collision": collisions[pair]}
        return {"figures": figures, "collapsed": collapsed, "sid_digest": str(pair)}

    options = {
        "algo": "exhaustive", "max_evals": None, "two_stage": True, "keep_tokenizers": 2,
        "tokenizer_objective": fit,
    }  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        find(Stub(stop=1), TWO, options)
    stub = Stub()
    outcome = find(stub, TWO, options)
    assert fitted == list(collisions)  # once each, not again on going on
    assert stub.ran == [1, 2, 3]
    assert [trial["params"] for trial in outcome["trials"]] == [
        {"codebook_size": size, "sid_levels": levels, "hidden_size": width}
        for size, levels in ((8, 2), (4, 3))
        for width in (16, 32)
    ]
    assert outcome["best"]["params"]["hidden_size"] == 32
    assert "--codebook_size=8 --sid_levels=2 --hidden_size=32" in outcome["command"]
    page = Path(outcome["files"]["md"]).read_text()
    assert "level 1 uses 1 code" in page and "90.00%" in page


def test_two_stages_with_real_tokenizers_and_runs(find, tiny_folder):
    small = {**SMALL, **SIDS}
    del small["codebook_size"], small["hidden_size"]
    options = {"algo": "exhaustive", "max_evals": None, "two_stage": True, "keep_tokenizers": 1}
    text = (
        "tokenizer choice [RKMeans,RQVAE]\ncodebook_size choice [2,8]\nhidden_size choice [8,16]\n"
    )
    settings = {**small, "tokenizer_epochs": 2}
    outcome = find(run_trial, text, options, **settings)
    by_collision = sorted(
        (r for r in outcome["tokenizers"] if not r["collapsed"]),
        key=lambda record: record["figures"]["collision"],
    )
    assert len(outcome["tokenizers"]) == 4 and len(outcome["trials"]) == 2
    for trial in outcome["trials"]:
        assert trial["status"] == "finished", trial
        assert trial["sid_digest"] == by_collision[0]["sid_digest"]
        assert by_collision[0]["params"].items() < trial["params"].items()
    kept = [trial for trial in outcome["trials"] if Path(trial["checkpoint"]).exists()]
    assert kept == [outcome["best"]]


# A real run


@pytest.mark.slow
def test_a_real_search_goes_on_where_it_was_stopped(
    tmp_path, tiny_folder, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "learning_rate choice [0.003,0.001]\nhidden_size choice [8,7]", "hyper.test")
    settings = {
        **SMALL,
        "epochs": 1,
        "tokenizer": "RKMeans",
        "codebook_size": 4,
        "valid_users": 50,
    }
    settings |= {"head_size": 8, "MAX_ITEM_LIST_LENGTH": 3, "beam_size": 10}
    del settings["hidden_size"]
    arguments = [f"--{key}={value}" for key, value in settings.items()]
    arguments += ["--params_file=hyper.test", "--model=TIGER", "--dataset=tiny", "--tool=optuna"]
    arguments.append(f"--data_path={tiny_folder}")
    ran = []

    def stopped(job):
        ran.append(job.number)
        if len(ran) == 3:
            raise KeyboardInterrupt
        return run_trial(job)

    from recbole_gr.search import command, runner

    def with_stop(*args, **options):
        return runner.search(*args, objective=stopped, **options)

    with monkeypatch.context() as patch:
        patch.setattr(command, "find", with_stop)
        assert main(arguments) == 130
    assert "goes on from the last trial" in capsys.readouterr().err
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert main([*arguments, "--output_file=whole.jsonl"]) == 0
    whole = capsys.readouterr().out
    parts = [read_records(name) for name in ("saved/search/TIGER-tiny-hyper.jsonl", "whole.jsonl")]
    for one, other in zip(*parts, strict=True):
        assert {**one, "checkpoint": 0} == {**other, "checkpoint": 0}
    assert len(parts[0]) == 4
    best = max(parts[0], key=lambda record: record.get("valid_score", -1))
    assert f"--learning_rate={best['params']['learning_rate']}" in out
    assert out.split("Best by")[1].split("\n")[1] == whole.split("Best by")[1].split("\n")[1]


def read_records(path, study="trials"):
    """As Optuna itself reads them."""
    storage = JournalStorage(JournalFileBackend(str(path)))
    trials = optuna.load_study(study_name=study, storage=storage).trials
    return plain(trial.user_attrs["record"] for trial in trials)


# Ray


def test_without_ray_trials_run_one_by_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert workers.choose_workers("auto") is workers.in_process
    with pytest.raises(ConfigError, match="--tool=ray: .*recbole_gr.ray."):
        workers.choose_workers("ray")


def test_ray_runs_what_is_left(monkeypatch, find):
    alone = find(Stub(), options={"output_file": "alone.jsonl"})
    with pytest.raises(KeyboardInterrupt):
        find(Stub(stop=2))
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    outcome = find(Stub(), options={"tool": "ray"})
    assert [job.number for job in ray.given] == [2, 3, 4, 5]
    assert plain(outcome["trials"]) == plain(alone["trials"])
    ray.dies = lambda job: job.number == 1
    lost = find(Stub(), options={"tool": "auto", "output_file": "ray.jsonl"})
    assert "lost 3 times by Ray" in lost["trials"][1]["message"]
    assert [t["params"] for t in lost["trials"]] == [t["params"] for t in alone["trials"]]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--model=TIGER"], "add --params_file=FILE"),
        (["--params_file=none.test", "--model=TIGER", "--dataset=ml-100k"], "none.test cannot be"),
        (["--params_file=a.test", "--two_stage=maybe"], "--two_stage: 'maybe' must be True or"),
    ],
)
def test_the_command_names_what_is_wrong(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert main(["--help"]) == 0 and "--params_file" in capsys.readouterr().out
