"""Text files that users write, as Windows' editors save them too."""

import gzip
import json

import pytest

from recbole_gr.config import Config
from recbole_gr.config.parsing import read_yaml
from recbole_gr.convert.command import convert
from recbole_gr.convert.raw_lines import LineFile
from recbole_gr.errors import ConfigError
from recbole_gr.search.space import read_space
from recbole_gr.sid.exchange import read_json
from recbole_gr.storage.text_files import is_utf16, read_text

BOM = b"\xef\xbb\xbf"
UTF16 = ["utf-16", "utf-16-le", "utf-16-be", "utf-32"]


def write(folder, data, name="file"):
    path = folder / name
    path.write_bytes(data)
    return path


def read_sids(path):
    return read_json(path, ["[PAD]", "ä", "b"]).codes.tolist()


def read_lines(path):
    return list(LineFile(path, progress=False).lines())


SIDS = json.dumps({"ä": [1, 2], "b": [3, 0]}, ensure_ascii=False)
READERS = {
    "settings": (read_yaml, "epochs: 3\r\nlog_wandb: False\n# ä\n"),
    "parameters": (read_space, "n_layers choice [1,2]\r\n# ä\r\nlr choice ['ä']\n"),
    "SIDs": (read_sids, SIDS),
    "raw lines": (read_lines, "uid,sku\r\n1,ä\n"),
    "text": (lambda path: read_text(path, str(path)), "a\r\nä\rb\n"),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_byte_order_mark_is_read_away(kind, tmp_path):
    reader, text = READERS[kind]
    expected = reader(write(tmp_path, text.encode()))
    assert reader(write(tmp_path, BOM + text.encode())) == expected
    assert "\ufeff" not in str(expected)


@pytest.mark.parametrize("encoding", UTF16)
@pytest.mark.parametrize("kind", READERS)
def test_utf_16_is_named_with_the_remedy(kind, encoding, tmp_path):
    reader, text = READERS[kind]
    path = write(tmp_path, text.encode(encoding))
    with pytest.raises(ConfigError) as error:
        reader(path)
    message = str(error.value)
    assert str(path) in message and "UTF-16; save it as UTF-8, for example by iconv" in message


@pytest.mark.parametrize("kind", READERS)
def test_another_encoding_is_named_with_the_remedy(kind, tmp_path):
    reader, text = READERS[kind]
    path = write(tmp_path, text.encode("latin-1"))
    with pytest.raises(ConfigError, match=f"{path}.*not (UTF-8|utf-8).*iconv -f LATIN1 -t UTF-8"):
        reader(path)


def test_the_line_of_a_byte_that_is_not_utf_8_is_named(tmp_path):
    path = write(tmp_path, b"epochs: 3\nseed: 4\n# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"byte 0xe9 in line 3"):
        read_yaml(path)


@pytest.mark.parametrize("text", ["", "a", "ab", "\0a", "user\n", "ä\n", "日本\n", "\ufeffuser"])
def test_utf_8_is_not_taken_for_utf_16(text):
    assert not is_utf16(text.encode())


def test_a_run_takes_a_file_of_settings_with_a_byte_order_mark(tiny_folder, tmp_path):
    path = write(tmp_path, BOM + b"hidden_size: 24\r\n", "own.yaml")
    config = Config("TIGER", "tiny", [str(path)], {"data_path": str(tiny_folder)})
    assert config["hidden_size"] == 24


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


TABLE = {
    "interactions": "t.csv", "columns": "user_id:uid,item_id:Stück", "show_progress": False,
}  # fmt: skip
ROWS = "uid,Stück\n" + "".join(f"{n},i{n % 5}\n" for n in range(200))


@pytest.mark.parametrize("unpacked", [True, False])
def test_a_table_with_a_byte_order_mark_has_the_first_column_of_its_header(unpacked, in_tmp):
    data = BOM + ROWS.replace("\n", "\r\n").encode()
    write(in_tmp, data if unpacked else gzip.compress(data), "t.csv")
    _, figures = convert("table", "shop", **TABLE)
    assert figures[".inter"]["kept"] == 200


def test_a_table_of_another_encoding_is_refused_by_its_encoding(in_tmp):
    write(in_tmp, ROWS.encode("latin-1"), "t.csv")
    with pytest.raises(ConfigError, match="t.csv: the header is not utf-8; save the file as UTF-8"):
        convert("table", "shop", **TABLE)
    assert not (in_tmp / "dataset/shop/shop.inter").exists()


def test_reviews_in_utf_16_are_refused_by_their_encoding(in_tmp):
    review = {"reviewerID": "A", "asin": "B", "overall": 5, "unixReviewTime": 1}
    write(in_tmp, gzip.compress(json.dumps(review).encode("utf-16")), "r.json.gz")
    with pytest.raises(ConfigError, match="r.json.gz cannot be read: it is UTF-16"):
        convert("amazon2014", "shop", reviews="r.json.gz", show_progress=False)
