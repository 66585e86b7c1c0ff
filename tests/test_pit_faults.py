"""What an audit of PIT found wrong stays right: periods, state of the data, ablation, readings."""

from types import SimpleNamespace

import pytest
import torch
from models import random_table
from pit_models import (
    N_ITEMS,
    batch_for,
    evolving,
    small_pit,
    train_epoch,
    whole_batch,
)

from recbole_gr.model.pit.fading import move
from recbole_gr.model.pit.histories import Histories
from recbole_gr.model.pit.prior import item_prior
from recbole_gr.storage.checkpoint import save_checkpoint
from recbole_gr.trainer import growth
from recbole_gr.trainer.pit import PITTrainer

BIG = random_table(36, (4, 5, 3))  # its first 30 items are those of the small table


def grown(old, tmp_path, monkeypatch, phase=2, **options):
    """A model of 36 items that goes on from one of 30."""
    file = str(tmp_path / "old.pth")
    save_checkpoint(file, {"state_dict": old.state_dict(), "phase": phase})
    content = torch.randn(37, 8, generator=torch.Generator().manual_seed(8)) * 3 + 5
    popularity = torch.arange(37) * 10
    new = small_pit(table=BIG, seed=4, content=content, popularity=popularity, **options)
    made = {name: value.clone() for name, value in new.state_dict().items()}
    load = lambda config, name, map_location: torch.load(name, weights_only=True)  # noqa: E731
    monkeypatch.setattr(growth, "load_checkpoint_of", load)
    growth.load_grown(new, file, {"device": "cpu"})
    return new, made


@pytest.mark.parametrize("options", [{}, {"freeze_i2t": False}, {"evolve": "items"}], ids=str)
def test_a_period_that_goes_on_stays_in_phase_2_with_its_index(tmp_path, monkeypatch, options):
    old = evolving(small_pit(**options))
    train_epoch(old, range(3))
    if "evolve" in options:  # one item has moved
        every = torch.cartesian_prod(*(torch.arange(n) for n in old.sizes))
        free = (every.unsqueeze(1) != old.index.edges()[0]).any(2).all(1)
        codes = every[free][:1]
        move(old.index, torch.tensor([7]), codes)
    new, _ = grown(old, tmp_path, monkeypatch, **options)
    assert new.phase == 2
    for name in ("count", "weight", "codes", "log_prob"):
        kept, was = getattr(new.index, name), getattr(old.index, name)
        assert torch.equal(kept[: N_ITEMS + 1], was)
    if "evolve" in options:
        assert torch.equal(new.index.heaviest(torch.tensor([7])), codes)
    # New items learn their starting SIDs alone at first, the others go on as they were.
    every = torch.arange(1, new.n_items)
    new.eval()
    new.calculate_loss(whole_batch(n_items=36, seed=3))
    new.end_epoch()
    _, items, _ = new.index.edges()
    assert set(torch.bincount(items)[31:].tolist()) == {1}
    new.admit_new_items()
    if "evolve" not in options:
        assert not bool(new._alone(every).any())
        assert torch.equal(new.pool[:31], old.pool)
        new.end_epoch()
        assert int(torch.bincount(new.index.edges()[1])[31:].max()) > 1


def test_what_was_saved_in_the_warm_up_goes_on_there(tmp_path, monkeypatch):
    new, _ = grown(small_pit(), tmp_path, monkeypatch, phase=1)
    assert new.phase == 1


def test_state_of_the_data_is_of_the_new_data_after_growth(tmp_path, monkeypatch):
    old = evolving(small_pit())
    new, made = grown(old, tmp_path, monkeypatch)
    for name in ("popularity", "items.content", "items.mean", "items.spread"):
        assert torch.equal(new.state_dict()[name], made[name]), name
    assert torch.equal(new.tail, torch.arange(36, 0, -1))  # the most popular first
    assert torch.equal(new.items.offset[:31], old.items.offset)  # weights are kept


@pytest.mark.parametrize("select", ["min", "item"])
def test_the_ablation_of_the_index_trains_the_same_model(select):
    states = []
    for ablate in (None, "index"):
        model = evolving(small_pit(select=select, ablate=ablate, loss_normalisation="trie"))
        torch.manual_seed(0)
        train_epoch(model, range(3), lr=0.5)
        states.append(model.state_dict())
        assert model.trie.one_sid_each == (ablate == "index")
        assert not model.full_trie.one_sid_each
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


@torch.no_grad()
def test_a_new_item_stands_beside_the_popular_one_that_it_is_like():
    popularity = torch.full((N_ITEMS + 1,), 20)
    popularity[0], popularity[9] = 0, 1000
    model = evolving(small_pit(popularity=popularity, index_item_prior="popularity"))
    torch.nn.init.zeros_(model.items.offset)
    raw = model.items.content[9] * model.items.spread + model.items.mean
    (new,) = model.add_items(raw.unsqueeze(0)).tolist()
    model.index.codes[new], model.index.weight[new] = model.index.codes[9], model.index.weight[9]
    model.index.log_prob[new] = model.index.log_prob[9]
    model.rebuild()
    scores = model.exact(whole_batch())
    behind = scores[:, 9] - scores[:, new]
    assert bool((behind < 1.0).all())  # log 1001 = 6.9 without
    assert bool((behind >= 0).all())


def test_the_prior_of_a_new_item_is_the_weighted_mean_of_its_likes():
    generator = torch.Generator().manual_seed(0)
    content = torch.randn(15, 4, generator=generator)
    popularity = torch.tensor([0.0, 5, 0, 1, 2, 3, 4, 50, 60, 70, 80, 0, 9, 10, 11])
    prior = item_prior(popularity, content)
    known = [i for i in range(15) if popularity[i] > 0]
    assert torch.equal(prior[known], popularity[known] + 1) and prior[0] == 1
    for new in (2, 11):
        cosine = {
            i: float(torch.nn.functional.cosine_similarity(content[new], content[i], 0))
            for i in known
        }
        near = sorted(known, key=lambda i: -cosine[i])[:10]
        weight = torch.tensor([cosine[i] * 10 for i in near]).softmax(0)
        expected = sum(float(w) * (float(popularity[i]) + 1) for w, i in zip(weight, near))
        assert float(prior[new]) == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_selection_reads_histories_without_dropout():
    model = evolving(small_pit(dropout=0.6))
    batch = whole_batch(n_rows=16)
    targets, counted = model._targets(batch)
    expected = model._choose(batch, targets, counted).codes
    model.train()
    for seed in range(3):
        torch.manual_seed(seed)
        assert torch.equal(model._choose(batch, targets, counted).codes, expected)


def test_negatives_leave_out_all_that_a_user_has_taken(monkeypatch):
    batch = whole_batch()
    far = torch.tensor([25, 26, 27])  # taken by user 1 outside of the window
    taken = {"user_id": torch.ones(3).long(), "item_id": far}
    model = small_pit(taken=taken)
    seen = []
    judge = model._judgement
    monkeypatch.setattr(model, "_judgement", lambda *a: seen.append(a[1:]) or judge(*a))
    for seed in range(20):
        torch.manual_seed(seed)
        model.calculate_loss(batch)
    left = {
        int(item) for judged, weight in seen for item in judged[0, :, 1:][weight[0, :, 1:]].unique()
    }
    others = set(range(1, N_ITEMS + 1)) - set(far.tolist()) - set(batch["item_id_list"][0].tolist())
    assert left == others - {int(batch["item_id"][0])}


def test_a_history_is_its_targets_and_what_came_before_the_first():
    lists = torch.tensor([[1, 0], [1, 2], [2, 3], [7, 8], [8, 9]])
    rows = {
        "user_id": torch.tensor([1, 1, 1, 2, 2]), "item_id": torch.tensor([2, 3, 4, 9, 5]),
        "item_id_list": lists, "item_length": torch.tensor([1, 2, 2, 2, 2]),
    }  # fmt: skip
    names = {
        "uid_field": "user_id", "iid_field": "item_id", "item_list_field": "item_id_list",
        "item_list_length_field": "item_length", "inter_feat": rows,
    }  # fmt: skip
    histories = Histories.of(SimpleNamespace(**names), 10)
    users, items = histories.pairs()
    assert list(zip(users.tolist(), items.tolist())) == [
        (1, 1), (1, 2), (1, 3), (1, 4), (2, 5), (2, 7), (2, 8), (2, 9)
    ]  # fmt: skip
    asked = torch.tensor([[4, 5, 0, 12], [4, 5, 7, 12]])
    users = torch.tensor([[1], [2]]).expand_as(asked)
    assert histories.hold(users, asked).tolist() == [
        [True, False, False, False], [False, True, True, False]
    ]  # fmt: skip


# The index


@pytest.mark.parametrize("evolve", ["pairs", "items"])
def test_the_index_is_refreshed_inside_an_epoch_where_asked(evolve):
    model = evolving(small_pit(refresh_every=2, evolve=evolve)).train()
    refreshed, refresh = [], model._refresh
    model._refresh = lambda: refreshed.append(step) or refresh()
    for step in range(7):
        model.calculate_loss(batch_for(model, seed=step))
    assert refreshed == [2, 4, 6]
    model.eval()
    model.calculate_loss(batch_for(model))
    assert refreshed == [2, 4, 6]


def test_the_trie_is_kept_where_nothing_has_moved():
    model = evolving(small_pit(index_threshold=0.0))
    trie = model.full_trie
    share = trie.entry_log_share().clone()
    codes, log_prob = model.pool.long(), model.pool_log_prob.clone()
    log_prob[0] = float("-inf")
    item = torch.tensor([5])
    model.index.observe(item, codes[item], log_prob[item], torch.tensor([[0.0, 9.0, 0.0, 0.0]]))
    model.end_epoch()
    assert model.full_trie is trie  # other weights and heaviest SIDs, the same pairs
    assert not torch.equal(trie.entry_log_share(), share)
    fresh = type(model.index).trie(evolving_copy(model).index, model.item_prior)
    torch.testing.assert_close(trie.entry_log_share(), fresh.entry_log_share())
    model.index.weight[5, 1:] = 0.0
    model.rebuild()
    assert model.full_trie is not trie


def evolving_copy(model):
    other = small_pit(index_threshold=0.0)
    other.load_state_dict(model.state_dict())
    other.index._built.clear()
    return other


def test_the_bridge_costs_next_to_nothing():
    """Item-to-Token is sure of the SIDs that it has learned, and the index takes its word."""
    losses = {}
    for temperature in (None, 4.0):
        options = {} if temperature is None else {"index_temperature": temperature}
        options["loss_normalisation"] = "trie"
        model = small_pit(index_item_prior="popularity", **options).train()
        model.probe = whole_batch(n_rows=16, seed=3)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
        torch.manual_seed(0)
        for step in range(60):
            optimizer.zero_grad()
            model.calculate_loss(whole_batch(n_rows=16, seed=step % 4)).backward()
            optimizer.step()
        before = model.probe_loss()
        model.start_co_evolution()
        losses[temperature] = model.probe_loss() - before
    assert losses[None] < 0.02 < losses[4.0]
    assert small_pit().index.temperature == 1.0


@pytest.mark.parametrize("warmup, epochs, expected", [(5, 12, 3), (2, 12, 2), (5, 3, 1)])
def test_new_items_get_candidates_after_a_quarter_of_the_epochs_or_their_warm_up(
    warmup, epochs, expected, monkeypatch
):
    """Epochs are counted from the beginning of the phase, and it is once."""
    trainer, at, now = object.__new__(PITTrainer), [], [0]
    trainer.model = SimpleNamespace(
        phase=2, begin_epoch=lambda *_: None, admit_new_items=lambda: at.append(now[0])
    )
    trainer._warmup_epochs, trainer._phase_start, trainer.epochs = warmup, 4, 4 + epochs
    monkeypatch.setattr(PITTrainer.__mro__[1], "_train_epoch", lambda *_, **__: 0.0)
    for epoch in range(epochs):
        now[0] = epoch
        trainer._train_epoch(None, 4 + epoch)
    assert at == [expected]
