"""Fusion: mixtures against written-out sums, the choice against brute force, and bad members."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from runs import SMALL, here, rest_slow

from recbole_gr import Recommender, load_data_and_model, run_recbole_gr
from recbole_gr.errors import ConfigError
from recbole_gr.fusion.mixing import (
    MIXTURES,
    Candidate,
    candidates,
    confidence,
    spread_of_beams,
    standardised,
    weight_of,
)
from recbole_gr.fusion.smoothing import SHARPNESS, Neighbours
from recbole_gr.fusion.trainer import FusionTrainer
from recbole_gr.serving.export import export
from recbole_gr.storage.checkpoint import load_checkpoint, save_checkpoint
from recbole_gr.study.runner import study

FIRST = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
SECOND = torch.tensor([[0.1, 0.4, -2.0], [1.0, 1.0, 5.0]])


@pytest.fixture
def fuse(trained, tiny_folder, tmp_path, monkeypatch):
    """A function that fuses two runs of `runs.RUNS`, or given files."""
    monkeypatch.chdir(tmp_path)

    def fuse(*members, **settings):
        files = [trained(m)["checkpoint"] if str(m)[0].isupper() else str(m) for m in members]
        own = {"members": files or None, "MAX_ITEM_LIST_LENGTH": 10, "data_path": str(tiny_folder)}
        own |= {"dataset": "tiny", "show_progress": False, "valid_metric": "NDCG@10"}
        return run_recbole_gr("Fusion", config_dict={**own, **settings})

    return fuse


def standard(row):
    mean = sum(row) / len(row)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in row) / len(row))
    return [(value - mean) / deviation for value in row]


def softmax(row):
    total = sum(map(math.exp, row))
    return [math.exp(value) / total for value in row]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixtures_are_the_sums_that_they_are_called(share):
    weight = torch.full((2, 1), share)
    for name, (scale, mix) in MIXTURES.items():
        mixed = mix(scale(FIRST), scale(SECOND), weight)
        for row in range(2):
            a, b = FIRST[row].tolist(), SECOND[row].tolist()
            if name == "standard":
                pairs = zip(standard(a), standard(b))
                expected = [(1 - share) * x + share * y for x, y in pairs]
            elif name == "probability":
                pairs = zip(softmax(a), softmax(b))
                expected = [math.log((1 - share) * p + share * q) for p, q in pairs]
            else:
                pairs = zip(softmax(a), softmax(b))
                expected = [(1 - share) * math.log(p) + share * math.log(q) for p, q in pairs]
            assert mixed[row].tolist() == pytest.approx(expected, abs=1e-5)
    assert standardised(torch.ones(1, 3)).tolist() == [[0, 0, 0]]


def test_the_weight_follows_the_surer_model_but_at_its_ends():
    surer = torch.tensor([-2.0, 0.0, 1.0])
    weight = weight_of(torch.tensor(0.3), torch.tensor(0.5), surer)[:, 0]
    odds = [0.3 / 0.7 * math.exp(0.5 * value) for value in surer.tolist()]
    assert weight.tolist() == pytest.approx([o / (1 + o) for o in odds])
    for share in (0.0, 1.0):
        assert weight_of(torch.tensor(share), torch.tensor(2.0), surer).unique().tolist() == [share]
    entropy = -sum(p * math.log(p) for p in softmax(FIRST[0].tolist()))
    assert float(confidence(FIRST)[0]) == pytest.approx(-entropy)


def test_what_beams_leave_over_is_shared_by_the_other_items():
    items = torch.tensor([[3, 1, 0], [5, 2, 4]])
    scores = torch.tensor([[0.5, 0.2, 0.0], [0.6, 0.3, 0.1]]).log()
    dense = spread_of_beams(items, scores, 7).exp()
    assert dense[0].tolist() == pytest.approx([0, 0.2, 0.075, 0.5, 0.075, 0.075, 0.075])
    assert dense[1, [5, 2, 4]].tolist() == pytest.approx([0.6, 0.3, 0.1])
    assert dense[1, [1, 3, 6]].max() < 1e-30  # nothing is left
    # Of a loss over the codebook much is left that no item has: never above the last of the list.
    low = spread_of_beams(items[:1], torch.tensor([[0.02, 0.01, 0.0]]).log(), 7).exp()
    assert low[0, 2].item() == pytest.approx(0.01)


def test_either_model_alone_is_tried_first_and_once():
    tried = candidates([0.0, 0.5, 1.0], [-1.0, 0.0])
    assert tried[:2] == [("log_softmax", 0.0, 0.0, 0.0), ("log_softmax", 1.0, 0.0, 0.0)]
    assert tried[2:] == [(name, 0.5, slope, 0.0) for name in MIXTURES for slope in (-1.0, 0.0)]


@pytest.mark.parametrize("second", rest_slow("IntRR", "TIGER", "PIT", "RPG", "Pop", "TIGER-share"))
def test_the_choice_is_the_best_of_all_by_brute_force(fuse, trained, second):
    result = fuse("SASRec", second, fusion_steps=4, fusion_slopes=[0.0, 1.0])
    members = [load_data_and_model(trained(name)["checkpoint"])[1] for name in ("SASRec", second)]
    _, model, dataset, _, valid, _ = load_data_and_model(result["checkpoint"])
    assert not {id(m) for m in members} & {id(m) for m in model.members}
    by_candidate = {}
    for batch, _, rows, items in valid:
        scores = [member.full_sort_predict(batch).view(len(batch), -1) for member in members]
        if second in ("IntRR", "RPG"):
            scores[1] = members[1].exact(batch)
        elif second != "Pop":
            found = members[1].generate(batch, members[1].beam_size)
            scores[1] = spread_of_beams(found.items, found.scores, dataset.item_num)
        a, b = (each[:, 1:].float() for each in scores)
        surer = (confidence(b) - confidence(a) - model.centre) / model.deviation
        for name, share, slope, _ in candidates([n / 4 for n in range(5)], [0.0, 1.0]):
            scale, mix = MIXTURES[name]
            weight = weight_of(torch.tensor(share), torch.tensor(slope), surer)
            mixed = mix(scale(a), scale(b), weight)
            for row, item in zip(rows.tolist(), (items - 1).tolist()):
                order = sorted(range(mixed.shape[1]), key=lambda i: (-mixed[row, i].item(), i))
                place = order.index(item)
                gain = 1 / math.log2(place + 2) if place < 10 else 0.0
                by_candidate.setdefault((name, share, slope), []).append(gain)
    means = {key: sum(gains) / len(gains) for key, gains in by_candidate.items()}
    assert result["best_valid_score"] == pytest.approx(max(means.values()), abs=1e-4)
    chosen = list(MIXTURES)[int(model.mixture)], float(model.share), float(model.slope)
    assert means[chosen] == pytest.approx(max(means.values()), abs=1e-6)
    if second != "Pop":
        assert result["best_valid_score"] >= trained("SASRec")["best_valid_score"] - 1e-4
    n_weights = [sum(p.numel() for p in m.parameters()) for m in members]
    assert result["parameters"] == sum(n_weights) and result["epochs_run"] == 1


def test_a_weight_of_nothing_is_the_other_model(fuse, trained):
    result = fuse("SASRec", "IntRR", fusion_steps=1)  # either of them
    alone = [trained(name) for name in ("SASRec", "IntRR")]
    best = max(alone, key=lambda each: each["best_valid_score"])
    assert result["test_result"] == pytest.approx(best["test_result"], abs=2e-4)


def test_one_file_holds_both_and_answers_as_the_test_ranks(fuse, trained, tmp_path, sequences):
    copies = []
    for name in ("SASRec", "TIGER"):
        copies.append(tmp_path / f"{name.lower()}.pth")
        copies[-1].write_bytes(Path(trained(name)["checkpoint"]).read_bytes())
    result = fuse(*map(str, copies), fusion_steps=2)
    for copy in copies:
        copy.unlink()
    own = Recommender.load(result["checkpoint"], show_progress=False)
    _, model, dataset, _, _, test = load_data_and_model(result["checkpoint"])
    batch = next(iter(test))[0]
    expected = model.full_sort_predict(batch).topk(7)
    users = dataset.id2token("user_id", batch["user_id"].numpy())
    answers = own.recommend(histories=[sequences[user][:-1] for user in users], k=7)
    for row, answer in enumerate(answers):
        assert answer.items == [own.item_tokens[item] for item in expected.indices[row]]
    assert model.predict(batch).tolist() == pytest.approx(
        model.full_sort_predict(batch).gather(1, batch["item_id"].unsqueeze(1))[:, 0].tolist()
    )
    assert not model.train().training and not model.members[0].training
    again = fuse("SASRec", "TIGER", fusion_steps=2)
    assert again["test_result"] == result["test_result"]
    # A study goes on from what an interrupted run has kept: the choice is made anew, in that file.
    resumed = fuse("SASRec", "TIGER", fusion_steps=2, resume=again["checkpoint"])
    assert resumed["checkpoint"] == again["checkpoint"]
    assert resumed["test_result"] == result["test_result"]
    # A member that left the history out ranks with it here, as the other does.
    state = load_checkpoint(trained("TIGER")["checkpoint"])
    state["config"]["exclude_history"] = True
    save_checkpoint(tmp_path / "excluding.pth", state)
    other = fuse("SASRec", tmp_path / "excluding.pth", fusion_steps=2)
    assert other["test_result"] == result["test_result"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second", "smoothing"),
    [("SASRec", "IntRR", 0.0), ("SASRec", "TIGER", 0.0), ("ContentKNN", "IntRR", 5.0)],
)
def test_a_fusion_is_exported_as_one_program(fuse, sequences, first, second, smoothing):
    settings = {"fusion_steps": 2, "fusion_slopes": [1.0], "fusion_smoothing": [smoothing]}
    checkpoint = fuse(first, second, **settings)["checkpoint"]
    file = Path("fused.pt2")
    described = export(checkpoint, file, k=5)
    own = Recommender.load(checkpoint, show_progress=False)
    rows = [[own.item_tokens.index(i) for i in items[-10:]] for items in sequences.values()]
    history = torch.zeros(len(rows), 10, dtype=torch.long)
    for row, items in enumerate(rows):
        history[row, : len(items)] = torch.tensor(items)
    items, scores = torch.export.load(file).module()(history, (history > 0).sum(1))
    answers = own.recommend(histories=list(sequences.values()), k=5)
    for row, answer in enumerate(answers):
        assert [described["items"][item] for item in items[row]] == answer.items
        assert scores[row].tolist() == pytest.approx(answer.scores, abs=1e-4)
    assert described["beam_size"] is None


def test_a_fusion_is_fused_like_any_other_model(fuse, trained, tmp_path):
    inner = Path(fuse("SASRec-whole", "IntRR", fusion_steps=2)["checkpoint"]).absolute()
    kept = tmp_path / "inner.pth"
    kept.write_bytes(inner.read_bytes())
    both = fuse(kept, "TIGER", fusion_steps=2, fusion_smoothing=[1.0])  # the inner one's content
    members = [load_data_and_model(file)[1] for file in (kept, trained("TIGER")["checkpoint"])]
    kept.unlink()
    _, model, *_, test = load_data_and_model(both["checkpoint"])
    assert model.names == ["Fusion", "TIGER"] and len(model.members[0].members) == 2
    batch = next(iter(test))[0]
    expected = members[0].full_sort_predict(batch)
    torch.testing.assert_close(model.members[0].full_sort_predict(batch), expected)
    assert both["best_valid_score"] >= trained("TIGER")["best_valid_score"] - 1e-6
    n_weights = [sum(p.numel() for p in m.parameters()) for m in members]
    assert both["parameters"] == sum(n_weights)


def test_members_that_cannot_be_fused_are_named(fuse, trained, tmp_path):
    sasrec = trained("SASRec")["checkpoint"]
    with pytest.raises(ConfigError, match="must be two checkpoints"):
        fuse("SASRec")
    with pytest.raises(ConfigError, match="a fusion needs two checkpoints"):
        fuse()
    with pytest.raises(ConfigError, match="no checkpoint .*none.pth"):
        fuse("SASRec", tmp_path / "none.pth")
    with pytest.raises(ConfigError, match="trained with MAX_ITEM_LIST_LENGTH=10, the fusion has 5"):
        fuse("SASRec", "IntRR", MAX_ITEM_LIST_LENGTH=5)
    with pytest.raises(ConfigError, match="eval_args"):
        fuse("SASRec", "IntRR", eval_args={"order": "RO"})
    # Fewer users and as many items, whose ids stand for others.
    with pytest.raises(ConfigError, match="SASRec-.*other items than 'tiny' has now"):
        fuse("SASRec", "IntRR", user_inter_num_interval="[8,inf)")
    with pytest.raises(ConfigError, match="val_interval"):
        fuse("SASRec", "IntRR", val_interval={"timestamp": "[0,inf)"})
    state = load_checkpoint(sasrec)
    lost = {name: value.clone().fill_(math.nan) for name, value in state["state_dict"].items()}
    save_checkpoint(tmp_path / "lost.pth", {**state, "state_dict": lost})
    with pytest.raises(ConfigError, match="lost.pth' cannot answer"):
        fuse("SASRec", tmp_path / "lost.pth")
    one = fuse("SASRec", "IntRR", fusion_steps=1)["checkpoint"]
    with pytest.raises(ConfigError, match="chosen by .*recall@5.*, not by gauc"):
        fuse("SASRec", "IntRR", metrics=["Recall", "GAUC"], valid_metric="GAUC")
    state = load_checkpoint(one)
    save_checkpoint(tmp_path / "cut.pth", {**state, "members": state["members"][:1]})
    with pytest.raises(ConfigError, match="cut.pth"):
        load_data_and_model(tmp_path / "cut.pth")


@pytest.mark.slow
def test_a_study_fuses_the_runs_of_its_rows_seed_by_seed(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {
        "models": {
            "all": {"fuse": ["both", "twice"], "fusion_steps": 1},
            "both": {"fuse": ["SASRec", "IntRR"], "fusion_steps": 2},
            "SASRec": {}, "twice": {"fuse": ["SASRec", "SASRec"], "fusion_steps": 2}, "IntRR": {},
        },
        "datasets": "tiny", "seeds": [1, 2, 3], "baseline": "SASRec",
        "settings": {**SMALL, "epochs": 1, "codebook_size": 8, "content_dim": 8,
                     "data_path": str(tiny_folder), "n_heads": 2},
    }  # fmt: skip
    file = Path("mine.yaml")
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    first = study(file, workers=here)
    assert (first["done"], first["failed"]) == (15, {})
    assert list(first["report"]["datasets"]["tiny"]["costs"]) == list(content["models"])
    again = study(file, workers=here)
    assert (again["done"], again["found"]) == (0, 15) and again["table"] == first["table"]
    seeds = set()
    for kept in Path("saved/studies/mine/tiny").glob("Fusion*/*.pth"):
        task = load_checkpoint(kept)["config"]
        names = [Path(member).parent.name.split("-")[:2] for member in task["members"]]
        if names[0][0] == "Fusion":
            continue
        seeds.add((task["seed"], *map(tuple, names)))
    assert seeds == {
        *((s, ("SASRec", str(s)), ("IntRR", str(s))) for s in (1, 2, 3)),
        *((s, ("SASRec", str(s)), ("SASRec", str(s % 3 + 1))) for s in (1, 2, 3)),
    }
    # A member that is trained anew is fused anew.
    content["models"]["IntRR"] = {"dropout": 0.2}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    assert study(file, workers=here)["done"] == 9
    content["models"]["both"]["fuse"] = ["SASRec", "IntR"]
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ConfigError, match="row 'both': fuse: 'IntR' is no row .*IntRR"):
        study(file, workers=here)
    content["models"]["both"]["fuse"] = ["SASRec", "all"]
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ConfigError, match="row 'all': fuse: it fuses a row that is made of itself"):
        study(file, workers=here)


def test_neighbours_back_items_by_how_few_have_taken_them():
    generator = torch.Generator().manual_seed(0)
    content = torch.randn(7, 3, generator=generator)  # row 0 is the padding
    counts, k = torch.tensor([0, 4, 0, 1, 0, 9, 2]), 3
    scores = torch.randn(2, 6, generator=generator)
    neighbours = Neighbours(content, counts, k)
    unit = [row / math.sqrt(sum(x * x for x in row)) for row in map(np.array, content.tolist())]
    for strength in (0.5, 3.0):
        found = neighbours(scores, strength).exp()
        for row in range(2):
            own = softmax(scores[row].tolist())
            for item in range(1, 7):
                others = [other for other in range(1, 7) if other != item]
                near = sorted(others, key=lambda other: -(unit[item] @ unit[other]))[:k]
                near = [other for other in near if counts[other]]
                weight = [math.exp(SHARPNESS * (unit[item] @ unit[other])) for other in near]
                around = sum(w * own[other - 1] for w, other in zip(weight, near)) / sum(weight)
                n = int(counts[item])
                expected = (n * own[item - 1] + strength * around) / (n + strength)
                assert found[row, item - 1].item() == pytest.approx(expected, abs=1e-5)
    assert neighbours(scores, 0.0) is not scores and torch.equal(neighbours(scores, 0.0), scores)
    neighbours.strength.fill_(3.0)  # what was chosen
    assert torch.equal(neighbours(scores), neighbours(scores, 3.0))


def test_an_item_with_unknown_neighbours_alone_stays_what_it_is():
    content = torch.tensor([[0.0, 0.0], [1, 0], [1, 0.1], [0, 1], [0.1, 1]])
    scores = torch.tensor([[1.0, 0.5, 0.2, -1.0]])
    found = Neighbours(content, torch.tensor([0, 0, 0, 3, 4]), 1)(scores, 2.0)
    expected = scores.log_softmax(1)
    torch.testing.assert_close(found[:, :2], expected[:, :2])
    assert (found[:, 2:] - expected[:, 2:]).abs().min() > 1e-3


def test_smoothing_is_chosen_kept_and_restored(fuse, trained, monkeypatch):
    plain = fuse("SASRec-whole", "IntRR", fusion_steps=2)
    tried = []
    chosen = FusionTrainer._say

    def say(self, candidate, *scores):
        tried.append(candidate)
        chosen(self, candidate, *scores)

    monkeypatch.setattr(FusionTrainer, "_say", say)
    smooth = fuse("SASRec-whole", "IntRR", fusion_steps=2, fusion_smoothing=[0.0, 1.0, 50.0])
    assert smooth["best_valid_score"] >= plain["best_valid_score"] - 1e-6
    _, model, *_, test = load_data_and_model(smooth["checkpoint"])
    assert float(model.neighbours.strength) == tried[0].smoothing
    batch = next(iter(test))[0]
    before = model.full_sort_predict(batch)
    model.set_mixture(Candidate("log_softmax", 0.5, 0.0, 50.0))
    after = model.full_sort_predict(batch)
    assert not torch.equal(before, after) and torch.isfinite(after[:, 1:]).all()


def test_smoothing_without_content_names_what_has_some(fuse):
    with pytest.raises(ConfigError, match="fusion_smoothing: neither of SASRec and IntRR .*KNN"):
        fuse("SASRec", "IntRR", fusion_smoothing=[1.0])
