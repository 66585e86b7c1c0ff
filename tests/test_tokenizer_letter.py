"""LETTER's tokenizer: balanced clusters, diversity and collaborative loss against slow loops."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from recbole_gr.errors import ConfigError
from recbole_gr.tokenizer.collaborative.diversity import (
    CodeClusters,
    balanced_kmeans,
    diversity_loss,
)
from recbole_gr.tokenizer.collaborative.letter import LETTER
from recbole_gr.tokenizer.collaborative.losses import (
    collaborative_loss,
    quantization_loss,
    quantize_straight,
)

N, DIM, WIDTH = 64, 12, 8
SMALL = {
    "codebook_size": 7,
    "sid_levels": 2,
    "rqvae_hidden": [16],
    "rqvae_dim": WIDTH,
    "diversity_clusters": 3,
    "tokenizer_epochs": 6,
    "tokenizer_batch_size": 32,
    "tokenizer_warmup_epochs": 2,
    "tokenizer_evaluate_every": 3,
    "seed": 3,
}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(**options):
    tokenizer = LETTER({**SMALL, **options}, DIM)
    tokenizer.fit(draw(N, DIM), signals={"cf_vectors": draw(N, WIDTH, seed=1)}, progress=False)
    return tokenizer


# Clusters


@pytest.mark.parametrize("n, k", [(20, 4), (23, 5), (7, 7), (9, 1)])
def test_clusters_are_balanced_and_fixed_by_the_seed(n, k):
    vectors = draw(n, 3)
    labels, again = (
        balanced_kmeans(vectors, k, generator=torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(labels, again)
    assert torch.bincount(labels, minlength=k).tolist() == [n // k + (c < n % k) for c in range(k)]


def test_one_step_is_the_best_of_all_balanced_assignments():
    vectors, start = draw(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    centroids = torch.stack([vectors[start == c].mean(0) for c in range(3)])

    def cost(labels):
        return sum(float((vectors[i] - centroids[c]).square().sum()) for i, c in enumerate(labels))

    best = min(set(itertools.permutations([0, 0, 1, 1, 2, 2])), key=cost)
    assert balanced_kmeans(vectors, 3, labels=start, iterations=1).tolist() == list(best)


def test_groups_that_lie_apart_are_found():
    centres = torch.tensor([[10.0, 0.0], [0.0, 10.0], [-10.0, -10.0]])
    vectors = centres.repeat(5, 1) + 0.1 * draw(15, 2)
    # Any start: a balanced assignment cannot leave two of the groups on one centroid for long.
    labels = balanced_kmeans(vectors, 3, generator=torch.Generator().manual_seed(0), iterations=50)
    groups = {tuple(labels[group::3].tolist()) for group in range(3)}
    assert all(len(set(group)) == 1 for group in groups) and len(groups) == 3


def test_a_positive_is_any_other_code_of_the_cluster():
    clusters = CodeClusters.of(torch.tensor([1, 0, 1, 0, 1, 0, 0]), "cpu")
    torch.manual_seed(0)
    codes = torch.arange(7).repeat(500)
    drawn = clusters.draw(codes)
    for code, others in {0: {2, 4}, 2: {0, 4}, 1: {3, 5, 6}, 6: {1, 3, 5}}.items():
        found, counts = drawn[codes == code].unique(return_counts=True)
        assert set(found.tolist()) == others
        assert float(counts.min()) > 0.7 * 500 / len(others)


# Losses


def test_diversity_loss_leaves_the_own_codeword_out_of_the_negatives():
    book, codes, positives = draw(5, 3), torch.tensor([0, 3, 3]), torch.tensor([2, 4, 1])
    expected = 0.0
    for code, positive in zip(codes.tolist(), positives.tolist()):
        scores = {j: float(book[code] @ book[j]) for j in range(5) if j != code}
        expected -= scores[positive] - math.log(sum(math.exp(s) for s in scores.values()))
    loss = diversity_loss(codes, book[codes], book, positives)
    assert float(loss) == pytest.approx(expected / 3, rel=1e-5)


def test_collaborative_loss_by_inner_products():
    quantized, vectors = draw(6, WIDTH), draw(6, WIDTH, seed=1)
    expected = 0.0
    for i in range(6):
        scores = [float(quantized[i] @ vectors[j]) for j in range(6)]
        expected -= scores[i] - math.log(sum(math.exp(s) for s in scores))
    loss = collaborative_loss(quantized, vectors, cosine=False)
    assert float(loss) == pytest.approx(expected / 6, rel=1e-5)


def test_the_loss_of_a_batch_is_the_weighted_sum_of_its_parts():
    tokenizer = fitted(diversity_weight=0.3, cf_weight=0.7)
    content, vectors = F.normalize(draw(N, DIM), dim=1), draw(N, WIDTH, seed=1)
    latent = tokenizer.encoder(content)
    torch.manual_seed(5)
    loss = tokenizer.branch_loss(content, latent, vectors)
    codes, quantized, residuals, words = quantize_straight(latent, tokenizer.codebooks)
    expected = F.mse_loss(tokenizer.decoder(quantized), content)
    expected = expected + quantization_loss(residuals, words, 0.25)
    expected = expected + 0.7 * collaborative_loss(quantized, vectors, cosine=False)
    torch.manual_seed(5)
    for level, book in enumerate(tokenizer.codebooks):
        positives = tokenizer.clusters[level].draw(codes[:, level])
        part = diversity_loss(codes[:, level], words[level], book, positives)
        expected = expected + 0.3 * part / 2
    assert torch.allclose(loss, expected)


def test_diversity_moves_codebooks_alone():
    tokenizer = fitted(diversity_weight=1.0)
    latent = tokenizer.encoder(F.normalize(draw(N, DIM), dim=1))
    codes, _, _, words = quantize_straight(latent, tokenizer.codebooks)
    gradients = torch.autograd.grad(
        tokenizer.code_loss(codes, words), list(tokenizer.parameters()), allow_unused=True
    )
    for (name, _), gradient in zip(tokenizer.named_parameters(), gradients):
        assert (gradient is not None and bool(gradient.any())) == name.startswith("codebooks")


def test_collaborative_loss_moves_the_encoder_and_no_codebook():
    tokenizer = fitted()
    latent = tokenizer.encoder(F.normalize(draw(N, DIM), dim=1))
    _, quantized, _, _ = quantize_straight(latent, tokenizer.codebooks)
    loss = collaborative_loss(quantized, draw(N, WIDTH, seed=1), cosine=False)
    gradients = torch.autograd.grad(loss, list(tokenizer.parameters()), allow_unused=True)
    for (name, _), gradient in zip(tokenizer.named_parameters(), gradients):
        moved = gradient is not None and bool(gradient.any())
        assert moved == name.startswith("encoder"), name


# Training


def test_a_fit_is_fixed_by_the_seed_and_survives_saving(tmp_path):
    first, again, other = fitted(), fitted(), fitted(seed=4)
    content = draw(N, DIM)
    assert torch.equal(first.encode(content), again.encode(content))
    assert not torch.equal(first.codebooks[0], other.codebooks[0])
    first.save(tmp_path / "letter.pth")
    loaded = LETTER.load(tmp_path / "letter.pth")
    assert torch.equal(loaded.encode(content), first.encode(content))


def test_both_regularisers_change_what_is_learned():
    content, plain = draw(N, DIM), fitted(cf_weight=0, diversity_weight=0)
    for options in ({"cf_weight": 1, "diversity_weight": 0}, {"cf_weight": 0}):
        options = {"diversity_weight": 1.0, **options}
        assert not torch.equal(fitted(**options).codebooks[0], plain.codebooks[0])
    assert plain.clusters == [None, None] and plain.encode(content).shape == (N, 2)


def test_clusters_are_made_anew_as_often_as_asked(monkeypatch):
    calls = []
    original = LETTER.cluster_codewords
    monkeypatch.setattr(LETTER, "cluster_codewords", lambda self: calls.append(original(self)))
    fitted(diversity_every=4)
    assert len(calls) == 2  # epochs 1 and 5 of 6


@pytest.mark.parametrize("n_items", [1, 2, 3, 5])
def test_catalogues_too_small_for_the_clusters(n_items):
    tokenizer = LETTER(SMALL, DIM)
    signals = {"cf_vectors": draw(n_items, WIDTH, seed=1)}
    report = tokenizer.fit(draw(n_items, DIM), signals=signals, progress=False)
    assert all(math.isfinite(value) for value in report.figures.values())


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"diversity_weight": -1}, "diversity_weight: .* must be a number of at least 0"),
        ({"cf_weight": "much"}, "cf_weight: .* must be a number"),
        ({"diversity_clusters": 0}, "diversity_clusters: .* must be an integer of at least 1"),
        ({"diversity_every": 1.5}, "diversity_every: .* must be an integer of at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        LETTER({**SMALL, **options}, DIM)


def test_the_loss_before_any_clustering_is_refused():
    tokenizer = LETTER(SMALL, DIM)
    with pytest.raises(ConfigError, match="cluster_codewords"):
        tokenizer.branch_loss(draw(4, DIM), draw(4, WIDTH), draw(4, WIDTH))


def test_collaborative_vectors_are_needed():
    with pytest.raises(ConfigError, match="LETTER needs the signal cf_vectors"):
        LETTER(SMALL, DIM).fit(draw(N, DIM), progress=False)
