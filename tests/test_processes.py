"""Several processes: what they compute together is what one computes."""

import os
import pickle
import socket
import threading

import process_bodies
import process_roles
import pytest
import torch
from kill_and_resume import equal
from recbole.trainer import KGTrainer
from runs import NEGATIVES, RUNS, SMALL, arguments
from tiny import write_tiny_dataset

from recbole_gr import load_data_and_model, registry
from recbole_gr.config import Config
from recbole_gr.data.frequency import training_counts
from recbole_gr.distributed import failures, launch, processes
from recbole_gr.distributed.launch import run_processes
from recbole_gr.distributed.layout import layout_of
from recbole_gr.distributed.sharding import ShardedBatches, _check_trainer
from recbole_gr.errors import ConfigError, ProcessKilled
from recbole_gr.storage.checkpoint import load_checkpoint
from recbole_gr.terminal.command_line import Terminated
from recbole_gr.trainer.base import safe_trainer
from recbole_gr.trainer.buckets import ItemBuckets
from recbole_gr.trainer.confidence import noting_intervals
from run_recbole_gr import main

# 61 users: neither two processes nor batches of seven divide them.
ODD = {"eval_batch_size": 7, "eval_buckets": "[0,3,8]"}
SAMPLED = "{'split':{'LS':'valid_and_test'},'mode':'uni20'}"
LABELLED = "{'split':{'RS':[0.8,0.1,0.1]},'order':'RO','mode':'labeled'}"
SHARED = {
    **{name: RUNS[name] for name in ("TIGER", "PIT", "IntRR", "RPG", "R3VAE", "SASRec", "Pop")},
    "PIT-trie": ("PIT", {**RUNS["PIT"][1], "loss_normalisation": "trie"}),
    "TIGER-one-batch": (
        "TIGER",
        {**RUNS["TIGER"][1], "topk": [1, 3], "valid_metric": "NDCG@3", "eval_batch_size": 100},
    ),
    "SASRec-one-batch": ("SASRec", {**RUNS["SASRec"][1], "eval_batch_size": 100}),
    "SASRec-sampled": ("SASRec", {**RUNS["SASRec"][1], "eval_args": SAMPLED}),
    "LR-labelled": (
        "LR",
        {"epochs": 1, "eval_args": LABELLED, "metrics": "[AUC,LogLoss]", "valid_metric": "AUC",
         "threshold": "{'rating': 3}"},
    ),
}  # fmt: skip
PERIODS = (
    "DACT",
    {**RUNS["TIGER"][1], "continual_cuts": "[0.6,0.8,1.0]", "continual_dir": "continual",
     "cf_epochs": 1, "cf_size": 4, "tokenizer_epochs": 2, "rqvae_dim": 4, "rqvae_hidden": "[8]",
     "sid_gate": "off", "continual_recommender": "finetune,frozen"},
)  # fmt: skip
STILL = {**SMALL, "dropout": 0, "learner": "sgd", "learning_rate": 0.3, "codebook_size": 8,
         "sid_levels": 2, "content_dim": 8, "epochs": 2, "train_batch_size": 13}  # fmt: skip
FITS = {
    "TIGER": ("TIGER", {**STILL, "clip_grad_norm": "{'max_norm': 0.5}", "accumulation_steps": 2}),
    "RPG": ("RPG", {**STILL, "codebook_size": 4}),
    "IntRR": ("IntRR", {**STILL, "uid_size": 12, "ran_hidden_size": 24, "lambda_aln": 0.5}),
    "PIT": (
        "PIT",
        {**STILL, "n_i2t_layers": 1, "n_context_layers": 1, "n_candidates": 3, "ablate": "[csa]",
         "warmup_epochs": 1, "evolve": "pairs"},
    ),
    "PIT-items": (
        "PIT",
        {**STILL, "n_i2t_layers": 1, "n_context_layers": 1, "ablate": "[csa]", "warmup_epochs": 1,
         "epochs": 2, "evolve_every": 1, "evolve_held_out": 0.5, "evolve_margin": 0.0},
    ),
    "SASRec": (
        "SASRec",
        {"epochs": 2, "MAX_ITEM_LIST_LENGTH": 10, "hidden_dropout_prob": 0, "attn_dropout_prob": 0,
         "learner": "sgd", "learning_rate": 0.3, "train_batch_size": 100, "loss_type": "BPR",
         "clip_grad_norm": "{'max_norm': 0.5}",
         "train_neg_sample_args": {**NEGATIVES, "candidate_num": 0}},
    ),
    "SASRec-whole": (
        "SASRec",
        {"epochs": 2, "MAX_ITEM_LIST_LENGTH": 10, "hidden_dropout_prob": 0, "attn_dropout_prob": 0,
         "learner": "sgd", "learning_rate": 0.3, "train_batch_size": 100,
         "train_sample": "sequence", "softmax_negatives": 7, "crop_shuffle": 0.5},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tiny_dataset(tmp_path_factory.mktemp("data"), "odd", 61, 40, 1)


def commands(table, data, folder, **settings):
    folders = {
        key: folder / key
        for key in ("checkpoint_dir", "result_dir", "sid_dir", "content_cache_dir")
    }
    return {
        name: arguments(model, data, "odd", **{**ODD, **own, **folders, **settings})
        for name, (model, own) in table.items()
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def trained_by_two(data, place):
    """Results of all of SHARED, trained and tested by two processes."""
    requests = commands({**SHARED, "DACT": PERIODS}, data, place)
    return run_processes(process_bodies.runs, (str(place), requests), {"nproc": 2})


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED)
def test_one_process_finds_the_metrics_that_two_have_found(name, trained_by_two):
    result = trained_by_two[name]
    config, model, _, train, valid, test = load_data_and_model(
        result["checkpoint"], show_progress=False
    )
    trainer = registry.get_trainer(config, config.model_class)(config, model)
    trainer.eval_collector.data_collect(train)
    measured = {}
    for loader, key in ((valid, "best_valid_result"), (test, "test_result")):
        buckets = ItemBuckets([0, 3, 8], training_counts(train._dataset), config)
        trainer.buckets = buckets
        with noting_intervals(trainer.evaluator, loader._dataset) as intervals:
            measured[key] = dict(trainer.evaluate(loader, load_best_model=False))
    if "sampled" not in name:  # its negatives are drawn again
        assert measured["best_valid_result"] == result["best_valid_result"]
        assert measured["test_result"] == result["test_result"]
        assert intervals.plain() == result["test_interval"]
        assert buckets.results(trainer.evaluator) == result["test_buckets"]
        assert getattr(trainer, "generation_figures", None) == result["generation"]
    assert result["test_buckets"]["0-2"]["targets"] >= 0 and result["test_targets"]["count"] > 0


@pytest.mark.slow
def test_all_periods_of_a_continual_run_are_those_of_one_process(
    trained_by_two, place, monkeypatch
):
    monkeypatch.chdir(place)
    results = trained_by_two["DACT"]["results"]
    assert [result["period"] for result in results] == [0, 0, 1, 1, 2, 2]
    for result in results[::2]:
        config, model, _, _, _, test = load_data_and_model(
            result["checkpoint"], show_progress=False
        )
        trainer = registry.get_trainer(config, config.model_class)(config, model)
        assert dict(trainer.evaluate(test, load_best_model=False)) == result["test_result"]


@pytest.mark.slow
def test_only_rank_zero_writes(trained_by_two, place):
    for _, (model, _) in SHARED.items():
        n_runs = sum(other == model for other, _ in SHARED.values())
        assert len(list(place.glob(f"result_dir/odd-{model}-*/manifest.json"))) == n_runs
    names = sorted(path.name for path in place.glob("checkpoint_dir/*"))
    warm_ups = sum(model == "PIT" for model, _ in SHARED.values())
    assert len(names) == len(SHARED) + warm_ups
    log = "".join(path.read_text() for path in place.glob("log/SASRec/*.log"))
    assert log.count("Saved ") == 3 == log.count("epoch 0 training")  # three runs of one epoch
    events = {path.name.split(".")[-2] for path in place.glob("log_tensorboard/*-odd-*/events*")}
    assert len(events) == 1  # numbers of processes
    assert not list(place.rglob("*.tmp")) and not list(place.rglob(".*"))


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory):
    """FITS by one process and by two."""
    both = []
    for nproc in (1, 2):
        folder = tmp_path_factory.mktemp(f"fit{nproc}")
        requests = commands(FITS, data, folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            request = (str(folder), requests)
            both.append(run_processes(process_bodies.fits, request, {"nproc": nproc}))
    return both


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_two_processes_learn_what_one_learns_from_whole_batches(name, fitted):
    one, two = (outcome[name] for outcome in fitted)
    assert two["losses"] == pytest.approx(one["losses"], rel=2e-5)
    moved = 0.0
    for weight, expected in ((two["weights"][key], value) for key, value in one["weights"].items()):
        if expected.is_floating_point():
            torch.testing.assert_close(weight, expected, rtol=2e-3, atol=2e-4)
            moved = max([moved, *expected.abs().flatten().tolist()])
        else:
            assert torch.equal(weight, expected)  # PIT's index
    assert moved > 0.01
    for ours, theirs in zip(one["figures"] or (), two["figures"] or (), strict=True):
        for topic, values in ours["figures"].items():
            assert theirs["figures"][topic] == pytest.approx(values, rel=1e-3, abs=1e-3), topic


def test_parts_add_up_to_the_gradients_of_the_batch(parts, monkeypatch):
    """Gradient accumulation over the parts, weighted by targets, is the gradient of the batch."""
    _, trainer, train, _, _ = parts(dropout=0.0, train_batch_size=11, train_sample="sequence")
    model = trainer.model.train()
    parameters = list(model.parameters())
    for batch in train:
        whole = torch.autograd.grad(model.calculate_loss(batch), parameters)
        total, mean_of_means = 0, 0
        for rank in range(3):
            monkeypatch.setattr(processes, "_rank_info", processes.RankInfo(rank, 3, rank))
            shards = ShardedBatches([batch])
            loss = model.calculate_loss(next(iter(shards)))
            total = total + loss * shards.share
            mean_of_means = mean_of_means + loss / 3
        for expected, own in zip(whole, torch.autograd.grad(total, parameters)):
            torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-6)
    assert abs(float(mean_of_means - total)) > 1e-4  # which is why shares are by targets


def test_a_process_without_rows_goes_along_without_counting(parts, monkeypatch):
    _, _, train, _, _ = parts()
    batch = next(iter(train))[torch.arange(2)]
    shares = []
    for rank in range(3):
        monkeypatch.setattr(processes, "_rank_info", processes.RankInfo(rank, 3, rank))
        shards = ShardedBatches([batch])
        rows = next(iter(shards))
        shares.append(shards.share)
        assert len(rows) == 1
    assert sum(shares) == pytest.approx(1) and shares[2] == 0


@pytest.mark.slow
def test_a_resumed_run_ends_as_one_without_interruption(data, tmp_path):
    requests = commands(
        {"TIGER": RUNS["TIGER"]}, data, tmp_path, dropout=0.3, lr_scheduler="constant"
    )["TIGER"]
    requests = [argument for argument in requests if not argument.startswith("--epochs=")]
    request = (str(tmp_path), *([*requests, f"--epochs={n}"] for n in (3, 1, 3)))
    whole, going_on = run_processes(process_bodies.resumed, request, {"nproc": 2})
    assert going_on["epochs_run"] == 2
    for key in ("best_valid_result", "test_result", "best_epoch"):
        assert going_on[key] == whole[key]
    ours, theirs = (load_checkpoint(run["checkpoint"]) for run in (whole, going_on))
    for name, weight in ours["state_dict"].items():
        assert torch.equal(weight, theirs["state_dict"][name]), name
    assert len(ours["random_states_of_others"]) == 1


@pytest.mark.slow
def test_processes_stop_after_the_same_step_whichever_was_told(data, tmp_path):
    ((_, command),) = commands({"TIGER": SHARED["TIGER"]}, data, tmp_path, epochs=2).items()
    outcome = run_processes(process_bodies.stopped, (str(tmp_path), command), {"nproc": 2})
    whole, going_on, n_steps, file = outcome
    assert n_steps == 2 and file.endswith("-stopped.pth")
    assert going_on["test_result"] == whole["test_result"]
    assert going_on["best_valid_result"] == whole["best_valid_result"]
    ours, theirs = (load_checkpoint(run["checkpoint"]) for run in (whole, going_on))
    assert equal(theirs, ours)
    (one,), (other,) = (state["random_states_of_others"] for state in (ours, theirs))
    assert torch.equal(one["torch"], other["torch"])  # process 1 has drawn the same dropout


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all():
    with pytest.raises(Terminated):
        run_processes(process_roles.is_told_to_stop, (), {"nproc": 2})


@pytest.mark.slow
def test_a_process_that_is_killed_is_named_with_its_signal():
    with pytest.raises(ProcessKilled, match=r"^process 1 of this machine was killed by SIGKILL, p"):
        run_processes(process_roles.is_killed, (), {"nproc": 2})


def test_an_error_that_a_process_is_still_writing_is_not_read(tmp_path, monkeypatch):
    def halfway(state, file, _save=torch.save):
        file.write_bytes(b"PK")
        assert failures.kept_errors(str(tmp_path)) == []
        _save(state, file)

    monkeypatch.setattr(torch, "save", halfway)
    failures.keep_error(tmp_path / "error-1", 1, ConfigError("nproc: too many"))
    (kept,) = failures.kept_errors(str(tmp_path))
    assert (kept["kind"], kept["text"]) == ("ConfigError", "nproc: too many")


def test_what_is_left_after_a_kill_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(failures, "_folder", str(tmp_path))
    file = tmp_path / "a.pth"
    failures.note_resume(str(file))
    killed = failures.killed_error(1, 11, str(tmp_path))
    assert str(killed).endswith("by SIGSEGV. Nothing was saved yet.")
    before = tmp_path / "before.pth"
    before.touch()
    failures.note_resume(str(file), str(before))
    resumed = failures.killed_error(1, 11, str(tmp_path))
    assert f"--resume={before} goes on from where this run began" in str(resumed)
    file.touch()
    killed = failures.killed_error(0, 9, str(tmp_path))
    assert f"for want of memory. --resume={file} goes on from the best epoch" in str(killed)
    failures.note_resume(None)
    assert "The same command goes on" in str(failures.killed_error(0, 9, str(tmp_path)))

    def run(**_):
        raise killed

    monkeypatch.setattr("recbole_gr.quick_start.run_recbole_gr", run)
    assert main(["--model=Pop"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: process 0") and "Traceback" not in message


@pytest.mark.slow
def test_what_processes_tell_each_other():
    first, second = run_processes(process_bodies.exchange, (), {"nproc": 2})
    for mine in (first, second):
        rows, thirds = mine["rows"]
        assert rows.tolist() == [0, 10, 11, 12, 13] and torch.equal(thirds[:, 0], rows / 3)
        used, unused, elsewhere = mine["gradients"]
        assert used.tolist() == [3.0, 3.0] and elsewhere.tolist() == [5.0, 5.0] and unused is None
        assert [value.tolist() for value in mine["weights"]] == [[0.0, 0.0], 0]
        items, codes, log_prob, counts = mine["seen"]
        assert items.tolist() == [2, 4, 7] and log_prob.tolist() == [[2, 2], [4, 4], [7, 7]]
        assert codes[:, 1, 2].tolist() == [2, 4, 7]
        assert counts.tolist() == [[2, 1], [1 + 1, 0 + 2], [0, 1]]
        assert mine["told"] == [0, 1] and mine["sum"].tolist() == [3.0]
        assert mine["inside"] == [1, ["a"], 1]
    assert first["draw"] != second["draw"]


def test_a_value_that_only_a_pickle_can_hold_is_not_loaded(monkeypatch):
    packed, ran = processes._packed({"x": process_roles.Pickled()}), []
    monkeypatch.setattr(process_roles, "who", lambda: ran.append(1))
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        processes._unpacked(packed)
    assert not ran


@pytest.mark.slow
def test_the_error_of_one_process_ends_all():
    with pytest.raises(RuntimeError, match="process 1 of the run failed(.|\n)*out of luck"):
        run_processes(process_roles.fails_in_one, (), {"nproc": 2})
    with pytest.raises(ConfigError, match="^topk: too many$"):
        run_processes(process_roles.refuses_on_rank_zero, (), {"nproc": 2})


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_machines_meet_at_the_first(tmp_path):
    port, outcomes = free_port(), {}

    def machine(offset):
        settings = {"nproc": 1, "world_size": 2, "port": port, "group_offset": offset}
        outcomes[offset] = run_processes(process_roles.who, (), settings)

    machines = [threading.Thread(target=machine, args=(offset,)) for offset in (0, 1)]
    for thread in machines:
        thread.start()
    for thread in machines:
        thread.join()
    assert outcomes == {0: [0, 2, [0, 1]], 1: None}


def test_torchrun_says_which_process_this_is(monkeypatch):
    port = free_port()
    told = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1,
            "MASTER_ADDR": "localhost", "MASTER_PORT": port}  # fmt: skip
    for name, value in told.items():
        monkeypatch.setenv(name, str(value))
    assert run_processes(process_roles.who, (), {}) == [0, 1, [0]]
    assert not processes.is_launched()
    with pytest.raises(ConfigError, match="nproc: 2 .* torchrun has started 1"):
        run_processes(process_roles.who, (), {"nproc": 2})


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"nproc": 0}, "nproc: 0 must be an integer of at least 1"),
        ({"nproc": "two"}, "nproc: 'two'"),
        ({"nproc": 3, "world_size": 2}, "world_size: 2 processes .* nproc 3"),
        ({"nproc": 2, "world_size": 3, "group_offset": 2}, "group_offset 2"),
        ({"group_offset": -1}, "group_offset: -1"),
        ({"port": 70000}, "port: 70000"),
        ({"port": "http"}, "port: 'http'"),
    ],
)
def test_a_layout_that_contradicts_itself_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        layout_of(settings)


def test_processes_of_one_machine_need_no_port():
    assert launch._port(layout_of({"nproc": 2})) is None
    assert launch._port(layout_of({"world_size": 2})) == 5678  # RecBole's
    free = free_port()
    assert launch._port(layout_of({"nproc": 2, "port": free})) == free
    assert run_processes(process_roles.who, (), {"nproc": 2, "port": free}) == [0, 2, [0, 1]]


def test_a_port_in_use_is_named():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port: {port} is in use"):
            run_processes(process_roles.who, (), {"nproc": 2, "port": port})


def test_settings_are_refused_before_processes_are_started(data, monkeypatch, capsys):
    monkeypatch.setattr(launch.mp, "start_processes", None)
    for wrong, message in ({"nproc": 17}, "nproc: 17 processes"), ({"topk": "[0]"}, "topk"):
        own = {"nproc": 2, **wrong}
        assert main(arguments("TIGER", data, "odd", **{**SMALL, **own})) == 2
        assert f"error: {message}" in capsys.readouterr().err


def test_more_processes_than_rows_of_a_batch_are_refused(data):
    with pytest.raises(ConfigError, match="nproc: 5 processes cannot share a batch of 4 rows"):
        Config("SASRec", "odd", config_dict={
            "data_path": str(data), "nproc": 5, "train_batch_size": 4,
        })  # fmt: skip


def test_folders_that_another_process_makes_at_the_same_time_are_no_error(
    data, tmp_path, monkeypatch
):
    make = os.makedirs

    def made_just_before(path, mode=0o777, exist_ok=False):
        make(path, mode, exist_ok=True)
        make(path, mode, exist_ok)

    monkeypatch.setattr(os, "makedirs", made_just_before)
    monkeypatch.chdir(tmp_path)
    settings = {**SHARED["SASRec"][1], "checkpoint_dir": tmp_path / "saved" / "here"}
    assert main(arguments("SASRec", data, "odd", **settings)) == 0
    assert list((tmp_path / "log" / "SASRec").iterdir())
    assert list((tmp_path / "saved" / "here").iterdir())


def test_trainers_with_steps_of_their_own_are_refused():
    config = {"model": "CKE", "enable_scaler": False}
    with pytest.raises(ConfigError, match="nproc: CKE is trained by RecBole's KGTrainer"):
        _check_trainer(safe_trainer(KGTrainer), config)
    from recbole.trainer import Trainer

    _check_trainer(safe_trainer(Trainer), config)
    with pytest.raises(ConfigError, match="enable_scaler: CKE"):
        _check_trainer(safe_trainer(Trainer), {**config, "enable_scaler": True})
