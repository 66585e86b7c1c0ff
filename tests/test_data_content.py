"""Item content: every source, mapped to RecBole's item ids, checked and cached."""

import hashlib
import os
import pickle
import random
import sys
from collections import Counter
from types import ModuleType

import numpy as np
import pytest
import torch
from data_helpers import Generative, make_config, write_random_inter
from tiny import write_tiny_dataset

from recbole_gr.data import content as item_content_module
from recbole_gr.data import create_dataset, data_preparation, item_content
from recbole_gr.data import tfidf as text_module
from recbole_gr.data.item_file import ItemFile
from recbole_gr.errors import ConfigError
from recbole_gr.pipeline import sids as pipeline
from recbole_gr.tokenizer.rkmeans import RKMeans

pytestmark = pytest.mark.usefixtures("quiet_argv")
INTER = {"inter": ["user_id", "item_id", "timestamp"]}


@pytest.fixture
def folder(tmp_path):
    return write_tiny_dataset(tmp_path, "tiny", 30, 20, 3)


def make_content(folder, **settings):
    config = make_config(folder, Generative, **{"load_col": INTER, **settings})
    return item_content(config, data_preparation(config, create_dataset(config))[0].dataset)


def item_lines(folder):
    """Cells of `tiny.item` by item token, in the order of the file."""
    lines = (folder / "tiny" / "tiny.item").read_text().splitlines()[1:]
    return {line.split("\t")[0]: line.split("\t")[1:] for line in lines}


def write_items(folder, header, lines):
    text = "\t".join(header) + "\n" + "".join("\t".join(line) + "\n" for line in lines)
    (folder / "tiny" / "tiny.item").write_text(text)


def save_vectors(folder, array, name="tiny.itememb.npy"):
    path = folder / "tiny" / name
    np.save(path, array)
    return path


def cosines(rows):
    rows = np.asarray(rows, dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return rows @ rows.T


# --- vectors of a file


def test_rows_of_a_vector_file_follow_the_item_file_and_land_on_recboles_ids(folder):
    lines = item_lines(folder)
    array = np.random.default_rng(0).normal(size=(20, 7)).astype(np.float16)
    save_vectors(folder, array)
    content = make_content(folder)
    assert content.source == "embedding"
    assert content.vectors.dtype == torch.float32 and content.vectors.shape == (21, 7)
    assert content.item_tokens[0] == "[PAD]" and not content.vectors[0].any()
    by_token = dict(zip(lines, array))
    assert list(lines) != content.item_tokens[1:], "the orders must differ for this test to tell"
    for token, vector in zip(content.item_tokens[1:], content.vectors[1:]):
        assert np.array_equal(vector.numpy(), by_token[token].astype(np.float32))


def test_a_content_file_elsewhere_is_read(folder, tmp_path):
    save_vectors(folder, np.zeros((20, 3)))
    other = tmp_path / "other.npy"
    np.save(other, np.ones((20, 4), dtype=np.int32))
    content = make_content(folder, content_file=str(other))
    assert (content.vectors[1:] == 1).all() and content.vectors.shape == (21, 4)


@pytest.mark.parametrize(
    "array, message",
    [
        (np.ones((19, 3)), r"19 rows.*20 items"),
        (np.ones(20), "matrix"),
        (np.ones((20, 2, 2)), "matrix"),
        (np.array([["a", "b"]] * 20), "numbers"),
        (np.ones((20, 2), dtype=complex), "numbers"),
        (np.full((20, 2), np.nan, dtype=np.float32), "NaN or infinite"),
        (np.full((20, 2), np.inf, dtype=np.float16), "NaN or infinite"),
    ],
)
def test_misshapen_vectors_are_refused(folder, array, message):
    save_vectors(folder, array)
    with pytest.raises(ConfigError, match=message):
        make_content(folder)


class RunsWhenUnpickled:
    def __reduce__(self):
        return os.mkdir, (os.environ["UNPICKLED_MARK"],)


def test_a_pickled_array_is_refused_unread(folder, monkeypatch, tmp_path):
    mark = tmp_path / "unpickled"
    monkeypatch.setenv("UNPICKLED_MARK", str(mark))
    path = save_vectors(folder, np.array([[RunsWhenUnpickled()]] * 20), "objects.npy")
    plain = folder / "tiny" / "plain.npy"
    plain.write_bytes(pickle.dumps(RunsWhenUnpickled()))
    for file in (path, plain):
        with pytest.raises(ConfigError, match="no plain .npy array"):
            make_content(folder, content_file=str(file))
    assert not mark.exists()


def test_a_missing_content_file_is_named(folder):
    with pytest.raises(ConfigError, match="nowhere.npy does not exist"):
        make_content(folder, content_file="nowhere.npy")
    with pytest.raises(ConfigError, match="itememb.npy does not exist"):
        make_content(folder, item_content="embedding")


def test_items_without_a_line_get_zeros_and_a_warning(folder, caplog):
    lines = item_lines(folder)
    kept = [(token, *cells) for token, cells in list(lines.items())[3:]]
    write_items(folder, ["item_id:token", "title:token_seq", "genre:token_seq"], kept)
    save_vectors(folder, np.ones((17, 2)))
    content = make_content(folder)
    zero = {t for t, v in zip(content.item_tokens[1:], content.vectors[1:]) if not v.any()}
    assert zero == set(list(lines)[:3])
    assert "3 of 20 items are not in" in caplog.text


def test_the_first_of_two_lines_of_an_item_counts(folder):
    lines = [(token, *cells) for token, cells in item_lines(folder).items()]
    lines.insert(3, lines[0])
    write_items(folder, ["item_id:token", "title:token_seq", "genre:token_seq"], lines)
    save_vectors(folder, np.arange(1.0, 22.0)[:, None])
    content = make_content(folder)
    for i, (token, *_) in enumerate(lines):
        if i != 3:
            assert content.vectors[content.item_tokens.index(token)] == i + 1


# --- preloaded features


def test_preloaded_features_land_on_recboles_ids(folder):
    tokens = sorted(item_lines(folder))
    rng = np.random.default_rng(1)
    vectors = {token: rng.normal(size=3).round(3) for token in tokens[2:]}
    with open(folder / "tiny" / "tiny.feature", "w") as file:
        file.write("iid:token\tvec:float_seq\n")
        file.writelines(f"{t}\t{' '.join(map(str, v))}\n" for t, v in vectors.items())
    settings = {
        "load_col": INTER | {"feature": ["iid", "vec"]},
        "additional_feat_suffix": ["feature"],
        "preload_weight": {"iid": "vec"},
        "content_field": "vec",
    }
    with pytest.raises(ConfigError, match=r"alias_of_item_id: \[iid\]"):
        make_content(folder, **settings)
    content = make_content(folder, alias_of_item_id=["iid"], **settings)
    assert content.source == "preload"
    for token, vector in zip(content.item_tokens[1:], content.vectors[1:].numpy()):
        assert np.allclose(vector, vectors.get(token, np.zeros(3)))


def test_a_preloaded_field_that_is_not_there_is_refused(folder):
    with pytest.raises(ConfigError, match="preload_weight"):
        make_content(folder, item_content="preload", content_field="vec")


# --- text


def test_text_vectors_have_the_cosines_of_tfidf(folder):
    lines = [(t, title + " " + title.split()[i % 3], genre)
             for i, (t, (title, genre)) in enumerate(item_lines(folder).items())]
    write_items(folder, ["item_id:token", "title:token_seq", "genre:token_seq"], lines)
    content = make_content(folder, item_content="text", content_dim=500)
    lines = item_lines(folder)
    terms = [" ".join(lines[token]).lower().split() for token in content.item_tokens[1:]]
    vocabulary = sorted(set(sum(terms, [])))
    holders = Counter(word for own in terms for word in set(own))
    tfidf = np.zeros((len(terms), len(vocabulary)))
    for i, own in enumerate(terms):
        for word, count in Counter(own).items():
            idf = np.log((1 + len(terms)) / (1 + holders[word])) + 1
            tfidf[i, vocabulary.index(word)] = (1 + np.log(count)) * idf
    vectors = content.vectors[1:].numpy()
    assert vectors.shape[1] < 500, "no more dimensions than words"
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors @ vectors.T, cosines(tfidf), atol=1e-4)


def test_text_content_has_the_dimensions_asked_for_and_repeats(folder, tmp_path):
    one = make_content(folder, item_content="text", content_dim=4)
    two = make_content(folder, item_content="text", content_dim=4, content_cache_dir=str(tmp_path))
    assert one.vectors.shape == (21, 4) and one.digest == two.digest
    assert torch.equal(one.vectors, two.vectors)


def test_ids_and_numbers_are_no_text_and_token_columns_are_one_term(folder, caplog):
    caplog.set_level("INFO")
    items = list(item_lines(folder))
    header = ["item_id:token", "asin:token", "price:float", "brand:token", "title:token_seq",
              "link:token_seq"]
    brands = ["Red", "Blue Sky"]
    lines = [(t, f"A{i}", str(i), brands[i % 2], "Red, (toy)", f"x{i}")
             for i, t in enumerate(items)]
    write_items(folder, header, lines)
    config = make_config(folder, Generative, load_col=INTER)
    item_file = ItemFile(config)
    assert text_module.choose_text_fields(item_file) == (["brand", "title"], ["asin", "link"])
    terms = text_module.item_terms(item_file, ["brand", "title"], np.array([0, 1, -1]))
    assert terms == [
        ["brand=red", "red", "toy"],
        ["brand=blue sky", "blue", "sky", "red", "toy"],
        [],
    ]
    make_content(folder, item_content="text")
    assert "['brand', 'title']" in caplog.text and "['asin', 'link']" in caplog.text


def test_an_item_with_empty_text_has_a_zero_vector_and_is_counted(folder, caplog):
    caplog.set_level("INFO")
    lines = [(t, *cells) for t, cells in item_lines(folder).items()]
    lines[4] = (lines[4][0], "", "")
    write_items(folder, ["item_id:token", "title:token_seq", "genre:token_seq"], lines)
    content = make_content(folder)
    assert content.source == "text"
    row = content.item_tokens.index(lines[4][0])
    assert not content.vectors[row].any()
    assert int(content.vectors.any(dim=1).sum()) == 19
    assert "1 of them without content" in caplog.text


@pytest.mark.parametrize("name", ["colour", "item_id", "price"])
def test_a_text_field_that_is_no_text_column_is_refused(folder, name):
    lines = [(t, *cells, "1.5") for t, cells in item_lines(folder).items()]
    header = ["item_id:token", "title:token_seq", "genre:token_seq", "price:float"]
    write_items(folder, header, lines)
    with pytest.raises(ConfigError, match=f"'{name}'.*title.*genre"):
        make_content(folder, item_content="text", text_fields=[name])


def test_text_fields_choose_the_text(folder):
    content = make_content(folder, item_content="text", text_fields="genre")
    lines = item_lines(folder)
    genres = [tuple(sorted(lines[token][1].split())) for token in content.item_tokens[1:]]
    same = torch.cdist(content.vectors[1:], content.vectors[1:]) < 1e-3
    for i, a in enumerate(genres):
        for j, b in enumerate(genres):
            assert bool(same[i, j]) == (a == b)


def test_text_asked_for_where_there_is_none_is_refused(folder):
    write_items(folder, ["item_id:token"], [(t,) for t in item_lines(folder)])
    with pytest.raises(ConfigError, match="text_fields.*collaborative"):
        make_content(folder, item_content="text")
    (folder / "tiny" / "tiny.item").unlink()
    with pytest.raises(ConfigError, match="tiny.item does not exist"):
        make_content(folder, item_content="text")


def test_quotes_in_titles_do_not_swallow_lines(folder):
    tokens = list(item_lines(folder))
    write_items(folder, ["item_id:token", "title:token_seq"],
                [(t, f'"word{i % 4} loose') for i, t in enumerate(tokens)])
    save_vectors(folder, np.arange(20.0)[:, None])
    content = make_content(folder)
    for i, token in enumerate(tokens):
        assert content.vectors[content.item_tokens.index(token)] == i


# --- sentence encoder


def test_sentence_content_without_the_extra_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"pip install recbole_gr\[text\]"):
        make_content(folder, item_content="sentence")


def test_word_vectors_of_a_package_need_no_other(folder, monkeypatch, tmp_path):
    """The package's own files are taken, never a download."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(ConfigError, match="text_encoder=wordllama.*pip install wordllama"):
        make_content(folder, item_content="sentence", text_encoder="wordllama")
    asked = []

    class Model:
        def embed(self, texts, norm):
            assert norm and all(texts)
            return np.stack([np.full(4, 0.5) for _ in texts])

    class WordLlama:
        @staticmethod
        def load(cache_dir, disable_download):
            asked.append((cache_dir, disable_download))
            if len(asked) == 1:
                raise FileNotFoundError("no weights")
            return Model()

    module = ModuleType("wordllama")
    module.__file__, module.WordLlama = str(tmp_path / "wordllama" / "__init__.py"), WordLlama
    monkeypatch.setitem(sys.modules, "wordllama", module)
    with pytest.raises(ConfigError, match="vectors cannot be loaded: no weights"):
        make_content(folder, item_content="sentence", text_encoder="wordllama")
    content = make_content(folder, item_content="sentence", text_encoder="wordllama")
    assert asked == [(tmp_path / "wordllama", True)] * 2
    assert content.source == "sentence" and content.vectors.shape[1] == 4


def test_sentences_reach_the_encoder_and_their_vectors_the_items(folder, monkeypatch):
    seen = {}

    class SentenceTransformer:
        def __init__(self, name, device=None):
            if name == "missing":
                raise OSError("no such model")

        def encode(self, texts, **options):
            assert options["normalize_embeddings"] and options["convert_to_numpy"]
            seen.update({text: np.array([len(text), i]) for i, text in enumerate(texts)})
            return np.stack([seen[text] for text in texts])

    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = SentenceTransformer
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    lines = [(t, *cells) for t, cells in item_lines(folder).items()]
    lines[0] = (lines[0][0], "", "a_b c")
    lines[1] = (lines[1][0], "", "")
    write_items(folder, ["item_id:token", "title:token_seq", "genre:token_seq"], lines)
    with pytest.raises(ConfigError, match="text_encoder='missing'"):
        make_content(folder, item_content="sentence", text_encoder="missing")
    content = make_content(folder, item_content="sentence", text_encoder="some")
    assert content.source == "sentence" and len(seen) <= 19
    for token, title, genre in lines:
        text = " ".join(
            f"{name}: {value.replace('_', ' ')}."
            for name, value in (("title", title), ("genre", genre)) if value
        )
        expected = seen[text] if text else np.zeros(2)
        assert np.array_equal(content.vectors[content.item_tokens.index(token)].numpy(), expected)


# --- collaborative


@pytest.mark.parametrize("name", ["tiny", "repeats"])
@pytest.mark.parametrize("max_length", [1, 5])
def test_collaborative_vectors_have_the_cosines_of_the_training_interactions(
    folder, name, max_length
):
    write_random_inter(folder, "repeats", 4)
    content = make_content(folder, name=name, item_content="collaborative", content_dim=500,
                           MAX_ITEM_LIST_LENGTH=max_length)
    # Slow reference: each user's sequence without the last two items, from the file. The first
    # two items of a short sequence are for training; a single item is no sequence.
    users = {}
    for line in (folder / name / f"{name}.inter").read_text().splitlines()[1:]:
        user, item, _, time = line.split("\t")
        users.setdefault(user, []).append((float(time), item))
    matrix = np.zeros((len(content.item_tokens), len(users)))
    for column, rows in enumerate(users.values()):
        if len(rows) > 1:
            for _, item in sorted(rows, key=lambda row: row[0])[: max(2, len(rows) - 2)]:
                matrix[content.item_tokens.index(item), column] = 1
    matrix /= np.sqrt(np.maximum(matrix.sum(axis=0), 1))
    vectors = content.vectors.numpy()
    assert content.source == "collaborative"
    assert np.allclose(vectors @ vectors.T, cosines(matrix), atol=1e-4)


def test_a_data_set_without_text_falls_back_to_collaborative_and_says_so(folder, caplog):
    write_items(folder, ["item_id:token", "asin:token"],
                [(t, f"A{t}") for t in item_lines(folder)])
    assert make_content(folder).source == "collaborative"
    assert "training interactions" in caplog.text
    (folder / "tiny" / "tiny.item").unlink()
    assert make_content(folder).source == "collaborative"


def test_a_column_of_a_few_labels_is_not_taken_for_text_unasked(tmp_path):
    write_tiny_dataset(tmp_path, "tiny", 60, 40, 0)
    lines = [(t, f"p{i % 3}") for i, t in enumerate(item_lines(tmp_path))]
    write_items(tmp_path, ["item_id:token", "period:token"], lines)
    assert make_content(tmp_path).source == "collaborative"
    assert make_content(tmp_path, item_content="text").source == "text"


# --- choice, cache, digest


def test_auto_prefers_vectors_then_preload_then_text(folder):
    assert make_content(folder).source == "text"
    with pytest.raises(ConfigError, match="preload"):
        make_content(folder, content_field="vec")
    save_vectors(folder, np.ones((20, 2)))
    assert make_content(folder, content_field="vec").source == "embedding"


def test_an_unknown_source_is_refused_with_the_nearest_name(folder):
    with pytest.raises(ConfigError, match="'embeding'.*embedding"):
        make_content(folder, item_content="embeding")


def test_computed_content_is_cached_by_its_inputs(folder, monkeypatch):
    first = make_content(folder, item_content="text", content_dim=4)

    def never(*arguments):
        raise AssertionError("computed in spite of the cache")

    with monkeypatch.context() as patch:
        patch.setattr(text_module, "tfidf_vectors", never)
        again = make_content(folder, item_content="text", content_dim=4)
        assert torch.equal(again.vectors, first.vectors) and again.digest == first.digest
        for change in ({"content_dim": 3}, {"seed": 1}, {"text_fields": ["genre"]}):
            with pytest.raises(AssertionError, match="cache"):
                make_content(folder, item_content="text", **({"content_dim": 4} | change))
    (cached,) = (folder / "content").glob("tiny-text-*.npz")
    cached.write_bytes(cached.read_bytes()[:-40])
    assert torch.equal(
        make_content(folder, item_content="text", content_dim=4).vectors, first.vectors
    )
    assert not list((folder / "content").glob(".*")), "no temporary files stay behind"


def test_vectors_that_were_changed_in_the_cache_are_made_anew(folder, caplog):
    first = make_content(folder, item_content="text", content_dim=4)
    (cached,) = (folder / "content").glob("tiny-text-*.npz")
    with np.load(cached) as file:
        arrays = dict(file)
    np.savez(cached, **{**arrays, "vectors": arrays["vectors"][[0, 2, 1, *range(3, 21)]]})
    again = make_content(folder, item_content="text", content_dim=4)
    assert torch.equal(again.vectors, first.vectors) and again.digest == first.digest
    assert "was changed; it is made again" in caplog.text
    with np.load(cached) as file:
        assert np.array_equal(file["vectors"], arrays["vectors"])


def test_the_digest_is_that_of_the_vectors_however_they_came_about(folder, monkeypatch):
    first = make_content(folder, item_content="text", content_dim=4)
    (cached,) = (folder / "content").glob("tiny-text-*.npz")
    cached.unlink()
    made = text_module.tfidf_vectors

    def doubled(*given):
        vectors, encoder = made(*given)
        return 2 * vectors, encoder

    monkeypatch.setattr(text_module, "tfidf_vectors", doubled)
    assert make_content(folder, item_content="text", content_dim=4).digest != first.digest


def test_the_digest_of_a_vector_file_follows_its_values(folder):
    save_vectors(folder, np.ones((20, 2)))
    one = make_content(folder)
    save_vectors(folder, np.ones((20, 2), dtype=np.float16))
    assert make_content(folder).digest == one.digest
    save_vectors(folder, np.full((20, 2), 2.0))
    assert make_content(folder).digest != one.digest


@pytest.mark.parametrize("name, source", [("Amazon_Beauty", "embedding"), ("ml-100k", "text")])
def test_real_data_sets_give_content(name, source, tmp_path):
    data = os.environ.get("RECBOLE_GR_DATA", os.path.join("..", "shared", "data"))
    if name != "ml-100k" and not os.path.isdir(os.path.join(data, name)):
        pytest.skip(f"{name} is not there")
    content = make_content(data, name=name, content_cache_dir=str(tmp_path), content_dim=16)
    assert content.source == source and content.vectors.any(dim=1)[1:].all()


def made_up_texts():
    draw = random.Random(0)  # the same numbers on every Python
    words = [f"word{draw.randrange(400)}" for _ in range(2000)]
    return [draw.choices(words, k=draw.randrange(3, 12)) for _ in range(300)]


def test_vectors_of_texts_are_the_same_bytes_with_every_release_of_the_libraries():
    vectors, _ = text_module.tfidf_vectors(made_up_texts(), 32, 7)
    assert vectors.shape == (300, 32)
    assert hashlib.sha256(vectors.tobytes()).hexdigest()[:16] == "0da329c9fa4b57d1"


def test_the_last_bits_of_linear_algebra_do_not_reach_the_vectors(monkeypatch):
    expected, _ = text_module.tfidf_vectors(made_up_texts(), 32, 7)
    exact = text_module._singular_vectors

    def of_another_release(*args):
        projected, components = exact(*args)
        noise = np.random.default_rng(1).uniform(-1e-13, 1e-13, projected.shape)
        return projected * (1 + noise), components

    monkeypatch.setattr(text_module, "_singular_vectors", of_another_release)
    vectors, _ = text_module.tfidf_vectors(made_up_texts(), 32, 7)
    assert np.array_equal(vectors, expected)


def test_a_table_of_sids_is_named_by_the_releases_that_learn_it(monkeypatch):
    tokenizer = RKMeans({"codebook_size": 4, "sid_levels": 2, "seed": 0}, 3)
    vectors = torch.arange(30.0).view(10, 3)
    content = item_content_module.ItemContent(vectors, "text", "digest", list("abcdefghij"))

    def name(**config):
        return pipeline._cache_name({"dataset": "d", **config}, tokenizer, content, {}, None)

    here = name()
    assert here == name() == name(device="cpu")
    assert here != name(device="cuda")
    monkeypatch.setattr(pipeline, "installed", lambda *names: dict.fromkeys(names, "0.1"))
    assert here != name()
