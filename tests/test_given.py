"""Claims about what a user has set: parsed once, with the source of each key."""

import pickle

import pytest

from recbole_gr.config import Config
from recbole_gr.config.user_settings import UserSettings


@pytest.fixture
def given(tmp_path):
    for name, text in (("a", "epochs: 1\nseed: 1\n"), ("b", "epochs: 2\nexclude_history: no\n")):
        (tmp_path / f"{name}.yaml").write_text(text)
    files = [str(tmp_path / "a.yaml")]
    named = f"--config_files={tmp_path / 'b.yaml'}"
    return UserSettings.read(files, {"topk": "[5]"}, ["--epochs=3", "--seed", "4", named])


def test_each_key_knows_its_source(given, tmp_path):
    sources = {key: str(given.source_of(key)) for key in given.settings}
    assert sources == {
        "epochs": "command line",
        "seed": "command line",
        "topk": "config_dict",
        "exclude_history": f"file '{tmp_path / 'b.yaml'}'",
    }
    assert given.source_of("exclude_history").file == str(tmp_path / "b.yaml")
    assert given.source_of("beam_size") is None


def test_files_lose_to_what_is_set_beside_them(given, tmp_path):
    assert given.files == [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
    assert given.in_files == {"epochs": 2, "seed": 1, "exclude_history": False}
    assert given.direct == {"topk": [5], "epochs": 3, "seed": 4}
    assert given.get("epochs") == 3 and given.get("beam_size") is None


def test_a_program_may_add_settings_that_win_over_all(given):
    more = given.with_settings({"epochs": 9})
    assert more.get("epochs") == 9 and given.get("epochs") == 3


def test_it_travels_to_other_processes_and_makes_the_same_configuration(given, tiny_folder):
    path = {"data_path": str(tiny_folder)}
    sent = pickle.loads(pickle.dumps(given.with_settings({**path, "valid_metric": "NDCG@5"})))
    config = Config("TIGER", "tiny", given=sent)
    assert (config["epochs"], config["seed"], config["exclude_history"]) == (3, 4, False)
    assert config.given.source_of("epochs").name == "command line"
