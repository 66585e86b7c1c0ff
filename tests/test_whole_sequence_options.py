"""What RecBole's causal models are trained with on whole sequences beside the plain softmax."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from tiny import write_tiny_dataset
from whole_models import make

from recbole_gr import load_data_and_model, run_recbole_gr
from recbole_gr.config import Config
from recbole_gr.distributed import processes
from recbole_gr.distributed.sharding import ShardedBatches
from recbole_gr.errors import ConfigError
from recbole_gr.pipeline import item_sids

WHOLE = {"train_sample": "sequence"}
CHANGED = {**WHOLE, "crop_shuffle": 0.8, "softmax_negatives": 5}
TEXT = {**WHOLE, "item_text": True, "text_fields": ["title"], "content_dim": 8}
SMALL = {"hidden_size": 16, "inner_size": 16, "learning_rate": 0.01, "show_progress": False}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_tiny_dataset(tmp_path / "data")


@pytest.fixture
def made(folder):
    """A function that gives a model and the loader of its training batches."""
    return partial(make, folder)


@pytest.mark.parametrize("model", ["SASRec", "GRU4Rec"])
@pytest.mark.parametrize("first, options", [
    (0, {"label_smoothing": 0.2}), (1, {"softmax_negatives": 1000}),
], ids=["smoothing", "negatives"])  # fmt: skip
def test_the_loss_is_that_of_prefix_samples(made, model, first, options):
    """All items as negatives are the softmax over all but the padding."""
    (whole, train), (other, prefix) = made(model, **WHOLE, **options), made(model)
    smoothing, loss, expected = options.get("label_smoothing", 0.0), 0.0, 0.0
    for batch in train:
        loss += float(whole.calculate_loss(batch).detach()) * int(batch["n_targets"].sum())
    for batch in prefix:
        states = other.forward(batch["item_id_list"], batch["item_length"])
        logits = (states @ other.item_embedding.weight.T).detach()[:, first:]
        targets = batch["item_id"] - first
        expected += float(
            F.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
        )
    assert loss == pytest.approx(expected, rel=1e-5)


def contents(train):
    return [{name: batch[name].tolist() for name in batch.interaction} for batch in train]


def test_changes_and_negatives_follow_from_the_generator_alone(made):
    (_, first), (_, again) = made(**CHANGED), made(**CHANGED, worker=1)
    epoch, state = contents(first), first.generator.get_state()
    torch.manual_seed(99)
    assert contents(again) == epoch
    second = contents(first)
    assert second != epoch
    _, resumed = made(**CHANGED)
    resumed.generator.set_state(state)
    assert contents(resumed) == second


def test_every_process_has_the_negatives_of_the_batch(made, monkeypatch):
    model, train = made(**CHANGED)
    batch = next(iter(train))
    whole, total = model.calculate_loss(batch), 0
    for rank in range(3):
        monkeypatch.setattr(processes, "_rank_info", processes.RankInfo(rank, 3, rank))
        shards = ShardedBatches([batch])
        total += model.calculate_loss(next(iter(shards))) * shards.share
    assert float(total.detach()) == pytest.approx(float(whole.detach()), rel=1e-5)


def test_the_fields_of_an_event_stay_together_and_what_is_beyond_the_end_is_empty(made):
    _, train = made(**{**CHANGED, "crop_shuffle": 1.0})
    rows = train._dataset.inter_feat
    time = {}
    for row in range(len(rows)):
        own = int(rows["user_id"][row])
        time[own, int(rows["item_id"][row])] = float(rows["timestamp"][row])
        for item, at in zip(rows["item_id_list"][row].tolist(), rows["timestamp_list"][row]):
            time.setdefault((own, item), float(at))
    counted = 0
    for batch in train:
        for row in range(len(batch)):
            own, length = int(batch["user_id"][row]), int(batch["item_length"][row])
            items, times = batch["item_id_list"][row], batch["timestamp_list"][row]
            for item, at in zip(items[:length].tolist(), times[:length].tolist()):
                assert at == pytest.approx(time[own, item], abs=1e-3)
            target = time[own, int(batch["item_id"][row])]
            assert float(batch["timestamp"][row]) == pytest.approx(target, abs=1e-3)
            assert not items[length:].any() and not times[length:].any()
            assert 1 <= int(batch["n_targets"][row]) <= length
        counted += int(batch["n_targets"].sum())
    assert counted < len(train._dataset)


def test_a_run_with_all_of_it_resumes_to_the_same_weights(folder):
    settings = {**CHANGED, **TEXT, **SMALL, "negative_distribution": "popularity"}
    settings |= {"data_path": str(folder), "eval_step": 0}
    ends = [{**settings, "epochs": 3, "checkpoint_dir": "a"}]
    part = run_recbole_gr(
        "SASRec", "tiny", config_dict={**settings, "epochs": 2, "checkpoint_dir": "b"}
    )["checkpoint"]
    ends.append({**ends[0], "resume": part})
    found = []
    for end in ends:
        file = run_recbole_gr("SASRec", "tiny", config_dict=end)["checkpoint"]
        found.append(load_data_and_model(file, show_progress=False)[1].state_dict())
    for name, value in found[0].items():
        assert torch.equal(found[1][name], value), name


@pytest.mark.parametrize("model", ["SASRec", "SASRecF", "GRU4Rec", "GRU4RecF"])
def test_items_are_embedded_by_id_and_content(made, model):
    (network, train), (plain, _) = made(model, **TEXT), made(model, **WHOLE)
    items, batch = network.item_embedding, next(iter(train))
    assert torch.equal(items.ids.weight, plain.item_embedding.weight)
    assert not items.content[0].any() and items.content[1:].norm(dim=1).mean() > 0.9
    table = items.ids.weight + items.content @ items.project.weight.T
    assert torch.allclose(items(torch.arange(len(table))), table, atol=1e-6)
    assert torch.allclose(items.weight, table, atol=1e-6)
    # The model's own code with that table in the place of its embedding.
    plain.load_state_dict({
        "item_embedding.weight": table,
        **{k: v for k, v in network.state_dict().items() if not k.startswith("item_embedding")},
    })  # fmt: skip
    with torch.no_grad():
        own, other = (float(one.calculate_loss(batch)) for one in (network, plain))
    assert own == pytest.approx(other)
    network.eval(), plain.eval()
    assert torch.allclose(
        network.full_sort_predict(batch), plain.full_sort_predict(batch), atol=1e-5
    )
    network.calculate_loss(batch).backward()
    assert items.project.weight.grad.any() and items.ids.weight.grad.any()


def test_an_item_without_interactions_is_scored_by_its_text(made):
    model, train = made(**TEXT)
    items, batch = model.eval().item_embedding, next(iter(train))
    with torch.no_grad():
        items.ids.weight[7] = 0  # nothing is known of it
        items.content[7] = items.content[5]
        items.ids.weight[5] = 0
        scores = model.full_sort_predict(batch)
        states = model.forward(batch["item_id_list"], batch["item_length"])
    assert torch.allclose(scores[:, 7], scores[:, 5]) and scores[:, 7].std() > 0
    expected = states @ items.project(items.content[7])
    assert torch.allclose(scores[:, 7], expected.detach(), atol=1e-5)


def test_a_checkpoint_holds_the_content(folder, monkeypatch):
    settings = {"data_path": str(folder), **TEXT, **SMALL, "epochs": 2}
    result = run_recbole_gr("SASRec", "tiny", config_dict=settings)
    assert result["sid"] is None and result["test_result"]["recall@10"] > 0
    monkeypatch.setattr(item_sids, "item_content", None)
    found = [load_data_and_model(result["checkpoint"], show_progress=False) for _ in range(2)]
    (config, model, _, _, _, test), (_, other, *_) = found
    users = next(iter(test))[0]
    assert torch.equal(model.full_sort_predict(users), other.full_sort_predict(users))
    trained = torch.load(result["checkpoint"], weights_only=True)["state_dict"]
    assert torch.equal(model.item_embedding.content, trained["item_embedding.content"])


@pytest.mark.parametrize("given, message", [
    ({"softmax_negatives": 5}, "give train_sample=sequence too"),
    ({"item_text": True}, "give train_sample=sequence too"),
    ({**WHOLE, "softmax_negatives": 5, "loss_type": "BPR"}, "give loss_type=CE"),
    ({**WHOLE, "softmax_negatives": 5, "label_smoothing": 0.1}, "leave one of both out"),
    ({**WHOLE, "softmax_negatives": -1}, "softmax_negatives: -1 must be"),
    ({**WHOLE, "negative_distribution": "zipf"}, "negative_distribution: 'zipf' is not one of"),
    ({**WHOLE, "crop_shuffle": 1.5}, "crop_shuffle: 1.5 must be"),
    ({**WHOLE, "softmax_negative": 1}, "Unknown key 'softmax_negative'.*softmax_negatives"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_the_data_are_read(folder, given, message):
    with pytest.raises(ConfigError, match=message):
        Config("SASRec", "tiny", config_dict={"data_path": str(folder), **given})


def test_other_models_do_not_know_the_keys(folder):
    given = {"data_path": str(folder), "softmax_negatives": 5}
    for model in ("NARM", "TIGER"):
        with pytest.raises(ConfigError, match="Unknown key 'softmax_negatives'"):
            Config(model, "tiny", config_dict=given)
