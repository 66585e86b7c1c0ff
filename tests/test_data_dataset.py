"""GenerativeDataset: RecBole's rows, tensor by tensor, for training and for evaluation."""

import pytest
import torch
from data_helpers import (
    LEAVE_ONE_OUT,
    RATIO,
    Generative,
    GenerativeWithAllFields,
    GenerativeWithTimes,
    make_config,
    write_random_inter,
)
from recbole.data.dataset import SequentialDataset
from recbole.data.utils import data_preparation as recbole_data_preparation

from recbole_gr.data import GenerativeDataset, create_dataset, data_preparation
from recbole_gr.errors import ConfigError

pytestmark = pytest.mark.usefixtures("quiet_argv")
NO_GROUPS = {"split": {"RS": [0.6, 0.2, 0.2]}, "order": "TO", "group_by": None, "mode": "full"}
BY_TIME = {"split": {"TS": [0.6, 0.2, 0.2]}, "order": "TO", "group_by": "user", "mode": "full"}


@pytest.fixture(scope="module", params=[0, 1, 2])
def folder(request, tmp_path_factory):
    return write_random_inter(tmp_path_factory.mktemp("random"), "random", request.param)


def assert_same_interaction(ours, theirs):
    assert list(ours) == list(theirs)
    for field in theirs:
        assert ours[field].dtype == theirs[field].dtype, field
        assert torch.equal(ours[field], theirs[field]), field


@pytest.mark.parametrize("max_length", [1, 2, 3, 5, 50])
def test_augmentation_equals_recboles(folder, max_length):
    config = make_config(
        folder, GenerativeWithAllFields, "random", MAX_ITEM_LIST_LENGTH=max_length
    )
    ours, theirs = GenerativeDataset(config), SequentialDataset(config)
    ours._change_feat_format()
    theirs._change_feat_format()
    assert int(theirs.inter_feat["item_length"].max()) == min(max_length, 16)
    assert_same_interaction(ours.inter_feat, theirs.inter_feat)
    assert ours.field2type == theirs.field2type
    assert ours.field2seqlen == theirs.field2seqlen


def test_augmentation_equals_recboles_for_numerical_features(folder):
    config = make_config(
        folder, GenerativeWithAllFields, "random", numerical_features=["rating", "timestamp"]
    )
    ours, theirs = GenerativeDataset(config), SequentialDataset(config)
    ours._change_feat_format()
    theirs._change_feat_format()
    assert theirs.inter_feat["rating_list"].dim() == 3
    assert_same_interaction(ours.inter_feat, theirs.inter_feat)


def test_sequences_inside_interactions_are_augmented_as_recbole_does(tmp_path):
    folder = write_random_inter(tmp_path, "random", 5)
    path = folder / "random" / "random.inter"
    lines = path.read_text().splitlines()
    tags = [f"\tt{i % 3} t{i % 5} t{i % 7}" for i in range(len(lines))]
    tags[0] = "\ttags:token_seq"
    path.write_text("\n".join(a + b for a, b in zip(lines, tags)) + "\n")
    config = make_config(folder, GenerativeWithAllFields, "random", load_col=None)
    ours, theirs = GenerativeDataset(config), SequentialDataset(config)
    ours._change_feat_format()
    theirs._change_feat_format()
    assert theirs.inter_feat["tags_list"].shape[1:] == (5, 3)
    assert_same_interaction(ours.inter_feat, theirs.inter_feat)


@pytest.mark.parametrize(
    "model, lists",
    [(Generative, ["item_id_list"]), (GenerativeWithTimes, ["item_id_list", "timestamp_list"])],
)
def test_only_the_histories_that_a_model_reads_are_kept(folder, model, lists):
    dataset = GenerativeDataset(make_config(folder, model, "random"))
    dataset._change_feat_format()
    assert [field for field in dataset.inter_feat if field.endswith("_list")] == lists
    assert [field for field in dataset.field2type if field.endswith("_list")] == lists


@pytest.mark.parametrize("split", [LEAVE_ONE_OUT, RATIO, NO_GROUPS, BY_TIME])
@pytest.mark.parametrize("max_length", [3, 50])
def test_evaluation_sees_what_sasrec_sees(folder, split, max_length):
    """The same rows, by length and without the padding that all of a batch have."""
    settings = {"eval_args": split, "MAX_ITEM_LIST_LENGTH": max_length, "name": "random"}
    ours = make_config(folder, Generative, **settings)
    theirs = make_config(folder, "SASRec", loss_type="CE", **settings)
    our_loaders = data_preparation(ours, create_dataset(ours))
    their_loaders = recbole_data_preparation(theirs, SequentialDataset(theirs))
    for pair in zip(our_loaders[1:], their_loaders[1:]):
        found = []
        for loader in pair:
            rows = []
            for batch, used, user, item in loader:
                assert used is None and user.tolist() == list(range(len(batch)))
                assert torch.equal(item, batch["item_id"])
                length, history = batch["item_length"], batch["item_id_list"]
                rows += [
                    (int(u), int(i), items[:n].tolist(), int(items[n:].sum()))
                    for u, i, items, n in zip(batch["user_id"], item, history, length)
                ]
            found.append(sorted(rows))
        assert found[0] == found[1] and len(pair[0]) == len(pair[1]) > 0


@pytest.mark.parametrize("split", [LEAVE_ONE_OUT, RATIO, NO_GROUPS])
def test_training_interactions_are_recboles(folder, split):
    config = make_config(folder, Generative, "random", eval_args=split)
    ours = GenerativeDataset(config).build()[0]
    theirs = SequentialDataset(config).build()[0]
    assert ours.item_counter == theirs.item_counter
    assert (ours.inter_matrix("csr") != theirs.inter_matrix("csr")).nnz == 0


def test_a_value_matrix_without_the_history_of_the_value_is_refused(folder):
    dataset = GenerativeDataset(make_config(folder, Generative, "random")).build()[0]
    with pytest.raises(ConfigError, match="history_fields"):
        dataset.inter_matrix("csr", value_field="rating")


@pytest.mark.parametrize("length", [0, -1, 2.0, None])
def test_an_impossible_history_length_is_refused(folder, length):
    config = make_config(folder, Generative, "random", MAX_ITEM_LIST_LENGTH=length)
    with pytest.raises(ConfigError, match="MAX_ITEM_LIST_LENGTH"):
        GenerativeDataset(config)


def test_a_history_field_that_is_not_loaded_is_refused(folder):
    class Weather(Generative):
        history_fields = ("weather",)

    with pytest.raises(ConfigError, match="weather"):
        create_dataset(make_config(folder, Weather, "random"))
