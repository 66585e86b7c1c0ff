"""RPG: loss and scores against plain loops, exact ranking, and what its SIDs may be."""

import math

import pytest
import torch
from catalogue import untrained
from models import SMALL, random_batch, random_table

from recbole_gr.errors import ConfigError
from recbole_gr.generation.beam_search import best
from recbole_gr.model.norm import unit
from recbole_gr.sid.table import SIDTable
from recbole_gr.sid.trie import SIDTrie

SIZES = (4, 5, 3)
WIDTH = SMALL["hidden_size"]


def small_rpg(table=None, seed=0, **options):
    """An RPG of 16 features in evaluation mode, whose heads are not the identity."""
    settings = {**SMALL, "n_layers": 1, "temperature": 0.2, **options}
    model = untrained("RPG", table or random_table(30, SIZES), seed, **settings)
    torch.nn.init.normal_(model.heads.weight, std=0.4)
    torch.nn.init.normal_(model.heads.bias, std=0.4)
    return model


def shared_table():
    """30 items of 12 SIDs."""
    codes = random_table(12, SIZES).codes[1:]
    return SIDTable.from_item_codes(codes[torch.arange(30) * 7 % 12], SIZES)


def slow_state(model, items):
    """The backbone's state after a history, whose tokens are means of code embeddings."""
    tokens = []
    for item in items:
        rows = [sum(SIZES[:level]) + code for level, code in enumerate(model.codes[item].tolist())]
        tokens.append(sum(model.code_embedding.weight[row] for row in rows) / len(rows))
    return model.backbone(torch.stack(tokens).unsqueeze(0))[0, -1]


def slow_log_probabilities(model, state):
    """Per level, the log-probability of each code, one cosine at a time."""
    levels = []
    for level, size in enumerate(SIZES):
        weight = model.heads.weight[level * WIDTH : (level + 1) * WIDTH]
        inner = weight @ state + model.heads.bias[level * WIDTH : (level + 1) * WIDTH]
        head = state + inner / (1 + (-inner).exp())
        logits = []
        for code in range(size):
            embedding = model.code_embedding.weight[sum(SIZES[:level]) + code]
            cosine = (head @ embedding) / (head.norm() * embedding.norm())
            logits.append(cosine / model.temperature)
        total = sum(logit.exp() for logit in logits).log()
        levels.append([logit - total for logit in logits])
    return levels


def histories(batch):
    lengths = batch["item_length"].tolist()
    return [row[:n] for row, n in zip(batch["item_id_list"].tolist(), lengths)]


def slow_scores(model, items):
    """The log-probability of every item, by loops over items and codes."""
    levels = slow_log_probabilities(model, slow_state(model, items))
    sids = [tuple(codes) for codes in model.codes[1:].tolist()]
    of_sid = {
        sid: sum(float(levels[level][code]) for level, code in enumerate(sid)) for sid in sids
    }
    total = math.log(sum(math.exp(score) for score in of_sid.values()))
    total = total if model.renormalise else 0.0
    return [of_sid[sid] - total - math.log(sids.count(sid)) for sid in sids]


def test_the_loss_of_a_row_is_that_of_a_loop_over_positions_levels_and_codes():
    model = small_rpg(train_sample="sequence")
    batch = random_batch(6, 6, 30, n_targets=torch.tensor([6, 2, 1, 1, 1, 1]))
    losses = []
    for row, items in enumerate(histories(batch)):
        whole = [*items, int(batch["item_id"][row])]
        for place in range(len(items)):
            if place >= len(items) - int(batch["n_targets"][row]):
                levels = slow_log_probabilities(model, slow_state(model, whole[: place + 1]))
                target = model.codes[whole[place + 1]].tolist()
                losses.append(-sum(levels[i][code] for i, code in enumerate(target)) / 3)
    expected = sum(losses) / len(losses)
    assert len(losses) > 8
    assert torch.allclose(model.calculate_loss(batch), expected, atol=1e-5)


def test_a_whole_sequence_has_the_loss_and_gradients_of_its_prefix_samples():
    whole, single = small_rpg(train_sample="sequence"), small_rpg(train_sample="prefix")
    batch = random_batch(5, 6, 30)
    batch["n_targets"] = batch["item_length"].clone()
    prefixes = {name: [] for name in ("item_id_list", "item_length", "item_id")}
    for items, target in zip(histories(batch), batch["item_id"].tolist()):
        sequence = [*items, target]
        for length in range(1, len(sequence)):
            prefixes["item_id_list"].append(sequence[:length] + [0] * (6 - length))
            prefixes["item_length"].append(length)
            prefixes["item_id"].append(sequence[length])
    prefixes = {name: torch.tensor(values) for name, values in prefixes.items()}
    losses = [whole.calculate_loss(batch), single.calculate_loss(prefixes)]
    assert torch.allclose(*losses, atol=1e-6)
    for loss in losses:
        loss.backward()
    for one, other in zip(whole.parameters(), single.parameters()):
        assert torch.allclose(one.grad, other.grad, atol=1e-6)


def test_gradients_reach_every_weight_and_of_the_codes_those_of_the_data():
    """All codes of a level stand in its softmax; codes of no item are pushed away by it."""
    model = small_rpg().train()
    model.calculate_loss(random_batch(5, 6, 30)).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name
    by_level = model.heads.weight.grad.view(3, WIDTH, WIDTH).abs().sum((1, 2))
    assert (by_level > 0).all() and (model.code_embedding.weight.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("table", [None, shared_table()], ids=["distinct", "shared"])
@torch.no_grad()
def test_the_score_of_every_item_is_that_of_a_loop_over_items_and_codes(table, renormalise):
    model, batch = small_rpg(table, renormalise=renormalise), random_batch(5, 6, 30)
    exact = model.exact(batch)
    assert (exact[:, 0] == -math.inf).all()
    for row, items in enumerate(histories(batch)):
        assert torch.allclose(exact[row, 1:], torch.tensor(slow_scores(model, items)), atol=1e-4)
    total = exact.exp().sum(1)
    assert torch.allclose(total, torch.ones(5), atol=1e-5) == renormalise
    own = exact.gather(1, batch["item_id"].unsqueeze(1))[:, 0]
    assert torch.allclose(model.predict(batch), own, atol=1e-5)


@pytest.mark.parametrize("exclude_history", [False, True])
@pytest.mark.parametrize("table", [None, shared_table()], ids=["distinct", "shared"])
@torch.no_grad()
def test_the_ranking_is_that_of_brute_force_however_many_users_are_scored_at_once(
    table, exclude_history, monkeypatch
):
    model, batch = small_rpg(table, exclude_history=exclude_history), random_batch(7, 6, 30)
    expected = torch.full((7, 31), -math.inf)
    for row, items in enumerate(histories(batch)):
        expected[row, 1:] = torch.tensor(slow_scores(model, items))
        if exclude_history:
            expected[row, items] = -math.inf
    assert torch.allclose(model.full_sort_predict(batch), expected, atol=1e-4)
    # Equal scores of items on one SID differ in a loop by rounding.
    values, order = best(expected.mul(1e4).round().div(1e4), torch.arange(31).expand(7, -1), 10)
    seen = []
    scores_of = model.sid_scores
    monkeypatch.setattr(
        model, "sid_scores", lambda users: seen.append(len(users)) or scores_of(users)
    )
    for at_once in (2**26, 100):
        monkeypatch.setattr("recbole_gr.model.exact.AT_ONCE", at_once)
        found = model.generate(batch, 10)
        assert torch.equal(found.items, order)
        assert torch.allclose(found.scores, values, atol=2e-4)
    assert seen == [7, 3, 3, 1]


@torch.no_grad()
def test_a_flat_tree_has_the_leaves_of_the_tree_with_all_prefixes():
    table = shared_table()
    flat, whole = SIDTrie.flat(table), SIDTrie.from_table(table)
    assert flat.n_nodes == [1, whole.n_nodes[-1]]
    for one, other in zip(flat.entries(), whole.entries()):
        assert torch.equal(one, other)
    assert torch.equal(flat.item_paths()[-1], whole.item_paths()[-1])


@torch.no_grad()
def test_new_items_are_scored_by_their_codes():
    model, batch = small_rpg(), random_batch(5, 6, 30)
    before = model.exact(batch)
    twin = model.codes[3:4]
    assert model.add_sids(twin).tolist() == [31]
    after = model.exact(batch)
    assert torch.allclose(after[:, 31], after[:, 3]) and torch.equal(
        after.argmax(1), before.argmax(1)
    )
    assert torch.allclose(after[:, 3], before[:, 3] - math.log(2), atol=1e-5)


def test_codes_of_one_level_are_a_softmax_over_items():
    table = SIDTable.from_item_codes(torch.arange(30).unsqueeze(1), (30,))
    settings = {**SMALL, "n_layers": 1}
    model = untrained("RPG", table, **settings)
    batch = random_batch(5, 6, 30)
    state = model.user_state(batch)  # heads begin as the identity
    cosine = torch.nn.functional.cosine_similarity(
        state.unsqueeze(1), model.code_embedding.weight.unsqueeze(0), dim=2
    )
    assert torch.allclose(model.exact(batch)[:, 1:], (cosine / 0.03).log_softmax(1), atol=1e-4)


def test_the_gradient_of_vectors_of_length_one_is_that_of_autograd():
    x = torch.randn(5, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.allclose(unit(x), x / x.norm(dim=-1, keepdim=True))
    assert torch.autograd.gradcheck(unit, x)


def test_mixed_precision_keeps_the_cosines_in_single_precision():
    model, batch = small_rpg(), random_batch(5, 6, 30)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.code_logits(model.user_state(batch))
        loss = model.calculate_loss(batch)
    assert {level.dtype for level in logits} == {torch.float32} and loss.dtype == torch.float32
    assert torch.allclose(loss, model.calculate_loss(batch), atol=0.05)


def test_a_pattern_of_pairs_is_learned():
    """Item i is followed by the item 7 places on."""
    model = small_rpg(random_table(30, SIZES), train_sample="sequence", temperature=0.1).train()
    start = torch.arange(30).unsqueeze(1)
    walk = (start + 7 * torch.arange(5)) % 30 + 1  # [30, 5]
    batch = {
        "item_id_list": walk[:, :4], "item_length": torch.full((30,), 4), "item_id": walk[:, 4],
        "n_targets": torch.full((30,), 4),
    }  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        model.calculate_loss(batch).backward()
        optimizer.step()
    found = model.eval().generate(batch, 1)
    assert (found.items[:, 0] == walk[:, 4]).float().mean() == 1


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"loss_normalisation": "trie"}, "loss_normalisation: trie"),
        ({"head_size": 7}, "head_size: 7 must be even"),
        ({"backbone": "nothing"}, "nothing"),
    ],
)
def test_settings_that_do_not_go_together_are_named(settings, words):
    with pytest.raises(ConfigError, match=words):
        small_rpg(**settings)
