"""Semantic Cohesion and Preference Discrimination against loops over pairs."""

import math

import pytest
import torch

from recbole_gr.quality import cohesion
from recbole_gr.quality.cohesion import discrimination, group_cohesion


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def test_cohesion_equals_a_loop_over_all_pairs():
    torch.manual_seed(0)
    vectors, groups = torch.randn(40, 7), torch.randint(0, 9, (40,))
    groups[groups == 3] = 4
    groups[0] = 3  # a group of one
    means = []
    for group in range(12):  # 9, 10 and 11 are empty
        rows = [i for i in range(40) if groups[i] == group]
        pairs = [cosine(vectors[i], vectors[j]) for i in rows for j in rows if i < j]
        if pairs:
            means.append(sum(pairs) / len(pairs))
    expected = sum(means) / len(means)
    assert float(group_cohesion(vectors, groups, 12)) == pytest.approx(expected, abs=1e-6)


def test_cohesion_of_identical_vectors_is_one_and_groups_of_one_are_left_out():
    same = torch.tensor([[3.0, 4.0]]).repeat(5, 1)
    other = torch.tensor([[-1.0, 0.0]])
    groups = torch.tensor([0, 0, 0, 0, 0, 1])
    assert float(group_cohesion(torch.cat([same, other]), groups, 2)) == pytest.approx(1)
    alone = torch.randn(4, 3, requires_grad=True)
    value = group_cohesion(alone, torch.arange(4), 4)
    value.backward()
    assert float(value.detach()) == 0 and not alone.grad.any()


def test_vectors_at_sixty_degrees_have_cohesion_one_half():
    vectors = torch.tensor([[1.0, 0.0], [0.5, 3**0.5 / 2], [0.0, 2.0]])
    assert float(group_cohesion(vectors, torch.tensor([0, 0, 1]), 2)) == pytest.approx(0.5)


def test_a_zero_vector_is_at_right_angles_to_everything():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    expected = (0 + 1 + 0) / 3
    assert float(group_cohesion(vectors, torch.zeros(3).long(), 1)) == pytest.approx(expected)


@pytest.mark.parametrize("values", [2**24, 60])
def test_discrimination_equals_a_loop_over_all_pairs_in_one_block_or_many(values, monkeypatch):
    monkeypatch.setattr(cohesion, "_CHUNK_VALUES", values)
    centres = torch.randn(20, 5, generator=torch.Generator().manual_seed(1))
    terms = [
        math.exp(-1.5 * (1 - cosine(centres[a], centres[b])))
        for a in range(20)
        for b in range(20)
        if a != b
    ]
    expected = math.log(sum(terms) / len(terms))
    assert float(discrimination(centres, 1.5)) == pytest.approx(expected, abs=1e-5)


def test_discrimination_of_orthonormal_centres_is_minus_t_and_of_identical_ones_zero():
    assert float(discrimination(torch.eye(6))) == pytest.approx(-2)
    assert float(discrimination(torch.ones(6, 3))) == pytest.approx(0, abs=1e-6)
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert float(discrimination(opposite)) == pytest.approx(-4)
    assert float(discrimination(opposite[:1])) == 0
