"""The two ways to number the items of a SID, against plain loops over all items."""

from collections import Counter, defaultdict
from types import SimpleNamespace

import pytest
import torch
from test_tokenizer_pipeline import config, fits, item_content  # noqa: F401

from recbole_gr.errors import ConfigError
from recbole_gr.pipeline.new_items import new_item_codes
from recbole_gr.pipeline.sids import prepare_sid
from recbole_gr.sid.collision import resolve
from recbole_gr.sid.reassign import reassign
from recbole_gr.sid.suffix import NUMBERINGS, add_suffix
from recbole_gr.sid.table import SIDTable

ALONE = "alone_is_zero"


def random_codes(n_items, sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(0, s, (n_items,), generator=generator) for s in sizes], 1)


def slow_suffixes(codes):
    """0 for an item alone on its codes, 1 .. m in a group, in item order."""
    groups, found = defaultdict(list), {}
    for item, sid in enumerate(map(tuple, codes.tolist())):
        groups[sid].append(item)
    for items in groups.values():
        for number, item in enumerate(items, 1):
            found[item] = number if len(items) > 1 else 0
    return [found[item] for item in range(len(codes))]


@pytest.mark.parametrize("seed", range(5))
def test_zero_is_an_item_alone_and_a_group_counts_from_one(seed):
    sizes = (6, 5 + 20 * seed)
    codes = random_codes(120, sizes, seed)
    numbered, new_sizes = add_suffix(codes, sizes, ALONE)
    assert numbered[:, 2].tolist() == slow_suffixes(codes)
    assert torch.equal(numbered[:, :2], codes) and len(numbered.unique(dim=0)) == 120
    largest = max(Counter(map(tuple, codes.tolist())).values())
    assert largest > 1 and new_sizes == (*sizes, largest + 1)
    again = resolve(codes, sizes, ["suffix"], numbering=ALONE)
    assert torch.equal(again[0], numbered) and again[1] == new_sizes


@pytest.mark.parametrize("numbering", NUMBERINGS)
def test_without_collisions_the_level_has_one_code(numbering):
    codes = torch.tensor([[0], [2], [1]])
    numbered, sizes = add_suffix(codes, (3,), numbering)
    assert numbered.tolist() == [[0, 0], [2, 0], [1, 0]] and sizes == (3, 1)
    assert add_suffix(codes, (3,), numbering, suffix_size=128)[1] == (3, 128)


def test_the_size_that_is_asked_for_is_the_least_one():
    codes = torch.zeros(9, 1).long()
    assert add_suffix(codes, (2,), None, 4)[1] == (2, 9)
    assert add_suffix(codes, (2,), ALONE, 12)[1] == (2, 12)


def test_an_unknown_numbering_is_refused():
    with pytest.raises(ConfigError, match="unknown 'alone_is_0', did you mean 'alone_is_zero'"):
        add_suffix(torch.zeros(2, 1).long(), (2,), "alone_is_0")


def slow_reassigned(raw, old, keep_depth):
    """Kept SIDs stay; the others take, in item order, the least number from 1 that is free, or 0
    where no other item has their codes."""
    raw, old = raw.tolist(), old.tolist()
    keeps = [i < len(old) and c[:keep_depth] == old[i][:keep_depth] for i, c in enumerate(raw)]
    result = [list(old[i]) if keep else [*raw[i], None] for i, keep in enumerate(keeps)]
    together = Counter(tuple(sid[:-1]) for sid in result)
    taken = {tuple(sid) for sid in result if sid[-1] is not None}
    for sid in result:
        if sid[-1] is None:
            number = 1 if together[tuple(sid[:-1])] > 1 else 0
            while (*sid[:-1], number) in taken:
                number += 1
            sid[-1] = number
            taken.add(tuple(sid))
    return result


@pytest.mark.parametrize("keep_depth", [0, 1, 3])
@pytest.mark.parametrize("seed", range(6))
def test_items_of_a_later_period_are_numbered_alike(seed, keep_depth):
    sizes = (3, 2, 2 + 8 * (seed % 2))  # with few and with many items alone
    old, _, _ = reassign(random_codes(40, sizes, seed), torch.empty(0, 4).long(), sizes, 0,
                         numbering=ALONE)  # fmt: skip
    assert old[:, 3].tolist() == slow_suffixes(old[:, :3])
    raw = random_codes(60, sizes, seed + 100)
    raw[:40:2] = old[::2, :3]
    new, new_sizes, _ = reassign(raw, old, sizes, keep_depth, numbering=ALONE)
    assert new.tolist() == slow_reassigned(raw, old, keep_depth)
    assert len(new.unique(dim=0)) == 60 and int(new[:, 3].max()) < new_sizes[3]
    over, _, _ = reassign(raw, old[:0], sizes, 0, "repo", ALONE)
    assert over[:, 3].tolist() == slow_suffixes(raw)


def test_a_new_item_joins_as_the_old_ones_are_numbered():
    old = torch.tensor([[0, 0], [1, 1], [1, 2]])  # one alone, a group of two
    meta = {"content_levels": 1, "options": {"collision": "suffix", "suffix_numbering": ALONE}}
    table = SIDTable.from_item_codes(old, (5, 4), meta)
    codes = torch.tensor([0, 1, 2, 3, 3, 0])
    tokenizer = SimpleNamespace(encode=lambda content: codes[: len(content), None])
    found = new_item_codes(tokenizer, table, torch.zeros(6, 2))
    assert found.tolist() == [[0, 1], [1, 3], [2, 0], [3, 1], [3, 2], [0, 2]]
    small = SIDTable.from_item_codes(old, (5, 3), meta)
    with pytest.raises(ConfigError, match=r"more items than the model has suffixes \(3\), the fi"):
        new_item_codes(tokenizer, small, torch.zeros(6, 2))
    meta = {"content_levels": 1}  # of a version before there were two ways
    older = SIDTable.from_item_codes(torch.tensor([[0, 0], [1, 0], [1, 1]]), (5, 4), meta)
    found = new_item_codes(tokenizer, older, torch.zeros(6, 2))
    assert found.tolist() == [[0, 1], [1, 2], [2, 0], [3, 0], [3, 1], [0, 2]]


def test_sids_of_each_numbering_and_size_are_kept_apart(config, fits, tmp_path):  # noqa: F811
    tables = [
        prepare_sid({**config, **change}, item_content())[0]
        for change in ({}, {"suffix_numbering": ALONE}, {"suffix_size": 128})
    ]
    assert len({table.digest() for table in tables}) == len({t.meta["file"] for t in tables}) == 3
    plain, alone, wide = tables
    assert torch.equal(plain.codes, wide.codes) and wide.sizes == (*plain.sizes[:-1], 128)
    assert alone.sizes[-1] == plain.sizes[-1] + 1
    assert alone.codes[1:, -1].tolist() == slow_suffixes(plain.codes[1:, :-1])
    prepare_sid({**config, "suffix_numbering": "from_zero"}, item_content())
    assert len(fits) == 3  # the default, given, is the default


def test_sids_from_a_file_that_items_share_are_numbered_as_asked(config, tmp_path):  # noqa: F811
    codes = torch.arange(60).clamp_min(20)[:, None]  # 21 items on the first code
    SIDTable.from_item_codes(codes, (60,)).save(tmp_path / "sid.npz", item_content().item_tokens)
    given = {**config, "sid_file": str(tmp_path / "sid.npz")}
    table, _ = prepare_sid({**given, "suffix_numbering": ALONE}, item_content())
    assert table.codes[1:, 1].tolist() == slow_suffixes(codes) and table.sizes == (60, 22)
    assert table.meta["options"]["suffix_numbering"] == ALONE
    assert prepare_sid({**given, "suffix_size": 30}, item_content())[0].sizes == (60, 30)
