"""What users have taken so far, against RecBole's own samples and by hand."""

import pytest
import torch
from data_helpers import make_config, write_random_inter
from recbole.data.dataset import SequentialDataset

from recbole_gr.data import create_dataset
from recbole_gr.errors import ConfigError
from recbole_gr.registry import get_model
from recbole_gr.serving.histories import Histories


@pytest.mark.parametrize("seed", range(3))
def test_the_last_sample_of_a_user_with_its_target_is_the_end_of_the_history(
    seed, tmp_path, quiet_argv
):
    """Also where times are equal."""
    folder = write_random_inter(tmp_path, "tiny", seed)
    config = make_config(folder, get_model("SASRec"))
    histories = Histories.known(create_dataset(config))
    samples = SequentialDataset(config)
    samples._change_feat_format()  # RecBole's own augmentation
    table = samples.inter_feat
    last = {int(user): row for row, user in enumerate(table["user_id"])}  # rows grow in time
    assert len(last) > 15
    n_single = 0
    for user in range(1, samples.user_num):
        parts, count = histories.last(torch.tensor([user]), 6)
        n = int(count)
        if user not in last:
            n_single += 1
            assert n == 1
            continue
        row = last[user]
        length = int(table["item_length"][row])
        assert n == length + 1 == min(6, int(histories.lengths()[user]))
        for field in ("item_id", "timestamp", "rating"):
            expected = [*table[f"{field}_list"][row, :length].tolist(), float(table[field][row])]
            assert parts[field][0, :n].tolist() == expected
            assert not parts[field][0, n:].any()
    assert n_single > 0  # users without a sample have a history too


def test_rows_of_several_lengths_are_padded_at_the_end():
    histories = Histories.of([[3, 1, 2], [5], [4, 4]], "item_id")
    parts, counts = histories.last(torch.tensor([1, 0, 2]), 2)
    assert parts["item_id"].tolist() == [[5, 0], [1, 2], [4, 4]] and counts.tolist() == [1, 2, 2]
    assert histories.items(torch.tensor([1, 0])).tolist() == [[5, 0, 0], [3, 1, 2]]
    assert len(histories) == 3 and histories.lengths().tolist() == [3, 1, 2]


def test_benchmark_files_have_no_log(tmp_path, quiet_argv):
    folder = write_random_inter(tmp_path, "tiny", 0)
    dataset = create_dataset(make_config(folder, get_model("SASRec")))
    dataset.benchmark_filename_list = ["train", "valid", "test"]
    with pytest.raises(ConfigError, match="benchmark_filename.*give histories"):
        Histories.known(dataset)
