"""A new item is added by its text: what made the content of the training is kept with the model."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import RUNS, arguments, rest_slow
from tiny import write_tiny_dataset

from recbole_gr import Recommender
from recbole_gr.config import Config
from recbole_gr.data import create_dataset, data_preparation, item_content
from recbole_gr.data import tfidf as text
from recbole_gr.data.encoder import encoded_texts
from recbole_gr.data.item_file import ItemFile
from recbole_gr.errors import ConfigError
from recbole_gr.pipeline.new_items import content_rows
from recbole_gr.quick_start import run_recbole_gr
from recbole_gr.storage.checkpoint import load_checkpoint, save_checkpoint
from recbole_gr.storage.hashes import digest_of

WIDE = {"beam_size": 10_000}


@pytest.fixture
def content_of(tiny_folder, tmp_path, monkeypatch):
    """A function from settings to the content of `tiny` and the cells of its items."""
    monkeypatch.chdir(tmp_path)

    def content_of(folder=tiny_folder, **settings):
        given = {"data_path": str(folder), "content_dim": 8, "show_progress": False, **settings}
        config = Config("TIGER", "tiny", config_dict=given)
        content = item_content(config, data_preparation(config, create_dataset(config))[0]._dataset)
        file = ItemFile(config)
        cells = file.cells.set_index("item_id").loc[content.item_tokens[1:]]
        return content, {token: dict(row) for token, row in cells.iterrows()}

    return content_of


def same_rows(content, cells):
    again = encoded_texts(content.encoder, cells)
    return np.allclose(again, content.vectors[1:].numpy(), atol=1e-5)


@pytest.mark.parametrize("dim", [3, 8, 500])
def test_the_text_of_an_item_gives_its_content(dim, content_of):
    content, cells = content_of(content_dim=dim)
    assert content.source == "text" and same_rows(content, cells)


def test_texts_of_token_columns_give_their_content_too(content_of, tmp_path):
    folder = write_tiny_dataset(tmp_path / "data")
    path = folder / "tiny" / "tiny.item"
    head, *rows = path.read_text().splitlines()
    head = head.replace("title:token_seq", "title:token")
    rows = [row.replace("night", "Night, ") for row in rows]
    path.write_text("\n".join([head, *rows]) + "\n")
    content, cells = content_of(folder)
    assert same_rows(content, cells)


def test_vectors_from_the_cache_come_with_their_encoder(content_of, monkeypatch, caplog):
    first, cells = content_of()
    with monkeypatch.context() as patch:
        patch.setattr(text, "tfidf_vectors", None)  # nothing is computed
        assert same_rows(content_of()[0], cells)
    (kept,) = Path("saved/content").glob("*.encoder.pth")
    for spoil in (kept.unlink, lambda: kept.write_bytes(b"no"), lambda: None):
        spoil()  # an earlier version kept vectors alone
        again, _ = content_of()
        assert same_rows(again, cells) and torch.equal(again.vectors, first.vectors)
    # Vectors that another machine made along other axes.
    (file,) = Path("saved/content").glob("*.npz")
    vectors = np.load(file)["vectors"][:, ::-1].copy()
    sha256 = bytes.fromhex(digest_of("text", first.item_tokens, vectors))
    np.savez(file, vectors=vectors, sha256=np.frombuffer(sha256, np.uint8))
    assert content_of()[0].encoder["source"] == "text" and "made elsewhere" in caplog.text
    with pytest.raises(ConfigError, match="could not be made again; remove them"):
        encoded_texts(content_of()[0].encoder, cells)


def test_a_text_without_columns_counts_as_words_of_the_first_column_of_words(content_of):
    content, _ = content_of()
    plain, by_column, list_of_words = (
        encoded_texts(content.encoder, {"new": given})
        for given in ("Night, river!\n", {"title": "Night, river!"}, {"title": ["Night,", "river"]})
    )
    assert np.array_equal(plain, by_column) and np.array_equal(plain, list_of_words)
    with_genre = encoded_texts(content.encoder, {"new": {"title": "night", "genre": "drama"}})
    assert not np.allclose(with_genre, plain)
    unknown = encoded_texts(content.encoder, {"new": "night river zeppelin"})
    assert np.allclose(unknown, plain)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"new": "zeppelin"}, "text of 'new' says nothing to the model, as none of its words"),
        ({"old": "night", "new": ""}, "text of 'new' says nothing"),
        ({"new": {}}, "text of 'new' says nothing"),
        ({"new": {"titel": "night"}}, "column 'titel', .*did you mean 'title'.*'title', 'genre'"),
        ({"new": {"title": torch.zeros(2)}}, "title of 'new' is .*give text"),
    ],
)
def test_texts_that_cannot_be_encoded_are_refused(given, message, content_of):
    with pytest.raises(ConfigError, match=message):
        encoded_texts(content_of()[0].encoder, given)


def test_texts_and_vectors_may_come_together_in_their_order(content_of):
    content, cells = content_of()
    vectors = content.vectors
    rows = content_rows({"a": vectors[2], "b": cells[content.item_tokens[1]]}, content.encoder)
    assert torch.allclose(rows, vectors[[2, 1]], atol=1e-5)
    with pytest.raises(ConfigError, match="content of 'a' must be 8 finite"):
        content_rows({"a": torch.zeros(3), "b": "night"}, content.encoder)
    for odd in (None, ["night", "river"], object()):
        with pytest.raises(ConfigError, match="content of 'a' is .*; give its text"):
            content_rows({"a": odd}, content.encoder)


def test_sentences_are_encoded_by_the_encoder_of_the_training(content_of, monkeypatch):
    asked = []

    def vectors(texts, name, *_):
        asked.append((name, texts))
        return np.array([[len(line), line.count("a") + 1] for line in texts], dtype=np.float32)

    monkeypatch.setattr(text, "sentence_vectors", vectors)
    content, cells = content_of(item_content="sentence", text_encoder="some/encoder")
    assert same_rows(content, cells) and asked[-1] == ("some/encoder", asked[0][1])
    encoded_texts(content.encoder, {"new": "a_b"})
    assert asked[-1][1] == ["title: a b."]


@pytest.mark.parametrize(
    "source, message",
    [
        ("embedding", "item_content=embedding; give a vector of 5 numbers, as a line of the con"),
        ("collaborative", "item_content=collaborative; give a vector of 8 numbers.*has none"),
    ],
)
def test_a_model_trained_without_texts_says_which_vectors_it_needs(source, message, content_of):
    np.save("vectors.npy", np.ones((40, 5)))
    content, _ = content_of(item_content=source, content_file="vectors.npy")
    with pytest.raises(ConfigError, match=message):
        encoded_texts(content.encoder, {"new": "night"})


@pytest.mark.parametrize("name", rest_slow("TIGER", "PIT"))
def test_an_item_is_added_by_its_text_as_by_the_content_of_that_text(name, recommender, trained):
    by_text, by_vector = recommender(name, **WIDE), recommender(name, **WIDE)
    content = item_content(by_text.config, by_text.dataset)
    words = {"title": "night river", "genre": "drama"}
    by_text.add_items({"new": words})
    by_vector.add_items({"new": encoded_texts(content.encoder, {"new": words})[0]})
    answers = [own.recommend(["u1"], k=41) for own in (by_text, by_vector)]
    assert answers[0] == answers[1] and "new" in answers[0][0].items
    by_text.recommend(histories=[["new", "i3"]], k=3)
    with pytest.raises(ConfigError, match="'winter garden' is no dict of texts or vectors"):
        by_text.add_items("winter garden")


@pytest.mark.parametrize("name", rest_slow("TIGER", "PIT"))
def test_what_new_items_need_goes_where_the_checkpoint_goes(
    name, tiny_folder, tmp_path, monkeypatch
):
    """On another machine there are the checkpoint and the data set alone."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    model, settings = RUNS[name]
    made = run_recbole_gr(cmd_args=arguments(model, tiny_folder, **settings))["checkpoint"]
    there = tmp_path / "there"
    there.mkdir()
    shutil.move(here / made, there / "moved.pth")
    shutil.rmtree(here / "saved")
    monkeypatch.chdir(there)
    shutil.copytree(tiny_folder, "dataset")
    monkeypatch.setattr(text, "tfidf_vectors", None)
    moved = Recommender.load("moved.pth", data_path="dataset", show_progress=False)
    moved.add_items({"new": "night river"})
    assert moved.item_tokens[-1] == "new"


def test_a_checkpoint_without_encoder_says_so(trained, tmp_path):
    result = trained("TIGER")
    state = load_checkpoint(result["checkpoint"])
    assert isinstance(state["content"]["terms"], str)  # not a value per term
    del state["content"]
    save_checkpoint(tmp_path / "old.pth", state)
    old = Recommender.load(tmp_path / "old.pth", show_progress=False)
    with pytest.raises(ConfigError, match="'new' has a text.*earlier version.*vector"):
        old.add_items({"new": "night"})
    vectors = item_content(old.config, old.dataset).vectors
    old.add_items({"new": vectors[1] + 1e-4})  # vectors still do
    assert old.item_tokens[-1] == "new"


@pytest.mark.parametrize("key", ["columns", "separator", "terms", "idf", "components", "source"])
def test_a_checkpoint_whose_encoder_lacks_a_part_is_refused(key, trained, tmp_path):
    state = load_checkpoint(trained("TIGER")["checkpoint"])
    del state["content"][key]
    save_checkpoint(tmp_path / "part.pth", state)
    with pytest.raises(ConfigError, match=rf"part\.pth.* lacks content\.{key}"):
        Recommender.load(tmp_path / "part.pth")


def test_a_new_item_has_a_name(recommender):
    with pytest.raises(ConfigError, match="an item needs a token"):
        recommender("TIGER").add_items({"": "winter garden"})


def test_a_vector_of_another_length_is_named_by_its_item(recommender):
    with pytest.raises(ConfigError, match="the content of 'new' must be 8 finite numbers.*has 3"):
        recommender("TIGER").add_items({"new": [1.0, 2.0, 3.0]})
