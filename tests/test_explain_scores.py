"""The terms of each score of an explained answer against what the model computes alone."""

import math

import pytest
import torch

from recbole_gr.serving.explain import explain
from recbole_gr.serving.explain_text import explained


def test_an_exact_model_has_the_terms_of_each_score_and_no_levels(recommender):
    asked = recommender("IntRR", decoding="exact")
    beam = explain(recommender("IntRR", beam_size=100), "u1", k=4)
    found = explain(asked, "u1", k=4, why=["i5"])
    assert found["decoding"] == "exact" and found["levels"] == [] and found["n_items"] == 40
    for item, same in zip(found["items"], beam["items"], strict=True):
        assert item["item"] == same["item"]
        (own,), (other,) = item["sources"], same["sources"]
        assert own["code_log_probs"] == pytest.approx(other["code_log_probs"], abs=1e-5)
        assert own["beam"] is None and own["sid"] == other["sid"]
    (why,) = found["why"]
    assert why["sources"][0]["log_prob"] == why["score"] and 1 <= why["place"] <= 40


def test_rpg_has_a_term_for_each_digit_and_one_for_the_catalogue(recommender):
    asked = recommender("RPG")
    model = asked.model
    batch = asked.predictor.batch(asked.histories, torch.tensor([1]), True)
    with torch.no_grad():
        logits = [x[0].double().log_softmax(0) for x in model.code_logits(model.user_state(batch))]
    sums = {
        sid: sum(float(level[code]) for level, code in zip(logits, sid))
        for sid in {tuple(codes) for codes in model.codes[1:].tolist()}
    }
    total = math.log(sum(math.exp(value) for value in sums.values()))
    user = str(asked.dataset.id2token("user_id", 1))
    found = explain(asked, user, k=40)
    assert len(found["items"]) >= 15 and any(i["sources"][0]["log_share"] for i in found["items"])
    for item in found["items"]:
        (own,) = item["sources"]
        digits = [float(level[code]) for level, code in zip(logits, own["sid"])]
        assert own["code_log_probs"] == pytest.approx(digits, abs=1e-4)
        assert own["normaliser"] == pytest.approx(-total, abs=1e-4)
        score = sums[tuple(own["sid"])] - total + own["log_share"]
        assert item["score"] == pytest.approx(score, abs=1e-4)


def test_what_a_softmax_over_items_adds_is_a_term_of_its_own(recommender):
    asked = recommender("TIGER-head")
    found = explain(asked, "u1", k=5)
    batch = asked.predictor.batch(
        asked.histories, torch.tensor([asked.dataset.token2id("user_id", "u1")]), True
    )
    with torch.no_grad():
        step = asked.model.start(batch)
        step(0, None, None)
        logits = torch.nn.functional.linear(
            asked.model.to_items(step.user), asked.model.item_table.weight
        )[0, 1:]
    log_p = logits.double().log_softmax(0)
    weight = asked.config["item_head_score"]
    for item in found["items"]:
        added = weight * float(log_p[asked._item_ids[item["item"]] - 1])
        assert item["added"] == pytest.approx(added, abs=1e-4)
        (source,) = item["sources"]
        assert item["score"] == pytest.approx(source["log_prob"] + added, abs=1e-4)
    assert "items: what stands beside the SID adds" in explained(found)
