"""create_dataset and data_preparation: the right classes, no pickles, clear errors."""

import pickle

import pytest
import recbole.data.dataset as recbole_datasets
import torch
from data_helpers import Generative, make_config
from recbole.data import data_preparation as recbole_data_preparation
from recbole.data import dataloader
from tiny import write_tiny_dataset

from recbole_gr.data import (
    GenerativeDataset,
    GenerativeTrainLoader,
    create_dataset,
    data_preparation,
)
from recbole_gr.data.evaluation_loader import GenerativeEvalLoader
from recbole_gr.data.verbatim import exact
from recbole_gr.errors import ConfigError

pytestmark = pytest.mark.usefixtures("quiet_argv")
HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"


def write_inter(folder, text, name="odd"):
    (folder / name).mkdir(exist_ok=True)
    (folder / name / f"{name}.inter").write_text(text)
    return folder


@pytest.mark.parametrize(
    "model, dataset_class, train_class",
    [
        ("BPR", "Dataset", "TrainDataLoader"),
        ("MultiVAE", "Dataset", "UserDataLoader"),
    ],
)
def test_recboles_models_get_recboles_classes(tiny_folder, model, dataset_class, train_class):
    negatives = {"distribution": "uniform", "sample_num": 1}
    config = make_config(tiny_folder, model, train_neg_sample_args=negatives)
    dataset = create_dataset(config)
    assert type(dataset) is exact(getattr(recbole_datasets, dataset_class))
    train, valid, test = data_preparation(config, dataset)
    assert type(train) is getattr(dataloader, train_class)
    assert type(valid) is type(test) is dataloader.FullSortEvalDataLoader


def test_batches_of_recboles_sequential_models_are_recboles_own_to_the_bit(tiny_folder):
    config = make_config(tiny_folder, "SASRec")
    ours = data_preparation(config, create_dataset(config))
    plain = recbole_datasets.SequentialDataset(config)
    theirs = recbole_data_preparation(config, plain)
    assert type(ours[0]._dataset) is GenerativeDataset
    for mine, other in zip(ours, theirs, strict=True):
        assert type(mine) is type(other) and len(mine) == len(other)
        for a, b in zip(mine, other, strict=True):
            a, b = (x[0] if isinstance(x, tuple) else x for x in (a, b))
            assert set(a.columns) == set(b.columns)
            assert all(torch.equal(a[name], b[name]) for name in a.columns)


def test_a_model_with_a_data_set_class_of_its_own_gets_that(tiny_folder):
    config = make_config(
        tiny_folder,
        "DIEN",
        metrics=["AUC"],
        valid_metric="AUC",
        eval_args={"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "labeled"},
    )
    assert type(create_dataset(config)) is exact(recbole_datasets.DIENDataset)


def test_generative_models_get_our_loaders(tiny_folder):
    config = make_config(tiny_folder)
    dataset = create_dataset(config)
    train, valid, test = data_preparation(config, dataset)
    assert type(dataset) is GenerativeDataset and type(train) is GenerativeTrainLoader
    assert type(valid) is type(test) is GenerativeEvalLoader
    assert len(valid.dataset) == len(test.dataset) == dataset.user_num - 1


@pytest.mark.parametrize("batch_size", [1, 7, 20, 59, 60, 100])
def test_evaluation_goes_by_length_through_the_rows_of_recbole(tiny_folder, batch_size):
    config = make_config(tiny_folder, eval_batch_size=batch_size, MAX_ITEM_LIST_LENGTH=6)
    test = data_preparation(config, create_dataset(config))[2]
    rows, widths = [], []
    for batch, history, row, item in test:
        lengths, lists = batch["item_length"], batch["item_id_list"]
        assert history is None and row.tolist() == list(range(len(batch)))
        assert torch.equal(item, batch["item_id"]) and lists.shape[1] == lengths.max()
        widths.append((int(lengths.min()), int(lengths.max())))
        for user, length, items, target in zip(batch["user_id"], lengths, lists, item):
            rows.append((int(user), int(target), items[:length].tolist()))
    theirs = dataloader.FullSortEvalDataLoader(config, test._dataset, None)
    expected = [
        (int(user), int(target), items[:length].tolist())
        for batch, *_ in theirs
        for user, length, items, target in zip(
            batch["user_id"], batch["item_length"], batch["item_id_list"], batch["item_id"]
        )
    ]
    assert sorted(rows) == sorted(expected) and len(test) == len(theirs) == len(widths)
    falling = widths[::2] + widths[1::2][::-1]  # the longest first, then from both ends
    assert all(first[0] >= second[1] for first, second in zip(falling, falling[1:]))


def test_the_order_and_padding_of_users_change_no_ranking(parts):
    """Of a trained model: metrics, and each user's ranked items."""
    trainer, train, _, test = parts(eval_batch_size=16, MAX_ITEM_LIST_LENGTH=20)[1:]
    trainer._train_epoch(train, 0)
    plain = dataloader.FullSortEvalDataLoader(trainer.config, test._dataset, None)
    found = []
    for loader in (test, plain):
        ranked = {}
        for batch, *_ in loader:
            items, _ = trainer.model.eval().generate(batch, 10, 20)
            ranked |= dict(zip(batch["user_id"].tolist(), items.tolist()))
        found.append((trainer.evaluate(loader, load_best_model=False), ranked))
    assert found[0] == found[1] and len(found[0][1]) == 60


def test_pickled_caches_are_neither_read_nor_written(tiny_folder, tmp_path, caplog):
    config = make_config(
        tiny_folder, checkpoint_dir=str(tmp_path), save_dataset=True, save_dataloaders=True
    )
    names = ["tiny-GenerativeDataset.pth", "tiny-SequentialDataset.pth",
             "tiny-for-Generative-dataloader.pth"]
    for name in names:
        (tmp_path / name).write_bytes(pickle.dumps("never to be loaded"))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    data_preparation(config, create_dataset(config))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert "save_dataset" in caplog.text and "save_dataloaders" in caplog.text


def test_no_interactions_file_names_the_path_expected(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing/nothing\.inter.*data_path"):
        create_dataset(make_config(tmp_path, name="nothing"))


@pytest.mark.parametrize("model", ["Pop", "SASRec", Generative])
def test_a_missing_item_field_names_the_columns_found(tmp_path, model):
    write_inter(tmp_path, HEADER.replace("item_id", "product") + "u\ti\t1\t1\n")
    with pytest.raises(ConfigError, match=r"'item_id' \(ITEM_ID_FIELD\).*'product'"):
        create_dataset(make_config(tmp_path, model, "odd"))


def test_a_missing_time_field_names_the_columns_found(tmp_path):
    write_inter(tmp_path, HEADER.replace("timestamp", "when") + "u\ti\t1\t1\n")
    with pytest.raises(ConfigError, match=r"'timestamp' \(TIME_FIELD\).*'when'"):
        create_dataset(make_config(tmp_path, name="odd"))


def test_a_general_model_needs_no_time_field(tmp_path):
    write_inter(tmp_path, "user_id:token\titem_id:token\nu\ti\nu\tj\n")
    create_dataset(make_config(tmp_path, "Pop", "odd", load_col={"inter": ["user_id", "item_id"]}))


def test_a_time_field_that_load_col_leaves_out_is_explained(tiny_folder):
    config = make_config(tiny_folder, load_col={"inter": ["user_id", "item_id"]})
    with pytest.raises(ConfigError, match="load_col"):
        create_dataset(config)


def test_a_field_of_the_wrong_type_is_refused(tmp_path):
    write_inter(tmp_path, HEADER.replace("timestamp:float", "timestamp:token") + "u\ti\t1\t1\n")
    with pytest.raises(ConfigError, match="of type token, not float"):
        create_dataset(make_config(tmp_path, name="odd"))


def test_a_header_without_types_is_refused(tmp_path):
    write_inter(tmp_path, "user_id,item_id,timestamp\n")
    with pytest.raises(ConfigError, match="name:type"):
        create_dataset(make_config(tmp_path, name="odd"))


def test_a_data_set_without_training_targets_is_refused(tmp_path):
    write_inter(tmp_path, HEADER + "".join(f"u{i}\ti{i}\t1\t{i}\n" for i in range(5)))
    config = make_config(tmp_path, name="odd")
    with pytest.raises(ConfigError, match="no training targets"):
        data_preparation(config, create_dataset(config))


def test_users_with_one_two_or_three_interactions_do_no_harm(tmp_path):
    rows = [f"u{n}\ti{k}\t1\t{k}\n" for n in (1, 2, 3, 4) for k in range(n)]
    write_inter(tmp_path, HEADER + "".join(rows))
    config = make_config(tmp_path, name="odd", train_sample="sequence")
    loaders = data_preparation(config, create_dataset(config))
    assert [len(loader.dataset) for loader in loaders] == [3, 1, 2]
    assert all(len(list(loader)) == 1 for loader in loaders)


def test_negative_sampling_settings_do_not_touch_generative_training(tmp_path):
    write_tiny_dataset(tmp_path, "tiny", 20, 15, 1)
    negatives = {"distribution": "uniform", "sample_num": 2, "alpha": 1.0, "dynamic": False}
    config = make_config(tmp_path, train_neg_sample_args=negatives, train_sample="sequence")
    train, _, _ = data_preparation(config, create_dataset(config))
    batches = list(train)
    assert sum(len(batch) for batch in batches) == train.sample_size
    assert len(batches) == -(-train.sample_size // 16)  # 16 rows on average
    assert not any(field.startswith("neg_") for batch in batches for field in batch)
