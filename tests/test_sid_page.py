"""The page of SID tables: its data are the table's, its figures those of slow references."""

import base64
import csv
import gzip
import json
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from tiny import read_sequences
from walks import ODD, SIZES, N, made

from recbole_gr.commands.tokenize import compare_tokenizers, tokenize
from recbole_gr.errors import ConfigError
from recbole_gr.pages.agreement import agreement, prefix_parts
from recbole_gr.pages.changes import sid_changes
from recbole_gr.pages.command import write_pages
from recbole_gr.pages.packing import BLOCK, Block
from recbole_gr.pages.sids import write_sid_page, write_sids_csv, write_walk
from recbole_gr.pages.walk import WHOLE, Walk, gathered
from recbole_gr.sid.table import SIDTable


class Unpacked:
    """The data of a page, read as its script reads them."""

    def __init__(self, path):
        self.text = path.read_text(encoding="utf-8")
        self.about = json.loads(self.element("walk-about"))
        self.numbers = self.arrays("walk-core", self.about["parts"])

    def element(self, name):
        return re.search(rf'<script type="[a-z/]+" id="{name}">(.*?)</script>', self.text)[1]

    def bytes(self, name):
        return gzip.decompress(base64.b64decode(self.element(name)))

    def arrays(self, name, parts):
        data, at = self.bytes(name), 0
        for count, width in parts:
            planes = [data[at + place * count : at + (place + 1) * count] for place in range(width)]
            yield [sum(plane[i] << 8 * p for p, plane in enumerate(planes)) for i in range(count)]
            at += count * width
        assert at == len(data)


def test_the_data_of_the_page_are_the_table(tmp_path):
    walk, content, pairs = made()
    page = Unpacked(write_sid_page([walk], tmp_path / "sids.html"))
    ids, titles = json.loads(page.bytes("walk-texts-0"))
    codes = list(zip(*(next(page.numbers) for _ in SIZES)))
    rows = sorted(range(N), key=lambda row: (*walk.codes[row], row))  # in the order of the SIDs
    assert ids == [walk.tokens[row] for row in rows] and set(ODD) < set(ids)
    assert codes == [tuple(walk.codes[row]) for row in rows]
    assert titles == [walk.titles[row] for row in rows] and titles.count("") == 2
    for depth in range(1, len(SIZES) + 1):
        groups = defaultdict(list)
        for row in range(N):
            groups[tuple(walk.codes[row, :depth])].append(content[row] / content[row].norm())
        expected = [
            np.mean([float(a @ b) for i, a in enumerate(group) for b in group[:i]])
            for _, group in sorted(groups.items())
            if len(group) > 1
        ]
        shown = [value / WHOLE - 1 for value in next(page.numbers)]
        assert shown == pytest.approx(expected, abs=1e-4)
    assert next(page.numbers) == [walk.counts[row] for row in rows]

    parts = list(page.arrays("walk-near-0", page.about["neighbours"][0]))
    near, cosine, beside, times = (np.array(part).reshape(N, 10) for part in parts)
    unit = content / content.norm(dim=1, keepdim=True)
    often = Counter(frozenset(pair) for pair in pairs.tolist())
    for place, row in enumerate(rows):
        likeness = {other: float(unit[row] @ unit[other]) for other in range(N) if other != row}
        best = sorted(likeness.values(), reverse=True)[:10]
        found = [rows[at - 1] for at in near[place]]
        assert [likeness[other] for other in found] == pytest.approx(best, abs=1e-5)
        assert cosine[place] / WHOLE - 1 == pytest.approx(best, abs=1e-4)
        stood = {o: often[frozenset((row, o))] for o in range(N) if often[frozenset((row, o))]}
        expected = sorted(stood, key=lambda other: (-stood[other], other))[:10]
        there = beside[place] > 0
        assert [rows[at - 1] for at in beside[place][there]] == expected
        assert times[place].tolist() == [*(stood[o] for o in expected), *[0] * (10 - len(expected))]


def test_a_walk_is_kept_whole_and_the_page_made_again_from_it(tmp_path):
    given = torch.randint(0, 3, (N - 5, 2))
    walk, _, _ = made(versions={"before": given})
    file, page = write_walk(tmp_path, walk)
    again = Walk.load(file)
    assert (again.tokens, again.titles, again.sizes) == (walk.tokens, walk.titles, walk.sizes)
    for name in ("codes", "counts", "near", "cosine", "beside", "times"):
        assert (getattr(again, name) == getattr(walk, name)).all()
    assert (again.versions["before"] == np.vstack([given, np.full((5, 2), -1)])).all()
    assert write_sid_page([file], tmp_path / "again.html").read_bytes() == page.read_bytes()
    parts = Unpacked(page).arrays("walk-versions-0", [[N, 1]] * 2)
    order = sorted(range(N), key=lambda row: (*walk.codes[row], row))
    for level, column in enumerate(parts):
        assert column == [again.versions["before"][row, level] + 1 for row in order]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tokens": np.frombuffer(b"a\0b", np.uint8)}, "codes"),
        ({"titles": np.frombuffer(b"a\0b", np.uint8)}, "same items"),
        ({"near": np.full((N, 10), N)}, "near"),
        ({"codes": np.full((N, 3), 7)}, "codes"),
        ({"about": np.frombuffer(b"{}", np.uint8)}, "format_version"),
        ({"counts": np.zeros((N, 2), int)}, "counts"),
    ],
)
def test_a_walk_that_was_changed_is_refused_by_the_part_that_is_wrong(tmp_path, change, message):
    arrays = {**made()[0].arrays(), **change}
    np.savez(tmp_path / "walk.npz", **arrays)
    with pytest.raises(ConfigError, match=message):
        Walk.load(tmp_path / "walk.npz")


def test_csv_holds_the_table_and_the_exact_names(tmp_path):
    walk, _, _ = made()
    tokens = ["[PAD]", *walk.tokens]
    path = write_sids_csv(walk.table, tokens, tmp_path / "sids.csv")
    with open(path, encoding="utf-8", newline="") as file:
        head, *lines = csv.reader(file)
    assert head == ["item_id", "sid_0", "sid_1", "sid_2"]
    assert {line[0]: list(map(int, line[1:])) for line in lines} == dict(
        zip(walk.tokens, walk.codes.tolist())
    )
    assert [line[1:] for line in lines] == sorted(
        (line[1:] for line in lines), key=lambda sid: list(map(int, sid))
    )


@pytest.mark.parametrize("sizes", [(3, 4), (1, 6), (60, 60)])
def test_agreement_is_that_of_scikit_learn_and_of_a_loop_over_pairs(sizes):
    first, second = (torch.randint(0, size, (60,)) for size in sizes)
    found = agreement(first, second)
    assert found.adjusted_rand == pytest.approx(adjusted_rand_score(first, second))
    expected = normalized_mutual_info_score(first, second)
    assert found.mutual_information == pytest.approx(expected, abs=1e-9)
    pairs = [(i, j) for i in range(60) for j in range(i) if first[i] == first[j]]
    kept = [bool(second[i] == second[j]) for i, j in pairs]
    assert found.kept == (pytest.approx(np.mean(kept)) if kept else None)
    assert agreement(first, first).adjusted_rand == 1.0


def test_parts_by_prefix_are_those_of_equal_codes():
    codes = torch.tensor([[0, 1], [2, 1], [0, 1], [0, 0]])
    assert [part.tolist() for part in prefix_parts(codes)] == [[0, 1, 0, 0], [1, 2, 1, 0]]


def test_numbers_of_any_width_come_back():
    block, given = Block(), [[0, 255], [256, 3], [2**24, 1, 0], [2**31 - 1], []]
    for values in given:
        block.add(np.array(values, dtype=np.int64))
    assert [width for _, width in block.parts] == [1, 2, 4, 4, 1]


def test_two_tables_stand_on_the_items_of_the_first_whatever_their_order(tmp_path):
    first, _, _ = made()
    other, _, _ = made(1, sizes=(5, 4), name="B")
    turned = Walk("B", other.tokens[::-1], other.titles, other.codes[::-1], (5, 4), 2)
    page = Unpacked(write_sid_page([first, turned], tmp_path / "two.html"))
    ids, _ = json.loads(page.bytes("walk-texts-0"))
    arrays = list(page.numbers)
    codes = dict(zip(ids, zip(*arrays[6:8])))  # behind three levels and their cohesion
    assert codes == dict(zip(other.tokens, map(tuple, other.codes.tolist())))
    assert "adjusted Rand index" in page.text
    same = Unpacked(write_sid_page([first, first], tmp_path / "same.html"))
    assert [table["name"] for table in same.about["tables"]] == ["A", "A (2)"]
    fewer, _, _ = made(2, n=50)
    with pytest.raises(ConfigError, match="other items"):
        write_sid_page([first, fewer], tmp_path / "two.html")


def test_large_tables_lie_in_blocks(tmp_path):
    n = BLOCK + 7
    codes = torch.arange(n).unsqueeze(1) % 300
    tokens = ["[PAD]", *map(str, range(n))]
    walk = gathered("A", SIDTable.from_item_codes(codes, (300,)), tokens)
    page = Unpacked(write_sid_page([walk], tmp_path / "sids.html"))
    blocks = [json.loads(page.bytes(f"walk-texts-{number}"))[0] for number in range(2)]
    assert list(map(len, blocks)) == [BLOCK, 7]
    assert blocks[0] + blocks[1] == sorted(tokens[1:], key=lambda t: (int(t) % 300, int(t)))


@pytest.mark.parametrize("model", ["IntRR", "PIT"])
def test_a_run_keeps_the_sids_of_before_and_after(trained, model, tmp_path):
    result = trained(model)
    file = Path(result["files"]["md"]).with_name(f"walk-{model}.npz")
    walk = Walk.load(file)
    first, *_, last = walk.versions.values()
    assert (first == walk.codes).all() and walk.near is not None and walk.titles[0]
    if model == "IntRR":
        level = float((first == last)[:, 0].mean())
        assert walk.versions.keys() == {"Stage 1", "item side"}
        agreement = result["epoch_figures"][-1]["figures"]["agreement with the Stage-1 SID"]
        assert level == pytest.approx(agreement["level a"])
    with open(result["files"]["json"]) as report:
        assert "walk" not in json.load(report)[0]
    assert write_sid_page([file], tmp_path / "sids.html").stat().st_size


def test_several_tokenizers_stand_on_one_page(tiny_folder, tmp_path):
    _, _, files = compare_tokenizers(
        ["RKMeans", "OPQ"],
        "tiny",
        tmp_path / "out",
        config_dict={
            "data_path": str(tiny_folder), "show_progress": False, "sid_dir": str(tmp_path),
            "content_cache_dir": str(tmp_path), "codebook_size": 8, "content_dim": 8,
        },
    )  # fmt: skip
    assert tmp_path / "out" / "sids.html" in files
    page = Unpacked(tmp_path / "out" / "sids.html")
    assert [table["name"] for table in page.about["tables"]] == ["RKMeans", "OPQ"]
    ids, _ = json.loads(page.bytes("walk-texts-0"))
    for name in ("RKMeans", "OPQ"):
        table = SIDTable.load(tmp_path / "out" / name / "sid.npz", ["[PAD]", *ids])
        columns = [next(page.numbers) for _ in table.sizes]
        assert list(map(list, zip(*columns))) == table.codes[1:].tolist()
        for _ in Walk.load(tmp_path / "out" / name / "walk.npz").cohesion:
            next(page.numbers)
    sequences = read_sequences(tiny_folder)
    counts = Counter(item for items in sequences.values() for item in items[:-2])
    assert next(page.numbers) == [counts[item] for item in ids]
    often = Counter(
        frozenset(pair) for items in sequences.values() for pair in zip(items[:-2], items[1:-2])
    )
    *_, beside, times = page.arrays("walk-near-0", page.about["neighbours"][0])
    k = len(beside) // len(ids)
    for place, item in enumerate(ids):
        for at, count in zip(beside[place * k :][:k], times[place * k :][:k]):
            assert count == (often[frozenset((item, ids[at - 1]))] if at else 0)


@pytest.mark.parametrize("least, gate", [(0.0, False), (1.0, True)])
def test_the_command_that_trains_on_collapsed_sids_passes_the_gate(
    tiny_folder, tmp_path, least, gate
):
    given = {
        "data_path": str(tiny_folder), "codebook_size": 8, "sid_levels": 2, "content_dim": 8,
        "content_cache_dir": str(tmp_path), "sid_dir": str(tmp_path), "show_progress": False,
        "sid_min_distinct": least, "sid_min_utilisation": 0.0,
    }  # fmt: skip
    tokenize("tiny", tmp_path / "out", config_dict={**given, "tokenizer": "RKMeans"})
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert ("--sid_gate=warn" in record["train"]) == gate
    assert f"--sid_file={tmp_path / 'out' / 'sid.npz'}" in record["train"]
    assert record["given"] and len(record["sid_digest"]) == 64 and record["data"]


def test_the_command_makes_the_page_of_walks_that_lie_in_a_folder(tmp_path):
    one, other = (made(seed, name=name)[0] for seed, name in ((0, "A"), (1, "B")))
    for name, walk in (("A", one), ("B", other)):
        (tmp_path / name).mkdir()
        walk.save(tmp_path / name / "walk.npz")
    (page,) = write_pages(tmp_path)  # of a comparison: both
    assert page == tmp_path / "sids.html" and "SIDs of A, B" in page.read_text()
    record = {
        "config": {"model": "TIGER", "dataset": "tiny"}, "given": [], "data": {"tiny.inter": "abc"},
        "sid_digest": "def", "figures": {"distinct": 0.9}, "train": "python train",
        "command": ["python", "/x/recbole_gr/commands/tokenize.py"],
    }  # fmt: skip
    for name in "AB":
        (tmp_path / name / "provenance.json").write_text(json.dumps(record))
    (page,) = write_pages(tmp_path)
    for shown in ("90.00%", "abc", "def", "python train", "python -m recbole_gr.commands.tokenize"):
        assert shown in page.read_text()
    replace(one, tokens=[*one.tokens[:-1], "other"]).save(tmp_path / "B" / "walk.npz")
    assert "SIDs of A<" in write_pages(tmp_path)[0].read_text()  # of the same items alone
    (page,) = write_pages(tmp_path / "A")
    assert "SIDs of A<" in page.read_text()
    (tmp_path / "A" / "walk.npz").write_bytes(b"PK")
    with pytest.raises(ConfigError, match="walk.npz"):
        write_pages(tmp_path)


def test_items_that_changed_are_counted_and_linked_the_most_used_first():
    walk, _, _ = made()
    first, last = walk.codes.copy(), walk.codes.copy()
    last[[3, 7, 11], 0] = (last[[3, 7, 11], 0] + 1) % walk.sizes[0]
    first[11] = -1  # not there yet
    walk.versions.update({"start": first, "round 1": first, "round 2": last})
    told, links = sid_changes(replace(walk, codes=last))
    assert f"2 of {len(walk.tokens) - 1} items changed their SIDs from start to round 2" in told
    assert "the tree is that of round 2" in told
    order = sorted([3, 7], key=lambda row: -walk.counts[row])
    found = [unquote(token) for token in re.findall(r'href="#item=(.*?)"', links)]
    assert found == [walk.tokens[row] for row in order]
    assert sid_changes(made()[0]) == []
