"""The same data under other names of its fields gives the same models, metrics and answers."""

import json

import pytest
import torch
from runs import RUNS, arguments, rest_slow

from recbole_gr import Recommender
from recbole_gr.commands.sid_features import sid_features
from recbole_gr.commands.tokenize import tokenize
from recbole_gr.quick_start import run_recbole_gr
from recbole_gr.serving.export import export

NAMES = {"user_id": "uid", "item_id": "product_id", "timestamp": "at", "rating": "stars"}
SETTINGS = {
    "USER_ID_FIELD": "uid",
    "ITEM_ID_FIELD": "product_id",
    "TIME_FIELD": "at",
    "RATING_FIELD": "stars",
    "LIST_SUFFIX": "_so_far",
    "ITEM_LIST_LENGTH_FIELD": "n_so_far",
    "NEG_PREFIX": "not_",
}


@pytest.fixture(scope="module")
def renamed_folder(tiny_folder, tmp_path_factory):
    """The data set `tiny` with other names in the headers of its files."""
    folder = tmp_path_factory.mktemp("renamed")
    (folder / "tiny").mkdir()
    for file in (tiny_folder / "tiny").iterdir():
        if file.suffix not in (".inter", ".item"):
            continue
        head, _, rest = file.read_text().partition("\n")
        for old, new in NAMES.items():
            head = head.replace(f"{old}:", f"{new}:")
        (folder / "tiny" / file.name).write_text(f"{head}\n{rest}")
    return folder


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "name", [*rest_slow("TIGER", "PIT", "IntRR", "R3VAE", "SASRec"), "SASRec-BPR", "Pop"]
)
def test_a_run_and_its_answers_do_not_depend_on_the_names(name, trained, renamed_folder):
    usual = trained(name)
    model, settings = RUNS[name]
    renamed = run_recbole_gr(cmd_args=arguments(model, renamed_folder, **settings, **SETTINGS))
    for part in ("best_valid_result", "test_result", "test_buckets", "sid_digest"):
        assert renamed[part] == usual[part]
    assert renamed["test_targets"] == usual["test_targets"]
    answers = []
    for result in (usual, renamed):
        recommender = Recommender.load(result["checkpoint"], show_progress=False)
        answers.append(recommender.recommend(users=["u1", "u7"], k=5, exclude_history=True))
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "tokenizer, settings",
    rest_slow(
        ("I2IRKMeans", {"i2i_epochs": 2}),
        ("LETTER", {"tokenizer_epochs": 2, "cf_epochs": 1, "rqvae_dim": 8}),
    ),
)
def test_tokenizers_that_read_interactions_learn_the_same(
    tokenizer, settings, tiny_folder, renamed_folder
):
    tables = []
    for folder, names in ((tiny_folder, {}), (renamed_folder, SETTINGS)):
        given = {
            "tokenizer": tokenizer, "codebook_size": 8, "content_dim": 8, "show_progress": False,
            "data_path": str(folder), "sid_dir": f"sid-{len(names)}", **settings, **names,
        }  # fmt: skip
        tables.append(tokenize("tiny", config_dict=given)[0])
    assert tables[0].digest() == tables[1].digest()


@pytest.mark.slow
def test_a_period_and_an_exported_program_do_not_depend_on_the_names(
    tiny_folder, renamed_folder, tmp_path
):
    model, settings = RUNS["TIGER"]
    period = {"continual_cuts": "[0.6,1.0]", "continual_period": 1}
    results = [
        run_recbole_gr(cmd_args=arguments(model, folder, **settings, **period, **names))
        for folder, names in ((tiny_folder, {}), (renamed_folder, SETTINGS))
    ]
    assert results[0]["test_result"] == results[1]["test_result"]
    for number, result in enumerate(results):
        export(result["checkpoint"], tmp_path / f"{number}.pt2", k=5)
    served = [json.loads((tmp_path / f"{number}.json").read_text()) for number in (0, 1)]
    assert served[0]["items"] == served[1]["items"]
    rows, lengths = torch.tensor([[3, 7, 0], [5, 0, 0]]), torch.tensor([2, 1])
    rows = torch.nn.functional.pad(rows, (0, served[0]["max_history"] - 3))
    answers = [
        torch.export.load(tmp_path / f"{number}.pt2").module()(rows, lengths) for number in (0, 1)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*answers))


def test_sid_features_are_fields_of_the_renamed_items(renamed_folder, tmp_path):
    settings = {"tokenizer": "RKMeans", "codebook_size": 8, "data_path": str(renamed_folder)}
    written = sid_features("tiny", tmp_path / "with_sids", config_dict={**settings, **SETTINGS})
    assert written["settings"]["load_col"]["item"] == ["product_id", "sid_1", "sid_2", "sid_3"]
    assert written["settings"]["load_col"]["inter"] == ["uid", "product_id", "stars", "at"]
