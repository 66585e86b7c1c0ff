"""Reassignment of SIDs between periods against a loop, and on DACT's published tables."""

from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_gr.errors import ConfigError
from recbole_gr.sid.reassign import reassign

TOOLS = Path(__file__).parents[2] / "shared" / "data" / "Amazon_Tools_DACT"


def slow(raw, old, keep_depth, suffix_mode):
    raw, old = raw.tolist(), old.tolist()
    result, keeps = [], []
    for item, codes in enumerate(raw):
        keep = item < len(old) and codes[:keep_depth] == old[item][:keep_depth]
        keeps.append(keep)
        result.append(list(old[item]) if keep else [*codes, None])
    if suffix_mode == "repo":
        seen = {}
        for item, codes in enumerate(raw):
            number = seen.get(tuple(codes), 0)
            seen[tuple(codes)] = number + 1
            if not keeps[item]:
                result[item][-1] = number
    else:
        taken = {tuple(sid) for sid, keep in zip(result, keeps, strict=True) if keep}
        for sid, keep in zip(result, keeps, strict=True):
            if not keep:
                number = 0
                while (*sid[:-1], number) in taken:
                    number += 1
                sid[-1] = number
                taken.add(tuple(sid))
    return result


@pytest.mark.parametrize("suffix_mode", ["unique", "repo"])
@pytest.mark.parametrize("keep_depth", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_every_item_keeps_or_changes_as_the_rule_says(seed, keep_depth, suffix_mode):
    generator = torch.Generator().manual_seed(seed)
    sizes, n_old, n_all = (3, 2, 2), 60, 80

    def draw(n):
        return torch.stack([torch.randint(s, (n,), generator=generator) for s in sizes], 1)

    old, _, _ = reassign(draw(n_old), torch.empty(0, 4).long(), sizes)
    assert len({tuple(row) for row in old.tolist()}) == n_old
    raw = draw(n_all)
    same = torch.rand(n_old, generator=generator) < 0.5
    raw[:n_old][same] = old[same, :-1]
    new, new_sizes, churn = reassign(raw, old, sizes, keep_depth, suffix_mode)
    assert new.tolist() == slow(raw, old, keep_depth, suffix_mode)
    assert new_sizes[:3] == sizes and int(new[:, 3].max()) < new_sizes[3]
    changed = [new[i].tolist() != old[i].tolist() for i in range(n_old)]
    assert churn.final_any == pytest.approx(sum(changed) / n_old)
    assert churn.raw[0] == pytest.approx(float((raw[:n_old, 0] != old[:, 0]).double().mean()))
    if suffix_mode == "unique":
        assert len({tuple(row) for row in new.tolist()}) == n_all
    if keep_depth == 0:
        assert torch.equal(new[:n_old], old) and churn.final_any == 0 and churn.raw_any > 0


def test_a_newcomer_takes_the_least_free_suffix_between_kept_ones():
    old = torch.tensor([[0, 0, 0], [0, 0, 2], [0, 0, 3], [1, 0, 0]])
    raw = torch.tensor([[0, 0], [0, 0], [0, 0], [0, 0], [0, 0], [1, 0]])
    new, sizes, _ = reassign(raw, old, (2, 1))
    assert new.tolist() == [[0, 0, 0], [0, 0, 2], [0, 0, 3], [0, 0, 1], [0, 0, 4], [1, 0, 0]]
    assert sizes == (2, 1, 5)


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"keep_depth": 4}, "keep_depth: 4 must be an integer from 0 to 3"),
        ({"keep_depth": True}, "keep_depth: True"),
        ({"suffix_mode": "none"}, "suffix_mode: 'none' is not one of unique, repo"),
        ({"old": torch.zeros(5, 3).long()}, "do not fit"),
        ({"old": torch.zeros(50, 4).long()}, "do not fit"),
    ],
)
def test_what_does_not_fit_is_refused(options, complaint):
    given = {"old": torch.zeros(5, 4).long(), **options}
    with pytest.raises(ConfigError, match=complaint):
        reassign(torch.zeros(10, 3).long(), sizes=(4, 4, 4), **given)


@pytest.mark.skipif(not TOOLS.is_dir(), reason="the published Tools tables are not beside this")
def test_the_published_tables():
    def read(tag):
        path = TOOLS / f"Amazon_Tools_DACT.sid_{tag}.npy"
        return torch.from_numpy(np.load(path, allow_pickle=False).astype(np.int64))

    first, second = read("0.6"), read("0.7.dact")
    assert first.shape == (9_610, 4) and second.shape == (9_885, 4)
    assert len(torch.unique(first, dim=0)) == 9_610
    histogram = torch.bincount(first[:, 3]).tolist()
    assert histogram == [9447, 71, 36, 25, 15, 6, 4, 2, 1, 1, 1, 1]
    sizes = (256, 256, 256)
    again, _, _ = reassign(first[:, :3], torch.empty(0, 4).long(), sizes)
    assert torch.equal(again, first)
    # Items that kept their SIDs show these codes, whatever the tokenizer gave on deeper levels.
    new, _, churn = reassign(second[:, :3], first, sizes)
    kept = second[:9_610, 0] == first[:, 0]
    assert int(kept.sum()) == 7_339
    assert torch.equal(new[:9_610][kept], first[kept])
    assert round(churn.final_any * 9_610) == 2_271
    assert churn.final[0] == pytest.approx(0.2363, abs=1e-4)
    assert churn.final[1] == pytest.approx(0.2173, abs=1e-4)
    assert churn.final[2] == pytest.approx(0.2296, abs=1e-4)
    assert len(torch.unique(new, dim=0)) == 9_885
    assert len(second) - len(torch.unique(second, dim=0)) == 3


def test_given_sids_are_kept_until_the_tokenizer_fitted_to_them_moves():
    """Item 1 has another first code in the given SIDs than the tokenizer has ever given it."""
    old = torch.tensor([[0, 0, 0], [1, 0, 0], [2, 0, 0]])
    before, raw = torch.tensor([[0, 0], [3, 0], [2, 0]]), torch.tensor([[0, 1], [3, 1], [4, 0]])
    new, _, churn = reassign(raw, old, (5, 2), before=before)
    assert new.tolist() == [[0, 0, 0], [1, 0, 0], [4, 0, 0]] and churn.final_any == 1 / 3
    assert reassign(raw, old, (5, 2))[0].tolist() == [[0, 0, 0], [3, 1, 0], [4, 0, 0]]
