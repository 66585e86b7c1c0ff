"""The benchmark scripts run, and compare like with like. Nothing here asserts a speed."""

import json
import math
import re
from pathlib import Path

import baseline_epoch
import catalogue
import dact_published
import decode_vs_huggingface
import evaluate_oracle
import evaluation_memory
import evaluation_time
import intrr_cost
import kept_memory
import numpy as np
import paired
import pit_cost
import pit_moves
import pytest
import tempered
import tokenizer_cost
import tokenizer_study
import torch
import train_speed
import trie_loss
import trie_scale
import yaml
from runs import SMALL
from torch import Tensor

from recbole_gr import run_recbole_gr
from recbole_gr.config.parsing import properties_dir
from recbole_gr.serving.restore import load_data_and_model
from recbole_gr.sid.exchange import read_json

TINY_SEARCH = (
    "--items 300 --levels 3 --codes 16 --first-codes 12 --users 6 --length 5 --layers 2 "
    "--hidden-size 16 --heads 2 --head-size 8 --inner-size 32 --weight-std 0.3 --repeats 1 "
    "--own-rounds 1"
).split()


@pytest.fixture
def settings(tmp_path, tiny_folder, monkeypatch):
    """Arguments for the scripts that read data: the generated data set and a very small TIGER."""
    monkeypatch.chdir(tmp_path)
    small = {name: SMALL[name] for name in ("hidden_size", "n_layers", "n_heads", "inner_size")}
    small.update(beam_size=15, codebook_size=8, content_dim=8, MAX_ITEM_LIST_LENGTH=10)
    file = tmp_path / "small.yaml"
    pit = {**small, "n_i2t_layers": 1, "n_context_layers": 1}
    intrr = {**small, "head_size": 8, "uid_size": 8, "ran_hidden_size": 16}
    sections = {"per_model": {"TIGER": small, "PIT": pit, "IntRR": intrr}}
    file.write_text(yaml.safe_dump(sections), encoding="utf-8")
    return ["--dataset", "tiny", "--data_path", str(tiny_folder), "--config_files", str(file)]


def ratio_lines(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("ratio: ")]


def test_hugging_face_t5_with_our_weights_generates_our_lists(capsys):
    pytest.importorskip("transformers")
    figures = decode_vs_huggingface.main([*TINY_SEARCH, "--beams", "4", "12"])
    for figure in figures.values():
        assert figure["equal lists"] == 1.0
        assert figure["largest score difference"] < 1e-4
        assert figure["score of place 1 over place 10"] > 0.1  # lists of ties would prove nothing
        assert figure["speed-up"] > 0
    assert len(ratio_lines(capsys)) == 1


def test_the_search_without_a_trie_is_beam_search_where_every_sid_is_an_item(capsys):
    table = catalogue.skewed_table(64, (4, 4, 4), 4)
    model = catalogue.untrained_tiger(
        table, architecture="encoder_decoder", initializer_range=0.3, hidden_size=16
    )
    batch = catalogue.random_histories(5, 6, 64)
    with torch.no_grad():
        codes, scores = decode_vs_huggingface.unconstrained_search(model.start(batch), model, 10)
        beams = model.search(batch, 10)
    assert torch.equal(codes, beams.codes) and torch.allclose(scores, beams.scores, atol=1e-5)
    decode_vs_huggingface.main([*TINY_SEARCH, "--beams", "10", "--skip-huggingface"])
    assert len(ratio_lines(capsys)) == 1


def test_trie_scale_reports_build_memory_and_search_for_every_size(capsys):
    arguments = "--items 2000 500 --codes 64 --users 3 --beam 5 --repeats 2 --features 8"
    figures = trie_scale.main(arguments.split())
    assert list(figures) == [500, 2000]
    for figure in figures.values():
        assert 8 < figure["bytes_per_item"] < 64
        assert min(figure[name] for name in ("TIGER", "head", "bare")) > 0
    assert len(ratio_lines(capsys)) == 1


def test_train_speed_times_all_sides_on_the_same_targets(settings, capsys):
    arguments = [*settings, "--repeats", "1", "--warm_up", "0", "--batch_size", "16"]
    arguments += ["--prefix_batch_size", "16", "--sasrec_batch_size", "64"]
    epochs = train_speed.main([*arguments, "--batches", "2"])
    assert len(epochs) == 3 and all(values[0] > 0 for values in epochs.values())
    assert len(ratio_lines(capsys)) == 1
    options = train_speed.parser().parse_args([*arguments, "--full"])
    sequence = train_speed.Side("TIGER", "sequence", 16, options)
    prefix = train_speed.Side("TIGER", "prefix", 16, options)
    sasrec = train_speed.Side("SASRec", None, 64, options)
    n_targets = [sum(int(b["n_targets"].sum()) for b in side) for side in (sequence, prefix)]
    assert {*n_targets, sum(len(b) for b in sasrec)} == {sequence.targets} == {sasrec.targets}
    assert len(sequence) < len(prefix) and sequence.scale == 1


def test_evaluation_time_stands_beside_the_epochs_of_all_models(settings, capsys):
    small = "--beam 15 --users 20 --batches 2 --repeats 1 --warm_up 0 --batch_size 8".split()
    figures = evaluation_time.main([*settings, *small])
    assert set(figures) == {"TIGER", "PIT", "IntRR"}
    assert all(len(times) == 1 and times[0] > 0 for f in figures.values() for times in f.values())
    assert len(ratio_lines(capsys)) == 1


@pytest.mark.slow
def test_kept_memory_is_compared_in_processes_that_take_turns(settings, capfd):
    small = "--beam 15 --users 20 --batches 2 --repeats 1 --batch_size 8 --threads 1".split()
    figures = kept_memory.main([*settings, *small])
    assert set(figures) == {"kept", "given back"}
    assert all(len(times) == 1 and times[0] > 0 for f in figures.values() for times in f.values())
    assert len(ratio_lines(capfd)) == 1


def test_the_cost_of_the_loss_over_the_trie_is_that_of_one_model_on_the_same_batches(
    settings, capsys
):
    small = "--batches 2 --repeats 1 --warm_up 0 --batch_size 8".split()
    figures = trie_loss.main([*settings, *small])
    assert set(figures) == {"TIGER", "PIT", "IntRR"}
    assert all(set(found) == {"codebook", "trie"} for found in figures.values())
    assert len(ratio_lines(capsys)) == 1


def test_baseline_epoch_times_both_on_the_same_targets_in_batches_of_as_many(settings, capsys):
    arguments = [*settings, "--repeats", "1", "--warm_up", "0", "--sasrec_batch_size", "64"]
    epochs = baseline_epoch.main([*arguments, "--batches", "2", "--negatives", "5"])
    assert len(epochs) == 3 and all(values[0] > 0 for values in epochs.values())
    assert len(ratio_lines(capsys)) == 1
    options = baseline_epoch.parser().parse_args([*arguments, "--full"])
    prefix, whole = (
        baseline_epoch.side(options, {"train_sample": kind}) for kind in ("prefix", "sequence")
    )
    assert sum(map(len, prefix)) == sum(int(b["n_targets"].sum()) for b in whole) == whole.targets
    assert abs(len(prefix) - len(whole)) <= 1


def test_pit_cost_times_both_phases_and_a_synthetic_index(settings, capsys):
    arguments = [*settings, "--repeats", "1", "--warm_up", "0", "--batch_size", "16"]
    arguments += "--items 300 --codes 16 --index_repeats 1".split()
    figures = pit_cost.main([*arguments, "--batches", "2"])
    assert len(figures["epochs"]) == 4 and all(s[0] > 0 for s in figures["epochs"].values())
    # 8 places of 3 codes of 2 bytes and 3 floats for 300 items and the padding.
    assert figures["index_bytes"] == pytest.approx(8 * (3 * 2 + 3 * 4) * 301 / 300)
    assert figures["trie_bytes"] > 0 and figures["refresh"] > 0 and figures["trie"] > 0
    assert len(ratio_lines(capsys)) == 1


def test_pit_moves_judges_rules_by_users_who_had_no_say(settings, tmp_path, capsys):
    study = tmp_path / "study.yaml"
    pit = {"train_batch_size": 32, "epochs": 3, "warmup_epochs": 1, "evolve_every": 1, "seed": 1}
    pit |= {"evolve_share": 1.0, "show_progress": False}
    study.write_text(yaml.safe_dump({"settings": pit}), encoding="utf-8")
    given = [f"{a}={b}" for a, b in zip(settings[::2], settings[1::2])]
    found = pit_moves.main([str(study), *given])
    assert set(found) == {"all, 1", "all, 2", "halves, 1", "halves, 2"}
    for (n_moves, targets, mean, error, of_all), *_ in found.values():
        assert n_moves >= 0 and targets >= 0 and all(map(math.isfinite, (mean, error, of_all)))
    assert found["all, 1"][0][0] > 0
    assert len(ratio_lines(capsys)) == 1


def test_moves_are_paid_for_by_targets_that_the_rule_did_not_see():
    """Against loops: the rule by four parts of the users, the gains by the fifth."""
    made = torch.Generator().manual_seed(0)
    n = 12
    round_ = pit_moves.Round.__new__(pit_moves.Round)
    round_.near = torch.randint(1, n, (n, 2), generator=made)
    round_.by_mass = torch.randn(n, 2, 1, generator=made)
    round_.by_mass[0] = -math.inf
    round_.items = torch.randint(1, n, (60,), generator=made)
    round_.users = torch.arange(60) * 7919
    round_.gains = torch.randn(60, 2, 1, generator=made)
    round_.n_folds, round_.most = 4, n
    part = ((round_.users * 0x85EBCA6B) & 0xFFFFFFFF) // 512 % 5
    assert len(part.unique()) == 5
    total, targets, n_moves = 0.0, 0, 0
    for one in range(5):
        moves = round_.moves("all", 1.0, part != one)
        for item, neighbour, depth in zip(*map(Tensor.tolist, moves)):
            place = round_.near[item].tolist().index(neighbour)
            n_moves += 1
            for row in ((round_.items == item) & (part == one)).nonzero().flatten():
                total += float(round_.gains[row, place, depth - 1])
                total += float(round_.by_mass[item, place, depth - 1])
                targets += 1
    moves, others, mean, _, of_all = round_.paid("all", 1.0)
    assert (moves, others) == (n_moves / 5, targets) and targets > 5
    assert mean == pytest.approx(total / targets) and of_all == pytest.approx(total / 60)


@pytest.mark.parametrize("model", ["TIGER", "PIT"])
def test_a_temperature_is_fitted_on_validation_targets(model, settings, capsys):
    given = [f"{a}={b}" for a, b in zip(settings[::2], settings[1::2])]
    options = {"epochs": 2, "checkpoint_dir": "saved", "show_progress": False, "eval_step": 2}
    run_recbole_gr(model, config_dict=options, cmd_args=[*given, "--learning_rate=0.05"])
    (file,) = (str(f) for f in Path("saved").glob(f"{model}-*[0-9].pth"))
    found = tempered.main([file, "--users", "1000"])
    assert len(ratio_lines(capsys)) == 1
    temperature, plain, better = found[file]
    assert tempered.LOWEST < temperature < tempered.HIGHEST
    _, net, _, _, valid, test = load_data_and_model(file)
    net.eval()
    assert plain == pytest.approx(float(tempered.likelihood(net, test).mean()))
    fitted = float(tempered.likelihood(net, valid, temperature).mean())
    for other in (0.7, 1.0, 1.4, 2.0):
        assert fitted >= float(tempered.likelihood(net, valid, other).mean()) - 1e-3
    heads = net.user_to_token.heads if model == "PIT" else None
    if heads is not None:  # the same as weights that are divided
        with torch.no_grad():
            for parameter in heads.parameters():
                parameter /= temperature
        assert better == pytest.approx(float(tempered.likelihood(net, test).mean()), abs=1e-4)


def test_intrr_cost_reads_the_presets():
    folder = properties_dir() / "preset"
    files = [str(folder / name) for name in ("intrr_paper.yaml", "intrr_rkmeans.yaml")]
    arguments = ["--preset", *files, "--backbone", "hstu", "--heads", "8", "32"]
    sizes = intrr_cost.sizes(intrr_cost.parser().parse_args(arguments))
    assert (sizes["hidden_size"], sizes["codebook_size"], sizes["n_heads"]) == (256, 128, 8)
    assert "model" not in sizes and sizes["backbone"] == "hstu"


@pytest.mark.parametrize("backbone", ["transformer", "hstu"])
def test_intrr_cost_compares_the_same_backbone_on_the_same_targets(settings, capsys, backbone):
    arguments = [*settings, "--repeats", "1", "--warm_up", "0", "--batch_size", "16"]
    arguments += f"--batches 2 --beams 10 12 --users 3 --history 5 --backbone {backbone}".split()
    figures = intrr_cost.main([*arguments, "--search_repeats", "1"])
    assert len(figures["epochs"]) == 3 and all(s[0] > 0 for s in figures["epochs"].values())
    assert 0 < figures["kept"]["IntRR"] < figures["kept"]["TIGER, flattened"]
    assert {len(times) for times in figures["searches"].values()} == {3}
    assert len(ratio_lines(capsys)) == 1


def test_the_oracle_finds_no_regret_where_the_beam_holds_the_whole_catalogue(settings, capsys):
    arguments = "--epochs 1 --users 20 --batch_size 7 --beams 10 100".split()
    figures = evaluate_oracle.main([*settings, *arguments])
    exact, wide = figures[None], figures[100]
    assert wide["beam_regret@10"] == 0 and figures[10]["beam_regret@10"] >= 0
    assert all(wide[name] == exact[name] for name in exact if name.startswith(("recall", "ndcg")))
    assert len(ratio_lines(capsys)) == 1


def test_the_oracle_takes_a_trained_model_with_its_settings(settings, capsys, tmp_path):
    from recbole_gr.quick_start import run_recbole_gr

    folder, file = settings[3], settings[5]
    run = {"data_path": folder, "epochs": 1, "show_progress": False, "n_layers": 3}
    result = run_recbole_gr("TIGER", "tiny", [file], run)
    figures = evaluate_oracle.main(["--checkpoint", result["checkpoint"], "--users", "0"])
    assert figures[20]["recall@10"] == pytest.approx(
        result["best_valid_result"]["recall@10"], abs=0.05
    )


SHORT = "tokenizer_steps=4 tokenizer_epochs=2 rqvae_dim=4 opq_iterations=2 codebook_size=4".split()


@pytest.mark.parametrize("study", ["quality", "ablations", "init"])
def test_the_tokenizer_study_gives_mean_and_spread_over_seeds(settings, study, capsys, tmp_path):
    output = tmp_path / "figures.json"
    figures = tokenizer_study.main(
        [*settings, "--study", study, "--seeds", "2", "--output", str(output), "--set", *SHORT]
    )
    assert figures == json.loads(output.read_text())
    assert list(figures) == list(tokenizer_study.STUDIES[study])
    lines = capsys.readouterr().out.splitlines()
    for name, seeds in figures.items():
        assert len(seeds) == 2 and all(0 < seed["distinct"] <= 1 for seed in seeds)
        mean = sum(seed["distinct"] for seed in seeds) / 2
        row = next(line for line in lines if line.startswith(f"| {name} |"))
        assert row.split("|")[2].split()[0] == f"{mean:.4f}"
    assert len([line for line in lines if line.startswith("ratio: ")]) == (study != "ablations")
    if study == "init":
        known, other = figures["R3VAE, k-means"], figures["R3VAE, uniform"]
        assert known[0]["distinct"] != other[0]["distinct"] or known[0]["PD"] != other[0]["PD"]
    # What is kept is not fitted again, nor lost where other rows are asked for.
    more = ["--study", study, "--seeds", "2", "--output", str(output), "--set", *SHORT]
    name = next(iter(figures))
    assert tokenizer_study.main([*settings, *more, "--only", name]) == {name: figures[name]}
    assert json.loads(output.read_text()) == figures


def test_a_common_component_can_be_added_to_the_content(settings, capsys):
    given = [*settings, "--only", "RKMeans", "--seeds", "1", "--set", *SHORT]
    plain, common = (tokenizer_study.main([*given, f"--common={a}"])["RKMeans"] for a in (0, 1.8))
    assert common[0]["SC content"] > plain[0]["SC content"] + 0.2
    cosines = list(map(float, re.findall(r"mean_cosine ([.0-9]+)", capsys.readouterr().out)))
    assert len(cosines) == 2 and cosines[1] > cosines[0] + 0.2


def test_tokenizer_cost_times_an_epoch_of_both(capsys):
    arguments = "--items 3000 --dim 16 --codes 8 --batches 2".split()
    figures = tokenizer_cost.main(arguments)
    assert [figures[name]["batches"] for name in ("R3VAE", "RQVAE")] == [2, 6]
    assert all(f["epoch"] > 0 and f["start"] > 0 for f in figures.values())


def test_functions_take_turns():
    calls = []
    seconds = paired.in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3 and all(len(values) == 2 for values in seconds.values())
    assert paired.ratio([2.0, 9.0, 4.0], [1.0, 3.0, 1.0]) == 3.0


def test_published_tables_become_files_of_both_periods(tmp_path):
    """Frozen: old items keep their SIDs, new ones have those of the second table."""
    first = np.array([[0, 1, 2, 0], [3, 1, 2, 0]])
    second = np.array([[0, 1, 2, 0], [9, 1, 2, 0], [4, 4, 4, 1]])
    folder = tmp_path / "data"
    folder.mkdir()
    for name, codes in (("sid_0.6", first), ("sid_0.7.dact", second)):
        np.save(folder / f"{dact_published.DATASET}.{name}.npy", codes)
    files = dact_published.write_tables(folder, tmp_path)
    items = ["[PAD]", "1", "2", "3"]

    def codes_of(path, n):
        return read_json(path, items[: n + 1]).codes[1:].tolist()

    codes = {way: list(map(codes_of, paths, (2, 3))) for way, paths in files.items()}
    assert codes["finetune"] == [first.tolist(), second.tolist()]
    assert codes["frozen"] == [first.tolist(), [*first.tolist(), second[2].tolist()]]


def test_memory_of_an_evaluation(capsys):
    small = "--items 200 --users 50 --codes 16 --batch_size 16 --beam 10".split()
    figures = evaluation_memory.main(small)
    assert set(figures) == {"TIGER", "IntRR"}
    for figure in figures.values():
        assert figure["n_users"] == 50 and figure["before"] > 0 and figure["more"] >= 0
        assert figure["seconds_per_user"] > 0
    assert "a matrix of scores" in capsys.readouterr().out
