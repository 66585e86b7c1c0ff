"""TIGER: losses against explicit formulas, cached decoding against plain decoding."""

import pytest
import torch
from models import random_batch, random_table, rows_of, small_tiger
from recbole.data.interaction import Interaction
from runs import rest_slow

from recbole_gr.errors import ConfigError
from recbole_gr.generation.beam_search import best
from recbole_gr.generation.exact import beam_regret

BOTH = pytest.mark.parametrize("architecture", ["decoder_only", "encoder_decoder"])
VARIANTS = [
    {},
    {"user_tokens": 4},
    {"tie_embeddings": True},
    {"position": "relative_bias"},
    {"position": "rotary"},
]


def slow_logits(model, history, user, prefix):
    """Logits of the next code, from one pass over the unpadded tokens, no cache, no batch."""
    tokens = [model.codes[i, lv] + model.level_offset[lv] for i in history for lv in range(3)]
    x = model.code_embedding(torch.stack(tokens))
    if model.user_tokens:
        x = torch.cat([model.user_embedding(torch.tensor([user % model.user_tokens])), x])
    codes = [model.code_embedding(c + model.level_offset[lv]) for lv, c in enumerate(prefix)]
    if model.causal:
        hidden = model.decoder(torch.stack([*x, *codes]).unsqueeze(0))[0, -1]
    else:
        memory = model.encoder(x.unsqueeze(0))
        hidden = model.decoder(torch.stack([model.begin, *codes]).unsqueeze(0), memory=memory)
        hidden = hidden[0, -1]
    return model.heads[len(prefix)](hidden)


def slow_item_scores(model, history, user):
    """Log-probability of every item by one decoder pass per code."""
    scores = [float("-inf")]
    for item in range(1, len(model.codes)):
        codes = model.codes[item]
        score = 0.0
        for level in range(3):
            logits = slow_logits(model, history, user, codes[:level])
            score += logits.log_softmax(0)[codes[level]].item()
        scores.append(score)
    return torch.tensor(scores)


@BOTH
@pytest.mark.parametrize(
    "options", rest_slow(*VARIANTS), ids=["plain", "user", "tied", "bias", "rotary"]
)
@torch.no_grad()
def test_cached_batched_decoding_equals_uncached_decoding_of_one_user(architecture, options):
    model = small_tiger(architecture=architecture, **options)
    batch = random_batch(4, 6, 30)
    exact, found = model.exact(batch), model.generate(batch, 30, beam_size=60)
    for row in range(4):
        history = batch["item_id_list"][row, : batch["item_length"][row]]
        slow = slow_item_scores(model, history, batch["user_id"][row])
        assert torch.allclose(exact[row, 1:], slow[1:], atol=1e-4)
        values, order = best(exact[row : row + 1], torch.arange(31).unsqueeze(0), 30)
        assert torch.equal(found.items[row], order[0])
        assert torch.allclose(found.scores[row], values[0], atol=1e-4)
        alone = model.generate(rows_of(batch, torch.tensor([row])), 10)
        together = model.generate(batch, 10)
        assert torch.equal(alone.items[0], together.items[row])
        assert torch.allclose(alone.scores[0], together.scores[row], atol=1e-4)


@BOTH
@torch.no_grad()
def test_prediction_of_one_item_is_its_exact_score(architecture):
    model = small_tiger(architecture=architecture)
    batch = random_batch(5, 6, 30)
    exact = model.exact(batch)
    expected = exact[torch.arange(5), batch["item_id"]]
    assert torch.allclose(model.predict(batch), expected, atol=1e-4)


@BOTH
@torch.no_grad()
def test_dense_scores_hold_the_generated_items_and_nothing_else(architecture):
    model = small_tiger(architecture=architecture)
    batch = random_batch(5, 6, 30)
    dense, found = model.full_sort_predict(batch), model.generate(batch, 10)
    assert dense.shape == (5, 31)
    assert ((dense > float("-inf")).sum(1) == 10).all()
    assert torch.equal(dense.topk(10).indices.sort().values, found.items.sort().values)


@BOTH
def test_loss_is_the_mean_negative_log_probability_of_the_target(architecture):
    model = small_tiger(architecture=architecture, train_sample="prefix")
    batch = random_batch(6, 6, 30)
    with torch.no_grad():
        exact = model.exact(batch)
    expected = -exact[torch.arange(6), batch["item_id"]].mean()
    assert torch.allclose(model.calculate_loss(batch), expected, atol=1e-4)


def prefixes_of(items, user):
    """Every prefix sample of one sequence, as single-row batches."""
    for end in range(1, len(items)):
        yield Interaction(
            {
                "user_id": torch.tensor([user]),
                "item_id_list": items[:end].unsqueeze(0),
                "item_length": torch.tensor([end]),
                "item_id": items[end : end + 1],
                "n_targets": torch.tensor([1]),
            }
        )


@pytest.mark.parametrize("options", VARIANTS, ids=["plain", "user", "tied", "bias", "rotary"])
def test_whole_sequences_give_the_loss_and_gradients_of_their_prefix_samples(options):
    whole = small_tiger(train_sample="sequence", **options)
    prefix = small_tiger(train_sample="prefix", **options)
    batch = random_batch(4, 6, 30)
    batch.update(Interaction({"n_targets": batch["item_length"].clone()}))
    whole.calculate_loss(batch).backward()
    losses = []
    for row in range(4):
        length = batch["item_length"][row]
        items = torch.cat([batch["item_id_list"][row, :length], batch["item_id"][row : row + 1]])
        losses += [prefix.calculate_loss(p) for p in prefixes_of(items, batch["user_id"][row])]
    assert len(losses) == int(batch["n_targets"].sum())
    mean = torch.stack(losses).mean()
    mean.backward()
    assert torch.allclose(whole.calculate_loss(batch), mean, atol=1e-5)
    for (name, a), b in zip(whole.named_parameters(), prefix.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-5), name


def test_only_the_last_n_targets_of_a_row_count():
    model = small_tiger(train_sample="sequence")
    batch = random_batch(3, 6, 30, n_targets=torch.tensor([2, 1, 1]))
    length = batch["item_length"][0]
    items = torch.cat([batch["item_id_list"][0, :length], batch["item_id"][:1]])
    prefix = small_tiger(train_sample="prefix")
    losses = [prefix.calculate_loss(p) for p in list(prefixes_of(items, 1))[-2:]]
    losses += [prefix.calculate_loss(rows_of(batch, torch.tensor([r]))) for r in (1, 2)]
    assert torch.allclose(model.calculate_loss(batch), torch.stack(losses).mean(), atol=1e-5)


def test_padding_does_not_change_the_loss():
    model = small_tiger(train_sample="sequence")
    batch = random_batch(4, 6, 30, n_targets=torch.ones(4).long())
    wide = Interaction({name: batch[name] for name in batch.columns})
    wide["item_id_list"] = torch.nn.functional.pad(batch["item_id_list"], (0, 5))
    assert torch.allclose(model.calculate_loss(batch), model.calculate_loss(wide), atol=1e-6)


def test_the_target_does_not_leak_into_its_own_prediction():
    model = small_tiger(train_sample="sequence")
    batch = random_batch(2, 6, 30)
    items = model.sequence(batch)
    logits = model._causal_logits(batch)[0]
    changed = Interaction({name: batch[name].clone() for name in batch.columns})
    changed["item_id"] = changed["item_id"] % 30 + 1
    other = model._causal_logits(changed)[0]
    last = batch["item_length"] - 1
    rows = torch.arange(2)
    assert torch.allclose(logits[0][rows, last], other[0][rows, last])
    assert items.shape == (2, 7)


@BOTH
def test_every_parameter_gets_a_gradient(architecture):
    model = small_tiger(architecture=architecture, user_tokens=3)
    model.calculate_loss(random_batch(4, 6, 30)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@BOTH
@torch.no_grad()
def test_history_is_excluded_only_when_asked_for(architecture):
    model = small_tiger(architecture=architecture, exclude_history=True)
    batch = random_batch(5, 6, 30)
    found = model.generate(batch, 10)
    for row in range(5):
        assert not set(found.items[row].tolist()) & set(batch["item_id_list"][row].tolist())
    free = small_tiger(architecture=architecture).exact(batch)
    free.scatter_(1, batch["item_id_list"], float("-inf"))
    wide = model.generate(batch, 10, beam_size=100)
    assert torch.equal(wide.items, best(free, torch.arange(31).expand(5, -1), 10)[1])


@torch.no_grad()
def test_a_wider_beam_has_no_more_regret_and_full_width_has_none():
    model = small_tiger(table=random_table(200, (8, 8, 8)), initializer_range=0.6)
    batch = random_batch(16, 6, 200)
    exact = model.exact(batch)
    regret = [beam_regret(model.generate(batch, 10, w), exact, 10).mean() for w in (10, 50, 200)]
    assert regret[0] >= regret[1] >= regret[2] == 0 and regret[0] > 0


@BOTH
def test_bfloat16_autocast_trains_and_ranks_like_float32(architecture):
    model = small_tiger(architecture=architecture)
    batch = random_batch(8, 6, 30)
    loss = model.calculate_loss(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.calculate_loss(batch)
        half.backward()
        found = model.generate(batch, 10, beam_size=60)
    assert found.scores.dtype == torch.float32
    assert abs(half.item() - loss.item()) < 0.05 * loss.item()
    exact = model.generate(batch, 10, beam_size=60)
    assert torch.allclose(found.scores, exact.scores, atol=0.5)


def test_checkpoint_of_other_sids_is_refused():
    model = small_tiger()
    other = small_tiger(table=random_table(30, (4, 5, 3), seed=1))
    with pytest.raises(ConfigError, match="other SIDs"):
        other.load_state_dict(model.state_dict())
    small_tiger(seed=5).load_state_dict(model.state_dict())


def test_encoder_decoder_refuses_whole_sequence_training():
    with pytest.raises(ConfigError, match="train_sample"):
        small_tiger(architecture="encoder_decoder", train_sample="sequence")
    with pytest.raises(ConfigError, match="architecture"):
        small_tiger(architecture="recurrent")
