"""Items of a batch once each, with as many rows as there are and with as many as there can be."""

import copy

import pytest
import torch
from pit_models import batch_for, evolving, small_pit

from recbole_gr.model.pit import choosing
from recbole_gr.model.pit import model as pit
from recbole_gr.model.pit.pairs import counted_pairs, counted_pairs_of_fixed_size
from recbole_gr.sid.counting import distinct, distinct_of_fixed_size


def test_distinct_items_of_a_fixed_size_are_the_distinct_ones_and_padding():
    items = torch.tensor([[7, 0, 3], [3, 7, 7]])
    values, where = distinct(items, 9)
    assert values.tolist() == [0, 3, 7]
    for most, padding in ((9, 3), (4, 1), (3, 0)):
        fixed, place = distinct_of_fixed_size(items, most)
        assert fixed.tolist() == [0, 3, 7] + padding * [0]
        assert torch.equal(place, where)


def test_counted_pairs_of_a_fixed_size_are_those_above_zero_and_pairs_that_count_nothing():
    counts = torch.tensor([[0.0, 2.0], [0.0, 0.0], [1.0, 3.0]])
    row, place, count = counted_pairs(counts, 4)
    assert (row.tolist(), place.tolist()) == ([0, 2, 2], [1, 0, 1])
    fixed = counted_pairs_of_fixed_size(counts, 4)
    for all_rows, rows in zip(fixed, (row, place, count)):
        assert torch.equal(all_rows[:3], rows) and len(all_rows) == 4
    assert fixed[2].tolist() == [2, 1, 3, 0]


@pytest.mark.parametrize("options", [{}, {"freeze_i2t": False}, {"ablate": "i2t"}], ids=str)
@pytest.mark.parametrize("phase", [1, 2])
def test_a_fixed_size_leaves_loss_gradients_and_index_of_pit_as_they_are(
    phase, options, monkeypatch
):
    model = small_pit(select="item", **options)
    if phase == 2:
        evolving(model)
    other, batch = copy.deepcopy(model), batch_for(model)
    torch.manual_seed(1)
    loss = model.calculate_loss(batch)
    loss.backward()
    monkeypatch.setattr(choosing, "distinct", distinct_of_fixed_size)
    monkeypatch.setattr(pit, "counted_pairs", counted_pairs_of_fixed_size)
    torch.manual_seed(1)
    fixed = other.calculate_loss(batch)
    fixed.backward()
    torch.testing.assert_close(fixed, loss, rtol=1e-6, atol=0)
    for parameter, twin in zip(model.parameters(), other.parameters()):
        torch.testing.assert_close(parameter.grad, twin.grad, rtol=1e-4, atol=1e-7)
    for name, value in model.index.state_dict().items():
        assert torch.equal(other.index.state_dict()[name], value)
