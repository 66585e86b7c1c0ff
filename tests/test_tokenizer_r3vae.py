"""R3-VAE: its equations by hand, where gradients flow, its start, its choice, its ablations."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_tokenizer_base import DIM, SMALL, content, fitted

from recbole_gr.errors import ConfigError
from recbole_gr.quality.cohesion import discrimination, group_cohesion
from recbole_gr.registry import get_tokenizer
from recbole_gr.tokenizer.r3vae.fit import Fit, evaluate
from recbole_gr.tokenizer.r3vae.model import R3VAE, reconstruction_loss
from recbole_gr.tokenizer.r3vae.rating import MODES, SOFT, TOP1, rate


def make(**options):
    torch.manual_seed(5)
    return R3VAE({**SMALL, **options}, DIM)


def vectors():
    return F.normalize(content(), dim=1)


# Reference vector


def test_the_first_residual_is_orthogonal_to_the_reference_vector():
    model, x = make(), content()
    start = x - model.project(x)
    bound = 1e-5 * x.norm(dim=1) * model.reference.norm()
    assert bool(((start @ model.reference).abs() < bound).all())


@pytest.mark.parametrize("mode", MODES)
def test_the_length_of_the_reference_vector_changes_nothing(mode):
    model = make(rating_mode=mode)
    before = model(vectors())
    with torch.no_grad():
        model.reference.mul_(10)
    after = model(vectors())
    assert torch.equal(before.codes, after.codes)
    assert torch.allclose(before.total, after.total, atol=1e-6)


def test_the_reference_vector_starts_at_the_mean_of_the_content_or_is_left_out():
    model = make()
    Fit(model, content(), False).initialize()
    assert torch.allclose(model.reference, vectors().mean(0), atol=1e-6)
    plain = make(reference_init="none")
    assert plain.reference is None and not plain.project(content()).any()
    uniform = make(reference_init="uniform")
    start = uniform.reference.detach().clone()
    Fit(uniform, content(), False).initialize()
    assert torch.equal(uniform.reference, start)


# Rating


def by_hand(residual, book, mode, tau, k):
    """One item's quantised vector and code, in Python numbers."""
    if mode == "ste":
        code = min(range(len(book)), key=lambda i: float((residual - book[i]).square().sum()))
        return book[code], code
    scores = [float(residual @ c / (residual.norm() * c.norm())) for c in book]
    order = sorted(range(len(book)), key=lambda i: -scores[i])
    code = order[0]
    if mode in TOP1:
        length = scores[code] * (float(residual.norm()) if mode == "top1_projection" else 1)
        return length * book[code] / book[code].norm(), code
    chosen = order if mode == "softmax" else order[:k]
    weights = [math.exp(scores[i] / tau) for i in chosen]
    return sum(w / sum(weights) * book[i] for w, i in zip(weights, chosen)), code


@torch.no_grad()
@pytest.mark.parametrize("mode", MODES)
def test_levels_follow_the_equations(mode):
    model, x = make(rating_mode=mode, rating_temperature=0.3, rating_topk=3), vectors()
    result = model(x)
    for row in range(0, 120, 11):
        r = model.reference
        projection = (x[row] @ r) / (r @ r) * r
        residual, total = x[row] - projection, projection
        for level, book in enumerate(model.codebooks):
            word, code = by_hand(residual, book, mode, 0.3, 3)
            assert int(result.codes[row, level]) == code
            assert torch.allclose(result.words[level][row], word, atol=1e-5)
            residual, total = residual - word, total + word
        assert torch.allclose(result.rest[row], residual, atol=1e-5)
        assert torch.allclose(result.total[row], total, atol=1e-5)


@torch.no_grad()
def test_projection_leaves_a_residual_at_right_angles_to_the_codeword():
    residual, book = torch.randn(30, 6), torch.randn(9, 6)
    word, codes = rate(residual, book, "top1_projection")
    assert ((residual - word) * book[codes]).sum(1).abs().max() < 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_training_and_encoding_agree_on_the_codes(mode):
    model = fitted("R3VAE", rating_mode=mode, rating_temperature=0.1)
    with torch.no_grad():
        codes = model(model.normalized(content())).codes
    assert torch.equal(codes, model.encode(content()))
    distances = model.last_level_distances(content(), codes)
    assert torch.equal(distances.argmin(1), codes[:, -1])


# Loss and gradients


@pytest.mark.parametrize("mode", MODES)
def test_with_an_identity_decoder_the_error_is_the_last_residual(mode):
    model = make(rating_mode=mode, decoder="identity")
    result = model(vectors())
    error = reconstruction_loss(vectors(), model.decoder(result.total), "mse_sum")
    rest = result.rest.square().sum(1).mean()
    assert float(error.detach()) == pytest.approx(float(rest.detach()), abs=1e-6)


def test_reconstruction_losses_are_sum_mean_and_cosine():
    x, y = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[0.0, 4.0], [1.0, 1.0]])
    assert float(reconstruction_loss(x, y, "mse_sum")) == pytest.approx((9 + 1) / 2)
    assert float(reconstruction_loss(x, y, "mse_mean")) == pytest.approx(10 / 4)
    expected = ((1 - 0.8) + (1 - 2**-0.5)) / 2
    assert float(reconstruction_loss(x, y, "cosine")) == pytest.approx(expected)


@torch.no_grad()
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("vectors_of", ["quantized", "residual", "surrogate", "auto"])
def test_the_loss_is_reconstruction_with_weighted_metrics(mode, vectors_of):
    model = make(rating_mode=mode, sc_vectors=vectors_of, metric_weight=0.3, decoder="mlp")
    x, result = vectors(), model(vectors())
    loss, parts = model.loss(x)
    if vectors_of == "surrogate":
        partial, sc = result.projection, 0
        for word in result.words:
            partial = partial + word
            sc += float(F.cosine_similarity(x, partial).mean()) / 3
    else:
        soft = vectors_of == "quantized" or (vectors_of == "auto" and mode in SOFT)
        source = result.words if soft else result.residuals
        sc = sum(float(group_cohesion(v, k, 8)) for v, k in zip(source, result.codes.T)) / 3
    pd = sum(float(discrimination(book)) for book in model.codebooks) / 3
    errors = [float((x - model.decoder(result.total)).square().sum(1).mean())]
    if mode == "ste":
        pairs = zip(result.residuals, result.words)
        errors += [1.25 * float((r - w).square().sum(1).mean()) for r, w in pairs]
    # Over dimensions the errors are averaged, in top1_projection summed.
    expected = sum(errors) / (1 if mode == "top1_projection" else DIM) + 0.3 * (pd - sc)
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert float(parts["sc"]) == pytest.approx(sc, rel=1e-4)
    assert float(parts["pd"]) == pytest.approx(pd, rel=1e-4)


def test_softmax_gives_every_codeword_and_the_reference_a_gradient():
    model = make(rating_mode="softmax", pd_regulariser=False, sc_regulariser=False)
    model.loss(vectors())[0].backward()
    assert bool(model.reference.grad.any())
    assert all(bool(book.grad.any(1).all()) for book in model.codebooks)


@pytest.mark.parametrize("mode", TOP1)
def test_top1_gives_gradient_to_chosen_codewords_and_to_all_through_discrimination(mode):
    model = make(rating_mode=mode, pd_regulariser=False, codebook_size=100)
    model.loss(vectors())[0].backward()
    with torch.no_grad():
        codes = model(vectors()).codes
    for level, book in enumerate(model.codebooks):
        chosen = torch.bincount(codes[:, level], minlength=100) > 0
        assert not chosen.all() and torch.equal(book.grad.any(1), chosen)
    assert bool(model.reference.grad.any())
    model.zero_grad()
    model.options["pd_regulariser"] = True
    model.loss(vectors())[0].backward()
    assert all(bool(book.grad.any(1).all()) for book in model.codebooks)


def test_straight_through_keeps_the_reconstruction_from_the_codebooks():
    model = make(rating_mode="ste", decoder="mlp")
    result = model(vectors())
    reconstruction_loss(vectors(), model.decoder(result.total), "mse_sum").backward()
    assert all(book.grad is None or not book.grad.any() for book in model.codebooks)
    assert all(bool(p.grad.any()) for p in model.decoder.parameters())


def test_the_default_is_the_papers_probable_reading():
    model = make()
    assert (model.mode, model.reduction) == ("top1_rating", "mse_mean")
    assert [tuple(p.shape) for p in model.decoder.parameters()][::2] == [
        (4 * DIM, DIM), (DIM, 4 * DIM)
    ]  # fmt: skip
    projection = make(rating_mode="top1_projection")
    assert projection.reduction == "mse_sum" and not list(projection.decoder.parameters())


def test_a_mean_error_beside_projections_is_refused():
    with pytest.raises(ConfigError, match="reconstruction_loss=mse_mean.*levels die.*mse_sum"):
        make(rating_mode="top1_projection", reconstruction_loss="mse_mean")


@pytest.mark.parametrize("kind", ["R3VAE", "RQVAE"])
def test_codebooks_without_k_means_start_normal_or_uniform(kind):
    start = {}
    for law in ("normal", "uniform"):
        model = get_tokenizer(kind)({**SMALL, "codebook_size": 400, "random_init": law}, 40)
        start[law] = torch.cat([book.detach().flatten() for book in model.codebooks])
        width = model.codebooks[0].shape[1]
    assert float(start["normal"].std()) == pytest.approx(width**-0.5, rel=0.05)
    assert start["normal"].abs().max() > 3 * width**-0.5
    assert float(start["uniform"].abs().max()) == pytest.approx(1 / 400, rel=0.01)
    assert float(start["uniform"].std()) == pytest.approx(1 / 400 / 3**0.5, rel=0.05)


@pytest.mark.parametrize("ablation", [
    {"sc_regulariser": False}, {"pd_regulariser": False}, {"rating_mode": "ste"},
    {"reference_init": "none"}, {"kmeans_init": False}, {"decoder": "identity"},
    {"reconstruction_loss": "mse_sum"}, {"reconstruction_loss": "cosine"},
    {"sc_vectors": "surrogate"}, {"metric_weight": 1.0},
])  # fmt: skip
def test_every_ablation_trains_to_other_weights(ablation):
    usual, other = (fitted("R3VAE", **options) for options in ({}, ablation))
    pairs = zip(usual.codebooks, other.codebooks)
    assert all(not torch.equal(a, b) and bool(b.isfinite().all()) for a, b in pairs)


# Fit


@torch.no_grad()
def test_codebooks_start_at_clusters_of_what_the_levels_before_left():
    model = make(codebook_size=6)
    Fit(model, content(), False).initialize()
    result = model(vectors())
    for level, book in enumerate(model.codebooks):
        codes, residual = result.codes[:, level], result.residuals[level]
        assert len(codes.unique()) == 6  # no dead code
        for code in range(6):
            along = residual[codes == code] @ (book[code] / book[code].norm())
            assert float(book[code].norm()) == pytest.approx(float(along.mean()), rel=1e-3)


def test_training_makes_unique_sids_as_often_as_residual_k_means():
    """Content with a common component, on which the start alone has .4 of them."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(40, 24, generator=generator)
    x = centres.repeat(25, 1) + 0.4 * torch.randn(1000, 24, generator=generator) + 1.0
    options = {"codebook_size": 64, "tokenizer_steps": 120, "tokenizer_batch_size": 256,
               "tokenizer_learning_rate": 0.005}  # fmt: skip
    from recbole_gr.tokenizer.rkmeans import RKMeans

    distinct, options["normalize_residuals"] = [], False
    for kind in (R3VAE, RKMeans):
        model = kind(options, 24)
        model.fit(x, progress=False)
        codes = model.encode(x)
        distinct.append(len(codes.unique(dim=0)) / 1000)
        assert all(len(column.unique()) > 60 for column in codes.T)
    assert distinct[1] > 0.95 and distinct[0] > distinct[1] - 0.02


def test_reference_and_discrimination_earn_their_place_where_items_have_much_in_common():
    """What table 8 ablates, on content of mean cosine .77 (sentence encoders: .86)."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(40, 16, generator=generator).repeat(15, 1)
    x = F.normalize(centres + 0.5 * torch.randn(600, 16, generator=generator), dim=1)
    common = F.normalize(torch.randn(1, 16, generator=generator))
    x = F.normalize(x + 1.8 * common, dim=1)
    distinct, used = {}, {}
    for name, ablated in (
        ("whole", {}), ("no reference", {"reference_init": "none"}),
        ("no PD", {"pd_regulariser": False}),
    ):  # fmt: skip
        steps = {"tokenizer_steps": 100, "tokenizer_batch_size": 200,
                 "tokenizer_evaluate_every": 100, "tokenizer_learning_rate": 0.005}  # fmt: skip
        model = R3VAE({"codebook_size": 32, **steps, **ablated}, 16)
        model.fit(x, progress=False)
        codes = model.encode(x)
        distinct[name] = len(codes.unique(dim=0)) / 600
        used[name] = [len(column.unique()) for column in codes.T]
    assert distinct["whole"] > distinct["no reference"] + 0.03
    assert distinct["whole"] > distinct["no PD"] + 0.03
    assert min(used["whole"]) >= 26 and max(used["no PD"][1:]) <= 22


@torch.no_grad()
def test_a_rating_longer_than_the_residual_repeats_the_level_before():
    """Why top1_rating needs its training: it is made for residuals of length about 1."""
    direction, noise = torch.eye(4)[0], 0.01 * torch.eye(4)[1]
    short = (0.3 * direction + noise)[None]
    word, _ = rate(short, direction[None], "top1_rating")
    assert torch.allclose(short - word, (-0.7 * direction + noise)[None], atol=1e-3)
    word, _ = rate(short, direction[None], "top1_projection")
    assert torch.allclose(short - word, noise[None], atol=1e-6)


def test_residual_k_means_has_the_discrimination_that_the_paper_reports():
    """-1.38 to -1.39 in the paper's table 1: one anisotropic level, the others near -2."""
    from recbole_gr.tokenizer.rkmeans import RKMeans

    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(40, 64, generator=generator)
    x = centres.repeat(50, 1) + 0.6 * torch.randn(2000, 64, generator=generator)
    x = F.normalize(x + 1.9 * torch.ones(64), dim=1)  # mean pairwise cosine about 0.7
    model = RKMeans({"codebook_size": 64, "normalize_residuals": False}, 64)
    model.fit(x, progress=False)
    pd = [float(discrimination(book)) for book in model.codebooks]
    assert -0.7 < pd[0] < -0.3 and -2.05 < pd[1] < -1.8 and -2.05 < pd[2] < -1.8
    assert sum(pd) / 3 == pytest.approx(-1.4, abs=0.1)


@torch.no_grad()
@pytest.mark.parametrize("mode", ["softmax", "top1_rating", "top1_projection", "ste"])
def test_soft_and_hard_reconstruction_are_measured_over_all_items(mode):
    model = fitted("R3VAE", rating_mode=mode, rating_temperature=0.1)
    x = model.normalized(content())
    figures = evaluate(model, lambda: iter(x.split(50)))
    result = model(x)
    soft = (x - model.decoder(result.total)).square().sum(1).mean()
    assert figures["reconstruction"] == pytest.approx(float(soft), rel=1e-4)
    hard = 0.0
    for row in range(120):
        z = result.projection[row]
        for level, book in enumerate(model.codebooks):
            word = book[result.codes[row, level]]
            if mode in TOP1:
                same = result.codes[:, level] == result.codes[row, level]
                word = word / word.norm()
                word = word * (result.words[level][same] @ word).mean()
            z = z + word
        hard += float((x[row] - model.decoder(z[None])[0]).square().sum()) / 120
    assert figures["reconstruction_hard"] == pytest.approx(hard, rel=1e-4)
    counts = torch.unique(result.codes, dim=0, return_counts=True)[1]
    assert figures["distinct_rate"] == pytest.approx(len(counts) / 120)
    assert figures["collision_rate"] == pytest.approx(int(counts[counts > 1].sum()) / 120)


@pytest.mark.parametrize(("select_by", "score"), [
    ("collision", lambda f: (f["collision_rate"], f["pd"] - f["sc"])),
    ("loss", lambda f: f["reconstruction"]),
    ("last", lambda f: -f["step"]),
])  # fmt: skip
def test_the_selected_evaluation_is_kept(select_by, score):
    model = make(tokenizer_select_by=select_by, tokenizer_steps=16)
    report = model.fit(content(), progress=False)
    assert [figures["step"] for figures in report.history] == list(range(2, 17, 2))
    assert report.figures == min(report.history, key=score)
    codes = [tuple(row) for row in model.encode(content()).tolist()]
    sharing = sum(codes.count(code) > 1 for code in codes) / 120
    assert report.figures["collision_rate"] == pytest.approx(sharing)


def test_training_stops_when_nothing_improves_and_patience_can_be_switched_off():
    still = {"tokenizer_learning_rate": 1e-12, "tokenizer_steps": 40}
    report = make(**still, tokenizer_patience=3).fit(content(), progress=False)
    assert [figures["step"] for figures in report.history] == [2, 4, 6, 8]
    report = make(**still, tokenizer_patience=0).fit(content(), progress=False)
    assert report.history[-1]["step"] == 40


def test_an_epoch_sees_each_item_once_and_the_logged_loss_is_the_mean_of_its_steps():
    seen, losses = [], []

    class Spy(R3VAE):
        default_config = R3VAE.default_options()

        def loss(self, content):
            loss, parts = super().loss(content)
            seen.append(content)
            losses.append(float(parts["loss"]))
            return loss, parts

    model = Spy({**SMALL, "tokenizer_steps": 6, "tokenizer_evaluate_every": 3}, DIM)
    report = model.fit(content(), progress=False)
    assert [len(batch) for batch in seen] == [40] * 6
    for epoch in (seen[:3], seen[3:]):
        together = torch.cat(epoch)
        assert sorted(together[:, 0].tolist()) == sorted(vectors()[:, 0].tolist())
    for figures, part in zip(report.history, (losses[:3], losses[3:])):
        assert figures["train_loss"] == pytest.approx(sum(part) / 3, rel=1e-5)


def test_large_codebooks_draw_codewords_for_discrimination():
    model = make(pd_max_codewords=4, sc_regulariser=False, decoder="identity", metric_weight=1.0)
    with torch.no_grad():
        for book in model.codebooks:
            book.copy_(torch.eye(8, DIM))
    _, parts = model.loss(vectors())
    assert float(parts["pd"]) == pytest.approx(-2)


def test_small_batches_for_semantic_cohesion_are_warned_of(caplog):
    make(tokenizer_batch_size=20, tokenizer_steps=1).fit(content(), progress=False)
    assert "tokenizer_batch_size" in caplog.text and "32 or more" in caplog.text


@pytest.mark.parametrize(("options", "warned"), [
    ({"kmeans_init": False}, True),
    ({"kmeans_init": False, "tokenizer_select_by": "last"}, False),
    ({"kmeans_init": False, "tokenizer_select_by": "loss"}, False),
    ({}, False),
])  # fmt: skip
def test_keeping_an_early_evaluation_of_random_codebooks_is_warned_of(options, warned, caplog):
    make(tokenizer_steps=1, **options).fit(content(), progress=False)
    assert ("use last or loss" in caplog.text) == warned


def test_divergence_is_reported_with_its_remedy():
    with pytest.raises(ConfigError, match="R3VAE diverged by step .* lower tokenizer_learning_r"):
        make(tokenizer_learning_rate=1e30, decoder="mlp").fit(content(), progress=False)


@pytest.mark.parametrize(("options", "message"), [
    ({"rating_mode": "luck"}, "rating_mode: .* is not one of"),
    ({"reference_init": "zero"}, "reference_init: .* is not one of"),
    ({"rating_temperature": 0}, "rating_temperature: .* must be a number above 0"),
    ({"rating_topk": 1.5}, "rating_topk: .* must be an integer of at least 1"),
    ({"metric_weight": -1}, "metric_weight: .* must be a number of at least 0"),
    ({"tokenizer_steps": 0}, "tokenizer_steps: .* must be an integer of at least 1"),
    ({"tokenizer_select_by": "luck"}, "tokenizer_select_by: .* is not one of"),
])  # fmt: skip
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options).fit(content(), progress=False)


def test_content_that_is_one_point_or_all_zero_still_gets_sids():
    for same in (torch.ones(10, DIM), torch.zeros(10, DIM)):
        model = make()
        model.fit(same, progress=False)
        codes = model.encode(same)
        assert len(codes.unique(dim=0)) == 1


@pytest.mark.slow
def test_every_generative_model_runs_on_r3vae_sids(tiny_folder, tmp_path, monkeypatch):
    from runs import arguments

    from recbole_gr.quick_start import run_recbole_gr

    monkeypatch.chdir(tmp_path)
    options = {"tokenizer": "R3VAE", "tokenizer_steps": 4, "tokenizer_evaluate_every": 2}
    small = {"n_i2t_layers": 1, "n_context_layers": 1, "warmup_epochs": 1}
    for model, more in (("TIGER", {}), ("R3VAE", {}), ("PIT", small)):
        tiger = arguments("TIGER", tiny_folder, **options, **more)
        result = run_recbole_gr(model, cmd_args=[a for a in tiger if "--model" not in a])
        assert result["sid"]["meta"]["tokenizer"] == "R3VAE"
        assert result["test_result"]["recall@10"] >= 0
