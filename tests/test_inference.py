"""Recommendations in external tokens: for users, for histories, and of new items."""

import numpy as np
import pytest
import torch
from runs import RUNS, rest_slow

from recbole_gr import Recommender, load_data_and_model, registry
from recbole_gr.data.content import item_content
from recbole_gr.errors import ConfigError
from recbole_gr.generation.beam_search import best
from recbole_gr.serving.queries import token_lists, user_tokens
from recbole_gr.storage.checkpoint import load_checkpoint, save_checkpoint

SEQUENTIAL = [name for name in RUNS if name != "Pop"]
GENERATIVE = ["TIGER", "TIGER-encoder", "TIGER-share", "PIT", "IntRR", "RPG", "R3VAE"]
WIDE = {"beam_size": 200}  # more than there are SIDs


class Ranked:
    """Stands for the trainer's `ItemBuckets` and keeps the ranked lists of an evaluation."""

    def __init__(self):
        self.items = []

    def add_ranked(self, items, *_):
        self.items += items.tolist()

    def gather(self):
        """One process has them all."""


@pytest.mark.parametrize("name", rest_slow(*GENERATIVE))
def test_histories_get_the_lists_that_the_evaluation_ranks(name, trained, recommender, sequences):
    own = recommender(name)
    file = trained(name)["checkpoint"]
    _, _, dataset, _, _, test = load_data_and_model(file, show_progress=False)
    trainer = registry.get_trainer(own.config, type(own.model))(own.config, own.model)
    trainer.buckets = ranked = Ranked()
    trainer.evaluate(test, load_best_model=False)
    ids = torch.cat([batch["user_id"] for batch, *_ in test])  # in the order of the evaluation
    users = dataset.id2token("user_id", ids.numpy())
    answers = own.recommend(histories=[sequences[user][:-1] for user in users], k=10)
    assert [answer.items for answer in answers] == [
        [own.item_tokens[item] for item in row if item] for row in ranked.items
    ]
    assert all(answer.user is None for answer in answers) and len(answers) == 60


@pytest.mark.parametrize("name", ["SASRec", "BERT4Rec"])
def test_histories_get_what_recboles_models_score_highest(name, recommender, trained, sequences):
    own = recommender(name)
    _, model, dataset, _, _, test = load_data_and_model(trained(name)["checkpoint"])
    batch = next(iter(test))[0]
    with torch.no_grad():
        scores = model.full_sort_predict(batch).view(len(batch), -1)
    scores[:, 0] = float("-inf")
    expected = scores.topk(7)
    users = dataset.id2token("user_id", batch["user_id"].numpy())
    answers = own.recommend(histories=[sequences[user][:-1] for user in users], k=7)
    for row, answer in enumerate(answers):
        assert answer.items == [own.item_tokens[item] for item in expected.indices[row]]
        assert answer.scores == pytest.approx(expected.values[row].tolist(), abs=1e-5)


@pytest.mark.parametrize("name", rest_slow(*SEQUENTIAL))
def test_a_users_history_is_everything_up_to_the_last_interaction(name, recommender, sequences):
    own = recommender(name)
    users = ["u3", "u0", "u59", "u3"]
    by_user = own.recommend(users, k=6)
    assert [answer.user for answer in by_user] == users
    assert by_user[0] == by_user[3]
    by_history = own.recommend(histories=[sequences[user] for user in users], k=6)
    for one, other in zip(by_user, by_history, strict=True):
        assert one.items == other.items and one.scores == pytest.approx(other.scores, abs=1e-5)
    everyone = {answer.user: answer for answer in own.recommend(k=6, batch_size=7)}
    assert set(everyone) == set(sequences)
    assert everyone["u59"].items == by_user[2].items


@pytest.mark.parametrize("name", GENERATIVE)
@pytest.mark.parametrize("exclude", [False, True])
def test_a_beam_of_full_width_finds_the_best_of_all_items(name, exclude, recommender, sequences):
    own = recommender(name, **WIDE)
    users = list(sequences)[:20]
    for user, answer in zip(users, own.recommend(users, k=8, exclude_history=exclude)):
        batch = own.predictor.batch(own.histories, own._user_rows([user]), True)
        with torch.no_grad():
            exact = own.model.exact(batch)
        if exclude:
            gone = [own.item_tokens.index(item) for item in sequences[user]]
            exact[0, gone] = float("-inf")
        values, items = best(exact, torch.arange(exact.shape[1]).unsqueeze(0), 8)
        assert answer.items == [own.item_tokens[item] for item in items[0]]
        assert answer.scores == pytest.approx(values[0].tolist(), abs=1e-4)


@pytest.mark.parametrize("name", list(RUNS))
def test_excluded_history_is_all_of_it_and_not_what_the_model_reads(name, recommender, sequences):
    own = recommender(name)
    long = max(sequences, key=lambda user: len(sequences[user]))
    assert len(sequences[long]) > 10  # MAX_ITEM_LIST_LENGTH of the runs
    (answer,) = own.recommend([long], k=40, exclude_history=True, **WIDE)
    assert not set(answer.items) & set(sequences[long]) and answer.items
    assert len(answer.items) == 40 - len(set(sequences[long]))  # nothing is lost by it
    (everything,) = own.recommend([long], k=40, **WIDE)
    assert len(set(everything.items)) == 40
    if name != "Pop":
        (given,) = own.recommend(histories=[sequences[long]], k=40, exclude_history=True, **WIDE)
        assert given.items == answer.items


def test_the_configuration_decides_about_the_history_unless_told_otherwise(recommender, sequences):
    own = recommender("TIGER", exclude_history=True)
    assert not set(own.recommend(["u1"], k=10)[0].items) & set(sequences["u1"])
    one = own.recommend(["u1"], k=10, exclude_history=False)
    assert one == recommender("TIGER").recommend(["u1"], k=10)


def test_pop_recommends_what_was_trained_on_most(recommender, sequences):
    counts = {}
    for sequence in sequences.values():
        for item in sequence[:-2]:
            counts[item] = counts.get(item, 0) + 1
    (answer,) = recommender("Pop").recommend(["u5"], k=5)
    assert [counts[item] for item in answer.items] == sorted(counts.values())[:-6:-1]


# New items


def content_of(recommender):
    """The content of the run's items by token."""
    content = item_content(recommender.config, recommender.dataset)
    return dict(zip(content.item_tokens[1:], content.vectors[1:]))


@pytest.mark.parametrize("name", ["TIGER", "TIGER-encoder", "TIGER-share", "R3VAE", "PIT"])
def test_new_items_are_recommended_by_their_content(name, recommender):
    own = recommender(name, **WIDE)
    before = own.recommend(["u1"], k=40)[0]
    vectors = content_of(own)
    alone = _items_with_room(own)
    own.add_items({f"new {item}": vectors[item] + 1e-4 for item in alone})
    n_now = 40 + len(alone)
    (answer,) = own.recommend(["u1"], k=n_now)
    assert sorted(answer.items) == sorted([*before.items, *(f"new {item}" for item in alone)])
    leaves = own.model.trie.item_paths()[-1]
    if name not in ("TIGER-share", "PIT"):  # every SID is still one item's
        assert len(own.model.sid_table().codes.unique(dim=0)) == n_now + 1
        assert leaves[1:].unique().numel() == n_now
        levels = own.model.sid_table().content_levels
        for item in alone:  # the codes of the item whose content it has
            old, new = (own.item_tokens.index(token) for token in (item, f"new {item}"))
            assert torch.equal(own.model.codes[old, :levels], own.model.codes[new, :levels])
    # New items also stand in histories.
    history = [f"new {alone[0]}", "i3"]
    assert len(own.recommend(histories=[history], k=3)[0].items) == 3
    (rest,) = own.recommend(histories=[history], k=n_now - 2, exclude_history=True)
    assert not set(rest.items) & set(history) and len(rest.items) == n_now - 2


def _items_with_room(own, n=2):
    """Items on whose codes fewer items lie than the model has suffixes, each on codes of its own
    (of a model without suffixes, any)."""
    table = own.model.sid_table()
    codes = table.codes[1:, : table.content_levels]
    _, group, counts = codes.unique(dim=0, return_inverse=True, return_counts=True)
    room = counts[group] < table.sizes[-1]
    if table.n_levels == table.content_levels:
        room[:] = True
    chosen, groups = [], set()
    for row in room.nonzero().squeeze(1).tolist():
        if int(group[row]) not in groups:
            groups.add(int(group[row]))
            chosen.append(own.item_tokens[row + 1])
    return chosen[:n]


def test_new_items_for_which_no_suffix_is_left_are_refused_and_nothing_changes(recommender):
    own = recommender("TIGER")
    table = own.model.sid_table()
    vectors = content_of(own)
    many = {f"new {n}": vectors["i3"] for n in range(table.sizes[-1] + 1)}
    with pytest.raises(ConfigError, match=r"more items than the model has suffixes \(\d+\)"):
        own.add_items(many)
    assert own.model.sid_table().digest() == table.digest() and len(own.item_tokens) == 41
    with pytest.raises(ConfigError, match="not in the data: 'new 0'"):
        own.recommend(histories=[["new 0"]])


@pytest.mark.parametrize("name", ["IntRR", "SASRec", "Pop"])
def test_models_with_weights_per_item_refuse_new_ones(name, recommender):
    with pytest.raises(ConfigError, match=f"{name} has a vector of its own for each item"):
        recommender(name).add_items({"new": torch.zeros(8)})


@pytest.mark.parametrize("name", ["TIGER", "PIT"])
def test_bad_content_of_new_items_is_refused(name, recommender):
    own = recommender(name)
    for content, message in (
        ({}, "none are given"),
        ({"i3": torch.zeros(8)}, "known already, first 'i3'"),
        ({"a": torch.zeros(8), "b": torch.zeros(7)}, "content of 'b' must be 8 finite"),
        ({"a": torch.full((8,), float("nan"))}, "content of 'a'"),
        ({"a": torch.zeros(5)}, "5"),
    ):
        with pytest.raises(ConfigError, match=message):
            own.add_items(content)
    assert len(own.item_tokens) == 41


def test_new_items_need_the_tokenizer_of_the_models_sids(trained, tmp_path):
    """Of a checkpoint of the first versions, which did not hold it."""
    state = load_checkpoint(trained("TIGER")["checkpoint"])
    del state["tokenizer"]
    save_checkpoint(tmp_path / "old.pth", state)
    Recommender.load(tmp_path / "old.pth").add_items({"new": torch.zeros(8)})  # beside the SIDs
    own = Recommender.load(tmp_path / "old.pth", sid_dir=str(tmp_path))
    with pytest.raises(ConfigError, match=f"tokenizer.*{tmp_path}.*sid_dir"):
        own.add_items({"new": torch.zeros(8)})


# Bad input


@pytest.mark.parametrize(
    "name, question, message",
    [
        ("TIGER", {"users": ["u1", "nobody"]}, "users: not in the data: 'nobody'"),
        ("TIGER", {"users": ["[PAD]"]}, r"'\[PAD\]'"),
        ("TIGER", {"histories": [["i1"], ["i2", "x1", "x2"]]}, "number 2: not in.*'x1', 'x2'"),
        ("TIGER", {"histories": [["i1"], []]}, r"histories: number 2 is \[\]"),
        ("TIGER", {"histories": ["i1"]}, "number 1 is 'i1'; give a list"),
        ("TIGER", {"users": ["u1"], "histories": [["i1"]]}, "not both"),
        ("TIGER", {"users": ["u1"], "k": 0}, "k: 0 must be an integer from 1 to 40"),
        ("TIGER", {"users": ["u1"], "k": 41}, "k: 41"),
        ("TIGER", {"users": ["u1"], "k": True}, "k: True must be an integer from 1 to 40"),
        ("TIGER", {"users": ["u1"], "k": None}, "k: None must be an integer"),
        ("Pop", {"histories": [["i1"]]}, "Pop knows users by a vector of their own"),
    ],
)
def test_questions_that_cannot_be_answered_are_refused(name, question, message, recommender):
    with pytest.raises(ConfigError, match=message):
        recommender(name).stream(**question)  # before the first answer is asked for


OUTER = r'as in histories=\[\["50", "181"\]\]'


@pytest.mark.parametrize(
    "question, message",
    [
        ({"histories": [[]]}, r"number 1 is \[\]; give a list of item tokens, one at least"),
        ({"histories": [["i1"], ()]}, r"number 2 is \(\); .*one at least"),
        ({"histories": [np.array([])]}, "number 1 is array.*one at least"),
        ({"histories": [torch.tensor([])]}, "number 1 is tensor.*one at least"),
        ({"histories": [iter(())]}, "number 1 is .*one at least"),
        ({"histories": [None]}, f"number 1 is None, which is no list.*{OUTER}"),
        ({"histories": [1]}, f"number 1 is 1, which is no list.*{OUTER}"),
        ({"histories": 1}, f"histories: 1, which is no list.*{OUTER}"),
        ({"histories": torch.tensor(1)}, f"histories: 1, which is no list.*{OUTER}"),
        ({"histories": "i1"}, f"histories: 'i1' is no list of histories.*{OUTER}"),
        ({"histories": {"u1": ["i1"]}}, f"is no list of histories.*{OUTER}"),
        ({"histories": ["i1", "i2"]}, f"number 1 is 'i1'; .*outer list is missing.*{OUTER}"),
        ({"histories": np.array(["i1", "i2"])}, "number 1 is 'i1'; .*outer list is missing"),
        ({"histories": [{"i1": 1}]}, "number 1 is {'i1': 1}, which has no order"),
        ({"histories": [{"i1"}]}, "number 1 is {'i1'}, which has no order"),
        ({"histories": [["i1", None]]}, "number 1: not in the data: 'None'"),
        ({"users": 1.5}, "users: 1.5, which is no list; give a list of user tokens"),
        ({"users": {"u1": 1}}, "users: {'u1': 1} is no list"),
        ({"users": b"u1"}, "users: b'u1' is no list"),
        ({"users": ["u1"], "beam_size": 0}, "beam_size: 0 must be an integer of at least 1"),
        ({"users": ["u1"], "beam_size": "5"}, "beam_size: '5' must be an integer"),
        ({"users": ["u1"], "batch_size": 0}, "batch_size: 0 must be an integer of at least 1"),
        ({"users": ["u1"], "batch_size": -1}, "batch_size: -1 must be"),
        ({"users": ["u1"], "batch_size": 2.5}, "batch_size: 2.5 must be"),
        ({"users": ["u1"], "exclude_history": "no"}, "exclude_history: 'no' must be True, False"),
    ],
)
@pytest.mark.parametrize("name", ["TIGER", "IntRR", "SASRec"])
def test_odd_questions_are_refused_with_what_is_wanted(name, question, message, recommender):
    with pytest.raises(ConfigError, match=message):
        recommender(name).stream(**question)


def test_histories_and_users_come_in_any_form_of_list(recommender):
    own = recommender("TIGER")
    (expected,) = own.recommend(histories=[["i1", "i2"]], k=3)
    forms = (
        [("i1", "i2")], np.array([["i1", "i2"]]), [np.array(["i1", "i2"], dtype=object)],
        (h for h in [["i1", "i2"]]), [iter(["i1", "i2"])],
    )  # fmt: skip
    for form in forms:
        assert own.recommend(histories=form, k=np.int64(3)) == [expected]
    by_user = own.recommend(["u1", "u2"], k=3)
    for users in (("u1", "u2"), np.array(["u1", "u2"]), iter(["u1", "u2"])):
        assert own.recommend(users, k=3, batch_size=np.int64(1)) == by_user
    assert own.recommend("u1", k=3) == by_user[:1]


def test_numbers_are_tokens_also_in_arrays_and_tensors():
    tensor = torch.tensor([[5, 18]])
    for numbers in ([[5, 18]], np.array([[5, 18]]), tensor, [tensor[0]]):
        assert token_lists(numbers) == [["5", "18"]]
    for users in ([5, 18], np.array([5, 18]), torch.tensor([5, 18])):
        assert user_tokens(users) == ["5", "18"]
    assert user_tokens(5) == ["5"]


@pytest.mark.parametrize("name", ["TIGER", "SASRec"])
def test_of_nobody_there_are_no_answers(name, recommender):
    own = recommender(name)
    assert own.recommend(users=[], k=3) == own.recommend(histories=[], k=3) == []
    assert recommender("Pop").recommend(users=[], k=3) == []
