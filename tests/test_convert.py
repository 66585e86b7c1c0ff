"""Raw public files become atomic files that RecBole and the item text read alike."""

import gzip
import json
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import raw_files
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_gr.config import Config
from recbole_gr.convert.cells import MISSING, clean, float_cell, id_cell
from recbole_gr.convert.command import convert, main
from recbole_gr.convert.kcore import k_core, without_duplicates
from recbole_gr.convert.raw_lines import BrokenLine, LineFile
from recbole_gr.data import create_dataset
from recbole_gr.data import tfidf as text
from recbole_gr.data.item_file import ItemFile
from recbole_gr.errors import ConfigError

QUIET = {"show_progress": False}


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def amazon(folder, year=2014, **options):
    reviews, metadata = folder / f"{year}_reviews.gz", folder / "meta_Beauty.json.gz"
    if not reviews.exists():
        made, metadata = raw_files.amazon(folder, year, options.pop("broken", False))
        made.rename(reviews)
    sources = {"reviews": str(reviews), "metadata": str(metadata)}
    return convert(f"amazon{year}", "shop", **{**QUIET, **sources, **options})


def read(name, dataset="shop"):
    lines = open(f"dataset/{dataset}/{dataset}.{name}", encoding="utf-8").read().split("\n")
    head, *rows = [line.split("\t") for line in lines[:-1]]
    assert lines[-1] == "" and all(len(row) == len(head) for row in rows)
    return head, rows


def config_of(dataset, **options):
    return Config("Pop", dataset, config_dict={"data_path": "dataset", **QUIET, **options})


def test_k_core_keeps_no_more_and_no_less_than_taking_out_one_by_one():
    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=60), st.integers(1, 4)
    )
    def check(pairs, k):
        left = set(range(len(pairs)))
        while True:
            counts = [Counter(pairs[n][side] for n in left) for side in (0, 1)]
            poor = [n for n in left if any(counts[s][pairs[n][s]] < k for s in (0, 1))]
            if not poor:
                break
            left.remove(poor[0])
        users, items = np.array(pairs, dtype=np.int32).reshape(-1, 2).T
        assert k_core(users, items, k).tolist() == sorted(left)

    check()


def test_one_interaction_of_a_pair_is_the_first_or_last_in_time_then_in_the_file():
    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), max_size=40), st.booleans())
    def check(rows, timed):
        users, items, times = np.array(rows, dtype=np.int32).reshape(-1, 3).T
        keys = [(row[2] if timed else 0, n) for n, row in enumerate(rows)]
        for which, choose in (("first", min), ("last", max)):
            want = [
                choose(key for key, row in zip(keys, rows) if row[:2] == pair)[1]
                for pair in {row[:2] for row in rows}
            ]
            got = without_duplicates(users, items, times if timed else None, which)
            assert got.tolist() == sorted(want)
        assert len(without_duplicates(users, items, times, "keep")) == len(rows)

    check()


ANY = st.text(st.characters() | st.sampled_from('\t\n\r\0"|,\ud800\x85\u2028 '), max_size=12)


def test_any_text_comes_back_from_recboles_loader_as_it_was_cleaned(tmp_path):
    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.tuples(ANY, ANY), min_size=3, max_size=8))
    def check(texts):
        records = [
            {"asin": f"B{n}", "title": one, "brand": two} for n, (one, two) in enumerate(texts)
        ]
        raw_files.write(tmp_path / "meta.json", map(json.dumps, records))
        raw_files.write(tmp_path / "reviews.json", [
            json.dumps({"reviewerID": f"{n}", "asin": f"B{n}", "overall": 1, "unixReviewTime": n})
            for n in range(len(texts))
        ])  # fmt: skip
        convert("amazon2018", "any", reviews="reviews.json", metadata="meta.json", force=True,
                **QUIET)  # fmt: skip
        config = config_of("any", load_col={"inter": ["user_id", "item_id"], "item": None})
        config["load_col"]["item"] = ["item_id", "title", "brand"]
        data = create_dataset(config)
        cells = ItemFile(config).cells
        for n, (one, two) in enumerate(texts):
            row = data.token2id("item_id", f"B{n}")
            ids = data.item_feat["title"][row].tolist()
            assert [data.id2token("title", i) for i in ids if i] == clean(one).split()
            assert cells["title"][n] == clean(one) and cells["brand"][n] == clean(two)
            brand = data.id2token("brand", int(data.item_feat["brand"][row]))
            assert brand == clean(two) or clean(two) in MISSING | {""}

    check()
    check.hypothesis.inner_test([("NULL", ""), ("a NULL", "nan"), ("<b>NA</b>", "x")])


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_written_as_it_reads_back(value):
    assert float(float_cell(value)) == value


@settings(deadline=None)
@given(ANY)
def test_an_id_is_kept_whole_or_refused(value):
    try:
        assert id_cell(value, "id") == value.strip() and "\t" not in id_cell(value, "id")
    except BrokenLine:
        assert clean(value) != value or value in MISSING | {""}


@pytest.mark.parametrize("year", [2014, 2018])
def test_amazon_reviews_and_metadata_become_a_data_set_with_text(tmp_path, year, capsys):
    files, figures = amazon(tmp_path, year)
    assert [file.name for file in files] == ["shop.inter", "shop.item"]
    assert figures[".inter"] == {"lines": 180, "broken": 0, "kept": 180, "users": 30, "items": 12}
    head, rows = read("inter")
    assert head == ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
    assert rows == [
        [f"A{u}", f"B{i:03}", str(r), str(t)] for u, i, r, t in raw_files.interactions()
    ]
    head, rows = read("item")
    item = dict(zip(head, rows[1]))
    assert len(rows) == 12 and item["item_id:token"] == "B001"
    assert item["title:token_seq"] == f'{raw_files.title(1)}" & more'
    assert item["categories:token_seq"] == "Beauty Hair_Care Kind_1"
    assert item["price:float"] == {2014: "2.5", 2018: "1005.5"}[year]
    assert item["description:token_seq"] == "It's so"
    config = config_of("shop")
    assert len(create_dataset(config).inter_feat) == 180
    fields, _ = text.choose_text_fields(ItemFile(config))
    assert {"title", "brand", "categories", "description"} <= set(fields)


@pytest.mark.parametrize("zipped", [True, False])
def test_amazon_2023_has_an_item_for_all_variants_of_a_product(tmp_path, zipped):
    reviews, metadata = raw_files.amazon2023(tmp_path, zipped)
    _, figures = convert("amazon2023", "shop", reviews=reviews, metadata=metadata, **QUIET)
    assert figures[".inter"] == {"lines": 180, "broken": 0, "kept": 180, "users": 30, "items": 12}
    assert figures[".item"] == {"lines": 13, "broken": 0, "kept": 12, "empty": 0}
    assert {row[1] for row in read("inter")[1]} == {f"B{item:03}" for item in range(12)}
    head, rows = read("item")
    item = dict(zip(head, rows[1]))
    assert item == {
        "item_id:token": "B001", "title:token_seq": raw_files.title(1), "store:token": "OPI",
        "main_category:token": "All Beauty", "categories:token_seq": "Beauty Hair_Care",
        "price:float": "2.5", "features:token_seq": "It's so so", "description:token_seq": "",
    }  # fmt: skip
    assert rows[0][3] == rows[0][5] == ""  # null in the file
    config = config_of("shop")
    assert len(create_dataset(config).inter_feat) == 180
    fields, _ = text.choose_text_fields(ItemFile(config))
    assert {"title", "store", "main_category", "categories", "features"} <= set(fields)


def test_milliseconds_of_amazon_2023_are_seconds_without_loss(tmp_path):
    times = [1588687728923, 1588687728000, 0, 1, 1700000000999, 946684800010]
    raw_files.write(tmp_path / "r.jsonl", [
        json.dumps({"user_id": "A", "parent_asin": f"B{n}", "rating": 5.0, "timestamp": time})
        for n, time in enumerate(times)
    ])  # fmt: skip
    convert("amazon2023", "shop", reviews="r.jsonl", **QUIET)
    cells = [row[3] for row in read("inter")[1]]
    assert cells[:3] == ["1588687728.923", "1588687728", "0"]
    assert [round(1000 * float(cell)) for cell in cells] == times


def test_reviews_of_another_year_are_refused(tmp_path):
    reviews, _ = raw_files.amazon(tmp_path, 2018)
    with pytest.raises(ConfigError, match="the key user_id is missing.*right file for --format"):
        convert("amazon2023", "shop", reviews=reviews, **QUIET)


def test_a_model_runs_on_a_converted_data_set(tmp_path):
    from recbole_gr import run_recbole_gr

    amazon(tmp_path, k_core=5)
    options = {"data_path": "dataset", "epochs": 1, "topk": [5, 10], **QUIET}
    assert run_recbole_gr("Pop", "shop", config_dict=options)["test_result"]["recall@10"] > 0


@pytest.mark.parametrize("kind", ["ml-100k", "ml-1m", "ml-latest-small"])
@pytest.mark.parametrize("unpacked", [False, True])
def test_movielens_zip_and_folder(tmp_path, kind, unpacked, caplog):
    import zipfile

    path = raw_files.movielens(tmp_path, kind)
    if unpacked:
        zipfile.ZipFile(path).extractall(tmp_path / "unpacked")
        path = tmp_path / "unpacked"
    files, figures = convert("movielens", "films", archive=str(path), **QUIET)
    assert figures[".inter"]["kept"] == 180 and figures[".item"]["kept"] == 12
    assert ("GroupLens publishes" in caplog.text) == (not unpacked and kind in ("ml-100k", "ml-1m"))
    head, rows = read("item", "films")
    assert head == [
        "item_id:token", "title:token_seq", "genres:token_seq", "release_year:token"
    ]  # fmt: skip
    assert rows[3][1].startswith("Été") and rows[3][2] == "Children's Sci-Fi"
    assert rows[3][3] == "1995" and "(" not in rows[3][1]
    assert (len(files) == 3) == (kind != "ml-latest-small")
    if len(files) == 3:
        assert len(read("user", "films")[1]) == 30
    assert len(create_dataset(config_of("films")).inter_feat) == 180


def test_any_table_by_its_columns(tmp_path):
    raw_files.table(tmp_path)
    columns = {"columns": "user_id:uid,item_id:sku,timestamp:ts,rating:stars"}
    given = {"interactions": "events.csv", "items": "products.csv", **columns, **QUIET}
    convert("table", "a", **given)
    assert read("item", "a")[0] == ["item_id:token", "name:token", "colour:token"]
    convert("table", "b", **given, item_columns="item_id:sku,title:name")
    head, rows = read("item", "b")
    assert head == ["item_id:token", "title:token_seq"]
    assert sorted(rows)[0] == ["sku 0", raw_files.title(0) + ', "new" edition']
    assert len(create_dataset(config_of("b")).inter_feat) == 180
    raw_files.write(
        tmp_path / "dates.tsv", ["u\ti\tt", "1\tx\t2020-01-01", "2\tx\t2020-01-01T00:01Z"]
    )
    convert(
        "table", "c", interactions="dates.tsv", columns="user_id:u,item_id:i,timestamp:t", **QUIET
    )
    assert read("inter", "c")[1] == [["1", "x", "1577836800"], ["2", "x", "1577836860"]]


def test_broken_lines_are_counted_reported_and_skipped(tmp_path, caplog):
    with pytest.raises(ConfigError, match="7 of 187 lines .* more than max_broken=0.01"):
        amazon(tmp_path, broken=True)
    assert not os.path.exists("dataset/shop/shop.inter")
    _, figures = amazon(tmp_path, max_broken=0.2)
    assert figures[".inter"]["broken"] == 7 and figures[".inter"]["kept"] == 180
    for reason in (
        "neither JSON nor a Python literal (1, first in line 4)",
        "no mapping of keys to values (1, first in line 5)",
        "the key asin is missing (1, first in line 6)",
        "overall is no number (1, first in line 7)",
        "unixReviewTime is not finite (1, first in line 8)",
        "reviewerID is no text (1, first in line 9)",
        "asin has characters that an atomic file cannot hold (1, first in line 10)",
        "meta_Beauty.json.gz: 2 of 15 lines",
    ):
        assert reason in caplog.text
    assert figures[".item"] == {"lines": 15, "broken": 2, "kept": 12, "empty": 0}


def test_a_truncated_gzip_is_named_and_taken_only_if_asked(tmp_path, caplog):
    amazon(tmp_path)
    path = tmp_path / "2014_reviews.gz"
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ConfigError, match="truncated: it ends in the middle .* after line"):
        amazon(tmp_path, output="other")
    assert os.listdir("other/shop") == ["shop.convert.json"]
    _, figures = amazon(tmp_path, output="other", allow_truncated=True, max_broken=0.05)
    assert 0 < figures[".inter"]["kept"] < 180 and "is truncated" in caplog.text
    broken = bytearray(path.read_bytes())
    broken[200:220] = b"\xff" * 20
    path.write_bytes(broken)
    with pytest.raises(ConfigError, match="damaged|broken|truncated"):
        amazon(tmp_path, output="third")


def test_gzip_streams_one_after_the_other_and_windows_line_ends_are_one_text(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbfa\r\nb") + gzip.compress(b"c\r\n\r\nd"))
    assert list(LineFile(path, progress=False).lines()) == [(1, "a"), (2, "bc"), (4, "d")]


def test_metadata_is_not_held_in_memory(tmp_path):
    import tracemalloc

    path = tmp_path / "big.gz"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(600):
            file.write(b"x" * 99_999 + b"\n")
    tracemalloc.start()
    assert sum(1 for _ in LineFile(path, progress=False).lines()) == 600
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000  # of 60 million bytes


def test_what_is_done_is_not_done_again_and_what_is_there_is_not_replaced(tmp_path, monkeypatch):
    amazon(tmp_path)
    before = os.stat("dataset/shop/shop.inter").st_mtime_ns
    os.unlink("dataset/shop/shop.item")  # as if stopped between the two
    amazon(tmp_path)
    assert os.stat("dataset/shop/shop.inter").st_mtime_ns == before and read("item")[1]
    with pytest.raises(ConfigError, match="was made with other k_core; .* --force=True"):
        amazon(tmp_path, k_core=2)
    amazon(tmp_path, k_core=2, force=True)
    with open("dataset/shop/shop.inter", "a") as file:
        file.write("x\ty\t1\t1\n")
    with pytest.raises(ConfigError, match="shop.inter was changed since"):
        amazon(tmp_path, k_core=2)
    os.unlink("dataset/shop/shop.convert.json")
    with pytest.raises(ConfigError, match="shop.inter exists already"):
        amazon(tmp_path, k_core=2)


@pytest.mark.slow
def test_a_killed_run_leaves_no_half_file_and_the_next_one_finishes(tmp_path):
    amazon(tmp_path, output="whole")
    code = (
        "import os, signal\nfrom recbole_gr.convert import write\n"
        "write._report = lambda file: file.name.endswith('meta_Beauty.json.gz') and "
        "os.kill(os.getpid(), signal.SIGKILL)\n"
        "from recbole_gr.convert.command import main\nimport sys\nmain(sys.argv[1:])"
    )
    arguments = ["--format=amazon2014", "--dataset=shop", "--show_progress=False",
                 f"--reviews={tmp_path / '2014_reviews.gz'}",
                 f"--metadata={tmp_path / 'meta_Beauty.json.gz'}"]  # fmt: skip
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True)
    assert run.returncode == -9
    names = os.listdir("dataset/shop")
    assert "shop.inter" in names and "shop.item" not in names
    assert any(name.startswith(".shop.") for name in names)
    assert main(arguments) == 0
    assert sorted(os.listdir("dataset/shop")) == ["shop.convert.json", "shop.inter", "shop.item"]
    for name in ("shop.inter", "shop.item"):
        assert open(f"dataset/shop/{name}").read() == open(f"whole/shop/{name}").read()


def test_items_without_metadata_keep_an_empty_line(tmp_path, caplog):
    reviews, metadata = raw_files.amazon(tmp_path)
    lines = gzip.decompress(metadata.read_bytes()).decode().splitlines()
    raw_files.write(metadata, [lines[0], *lines])  # and the first of two lines counts
    raw_files.write(reviews, [
        json.dumps({"reviewerID": "A", "asin": a, "overall": 5, "unixReviewTime": 1})
        for a in ("B000", "unknown")
    ])  # fmt: skip
    _, figures = convert("amazon2014", "shop", reviews=reviews, metadata=metadata, **QUIET)
    assert figures[".item"]["empty"] == 1 and [row[0] for row in read("item")[1]] == [
        "B000", "unknown"
    ]  # fmt: skip
    assert "1 of 2 have no line" in caplog.text


def test_lines_swallowed_by_a_stray_quote_are_all_counted(tmp_path):
    lines = [f"u{n},i{n % 5}" for n in range(300)]
    lines[10] = 'u10,"i'
    lines[30] = 'u30"x",i'
    raw_files.write(tmp_path / "t.csv", ["u,i", *lines])
    given = {"interactions": "t.csv", "columns": "user_id:u,item_id:i", **QUIET}
    with pytest.raises(ConfigError, match="first in line 12"):
        convert("table", "x", **given)
    _, figures = convert("table", "x", **given, max_broken=0.9)
    assert figures[".inter"]["kept"] + figures[".inter"]["broken"] + 1 == 301
    lines[30] = "u30,i"  # the quote is never closed
    raw_files.write(tmp_path / "t.csv", ["u,i", *lines * 200])
    _, figures = convert("table", "y", **given, max_broken=0.9999)
    assert figures[".inter"]["kept"] + figures[".inter"]["broken"] + 1 == 60_001


def test_a_run_stopped_by_broken_metadata_goes_on_with_a_higher_share(tmp_path):
    amazon(tmp_path, broken=True, max_broken=0.2, output="whole")
    with pytest.raises(ConfigError, match="meta_Beauty.json.gz: 2 of 15"):
        amazon(tmp_path, max_broken=0.1)
    before = os.stat("dataset/shop/shop.inter").st_mtime_ns
    amazon(tmp_path, max_broken=0.2)
    assert os.stat("dataset/shop/shop.inter").st_mtime_ns == before


def test_a_full_disk_is_reported_and_what_was_there_stays(tmp_path, monkeypatch, capsys):
    amazon(tmp_path)
    old = open("dataset/shop/shop.inter").read()

    def full(value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recbole_gr.convert.write.float_cell", full)
    arguments = ["--format=amazon2014", "--dataset=shop", "--show_progress=False", "--force=True"]
    assert main([*arguments, f"--reviews={tmp_path / '2014_reviews.gz'}"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert open("dataset/shop/shop.inter").read() == old
    assert not [name for name in os.listdir("dataset/shop") if name.startswith(".")]


AMAZON = ["--format=amazon2014", "--dataset=x", "--reviews=r.json"]
TABLE = ["--format=table", "--dataset=x", "--interactions=t.csv"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--format=amazon2015", "--dataset=x"], "did you mean 'amazon201"),
        (["--format=amazon2014", "--dataset=x"], "--reviews is missing"),
        (["--format=amazon2014", "--reviews=r.json"], "--dataset is missing"),
        (["--format=amazon2014", "--dataset=x", "--reviews=no.gz"], "no.gz: there is no such file"),
        ([*AMAZON, "--kcore=5"], "did you mean 'k_core'"),
        ([*AMAZON, "--k_core=0"], "--k_core: 0 must be an integer of at least 1"),
        ([*AMAZON, "--k_core=9"], "k_core=9 leaves none"),
        ([*AMAZON, "--duplicates=any"], "--duplicates: 'any' is not one of keep, first, last"),
        ([*AMAZON, "--max_broken=2"], "--max_broken: 2 must be a number in [0, 1]"),
        ([*AMAZON, "--force=perhaps"], "--force: 'perhaps' must be True or False"),
        ([*AMAZON[:1], "--dataset=../x", AMAZON[2]], "no name for a folder"),
        ([*AMAZON[:2], "--reviews=x.zip"], "is a zip file; unpack it"),
        ([*AMAZON[:2], "--reviews=t.csv"], "is this the right file for --format"),
        ([*AMAZON[:2], "--reviews=empty"], "has no interaction"),
        ([*AMAZON, "--output=r.json"], "r.json"),
        (["--format=movielens", "--dataset=x", "--archive=t.csv"], "not a whole zip file"),
        (["--format=movielens", "--dataset=x", "--archive=x.zip"], "has none of ['u.data'"),
        ([*TABLE, "--columns=user_id:uid,item_id:sk"], "did you mean 'sku'"),
        ([*TABLE, "--columns=user_id:uid"], "must name the column of item_id"),
        ([*TABLE, "--columns=user:uid,item_id:sku"], "did you mean 'user_id'"),
        ([*TABLE, "--columns=user_id"], "field:column"),
        ([*TABLE, "--columns=user_id:uid,item_id:sku", "--item_columns=item_id:a"], "--items"),
        (["--format", "table"], "--dataset is missing; --format=table needs"),
    ],
)
def test_what_cannot_be_used_is_answered_with_the_remedy(tmp_path, capsys, arguments, message):
    import zipfile

    review = {"reviewerID": "A", "asin": "B", "overall": 5, "unixReviewTime": 1}
    raw_files.write(tmp_path / "r.json", [json.dumps(review)])
    raw_files.write(tmp_path / "t.csv", ["uid,sku", "1,2"])
    raw_files.write(tmp_path / "empty", [])
    with zipfile.ZipFile("x.zip", "w") as archive:
        archive.writestr("a", "b")
    assert main([*arguments, "--show_progress=False"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error
    assert not os.path.exists("dataset/x/x.inter")


def test_the_bar_is_silenced_and_help_is_given(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("recbole_gr.terminal.bars.is_terminal", lambda: True)
    raw_files.table(tmp_path)
    arguments = [*TABLE[:2], "--interactions=events.csv", "--columns=user_id:uid,item_id:sku"]
    assert main([*arguments, "--show_progress=False"]) == 0
    assert "B/s" not in capfd.readouterr().err
    assert main([*arguments, "--force=True"]) == 0
    assert "events.csv" in capfd.readouterr().err
    assert main(["--help"]) == 0 and main([]) == 2
