"""PIT's trainer: phases, bridge, resuming, figures; and its starting SIDs."""

import json
import math

import pytest
import torch
from runs import SMALL, rest_slow

from recbole_gr import registry
from recbole_gr.commands.tokenize import tokenize
from recbole_gr.config import Config
from recbole_gr.data import create_dataset, data_preparation
from recbole_gr.errors import ConfigError
from recbole_gr.pipeline.signals import item_pairs
from recbole_gr.quick_start import run_recbole_gr
from recbole_gr.report.epochs import plot_epochs
from recbole_gr.sid.table import SIDTable
from recbole_gr.tokenizer.i2i_rkmeans import I2IRKMeans

TINY = {
    **SMALL,
    "n_i2t_layers": 1,
    "n_context_layers": 1,
    "n_encoder_layers": 1,
    "n_candidates": 3,
    "csa_negatives": 2,
    "learning_rate": 0.01,
    "warmup_epochs": 2,
    "epochs": 3,
    "stopping_step": 10,
}


@pytest.fixture
def pit(tiny_folder, tmp_path, monkeypatch):
    """A function from options to `(trainer, train, valid, test)` of a very small PIT."""
    monkeypatch.chdir(tmp_path)

    def make(**options):
        from recbole.utils import init_seed

        folders = {"data_path": str(tiny_folder), "checkpoint_dir": str(tmp_path / "saved")}
        config = Config("PIT", "tiny", config_dict={**TINY, **folders, **options})
        init_seed(config["seed"], True)
        loaders = data_preparation(config, create_dataset(config))
        dataset = loaders[0]._dataset
        number = torch.arange(dataset.item_num - 1)
        table = SIDTable.from_item_codes(torch.stack([number // 7, number % 7], 1), (7, 7))
        generator = torch.Generator().manual_seed(1)
        content = torch.randn(dataset.item_num, 8, generator=generator)
        model = registry.get_model("PIT")(config, dataset, table, content)
        return registry.get_trainer(config, type(model))(config, model), *loaders

    return make


def test_the_phases_follow_each_other_and_start_anew(pit, caplog):
    caplog.set_level("INFO")
    trainer, train, valid, test = pit(evolve="pairs")
    seen, evaluate = [], trainer.evaluate

    def note(*args, **kwargs):
        best = trainer.best_valid_score
        seen.append((trainer.stage, trainer.model.phase, best, trainer.n_steps))
        return evaluate(*args, **kwargs)

    trainer.evaluate = note
    score, result = trainer.fit(train, valid)
    assert [entry[0] for entry in seen] == ["Warm-up"] * 2 + ["Co-evolve"] * 3
    assert [entry[1] for entry in seen] == [1, 1, 2, 2, 2]
    assert seen[0][2] == seen[2][2] == -float("inf") and seen[1][2] > 0
    assert [entry[3] for entry in seen] == [len(train) * n for n in (1, 2, 1, 2, 3)]
    assert [(e["epoch"], e["stage"]) for e in trainer.epoch_figures] == [
        (0, "Warm-up"), (1, "Warm-up"), (2, "Co-evolve"), (3, "Co-evolve"), (4, "Co-evolve")
    ]  # fmt: skip
    assert 2 <= trainer.best_epoch <= 4 and score == result["ndcg@10"]
    assert len(trainer.epoch_seconds) == 5
    for message in ("Warm-up: epoch 0 training", "Co-evolve: epoch 2 training", "Bridge"):
        assert message in caplog.text
    figures = trainer.epoch_figures[-1]["figures"]
    assert set(figures) == {
        "loss", "candidate loss", "selection", "codebook entropy (bits)", "SID churn",
        "SIDs per item", "items per SID", "share of items by SIDs", "behaviour in the SIDs",
        "validation",
    }  # fmt: skip
    assert trainer.evaluate(test, load_best_model=True)["recall@10"] > 0


def test_the_bridge_goes_back_to_the_best_warm_up_epoch(pit):
    trainer, train, valid, _ = pit(warmup_epochs=9, warmup_stopping_step=1, epochs=1)
    scores, weights = iter([0.1, 0.3, 0.2, 0.2, 0.05]), []
    names = [f"{metric}@{k}" for metric in ("recall", "ndcg", "mrr") for k in (5, 10)]

    def scripted(data, **options):
        weights.append({k: v.clone() for k, v in trainer.model.state_dict().items()})
        return dict.fromkeys(names, next(scores))

    begun = []
    start = trainer.model.start_co_evolution
    trainer.evaluate = scripted
    trainer.model.start_co_evolution = lambda: (
        begun.append({k: v.clone() for k, v in trainer.model.state_dict().items()}) or start()
    )
    score, _ = trainer.fit(train, valid)
    assert len(begun) == 1 and score == 0.05 and trainer.best_epoch == 4
    assert all(torch.equal(begun[0][name], weights[1][name]) for name in begun[0])
    assert not all(torch.equal(begun[0][name], weights[3][name]) for name in begun[0])


def test_the_optimiser_forgets_the_warm_up_at_the_bridge(pit):
    trainer, train, valid, _ = pit(warmup_epochs=2, epochs=1)
    trainer.fit(train, valid)
    steps = {int(state["step"]) for state in trainer.optimizer.state.values()}
    assert steps == {len(train)} and trainer.n_steps == len(train)


@pytest.mark.slow
def test_variants_of_the_co_evolution_start_from_one_warm_up(pit, tmp_path):
    first, train, valid, _ = pit(warmup_epochs=3, epochs=1)
    start, warm = first.model.start_co_evolution, {}
    first.model.start_co_evolution = lambda: (
        warm.update({k: v.clone() for k, v in first.model.state_dict().items()}) or start()
    )
    first.fit(train, valid)
    (kept,) = (tmp_path / "saved").glob("*-warmup.pth")
    for options in ({}, {"ablate": "coevo"}, {"n_candidates": 5, "freeze_i2t": False}):
        second, train, valid, test = pit(warmup_from=str(kept), epochs=2, **options)
        start, taken = second.model.start_co_evolution, {}
        second.model.start_co_evolution = lambda model=second.model, start=start, taken=taken: (
            taken.update({k: v.clone() for k, v in model.state_dict().items()}) or start()
        )
        score, _ = second.fit(train, valid)
        assert second.model.phase == 2 and len(second.epoch_seconds) == 2
        own = [name for name in taken if not name.startswith(("index.", "pool"))]
        assert own and all(torch.equal(taken[name], warm[name]) for name in own)
        assert score > 0 and second.evaluate(test, load_best_model=True)["recall@10"] > 0
        stages = [entry["stage"] for entry in second.epoch_figures]
        assert stages[-2:] == ["Co-evolve"] * 2 and set(stages[:-2]) == {"Warm-up"}


def test_runs_that_share_a_folder_share_their_warm_up(pit, tmp_path):
    """Whoever makes it: an arm that takes it goes on as if it had made it."""
    arms, results = ({}, {"ablate": "coevo"}, {"evolve": "pairs", "n_candidates": 4}), {}
    for folder, order in (("one", (0, 1, 2)), ("two", (2, 0))):
        for n, arm in enumerate(order):
            where = {"warmup_dir": str(tmp_path / folder), "dropout": 0.2}
            trainer, train, valid, test = pit(epochs=2, warmup_epochs=2, **where, **arms[arm])
            score, _ = trainer.fit(train, valid)
            assert len(trainer.epoch_seconds) == (2 if n else 4)
            tested = trainer.evaluate(test, load_best_model=True)
            expected = results.setdefault(arm, (score, tested))
            assert (score, tested) == expected
        assert len(list((tmp_path / folder).iterdir())) == 1
    assert len({str(result) for result in results.values()}) > 1
    others = pit(epochs=1, warmup_epochs=1, warmup_dir=str(tmp_path / "one"), ablate="csa")
    others[0].fit(*others[1:3])
    assert len(list((tmp_path / "one").iterdir())) == 2  # without alignment it is another warm-up


def test_what_is_no_warm_up_of_this_model_is_refused(pit, tmp_path):
    first, train, valid, _ = pit(warmup_epochs=1, epochs=1)
    first.fit(train, valid)
    (kept,) = (tmp_path / "saved").glob("*-warmup.pth")
    with pytest.raises(ConfigError, match="warmup_from.*saved in the co-evolution.*-warmup.pth"):
        pit(warmup_from=first.saved_model_file)[0].fit(train, valid)
    with pytest.raises(ConfigError, match="warmup_from.*do not fit"):
        pit(warmup_from=str(kept), ablate="csa")[0].fit(train, valid)
    with pytest.raises(ConfigError, match="warmup_from.*no checkpoint"):
        pit(warmup_from="nowhere.pth")


def test_progress_bars_name_the_phase(pit, capsys, monkeypatch):
    monkeypatch.setattr("recbole_gr.terminal.bars.is_terminal", lambda: True)
    trainer, train, valid, _ = pit(warmup_epochs=1, epochs=1)
    trainer.fit(train, valid, saved=False, show_progress=True)
    bars = capsys.readouterr().err
    assert "Warm-up     0" in bars and "Co-evolve     1" in bars


class Interrupted(Exception):
    pass


def state_of(trainer):
    """All that decides how training goes on."""
    optimizer = trainer.optimizer.state_dict()
    moments = [value for state in optimizer["state"].values() for value in state.values()]
    plain = (trainer.n_steps, trainer.best_epoch, trainer.cur_step, trainer.best_valid_score)
    figures = json.dumps(trainer.epoch_figures)
    return (*plain, figures), [*trainer.model.state_dict().values(), *moments]


@pytest.mark.parametrize("stop_after", rest_slow(1, 0, 4))
@pytest.mark.parametrize(
    "options",
    rest_slow({}, {"freeze_i2t": False, "n_candidates": 4}),
    ids=["frozen", "free"],
)
def test_a_run_interrupted_in_either_phase_goes_on_as_if_nothing_had_happened(
    pit, options, stop_after
):
    warmup = 3 if stop_after else 1  # 0: interrupted right before the bridge
    options = {"dropout": 0.2, "warmup_epochs": warmup, **options}
    whole, train, valid, test = pit(**options)
    whole.saved_model_file += "-whole"
    result = whole.fit(train, valid)
    expected = whole.evaluate(test, load_best_model=False)

    def interrupt(epoch, score):
        if epoch == stop_after:
            raise Interrupted

    first, train, valid, _ = pit(**options)
    with pytest.raises(Interrupted):
        first.fit(train, valid, callback_fn=interrupt)
    second, train, valid, test = pit(**options)
    torch.rand(5)
    second.resume_checkpoint(first.saved_model_file)
    assert second.model.phase == (1 if stop_after < 3 else 2)
    assert second.start_epoch == first.best_epoch + 1
    assert second.fit(train, valid) == result
    assert second.evaluate(test, load_best_model=False) == expected
    (plain, tensors), (other, resumed) = state_of(whole), state_of(second)
    assert plain == other
    assert len(tensors) == len(resumed) and all(map(torch.equal, tensors, resumed))


def test_a_finished_run_resumes_to_its_result(pit):
    first, train, valid, test = pit(warmup_epochs=1, epochs=1)
    outcome = first.fit(train, valid)
    expected = first.evaluate(test, load_best_model=True)
    second, train, valid, test = pit(warmup_epochs=1, epochs=1)
    second.resume_checkpoint(first.saved_model_file)
    assert second.fit(train, valid) == outcome and second.epoch_seconds == []
    assert second.evaluate(test, load_best_model=True) == expected
    assert second.model.trie.n_nodes == first.model.trie.n_nodes


def test_without_validation_every_epoch_counts(pit):
    trainer, train, _, test = pit(eval_step=0)
    trainer.fit(train, None)
    assert trainer.best_epoch == 4 and len(trainer.epoch_seconds) == 5
    assert trainer.evaluate(test, load_best_model=True)["recall@10"] > 0


def test_same_seed_gives_the_same_model(pit):
    runs = []
    for seed in (1, 1, 2):
        trainer, train, valid, _ = pit(seed=seed, warmup_epochs=1, epochs=1)
        runs.append((trainer.fit(train, valid, saved=False), state_of(trainer)[1]))
    assert runs[0][0] == runs[1][0] and all(map(torch.equal, runs[0][1], runs[1][1]))
    assert not all(map(torch.equal, runs[0][1], runs[2][1]))


def test_learning_rates_of_the_co_evolution(pit):
    options = {"freeze_i2t": False, "i2t_learning_rate": 1e-4, "coevo_rate": 0.5}
    trainer, train, valid, _ = pit(warmup_steps=0, warmup_epochs=1, epochs=1, **options)
    rates = []
    trainer.optimizer.register_step_post_hook(
        lambda optimizer, *_: rates.append([group["lr"] for group in optimizer.param_groups])
    )
    trainer.fit(train, valid, saved=False)
    half = len(rates) // 2
    assert rates[:half] == [[0.01, 0.01]] * half
    assert all(rate == pytest.approx([0.005, 1e-4]) for rate in rates[half:])


def test_a_schedule_runs_its_course_in_each_phase(pit):
    options = {"lr_scheduler": "cosine", "warmup_steps": 0, "coevo_rate": 1.0}
    trainer, train, _, _ = pit(warmup_epochs=2, epochs=1, eval_step=0, **options)
    rates = []
    trainer.optimizer.register_step_post_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    trainer.fit(train, None, saved=False)
    n = len(train)
    assert len(rates) == 3 * n and rates[0] == rates[2 * n] == 0.01
    assert rates[n] == pytest.approx(0.005) and rates[2 * n - 1] < 0.001 > rates[3 * n - 1]


def test_ranked_lists_equal_recboles_evaluator_on_dense_scores(pit):
    from recbole.trainer import Trainer

    trainer, train, valid, test = pit(warmup_epochs=1, epochs=1, beam_size=20)
    trainer.fit(train, valid, saved=False)
    ranked = trainer.evaluate(test, load_best_model=False)
    dense = Trainer.evaluate(trainer, test, load_best_model=False)
    assert dict(ranked) == pytest.approx(dict(dense), abs=2e-3)  # RecBole breaks ties as it likes
    assert trainer.generation_figures["invalid_beams"] == 0.0


def test_encoder_decoder_trains_on_prefix_samples(pit):
    trainer, train, valid, _ = pit(architecture="encoder_decoder", warmup_epochs=1, epochs=1)
    assert trainer.config["train_sample"] == "prefix"
    score, _ = trainer.fit(train, valid, saved=False)
    assert score >= 0 and len(trainer.epoch_figures) == 2


def test_mixed_precision_trains_through_both_phases(pit):
    trainer, train, valid, _ = pit(enable_amp=True, warmup_epochs=1, epochs=1)
    score, _ = trainer.fit(train, valid, saved=False)
    assert score >= 0 and trainer.train_loss_dict[1] > 0


# The whole command


def test_the_command_runs_from_content_to_plots(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {
        **TINY,
        "data_path": str(tiny_folder),
        "codebook_size": 6,
        "content_dim": 8,
        "i2i_epochs": 2,
        "i2i_dim": 8,
        "warmup_epochs": 1,
        "epochs": 1,
        "item_content": "text",
        "text_fields": ["title", "genre"],
    }
    result = run_recbole_gr(model="PIT", dataset="tiny", config_dict=settings)
    assert result["sid"]["n_levels"] == 3 and result["sid"]["meta"]["tokenizer"] == "I2IRKMeans"
    assert result["config"]["collision"] == "share"
    folder = tmp_path / result["files"]["md"].rpartition("/")[0]
    noted = json.loads((folder / "epochs-PIT.json").read_text())
    assert [entry["stage"] for entry in noted] == ["Warm-up", "Co-evolve"]
    assert (folder / "epochs-PIT.png").stat().st_size > 10_000
    again = run_recbole_gr(
        model="PIT", dataset="tiny", config_dict={**settings, "resume": result["checkpoint"]}
    )
    assert again["test_result"] == result["test_result"] and again["epochs_run"] == 0


def test_epochs_without_a_figure_leave_a_gap():
    figures = [
        {"epoch": 0, "stage": "one", "figures": {"loss": {"a": 1.0}}},
        {"epoch": 1, "stage": "two", "figures": {"loss": {"a": 0.5, "b": 2.0}, "more": {"c": 1}}},
    ]
    loss, more = (panel for panel in plot_epochs(figures, "M").axes if panel.axison)
    curves = {line.get_label(): list(line.get_ydata()) for line in loss.lines}
    assert curves["a"] == [1, 0.5] and math.isnan(curves["b"][0]) and curves["b"][1] == 2
    assert more.get_title() == "more" and math.isnan(more.lines[0].get_ydata()[0])


# Starting SIDs


def test_pairs_are_training_targets_with_the_items_right_before_them(pit):
    _, train, valid, test = pit()
    dataset = train._dataset
    pairs = item_pairs(dataset, 2)
    slow = []
    for distance in (1, 2):
        for row in range(len(dataset)):
            length = int(dataset.inter_feat["item_length"][row])
            if length >= distance:
                history = dataset.inter_feat["item_id_list"][row, :length].tolist()
                slow.append([int(dataset.inter_feat["item_id"][row]) - 1, history[-distance] - 1])
    assert pairs.tolist() == slow
    # No pair holds a user's validation or test target next to what precedes it there.
    n_targets = len(dataset)
    assert len(pairs) == 2 * n_targets - len(set(dataset.inter_feat["user_id"].tolist()))


def pair_data(n_items=60, dim=10):
    """Items in five groups that content does not show; neighbours are of one group."""
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(n_items) % 5
    hidden = torch.randn(5, 3, generator=generator)[group]
    content = torch.randn(n_items, dim, generator=generator)
    content[:, :3] += 0.7 * hidden
    pairs = torch.randint(0, n_items, (4000, 2), generator=generator)
    return content, pairs[group[pairs[:, 0]] == group[pairs[:, 1]]], group


OPTIONS = {
    "codebook_size": 5, "sid_levels": 2, "i2i_epochs": 15, "i2i_batch_size": 128, "i2i_hidden": 32,
    "i2i_dim": 8, "collision": "share", "seed": 3, "i2i_learning_rate": 0.01,
}  # fmt: skip


def test_the_projection_brings_neighbours_together():
    content, pairs, group = pair_data()
    tokenizer = I2IRKMeans(OPTIONS, content.shape[1])
    report = tokenizer.fit(content, signals={"item_pairs": pairs}, progress=False)
    assert report.figures["contrastive_last"] < report.figures["contrastive_first"]
    same = tokenizer.encode(content)[:, 0].unsqueeze(0) == tokenizer.encode(content)[:, :1]
    together = group.unsqueeze(0) == group.unsqueeze(1)
    agreement = (same == together).float().mean()
    plain = registry.get_tokenizer("RKMeans")({**OPTIONS, "normalize_residuals": False}, 10)
    plain.fit(content, progress=False)
    codes = plain.encode(content)[:, 0]
    assert agreement > ((codes[None] == codes[:, None]) == together).float().mean() + 0.05


def test_starting_sids_are_deterministic_and_free_of_the_batch(tmp_path):
    content, pairs, _ = pair_data()
    codes = []
    for _ in range(2):
        tokenizer = I2IRKMeans(OPTIONS, content.shape[1])
        tokenizer.fit(content, signals={"item_pairs": pairs}, progress=False)
        codes.append(tokenizer.encode(content))
    assert torch.equal(*codes)
    one_by_one = torch.cat([tokenizer.encode(row[None]) for row in content])
    assert torch.equal(one_by_one, codes[0])
    tokenizer.save(tmp_path / "t.pth")
    assert torch.equal(I2IRKMeans.load(tmp_path / "t.pth").encode(content), codes[0])
    table = tokenizer.tokenize(torch.cat([torch.zeros(1, 10), content]))
    assert torch.equal(table.codes[1:], codes[0])


@pytest.mark.parametrize("temperature", [0.5, 0.07, 0.01])
def test_the_contrastive_loss_is_infonce_without_false_negatives(temperature):
    content, _, _ = pair_data(6)
    tokenizer = I2IRKMeans(OPTIONS, content.shape[1])
    left, right = torch.tensor([0, 1, 0, 3]), torch.tensor([2, 4, 4, 0])
    found = tokenizer._contrast(content, left, right, temperature)
    v = torch.nn.functional.normalize(tokenizer.projection(content), dim=1)
    total = torch.zeros(())
    for a, b in ((left.tolist(), right.tolist()), (right.tolist(), left.tolist())):
        for row in range(4):
            own = {a[row], b[row]}
            others = [col for col in range(4) if col == row or b[col] not in own]
            logits = torch.stack([v[a[row]] @ v[b[col]] / temperature for col in others])
            total = total - logits.log_softmax(0)[others.index(row)] / 8
    assert found.item() == pytest.approx(total.item(), rel=1e-5)
    weights = list(tokenizer.projection.parameters())
    expected = torch.autograd.grad(total, weights)
    for slope, other in zip(torch.autograd.grad(found, weights), expected, strict=True):
        assert torch.allclose(slope, other, atol=1e-5 * float(other.abs().max()))


def test_other_models_and_the_tokenize_command_can_use_them(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"tokenizer": "I2IRKMeans", "data_path": str(tiny_folder), "codebook_size": 6}
    settings |= {"content_dim": 8, "i2i_epochs": 1, "i2i_dim": 8, "show_progress": False}
    table, _, files = tokenize("tiny", "out", config_dict=settings)
    assert table.n_levels == 4  # the policy suffix adds a level
    assert {*files} == {file.relative_to(tmp_path) for file in (tmp_path / "out").iterdir()}
    assert len(list((tmp_path / "saved/sid").glob("*.npz"))) == 1
    tokenize("tiny", "out", config_dict={**settings, "i2i_window": 1})
    assert len(list((tmp_path / "saved/sid").glob("*.npz"))) == 2  # other pairs, other SIDs
    with pytest.raises(ConfigError, match="i2i_window: 0 must be an integer"):
        tokenize("tiny", "out", config_dict={**settings, "i2i_window": 0})


def test_without_pairs_there_is_nothing_to_learn_from():
    content, _, _ = pair_data()
    for signals in (None, {}, {"item_pairs": torch.zeros(0, 2).long()}):
        with pytest.raises(ConfigError, match="pairs of neighbouring items"):
            I2IRKMeans(OPTIONS, 10).fit(content, signals=signals, progress=False)
