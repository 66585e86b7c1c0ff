"""Items beside their SIDs: input tokens, the softmax over items and the ranking, against loops."""

import pytest
import torch
import torch.nn.functional as F
from catalogue import untrained
from models import SMALL, random_batch, random_table
from runs import RUNS

from recbole_gr import Recommender, run_recbole_gr
from recbole_gr.config import Config
from recbole_gr.errors import ConfigError
from recbole_gr.model.full_softmax import full_softmax_loss
from recbole_gr.model.item_side import ItemSide, _some
from recbole_gr.registry import MODELS, get_model
from recbole_gr.serving.export import export
from recbole_gr.sid.table import SIDTable
from recbole_gr.storage.checkpoint import save_checkpoint
from recbole_gr.trainer import growth

N_ITEMS = 30
KINDS = {
    "TIGER": ("TIGER", {}),
    "TIGER-encoder": ("TIGER", {"architecture": "encoder_decoder"}),
    "IntRR": ("IntRR", {"uid_size": 12, "ran_hidden_size": 24, "decoding": "exact"}),
    "IntRR-beam": ("IntRR", {"uid_size": 12, "ran_hidden_size": 24}),
    "RPG": ("RPG", {"temperature": 0.2}),
}
EXACT = ("IntRR", "RPG")


def model_of(kind, shared=False, **options):
    """An untrained model of 30 items; of three items each on one SID where they are `shared`."""
    name, own = KINDS[kind]
    table = random_table(N_ITEMS, (4, 5, 3))
    if shared:
        codes = random_table(N_ITEMS // 3, (4, 5, 3)).codes[1:]
        table = SIDTable.from_item_codes(codes.repeat_interleave(3, 0), (4, 5, 3))
    content = torch.randn(N_ITEMS + 1, 6, generator=torch.Generator().manual_seed(1))
    content[0] = 0
    content = content if "content" in options.get("item_input", ()) else None
    model = untrained(name, table, 0, content, **{**SMALL, **own, **options})
    for name, weight in model.named_parameters():
        if name.startswith(("item_table", "to_items")) and weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.5)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_by_default_a_model_knows_items_by_their_sids_alone(kind):
    model = model_of(kind)
    assert model.item_table is None and not model.ranks_items
    assert not [name for name in model.state_dict() if "item" in name]


@pytest.mark.parametrize("kind", ["IntRR", "RPG"])
@pytest.mark.parametrize(
    "parts", [["sid", "id"], ["sid", "content"], ["id", "content", "sid"], ["id"]]
)
def test_a_token_is_the_sum_of_what_there_is(kind, parts):
    model, without = model_of(kind, item_input=parts), model_of(kind)
    without.load_state_dict(model.state_dict(), strict=False)
    items = torch.tensor([[3, 7, 7, 30]])
    if kind == "RPG":
        tokens, of_sids = model.item_tokens(items), without.item_tokens(items)
    else:
        tokens, of_sids = model.served().tokens[items], without.served().tokens[items]
    for place, item in enumerate(items[0].tolist()):
        expected = of_sids[0, place] if "sid" in parts else torch.zeros(SMALL["hidden_size"])
        if "id" in parts:
            expected = expected + model.item_table.ids.weight[item]
        if "content" in parts:
            expected = expected + model.item_table.project.weight @ model.item_table.content[item]
        assert torch.allclose(tokens[0, place], expected, atol=1e-5)
    assert model.weights_per_item


def test_content_alone_has_no_row_for_an_item():
    model = model_of("RPG", item_input=["sid", "content"])
    assert model.item_table.ids is None
    lengths = model.item_table.content[1:].norm(dim=1)
    assert lengths.mean().item() == pytest.approx(1)


@pytest.mark.parametrize("sample", ["sequence", "prefix"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_head_adds_the_cross_entropy_of_the_next_item(kind, sample):
    if kind == "TIGER-encoder" and sample == "sequence":
        return
    options = {"train_sample": sample}
    model, without = model_of(kind, item_head=0.7, **options), model_of(kind, **options)
    without.load_state_dict(model.state_dict(), strict=False)
    batch = random_batch(5, 6, N_ITEMS, n_targets=torch.tensor([3, 1, 1, 1, 1]))
    states = []
    hook = model.to_items.register_forward_hook(lambda _, given, out: states.append(out.detach()))
    loss = model.calculate_loss(batch)
    hook.remove()
    targets = []
    for row in range(5):
        length = int(batch["item_length"][row])
        items = [*batch["item_id_list"][row, :length].tolist(), int(batch["item_id"][row])]
        n = min(length, int(batch["n_targets"][row])) if sample == "sequence" else 1
        targets += items[-n:]
    logits = states[0].flatten(0, -2) @ model.item_table.weight.T
    expected = F.cross_entropy(logits, torch.tensor(targets))
    difference = loss.detach() - without.calculate_loss(batch).detach()
    assert difference.item() == pytest.approx(0.7 * expected.item(), rel=1e-4)
    loss.backward()
    assert model.to_items.weight.grad.abs().sum() > 0
    assert model.item_table.ids.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["IntRR", "RPG"])
def test_a_sample_of_items_stands_for_all_of_them(kind):
    batch = random_batch(5, 6, N_ITEMS)
    model, without = model_of(kind, item_head=1.0, item_head_negatives=N_ITEMS), model_of(kind)
    without.load_state_dict(model.state_dict(), strict=False)
    states = []
    model.to_items.register_forward_hook(lambda _, given, out: states.append(out.detach()))
    difference = model.calculate_loss(batch) - without.calculate_loss(batch)
    # All items are drawn, once each: the softmax over all but the padding.
    logits = states[0] @ model.item_table.weight[1:].T
    expected = F.cross_entropy(logits, batch["item_id"] - 1)
    assert difference.item() == pytest.approx(expected.item(), rel=1e-4)
    few = model_of(kind, item_head=1.0, item_head_negatives=3)
    torch.manual_seed(3)
    first = few.calculate_loss(batch)
    torch.manual_seed(3)
    assert torch.equal(few.calculate_loss(batch), first)
    assert not torch.equal(few.calculate_loss(batch), first)


def test_rows_of_the_softmax_may_have_no_weight():
    torch.manual_seed(0)
    given = [torch.randn(9, 4, dtype=torch.double), torch.randn(7, 4, dtype=torch.double)]
    targets, weights = torch.randint(7, (9,)), torch.tensor([1, 0, 1, 1, 0, 0, 1, 1, 0.0])
    results = []
    for weighted in (True, False):
        states, items = (value.clone().requires_grad_() for value in given)
        if weighted:
            loss = full_softmax_loss(states, items, targets, 0.1, weights)
        else:
            kept = weights > 0
            loss = F.cross_entropy(states[kept] @ items.T, targets[kept], label_smoothing=0.1)
        loss.backward()
        results.append([loss.detach(), states.grad, items.grad])
    for own, other in zip(*results):
        assert torch.allclose(own, other)


@pytest.mark.parametrize("excluding", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_items_are_ranked_by_both_probabilities(kind, shared, excluding):
    options = {"exclude_history": excluding, "renormalise": True}
    model = model_of(kind, shared, item_head=1.0, item_head_score=0.6, **options)
    without = model_of(kind, shared, **options)
    without.load_state_dict(model.state_dict(), strict=False)
    batch = random_batch(6, 6, N_ITEMS)
    with torch.no_grad():
        states = []
        hook = model.to_items.register_forward_hook(lambda _, given, out: states.append(given[0]))
        exact = model.exact(batch)
        hook.remove()
        of_sids = without.exact(batch)
        logits = model.to_items(states[0]) @ model.item_table.weight[1:].T
        expected = of_sids.clone()
        expected[:, 1:] += 0.6 * logits.log_softmax(1)
        assert torch.allclose(exact[:, 1:], expected[:, 1:], atol=1e-4)
        targets = expected.gather(1, batch["item_id"].unsqueeze(1))[:, 0]
        assert torch.allclose(model.predict(batch), targets, atol=1e-4)
        found = model.generate(batch, 5)
        held = without.search(batch)
    for row in range(6):
        gone = set(batch["item_id_list"][row].tolist()) if excluding else set()
        candidates = set(range(1, N_ITEMS + 1)) - gone
        if kind not in EXACT:  # what the beams hold
            leaves = {leaf for leaf in held.nodes[row].tolist() if leaf >= 0}
            paths = without.trie.item_paths()[-1]
            candidates = {item for item in candidates if int(paths[item, 0]) in leaves}
        order = sorted(candidates, key=lambda item: (-expected[row, item].item(), item))[:5]
        assert found.items[row].tolist() == order
        assert found.scores[row].tolist() == pytest.approx(expected[row, order].tolist(), abs=1e-4)


def test_ids_are_left_out_whole_and_the_mean_stays():
    torch.manual_seed(0)
    kept = _some(torch.ones(4000, 3), 0.25)
    assert sorted(kept.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert (kept[:, 0] == kept[:, 2]).all() and kept.mean().item() == pytest.approx(1, abs=0.03)
    model = model_of("RPG", item_input=["sid", "id"], item_dropout=0.5)
    items = torch.tensor([[1, 2, 3]])
    assert torch.equal(model.item_tokens(items), model.item_tokens(items))
    assert not torch.equal(model.train().item_tokens(items), model.item_tokens(items))


SETTINGS = {"item_input": ["sid", "id", "content"], "item_head": 0.5, "item_head_negatives": 9}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["IntRR", "RPG", "TIGER"])
def test_a_run_is_restored_resumed_and_exported_like_any_other(
    name, tiny_folder, tmp_path, monkeypatch, sequences
):
    monkeypatch.chdir(tmp_path)
    model, settings = RUNS[name]
    own = dict(SETTINGS)
    if name == "TIGER":
        del own["item_input"]
    given = {**settings, **own, "data_path": str(tiny_folder), "show_progress": False}
    whole = run_recbole_gr(model, "tiny", config_dict={**given, "epochs": 2})
    assert whole["test_ranks"]["user"].size == 60
    part = run_recbole_gr(model, "tiny", config_dict={**given, "epochs": 1})
    more = {**given, "epochs": 2, "resume": part["checkpoint"], "lr_scheduler": "constant"}
    constant = run_recbole_gr(
        model, "tiny", config_dict={**given, "epochs": 2, "lr_scheduler": "constant"}
    )
    started = run_recbole_gr(
        model, "tiny", config_dict={**given, "epochs": 1, "lr_scheduler": "constant"}
    )
    more["resume"] = started["checkpoint"]
    resumed = run_recbole_gr(model, "tiny", config_dict=more)
    assert resumed["test_result"] == constant["test_result"]
    recommender = Recommender.load(whole["checkpoint"], show_progress=False)
    histories = list(sequences.values())
    answers = recommender.recommend(histories=histories, k=5)
    described = export(whole["checkpoint"], "a.pt2", k=5)
    rows = torch.zeros(len(histories), 10, dtype=torch.long)
    for row, items in enumerate(histories):
        last = [recommender.item_tokens.index(item) for item in items[-10:]]
        rows[row, : len(last)] = torch.tensor(last)
    items, scores = torch.export.load("a.pt2").module()(rows, (rows > 0).sum(1))
    for row, answer in enumerate(answers):
        assert [described["items"][item] for item in items[row]] == answer.items
        assert scores[row].tolist() == pytest.approx(answer.scores, abs=1e-4)
    with pytest.raises(ConfigError, match="needs training for a new item|vector of its own"):
        recommender.add_items({"new": "words"})


def test_what_cannot_be_is_refused_before_data_are_read(tiny_folder):
    given = {"data_path": str(tiny_folder)}
    with pytest.raises(ConfigError, match="item_input: .*must be different ones of sid, id, cont"):
        Config("IntRR", "tiny", config_dict={**given, "item_input": ["sid", "idd"]})
    with pytest.raises(ConfigError, match="Unknown key 'item_input'"):
        Config("TIGER", "tiny", config_dict={**given, "item_input": ["sid", "id"]})
    with pytest.raises(ConfigError, match="Unknown key 'item_head'"):
        Config("PIT", "tiny", config_dict={**given, "item_head": 1.0})
    able = {name for name in MODELS if issubclass(get_model(name), ItemSide)}
    assert able == {"TIGER", "IntRR", "RPG", "R3VAE", "DACT"}


def test_content_of_a_later_period_has_one_scale_for_old_items_and_new_ones(tmp_path, monkeypatch):
    old = model_of("IntRR", item_input=["sid", "id", "content"])
    file = str(tmp_path / "old.pth")
    save_checkpoint(file, {"state_dict": old.state_dict()})
    load = lambda config, name, map_location: torch.load(name, weights_only=True)  # noqa: E731
    monkeypatch.setattr(growth, "load_checkpoint_of", load)
    new = model_of("IntRR", item_input=["sid", "id", "content"])
    made = new.item_table.content.mul_(2).clone()  # as of items that are longer on average
    growth.load_grown(new, file, {"device": "cpu"})
    assert torch.equal(new.item_table.content, made)
    assert torch.equal(new.item_table.ids.weight, old.item_table.ids.weight)
