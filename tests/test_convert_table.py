"""Tables as shops export them: numbers, dates, delimiters and encodings of many habits."""

import codecs
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_gr.convert.amounts import readings
from recbole_gr.convert.cells import price_cell
from recbole_gr.convert.command import convert, main
from recbole_gr.convert.raw_lines import BrokenLine
from recbole_gr.errors import ConfigError

COLUMNS = "user_id:uid,item_id:sku,timestamp:ts,rating:stars"


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")


def write(name, text, encoding="utf-8"):
    with open(name, "wb") as file:
        file.write(text.encode(encoding))


def events(times=None, ratings=None, mark="\t", **options):
    """Convert events with these cells; returns the rows of the .inter file."""
    n = len(times or ratings)
    times, ratings = times or ["1"] * n, ratings or ["3"] * n
    rows = [f"u{i}{mark}i{i}{mark}{r}{mark}{t}" for i, (t, r) in enumerate(zip(times, ratings))]
    write("events", "\n".join([f"uid{mark}sku{mark}stars{mark}ts", *rows]) + "\n")
    return table("events", **options)[0]


def table(interactions, columns=COLUMNS, **options):
    given = {"max_broken": 1, "force": True, "show_progress": False, **options}
    _, figures = convert("table", "shop", interactions=interactions, columns=columns, **given)
    return read("inter"), figures


def read(suffix):
    lines = open(f"dataset/shop/shop.{suffix}", encoding="utf-8").read().splitlines()[1:]
    return [line.split("\t") for line in lines]


def prices(*cells, mark=";", **options):
    """Convert products with these prices; returns the price cells and the figures of .item."""
    write("events", "uid;sku\n" + "".join(f"u;i{n}\n" for n in range(len(cells))))
    rows = [f"i{n}{mark}{cell}" for n, cell in enumerate(cells)]
    write("items", "\n".join([f"sku{mark}price", *rows]) + "\n")
    _, figures = table("events", "user_id:uid,item_id:sku", items="items", **options)
    return [row[1] for row in read("item")], figures[".item"]


@pytest.mark.parametrize(
    "cell, value",
    [
        ("19,99", "19.99"), ("EUR 12,00", "12"), ("1.299,00", "1299"), ("$1,299.00", "1299"),
        ("1 299,00", "1299"), ("1'299.00", "1299"), ("1\u2019299.50", "1299.5"), ("12,00 €", "12"),
        ("1\u00a0299,00\u00a0€", "1299"), ("1\u202f299,5 EUR", "1299.5"), ("US$ 5.25", "5.25"),
        ("€-3,50", "-3.5"), ("-$3.50", "-3.5"), ("19,- €", "19"), ("CHF 19.\u2014", "19"),
        ("1.234.567", "1234567"), ("1,234,567", "1234567"), ("12,34,567.50", "1234567.5"),
        ("$10.00 - $20.00", "10"), ("10,00 € \u2013 20,00 €", "10"), ("from $7.50", "7.5"),
        (".5", "0.5"), (",5", "0.5"), ("0,125", "0.125"), ("1,5e3", "1500"), ("12", "12"),
        ("kr 99,50", "99.5"), ("99,50 zł", "99.5"), ("Rs. 1,29,999.00", "129999"), ("", ""),
        ("N/A", ""), ("-", ""),
    ],
)  # fmt: skip
def test_a_price_is_read_as_it_is_meant(cell, value):
    assert prices(cell)[0] == [value]


@pytest.mark.parametrize("cell", ["call us", "12 kg", "1.2.3", "1,29,99", "12:30", "1_000", "a5"])
def test_a_price_that_cannot_be_read_is_counted_with_its_line(cell, caplog):
    cells, figures = prices("1,50", cell, "2,50")
    assert cells == ["1.5", "", "2.5"] and figures["unread cells"] == 1
    assert figures["broken"] == 0 and figures["kept"] == 3
    assert "items: 1 cell cannot be read: price is no number" in caplog.text
    assert "(1, first in line 3); left empty" in caplog.text


def test_cells_that_can_be_read_in_two_ways_are_decided_by_the_rest_of_their_column(caplog):
    assert prices("1,299", "19,99", "1.299")[0] == ["1.299", "19.99", "1299"]
    assert "price with the decimal mark ',' ('19,99' in line 3)" in caplog.text
    assert prices("1,299", "19.99", "1.299")[0] == ["1299", "19.99", "1.299"]
    assert "price with the decimal mark '.' ('19.99' in line 3)" in caplog.text


@pytest.mark.parametrize("cell", ["1,299", "1.299", "€ 1.299", "$12,000"])
def test_a_column_that_does_not_tell_its_decimal_mark_is_refused_by_name_and_remedy(cell):
    with pytest.raises(ConfigError, match=r"items, line 2: price .* --decimal=\. or --decimal=,"):
        prices(cell, "12", "300")
    point, comma = prices(cell, decimal=".")[0][0], prices(cell, decimal=",")[0][0]
    assert {float(point), float(comma)} == set(readings(cell)) and point != comma


def test_a_cell_that_contradicts_its_column_is_counted_and_not_guessed(caplog):
    cells, figures = prices("19,99", "5,00", "7.25")
    assert cells == ["19.99", "5", ""] and figures["unread cells"] == 1
    assert "price is no number with the decimal mark ',' (1, first in line 4)" in caplog.text
    with pytest.raises(ConfigError, match="--decimal"):
        prices("19,99", "7.25")  # as many of each
    assert prices("19,99", "7.25", decimal=",")[0] == ["19.99", ""]


def test_ratings_and_timestamps_with_a_decimal_comma_are_read():
    rows = events(["1588687728,923", "1588687729"], ["4,5", "3"])
    assert [row[2:] for row in rows] == [["4.5", "1588687728.923"], ["3", "1588687729"]]
    assert [row[3] for row in events(["1588687728.923"])] == ["1588687728.923"]
    with pytest.raises(ConfigError, match="rating '1,299' may be 1299 or 1.299"):
        events(ratings=["1,299"])
    assert events(["7", "8"], ["EUR 4", "5"])[0][0] == "u1"  # a rating has no currency


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 10**9), st.integers(0, 99), st.sampled_from([",", ".", " ", "'", ""]),
    st.sampled_from([".", ","]), st.sampled_from(["{}", "€{}", "{} EUR", "$ {}", "-{}"]),
)  # fmt: skip
def test_a_number_written_with_groups_and_two_decimals_reads_back(whole, cents, group, mark, form):
    if group == mark:
        return
    text = f"{whole:,}".replace(",", group) + f"{mark}{cents:02}"
    want = (-1 if form[0] == "-" else 1) * float(f"{whole}.{cents:02}")
    found = readings(form.format(text))
    assert found[mark == ","] == want and found[mark == "."] is None


@settings(max_examples=200, deadline=None)
@given(st.text("0123456789.,' -+eE$€%EURx\u00a0", max_size=20))
def test_no_text_is_read_as_another_number_than_python_reads(text):
    point, _ = readings(text, priced=False)
    try:
        plain = float(text)
    except ValueError:
        return
    assert point == plain


def test_amazons_prices_are_read_or_refused_and_not_emptied():
    for text, cell in (("$19.99", "19.99"), ("$1,299.00", "1299"), ("$10.00 - $20.00", "10"),
                       ("", ""), (None, ""), ("\u2014", ""), (7.5, "7.5")):  # fmt: skip
        assert price_cell(text) == cell
    for text in ("19,99", ".a-box-inner{background-color:#fff}", [1], True):
        with pytest.raises(BrokenLine, match="price is no number"):
            price_cell(text)


def test_unreadable_prices_of_amazon_are_counted_with_their_line(tmp_path, caplog):
    import json

    import raw_files

    review = {"reviewerID": "A", "overall": 5, "unixReviewTime": 1}
    raw_files.write(tmp_path / "r", [json.dumps({**review, "asin": f"B{n}"}) for n in range(3)])
    raw_files.write(tmp_path / "m", [
        json.dumps({"asin": f"B{n}", "title": "a", "price": price})
        for n, price in enumerate(("$1,005.50", "see basket", ""))
    ])  # fmt: skip
    _, figures = convert("amazon2018", "shop", reviews="r", metadata="m", show_progress=False)
    assert [row[4] for row in read("item")] == ["1005.5", "", ""]
    assert figures[".item"]["unread cells"] == 1 and "first in line 2); left empty" in caplog.text


def utc(*parts):
    return str(int(datetime(*parts, tzinfo=UTC).timestamp()))


@pytest.mark.parametrize(
    "cell, parts",
    [
        ("31.01.2024", (2024, 1, 31)), ("31.01.2024 13:45", (2024, 1, 31, 13, 45)),
        ("01.02.2024", (2024, 2, 1)), ("2024-01-31", (2024, 1, 31)),
        ("2024-01-31T13:45:10", (2024, 1, 31, 13, 45, 10)),
        ("2024-01-31 13:45:10+02:00", (2024, 1, 31, 11, 45, 10)),
        ("2024-01-31T13:45:10Z", (2024, 1, 31, 13, 45, 10)),
        ("2024-01-31 13:45:10 UTC", (2024, 1, 31, 13, 45, 10)),
        ("2024/1/31 3:45", (2024, 1, 31, 3, 45)), ("01/31/2024", (2024, 1, 31)),
        ("1/31/2024 1:45 PM", (2024, 1, 31, 13, 45)), ("1/31/2024, 12:05 am", (2024, 1, 31, 0, 5)),
        ("31/01/2024 13:45:10", (2024, 1, 31, 13, 45, 10)), ("31-01-2024", (2024, 1, 31)),
        ("20240131", (2024, 1, 31)), ("20240131134510", (2024, 1, 31, 13, 45, 10)),
    ],
)  # fmt: skip
def test_a_date_is_read_as_it_is_meant(cell, parts):
    assert [row[3] for row in events([cell])] == [utc(*parts)]


def test_a_day_above_12_tells_the_order_of_a_whole_column(caplog):
    cells = ["03/04/2024", "13/04/2024", "05/05/2024"]
    assert [row[3] for row in events(cells)] == [utc(2024, 4, 3), utc(2024, 4, 13), utc(2024, 5, 5)]
    assert "timestamp with the day first ('13/04/2024' in line 3)" in caplog.text
    assert [row[3] for row in events(["03/04/2024", "04/13/2024"])] == [
        utc(2024, 3, 4), utc(2024, 4, 13)
    ]  # fmt: skip


def test_dates_that_may_have_the_day_or_the_month_first_are_refused_by_name_and_remedy():
    both = "--date_format=%d/%m/%Y or --date_format=%m/%d/%Y"
    with pytest.raises(ConfigError, match=f"line 3: timestamp '03/04/2024' may have .*{both}"):
        events(["05/05/2024", "03/04/2024"])
    with pytest.raises(ConfigError, match="as in '%d/%m/%Y %H:%M'"):
        events(["03/04/2024 10:00"])
    assert events(["03/04/2024"], date_format="%m/%d/%Y")[0][3] == utc(2024, 3, 4)
    assert events(["3 Apr 24"], date_format="%d %b %y")[0][3] == utc(2024, 4, 3)


def test_a_date_that_contradicts_its_column_is_a_broken_line(caplog):
    rows = events(["13/04/2024", "14/04/2024", "04/15/2024", "soon", "31.02.2024"])
    assert [row[0] for row in rows] == ["u0", "u1"]
    assert "timestamp is no date with the day first, as others are (2, first in line 4)" in (
        caplog.text
    )
    unknown = "neither a finite number nor a date of a form that needs no --date_format"
    assert f"{unknown} (1, first in line 5)" in caplog.text


def test_digits_are_dates_only_if_all_cells_are():
    assert [r[3] for r in events(["20240131", "20240231"])] == ["20240131", "20240231"]
    assert [r[3] for r in events(["1588687728923"], date_format="ms")] == ["1588687728.923"]


def test_a_time_far_in_the_future_is_said_with_the_remedy(caplog):
    events(["1588687728923", "1588687728924"])
    assert "--date_format=ms" in caplog.text
    caplog.clear()
    events(["1588687728", "1588687729"])
    assert "date_format" not in caplog.text and "2020-05-05" in caplog.text


def test_without_times_it_is_said_what_can_be_done_and_that_works(caplog):
    from recbole_gr import run_recbole_gr

    rows = "".join(f"u{u},i{(u * 7 + k * k) % 12}\n" for u in range(20) for k in range(5))
    write("events", "uid,sku\n" + rows)
    table("events", "user_id:uid,item_id:sku", duplicates="first")
    said = "events: no timestamp was given"
    assert said in caplog.text and "--eval_args=\"{'order': 'RO'}\"" in caplog.text
    given = {"data_path": "dataset", "epochs": 1, "topk": [5, 10], "show_progress": False}
    random_order = {**given, "eval_args": {"order": "RO"}}
    for model in ("Pop", "BPR"):
        assert "recall@5" in run_recbole_gr(model, "shop", config_dict=random_order)["test_result"]
        with pytest.raises(ConfigError, match="--eval_args={'order': 'RO'}"):
            run_recbole_gr(model, "shop", config_dict=given)
    for model in ("SASRec", "TIGER"):
        with pytest.raises(ConfigError, match="no column 'timestamp'.*a general model such as BPR"):
            run_recbole_gr(model, "shop", config_dict=random_order)
    caplog.clear()
    events(["1"])
    assert said not in caplog.text


@pytest.mark.parametrize("mark", ["\t", ",", ";", "|"])
def test_a_delimiter_is_recognised_by_the_columns_it_gives(mark, caplog):
    write("events", f'"uid"{mark}sku{mark}"a, b; c | d"{mark}ts\n' + "".join(
        f'u{n}{mark}i{n}{mark}"two\nlines, ""x"""{mark}{n}\n' for n in range(5)
    ))  # fmt: skip
    rows, figures = table("events", "user_id:uid,item_id:sku,timestamp:ts")
    assert rows[1] == ["u1", "i1", "1"] and figures[".inter"]["broken"] == 0
    assert f"events: cells are separated by {mark!r}" in caplog.text


def test_a_delimiter_that_cannot_be_told_is_given_by_its_name():
    write("events", "uid:sku:ts\nu:i:1\n")
    columns = "user_id:uid,item_id:sku,timestamp:ts"
    with pytest.raises(ConfigError, match="--columns: events has no column 'uid'.*--delimiter"):
        table("events", columns)
    assert table("events", columns, delimiter=":")[0] == [["u", "i", "1"]]
    write("events", "uid;sku;x\nu,a;i,b;1\n")
    write("items", "sku,x;sku\ni,b;1\n")  # by ; and by , there is a column sku
    with pytest.raises(ConfigError, match="items: .* ',' or ';'.*--delimiter=comma"):
        table("events", "user_id:uid,item_id:sku", items="items")
    assert table("events", "user_id:uid,item_id:sku", items="items", delimiter="semicolon")


EXPORT = "Kunde;Artikel;Preis;Wert;Datum\n" + "".join(
    f"Müller {n % 3};Stück {n % 4};{n},50 €;{n % 5},5;{n + 1:02}.03.2024 10:{n:02}\n"
    for n in range(20)
)
GERMAN = "user_id:Kunde,item_id:Artikel,timestamp:Datum,rating:Wert"


@pytest.mark.parametrize(
    "encoding, option",
    [("utf-8", None), ("utf-8-sig", None), ("utf-16", None), ("utf-16-le", None),
     ("utf-16-be", None), ("utf-32", None), ("cp1252", "cp1252"), ("latin-1", "latin-1")],
)  # fmt: skip
def test_a_german_export_is_read_in_any_encoding(encoding, option):
    write("export.csv", EXPORT.replace("€", "$") if encoding == "latin-1" else EXPORT, encoding)
    rows, figures = table("export.csv", GERMAN, encoding=option)
    assert rows[4] == ["Müller 1", "Stück 0", "4.5", utc(2024, 3, 5, 10, 4)]
    assert figures[".inter"]["kept"] == 20 and figures[".inter"]["broken"] == 0


def test_an_encoding_that_cannot_be_told_is_asked_for_by_its_option(caplog):
    write("export.csv", EXPORT, "cp1252")
    with pytest.raises(ConfigError, match="not utf-8 .*--encoding=cp1252"):
        table("export.csv", GERMAN, max_broken=0.01)
    write("export.csv", EXPORT.replace("Kunde", "Käufer"), "cp1252")
    with pytest.raises(ConfigError, match="the header is not utf-8.*--encoding=cp1252"):
        table("export.csv", GERMAN.replace("Kunde", "Käufer"))


def test_a_utf_16_file_that_breaks_off_is_named():
    with open("export.csv", "wb") as file:
        file.write(codecs.BOM_UTF16_LE + EXPORT.encode("utf-16-le")[:-1])
    with pytest.raises(ConfigError, match="export.csv, after line .*: not utf-16 text"):
        table("export.csv", GERMAN)


@pytest.mark.parametrize(
    "option, message",
    [
        ("--delimiter=;;", "--delimiter=;;: it must be one character"),
        ("--encoding=utf-9", "--encoding=utf-9 is unknown"),
        ("--encoding=hex", "--encoding=hex is unknown"),
        ("--decimal=;", "--decimal=; is not one of"),
        ("--date_format=dd.mm.yyyy", "--date_format=dd.mm.yyyy: neither"),
        ("--date_format=%H:%M", "day, month and year"),
        ("--dateformat=%d", "did you mean 'date_format'"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(option, message, capsys):
    write("events", "uid,sku\nu,i\n")
    given = ["--format=table", "--dataset=shop", "--interactions=events",
             "--columns=user_id:uid,item_id:sku"]  # fmt: skip
    assert main([*given, option]) == 2
    assert message in capsys.readouterr().err


def test_options_of_a_table_are_text_on_the_command_line_and_part_of_what_is_done(capsys):
    write("events", "uid;sku;ts\nu;i;03/04/2024\n")
    given = ["--format=table", "--dataset=shop", "--interactions=events", "--show_progress=False",
             "--columns=user_id:uid,item_id:sku,timestamp:ts"]  # fmt: skip
    assert main([*given, "--delimiter=;", "--date_format=%d/%m/%Y", "--decimal=,"]) == 0
    assert read("inter") == [["u", "i", utc(2024, 4, 3)]]
    assert main([*given, "--delimiter=;", "--date_format=%m/%d/%Y", "--decimal=,"]) == 2
    assert "was made with other date_format" in capsys.readouterr().err
