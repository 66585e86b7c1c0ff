"""The pointer to neighbours of the last items, against loops, and IntRR with it as a run."""

import math
from pathlib import Path

import pytest
import torch
from catalogue import untrained
from models import SMALL, random_batch, random_table
from runs import RUNS, arguments

from recbole_gr import Recommender, load_data_and_model, run_recbole_gr
from recbole_gr.errors import ConfigError
from recbole_gr.model.pointer import FIRST_SHARPNESS, ContentPointer
from recbole_gr.serving.explain import explain
from recbole_gr.serving.export import export
from recbole_gr.sid.table import SIDTable

N_ITEMS, SIZES, LAST, K = 30, (4, 5, 3), 2, 4
POINTER = {"pointer_items": LAST, "pointer_neighbours": K, "decoding": "exact"}
INTRR = {**SMALL, "uid_size": 12, "ran_hidden_size": 24, "lambda_aln": "released"}
TRIE = {"loss_normalisation": "trie", "renormalise": True}


def content_of(n_items=N_ITEMS):
    content = torch.randn(n_items + 1, 6, generator=torch.Generator().manual_seed(1))
    content[0] = 0
    return content


def model_of(shared=False, **options):
    table = random_table(N_ITEMS, SIZES)
    if shared:
        codes = random_table(N_ITEMS // 3, SIZES).codes[1:]
        table = SIDTable.from_item_codes(codes.repeat_interleave(3, 0), SIZES)
    model = untrained("IntRR", table, 0, content_of(), **{**INTRR, **TRIE, **POINTER, **options})
    torch.nn.init.normal_(model.pointer.gate.weight)
    return model.eval()


def neighbours_of(item):
    content = content_of()
    unit = [row / row.norm() for row in content[1:]]
    alike = {o + 1: float(unit[item - 1] @ unit[o]) for o in range(N_ITEMS) if o != item - 1}
    near = sorted(alike, key=lambda other: -alike[other])[:K]
    odds = [math.exp(FIRST_SHARPNESS * alike[other]) for other in near]
    return {other: odd / sum(odds) for other, odd in zip(near, odds)}


def slow_probabilities(model, of_sid, state, history):
    """Of all items of one user, from the probabilities of their SIDs."""
    last = list(reversed(history))[:LAST]
    gate = model.pointer.gate
    logits = (gate.weight @ state + gate.bias).tolist()[: 1 + len(last)]
    shares = [math.exp(x) / sum(map(math.exp, logits)) for x in logits]
    mixed = [shares[0] * p for p in of_sid]
    for share, item in zip(shares[1:], last):
        for other, p in neighbours_of(item).items():
            mixed[other] += share * p
    return mixed


@pytest.mark.parametrize("shared", [False, True])
def test_items_are_ranked_by_the_mixture(shared):
    model, batch = model_of(shared), random_batch(5, 6, N_ITEMS)
    without = model_of(shared)
    without.load_state_dict(model.state_dict())
    without.ranks_items = False
    of_sid, exact = without.exact(batch).exp(), model.exact(batch)
    states = model.state(batch)
    for row in range(len(states)):
        history = [i for i in batch["item_id_list"][row].tolist() if i]
        expected = slow_probabilities(model, of_sid[row].tolist(), states[row], history)
        torch.testing.assert_close(exact[row].exp()[1:], torch.tensor(expected[1:]))
    assert exact[:, 1:].exp().sum(1).tolist() == pytest.approx([1.0] * len(states), abs=1e-5)
    best = model.generate(batch, 5)
    torch.testing.assert_close(best.scores, exact.gather(1, best.items))
    torch.testing.assert_close(best.scores, exact.topk(5).values)
    torch.testing.assert_close(
        model.predict(batch), exact.gather(1, batch["item_id"].unsqueeze(1))[:, 0]
    )
    added = model.added(batch)[:, 1:]
    torch.testing.assert_close(added + without.exact(batch)[:, 1:], exact[:, 1:])
    assert model.item_probabilities


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("sample", ["sequence", "prefix"])
def test_the_loss_is_minus_the_log_likelihood_that_is_ranked(sample, shared):
    model, batch = model_of(shared, train_sample=sample, dropout=0.0), random_batch(5, 6, N_ITEMS)
    batch["item_id"][0] = next(iter(neighbours_of(int(batch["item_id_list"][0, 5]))))
    if sample == "prefix":
        expected = -model.predict(batch).mean()
    else:
        batch["n_targets"] = torch.tensor([3, 1, 2, 4, 1]).minimum(batch["item_length"])
        parts = []
        items = model.sequence(batch)
        for row in range(5):
            length = int(batch["item_length"][row])
            for end in range(length + 1 - int(batch["n_targets"][row]), length + 1):
                history = torch.zeros_like(batch["item_id_list"][:1])
                history[0, :end] = items[row, :end]
                one = {"item_id_list": history, "item_length": torch.tensor([end])}
                one["item_id"] = items[row, end].unsqueeze(0)
                parts.append(-model.predict(one))
        expected = torch.cat(parts).mean()
    model.train()
    loss = model.calculate_loss(batch)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    loss.backward()
    for name in ("gate.weight", "gate.bias", "log_sharpness"):
        assert model.pointer.get_parameter(name).grad.abs().sum() > 0, name


def test_users_without_history_or_content_have_their_sids_alone():
    content = content_of()
    content[2] = content[1] + 0.1
    content[3:] = 0  # near to nothing
    pointer = ContentPointer(8, 2, 1, content)
    log_probs = torch.randn(1, N_ITEMS + 1).log_softmax(1)
    log_probs[0, 0] = -math.inf
    log_probs = log_probs.log_softmax(1)
    state = torch.randn(1, 8)
    alone = pointer.mixed(log_probs, state, torch.tensor([[0, 0]]))
    torch.testing.assert_close(alone[:, 1:], log_probs[:, 1:])
    some = pointer.mixed(log_probs, state, torch.tensor([[1, 0]])).detach()
    assert float(some.exp().sum()) == pytest.approx(1.0, abs=1e-5)
    assert int((some - log_probs)[0, 1:].argmax()) + 1 == 2  # the one item that is alike


def test_what_is_nearly_impossible_keeps_its_order_and_its_gradient():
    pointer = ContentPointer(8, 2, 1, content_of())
    log_probs = torch.full((1, N_ITEMS + 1), -80.0, requires_grad=True)
    log_probs = log_probs - torch.arange(N_ITEMS + 1) / 10
    state, last = torch.randn(1, 8), torch.tensor([[1, 2]])
    of_sids = pointer.mixed(log_probs, state, last)[0] - log_probs[0]
    far = torch.ones(N_ITEMS + 1, dtype=torch.bool)
    far[[0, int(pointer.near[1, 0]), int(pointer.near[2, 0])]] = False
    torch.testing.assert_close(of_sids[far], of_sids[far][0].expand(int(far.sum())))
    items = torch.arange(N_ITEMS + 1)[far]
    found = pointer.log_likelihood(
        log_probs[0, far], state.expand(len(items), 8), last.expand(len(items), 2), items
    )
    torch.testing.assert_close(found, pointer.mixed(log_probs, state, last)[0, far])
    (gradient,) = torch.autograd.grad(found.sum(), log_probs)
    torch.testing.assert_close(gradient[0, far], torch.ones(len(items)))


def test_what_cannot_be_pointed_to_is_refused_by_name(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for wrong, said in (
        ({"decoding": "beam"}, "pointer_items: .*decoding=exact"),
        ({"level_weights": [1.0, 1.0, 1.0, 0.5]}, "level_weights: .*pointer_items"),
    ):
        settings = {**RUNS["IntRR"][1], **POINTER, **wrong}
        with pytest.raises(ConfigError, match=said):
            run_recbole_gr(cmd_args=arguments("IntRR", tiny_folder, **settings))


def test_a_run_is_restored_explained_resumed_and_exported(
    tiny_folder, tmp_path, monkeypatch, sequences
):
    monkeypatch.chdir(tmp_path)
    settings = {**RUNS["IntRR"][1], **POINTER, "eval_likelihood": True}
    result = run_recbole_gr(cmd_args=arguments("IntRR", tiny_folder, **settings))
    assert result["test_ranks"]["log_likelihood"].shape == result["test_ranks"]["user"].shape
    checkpoint = result["checkpoint"]
    _, model, *_, test = load_data_and_model(checkpoint)
    assert model.pointer.cosine.isfinite().any()
    assert torch.isfinite(model.full_sort_predict(next(iter(test))[0])[:, 1:]).all()
    own = Recommender.load(checkpoint, show_progress=False)
    answer = next(iter(own.recommend(users=[next(iter(sequences))], k=5)))
    told = explain(own, user=next(iter(sequences)), k=5)
    for item, score in zip(told["items"], answer.scores):
        assert item["score"] == pytest.approx(score, abs=1e-5)
        of_sid = item["sources"][0]["log_prob"]
        assert of_sid + item["added"] == pytest.approx(score, abs=1e-4)
        assert item["probability"] == pytest.approx(math.exp(score), rel=1e-4)
    file = Path("pointed.pt2")
    described = export(checkpoint, file, k=5)
    rows = [[own.item_tokens.index(i) for i in items[-10:]] for items in sequences.values()]
    history = torch.zeros(len(rows), 10, dtype=torch.long)
    for row, items in enumerate(rows):
        history[row, : len(items)] = torch.tensor(items)
    items, _ = torch.export.load(file).module()(history, (history > 0).sum(1))
    answers = own.recommend(histories=list(sequences.values()), k=5)
    for row, answer in enumerate(answers):
        assert [described["items"][item] for item in items[row]] == answer.items
    more = {**settings, "epochs": 2, "resume": checkpoint}
    resumed = run_recbole_gr(cmd_args=arguments("IntRR", tiny_folder, **more))
    whole = run_recbole_gr(cmd_args=arguments("IntRR", tiny_folder, **{**settings, "epochs": 2}))
    assert resumed["test_result"] == whole["test_result"]
