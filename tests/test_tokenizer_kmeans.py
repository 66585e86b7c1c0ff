"""k-means and residual k-means against brute force."""

import pytest
import torch
from test_tokenizer_base import DIM, content, fitted

from recbole_gr.tokenizer.kmeans import kmeans, nearest_code, squared_distances
from recbole_gr.tokenizer.rvq import spread_seeds


def inertia(vectors, centroids):
    return float(torch.cdist(vectors.double(), centroids.double()).square().amin(1).sum())


def lloyd(vectors, k, starts=20, iterations=50):
    """The best of several plain k-means runs."""
    best = None
    for seed in range(starts):
        rows = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(seed))[:k]
        centroids = vectors[rows].clone()
        for _ in range(iterations):
            owner = torch.cdist(vectors, centroids).argmin(1)
            for code in range(k):
                if bool((owner == code).any()):
                    centroids[code] = vectors[owner == code].mean(0)
        if best is None or inertia(vectors, centroids) < inertia(vectors, best):
            best = centroids
    return best


def test_distances_are_those_of_the_definition():
    vectors, centroids = content(30), content(5, seed=1)
    expected = (vectors.double()[:, None] - centroids.double()[None]).square().sum(2)
    assert torch.allclose(squared_distances(vectors, centroids), expected, atol=1e-9)


def test_nearest_code_is_brute_force_and_ties_go_to_the_lower_code():
    vectors, centroids = content(200), content(9, seed=1)
    expected = [int((vector - centroids).square().sum(1).argmin()) for vector in vectors]
    assert nearest_code(vectors, centroids).tolist() == expected
    assert nearest_code(vectors, torch.cat([centroids, centroids])).tolist() == expected
    middle = torch.tensor([[0.5, 0.5]])
    corners = torch.tensor([[9.0, 9], [1, 0], [0, 1], [1, 1], [0, 0]])
    assert nearest_code(middle, corners).item() == 1


def test_distances_that_differ_by_rounding_are_ties():
    vectors = torch.tensor([[0.5]], dtype=torch.float64)
    centroids = torch.tensor([[0.0], [1 - 1e-12]], dtype=torch.float64)  # the second is nearer
    assert nearest_code(vectors, centroids).item() == 0
    assert nearest_code(vectors, torch.tensor([[0.0], [1 - 1e-6]])).item() == 1


def test_kmeans_is_as_good_as_plain_lloyd():
    vectors = content(300)
    found = kmeans(vectors, 10, iterations=50, redo=20, seed=0)
    assert inertia(vectors, found) <= 1.02 * inertia(vectors, lloyd(vectors, 10))


def test_kmeans_centroids_are_the_means_of_their_vectors():
    vectors = content(300)
    found = kmeans(vectors, 10, iterations=100, seed=0)
    owner = nearest_code(vectors, found)
    for code in range(10):
        assert torch.allclose(found[code], vectors[owner == code].mean(0), atol=1e-4)


@pytest.mark.parametrize("k", [12, 13, 40])
def test_fewer_distinct_vectors_than_codes_are_all_found(k):
    distinct = content(12)
    vectors = distinct[torch.arange(60) % 12]
    found = kmeans(vectors, k, seed=0)
    assert found.shape == (k, DIM)
    assert inertia(vectors, found) < 1e-9
    assert len(nearest_code(vectors, found).unique()) == 12


def test_no_code_stays_empty_where_vectors_are_distinct_enough():
    # One tight cloud of 500 and five far vectors: plain Lloyd leaves centroids without vectors.
    torch.manual_seed(0)
    cloud = torch.randn(500, DIM) * 1e-3
    vectors = torch.cat([cloud[torch.arange(500) % 30], 100 * torch.eye(DIM)[:5]])
    for seed in range(5):
        found = kmeans(vectors, 30, seed=seed)
        assert len(nearest_code(vectors, found).unique()) == 30


def test_small_catalogues_are_used_whole_and_samples_are_bounded():
    vectors = content(300)
    whole = kmeans(vectors, 4, seed=0, points_per_code=75)
    assert torch.equal(whole, kmeans(vectors, 4, seed=0, points_per_code=10**6))
    assert not torch.equal(whole, kmeans(vectors, 4, seed=0, points_per_code=20))


@pytest.mark.parametrize("normalize_residuals", [False, True])
@pytest.mark.parametrize("normalize_content", [False, True])
def test_rkmeans_codes_are_nearest_centroids_level_by_level(normalize_content, normalize_residuals):
    tokenizer = fitted(
        "RKMeans", normalize_content=normalize_content, normalize_residuals=normalize_residuals
    )
    for vector, codes in zip(content(), tokenizer.encode(content()).tolist()):
        residual = vector.double()
        if normalize_content:
            residual = residual / residual.norm()
        for level, code in enumerate(codes):
            if normalize_residuals:
                residual = residual / residual.norm()
            book = tokenizer.codebooks[level].double()
            distances = (residual - book).square().sum(1)
            assert code == int(distances.argmin())
            if level == 2:
                expected = tokenizer.last_level_distances(vector[None], torch.tensor([codes]))
                assert torch.allclose(expected[0], distances)
            residual = residual - book[code]


def test_rkmeans_levels_explain_more_and_more():
    tokenizer = fitted("RKMeans", normalize_residuals=False, kmeans_iterations=20)
    errors, residual = [], content().double()
    for level in range(3):
        residual = (
            residual - tokenizer.codebooks[level].double()[tokenizer.encode(content())[:, level]]
        )
        errors.append(float(residual.square().sum()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.5 * errors[0]


def test_items_alone_in_their_cluster_have_no_residual_and_no_nan():
    vectors = torch.eye(DIM)
    tokenizer = fitted("RKMeans", vectors, codebook_size=DIM)
    assert len(tokenizer.encode(vectors)[:, 0].unique()) == DIM
    assert all(bool(torch.isfinite(book).all()) for book in tokenizer.codebooks)


def test_seeds_are_distinct_vectors_and_spread_out():
    vectors = torch.cat([content(100) / 100 + 10 * corner for corner in torch.eye(12)[:4]])
    torch.manual_seed(0)
    seeds = spread_seeds(vectors, 4)
    assert all(bool((vectors == seed).all(1).any()) for seed in seeds)
    assert sorted(seeds.argmax(1).tolist()) == [0, 1, 2, 3]  # one of each cluster
    few = spread_seeds(torch.tensor([[0.0, 1.0], [1.0, 0.0]] * 5), 4)
    assert len(few.unique(dim=0)) == 2


def test_residual_vector_quantization_improves_on_its_seeds_level_by_level():
    vectors = content(400)
    options = {"tokenizer_steps": 300, "normalize_residuals": False, "tokenizer_batch_size": 400}
    learned = fitted("RVQ", vectors, tokenizer_learning_rate=0.1, **options)
    started = fitted("RVQ", vectors, tokenizer_learning_rate=1e-9, **options)
    errors = []
    for tokenizer in (learned, started):
        codes = tokenizer.encode(vectors)
        words = sum(book[codes[:, level]] for level, book in enumerate(tokenizer.codebooks))
        errors.append(float((vectors - words).square().sum()))
        # The first level is a plain nearest centroid, so its error is that of the definition.
        first = torch.cdist(vectors.double(), tokenizer.codebooks[0].double()).argmin(1)
        assert torch.equal(codes[:, 0], first)
    assert errors[0] < 0.9 * errors[1]
    plain = inertia(vectors, kmeans(vectors, 8, iterations=50, redo=5))
    assert inertia(vectors, learned.codebooks[0]) < 1.1 * plain
