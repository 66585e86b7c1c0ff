"""A checkpoint alone, with its data set, gives back configuration, splits, SIDs and model."""

import shutil

import pytest
import torch
from runs import RUNS

from recbole_gr import load_data_and_model, registry
from recbole_gr.errors import ConfigError
from recbole_gr.serving.restore import restored_config
from recbole_gr.storage.checkpoint import load_checkpoint, plain_config


@pytest.mark.parametrize("name", RUNS)
def test_a_restored_model_has_the_metrics_of_its_run(name, trained, monkeypatch):
    result = trained(name)
    # Nothing that was learned for the run is needed again.
    monkeypatch.setattr("recbole_gr.tokenizer.base.Tokenizer.fit", None)
    monkeypatch.setattr("recbole_gr.data.content.item_content", None)
    config, model, dataset, train, valid, test = load_data_and_model(
        result["checkpoint"], show_progress=False
    )
    assert config["model"] == result["model"] and not model.training
    assert dataset.item_num == 41 and len(train._dataset) + 2 * 60 == len(dataset)
    trainer = registry.get_trainer(config, config.model_class)(config, model)
    for loader, metrics in ((valid, "best_valid_result"), (test, "test_result")):
        assert dict(trainer.evaluate(loader, load_best_model=False)) == result[metrics]


@pytest.mark.parametrize("name", RUNS)
def test_a_restored_configuration_is_that_of_the_run(name, trained):
    result = trained(name)
    state = load_checkpoint(result["checkpoint"])
    config = restored_config(state, "file")
    assert plain_config(config) == state["config"]


def test_the_restored_sids_are_those_of_the_training_and_not_made_anew(trained, tmp_path):
    file = trained("TIGER")["checkpoint"]
    state = load_checkpoint(file)
    model = load_data_and_model(file, codebook_size=5, sid_dir=str(tmp_path))[1]
    assert torch.equal(model.codes, state["state_dict"]["codes"])
    assert model.sid_table().digest() == state["sid"]["digest"]
    state["state_dict"]["codes"][3, 0] = (state["state_dict"]["codes"][3, 0] + 1) % 8
    torch.save(state, tmp_path / "changed.pth")
    with pytest.raises(ConfigError, match=r"changed\.pth.*hash"):
        load_data_and_model(tmp_path / "changed.pth")


def test_a_checkpoint_without_a_table_learns_the_same_or_is_refused(trained, tmp_path):
    result = trained("TIGER")
    state = load_checkpoint(result["checkpoint"])
    del state["sid"], state["data"]
    torch.save(state, tmp_path / "older.pth")
    codes = load_data_and_model(tmp_path / "older.pth")[1].codes
    assert torch.equal(codes, state["state_dict"]["codes"])
    with pytest.raises(ConfigError, match="other SIDs"):
        load_data_and_model(tmp_path / "older.pth", codebook_size=5, sid_dir=str(tmp_path))


@pytest.fixture
def changed_data(tiny_folder, tmp_path):
    """A function from a change of the lines of `tiny.inter` to a folder with the changed data."""

    def write(change):
        shutil.copytree(tiny_folder / "tiny", tmp_path / "tiny")
        path = tmp_path / "tiny" / "tiny.inter"
        head, *lines = path.read_text().splitlines()
        path.write_text("\n".join([head, *change(lines)]) + "\n")
        return str(tmp_path)

    return write


def without_user(lines):
    return [line for line in lines if not line.startswith("u7\t")]


CHANGES = {
    "new item": (lambda lines: [*lines, "u1\ti99\t3\t9999"], "1 are new, such as 'i99'"),
    "no item": (
        lambda lines: [line for line in lines if "\ti3\t" not in line],
        "1 are missing.*'i3'",
    ),
    "order": (lambda lines: lines[::-1], "the same items in another order"),
    "no user": (without_user, "other users.*60 users in training, 59 now"),
    "other user": (
        lambda lines: [line.replace("u7\t", "v7\t") for line in lines],
        "60 users, but not the same",
    ),
}


@pytest.mark.parametrize("name", ["TIGER", "SASRec", "Pop"])
@pytest.mark.parametrize("change", CHANGES)
def test_other_data_are_refused_with_what_differs(name, change, trained, changed_data):
    make, message = CHANGES[change]
    with pytest.raises(ConfigError, match=message) as error:
        load_data_and_model(trained(name)["checkpoint"], data_path=changed_data(make))
    assert trained(name)["checkpoint"] in str(error.value) and "data_path" in str(error.value)


def test_later_interactions_of_the_same_users_and_items_are_welcome(trained, changed_data):
    folder = changed_data(lambda lines: [*lines, "u1\ti9\t3\t999999"])
    dataset = load_data_and_model(trained("TIGER")["checkpoint"], data_path=folder)[2]
    before = load_data_and_model(trained("TIGER")["checkpoint"])[2]
    assert len(dataset) == len(before) + 1


def test_code_named_by_a_file_is_not_imported_unasked(trained, tmp_path):
    state = load_checkpoint(trained("TIGER")["checkpoint"])
    for key, value in (("tokenizer", "evil:Tokenizer"), ("backbone", "evil:Backbone")):
        changed = {**state, "config": {**state["config"], key: value}}
        torch.save(changed, tmp_path / "file.pth")
        with pytest.raises(ConfigError, match=f"file.pth.*{key}='{value}'"):
            load_data_and_model(tmp_path / "file.pth")
    state["config"]["model"] = "Mine"
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(ConfigError, match=r"'Mine'.*model=package\.module:Class"):
        load_data_and_model(tmp_path / "file.pth")
    with pytest.raises(ConfigError, match="is of model 'Mine', not 'SASRec'"):
        load_data_and_model(tmp_path / "file.pth", model="SASRec")


def test_settings_that_do_not_fit_the_weights_are_refused(trained):
    file = trained("TIGER")["checkpoint"]
    with pytest.raises(ConfigError, match="do not fit"):
        load_data_and_model(file, hidden_size=24)
    with pytest.raises(ConfigError, match="Unknown key 'beam_sise'.*beam_size"):
        load_data_and_model(file, beam_sise=20)
    with pytest.raises(ConfigError, match="no folder"):
        load_data_and_model(file, data_path="nowhere")
    assert load_data_and_model(file, beam_size=30)[1].beam_size == 30


def test_recboles_documented_call_gives_its_six_parts_in_its_order(trained):
    file = trained("SASRec")["checkpoint"]
    config, model, dataset, *loaders = load_data_and_model(model_file=file)
    assert config["model"] == type(model).__name__ == "SASRec" and dataset.item_num == 41
    sizes = [len(loader._dataset) for loader in loaders]
    by_place = load_data_and_model(file)
    assert sizes == [len(loader._dataset) for loader in by_place[3:]] and sizes[0] > sizes[1] == 60
    for own, other in zip(model.parameters(), by_place[1].parameters()):
        assert torch.equal(own, other)
    assert load_data_and_model(checkpoint=file, topk=[10])[0]["topk"] == [10]
    for wrong in ({}, {"checkpoint": file, "model_file": file}):
        with pytest.raises(ConfigError, match="one checkpoint.*model_file"):
            load_data_and_model(**wrong)
