"""An explained answer against the answer itself and against brute force over the tree of SIDs."""

import json
import math
from itertools import product

import pytest
import torch
from runs import rest_slow

from recbole_gr.errors import ConfigError
from recbole_gr.serving.explain import explain
from recbole_gr.serving.explain_text import WIDTH, explained

BEAMS = ("TIGER", "TIGER-encoder", "TIGER-share", "PIT", "IntRR")


def rows_of(model):
    """`(SID, item)` pairs that the search may end on, from the tables they come from."""
    if hasattr(model, "index"):  # PIT
        codes, weight = model.index.codes.tolist(), model.index.weight
        return [(tuple(codes[i][p]), i) for i, p in (weight > 0).nonzero().tolist() if i]
    return [(tuple(codes), item) for item, codes in enumerate(model.codes.tolist()) if item]


@torch.no_grad()
def brute_force(model, batch, rows, renormalise):
    """Log-probability of every prefix: its codes' own, each from a pass along this path alone."""
    sids, found = sorted({sid for sid, _ in rows}), {}
    for sid in sids:
        step, total = model.start(batch), 0.0
        codes = parents = None
        for level, code in enumerate(sid):
            logits = step(level, codes, parents)[0, 0].double()
            if renormalise:
                allowed = {other[level] for other in sids if other[:level] == sid[:level]}
                closed = [code for code in range(len(logits)) if code not in allowed]
                logits[closed] = -math.inf
            total += float(logits.log_softmax(0)[code])
            found[sid[: level + 1]] = total
            codes, parents = torch.tensor([[code]]), torch.zeros(1, 1, dtype=torch.long)
    return found


def with_second_sids(recommender):
    """A PIT some of whose items have two SIDs, which others have too."""
    model = recommender.model
    index = model.index
    for item in range(1, 20, 2):
        index.codes[item, 1], index.log_prob[item, 1] = index.codes[item + 1, 0], -1.0
        index.weight[item, :2] = torch.tensor([0.7, 0.3])
    index._built.clear()
    model.rebuild()
    assert model.trie.most_sids == 2 and model.trie.max_sharing > 1
    return recommender


@pytest.mark.parametrize(
    "name, renormalise, exclude",
    rest_slow(*[(name, *how) for name, how in product(BEAMS, product([False, True], repeat=2))]),
)
def test_every_number_equals_brute_force_over_the_tree(name, renormalise, exclude, recommender):
    asked = recommender(name, renormalise=renormalise, beam_size=10)
    if name == "PIT":
        asked = with_second_sids(asked)
    model, k = asked.model, 5
    user = asked.dataset.token2id("user_id", "u1")
    batch = asked.predictor.batch(asked.histories, torch.tensor([user]), True)
    taken = set(asked.histories.items(torch.tensor([user]))[0].tolist())
    gone = taken if exclude else set()
    rows = rows_of(model)
    log_p = brute_force(model, batch, rows, renormalise)
    found = explain(asked, "u1", k=k, exclude_history=exclude, n_dropped=None)

    def below(prefix):
        return {item for sid, item in rows if sid[: len(prefix)] == prefix}

    kept, reached = [()], {item for _, item in rows}
    log_p[()] = 0.0
    for depth, level in enumerate(found["levels"], 1):
        before = sum(math.exp(log_p[prefix]) for prefix in kept)
        candidates = {sid[:depth] for sid, _ in rows if sid[: depth - 1] in kept}
        order = sorted(candidates, key=lambda prefix: -log_p[prefix])
        left_out = [prefix for prefix in order if below(prefix) <= gone]
        allowed = [prefix for prefix in order if prefix not in left_out]
        beams, missed = allowed[:10], allowed[10:]
        assert [tuple(beam["prefix"]) for beam in level["kept"]] == beams
        dropped = [(tuple(x["prefix"]), x["why"]) for x in level["dropped"]]
        assert dropped == [
            (prefix, "history" if prefix in left_out else "beam")
            for prefix in order if prefix not in beams
        ]  # fmt: skip
        assert level["n_dropped"] == {"beam": len(missed), "history": len(left_out)}
        assert level["candidates"] == len(candidates)
        threshold = log_p[beams[-1]] if missed else None
        assert level["threshold"] == pytest.approx(threshold, abs=1e-4)
        for entry in level["kept"] + level["dropped"]:
            prefix = tuple(entry["prefix"])
            assert kept[entry["parent"]] == prefix[:-1]
            assert entry["log_prob"] == pytest.approx(log_p[prefix], abs=1e-4)
            assert entry["probability"] == pytest.approx(math.exp(log_p[prefix]), abs=1e-4)
            own = log_p[prefix] - log_p[prefix[:-1]]
            assert entry["code_log_prob"] == pytest.approx(own, abs=1e-4)
            assert entry["items"] == len(below(prefix))
            assert {asked._item_ids[x["item"]] for x in entry["examples"]} <= below(prefix)
        for entry in level["dropped"]:
            if entry["why"] == "beam":
                own = log_p[beams[-1]] - log_p[tuple(entry["prefix"])]
                assert entry["missed_by"] == pytest.approx(own, abs=1e-4)
        after = {item for prefix in beams for item in below(prefix)}
        lost = reached - after
        assert level["items"] == {
            "before": len(reached), "kept": len(after),
            "beam": len(lost - gone), "history": len(lost & gone),
        }  # fmt: skip
        masses = {
            "before": before,
            "kept": sum(math.exp(log_p[prefix]) for prefix in beams),
            "beam": sum(math.exp(log_p[prefix]) for prefix in missed),
            "history": sum(math.exp(log_p[prefix]) for prefix in left_out),
        }
        masses["no_item"] = before - masses["kept"] - masses["beam"] - masses["history"]
        assert level["probability"] == pytest.approx(masses, abs=1e-4)
        kept, reached = beams, after
    assert len(found["levels"]) == model.n_levels

    # How beams follow each other, and which items of the answer are below them.
    sids = {i["rank"]: [tuple(s["sid"]) for s in i["sources"]] for i in found["items"]}
    for level, following in zip(found["levels"], [*found["levels"][1:], None]):
        for beam in level["kept"]:
            prefix = beam["prefix"]
            children = following and [
                child for child in following["kept"] if child["prefix"][:-1] == prefix
            ]
            assert beam["children"] == (children if children is None else len(children))
            assert beam["ranks"] == [
                rank for rank, own in sids.items()
                if any(list(sid[: len(prefix)]) == prefix for sid in own)
            ]  # fmt: skip
    for item in found["items"]:
        own = {sid for sid, number in rows if number == asked._item_ids[item["item"]]}
        assert {tuple(source["sid"]) for source in item["sources"]} == own & set(kept)
        for source in item["sources"]:
            sid = tuple(source["sid"])
            assert kept[source["beam"]] == sid
            codes = [log_p[sid[: n + 1]] - log_p[sid[:n]] for n in range(len(sid))]
            assert source["code_log_probs"] == pytest.approx(codes, abs=1e-4)
            total = sum(source["code_log_probs"]) + source["log_share"]
            assert source["log_prob"] == pytest.approx(total, abs=1e-4)
            alone = below(sid) == {asked._item_ids[item["item"]]}
            assert (source["log_share"] == 0) == alone
        score = math.log(sum(math.exp(source["log_prob"]) for source in item["sources"]))
        assert item["score"] == pytest.approx(score, abs=1e-4)
    removed = {item for sid in kept for item in below(sid)} & gone
    assert {asked._item_ids[item["item"]] for item in found["removed"]} == removed


KINDS = [
    ("TIGER", {}), ("TIGER-encoder", {}), ("TIGER-share", {}), ("PIT", {}), ("IntRR", {}),
    ("IntRR", {"decoding": "exact"}), ("RPG", {}), ("PIT-encoder", {}), ("R3VAE", {}),
    ("TIGER-head", {}),
]  # fmt: skip


@pytest.mark.parametrize("name, options", rest_slow(*KINDS))
@pytest.mark.parametrize("exclude", [False, True])
def test_the_items_are_those_of_recommend_for_a_user_and_a_history(
    name, options, exclude, recommender, sequences
):
    asked, history = recommender(name, **options), sequences["u3"]
    for who, query in (
        ({"user": "u2"}, {"users": ["u2"]}),
        ({"history": history}, {"histories": [history]}),
    ):
        found = explain(asked, **who, k=5, exclude_history=exclude)
        (given,) = asked.recommend(**query, k=5, exclude_history=exclude)
        assert [item["item"] for item in found["items"]] == given.items
        assert [item["score"] for item in found["items"]] == given.scores
        (longer,) = asked.recommend(**query, k=10, exclude_history=exclude)  # of the same beams
        assert [item["item"] for item in found["items"] + found["next"]] == longer.items
        if found["levels"]:
            last = {tuple(beam["prefix"]) for beam in found["levels"][-1]["kept"]}
            assert all(tuple(s["sid"]) in last for i in found["items"] for s in i["sources"])
        taken = sequences["u2"] if "user" in who else history
        assert [item["item"] for item in found["history"]] == taken
        assert found["n_read"] == min(10, len(taken))
        json.dumps(found, allow_nan=False)
        assert max(map(len, explained(found).split("\n"))) <= WIDTH


@pytest.mark.parametrize("exclude", [False, True])
def test_an_item_is_followed_down_to_where_it_fell_out(exclude, recommender):
    asked = recommender("TIGER", beam_size=10)
    tokens = asked.item_tokens[1:]
    found = explain(asked, "u1", k=5, exclude_history=exclude, why=tokens, n_dropped=None)
    full = explain(asked, "u1", k=40, beam_size=100, why=tokens)  # nothing falls out of it
    ranks = {item["item"]: item for item in found["items"]}
    history = {item["item"] for item in found["history"]}
    assert not any(step["dropped"] for why in full["why"] for step in why["sids"][0]["steps"])
    for why, same in zip(found["why"], full["why"], strict=True):
        assert why["rank"] == ranks.get(why["item"], {"rank": None})["rank"]
        assert why["left_out"] == (exclude and why["item"] in history)
        assert same["place"] == same["rank"] == why["place"]  # the score without a search
        assert same["score"] == pytest.approx(why["score"], abs=1e-5)
        ((sid,), steps) = why["sids"], why["sids"][0]["steps"]
        assert list(sid) == ["steps"]
        for level, step in zip(found["levels"], steps):
            entries = level["kept"] + level["dropped"]
            (own,) = [entry for entry in entries if entry["prefix"] == step["prefix"]]
            assert step["log_prob"] == own["log_prob"] and step["dropped"] == own.get("why")
            place = sum(entry["log_prob"] > own["log_prob"] for entry in entries) + 1
            assert (step["place"], step["of"]) == (place, len(entries))
            assert step["missed_by"] == own.get("missed_by")
        assert all(step["dropped"] is None for step in steps[:-1])
        assert (len(steps) == 3) or steps[-1]["dropped"]
        assert bool(why["sources"]) == (len(steps) == 3 and not steps[-1]["dropped"])


@pytest.mark.slow
def test_a_new_item_is_followed_as_any_other(recommender):
    asked = recommender("PIT", beam_size=100)
    asked.add_items({"fresh": torch.zeros(8)})
    found = explain(asked, "u1", k=41, why=["fresh"])
    (given,) = asked.recommend(["u1"], k=41)
    assert [item["item"] for item in found["items"]] == given.items and found["n_items"] == 41
    (why,) = found["why"]
    assert why["rank"] == given.items.index("fresh") + 1 and why["sources"]


@pytest.mark.parametrize("name", ["SASRec", "Pop"])
def test_a_model_without_sids_is_refused_with_what_there_is_instead(name, recommender):
    with pytest.raises(ConfigError, match=f"{name} scores all items at once.* recommend without"):
        explain(recommender(name), "u1")


def test_of_a_fusion_the_members_are_named(recommender):
    asked = recommender("SASRec")
    asked.model.names = ["TIGER", "SASRec"]  # as a fusion has them
    with pytest.raises(ConfigError, match="the checkpoints of its members \\(TIGER and SASRec\\)"):
        explain(asked, "u1")


@pytest.mark.parametrize(
    "given, message",
    [
        ({}, "give one user or one history"),
        ({"user": "u1", "history": ["i1"]}, "give one user or one history"),
        ({"user": "nobody"}, "not in the data: 'nobody'"),
        ({"history": []}, "histories: number 1"),
        ({"user": "u1", "k": 0}, "k: 0"),
        ({"user": "u1", "beam_size": 0}, "beam_size: 0"),
        ({"user": "u1", "why": ["i1", "nothing"]}, "why: not in the data: 'nothing'"),
        ({"user": "u1", "exclude_history": 3}, "exclude_history: 3"),
    ],
)
def test_what_cannot_be_explained_is_named(given, message, recommender):
    with pytest.raises(ConfigError, match=message):
        explain(recommender("TIGER"), **given)


def test_a_search_that_nobody_watches_is_the_same(recommender):
    asked = recommender("TIGER")
    batch = asked.predictor.batch(asked.histories, torch.arange(1, 9), True)
    seen = []
    with torch.no_grad():
        alone, watched = asked.model.search(batch), asked.model.search(batch, observe=seen.append)
    assert all(map(torch.equal, alone[:3], watched[:3])) and [x.level for x in seen] == [0, 1, 2]
    assert torch.equal(seen[-1].kept, alone.nodes) and torch.equal(
        seen[-1].kept_scores, alone.scores
    )
