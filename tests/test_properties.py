"""SID table, trie, beam search, reassignment and splitter on whatever hypothesis makes up."""

import string

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_continual import slow_parts
from test_generation import TableModel

from recbole_gr.data.continual import parts_of, periods_by_cuts
from recbole_gr.errors import ConfigError
from recbole_gr.generation.beam_search import NEVER, beam_search
from recbole_gr.generation.ranking import rank_items
from recbole_gr.sid.exchange import read_json, write_json
from recbole_gr.sid.reassign import reassign
from recbole_gr.sid.table import SIDTable
from recbole_gr.sid.trie import SIDTrie

few = settings(max_examples=40)


@st.composite
def catalogues(draw, most=12):
    """(codes [n, L], sizes): any items, with the same SIDs among them or not."""
    sizes = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    row = st.tuples(*(st.integers(0, size - 1) for size in sizes))
    return torch.tensor(draw(st.lists(row, min_size=1, max_size=most))), sizes


@st.composite
def tables_with_tokens(draw):
    codes, sizes = draw(catalogues())
    # As tokens come from an atomic file: no tab, no end of line, not empty, each once.
    text = st.text(
        st.characters(
            blacklist_categories=("Cs", "Cc"), whitelist_characters=string.printable[:95]
        ),
        min_size=1,
        max_size=6,
    )
    tokens = draw(st.lists(text, min_size=len(codes), max_size=len(codes), unique=True))
    return SIDTable.from_item_codes(codes, sizes), ["[PAD]", *tokens]


@few
@given(given=tables_with_tokens(), order=st.randoms(use_true_random=False))
def test_a_table_comes_back_from_every_kind_of_file_in_any_order_of_items(
    given, order, tmp_path_factory
):
    table, tokens = given
    folder = tmp_path_factory.mktemp("table")
    asked = tokens[1:]
    order.shuffle(asked)
    row_of = {token: row for row, token in enumerate(tokens)}
    expected = table.codes[[0, *(row_of[token] for token in asked)]][1:]
    table.save(folder / "t.npz", tokens)
    write_json(table, folder / "t.json", tokens)
    for loaded in (
        SIDTable.load(folder / "t.npz", ["[PAD]", *asked]),
        read_json(folder / "t.json", ["[PAD]", *asked]),
    ):
        assert torch.equal(loaded.codes[1:], expected)
    again = SIDTable.load(folder / "t.npz", tokens)
    assert again.digest() == table.digest() and again.sizes == table.sizes


@few
@given(given=tables_with_tokens(), data=st.data())
def test_a_changed_byte_of_a_table_never_gives_other_codes(given, data, tmp_path_factory):
    table, tokens = given
    path = tmp_path_factory.mktemp("table") / "t.npz"
    table.save(path, tokens)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        loaded = SIDTable.load(path, tokens)
    except ConfigError as error:
        assert "t.npz" in str(error)
    else:
        assert torch.equal(loaded.codes, table.codes)


@few
@given(given=catalogues(), dense_limit=st.sampled_from([0, 1 << 20]))
def test_the_trie_opens_exactly_the_codes_that_lead_to_an_item(given, dense_limit):
    codes, sizes = given
    trie = SIDTrie(codes, torch.arange(1, len(codes) + 1), sizes, dense_limit)
    rows = [tuple(row) for row in codes.tolist()]
    nodes = {(): trie.root(1)[0, 0]}
    for level, size in enumerate(sizes):
        deeper = {}
        for prefix, node in nodes.items():
            allowed = {row[level] for row in rows if row[:level] == prefix}
            mask = trie.children_mask(level, node.view(1))[0]
            assert set(mask.nonzero().flatten().tolist()) == allowed
            for code in range(size):
                child = trie.advance(level, node.view(1), torch.tensor([code]))[0]
                assert (child >= 0) == (code in allowed)
                if code in allowed:
                    deeper[(*prefix, code)] = child
        assert (
            len({int(node) for node in deeper.values()}) == len(deeper) == trie.n_nodes[level + 1]
        )
        nodes = deeper
    assert set(nodes) == set(rows)
    for row, leaf in nodes.items():
        start, end = trie.leaf_start[leaf], trie.leaf_start[leaf + 1]
        below = [item for item, other in enumerate(rows, 1) if other == row]
        assert sorted(trie.leaf_item[start:end].tolist()) == below


@few
@given(
    given=catalogues(),
    seed=st.integers(0, 99),
    renormalise=st.booleans(),
    dense_limit=st.sampled_from([0, 1 << 20]),
)
def test_a_beam_of_full_width_ranks_as_brute_force_does(given, seed, renormalise, dense_limit):
    codes, sizes = given
    items = torch.arange(1, len(codes) + 1)
    trie = SIDTrie(codes, items, sizes, dense_limit)
    beams = beam_search(TableModel(2, sizes, seed), trie, 2, 1000, renormalise=renormalise)
    found = rank_items(trie, beams, len(codes))
    for user in range(2):
        truth = TableModel(2, sizes, seed).item_scores(user, codes, items, renormalise)
        # Of items on one SID the lower id comes first; rounding must not decide between others.
        ranking = sorted(truth, key=lambda item: (-round(truth[item], 5), item))
        got = found.items[user].tolist()
        assert sorted(got) == items.tolist()
        expected = torch.tensor([truth[item] for item in ranking]).float()
        assert torch.allclose(found.scores[user], expected, atol=1e-4)


@few
@given(given=catalogues(), seed=st.integers(0, 99), width=st.integers(1, 15))
def test_beams_of_any_width_are_sids_of_the_catalogue_once_each_and_in_order(given, seed, width):
    codes, sizes = given
    trie = SIDTrie(codes, torch.arange(1, len(codes) + 1), sizes)
    beams = beam_search(TableModel(2, sizes, seed), trie, 2, width)
    rows = {tuple(row) for row in codes.tolist()}
    assert beams.codes.shape[1] <= width
    for user in range(2):
        alive = beams.scores[user] > NEVER
        found = [tuple(row) for row in beams.codes[user][alive].tolist()]
        assert len(set(found)) == len(found) >= min(1, len(rows)) and set(found) <= rows
        scores = beams.scores[user].tolist()
        assert scores == sorted(scores, reverse=True)


@few
@given(given=catalogues(), n_new=st.integers(0, 5), data=st.data())
def test_reassigned_sids_are_unique_and_kept_where_the_first_levels_agree(given, n_new, data):
    raw_old, sizes = given
    old, full, _ = reassign(raw_old, raw_old.new_zeros(0, len(sizes) + 1), sizes)
    row = st.tuples(*(st.integers(0, size - 1) for size in sizes))
    count = len(raw_old) + n_new
    raw = torch.tensor(data.draw(st.lists(row, min_size=count, max_size=count)))
    depth = data.draw(st.integers(0, len(sizes)))
    new, _, churn = reassign(raw, old, full[:-1], depth)
    assert len(new.unique(dim=0)) == len(new) == count
    kept = (raw[: len(old), :depth] == old[:, :depth]).all(1)
    assert torch.equal(new[: len(old)][kept], old[kept])
    assert torch.equal(new[: len(old)][~kept, :-1], raw[: len(old)][~kept])
    assert torch.equal(new[len(old) :, :-1], raw[len(old) :])


@few
@given(
    rows=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=60),
    present=st.integers(0, 3),
)
def test_parts_are_those_of_the_rule_for_every_log(rows, present):
    rows = sorted(rows, key=lambda row: row[1])
    users = np.array([user for user, _ in rows])
    periods = np.array([period for _, period in rows])
    known = periods <= present
    if known.any():
        found = parts_of(users[known], periods[known], present).tolist()
        assert found == slow_parts(users[known].tolist(), periods[known].tolist(), present)


@few
@given(
    times=st.lists(st.integers(0, 40), min_size=1, max_size=60),
    cuts=st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True),
)
def test_periods_by_share_follow_time_and_have_their_shares(times, cuts):
    times = np.sort(np.array(times, dtype=float))
    shares = [cut / 100 for cut in sorted(cuts)] + [1.0]
    try:
        periods = periods_by_cuts(times, shares)
    except ConfigError as error:  # so few interactions that a period has none
        assert "no interaction is in period" in str(error) and len(times) < 100
        return
    assert (np.diff(periods) >= 0).all() and len(periods) == len(times)
    for number, share in enumerate(shares):
        assert abs((periods <= number).sum() - share * len(times)) <= 1


def test_shares_in_the_wrong_order_are_refused():
    with pytest.raises(ConfigError, match="continual_cuts"):
        periods_by_cuts(np.arange(5.0), [0.7, 0.6, 1.0])
