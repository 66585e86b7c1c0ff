"""PRQ-KMeans: its algorithm 1 by loops, its start, and what it shares with R3-VAE's projections."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_tokenizer_base import DIM, content

from recbole_gr.quality.cohesion import unit
from recbole_gr.tokenizer.prqkmeans import PRQKMeans
from recbole_gr.tokenizer.r3vae.model import R3VAE


def make(**options):
    return PRQKMeans({"codebook_size": 6, "sid_levels": 3, "seed": 0, **options}, DIM)


def without(x, word):
    return x - (x @ word) / (word @ word) * word


def refined(residuals, centroids, k, beta, iterations):
    """Equations 10 to 12, one item and one centroid at a time."""
    for _ in range(iterations):
        sums = [torch.zeros(DIM).double() for _ in centroids]
        mass = [0.0] * len(centroids)
        for r in residuals:
            cosines = [float(F.cosine_similarity(r, c, dim=0)) for c in centroids]
            near = sorted(range(len(centroids)), key=lambda j: -cosines[j])[:k]
            total = sum(math.exp(beta * cosines[j]) for j in near)
            for j in near:
                weight = math.exp(beta * cosines[j]) / total
                sums[j] += weight * r
                mass[j] += weight
        centroids = [s / m for s, m in zip(sums, mass)]
    return centroids


@pytest.mark.parametrize("k", [1, 2, 3])
def test_levels_follow_the_algorithm(k, monkeypatch):
    starts = []

    def first_rows(self, residual, size):
        starts.append(size)
        return residual[:size]

    monkeypatch.setattr(PRQKMeans, "_start", first_rows)
    model = make(update_topk=k, update_concentration=5.0, kmeans_iterations=4)
    model.fit(content(), progress=False)
    x = [row / row.norm() for row in content().double()]
    mean = sum(x) / len(x)
    assert torch.allclose(model.mean.double(), mean, atol=1e-6)
    residuals = [(r := without(row, mean)) / r.norm() for row in x]
    codes = []
    for level in range(3):
        centroids = refined(residuals, residuals[:6], k, 5.0, 4)
        found = model.codebooks[level].double()
        assert torch.allclose(unit(found), unit(torch.stack(centroids)), atol=1e-5)
        cosines = [[float(F.cosine_similarity(r, c, dim=0)) for c in centroids] for r in residuals]
        chosen = [max(range(6), key=row.__getitem__) for row in cosines]
        codes.append(chosen)
        residuals = [
            (v := without(r, centroids[j])) / v.norm() for r, j in zip(residuals, chosen)
        ]
    assert model.encode(content()).T.tolist() == codes and starts == [6, 6, 6]


def test_residuals_of_one_length_weigh_alike_and_others_by_their_length():
    """Three items on one code: its centroid is the mean of directions, or of the residuals."""
    residual = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    for alike in (True, False):
        model = PRQKMeans({"codebook_size": 1, "sid_levels": 1, "normalize_residuals": alike,
                           "kmeans_iterations": 1}, 2)  # fmt: skip
        found = model._refined(residual, residual[2:])
        expected = (unit(residual) if alike else residual).mean(0)
        assert torch.allclose(found[0], expected, atol=1e-6)


def test_one_centroid_an_item_is_spherical_k_means():
    model = make(update_topk=1, kmeans_iterations=60)
    model.fit(content(), progress=False)
    x = unit(content())
    mean = x.mean(0)
    residual = unit(x - (x @ mean / (mean @ mean))[:, None] * mean)
    book, codes = unit(model.codebooks[0]), model.encode(content())[:, 0]
    for code in range(6):  # each centroid is the mean direction of its own items
        assert torch.allclose(book[code], unit(residual[codes == code].mean(0)[None])[0], atol=1e-4)


def test_r3_vaes_projections_on_the_same_codewords_give_the_same_codes():
    model = make()
    model.fit(content(), progress=False)
    r3vae = R3VAE({"codebook_size": 6, "sid_levels": 3, "rating_mode": "top1_projection"}, DIM)
    with torch.no_grad():
        r3vae.reference.copy_(model.mean)
        for own, other in zip(r3vae.codebooks, model.codebooks):
            own.copy_(other)
    codes = model.encode(content())
    assert torch.equal(r3vae.encode(content()), codes)
    quantized = model.quantized(content(), codes)
    assert torch.allclose(quantized, r3vae.quantized(content(), codes), atol=1e-9)
    # What is left is at right angles to the last codeword.
    rest = unit(content()).double() - quantized
    assert (rest * unit(model.codebooks[-1])[codes[:, -1]]).sum(1).abs().max() < 1e-6


def test_the_mean_can_be_left_in():
    model = make(remove_mean=False)
    model.fit(content(), progress=False)
    assert not model.mean.any()
    x = unit(content())
    codes = model.encode(content())
    assert torch.equal(codes[:, 0], (x @ unit(model.codebooks[0]).T).argmax(1))


def test_no_code_is_left_without_items_where_vectors_are_distinct():
    generator = torch.Generator().manual_seed(1)
    two = torch.randn(2, DIM, generator=generator).repeat(300, 1)
    x = two + 0.01 * torch.randn(600, DIM, generator=generator)
    model = PRQKMeans({"codebook_size": 64, "update_topk": 3}, DIM)
    report = model.fit(x, progress=False)
    assert all(len(column.unique()) == 64 for column in model.encode(x).T)
    assert [level["utilisation"] for level in report.history] == [1.0, 1.0, 1.0]
    left = [level["residual"] for level in report.history]
    assert all(0 < share < 1 for share in left) and report.figures["residual"] == left[-1]


def test_few_distinct_vectors_get_a_code_each():
    rows = torch.randn(4, DIM, generator=torch.Generator().manual_seed(2))
    model = make(remove_mean=False)
    model.fit(rows.repeat(10, 1), progress=False)
    assert len(model.encode(rows)[:, 0].unique()) == 4
    same = make()
    same.fit(torch.ones(10, DIM), progress=False)
    assert len(same.encode(torch.ones(10, DIM)).unique(dim=0)) == 1


def test_the_mean_is_of_all_items_and_centroids_of_a_sample():
    model, seen = make(kmeans_points_per_code=5, update_topk=1), []
    start = model._start
    model._start = lambda residual, size: seen.append(len(residual)) or start(residual, size)
    model.fit(content(), progress=False)
    assert seen == [30, 30, 30]
    assert torch.allclose(model.mean, unit(content()).mean(0), atol=1e-6)
