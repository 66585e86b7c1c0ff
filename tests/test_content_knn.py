"""ContentKNN against cosines one by one, and as a run, restored and fused."""

import math

import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_gr import Recommender, load_data_and_model, run_recbole_gr
from recbole_gr.errors import ConfigError
from recbole_gr.model.content_knn import UNLIKE, ContentKNN

N_ITEMS, N_LAST, DECAY, TEMPERATURE = 9, 3, 0.5, 0.1
HISTORIES = [[1, 2, 3, 4, 5], [6], [7, 7], [8, 1, 8]]


class Named(dict):
    """A configuration or a data set of so much as a model reads."""

    def num(self, field):
        return {"user": 5, "item": N_ITEMS}[field]


@pytest.fixture
def model():
    torch.manual_seed(0)
    content = torch.randn(N_ITEMS, 4)
    content[0] = content[5] = 0  # the padding, and an item without content
    config = Named(
        USER_ID_FIELD="user", ITEM_ID_FIELD="item", LIST_SUFFIX="_list", NEG_PREFIX="neg_",
        ITEM_LIST_LENGTH_FIELD="length", MAX_ITEM_LIST_LENGTH=6, device="cpu",
        neighbour_items=N_LAST, neighbour_decay=DECAY, temperature=TEMPERATURE,
    )  # fmt: skip
    return ContentKNN(config, Named(), content), content


def batch(**more):
    length = torch.tensor([len(history) for history in HISTORIES])
    rows = [history + [0] * (6 - len(history)) for history in HISTORIES]
    return Interaction({"item_list": torch.tensor(rows), "length": length, **more})


def cosine(a, b):
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size else 0.0


def slow_score(content, history, item):
    near = []
    for back, taken in enumerate(reversed(history[-N_LAST:])):
        like = UNLIKE if taken == item else cosine(content[taken], content[item])
        near.append(DECAY**back * like)
    if len(near) < N_LAST:
        near.append(UNLIKE)
    return max(near) / TEMPERATURE


def test_scores_are_those_of_loops(model):
    model, content = model
    scores = model.full_sort_predict(batch())
    for row, history in enumerate(HISTORIES):
        for item in range(1, N_ITEMS):
            expected = slow_score(content, history, item)
            assert float(scores[row, item]) == pytest.approx(expected, abs=1e-4), (row, item)
    items = torch.tensor([5, 6, 2, 1])
    own = model.predict(batch(item=items))
    torch.testing.assert_close(own, scores.gather(1, items.unsqueeze(1))[:, 0])


def test_an_item_is_no_neighbour_of_itself(model):
    scores = model[0].full_sort_predict(batch())
    assert float(scores[1, 6]) == UNLIKE / TEMPERATURE == float(scores[1].min())
    assert float(scores[2, 7]) == UNLIKE * DECAY / TEMPERATURE  # taken twice


def test_users_in_parts_have_the_scores_of_all_at_once(model, monkeypatch):
    whole = model[0].full_sort_predict(batch())
    monkeypatch.setattr("recbole_gr.model.content_knn.AT_ONCE", 2 * N_ITEMS)
    torch.testing.assert_close(model[0].full_sort_predict(batch()), whole, rtol=0, atol=0)


SETTINGS = {"text_fields": ["title"], "content_dim": 8, "show_progress": False}


@pytest.fixture
def run(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(model="ContentKNN", **changes):
        own = {**SETTINGS, "data_path": str(tiny_folder), "MAX_ITEM_LIST_LENGTH": 10}
        return run_recbole_gr(model, "tiny", config_dict={**own, **changes})

    return run


def test_a_run_is_restored_fused_and_does_not_hang_on_the_seed(run):
    first, second = run(eval_likelihood=True), run(seed=7)
    assert first["test_result"] == second["test_result"]
    assert first["test_ranks"]["log_likelihood"].shape == first["test_ranks"]["user"].shape
    config, model, dataset, *_, test = load_data_and_model(first["checkpoint"])
    scores = [model.full_sort_predict(each[0]) for each in test]
    assert torch.isfinite(torch.cat(scores)).all()
    answers = list(Recommender.load(first["checkpoint"]).recommend(users=["u1"], k=3))
    assert len(answers) == 1
    other = run("SASRec", epochs=1, hidden_size=8, n_heads=1)
    fused = run("Fusion", members=[other["checkpoint"], first["checkpoint"]])
    scores = [first["best_valid_score"], other["best_valid_score"]]
    assert fused["best_valid_score"] >= max(scores) - 1e-6


@pytest.mark.parametrize(
    ("key", "value"), [("neighbour_items", 0), ("neighbour_decay", 0), ("temperature", 0.0)]
)
def test_settings_out_of_range_are_refused_by_name(run, key, value):
    with pytest.raises(ConfigError, match=key):
        run(**{key: value})
