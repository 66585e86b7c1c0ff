"""Crops and shuffles of training sequences, against a loop over the items of each."""

import pytest
import torch

from recbole_gr.data.augment import crop_or_shuffle


def views(lengths, n_targets, share, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths, n_targets = torch.tensor(lengths), torch.tensor(n_targets)
    parts = crop_or_shuffle(lengths, n_targets, int(lengths.max()), share, generator)
    return [part.tolist() for part in parts]


def test_without_a_share_nothing_changes():
    lengths, counted = [3, 9, 1], [3, 2, 1]
    places, after, n = views(lengths, counted, 0.0)
    assert after == lengths and n == counted
    for place, length in zip(places, after):
        assert place[: length + 1] == list(range(length + 1))


def test_a_row_is_a_part_of_its_sequence_or_has_one_stretch_in_another_order():
    made = [(length, n) for length in (1, 2, 4, 9, 19) for n in {1, (length + 1) // 2, length}]
    kinds = set()
    for seed in range(60):
        lengths, counted = zip(*made)
        for length, n, place, after, left in zip(*zip(*made), *views(lengths, counted, 1.0, seed)):
            place, total = place[: after + 1], length + 1
            if after < length:  # cropped
                kinds.add("crop")
                assert place == list(range(place[0], place[0] + len(place)))
                assert len(place) == max(2, int(0.6 * total)) and place[-1] < total
                # Counted before, and behind another item of the part.
                assert left == sum(p >= total - n for p in place[1:]) > 0
            else:
                assert sorted(place) == list(range(total)) and left == n
                moved = [i for i, p in enumerate(place) if i != p]
                if moved:
                    kinds.add("shuffle")
                    assert moved[-1] - moved[0] < max(2, int(0.2 * total))
    assert kinds == {"crop", "shuffle"}


def test_every_part_and_every_stretch_comes_up():
    parts, stretches = set(), set()
    for seed in range(400):
        places, after, _ = views([9], [9], 1.0, seed)
        if after[0] < 9:
            parts.add(places[0][0])
        elif places[0] != list(range(10)):
            stretches.add(next(i for i, p in enumerate(places[0]) if i != p))
    assert parts == set(range(5)) and stretches == set(range(9))


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_half_of_the_share_is_cropped(share):
    n = 20_000
    places, after, _ = views([9] * n, [9] * n, share)
    cropped = sum(length < 9 for length in after) / n
    moved = sum(p != list(range(10)) for p, length in zip(places, after) if length == 9) / n
    assert cropped == pytest.approx(share / 2, abs=0.02)
    assert moved == pytest.approx(share / 4, abs=0.02)  # two items: every other order is the same
