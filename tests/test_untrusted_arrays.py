"""Arrays and archives of others: damaged, locked, of codes that no one gives, or far too large."""

import json
import os
import zipfile

import numpy as np
import pytest
import torch
from changes import DROPPED, changed, refused, variants

from recbole_gr.convert.movielens import MovieLens
from recbole_gr.convert.raw_lines import LineFile
from recbole_gr.data.content_cache import cached_vectors
from recbole_gr.data.vector_files import load_array
from recbole_gr.errors import ConfigError
from recbole_gr.sid.exchange import read_json, read_npy
from recbole_gr.sid.table import LEAST_LARGE, SIDTable
from recbole_gr.storage.checkpoint import load_checkpoint, save_checkpoint
from recbole_gr.storage.manifest import data_hashes
from recbole_gr.tokenizer.rkmeans import RKMeans
from recbole_gr.untrusted.archives import load_npy, load_npz


@pytest.fixture
def tokenizer_file(tmp_path):
    tokenizer = RKMeans({"codebook_size": 4, "sid_levels": 2}, 3)
    tokenizer.fit(torch.randn(20, 3), progress=False)
    tokenizer.save(tmp_path / "t.pth")
    return tmp_path / "t.pth"


def test_a_tokenizer_of_any_other_content_is_refused_in_words(tokenizer_file):
    state = torch.load(tokenizer_file, weights_only=True)
    seen = set()
    for key, other in variants(state, 1):
        torch.save(other, tokenizer_file)
        if key == "hash" and key not in other:  # as the first versions wrote it
            RKMeans.load(tokenizer_file)
            continue
        named = key not in ("state_dict", "hash")
        assert refused(lambda: RKMeans.load(tokenizer_file), "t.pth", key, named)
        seen.add(key)
    assert seen == {"tokenizer", "dim", "sizes", "options", "state_dict", "hash"}
    for key, huge in (("dim", 2**40), ("sizes", [2**40, 4])):
        torch.save({**state, key: huge}, tokenizer_file)
        with pytest.raises(ConfigError, match=r"t\.pth.*dim and sizes"):
            RKMeans.load(tokenizer_file)
    torch.save([1], tokenizer_file)
    with pytest.raises(ConfigError, match=r"t\.pth"):
        RKMeans.load(tokenizer_file)


TOKENS = ["[PAD]", "a", "b", "c"]
HUGE = (10**9, 2**62, 2**63 - 1, 2**63, 2**70, 10**5000 - 1, LEAST_LARGE)


@pytest.mark.parametrize(
    "codes",
    [
        *([[0, 1], [0, 2], [0, code]] for code in (*HUGE[:5], LEAST_LARGE, -1, -(2**70))),
        *([[0, 1], [0, 2], [0, code]] for code in (1.0, True, None, [1], "<b_1", "<b_1>x", "")),
        *([["<a_1>"], ["<a_2>"], [f"<a_{code}>"]] for code in ("9" * 18, "9" * 5000, -1)),
        [[0], [1, 2], [3]],
        [[0], [1], []],
        [[0], [1], 2],
        [[0] * 300, [1] * 300, [2] * 300],
    ],
    ids=lambda codes: str(codes)[:40],
)
def test_a_json_of_codes_that_no_tokenizer_gives_is_refused_before_any_memory_is_taken(
    codes, tmp_path
):
    (tmp_path / "sid.json").write_text(json.dumps(dict(zip("abc", codes))))
    with pytest.raises(ConfigError, match=r"sid\.json"):
        read_json(tmp_path / "sid.json", TOKENS)


def test_json_that_is_too_deep_or_too_long_a_number_is_refused(tmp_path):
    for text in ("[" * 100_000, '{"a": [' + "9" * 5000 + "]}", '{"a\0": [1]}', "\0"):
        (tmp_path / "sid.json").write_text(text)
        with pytest.raises(ConfigError, match=r"sid\.json"):
            read_json(tmp_path / "sid.json", TOKENS)


BAD_ARRAYS = {
    **{f"of {code}": np.array([[0], [1], [code]]) for code in (10**9, 2**62, 2**63 - 1, -1)},
    "unsigned": np.array([[0], [1], [2**63]], dtype=np.uint64),
    "float": np.array([[0.0], [1.0], [2.0]]),
    "bool": np.array([[False], [True], [True]]),
    "flat": np.arange(3),
    "none": np.zeros((0, 2), dtype=np.int64),
    "wide": np.zeros((3, 300), dtype=np.int64),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_an_array_of_codes_that_no_tokenizer_gives_is_refused(name, tmp_path):
    np.save(tmp_path / "sid.npy", BAD_ARRAYS[name])
    with pytest.raises(ConfigError, match=r"sid\.npy"):
        read_npy(tmp_path / "sid.npy", None, TOKENS)
    arrays = {"codes": BAD_ARRAYS[name], "meta": np.frombuffer(b"{}", dtype=np.uint8)}
    most = min(int(arrays["codes"].max(initial=0)) + 1, 2**63 - 1)
    levels = arrays["codes"].shape[-1]
    np.savez(tmp_path / "sid.npz", **arrays, sizes=np.full(levels, most, dtype=np.int64))
    with pytest.raises(ConfigError, match=r"sid\.npz"):
        SIDTable.load(tmp_path / "sid.npz", None)


@pytest.fixture
def table_file(tmp_path):
    table = SIDTable.from_item_codes(torch.tensor([[0], [1], [2]]), (3,))
    table.save(tmp_path / "sid.npz", TOKENS)
    return tmp_path / "sid.npz"


def test_a_table_that_lacks_something_or_holds_something_else_is_refused(table_file):
    arrays = load_npz(table_file)
    del arrays["hash"]
    for name in ("codes", "sizes", "meta", "item_tokens"):
        for to in (DROPPED, np.array(1.5), np.array(["x"]), np.zeros((2, 2, 2)), np.int64([[1]])):
            if to is DROPPED and name == "item_tokens":
                continue
            with open(table_file, "wb") as file:
                np.savez(file, **changed(arrays, (name,), to))
            with pytest.raises(ConfigError, match=r"sid\.npz"):
                SIDTable.load(table_file, TOKENS)
    for meta in (
        *("[]", "{", "\xff", '{"content_levels": "x"}', '{"content_levels": 0}', '{"options": 3}'),
        *('{"file": "../../a"}', '{"file": 3}', '{"tokenizer": ["x"]}', '{"fit": [1]}'),
    ):
        array = np.frombuffer(meta.encode("latin-1"), dtype=np.uint8)
        with open(table_file, "wb") as file:
            np.savez(file, **{**arrays, "meta": array})
        with pytest.raises(ConfigError, match=r"sid\.npz"):
            SIDTable.load(table_file, TOKENS)


def head(shape, descr="<f4", version=b"\x01\x00"):
    """The bytes of a `.npy` file that says what it holds, and holds nothing."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text


HEADS = {
    "huge": head((2**40, 4)),
    "overflowing": head((2**62, 2**62)),
    "negative": head((-1, 4)),
    "too short": head((2, 2)) + bytes(8),
    "objects": head((2, 2), "|O") + bytes(64),
    "no dtype": head((2, 2), "nothing"),
    "no shape": head("x"),
    "deep": head("(" * 5000),
    "version": head((2, 2), version=b"\x09\x00"),
    "cut": head((2, 2))[:20],
    "empty": b"",
    "text": b"\0" * 100,
    "pickle": b"\x80\x04N.",
}


@pytest.mark.parametrize("name", HEADS)
def test_an_array_file_whose_head_lies_is_refused_before_any_memory_is_taken(name, tmp_path):
    file = tmp_path / "a.npy"
    file.write_bytes(HEADS[name])
    with pytest.raises(ValueError, match=r"\.npy file|too short|objects"):
        load_npy(file)
    with pytest.raises(ConfigError, match=r"content_file .*a\.npy"):
        load_array(file)
    with pytest.raises(ConfigError, match=r"a\.npy"):
        read_npy(file, None, TOKENS)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("codes.npy", HEADS[name])
    with pytest.raises(ConfigError, match=r"a\.npz"):
        SIDTable.load(tmp_path / "a.npz", TOKENS)
    with zipfile.ZipFile(tmp_path / "tiny-text-0123456789abcdef.npz", "w") as archive:
        archive.writestr("vectors.npy", HEADS[name])
    config = {"content_cache_dir": str(tmp_path), "dataset": "tiny"}
    made = np.ones((2, 2), dtype=np.float32)
    tokens = ["[PAD]", "a"]
    assert cached_vectors(config, "text", "0123456789abcdef", tokens, lambda: made)[0] is made


def locked(content):
    """A zip file whose parts say that they have a password."""
    content = bytearray(content)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(mark)
        while place >= 0:
            content[place + offset] |= 1
            place = content.find(mark, place + 4)
    return bytes(content)


def damaged(content):
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 0xFF for byte in content[middle:])


DAMAGES = {
    "locked": locked,
    "damaged": damaged,
    **{f"cut at {s}": lambda c, s=s: c[: int(len(c) * s)] for s in (0, 0.01, 0.5, 0.95)},
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_locked_cut_or_damaged_archive_is_refused_in_words(
    name, tmp_path, table_file, tokenizer_file
):
    checkpoint = tmp_path / "c.pth"
    save_checkpoint(checkpoint, {"w": torch.zeros(100)})
    uses = {
        checkpoint: lambda: load_checkpoint(checkpoint),
        table_file: lambda: SIDTable.load(table_file, TOKENS),
        tokenizer_file: lambda: RKMeans.load(tokenizer_file),
    }
    for file, use in uses.items():
        file.write_bytes(DAMAGES[name](file.read_bytes()))
        with pytest.raises(ConfigError, match=file.name):
            use()


@pytest.mark.parametrize("name", DAMAGES)
def test_a_locked_cut_or_damaged_zip_of_raw_data_is_refused_in_words(name, tmp_path):
    file = tmp_path / "ml.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ml/u.data", "1\t2\t3\t4\n" * 2000)
    file.write_bytes(DAMAGES[name](file.read_bytes()))

    def open_file(path, member=None, encoding="utf-8"):
        return LineFile(path, member, encoding, progress=False)

    with pytest.raises(ConfigError, match=r"ml\.zip"):
        list(MovieLens(open_file, str(file)).interactions()[1])


def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path):
    for file, load in (
        (tmp_path / "sid.npz", lambda file: SIDTable.load(file, TOKENS)),
        (tmp_path / "c.pth", load_checkpoint),
    ):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("codes.npy", head((2**25,), "|i1") + bytes(2**25))
        with pytest.raises(ConfigError, match=rf"{file.name}.*would take"):
            load(file)
    for tensor in (
        torch.zeros(1).expand(10**10),
        torch.empty(10**10, device="meta"),
        torch.sparse_coo_tensor(torch.zeros(1, 1).long(), [1.0], (10**10,)),
    ):
        torch.save({"format_version": 1, "w": tensor}, tmp_path / "c.pth")
        with pytest.raises(ConfigError, match=r"c\.pth"):
            load_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize("key", ["content_file", "sid_file", "cf_file"])
def test_a_number_in_the_place_of_a_file_is_no_open_file(key, tmp_path):
    with open(tmp_path / "open", "w+b") as file:
        config = {"data_path": str(tmp_path), "dataset": "tiny", key: file.fileno()}
        config = {**dict.fromkeys(("content_file", "sid_file", "cf_file")), **config}
        with pytest.raises(ConfigError, match=key):
            data_hashes(config)
        with pytest.raises(ConfigError, match=key):
            load_array(file.fileno(), key)
        os.fstat(file.fileno())  # it would have been closed
