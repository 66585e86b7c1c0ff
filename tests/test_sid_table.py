"""The SID table: its checks, its groups and its file formats."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_gr.errors import ConfigError
from recbole_gr.sid.exchange import read_json, read_npy, write_json, write_npy
from recbole_gr.sid.formats import level_name
from recbole_gr.sid.table import SIDTable, sid_keys

TOKENS = ["[PAD]", "apple", "pear", "fig", "plum"]


def table(codes=((0, 1), (2, 0), (2, 0), (1, 3)), sizes=(3, 4)):
    return SIDTable.from_item_codes(torch.tensor(codes), sizes, {"tokenizer": "hand"})


def test_rows_are_item_ids_and_row_zero_is_padding():
    made = table()
    assert (made.n_items, made.n_levels, made.sizes) == (5, 2, (3, 4))
    assert made.codes[0].tolist() == [-1, -1]
    assert made.codes[4].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("codes", "sizes", "message"),
    [
        ([[0, 1], [3, 0]], (3, 4), "first item id 2: code 3 at level 1 of size 3"),
        ([[0, 1], [0, -2]], (3, 4), "1 items have SID codes outside .* code -2 at level 2"),
        ([[0, 1]], (3,), "2 levels but the codebook sizes are"),
        ([[0, 1]], (3, 0), "positive size"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes, sizes, message):
    with pytest.raises(ConfigError, match=message):
        SIDTable.from_item_codes(torch.tensor(codes), sizes)


def test_a_table_without_padding_row_or_with_float_codes_is_refused():
    with pytest.raises(ConfigError, match="padding"):
        SIDTable(torch.tensor([[0, 0], [1, 1]]), (2, 2))
    with pytest.raises(ConfigError, match="int64"):
        SIDTable(torch.zeros(3, 2), (2, 2))
    with pytest.raises(ConfigError, match="at least one item"):
        SIDTable(torch.tensor([[-1, -1]]), (2, 2))


def test_groups_number_the_distinct_sids_in_lexicographic_order():
    index, counts = table().groups()
    assert index.tolist() == [0, 2, 2, 1]  # (0, 1) < (1, 3) < (2, 0)
    assert counts.tolist() == [1, 1, 2]


@pytest.mark.parametrize("sizes", [(7, 5, 3), (2**20,) * 6, (256,) * 32])
def test_keys_sort_as_the_sids_do(sizes):
    torch.manual_seed(0)
    codes = torch.stack([torch.randint(0, min(size, 3), (300,)) for size in sizes], 1)
    keys, sids = sid_keys(codes, sizes).tolist(), [tuple(row) for row in codes.tolist()]
    by_key = sorted(range(300), key=lambda row: (keys[row], row))
    assert by_key == sorted(range(300), key=lambda row: (sids[row], row))
    assert len(set(keys)) == len(set(sids))


def test_digest_depends_on_codes_and_sizes_only():
    assert table().digest() == SIDTable.from_item_codes(table().codes[1:], (3, 4)).digest()
    assert table().digest() != table(sizes=(3, 5)).digest()
    assert table().digest() != table(codes=((0, 1), (2, 0), (2, 1), (1, 3))).digest()


def test_level_names_go_on_after_z():
    assert [level_name(n) for n in (0, 3, 25, 26, 27, 52)] == ["a", "d", "z", "aa", "ab", "ba"]


def test_saved_table_loads_as_it_was(tmp_path):
    path = tmp_path / "deep" / "sid.npz"
    table().save(path, TOKENS)
    loaded = SIDTable.load(path, TOKENS)
    assert torch.equal(loaded.codes, table().codes)
    assert (loaded.sizes, loaded.meta) == ((3, 4), {"tokenizer": "hand"})
    assert SIDTable.load(path).digest() == table().digest()
    assert [file.name for file in path.parent.iterdir()] == ["sid.npz"]


def test_saved_table_finds_rows_by_item_token(tmp_path):
    table().save(tmp_path / "sid.npz", TOKENS)
    loaded = SIDTable.load(tmp_path / "sid.npz", ["[PAD]", "plum", "apple"])
    assert loaded.codes[1:].tolist() == [[1, 3], [0, 1]]


def test_loading_for_other_items_says_how_many_and_which_first(tmp_path):
    table().save(tmp_path / "sid.npz", TOKENS)
    with pytest.raises(ConfigError, match="does not cover 2 of 3 items, first 'kiwi'"):
        SIDTable.load(tmp_path / "sid.npz", ["[PAD]", "plum", "kiwi", "lime"])


def test_loading_never_unpickles(tmp_path):
    np.savez(tmp_path / "bad.npz", codes=np.array([{"a": 1}], dtype=object), sizes=[1])
    with pytest.raises(ConfigError, match="bad.npz"):
        SIDTable.load(tmp_path / "bad.npz")
    np.save(tmp_path / "bad.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(ConfigError, match="bad.npy"):
        read_npy(tmp_path / "bad.npy", None, TOKENS)


def test_json_is_the_format_of_letter(tmp_path):
    write_json(table(), tmp_path / "sid.json", TOKENS)
    assert json.loads((tmp_path / "sid.json").read_text()) == {
        "apple": ["<a_0>", "<b_1>"],
        "pear": ["<a_2>", "<b_0>"],
        "fig": ["<a_2>", "<b_0>"],
        "plum": ["<a_1>", "<b_3>"],
    }
    again = read_json(tmp_path / "sid.json", TOKENS)
    assert again.digest() == table().digest()
    reordered = read_json(tmp_path / "sid.json", TOKENS[:1] + TOKENS[:0:-1], (3, 9))
    assert torch.equal(reordered.codes[1:].flip(0), table().codes[1:])
    assert reordered.sizes == (3, 9)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"apple": ["<a_0>"]}, "does not cover 3 of 4 items, first 'pear'"),
        ({"apple": ["<a_0>"], "pear": ["<a_0>", "<b_1>"]}, "different lengths: 1 .* 'apple', 2"),
        ({"apple": ["<a_0>"], "pear": ["<a-0>"]}, "'<a-0>' at level 1 is no code"),
        ({"apple": ["<a_0>"], "pear": ["<b_0>"]}, "mixes codes of different levels at level 1"),
        ({token: ["<a_-1>"] for token in TOKENS}, "code -1 at level 1"),
        ({"apple": "<a_0>"}, "not a list"),
        ({"apple": [["<a_0>"]]}, "a token or an integer"),
        ({"apple": [True]}, "True at level 1 is no code"),
        ([["<a_0>"]], "must hold"),
        ({}, "must hold"),
    ],
)
def test_malformed_json_is_refused(tmp_path, content, message):
    path = tmp_path / "sid.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=message) as error:
        read_json(path, TOKENS)
    assert str(path) in str(error.value)


def test_json_codes_outside_given_sizes_are_refused(tmp_path):
    write_json(table(), tmp_path / "sid.json", TOKENS)
    with pytest.raises(ConfigError, match="code 3 at level 2 of size 3"):
        read_json(tmp_path / "sid.json", TOKENS, (3, 3))


def test_integers_in_json_are_codes(tmp_path):
    (tmp_path / "sid.json").write_text(json.dumps({token: [4, 1] for token in TOKENS}))
    assert read_json(tmp_path / "sid.json", TOKENS).sizes == (5, 2)


def test_truncated_json_is_reported_with_its_name(tmp_path):
    (tmp_path / "sid.json").write_text('{"apple": ["<a_0>"')
    with pytest.raises(ConfigError, match="sid.json cannot be read as JSON"):
        read_json(tmp_path / "sid.json", TOKENS)


def test_npy_rows_are_internal_ids_without_item_file(tmp_path):
    write_npy(table(), tmp_path / "sid.npy")
    assert np.load(tmp_path / "sid.npy").tolist() == table().codes[1:].tolist()
    assert read_npy(tmp_path / "sid.npy", None, TOKENS).digest() == table().digest()
    with pytest.raises(ConfigError, match="has 4 rows for 3 items"):
        read_npy(tmp_path / "sid.npy", None, TOKENS[:-1])


def test_npy_rows_follow_the_item_file(tmp_path):
    rows = ["plum", "unsold", "fig", "pear", "apple"]
    write_npy(table(), tmp_path / "sid.npy", rows, TOKENS)
    assert np.load(tmp_path / "sid.npy").tolist() == [[1, 3], [-1, -1], [2, 0], [2, 0], [0, 1]]
    assert read_npy(tmp_path / "sid.npy", rows, TOKENS).digest() == table().digest()
    with pytest.raises(ConfigError, match="5 rows but the item file lists 4 items"):
        read_npy(tmp_path / "sid.npy", rows[:4], TOKENS)


def test_npy_by_row_tokens_needs_the_item_tokens(tmp_path):
    with pytest.raises(ConfigError, match="5 rows .* 0 item tokens"):
        write_npy(table(), tmp_path / "sid.npy", ["plum", "fig"])


@pytest.mark.parametrize("array", [np.zeros((4, 2)), np.zeros(4, int), np.zeros((0, 2), int)])
def test_npy_must_hold_a_matrix_of_integers(tmp_path, array):
    np.save(tmp_path / "sid.npy", array)
    with pytest.raises(ConfigError, match=r"integers of shape \[items, levels\]"):
        read_npy(tmp_path / "sid.npy", None, TOKENS)


def test_wrong_number_of_item_tokens_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="5 rows .* 4 item tokens"):
        write_json(table(), tmp_path / "sid.json", TOKENS[:-1])


def test_published_letter_sids_of_beauty_load():
    default = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    folder = Path(os.environ.get("RECBOLE_GR_DATA", default)) / "Amazon_Beauty"
    if not (folder / "Amazon_Beauty.sid.letter.json").is_file():
        pytest.skip("Amazon_Beauty is not here")
    with open(folder / "Amazon_Beauty.item", encoding="utf-8") as file:
        tokens = [line.split("\t")[0] for line in file]  # the header stands for the padding item
    loaded = read_json(folder / "Amazon_Beauty.sid.letter.json", tokens)
    assert loaded.sizes == (256, 256, 256, 256)
    assert len(loaded.groups()[1]) == 12088
    row = tokens.index("B004756YJA")
    assert loaded.codes[row].tolist() == [183, 70, 232, 6]


def test_a_saved_table_that_was_changed_is_refused(tmp_path):
    table = SIDTable.from_item_codes(torch.tensor([[0, 1], [1, 0]]), (2, 2), {"seed": 3})
    path = tmp_path / "sid.npz"
    table.save(path, ["[PAD]", "a", "b"])
    with np.load(path) as file:
        arrays = dict(file)
    for name, value in (
        ("codes", np.array([[1, 1], [1, 0]], dtype=np.int32)),
        ("meta", np.frombuffer(b'{"seed": 4}', dtype=np.uint8)),
        ("item_tokens", np.frombuffer(b"b\0a", dtype=np.uint8)),
    ):
        np.savez(path, **{**arrays, name: value})
        with pytest.raises(ConfigError, match="sid.npz was changed after it was written"):
            SIDTable.load(path, ["[PAD]", "a", "b"])
    np.savez(path, **arrays)
    assert SIDTable.load(path).meta == {"seed": 3}
