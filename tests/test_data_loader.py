"""GenerativeTrainLoader: each target once an epoch, little padding, a reproducible order."""

from collections import Counter

import pytest
import torch
from data_helpers import (
    LEAVE_ONE_OUT,
    RATIO,
    Generative,
    GenerativeWithTimes,
    count_targets,
    make_config,
    write_random_inter,
)
from recbole.data.dataloader import TrainDataLoader

from recbole_gr.data import GenerativeDataset, GenerativeTrainLoader
from recbole_gr.data.loader import LengthBuckets, equal_shares

pytestmark = pytest.mark.usefixtures("quiet_argv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_inter(tmp_path_factory.mktemp("random"), "random", 7, n_users=60)


def make_loader(folder, model=Generative, **settings):
    config = make_config(folder, model, "random", **settings)
    return GenerativeTrainLoader(config, GenerativeDataset(config).build()[0], shuffle=True)


def epoch(loader):
    """All rows of an epoch as (user, history, target, n_targets), in order."""
    rows = []
    for batch in loader:
        for user, item, length, history, n in zip(
            batch["user_id"], batch["item_id"], batch["item_length"], batch["item_id_list"],
            batch["n_targets"],
        ):
            rows.append((int(user), tuple(history[:length].tolist()), int(item), int(n)))
    return rows


def targets_of(rows):
    """(user, target) -> how often an epoch counts it."""
    counted = Counter()
    for user, history, item, n in rows:
        counted.update((user, target) for target in (*history, item)[-n:])
    return counted


@pytest.mark.parametrize("max_length", [1, 2, 3, 5, 50])
@pytest.mark.parametrize("bucket", [True, False])
@pytest.mark.parametrize("split", [LEAVE_ONE_OUT, RATIO])
def test_sequence_and_prefix_epochs_count_the_same_targets(folder, max_length, bucket, split):
    settings = {
        "MAX_ITEM_LIST_LENGTH": max_length, "bucket_by_length": bucket, "eval_args": split
    }
    sequence = make_loader(folder, train_sample="sequence", **settings)
    prefix = make_loader(folder, train_sample="prefix", **settings)
    expected = Counter(zip(
        prefix.dataset.inter_feat["user_id"].tolist(), prefix.dataset.inter_feat["item_id"].tolist()
    ))
    assert targets_of(epoch(prefix)) == expected
    assert targets_of(epoch(sequence)) == expected
    assert sequence.sample_size < prefix.sample_size or max_length == 1


def test_histories_are_those_of_prefix_samples_wherever_a_sequence_fits_its_window(folder):
    sequence = make_loader(folder, train_sample="sequence", MAX_ITEM_LIST_LENGTH=50)
    prefix = make_loader(folder, train_sample="prefix", MAX_ITEM_LIST_LENGTH=50)
    assert count_targets(sequence.dataset, sequence.rows, sequence.n_targets) == count_targets(
        prefix.dataset, prefix.rows, prefix.n_targets
    )


def test_the_data_set_behind_the_loader_keeps_all_its_rows(folder):
    loader = make_loader(folder, train_sample="sequence")
    assert len(loader.dataset) == int(loader.n_targets.sum()) > loader.sample_size
    assert sum(loader.dataset.item_counter.values()) == len(loader.dataset)


def test_prefix_batches_are_those_of_recbole(folder):
    ours = make_loader(folder, train_sample="prefix", bucket_by_length=False)
    theirs = TrainDataLoader(ours.config, ours.dataset, None, shuffle=True)
    for _ in range(2):
        for a, b in zip(list(ours), list(theirs)):
            longest = int(b["item_length"].max())
            assert torch.equal(a["item_id_list"], b["item_id_list"][:, :longest])
            assert torch.equal(a["item_id"], b["item_id"])
            assert torch.equal(a["user_id"], b["user_id"])


@pytest.mark.parametrize(
    "model, extra", [(Generative, set()), (GenerativeWithTimes, {"timestamp"})]
)
def test_batches_carry_the_fields_a_model_reads_and_no_others(folder, model, extra):
    batch = next(iter(make_loader(folder, model, train_sample="sequence")))
    fields = {"user_id", "item_id", "item_id_list", "item_length", "n_targets"}
    assert set(batch) == fields | extra | {f"{field}_list" for field in extra}
    assert batch["n_targets"].dtype == torch.int64


def test_batches_are_as_wide_as_their_longest_history(folder):
    loader = make_loader(folder, GenerativeWithTimes, MAX_ITEM_LIST_LENGTH=50)
    widths = set()
    for batch in loader:
        longest = int(batch["item_length"].max())
        assert batch["item_id_list"].shape[1] == batch["timestamp_list"].shape[1] == longest
        padding = torch.arange(longest) >= batch["item_length"].unsqueeze(1)
        assert (batch["item_id_list"][padding] == 0).all()
        assert (batch["item_id_list"][~padding] > 0).all()
        widths.add(longest)
    assert len(widths) > 1


@pytest.mark.parametrize("bucket", [True, False])
def test_an_epoch_order_follows_from_the_generator_alone(folder, bucket):
    first = make_loader(folder, train_sample="sequence", bucket_by_length=bucket)
    one = epoch(first)
    state = first.generator.get_state()
    two = epoch(first)
    assert one != two and sorted(one) == sorted(two)

    torch.manual_seed(99)  # torch's own generator must play no part
    again = make_loader(folder, train_sample="sequence", bucket_by_length=bucket)
    assert epoch(again) == one
    resumed = make_loader(folder, train_sample="sequence", bucket_by_length=bucket)
    resumed.generator.set_state(state)
    assert epoch(resumed) == two
    other = make_loader(folder, train_sample="sequence", bucket_by_length=bucket, seed=1)
    assert epoch(other) != one


def test_no_shuffling_keeps_the_order_of_the_data_set(folder):
    config = make_config(folder, Generative, "random", train_sample="sequence")
    loader = GenerativeTrainLoader(config, GenerativeDataset(config).build()[0], shuffle=False)
    items = torch.cat([batch["item_id"] for batch in loader])
    assert torch.equal(items, loader.dataset.inter_feat["item_id"][loader.rows])


def test_worker_processes_give_the_same_batches(folder):
    one = make_loader(folder, train_sample="sequence")
    two = make_loader(folder, train_sample="sequence", worker=1)
    assert epoch(one) == epoch(two)


def buckets_of(lengths, batch_size, n_targets=None, seed=1):
    n_targets = torch.ones_like(lengths) if n_targets is None else n_targets
    return LengthBuckets(lengths, n_targets, batch_size, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n_rows, batch_size", [(1, 4), (4, 4), (1003, 4), (999, 7), (5, 8)])
def test_buckets_hold_every_row_once_and_equally_many_where_each_has_one_target(
    n_rows, batch_size
):
    lengths = torch.randint(1, 51, (n_rows,), generator=torch.Generator().manual_seed(0))
    buckets = buckets_of(lengths, batch_size)
    batches = list(buckets)
    assert len(batches) == len(buckets) == -(-n_rows // batch_size)
    assert sorted(sum(batches, [])) == list(range(n_rows))
    sizes = list(map(len, batches))
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("batch_size", [1, 2, 16, 64])
def test_buckets_hold_equally_many_targets_whatever_the_length_of_their_rows(batch_size):
    lengths = torch.randint(1, 51, (1003,), generator=torch.Generator().manual_seed(0))
    buckets = buckets_of(lengths, batch_size, n_targets=lengths)
    batches = list(buckets)
    assert len(batches) == len(buckets) and all(batches)
    assert sorted(sum(batches, [])) == list(range(1003))
    targets = torch.tensor([int(lengths[batch].sum()) for batch in batches]).float()
    if batch_size >= 16:  # a row is then a small part of a batch
        assert (targets - targets.mean()).abs().max() <= 50
        rows = torch.tensor([len(batch) for batch in batches]).float()
        longest = torch.tensor([float(lengths[batch].max()) for batch in batches])
        assert torch.corrcoef(torch.stack([rows, longest]))[0, 1] < -0.5


def test_shares_are_those_of_a_loop_that_fills_one_after_the_other():
    generator = torch.Generator().manual_seed(0)
    for n, n_shares in [(1, 1), (7, 7), (9, 4), (50, 13), (200, 3)]:
        weights = torch.randint(1, 40, (n,), generator=generator)
        expected, before, share = [], 0, 0
        for i, weight in enumerate(weights.tolist()):
            wanted = before * n_shares // int(weights.sum())
            share = min(wanted, share + 1) if i else 0
            expected.append(max(share, n_shares - (n - i)))
            before += weight
        shares = equal_shares(weights, n_shares)
        assert shares.tolist() == expected
        assert shares.unique().tolist() == list(range(n_shares))


def test_buckets_cut_padding_and_leave_the_order_of_lengths_random():
    lengths = torch.randint(1, 51, (6400,), generator=torch.Generator().manual_seed(0))

    def padding(batches):
        longest = torch.tensor([float(lengths[b].max()) for b in batches])
        mean = torch.tensor([float(lengths[b].float().mean()) for b in batches])
        return float((1 - mean / longest).mean())

    batches = [torch.tensor(batch) for batch in buckets_of(lengths, 64)]
    shuffled = torch.randperm(6400).split(64)
    assert padding(batches) < 0.06 < 0.4 < padding(shuffled)
    means = torch.stack([lengths[b].float().mean() for b in batches])
    place = torch.arange(len(means)).float()
    assert abs(torch.corrcoef(torch.stack([means, place]))[0, 1]) < 0.35


def test_rows_are_sorted_within_chunks_so_that_their_company_changes():
    lengths = torch.arange(800)  # 100 batches: two chunks, one from short to long, one back
    batches = list(buckets_of(lengths, 8, seed=0))
    shortest = sorted(min(batch) for batch in batches)
    longest = sorted(max(batch) for batch in batches)
    assert any(low < high for low, high in zip(shortest[1:], longest))
    assert max(max(batch) - min(batch) for batch in batches) < 80
