"""IntRR: the RAN and the losses against plain loops, gradients, whole sequences."""

import pytest
import torch
import torch.nn.functional as F
from models import random_batch, random_table, rows_of, small_intrr
from recbole.data.interaction import Interaction

from recbole_gr.errors import ConfigError
from recbole_gr.model.backbone import Backbone
from recbole_gr.model.intrr.model import _distinct
from recbole_gr.model.intrr.ran import RecursiveAssignment


def small_ran(**options):
    torch.manual_seed(3)
    return RecursiveAssignment((4, 5, 3), 6, 9, **{"std": 0.7, **options})


def slow_query(ran, level, context, guidance):
    """``q_l`` as the equation has it: an MLP of the context and the guidance, in this order."""
    if level == 0:
        return guidance
    both = torch.cat([context, guidance])
    return ran.outer[level - 1](F.relu(ran.inner[level - 1](both)))


def slow_walk(ran, guidance, codes=None):
    """Token and logits of one vector, one level at a time."""
    logits, token, context = [], torch.zeros(len(guidance)), None
    for level, codebook in enumerate(ran.codebooks):
        query = slow_query(ran, level, context, guidance)
        logits.append(torch.stack([(codeword * query).sum() for codeword in codebook]))
        p = torch.softmax(logits[-1] / ran.temperature, 0)
        soft = sum(p[v] * codebook[v] for v in range(len(codebook)))
        own = codebook[p.argmax()] if ran.straight_through else soft
        token = token + own
        context = own if codes is None else codebook[codes[level]]
    return token, logits


@pytest.mark.parametrize("context", ["ste", "soft"])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_the_network_walks_the_levels_like_a_plain_loop(context, temperature):
    ran, guidance = small_ran(context=context, temperature=temperature), torch.randn(7, 6)
    codes = torch.stack([torch.randint(size, (7,)) for size in ran.sizes], 1)
    tokens, free = ran.assign(guidance)
    taught = ran.teach(guidance, codes)
    for row in range(7):
        token, logits = slow_walk(ran, guidance[row])
        assert torch.allclose(tokens[row], token, atol=1e-5)
        known = slow_walk(ran, guidance[row], codes[row])[1]
        for level in range(3):
            assert torch.allclose(free[level][row], logits[level], atol=1e-5)
            assert torch.allclose(taught[level][row], known[level], atol=1e-5)


@pytest.mark.parametrize("compiling", [False, True])
@pytest.mark.parametrize(
    "temperature, dtype, atol",
    [(1.0, torch.float32, 1e-6), (0.4, torch.float32, 1e-6), (0.4, torch.bfloat16, 0.1)],
)
def test_a_straight_through_context_is_a_codeword_with_the_gradient_of_the_mixture(
    temperature, dtype, atol, compiling, monkeypatch
):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    ran = small_ran(temperature=temperature)
    logits = torch.randn(5, 4, dtype=dtype, requires_grad=True)
    context = ran._context(0, logits)
    assert torch.allclose(context, ran.codebooks[0][logits.argmax(1)], atol=1e-6)
    upstream = torch.randn(5, 6)
    inputs = (logits, ran.codebooks[0])
    own = torch.autograd.grad((context * upstream).sum(), inputs)
    mixture = ((logits.float() / temperature).softmax(1) @ ran.codebooks[0] * upstream).sum()
    for a, b in zip(own, torch.autograd.grad(mixture, inputs), strict=True):
        assert a.dtype == b.dtype and torch.allclose(a, b, atol=atol)


def test_of_equal_logits_the_first_code_is_the_context():
    ran = small_ran()
    assert torch.equal(ran._context(0, torch.zeros(3, 4)), ran.codebooks[0][[0, 0, 0]])


def test_the_last_code_of_a_path_changes_no_logits():
    ran, guidance = small_ran(), torch.randn(2, 6)
    codes = torch.tensor([[1, 2, 0], [3, 4, 1]])
    changed = codes + torch.tensor([0, 0, 1])
    for a, b in zip(ran.teach(guidance, codes), ran.teach(guidance, changed), strict=True):
        assert torch.equal(a, b)


def slow_losses(model, batch):
    """``L_rec`` and ``L_aln`` of prefix samples, summed row by row, without padding or batches."""
    rec, aligned, n_items = 0.0, 0.0, 0
    for row in range(len(batch["item_length"])):
        history = batch["item_id_list"][row, : batch["item_length"][row]]
        guidance = model.uid_projection(model.uid_embedding(history))
        walks = [slow_walk(model.ran, g) for g in guidance]
        hidden = model.backbone(torch.stack([token for token, _ in walks]).unsqueeze(0))[0, -1]
        target = model.codes[batch["item_id"][row]]
        logits = slow_walk(model.ran, hidden, target)[1]
        rec += sum(-logits[level].log_softmax(0)[target[level]] for level in range(3))
        for item, (_, own) in zip(history, walks):
            codes = model.codes[item]
            aligned += sum(-own[level].log_softmax(0)[codes[level]] for level in range(3))
        n_items += len(history)
    return rec / len(batch["item_length"]), aligned / n_items


@pytest.mark.parametrize("weight", [0.0, 0.1, 2.0])
def test_the_loss_is_that_of_the_equations(weight):
    model = small_intrr(train_sample="prefix", lambda_aln=weight)
    batch = random_batch(5, 6, 30)
    rec, aligned = slow_losses(model, batch)
    assert torch.allclose(model.calculate_loss(batch), rec + weight * aligned, atol=1e-4)


def test_levels_are_weighted_and_only_the_first_ones_aligned():
    batch, losses = random_batch(5, 6, 30), []
    for level in range(3):
        weights = [float(level == other) for other in range(3)]
        losses.append(small_intrr(level_weights=weights).calculate_loss(batch))
    whole = small_intrr(level_weights=[2.0, 0.5, 3.0]).calculate_loss(batch)
    assert torch.allclose(whole, 2 * losses[0] + 0.5 * losses[1] + 3 * losses[2], atol=1e-4)
    two = small_intrr(lambda_aln=1.0, alignment_levels=2)
    model, items = small_intrr(), torch.arange(1, 9)
    _, logits = model.assign(items)
    expected = sum(
        F.cross_entropy(logits[level], model.codes[items][:, level], reduction="none")
        for level in range(2)
    )
    assert torch.allclose(two._misalignment(items, two.assign(items)[1]), expected, atol=1e-5)


def all_prefixes(batch):
    """One batch of every prefix sample of the rows' counted targets."""
    rows = []
    for row in range(len(batch["item_length"])):
        length = int(batch["item_length"][row])
        items = batch["item_id_list"][row, :length].tolist() + [int(batch["item_id"][row])]
        for end in range(length - int(batch["n_targets"][row]) + 1, length + 1):
            rows.append((items[:end], items[end]))
    width = max(len(history) for history, _ in rows)
    padded = [history + [0] * (width - len(history)) for history, _ in rows]
    return Interaction(
        {
            "user_id": torch.ones(len(rows), dtype=torch.long),
            "item_id_list": torch.tensor(padded),
            "item_length": torch.tensor([len(history) for history, _ in rows]),
            "item_id": torch.tensor([target for _, target in rows]),
            "n_targets": torch.ones(len(rows), dtype=torch.long),
        }
    )


BACKBONES = [{}, {"position": "rotary"}, {"backbone": "hstu"}, {"backbone": "hstu_original"}]


@pytest.mark.parametrize("options", BACKBONES, ids=str)
@pytest.mark.parametrize("counted", ["all", "some"])
def test_whole_sequences_give_the_loss_and_gradients_of_their_prefix_samples(options, counted):
    settings = {**options, "lambda_aln": 0.3}
    whole = small_intrr(train_sample="sequence", **settings)
    prefix = small_intrr(train_sample="prefix", **settings)
    batch = random_batch(4, 6, 30)
    n_targets = batch["item_length"].clone()
    batch.update(Interaction({"n_targets": n_targets if counted == "all" else n_targets // 2 + 1}))
    a, b = whole.calculate_loss(batch), prefix.calculate_loss(all_prefixes(batch))
    assert torch.allclose(a, b, atol=1e-4)
    a.backward()
    b.backward()
    for (name, one), other in zip(whole.named_parameters(), prefix.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-4), name


@pytest.mark.parametrize("sample", ["sequence", "prefix"])
def test_padding_and_batching_do_not_change_the_loss(sample):
    model = small_intrr(train_sample=sample, lambda_aln=0.5)
    batch = random_batch(4, 6, 30)
    wide = Interaction({name: batch[name] for name in batch.columns})
    wide["item_id_list"] = F.pad(batch["item_id_list"], (0, 5))
    assert torch.allclose(model.calculate_loss(batch), model.calculate_loss(wide), atol=1e-5)
    model.lambda_aln = 0.0
    alone = [model.calculate_loss(rows_of(batch, torch.tensor([row]))) for row in range(4)]
    assert torch.allclose(model.calculate_loss(batch), sum(alone) / 4, atol=1e-4)


def test_distinct_items_computed_once_give_the_loss_of_all_positions():
    model = small_intrr(lambda_aln=0.5)
    batch = random_batch(6, 6, 5)  # five items: most positions are repeats
    losses = [model.calculate_loss(batch)]
    losses.append(model._loss_of(batch, batch["item_id_list"].flatten(), None))
    assert torch.allclose(losses[0], losses[1], atol=1e-5)
    grads = [torch.autograd.grad(loss, list(model.parameters())) for loss in losses]
    for a, b in zip(*grads, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def grads_of(loss, model):
    names, parameters = zip(*model.named_parameters())
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {
        name: 0.0 if grad is None else float(grad.abs().sum()) for name, grad in zip(names, grads)
    }


@pytest.mark.parametrize("backbone", ["transformer", "hstu", "hstu_original"])
@pytest.mark.parametrize("context", ["ste", "soft"])
def test_the_recommendation_loss_reaches_every_weight(context, backbone):
    model = small_intrr(context=context, backbone=backbone)
    for name, grad in grads_of(model.calculate_loss(random_batch(6, 6, 30)), model).items():
        assert grad > 0, name


def test_the_alignment_loss_reaches_the_item_side_alone():
    model = small_intrr(lambda_aln=1.0)
    batch = random_batch(6, 6, 30)
    history = batch["item_id_list"]
    _, alignment = model._read_items(history, model.counted(batch), *_distinct(history))
    for name, grad in grads_of(alignment, model).items():
        assert (grad > 0) == (not name.startswith("backbone")), name
    only_history = torch.autograd.grad(alignment_of(model, batch), model.uid_embedding.weight)[0]
    touched = only_history.abs().sum(1) > 0
    assert touched.nonzero().flatten().tolist() == sorted(set(history.flatten().tolist()) - {0})


def alignment_of(model, batch):
    history = batch["item_id_list"]
    return model._read_items(history, model.counted(batch), *_distinct(history))[1]


def test_without_alignment_the_tokens_do_not_depend_on_the_sids():
    table, other = random_table(30, (4, 5, 3)), random_table(30, (4, 5, 3), seed=9)
    items = torch.arange(31)
    tokens = [small_intrr(t).assign(items)[0] for t in (table, other)]
    assert torch.equal(*tokens) and not torch.equal(table.codes, other.codes)


def test_the_target_does_not_leak_into_its_own_prediction():
    model = small_intrr()
    batch = random_batch(3, 6, 30)
    changed = Interaction({name: batch[name].clone() for name in batch.columns})
    changed["item_id"] = changed["item_id"] % 30 + 1
    assert torch.equal(model.user_state(batch), model.user_state(changed))


def test_item_histories_longer_than_the_window_keep_the_most_recent_items(parts):
    config, _, train, _, test = parts(model="IntRR", MAX_ITEM_LIST_LENGTH=4, uid_size=8)
    for loader in (train, test):
        rows = loader._dataset.inter_feat
        assert int(rows["item_length"].max()) == 4 and config["train_sample"] == "sequence"
        longest = rows["item_length"] == 4
        assert (rows["item_id_list"][longest] > 0).all()


@pytest.mark.parametrize(
    "options, named",
    [
        ({"context": "hard"}, "context"),
        ({"temperature": 0}, "temperature"),
        ({"lambda_aln": "figure"}, "lambda_aln.*paper, or released"),
        ({"lambda_aln": -1}, "lambda_aln"),
        ({"level_weights": [1.0, 1.0]}, "level_weights: 2 weights for SIDs of 3"),
        ({"level_weights": "all"}, "level_weights"),
        ({"alignment_levels": 4}, "alignment_levels"),
        ({"backbone": "transfomer"}, "transformer"),
        ({"decoding": "greedy"}, "decoding"),
        ({"train_sample": "window"}, "train_sample"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"dropout": 1.0}, "dropout"),
        ({"head_size": 7, "position": "rotary"}, "head_size"),
    ],
    ids=str,
)
def test_bad_settings_are_refused_by_name(options, named):
    with pytest.raises(ConfigError, match=named):
        small_intrr(**options)


def test_named_alignment_weights():
    assert small_intrr(lambda_aln="released").lambda_aln == 0.0
    assert small_intrr(lambda_aln="paper").lambda_aln == 0.1


class RunningMean(Backbone):
    """A causal backbone from outside: the mean of the tokens so far."""

    def __init__(self, config):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.full((config["hidden_size"],), 2.0))

    def forward(self, x):
        count = torch.arange(1, x.shape[1] + 1).unsqueeze(1)
        return self.scale * x.cumsum(1) / count


def test_any_causal_backbone_plugs_in_by_its_class():
    model = small_intrr(backbone="test_intrr:RunningMean")
    assert type(model.backbone).__name__ == "RunningMean"
    for name, grad in grads_of(model.calculate_loss(random_batch(6, 6, 30)), model).items():
        assert grad > 0, name
    batch = random_batch(3, 6, 30)
    tokens = model.assign(batch["item_id_list"][0])[0]
    assert torch.allclose(model.user_state(batch)[0], 2 * tokens.mean(0), atol=1e-5)
