"""Stage 1 of a run is one value, made in one way, and files that are made once."""

import json

import pytest
import torch
from tiny import write_tiny_dataset

from recbole_gr.config import Config
from recbole_gr.data import prepared_data
from recbole_gr.data.prepare import training_split
from recbole_gr.errors import ConfigError
from recbole_gr.pipeline.item_sids import ItemSIDs, item_sids, learned_sids
from recbole_gr.quality.measures import QualityReport
from recbole_gr.storage.cache import cached
from recbole_gr.storage.checkpoint import plain
from recbole_gr.storage.hashes import digest_of


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {
        "data_path": str(write_tiny_dataset(tmp_path / "data")), "codebook_size": 4,
        "show_progress": False,
    }  # fmt: skip
    return lambda **other: Config("TIGER", "tiny", config_dict={**settings, **other})


def test_the_split_of_tokenizers_is_the_one_that_a_model_trains_on(config):
    made, split = prepared_data(config())[1][0]._dataset, training_split(config())
    for field in split.inter_feat.columns:
        assert torch.equal(made.inter_feat[field], split.inter_feat[field])
    table = item_sids(config(), made).table
    assert learned_sids(config(sid_dir="elsewhere")).table.digest() == table.digest()


def test_another_process_gets_the_same_value(config):
    sids = learned_sids(config())
    torch.save(sids.to_plain(), "sent.pth")
    again = ItemSIDs.of_plain(torch.load("sent.pth", weights_only=True))
    assert torch.equal(again.content.vectors, sids.content.vectors)
    assert again.content.item_tokens == sids.content.item_tokens
    assert again.table.digest() == sids.table.digest()
    assert plain(again.report.to_dict()) == plain(sids.report.to_dict())
    assert again.report.to_text() == sids.report.to_text()


def test_a_report_comes_back_from_json(config):
    report = learned_sids(config()).report
    report.to_json("report.json")
    again = QualityReport.of_dict(json.loads(open("report.json").read()))
    assert again.to_text() == report.to_text() and again.group_sizes == report.group_sizes


def test_collapsed_sids_are_learned_for_judging_and_refused_for_a_recommender(config):
    strict = {"codebook_size": 6, "sid_levels": 2, "sid_min_distinct": 1.0}
    assert learned_sids(config(**strict)).report.before_policy["distinct"] < 36
    with pytest.raises(ConfigError, match="collapsed"):
        item_sids(config(**strict))
    assert item_sids(config(**strict, sid_gate="off"))


@pytest.fixture
def number(tmp_path):
    """A number kept in a file, and how often it was made."""
    made = []

    def load(path):
        try:
            return int(path.read_text())
        except ValueError as error:
            raise ConfigError(f"{path} is damaged") from error

    def number(folder="kept"):
        def make():
            made.append(7)
            return 7

        def save(path, value):
            path.write_text(str(value))

        return cached(tmp_path / folder / "seven", load, make, save, "give another folder")

    return number, made, tmp_path / "kept/seven"


def test_what_is_kept_is_made_once_and_again_only_where_it_is_damaged(number, caplog):
    get, made, file = number
    assert get() == get() == 7 and made == [7]
    file.write_text("seven")
    assert get() == 7 and made == [7, 7] and file.read_text() == "7"
    assert f"{file} is damaged; it is made again" in caplog.text


def test_nothing_is_made_where_it_cannot_be_kept(number, tmp_path):
    get, made, _ = number
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="Give another folder"):
        get("file")
    assert not made


def test_a_digest_tells_apart_what_is_made_of_other_parts_and_no_order_of_keys():
    rows = torch.arange(6)
    parts = [
        (1,), ("1",), (1.0,), (None,), (), (1, 2), ([1, 2],), ("12",), (["1", "2"],), (["12"],),
        (rows,), (rows.float(),), (rows.view(2, 3),), (rows, None), ({"a": 1},), ({"a": "1"},),
        ({"a": 1, "b": 2},), ({"a": 2, "b": 1},), ({"a": rows},), ([rows],), (["a", 1],),
    ]  # fmt: skip
    assert len({digest_of(*part) for part in parts}) == len(parts)
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of(rows) == digest_of(rows.numpy())
