"""Runs over periods that start from SIDs, tokenizers and vectors which exist already."""

from pathlib import Path

import numpy as np
import pytest
import torch
from runs import SMALL

from recbole_gr.config import Config
from recbole_gr.continual.given import content_of_all, given_table
from recbole_gr.continual.runner import ContinualRun
from recbole_gr.data.prepare import create_dataset
from recbole_gr.errors import ConfigError
from recbole_gr.quick_start import run_recbole_gr
from recbole_gr.sid.table import SIDTable

N_ITEMS, WIDTH, CUTS = 24, 4, [1 / 3, 2 / 3, 1.0]
TOOLS = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def settings(tmp_path):
    """A log of 40 users whose items have no texts: items 18 to 20 arrive in period 1, the last ones
    in period 2. Vectors of every period and SIDs of the first lie beside it."""
    folder = tmp_path / "data" / "bare"
    folder.mkdir(parents=True)
    arrives = [0] * 18 + [1] * 3 + [2] * 3
    rows = []
    for period in range(3):
        known = [i for i in range(N_ITEMS) if arrives[i] <= period]
        for user in range(40):
            for n in range(4):
                item = known[(5 * user + 7 * n + 11 * period) % len(known)]
                rows.append((1000 * period + 40 * n + user, user, item))
    head = "user_id:token\titem_id:token\ttimestamp:float\n"
    lines = [f"u{user}\ti{item}\t{time}" for time, user, item in rows]
    (folder / "bare.inter").write_text(head + "\n".join(lines) + "\n")
    names = "\n".join(f"i{item}" for item in range(N_ITEMS))
    (folder / "bare.item").write_text(f"item_id:token\n{names}\n")
    rng = np.random.default_rng(0)
    for period in range(3):
        vectors = rng.normal(size=(N_ITEMS, WIDTH)) * (np.asarray(arrives)[:, None] <= period)
        np.save(folder / f"cf{period}.npy", vectors.astype(np.float32))
    codes = np.stack([np.arange(18) % 6, np.arange(18) // 6, np.zeros(18), np.zeros(18)], 1)
    np.save(folder / "sid.npy", codes.astype(np.int64))
    return {
        **SMALL, "epochs": 1, "data_path": str(tmp_path / "data"), "continual_cuts": CUTS,
        "continual_cf_files": [f"cf{period}.npy" for period in range(3)],
        "continual_start_sids": "sid.npy", "continual_dir": str(tmp_path / "continual"),
        "checkpoint_dir": str(tmp_path / "saved"), "result_dir": str(tmp_path / "results"),
        "content_cache_dir": str(tmp_path / "content"),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "tokenizer_epochs": 300, "tokenizer_learning_rate": 0.01, "continual_epochs": 4,
        "tokenizer_batch_size": 24, "tokenizer_warmup_epochs": 2, "tokenizer_evaluate_every": 100,
        "rqvae_dim": WIDTH, "rqvae_hidden": [32], "codebook_size": 6, "continual_suffix_size": 24,
        "sid_gate": "off",
    }  # fmt: skip


def test_files_beside_the_data_are_found_by_their_names(settings):
    config = Config("DACT", "bare", config_dict=settings)
    folder = Path(settings["data_path"], "bare")
    assert config["continual_start_sids"] == str(folder / "sid.npy")
    assert config["continual_cf_files"] == [str(folder / f"cf{n}.npy") for n in range(3)]
    other = Config("DACT", "bare", config_dict={**settings, "continual_start_sids": "absent.npy"})
    assert other["continual_start_sids"] == "absent.npy"


def test_a_file_with_fewer_rows_than_there_are_items_is_of_the_first_lines(settings):
    config = Config("DACT", "bare", config_dict=settings)
    path = config["continual_start_sids"]
    tokens = ["[PAD]", "i7", "i3", "i17"]
    table = given_table(config, path, tokens)
    assert table.codes[1:].tolist() == [[1, 1, 0, 0], [3, 0, 0, 0], [5, 2, 0, 0]]
    with pytest.raises(ConfigError, match="does not cover 1 of 2 items, first 'i20'"):
        given_table(config, path, ["[PAD]", "i7", "i20"])


def test_without_texts_an_item_has_the_vector_of_the_period_in_which_it_arrives(settings):
    files = Config("DACT", "bare", config_dict=settings)["continual_cf_files"]
    own = {k: v for k, v in settings.items() if "cf_files" not in k and "start" not in k}
    own |= {"continual_period": 2, "tokenizer": "DACT"}
    config = Config("TIGER", "bare", config_dict=own, other_models=["DACT"])
    train = create_dataset(config).build()[0]
    assert train.items_so_far == [18, 21, 24]
    content = content_of_all(config, train, files)
    tables = [np.load(file) for file in files]
    for token, vector in zip(content.item_tokens[1:], content.vectors[1:]):
        number = int(token[1:])
        period = 0 if number < 18 else 1 if number < 21 else 2
        assert vector.tolist() == tables[period][number].tolist()
    with pytest.raises(ConfigError, match="continual_cf_files"):
        content_of_all(config, train)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"continual_sid_files": {"a b": ["x", "y"]}}, "the name 'a b' must be a word"),
        ({"continual_sid_files": {"mine": ["x"]}}, "'mine' must be a list of files"),
        (
            {"tokenizer": "RKMeans", "continual_tokenizer": "frozen"},
            "can be fitted to SIDs, DACT or LETTER",
        ),
        ({"continual_start_sids": "absent.npy"}, "start_sids: .*absent.npy does not exist"),
        ({"continual_start_tokenizer": "absent.pth"}, "there is no file 'absent.pth'"),
    ],
)
def test_a_start_that_cannot_be_used_is_refused_before_anything_is_trained(
    settings, change, message
):
    if "continual_sid_files" in change:
        change = {**change, "continual_tokenizer": "files"}
    keys = ("rqvae", "cf_", "continual_epochs", "tokenizer_")
    if "tokenizer" in change:
        settings = {k: v for k, v in settings.items() if not k.startswith(keys)}
    with pytest.raises(ConfigError, match=message):
        run_recbole_gr("DACT", "bare", config_dict={**settings, **change})
    assert not list(Path(settings["continual_dir"]).rglob("period-*"))


@pytest.mark.slow
def test_a_learned_chain_goes_on_from_given_sids_and_from_its_own_tokenizer(settings, tmp_path):
    outcome = run_recbole_gr(
        "DACT", "bare", config_dict={**settings, "continual_tokenizer": "frozen,dact"}
    )
    folder = Path(outcome["folder"])
    tokens = ["[PAD]", *(f"i{n}" for n in range(18))]
    given = given_table(Config("DACT", "bare", config_dict=settings),
                        str(tmp_path / "data" / "bare" / "sid.npy"), tokens)  # fmt: skip
    start = SIDTable.load(folder / "period-0" / "start.npz")
    assert sorted(start.codes[1:].tolist()) == sorted(given.codes[1:].tolist())
    churn = {(r["period"], r["tokenizer"]): r["churn"] for r in outcome["results"]}
    assert churn[1, "frozen"]["raw_any"] == churn[2, "frozen"]["since_start"] == 0
    assert churn[1, "frozen"]["served"][0] < 0.2  # what the tokenizer was not fitted to
    again = {
        **settings, "continual_start_tokenizer": str(folder / "period-0" / "start.tokenizer.pth"),
        "continual_dir": str(tmp_path / "again"),
    }  # fmt: skip
    other = run_recbole_gr("DACT", "bare", config_dict={**again, "continual_last": 1})
    for period, name in ((0, "start.npz"), (1, "dact.npz")):
        files = (Path(o["folder"], f"period-{period}", name) for o in (outcome, other))
        assert len({SIDTable.load(file).digest() for file in files}) == 1


@pytest.mark.skipif(not TOOLS.is_dir(), reason="the published Tools tables are not beside this")
@pytest.mark.slow
def test_the_published_periods_can_be_run_by_the_name_of_the_data_set_alone(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    run = ContinualRun(["DACT"], "Amazon_Tools_DACT", _given(data_path=str(TOOLS)))
    assert run.n_periods == 5 and len(run.config["continual_cf_files"]) == 5
    config, train = run._data(0)
    table = given_table(run.config, run.config["continual_start_sids"],
                        [str(t) for t in train.field2id_token[train.iid_field]])  # fmt: skip
    published = np.load(run.config["continual_start_sids"])
    assert table.n_items - 1 == 9_571  # 39 items have no interaction of a user who takes part
    rows = [int(token) - 1 for token in train.field2id_token[train.iid_field][1:]]
    assert torch.equal(table.codes[1:], torch.from_numpy(published[rows].astype(np.int64)))


def _given(**settings):
    from recbole_gr.config.user_settings import UserSettings

    return UserSettings.read(None, settings, None)
