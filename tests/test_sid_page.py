"""The page of SID tables: its data are the table's, its figures those of slow references."""

import base64
import csv
import gzip
import json
import re
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from browser_pages import browser, opened
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from recbole_gr.errors import ConfigError
from recbole_gr.pages.agreement import agreement, prefix_parts
from recbole_gr.pages.packing import BLOCK, Block
from recbole_gr.pages.sids import write_sid_page, write_sids_csv, write_walk
from recbole_gr.pages.walk import WHOLE, Walk, gathered
from recbole_gr.quality.assessment import Behaviour
from recbole_gr.sid.table import SIDTable

ODD = ["a,b", 'q"uote', "=1+1", "-x", "<b>&amp;", "żółć", "007", "</script><img src=x>"]
N, SIZES = 60, (4, 3, 5)


def made(seed=0, n=N, sizes=SIZES, name="A", **given):
    """A random table of items with odd names, their content and histories."""
    rng = np.random.default_rng(seed)
    codes = torch.from_numpy(np.stack([rng.integers(0, size, n) for size in sizes], 1))
    tokens = ["[PAD]", *ODD, *(f"i{number}" for number in range(len(ODD), n))][: n + 1]
    content = torch.from_numpy(rng.normal(size=(n + 1, 6)).astype(np.float32))
    pairs = torch.from_numpy(rng.integers(0, n, (300, 2)))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    titles = {token: f"Title <i>of</i> {token} & ‹more›" for token in tokens[1:-2]}
    known = {"titles": titles, "content": content}
    known["behaviour"] = Behaviour(torch.from_numpy(rng.integers(0, 50, n)), pairs)
    walk = gathered(name, SIDTable.from_item_codes(codes, sizes), tokens, **{**known, **given})
    return walk, content[1:], pairs


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


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    walk, _, _ = made(versions={"period 0": torch.randint(0, 3, (N - 5, 3))})
    walk.versions["period 1"] = walk.codes
    other, _, _ = made(1, sizes=(5, 4), name="B")
    write_sids_csv(walk.table, ["[PAD]", *walk.tokens], folder / "sids.csv")
    write_sid_page([walk], folder / "one.html")
    write_sid_page([walk, other], folder / "two.html")
    return folder, walk, other


def test_one_walks_down_by_click_and_keyboard_and_up_again(chromium, pages):
    folder, walk, _ = pages
    counts = Counter(map(tuple, walk.codes[:, :1].tolist()))
    with opened(chromium, folder / "one.html") as page:
        codes = page.locator(".codes button")
        shown = {tuple([int(b.get_attribute("data-code"))]): b.inner_text() for b in codes.all()}
        assert {code: int(text.split()[-1]) for code, text in shown.items()} == counts
        page.locator(".treemap path.surface").nth(1).click()
        page.wait_for_function("location.hash.startsWith('#prefix=')")
        prefix = int(page.evaluate("location.hash").split("=")[1])
        assert (
            page.locator("nav.path .note")
            .inner_text()
            .strip()
            .startswith(f"{counts[(prefix,)]} items")
        )
        first = page.locator(".codes button").first
        second = int(first.get_attribute("data-code"))
        first.focus()
        page.keyboard.press("Enter")
        page.wait_for_function("document.querySelectorAll('nav.path button').length === 3")
        assert page.evaluate("location.hash") == f"#prefix={prefix},{second}"
        inside = [row for row in range(N) if tuple(walk.codes[row, :2]) == (prefix, second)]
        page.wait_for_function(
            f"document.querySelectorAll('.items tbody tr').length === {len(inside)}"
        )
        listed = page.locator(".items tbody tr td:nth-child(2)").all_inner_texts()
        assert sorted(listed) == sorted(walk.tokens[row] for row in inside)
        page.locator("nav.path button").first.click()
        page.wait_for_function("document.querySelectorAll('nav.path button').length === 1")


def test_an_item_is_found_and_shows_neighbours_mates_and_sids_of_before(chromium, pages):
    folder, walk, _ = pages
    row = walk.tokens.index("</script><img src=x>")
    with opened(chromium, folder / "one.html") as page:
        page.get_by_label("Find an item").fill("img SRC")
        page.locator(".hits button").first.wait_for()
        page.get_by_label("Find an item").press("Enter")
        page.wait_for_selector(".panel[data-item]")
        assert page.locator(".panel h3").inner_text() == walk.titles[row]
        near = page.locator("[data-kind=content] li button")
        expected = [walk.tokens[other] for other in walk.near[row]]
        assert [button.get_attribute("data-id") for button in near.all()] == expected
        texts = page.locator("[data-kind=content] li").all_inner_texts()
        for other, text in zip(walk.near[row], texts):
            same = (walk.codes[row] == walk.codes[other]).astype(int).cumprod().sum()
            assert (f"{same} of 3 codes" if same else "no code") in text
        rows = page.locator(".history tr")
        before = walk.versions["period 0"][row]
        assert rows.nth(0).locator("td").first.inner_text() == ", ".join(map(str, before))
        marked = rows.nth(1).locator("b.changed").all_inner_texts()
        changed = before != walk.codes[row]
        assert marked == list(map(str, walk.codes[row][changed]))
        page.wait_for_function("location.hash.startsWith('#item=')")
        address = page.evaluate("location.hash")
    with opened(chromium, folder / "one.html", address) as page:  # the address leads back
        assert page.locator(".panel").get_attribute("data-item") == walk.tokens[row]
        assert (
            page.locator(".items tr[aria-current=true] td").first.inner_text() == walk.tokens[row]
        )


def test_the_csv_of_the_browser_is_that_of_python(chromium, pages):
    folder, _, _ = pages
    with opened(chromium, folder / "one.html") as page:
        with page.expect_download() as saved:
            page.locator("button.csv").click()
        assert saved.value.suggested_filename == "sids-A.csv"
        with open(saved.value.path(), "rb") as file:
            assert file.read() == (folder / "sids.csv").read_bytes()


@pytest.mark.parametrize("width, scheme", [(390, "light"), (1200, "dark")])
def test_two_tables_show_the_same_item_on_any_screen(chromium, pages, width, scheme):
    folder, walk, other = pages
    with opened(chromium, folder / "two.html", "#item=i20", width, scheme) as page:
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width
        row = walk.tokens.index("i20")
        sids = [
            re.findall(r"[a-z] (\d+)", " ".join(path.locator("button").all_inner_texts()))
            for path in page.locator(".panel .codes.path").all()
        ]
        assert [list(map(int, sid)) for sid in sids] == [
            walk.codes[row].tolist(), other.codes[row].tolist()
        ]  # fmt: skip
        tops = [view.bounding_box()["y"] for view in page.locator(".view:has(.treemap)").all()]
        assert (tops[0] == tops[1]) == (width > 1000)
        page.locator(".view select").first.select_option("1")  # the second tokenizer twice
        page.wait_for_function("document.querySelectorAll('.panel .codes.path').length === 1")
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (back == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.parametrize(
    "known",
    [
        {"titles": None},
        {"content": None, "behaviour": None, "titles": None},
        {"behaviour": Behaviour(torch.zeros(N, dtype=torch.long))},
        {"sizes": (7,)},
        {"sizes": (2, 1), "content_levels": 1},
    ],
)
def test_pages_of_what_is_known_alone_open_without_an_error(chromium, tmp_path, known):
    walk, _, _ = made(**known)
    with opened(chromium, write_sid_page([walk], tmp_path / "p.html"), "#item=007") as page:
        assert page.locator(".panel").get_attribute("data-item") == "007"
        for code in range(len(walk.sizes)):
            page.evaluate(f"walk.views[0].show(walk.catalogue.trees[0].sid(3).slice(0, {code}))")
        expected = sum(
            count > 1
            for count in Counter(map(tuple, walk.codes[:, : walk.content_levels].tolist())).values()
        )
        assert f"{expected} SID" in page.locator("#walk-collisions h3").inner_text()
