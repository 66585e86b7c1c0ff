"""DACT's tokenizer: losses against sums over single items, gradients, drift selection, periods."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recbole_gr.errors import ConfigError
from recbole_gr.tokenizer.collaborative.dact import DACT
from recbole_gr.tokenizer.collaborative.drift import (
    DriftIdentification,
    assignment_drift,
    code_log_probs,
    drift_mask,
    mix,
)
from recbole_gr.tokenizer.collaborative.imitation import forced_loss
from recbole_gr.tokenizer.collaborative.losses import (
    collaborative_loss,
    quantization_loss,
    quantize_straight,
    reconstruction_share,
)
from recbole_gr.tokenizer.collaborative.schedule import share_of_rate, training_amount

N, DIM, WIDTH = 64, 12, 8
SMALL = {
    "codebook_size": 6,
    "sid_levels": 3,
    "rqvae_hidden": [16],
    "rqvae_dim": WIDTH,
    "tokenizer_epochs": 6,
    "tokenizer_batch_size": 32,
    "tokenizer_warmup_epochs": 2,
    "tokenizer_evaluate_every": 3,
    "continual_epochs": 4,
    "seed": 3,
}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dact(**options):
    return DACT({**SMALL, **options}, DIM)


def fitted(**options):
    tokenizer = dact(**options)
    tokenizer.fit(draw(N, DIM), signals={"cf_vectors": draw(N, WIDTH, seed=1)}, progress=False)
    return tokenizer


@pytest.fixture(scope="module")
def first():
    return fitted()


# Quantisation


def test_the_quantised_vector_is_the_sum_of_codewords_and_its_jacobian_the_identity():
    books = [draw(6, WIDTH, seed=level) for level in range(3)]
    latent = draw(5, WIDTH, seed=9).requires_grad_()
    codes, total, residuals, words = quantize_straight(latent, books)
    rest = latent.detach().clone()
    for level, book in enumerate(books):
        nearest = (rest.unsqueeze(1) - book).square().sum(2).argmin(1)
        assert torch.equal(codes[:, level], nearest)
        assert torch.allclose(residuals[level], rest, atol=1e-6)
        rest = rest - book[nearest]
    assert torch.allclose(total, sum(words), atol=1e-6)
    jacobian = torch.autograd.functional.jacobian(
        lambda z: quantize_straight(z, books)[1], latent.detach()
    )
    identity = torch.eye(5 * WIDTH).view(5, WIDTH, 5, WIDTH)
    assert torch.allclose(jacobian, identity)
    (gradient,) = torch.autograd.grad(residuals[1].sum(), latent, allow_unused=True)
    assert gradient is None or not gradient.any()


def test_quantisation_loss_is_a_mean_over_entries_and_levels():
    residuals, words = ([draw(4, WIDTH, seed=s) for s in seeds] for seeds in ((1, 2), (3, 4)))
    expected = 0.0
    for residual, word in zip(residuals, words):
        expected += 1.25 * float((residual - word).square().sum()) / (4 * WIDTH)
    assert float(quantization_loss(residuals, words, 0.25)) == pytest.approx(expected / 2, rel=1e-5)
    residual, word = residuals[0].requires_grad_(), words[0].requires_grad_()
    loss = quantization_loss([residual], [word], 0.25)
    to_residual, to_word = torch.autograd.grad(loss, (residual, word))
    assert torch.allclose(to_residual, -0.25 * to_word)


def test_collaborative_loss_is_infonce_over_the_batch():
    quantized, vectors = draw(7, WIDTH), draw(7, WIDTH, seed=1)

    def slow(rows):
        total = 0.0
        for i in rows:
            cosines = [float(F.cosine_similarity(quantized[i], vectors[j], dim=0)) for j in rows]
            own = float(F.cosine_similarity(quantized[i], vectors[i], dim=0))
            total -= own - math.log(sum(math.exp(c) for c in cosines))
        return total / len(rows)

    assert float(collaborative_loss(quantized, vectors)) == pytest.approx(slow(range(7)), rel=1e-5)
    known = torch.tensor([True, False, True, True, False, True, True])
    rows = known.nonzero().squeeze(1).tolist()
    masked = collaborative_loss(quantized, vectors, known)
    assert float(masked) == pytest.approx(slow(rows), rel=1e-5)
    assert float(collaborative_loss(quantized, vectors, torch.zeros(7, dtype=torch.bool))) == 0


# Drift


def test_the_drift_module_has_the_published_size_and_reads_its_memory():
    module = DriftIdentification(32)
    assert sum(p.numel() for p in module.parameters()) == 7_361
    module = DriftIdentification(WIDTH, slots=3)
    before, latent, vectors = (draw(4, WIDTH, seed=s).requires_grad_() for s in (1, 2, 3))
    confidence = module(before, latent, vectors)
    for i in range(4):
        a, b, g = (x[i].detach() / x[i].detach().norm() for x in (before, latent, vectors))
        features = torch.cat([a * g, b * g, a - b])
        scores = [
            float(features @ key / features.norm() / key.norm() / 0.1)
            for key in module.keys.detach()
        ]
        weights = torch.tensor(scores).softmax(0)
        read = sum(w * value for w, value in zip(weights, module.values))
        expected = torch.sigmoid(module.head(read.unsqueeze(0)))[0, 0]
        assert torch.allclose(confidence[i], expected, atol=1e-5)
    # Nothing flows into the encoder of this period.
    assert torch.autograd.grad(confidence.sum(), latent, allow_unused=True)[0] is None


@pytest.mark.parametrize("n, share, most", [(64, 0.3, 19), (10, 0.3, 3), (2, 0.3, 1), (5, 1.0, 5)])
def test_the_mask_marks_a_share_of_the_batch_exactly_and_lets_gradients_through(n, share, most):
    confidence = torch.rand(n, generator=torch.Generator().manual_seed(n)).requires_grad_()
    mask = drift_mask(confidence, share)
    assert sorted(set(mask.tolist())) == ([0.0, 1.0] if most < n else [1.0])
    assert int(mask.sum()) == most
    chosen = confidence[mask.detach() > 0].min()
    assert bool((confidence[mask.detach() == 0] <= chosen).all())
    weights = draw(n)
    (gradient,) = torch.autograd.grad((mask * weights).sum(), confidence)
    assert torch.equal(gradient, weights)


def test_held_items_have_their_old_latents_to_the_last_bit():
    latent, before = draw(20, WIDTH), draw(20, WIDTH, seed=1)
    mask = drift_mask(torch.rand(20, requires_grad=True), 0.3)
    drifting, stationary = mix(mask, latent, before)
    marked = mask.detach() > 0
    assert torch.equal(drifting[~marked], before[~marked])
    assert torch.equal(drifting[marked], latent[marked])
    assert torch.equal(stationary[marked], before[marked])
    assert torch.equal(stationary[~marked], latent[~marked])


def test_assignment_drift_is_zero_for_equal_assignments_and_a_kl_over_the_codes():
    latent, book = draw(5, WIDTH), draw(256, WIDTH, seed=1)
    teacher = code_log_probs(latent, book)
    expected = (-(latent.unsqueeze(1) - book).square().sum(2)).log_softmax(1)
    assert torch.allclose(teacher, expected, atol=1e-4)
    assert float(assignment_drift(teacher, teacher)) == 0
    student = code_log_probs(latent + 0.3, book)
    kl = (teacher.exp() * (teacher - student)).sum(1).mean()
    assert float(assignment_drift(teacher, student)) == pytest.approx(float(kl) / 256, rel=1e-5)
    sharp = torch.full((1, 4), -1e9).index_fill(1, torch.tensor([2]), 0.0)
    even = torch.full((1, 4), 0.25).log()
    assert float(assignment_drift(sharp, even)) == pytest.approx(math.log(4) / 4, rel=1e-5)


# Schedule and scale


def test_the_learning_rate_is_that_of_the_published_code():
    """Linear warm-up and decay as `get_linear_schedule_with_warmup` of transformers has it."""
    transformers = pytest.importorskip("transformers")
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    published = transformers.get_linear_schedule_with_warmup(optimizer, 5, 40)
    for step in range(40):
        assert share_of_rate(step, 5, 40) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        published.step()


def test_the_rate_rises_to_its_peak_and_falls_to_zero_after_the_warm_up():
    shares = [share_of_rate(step, 4, 12) for step in range(12)]
    assert shares == [0, 0.25, 0.5, 0.75, *(left / 8 for left in range(8, 0, -1))]
    capped = [share_of_rate(step, 4, 12, "capped") for step in range(12)]
    assert max(capped) == 0.75 and capped[0] == 0.25 and capped[-1] == 1 / 12
    assert share_of_rate(4, 4, 4) == 0  # after the last step, of a training that is all warm-up


def test_the_optimiser_follows_the_schedule_that_is_asked_for(monkeypatch):
    step, rates = torch.optim.AdamW.step, []

    def noted(optimizer, *args, **kwargs):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    for schedule in ("linear", "capped"):
        fitted(tokenizer_schedule=schedule, tokenizer_learning_rate=0.01)
        expected = [0.01 * share_of_rate(s, 4, 12, schedule) for s in range(12)]
        assert rates == pytest.approx(expected)
        rates.clear()


def test_the_amount_of_training_is_epochs_times_rate_and_said_beside_the_authors(caplog):
    assert training_amount(1e-4, 5000, 50, 10) == pytest.approx(0.25, rel=1e-3)
    assert training_amount(1e-4, 500, 50, 10) == pytest.approx(0.025, rel=1e-3)
    assert training_amount(5e-4, 150, 50, 10, "capped") == pytest.approx(0.028, rel=0.02)
    with caplog.at_level("INFO"):
        first = fitted()
        second = dact(continual_epochs=500, tokenizer_batch_size=64, tokenizer_warmup_epochs=50)
        second.fit_continual(first, draw(N, DIM), draw(N, WIDTH), progress=False)
    said = [r.getMessage() for r in caplog.records if "epochs x rate" in r.getMessage()]
    assert "authors' 10 is" in said[0]
    assert said[1].endswith("epochs x rate 0.025; the authors' 0.25 is 10 x as much")


def test_the_reconstruction_weighs_by_the_variance_of_the_content_but_for_the_authors(caplog):
    common = F.normalize(draw(1, 768, seed=8), dim=1)
    text = F.normalize(common + 0.41 * F.normalize(draw(400, 768), dim=1), dim=1)
    cosines = text @ text.T
    off = float((cosines.sum() - cosines.trace()) / (400 * 399))
    assert off == pytest.approx(0.857, abs=0.005)  # as that of the published vectors
    assert float(text.var(0).mean()) == pytest.approx(1.86e-4, rel=0.03)
    assert reconstruction_share(text, 0.00019) == 1.0
    tfidf = F.normalize(draw(400, 128, seed=2), dim=1)
    expected = 0.00019 / float(tfidf.var(0, correction=0).mean())
    assert reconstruction_share(tfidf, 0.00019) == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(1 / 41, rel=0.02)
    assert reconstruction_share(tfidf, 0) == 1.0
    # So the error of the whole content is the same share of what there is to explain.
    with caplog.at_level("INFO"):
        assert fitted().reconstruction_weight < 0.01
    assert "its reconstruction weighs" in caplog.text
    assert fitted(reconstruction_variance=0).reconstruction_weight == 1.0


# The loss of a later period


def batch_of(tokenizer, seed=5):
    content = F.normalize(draw(N, DIM), dim=1)
    before = tokenizer.encoder(content).detach() + 0.1 * draw(N, WIDTH, seed=seed)
    teacher = code_log_probs(before, tokenizer.codebooks[0]).detach()
    return content, before, teacher, draw(N, WIDTH, seed=seed + 1)


def test_the_loss_is_the_weighted_sum_of_its_parts():
    tokenizer = fitted(stationary_weight=0.2, anchor_weight=0.7, kl_weight=3.0)
    content, before, teacher, vectors = batch_of(tokenizer)
    loss, parts = tokenizer.continual_loss(content, before, teacher, vectors)
    expected = (
        parts["drift"]
        + 0.2 * (parts["stationary"] + 0.7 * parts["anchor"])
        + 3.0 * parts["kl"]
        + 0.001 * parts["confidence"]
    )
    assert torch.allclose(loss, expected)
    latent = tokenizer.encoder(content)
    confidence = tokenizer.drift(before, latent, vectors)
    chosen = confidence.topk(19).indices
    moved = before.clone()
    moved[chosen] = latent[chosen]
    assert torch.allclose(parts["drift"], tokenizer.branch_loss(content, moved, vectors), atol=1e-6)
    _, quantized, residuals, words = quantize_straight(moved, tokenizer.codebooks)
    share = reconstruction_share(content, 0.00019)
    assert share < 1
    whole = share * F.mse_loss(tokenizer.decoder(quantized), content)
    whole = whole + quantization_loss(residuals, words, 0.25)
    whole = whole + 0.02 * collaborative_loss(quantized, vectors)
    assert torch.allclose(parts["drift"], whole, atol=1e-6)


def test_only_drifting_items_move_the_encoder_in_the_drift_branch(first):
    content, before, teacher, vectors = batch_of(first)
    latent = first.encoder(content).detach().requires_grad_()
    mask = drift_mask(first.drift(before, latent, vectors), 0.3)
    drifting, stationary = mix(mask, latent, before)
    (gradient,) = torch.autograd.grad(first.branch_loss(content, drifting, vectors), latent)
    assert int(gradient.any(1).sum()) == 19 == int(0.3 * N)
    mask = drift_mask(first.drift(before, latent, vectors), 0.3)
    _, stationary = mix(mask, latent, before)
    (gradient,) = torch.autograd.grad(first.branch_loss(content, stationary, vectors), latent)
    assert int(gradient.any(1).sum()) == N - 19


def test_every_part_of_the_tokenizer_learns(first):
    content, before, teacher, vectors = batch_of(first)
    loss, _ = first.continual_loss(content, before, teacher, vectors)
    gradients = torch.autograd.grad(loss, list(first.parameters()))
    for (name, _), gradient in zip(first.named_parameters(), gradients):
        assert gradient.any(), name


# Periods


def test_fine_tuning_goes_on_from_the_last_period_and_leaves_it_alone(first):
    saved = {name: value.clone() for name, value in first.state_dict().items()}
    content = torch.cat([draw(N, DIM), draw(6, DIM, seed=7)])
    vectors = torch.cat([draw(N, WIDTH, seed=1), torch.zeros(6, WIDTH)])
    codes = []
    for _ in range(2):
        second = dact()
        figures, history = second.fit_continual(first, content, vectors, progress=False)
        assert set(figures) >= {"drift", "stationary", "anchor", "kl", "confidence", "loss"}
        assert history and all(math.isfinite(value) for value in figures.values())
        codes.append(second.encode(content))
    assert torch.equal(*codes) and codes[0].shape == (N + 6, 3)
    assert all(torch.equal(value, saved[name]) for name, value in first.state_dict().items())
    changed = [n for n, v in second.state_dict().items() if not torch.equal(v, saved[n])]
    assert {name.split(".")[0] for name in changed} == {"encoder", "decoder", "codebooks", "drift"}


def test_drift_confidence_is_that_of_the_latents_of_both_periods(first):
    content, vectors = draw(N + 6, DIM), draw(N + 6, WIDTH, seed=11)
    second = dact()
    second.fit_continual(first, content, vectors, progress=False)
    found = second.drift_confidence(first, content, vectors)
    unit = content / content.norm(dim=1, keepdim=True)
    expected = second.drift(first.encoder(unit), second.encoder(unit), vectors)
    assert torch.allclose(found, expected, atol=1e-6) and not found.requires_grad
    # Not that of one item for all: movement and vectors decide.
    assert found.std() > 0
    assert not torch.allclose(found, second.drift_confidence(second, content, vectors))
    with pytest.raises(ConfigError, match="cf_vectors must have shape"):
        second.drift_confidence(first, content, vectors[:3])
    with pytest.raises(ConfigError, match="codebooks"):
        second.drift_confidence(dact(codebook_size=5), content, vectors)


def test_a_heavy_anchor_and_kl_keep_more_first_level_codes_than_plain_fine_tuning(first):
    content, vectors = draw(N, DIM), draw(N, WIDTH, seed=11)
    before, kept = first.encode(content), []
    for options in ({}, {"kl_weight": 1e4, "stationary_weight": 10.0, "anchor_weight": 100.0}):
        second = dact(continual_epochs=60, continual_learning_rate=0.003, **options)
        second.fit_continual(first, content, vectors, progress=False)
        kept.append(float((second.encode(content)[:, 0] == before[:, 0]).float().mean()))
    assert kept[1] > kept[0]


def test_first_period_is_deterministic_saved_and_loaded(first, tmp_path):
    again = fitted()
    assert torch.equal(again.encode(draw(N, DIM)), first.encode(draw(N, DIM)))
    first.save(tmp_path / "dact.pth")
    loaded = DACT.load(tmp_path / "dact.pth")
    assert torch.equal(loaded.encode(draw(N, DIM)), first.encode(draw(N, DIM)))


@pytest.mark.parametrize(
    "signals, complaint",
    [
        ({}, "needs the signal cf_vectors"),
        ({"cf_vectors": torch.zeros(N, 5)}, r"cf_vectors must have shape \[64, 8\]"),
        ({"cf_vectors": torch.full((N, WIDTH), torch.nan)}, "cf_vectors has NaN"),
    ],
)
def test_collaborative_vectors_that_do_not_fit_are_refused(signals, complaint):
    with pytest.raises(ConfigError, match=complaint):
        dact().fit(draw(N, DIM), signals=signals, progress=False)


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"drift_share": 1.5}, "drift_share"),
        ({"kl_weight": -1}, "kl_weight"),
        ({"drift_temperature": 0}, "drift_temperature"),
    ],
)
def test_options_out_of_range_are_refused(options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        dact(**options)


def test_a_tokenizer_of_other_sizes_cannot_be_continued(first):
    with pytest.raises(ConfigError, match="codebooks"):
        dact(codebook_size=5).fit_continual(first, draw(N, DIM), draw(N, WIDTH), progress=False)


def test_a_small_first_catalogue_decides_the_codebooks_of_all_periods():
    start = dact(codebook_size="auto")
    start.fit(draw(N, DIM), signals={"cf_vectors": draw(N, WIDTH)}, progress=False)
    assert start.sizes == (16, 16, 16)  # of 64 items
    content, vectors = draw(4 * N, DIM), draw(4 * N, WIDTH)
    for go_on in ("fit_continual", "fine_tune"):
        second = dact(codebook_size="auto")
        getattr(second, go_on)(start, content, vectors, progress=False)
        assert second.sizes == start.sizes and int(second.encode(content).max()) < 16


def test_the_command_reads_collaborative_vectors_from_a_file(tiny_folder, tmp_path, monkeypatch):
    from recbole_gr.commands.tokenize import tokenize

    monkeypatch.chdir(tmp_path)
    n_items = len((tiny_folder / "tiny" / "tiny.item").read_text().splitlines()) - 1
    np.save(tmp_path / "cf.npy", draw(n_items, WIDTH).numpy())
    settings = {
        **SMALL, "tokenizer": "DACT", "data_path": str(tiny_folder), "content_dim": 8,
        "show_progress": False, "sid_gate": "off",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="cf_file.*does not exist"):
        tokenize("tiny", "out", config_dict={**settings, "cf_file": "absent.npy"})
    tokenize("tiny", "out", config_dict={**settings, "cf_file": "cf.npy"})
    assert (tmp_path / "out" / "sid.json").is_file()


# A start from SIDs that exist


def test_a_tokenizer_is_fitted_to_codes_that_exist_and_goes_on_from_them():
    content, vectors = draw(N, DIM), draw(N, WIDTH, seed=1)
    codes = torch.randint(6, (N, 3), generator=torch.Generator().manual_seed(4))
    start = dact(tokenizer_epochs=250, tokenizer_learning_rate=0.01, rqvae_hidden=[32])
    figures = start.fit_codes(content, codes, vectors, progress=False)
    same = start.encode(content) == codes
    assert figures["agreement_1"] == float(same[:, 0].double().mean()) > 0.95
    assert figures["agreement_3"] == float(same.all(1).double().mean())
    later = dact(rqvae_hidden=[32])
    later.fit_continual(start, content, vectors, progress=False)
    assert float((later.encode(content)[:, 0] == codes[:, 0]).double().mean()) > 0.8


def test_the_loss_along_given_codes_is_that_of_the_first_period_and_a_softmax_of_distances(first):
    content, vectors = F.normalize(draw(N, DIM), dim=1), draw(N, WIDTH, seed=1)
    latent = first.encoder(content)
    codes, *_ = quantize_straight(latent, first.codebooks)
    loss, told = (part.detach() for part in forced_loss(first, content, codes, vectors))
    latent = latent.detach()
    expected, residual = 0.0, latent
    for codebook, code in zip(first.codebooks, codes.unbind(1)):
        squares = (residual.unsqueeze(1) - codebook).square().sum(2)
        expected += F.cross_entropy(-squares, code)
        residual = residual - codebook[code]
    assert float(told) == pytest.approx(float(expected), rel=1e-5)
    rest = first.branch_loss(content, latent, vectors)
    assert float(loss - told) == pytest.approx(float(rest), rel=1e-4)


@pytest.mark.parametrize(
    "codes, complaint",
    [
        (torch.zeros(N, 2).long(), "do not fit 64 items and 3 levels .sid_levels"),
        (torch.full((N, 3), 6), "level 1 of the SIDs has code 6, and the codebook 6 codes"),
    ],
)
def test_codes_that_cannot_be_those_of_the_tokenizer_are_refused(codes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        dact().fit_codes(draw(N, DIM), codes, draw(N, WIDTH), progress=False)


def test_plain_fine_tuning_follows_the_loss_of_the_first_period_by_hand(first):
    """One epoch of one batch, against a step of AdamW written out."""
    options = {**first.options, "continual_epochs": 1, "tokenizer_batch_size": 64}
    options["tokenizer_schedule"] = "capped"  # whose first step has a rate above 0
    content, collaborative = draw(24, first.dim, seed=3), draw(24, WIDTH, seed=4)
    tuned = DACT(options, first.dim)
    tuned.fine_tune(first, content, collaborative, progress=False)
    slow = DACT(options, first.dim)
    slow.load_state_dict(first.state_dict())
    unit = torch.nn.functional.normalize(content, dim=1)
    slow.reconstruction_weight = reconstruction_share(unit, 0.00019)
    loss = slow.branch_loss(unit, slow.encoder(unit), collaborative)
    names = [name for name, _ in slow.named_parameters()]
    gradients = torch.autograd.grad(loss, list(slow.parameters()), allow_unused=True)
    norm = torch.sqrt(sum(g.square().sum() for g in gradients if g is not None))
    rate, decay = options["continual_learning_rate"], options["tokenizer_weight_decay"]
    after = dict(tuned.named_parameters())
    for name, value, gradient in zip(names, slow.parameters(), gradients):
        if gradient is None:
            assert name.startswith("drift.") and torch.equal(after[name], value)
            continue
        gradient = gradient * min(1.0, 1.0 / float(norm))
        step = gradient / (gradient.abs() + 1e-8)
        expected = value.detach() * (1 - rate * decay) - rate * step
        torch.testing.assert_close(after[name].detach(), expected, rtol=1e-4, atol=1e-7)
