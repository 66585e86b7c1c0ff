"""Continual runs: what is shared, kept and found again, and that a period is what it claims."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import RUNS, SMALL
from tiny import write_tiny_dataset

from recbole_gr import registry
from recbole_gr.commands.verify import verify
from recbole_gr.config import Config
from recbole_gr.continual import ranks, tokens
from recbole_gr.continual.methods import Method, methods
from recbole_gr.continual.period_table import continual_table, plot_continual
from recbole_gr.data.content import item_content
from recbole_gr.data.prepare import create_dataset, data_preparation
from recbole_gr.errors import ConfigError
from recbole_gr.model.intrr.model import IntRR
from recbole_gr.model.tiger import TIGER
from recbole_gr.pages.walk import Walk
from recbole_gr.pipeline.item_sids import ItemSIDs
from recbole_gr.quality.measures import quality_report
from recbole_gr.quick_start import run_recbole_gr
from recbole_gr.run.model import WarmStart, run_model
from recbole_gr.serving.recommender import Recommender
from recbole_gr.sid.table import SIDTable
from recbole_gr.storage.checkpoint import load_checkpoint
from recbole_gr.tokenizer.collaborative.dact import DACT
from recbole_gr.trainer.generation import GenerationTrainer
from recbole_gr.trainer.growth import load_grown

CUTS = [0.5, 0.75, 1.0]
TOKENIZER = {
    "tokenizer_epochs": 12,
    "continual_epochs": 6,
    "tokenizer_batch_size": 16,
    "tokenizer_warmup_epochs": 2,
    "tokenizer_evaluate_every": 6,
    "rqvae_dim": 4,
    "rqvae_hidden": [16],
    "codebook_size": 6,
    "content_dim": 8,
    "continual_suffix_size": 40,
    "sid_gate": "off",
    "cf_epochs": 1,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """80 users, 30 items, of which the last eight arrive late."""
    folder = write_tiny_dataset(tmp_path_factory.mktemp("continual"), n_users=80, n_items=30)
    path = folder / "tiny" / "tiny.inter"
    header, *rows = path.read_text().splitlines()
    with open(path, "w", encoding="utf-8") as file:
        file.write(header + "\n")
        for row in rows:
            user, item, rating, time = row.split("\t")
            number = int(item[1:])
            late = 2_500 if number >= 26 else 800 if number >= 22 else 0
            file.write(f"{user}\t{item}\t{rating}\t{int(time) + late}\n")
    return folder


@pytest.fixture
def settings(data, tmp_path):
    return {
        **SMALL,
        **TOKENIZER,
        "epochs": 2,
        "data_path": str(data),
        "continual_cuts": CUTS,
        "continual_dir": str(tmp_path / "continual"),
        "checkpoint_dir": str(tmp_path / "saved"),
        "result_dir": str(tmp_path / "results"),
        "content_cache_dir": str(tmp_path / "content"),
    }


def run(settings, model="DACT", **more):
    return run_recbole_gr(model, "tiny", config_dict={**settings, **more})


def metrics(outcome):
    return {
        (r["period"], r["model"], r["method"]): (r["test_result"], r["churn"])
        for r in outcome["results"]
    }


def files_of(outcome):
    return {
        path: path.stat().st_mtime_ns
        for path in Path(outcome["folder"]).rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_every_method_of_the_matrix_in_every_period(settings):
    outcome = run(
        settings,
        "DACT,SASRec",
        continual_tokenizer="frozen,finetune,dact",
        continual_recommender=["frozen", "finetune", "retrain"],
    )
    results = metrics(outcome)
    assert len(results) == 3 * (9 + 3)
    first = {
        str(value)
        for (period, model, _), value in results.items()
        if (period, model) == (0, "TIGER")
    }
    assert len(first) == 1  # all methods go on from one and the same first period
    for (period, model, method), (test, churn) in results.items():
        assert 0 <= test["ndcg@10"] <= 1
        if period == 0 or model == "SASRec":
            assert churn is None
        elif method.startswith("frozen/"):
            assert churn["final_any"] == 0
        else:
            assert len(churn["raw"]) == 3 and len(churn["final"]) == 4
        if method.startswith("dact/"):
            assert period == 0 or churn["final"][0] == churn["raw"][0]
    names = {path.name for path in files_of(outcome)}
    assert {"config.json", "cf.pth", "start.npz", "dact.npz", "dact.tokenizer.pth"} <= names
    assert {"drift.csv", "drift.json", "drift.png"} <= names
    drift = json.loads(Path(outcome["folder"], "period-1/drift-dact/drift.json").read_text())
    assert drift["change_rate"] == results[1, "TIGER", "dact/frozen"][1]["final_any"]
    assert "TIGER-dact-retrain.pth" in names and "SASRec-finetune.pth" in names
    rows = list(csv.reader(open(outcome["files"]["csv"], encoding="utf-8")))
    assert rows[0][:3] == ["period", "model", "method"]
    assert [row[0] for row in rows[1:]].count("mean") == 12
    assert "dact/finetune" in outcome["table"] and Path(outcome["files"]["png"]).stat().st_size
    assert len(json.load(open(outcome["files"]["json"], encoding="utf-8"))) == len(
        outcome["results"]
    )
    page = Path(outcome["files"]["sids page"])
    for how in ("frozen", "finetune", "dact"):
        walk = Walk.load(page.with_name(f"walk-{how}.npz"))
        assert list(walk.versions) == ["period 0", "period 1", "period 2"]
        for period, codes in enumerate(walk.versions.values()):
            name = how if period else "start"
            file = Path(outcome["folder"], f"period-{period}", f"{name}.npz")
            there = [token for token, sid in zip(walk.tokens, codes) if sid[0] >= 0]
            kept = SIDTable.load(file, ["[PAD]", *there]).codes[1:]
            assert (codes[: len(there)] == kept.numpy()).all()
        assert (walk.codes == walk.versions["period 2"]).all()


@pytest.mark.slow
def test_the_same_command_finds_everything_again_and_more_methods_share_it(settings):
    first = run(settings)
    before = files_of(first)
    again = run(settings)
    assert files_of(again) == before and metrics(again) == metrics(first)
    more = run(settings, continual_recommender="frozen,finetune")
    assert more["folder"] == first["folder"]
    assert {path: time for path, time in files_of(more).items() if path in before} == before
    other = run(settings, hidden_size=8)
    assert other["folder"] != first["folder"]


@pytest.mark.slow
def test_a_continual_run_from_its_manifest_is_equal(settings):
    outcome = run(settings, "DACT,SASRec", continual_last=1)
    path = Path(outcome["files"]["manifest"])
    assert verify(path) == []
    record = json.loads(path.read_text())
    record["continual"]["results"][-1]["test_result"]["ndcg@10"] += 0.25
    path.write_text(json.dumps(record))
    (difference,) = verify(path)
    assert difference.startswith("period 1, SASRec finetune: test_result ndcg@10 is")
    assert verify(path, tolerance=0.3) == []


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_figures(settings, tmp_path, monkeypatch):
    whole = run(settings)
    real, calls = ranks.run_model, []

    def failing(config, **options):
        calls.append(config["continual_period"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(config, **options)

    settings["continual_dir"] = str(tmp_path / "other")
    monkeypatch.setattr(ranks, "run_model", failing)
    with pytest.raises(KeyboardInterrupt):
        run(settings)
    resumed = run(settings)
    assert metrics(resumed) == metrics(whole)
    assert calls == [0, 1, 1, 2]  # period 0 was not done again
    for path in files_of(whole):
        if path.suffix == ".npz" and ".ranks" not in path.name:
            twin = Path(resumed["folder"], path.relative_to(whole["folder"]))
            assert SIDTable.load(twin).digest() == SIDTable.load(path).digest()


@pytest.mark.slow
def test_a_recommender_goes_on_from_its_checkpoint_in_the_middle_of_a_period(
    settings, tmp_path, monkeypatch
):
    whole = run(settings, epochs=4)
    train, epochs = GenerationTrainer._train_epoch, []

    def stopped(trainer, data, epoch, *args, **kwargs):
        epochs.append(epoch)
        if len(epochs) == 4 + 3:  # in the third epoch of period 1
            raise KeyboardInterrupt
        return train(trainer, data, epoch, *args, **kwargs)

    settings["continual_dir"] = str(tmp_path / "other")
    monkeypatch.setattr(GenerationTrainer, "_train_epoch", stopped)
    with pytest.raises(KeyboardInterrupt, match="The same command goes on"):
        run(settings, epochs=4)
    resumed = run(settings, epochs=4)
    assert metrics(resumed) == metrics(whole)
    assert epochs[7] in (1, 2)  # not from the beginning
    weights = [
        load_checkpoint(Path(outcome["folder"], "period-2", "TIGER-dact-finetune.pth"))
        for outcome in (whole, resumed)
    ]
    for name, value in weights[0]["state_dict"].items():
        assert torch.equal(value, weights[1]["state_dict"][name])


@pytest.mark.slow
def test_retraining_is_an_ordinary_run_on_all_targets_with_the_same_sids(settings, tmp_path):
    outcome = run(settings, continual_recommender="retrain", continual_last=1)
    table = Path(outcome["folder"], "period-1", "dact.npz")
    config = Config(
        "TIGER",
        "tiny",
        config_dict={
            **settings,
            "continual_period": 1,
            "continual_train": "all",
            "tokenizer": "DACT",
        },
        other_models=["DACT"],
    )
    dataset = create_dataset(config)
    train = data_preparation(config, dataset)[0]._dataset
    content = item_content(config, train)
    table = SIDTable.load(table, content.item_tokens)
    sids = ItemSIDs(content, table, quality_report(table))
    expected = run_model(config, start=WarmStart(sids, checkpoint=str(tmp_path / "plain.pth")))
    assert metrics(outcome)[1, "TIGER", "dact/retrain"][0] == expected["test_result"]


@pytest.mark.slow
def test_finetuning_starts_from_the_period_before_and_frozen_from_the_first(settings):
    outcome = run(settings, continual_recommender="frozen,finetune", learning_rate=0.0)
    folder = Path(outcome["folder"])
    first = load_checkpoint(folder / "period-0" / "TIGER-start.pth")["state_dict"]
    last = load_checkpoint(folder / "period-2" / "TIGER-dact-finetune.pth")["state_dict"]
    assert len(last["codes"]) > len(first["codes"])  # there are new items
    for name, value in first.items():
        assert name == "codes" or torch.equal(value, last[name])  # nothing moves at rate zero
    # So both are the same model on the same SIDs.
    results = metrics(outcome)
    for period in (1, 2):
        frozen, tuned = (
            results[period, "TIGER", f"dact/{way}"][0] for way in ("frozen", "finetune")
        )
        assert frozen == tuned


@pytest.mark.slow
def test_items_that_arrive_are_recommended_by_a_frozen_recommender(settings):
    """Nothing is trained after period 0, yet items unknown to it have SIDs and can be returned."""
    outcome = run(settings, continual_tokenizer="frozen", continual_recommender="frozen")
    folder = Path(outcome["folder"])
    before = SIDTable.load(folder / "period-0" / "start.npz")
    after = SIDTable.load(folder / "period-1" / "frozen.npz")
    assert after.n_items > before.n_items
    assert torch.equal(after.codes[: before.n_items], before.codes)
    assert len(torch.unique(after.codes[1:], dim=0)) == after.n_items - 1
    config = Config(
        "TIGER", "tiny", config_dict={**settings, "continual_period": 1, "tokenizer": "DACT"},
        other_models=["DACT"],
    )  # fmt: skip
    dataset = create_dataset(config)
    train, _, test = data_preparation(config, dataset)
    model = TIGER(config, train._dataset, after)
    load_grown(model, folder / "period-0" / "TIGER-start.pth", config)
    batch = next(iter(test))[0]
    ranked = model.eval().generate(batch, after.n_items - 1, beam_size=after.n_items).items
    new = torch.arange(before.n_items, after.n_items)
    assert all(bool((row.unsqueeze(1) == new).any(0).all()) for row in ranked)


@pytest.mark.slow
def test_pit_follows_with_what_evolved_from_the_sids_that_stay(settings):
    """Frozen, fine-tuned and retrained; of a frozen one every row of the index is accounted for."""
    own = {**RUNS["PIT"][1], **settings, "warmup_epochs": 1, "epochs": 1}
    outcome = run(own, continual_model="PIT", continual_recommender="frozen,finetune,retrain")
    ways = {"dact/frozen", "dact/finetune", "dact/retrain"}
    assert {r["method"] for r in outcome["results"]} == ways and len(outcome["results"]) == 9
    folder = Path(outcome["folder"])
    saved = load_checkpoint(folder / "period-0" / "PIT-start.pth")["state_dict"]
    table = SIDTable.load(folder / "period-1" / "dact.npz")
    table.codes[[1, 2]] = table.codes[[2, 1]]  # two items at least have another SID
    config = Config(
        "PIT", "tiny", config_dict={**own, "continual_period": 1, "tokenizer": "DACT"},
        other_models=["DACT"],
    )  # fmt: skip
    train, _, test = data_preparation(config, create_dataset(config))
    torch.manual_seed(7)
    content = torch.randn(table.n_items, saved["items.content"].shape[1])
    model = registry.get_model("PIT")(config, train._dataset, table, content)
    made = {name: value.clone() for name, value in model.state_dict().items()}
    load_grown(model, folder / "period-0" / "PIT-start.pth", config)
    n_old = len(saved["codes"])
    stays = (saved["codes"] == made["codes"][:n_old]).all(1)
    assert 1 < int(stays.sum()) < n_old < model.n_items
    now = model.state_dict()
    for name in ("index.codes", "index.weight", "index.log_prob", "pool", "pool_log_prob"):
        assert torch.equal(now[name][:n_old][stays], saved[name][stays])
        assert torch.equal(now[name][:n_old][~stays], made[name][:n_old][~stays])
        assert torch.equal(now[name][n_old:], made[name][n_old:])
    assert torch.equal(now["codes"], made["codes"])
    # The trie is that of the index: every item can be returned, by the SIDs it owns.
    codes, items, _ = model.index.edges()
    assert set(items.tolist()) == set(range(1, model.n_items))
    assert model.trie.n_nodes[-1] == len(codes.unique(dim=0))
    ranked = model.eval().generate(next(iter(test))[0], 10, beam_size=200).items
    assert bool((ranked > 0).all())


@pytest.mark.slow
def test_content_means_the_same_in_every_period(settings, monkeypatch):
    """Vectors of text have axes that depend on the catalogue; old items may not move by that."""
    seen, made = [], tokens.TokenizerChain.advance

    def advance(chain, items, vectors):
        seen.append(items.content)
        return made(chain, items, vectors)

    monkeypatch.setattr(tokens.TokenizerChain, "advance", advance)
    run(settings, continual_tokenizer="frozen", continual_recommender="frozen")
    assert len(seen) == 3 and len(seen[0].vectors) < len(seen[2].vectors)
    for before, after in zip(seen, seen[1:]):
        n_items = len(before.vectors)
        assert after.item_tokens[:n_items] == before.item_tokens
        assert torch.equal(after.vectors[:n_items], before.vectors)


@pytest.mark.parametrize("tokenizer", ["frozen", "dact"])
@pytest.mark.slow
def test_an_item_that_comes_between_periods_is_coded_at_once_and_recommended(settings, tokenizer):
    outcome = run(settings, continual_tokenizer=tokenizer, continual_last=1)
    folder = Path(outcome["folder"], "period-1")
    recommender = Recommender.load(str(folder / f"TIGER-{tokenizer}-finetune.pth"))
    table = SIDTable.load(folder / f"{tokenizer}.npz")
    fitted = DACT.load(folder / f"{tokenizer}.tokenizer.pth")
    vector = torch.randn(fitted.dim, generator=torch.Generator().manual_seed(1))
    recommender.add_items({"fresh": vector})
    sid = recommender.model.sid_table().codes[-1]
    assert sid[:-1].tolist() == fitted.encode(vector[None])[0].tolist()
    assert sid.tolist() not in table.codes[1:].tolist()
    n_items = table.n_items
    answer = recommender.recommend(
        histories=[["i1", "i2", "i3"]], k=n_items, beam_size=n_items, show_progress=False
    )[0]
    assert "fresh" in answer.items and len(set(answer.items)) == n_items


@pytest.mark.slow
def test_growth_keeps_known_rows_and_leaves_new_ones(settings, tmp_path):
    """IntRR has a row of weights for each item."""
    outcome = run(
        settings, continual_model="IntRR", continual_last=1, ran_hidden_size=8, uid_size=8
    )
    assert {result["model"] for result in outcome["results"]} == {"IntRR"}
    file = Path(outcome["folder"], "period-0", "IntRR-start.pth")
    saved = load_checkpoint(file)["state_dict"]
    config = Config(
        "IntRR",
        "tiny",
        config_dict={
            **settings,
            "continual_period": 1,
            "tokenizer": "DACT",
            "ran_hidden_size": 8,
            "uid_size": 8,
        },
        other_models=["DACT"],
    )
    train = data_preparation(config, create_dataset(config))[0]._dataset
    table = SIDTable.load(Path(outcome["folder"], "period-1", "dact.npz"))
    torch.manual_seed(5)
    model = IntRR(config, train, table)
    made = model.uid_embedding.weight.detach().clone()
    load_grown(model, file, config)
    known = len(saved["uid_embedding.weight"])
    assert known < model.n_items
    assert torch.equal(model.uid_embedding.weight[:known], saved["uid_embedding.weight"])
    assert torch.equal(model.uid_embedding.weight[known:], made[known:])
    assert torch.equal(model.codes[1:], table.codes[1:])
    with pytest.raises(ConfigError, match="do not fit.*same settings"):
        load_grown(
            IntRR(
                Config(
                    "IntRR", "tiny", config_dict={**config.external_config_dict, "hidden_size": 8}
                ),
                train,
                table,
            ),
            file,
            config,
        )


@pytest.mark.slow
def test_tables_from_files(settings, data, tmp_path):
    names = [f"i{i}" for i in range(30)]
    rng = np.random.default_rng(0)
    paths = []
    for period in range(2):
        codes = rng.integers(0, 6, size=(30, 3))
        rows = {
            t: [f"<{'abc'[level]}_{c}>" for level, c in enumerate(row)]
            for t, row in zip(names, codes)
        }
        paths.append(tmp_path / f"sid{period}.json")
        paths[-1].write_text(json.dumps(rows))
    outcome = run(
        settings, continual_tokenizer="files", continual_sid_files=[str(p) for p in paths],
        continual_last=1,
    )  # fmt: skip
    churn = metrics(outcome)[1, "TIGER", "files/finetune"][1]
    assert churn["raw_any"] > 0.9
    # What lies in the folder is of these SIDs alone: with other ones the period is done again.
    paths[1].write_text(paths[0].read_text())
    other = run(
        settings, continual_tokenizer="files", continual_sid_files=[str(p) for p in paths],
        continual_last=1,
    )  # fmt: skip
    assert other["folder"] == outcome["folder"]
    assert metrics(other)[1, "TIGER", "files/finetune"][1]["final_any"] == 0
    names = {path.name for path in files_of(other)}
    tuned = [name for name in names if name.startswith("TIGER-files") and "finetune.pth" in name]
    assert len(tuned) == 2
    with pytest.raises(
        ConfigError, match="continual_sid_files: 2 files for 3 periods.*continual.last=1"
    ):
        run(settings, continual_tokenizer="files", continual_sid_files=[str(p) for p in paths])
    with pytest.raises(ConfigError, match="sid_file .*gone.json does not exist"):
        run(
            settings, continual_tokenizer="files", continual_last=1,
            continual_sid_files=[str(paths[0]), str(tmp_path / "gone.json")],
        )  # fmt: skip


@pytest.mark.parametrize(
    "model, change, message",
    [
        ("DACT", {"continual_tokenizer": "frozn"}, "'frozn'.*did you mean 'frozen'"),
        ("DACT", {"continual_recommender": []}, r"continual_recommender: \[\] must be a list"),
        ("DACT", {"continual_last": 7}, "continual_last: 7 is not one of 1 to 2"),
        ("DACT", {"continual_last": 0}, "continual_last: 0 must be an integer of at least 1"),
        ("DACT", {"continual_suffix_size": 0}, "continual_suffix_size: 0 must be an integer"),
        ("DACT", {"suffix_mode": "other"}, "suffix_mode: 'other' is not one of unique, repo"),
        ("DACT", {"continual_model": "SASRec"}, "continual_model: SASRec is no generative"),
        ("DACT,Pop", {}, "Pop cannot stand beside DACT"),
        ("DACT,Fusion", {}, "Fusion cannot stand beside DACT.*sequential models there$"),
        ("DACT,IntRR", {}, "--continual.model=IntRR"),
        ("DACT", {"tokenizer": "RKMeans"}, "dact needs a tokenizer that goes on"),
        ("DACT", {"continual_cuts": [0.5, 0.4, 1.0]}, "continual_cuts: .* must ascend"),
        ("DACT", {"continual_sid_files": ["a.json"]}, "belongs to continual_tokenizer=files"),
        ("DACT", {"continual_cf_files": ["a.npy"]}, "continual_cf_files: 1 files for 3 periods"),
        ("DACT", {"finetune_epochs": 0}, "finetune_epochs: 0 must be an integer"),
        ("DACT", {"item_content": "collaborative"}, "item_content: .* when it arrives"),
        ("DACT", {"keep_depth": 9}, "keep_depth: 9 must be an integer from 0 to 3"),
    ],
)  # fmt: skip
def test_bad_input(settings, tmp_path, model, change, message):
    if "tokenizer" in change:
        settings = {key: value for key, value in settings.items() if key not in TOKENIZER}
    with pytest.raises(ConfigError, match=message):
        run(settings, model, **change)
    assert not list((tmp_path / "continual").rglob("TIGER*.pth"))


def test_one_period_alone_is_refused_by_the_key_that_was_given(settings):
    with pytest.raises(ConfigError, match=r"^continual_cuts: \[1.0\] makes one period of 'tiny'"):
        run(settings, continual_cuts=[1.0])


@pytest.fixture
def single(settings, tmp_path):
    """Settings of a log in whose period 1, a thin slice, no user has more than one interaction."""
    rows = [f"u{u}\ti{(u + n) % 20}\t3\t{100 * n + u}" for u in range(40) for n in range(6)]
    rows += [f"u{u}\ti{(u + 9) % 20}\t3\t{10_000 + u}" for u in range(30)]
    rows += [f"u{u}\ti{(u + n) % 20}\t3\t{20_000 + 100 * n + u}" for u in range(40)
             for n in range(10, 16)]  # fmt: skip
    folder = tmp_path / "single" / "tiny"
    folder.mkdir(parents=True)
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (folder / "tiny.inter").write_text(head + "\n".join(rows) + "\n")
    items = [f"i{n}\ttitle number {n} of {n % 5}\tdrama" for n in range(20)]
    titles = "item_id:token\ttitle:token_seq\tgenre:token_seq\n"
    (folder / "tiny.item").write_text(titles + "\n".join(items) + "\n")
    cuts = [240 / 510, 270 / 510, 1.0]
    return {**settings, "data_path": str(folder.parent), "continual_cuts": cuts}


def test_a_period_that_trains_nothing_is_found_before_anything_is_trained(single, tmp_path):
    message = "period 1 .up to 0.529.* has 0 training, 0 validation and 30 test targets, and "
    for change, who in (
        ({}, "recommender finetune, tokenizer dact needs"),
        ({"continual_tokenizer": "frozen"}, "recommender finetune needs"),
        ({"continual_recommender": "frozen"}, "tokenizer dact needs"),
    ):
        with pytest.raises(ConfigError, match=f"^continual_cuts: {message}{who}"):
            run(single, **change)
    with pytest.raises(ConfigError, match="period 1 .*needs test targets|recommender retrain"):
        run(single, continual_recommender="retrain", continual_tokenizer="frozen")
    assert not list((tmp_path / "continual").rglob("period-*"))


@pytest.mark.slow
def test_what_stays_frozen_is_tested_on_a_period_that_trains_nothing(single):
    frozen = {"continual_tokenizer": "frozen", "continual_recommender": "frozen"}
    outcome = run(single, **frozen)
    targets = {r["period"]: r["test_targets"]["count"] for r in outcome["results"]}
    assert targets[1] == 30 and targets[2] == 40
    assert all(0 <= r["test_result"]["ndcg@10"] <= 1 for r in outcome["results"])
    # Vectors are for tokenizers that follow them.
    assert not [path for path in files_of(outcome) if "period-1" in str(path) and "cf" in path.name]


@pytest.mark.slow
def test_a_tokenizer_that_stays_has_no_churn_but_what_sinkhorn_moved(settings):
    """Sinkhorn gives items of a shared SID other codes than the tokenizer says."""
    own = {"continual_tokenizer": "frozen,finetune", "codebook_size": [2, 2, 12],
           "continual_recommender": "frozen", "continual_last": 1}  # fmt: skip
    churn = {method: churn for (p, _, method), (_, churn) in metrics(run(settings, **own)).items()
             if p}  # fmt: skip
    frozen, tuned = churn["frozen/frozen"], churn["finetune/frozen"]
    assert frozen["raw"] == [0, 0, 0] and frozen["raw_any"] == 0
    assert frozen["served"][0] == 0 < frozen["served_any"]
    assert frozen["final_any"] == frozen["since_start"] == 0
    assert tuned["since_start"] == tuned["final_any"] > 0


def test_three_tokenizers_have_three_colours_raw_and_final(tmp_path):
    results = [
        {
            "period": period, "model": "TIGER", "tokenizer": how, "method": f"{how}/finetune",
            "recommender": "finetune", "test_result": {"ndcg@10": 0.1},
            "churn": {"raw_any": 0.3, "served_any": 0.4, "final_any": 0.2},
        }
        for how in ("frozen", "finetune", "dact") for period in (1, 2)
    ]  # fmt: skip
    lines = plot_continual(results).axes[1].lines
    by_tokenizer = {}
    for line in lines:
        by_tokenizer.setdefault(line.get_label().split(",")[0], set()).add(line.get_color())
    assert len(lines) == 6 and list(map(len, by_tokenizer.values())) == [1, 1, 1]
    assert len(set.union(*by_tokenizer.values())) == 3


def test_collapsed_sids_stop_the_run_before_its_recommender_trains(settings, tmp_path):
    with pytest.raises(ConfigError, match="sid_gate"):
        run(settings, sid_gate="stop", sid_min_distinct=1.0, sid_min_utilisation=1.0)
    assert not list((tmp_path / "continual").rglob("TIGER*.pth"))


def test_a_suffix_level_too_small_is_named(settings):
    with pytest.raises(ConfigError, match="continual_suffix_size: 1 codes, and the items on"):
        run(settings, continual_suffix_size=1, codebook_size=2)


def test_dots_in_arguments_are_underscores(settings, data):
    config = Config(
        "DACT", "tiny", config_dict=settings, cmd_args=["--continual.tokenizer=frozen,dact"]
    )
    assert config["continual_tokenizer"] == ["frozen", "dact"]
    assert methods(config, ["SASRec"]) == [
        Method("TIGER", "frozen", "finetune"),
        Method("TIGER", "dact", "finetune"),
        Method("SASRec", None, "finetune"),
    ]


def test_the_table_averages_the_later_periods():
    shares = {"raw": [0.5], "raw_any": 0.5, "served_any": 0.6, "final": [0.1, 0.2]}

    def result(period, method, recall, churn):
        return {
            "period": period, "model": "TIGER", "method": method, "tokenizer_seconds": 1.0,
            "test_result": {"ndcg@5": recall / 2, "recall@10": recall, "recall@5": recall / 4},
            "churn": churn and {**shares, "final_any": churn},
            "recommender_seconds": 2.5,
        }  # fmt: skip

    columns, rows = continual_table(
        [result(0, "a/b", 0.4, None), result(0, "c/d", 0.4, None),
         result(1, "a/b", 0.2, 0.3), result(1, "c/d", 0.1, 0.1),
         result(2, "a/b", 0.4, 0.1), result(2, "c/d", 0.3, 0.1)]
    )  # fmt: skip
    head = ["period", "model", "method", "NDCG@5", "Recall@5", "Recall@10"]
    assert [column.title for column in columns[:6]] == head
    assert [row[0] for row in rows] == ["0", "1", "1", "2", "2", "mean", "mean"]
    mean = rows[-2]
    assert mean[:3] == ["mean", "TIGER", "a/b"]
    assert mean[5] == pytest.approx(0.3) and mean[6] == pytest.approx(0.5)
    churn = ["churn raw", "raw to served", "churn final"]
    assert [column.title for column in columns[6:9]] == churn
    assert mean[7] == pytest.approx(0.6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model, name, options",
    [
        ("ContentKNN", "content", {}),
        ("SASRec", "item_embedding.content", {"item_text": True, "train_sample": "sequence"}),
    ],
)
def test_models_without_sids_have_the_content_of_the_run(settings, model, name, options):
    outcome = run(
        settings, f"DACT,{model}", continual_tokenizer="frozen", item_content="text",
        continual_recommender="finetune", epochs=1, **options,
    )  # fmt: skip
    kept = sorted(Path(outcome["folder"]).glob(f"period-*/{model}-*.pth"))
    first, *others = (load_checkpoint(file)["state_dict"][name] for file in kept)
    assert others and all(len(first) < len(later) for later in others)
    for later in others:  # one basis, and one scale in each period
        part = later[: len(first)]
        torch.testing.assert_close(part * (first.norm() / part.norm()), first)
        assert float(later[1:].norm(dim=1).mean()) == pytest.approx(1, abs=1e-4)
