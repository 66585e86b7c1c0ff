"""Atomic files are read as they stand there, or refused with the line and the remedy."""

import pytest
from data_helpers import Generative, make_config

from recbole_gr.data import atomic, create_dataset
from recbole_gr.data.atomic import read_header, read_table
from recbole_gr.data.item_file import ItemFile
from recbole_gr.errors import ConfigError

pytestmark = pytest.mark.usefixtures("quiet_argv")
HEAD = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
ROWS = [f"u{n % 4}\ti{n % 6}\t{n % 5}\t{n}" for n in range(60)]


def write(folder, lines, suffix="inter", encoding="utf-8", end="\n"):
    path = folder / "odd" / f"odd.{suffix}"
    path.parent.mkdir(exist_ok=True)
    text = lines if isinstance(lines, str) else "".join(line + end for line in lines)
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return folder


def with_row(number, row):
    """The lines of a file, one of which is another."""
    lines = [HEAD, *ROWS]
    lines[number - 1] = row
    return lines


def read(folder, model=Generative, **values):
    return create_dataset(make_config(folder, model, "odd", normalize_all=False, **values))


def content(dataset):
    tokens = dataset.field2id_token
    feat = dataset.inter_feat
    return sorted(zip(
        tokens["user_id"][feat["user_id"]], tokens["item_id"][feat["item_id"]],
        feat["rating"], feat["timestamp"],
    ))  # fmt: skip


# Cells


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\t\n", "\t\r\n", "\n\n"])
@pytest.mark.parametrize("model", [Generative, "SASRec", "BPR"])
def test_ends_of_lines_and_an_empty_last_cell_change_nothing(model, end, tmp_path):
    expected = [(f"u{n % 4}", f"i{n % 6}", n % 5, n) for n in range(60)]
    assert content(read(write(tmp_path, [HEAD, *ROWS], end=end), model)) == sorted(expected)


def test_only_some_lines_or_only_rows_may_end_in_a_separator(tmp_path):
    lines = [HEAD, *(row + "\t" * (n % 2) for n, row in enumerate(ROWS))]
    dataset = read(write(tmp_path, lines))
    assert (dataset.user_num, dataset.item_num) == (5, 7)


@pytest.mark.parametrize(
    "row, found",
    [
        ("u1\ti2\t3\t4\t5", "5 cells where the header has 4"),
        ("u1\ti2\t3\t4\t\t", "6 cells where the header has 4"),
        ("u1\ti2\t3", "3 cells where the header has 4"),
        ("u1", "1 cells where the header has 4"),
        ("   ", "1 cells where the header has 4"),
        ("u1,i2,3,4", "1 cells where the header has 4"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 1 << 22])
def test_a_line_with_other_cells_is_refused_with_its_number(
    row, found, chunk, tmp_path, monkeypatch
):
    monkeypatch.setattr(atomic, "CHUNK", chunk)
    for model in (Generative, "BPR"):
        with pytest.raises(ConfigError, match=rf"odd\.inter, line 37: {found}") as error:
            read(write(tmp_path, with_row(37, row)), model)
        assert repr(row) in str(error.value)


@pytest.mark.parametrize("suffix", ["item", "user"])
def test_files_of_items_and_users_are_read_as_strictly(suffix, tmp_path):
    write(tmp_path, [HEAD, *ROWS])
    key = {"item": "item_id", "user": "user_id"}[suffix]
    write(tmp_path, [f"{key}:token\tname:token", "i1\tone", "i2\ttwo\tmore"], suffix)
    columns = {"inter": ["user_id", "item_id", "rating", "timestamp"], suffix: [key, "name"]}
    with pytest.raises(ConfigError, match=rf"odd\.{suffix}, line 3: 3 cells"):
        read(tmp_path, "BPR", load_col=columns)


def test_lines_are_counted_over_blank_lines_and_chunks(tmp_path, monkeypatch):
    lines = [HEAD, *ROWS[:3], "", "", *ROWS[3:]]
    write(tmp_path, lines)
    path = str(tmp_path / "odd" / "odd.inter")
    tables = [read_table(path)]
    monkeypatch.setattr(atomic, "CHUNK", 40)
    tables.append(read_table(path))
    for table in tables:
        assert table.lines.tolist() == [2, 3, 4, *range(7, 64)]
        assert table.cells.to_numpy().tolist() == [row.split("\t") for row in ROWS]


@pytest.mark.parametrize("model", [Generative, "SASRec", "BPR"])
def test_quotes_are_part_of_a_cell_in_every_file(model, tmp_path):
    lines = with_row(5, 'u1\t"7in plate\t3\t4')
    lines[6] = 'u1\ta"b"\t3\t5'
    write(tmp_path, lines)
    write(tmp_path, ["item_id:token\ttitle:token_seq", '"7in plate\ta "big plate'], "item")
    columns = {"inter": ["user_id", "item_id", "rating", "timestamp"], "item": ["item_id", "title"]}
    dataset = read(tmp_path, model, load_col=columns, filter_inter_by_user_or_item=False)
    row = dataset.field2token_id["item_id"]['"7in plate']
    assert 'a"b"' in dataset.field2token_id["item_id"] and len(dataset.inter_feat) == 60
    words = dataset.field2id_token["title"]
    assert [str(words[word]) for word in dataset.item_feat["title"][row]] == ["a", '"big', "plate"]


# Numbers


@pytest.mark.parametrize(
    "cell", ["-", "4,5", "2024-01-31", "x", "nan", "NA", "inf", "-inf", "1e999", "1_000", "0x1f"]
)
@pytest.mark.parametrize("column", ["rating", "timestamp"])
def test_a_cell_that_is_no_number_is_named(cell, column, tmp_path):
    row = f"u1\ti2\t{cell}\t4" if column == "rating" else f"u1\ti2\t3\t{cell}"
    for model in (Generative, "BPR"):
        with pytest.raises(ConfigError) as error:
            read(write(tmp_path, with_row(9, row)), model)
        message = str(error.value)
        assert f"odd.inter, column '{column}', line 9: {cell!r} is no number" in message


def test_numbers_may_be_written_in_every_usual_way(tmp_path):
    write(tmp_path, with_row(3, "u9\ti9\t 4.5 \t1.5e3"))
    assert ("u9", "i9", 4.5, 1500.0) in content(read(tmp_path))


def test_a_number_of_a_sequence_is_named_too(tmp_path):
    lines = [HEAD + "\tprices:float_seq", *(row + "\t1 2.5" for row in ROWS)]
    lines[8] = ROWS[7] + "\t1 free"
    columns = {"inter": ["user_id", "item_id", "timestamp", "prices"]}
    with pytest.raises(ConfigError, match=r"column 'prices', line 9: 'free' is no number"):
        read(write(tmp_path, lines), "BPR", load_col=columns)


# Headers


def test_a_wrong_separator_is_recognised(tmp_path):
    write(tmp_path, [line.replace("\t", ",") for line in [HEAD, *ROWS]])
    with pytest.raises(ConfigError, match=r"separated by ',': give field_separator=','"):
        read(tmp_path)
    assert len(content(read(tmp_path, field_separator=","))) == 60
    with pytest.raises(ConfigError, match=r"is field_separator=';' right"):
        read(write(tmp_path, ["user_id item_id"]), field_separator=";")


def test_a_separator_of_several_characters_is_no_pattern(tmp_path):
    for separator in ("::", "||", "."):
        write(tmp_path, [line.replace("\t", separator) for line in [HEAD, *ROWS]])
        assert len(content(read(tmp_path, field_separator=separator))) == 60


def test_headers_that_mean_nothing_are_refused(tmp_path):
    for head, complaint in (
        ("user_id:token\titem_id:token\trating:float\ttimestamp:float\titem_id:token", "two col"),
        ("user_id\titem_id", "`name:type` is expected"),
        ("user_id:text\titem_id:token", "`name:type` is expected"),
        ('"user_id:token"\t"item_id:token"', "`name:type` is expected"),
        ("", "has no header"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            read(write(tmp_path, [head]))
    with pytest.raises(ConfigError, match="odd.inter has no header"):
        read(write(tmp_path, b""))


@pytest.mark.parametrize("model", [Generative, "SASRec", "BPR"])
def test_a_file_of_a_header_alone_is_refused(model, tmp_path):
    with pytest.raises(ConfigError, match="odd.inter has a header and no rows"):
        read(write(tmp_path, [HEAD]), model)
    write(tmp_path, [HEAD, *ROWS])
    write(tmp_path, ["item_id:token\tname:token"], "item")
    columns = {"inter": ["user_id", "item_id", "rating", "timestamp"], "item": ["item_id", "name"]}
    with pytest.raises(ConfigError, match="odd.item has a header and no rows"):
        read(tmp_path, model, load_col=columns)
    with pytest.raises(ConfigError, match="odd.item has a header and no rows"):
        ItemFile(make_config(tmp_path, model, "odd"))  # as texts and vectors of items are read


# Encodings


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
def test_a_byte_order_mark_is_read_away(encoding, tmp_path):
    write(tmp_path, [HEAD, *ROWS], encoding="utf-8-sig")
    assert len(content(read(tmp_path, encoding=encoding))) == 60
    write(tmp_path, ["item_id:token\tname:token", "i1\tone"], "item", encoding="utf-8-sig")
    assert list(read_header(str(tmp_path / "odd" / "odd.item"))) == ["item_id", "name"]


@pytest.mark.parametrize("encoding, word", [("gbk", "玻璃"), ("latin-1", "café"), ("cp1251", "да")])
@pytest.mark.parametrize("model", [Generative, "BPR"])
def test_another_encoding_is_named_with_its_line_and_can_be_given(model, encoding, word, tmp_path):
    write(tmp_path, with_row(12, f"u1\t{word}\t3\t4"), encoding=encoding)
    with pytest.raises(ConfigError, match=r"odd\.inter, line 12: .* is not utf-8 text.*--encoding"):
        read(tmp_path, model)
    assert word in read(tmp_path, model, encoding=encoding).field2token_id["item_id"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_characters_are_recognised_and_can_be_given(encoding, tmp_path):
    write(tmp_path, with_row(3, "u1\té\t3\t4"), encoding=encoding)
    kind = encoding[:6].upper()
    with pytest.raises(ConfigError, match=rf"is a {kind} file; give --encoding={encoding}, or"):
        read(tmp_path)
    assert len(content(read(tmp_path, encoding=encoding))) == 60


def test_an_unknown_encoding_is_named(tmp_path):
    with pytest.raises(ConfigError, match="encoding: 'utf-99' is unknown"):
        read(write(tmp_path, [HEAD, *ROWS]), encoding="utf-99")


# Tokens


def test_nul_bytes_and_endless_tokens_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"odd\.inter, line 4: a NUL byte"):
        read(write(tmp_path, with_row(4, "u1\ti\0\t3\t4")))
    with pytest.raises(ConfigError, match=r"'item_id', line 4: a token of 1000000 characters"):
        read(write(tmp_path, with_row(4, f"u1\t{'i' * 1_000_000}\t3\t4")))


def test_the_name_of_the_padding_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"'item_id', line 4: '\[PAD\]' is RecBole's name"):
        read(write(tmp_path, with_row(4, "u1\t[PAD]\t3\t4")))


@pytest.mark.parametrize(
    "suffix, row, complaint",
    [
        ("kg", "m.1\t\tm.2", "1 of 3 rows have no head_id or no relation_id or no tail_id"),
        ("link", "i1\t", "1 of 7 rows have no item_id or no entity_id, first in line 8"),
    ],
)
def test_triples_and_links_without_an_end_are_left_out(suffix, row, complaint, tmp_path, caplog):
    lines = {
        "inter": [HEAD, *ROWS],
        "kg": ["head_id:token\trelation_id:token\ttail_id:token", "m.0\tr\tm.1", "m.1\tr\tm.0"],
        "link": ["item_id:token\tentity_id:token", *(f"i{n}\tm.{n}" for n in range(6))],
    }
    lines[suffix].append(row)
    for name, rows in lines.items():
        write(tmp_path, rows, name)
    columns = {
        "inter": ["user_id", "item_id", "rating", "timestamp"],
        "kg": ["head_id", "relation_id", "tail_id"],
        "link": ["item_id", "entity_id"],
    }
    dataset = read(tmp_path, "CKE", load_col=columns, filter_inter_by_user_or_item=False)
    assert complaint in caplog.text
    assert len(dataset.kg_feat) == 2 and int(dataset.kg_feat["relation_id"].min()) == 1
