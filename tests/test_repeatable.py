"""Equal seeds give equal numbers on several threads of a CPU: the order of sums is fixed."""

import warnings

import pytest
import torch
from runs import arguments

from recbole_gr import registry, run_recbole_gr
from recbole_gr.compat.repeatable import init_seed, repeatable
from recbole_gr.tokenizer.rkmeans import RKMeans


@pytest.fixture(autouse=True)
def as_before():
    """Neither threads nor the order stay for the next test."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(False)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def gradient(rows=16_000, width=64, items=1_700):
    """Of a sum over ``x[rows]``, which two threads otherwise add up as they come."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(items, width, generator=generator, requires_grad=True)
    chosen = torch.randint(items, (rows,), generator=generator)
    weights = torch.randn(rows, width, generator=generator)
    (x[chosen] * weights).sum().backward()
    one_by_one = torch.zeros_like(x).index_add_(0, chosen, weights)
    return x.grad, one_by_one


def test_two_threads_add_up_as_one_does():
    init_seed(1, True, "cpu")
    for _ in range(5):
        assert torch.equal(*gradient())


def test_a_block_fixes_the_order_and_leaves_all_as_it_was():
    fills = torch.utils.deterministic.fill_uninitialized_memory
    with repeatable("cpu"):
        for _ in range(5):
            assert torch.equal(*gradient())
        with repeatable("cpu"):
            pass
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory == fills
    with pytest.raises(ZeroDivisionError), repeatable("cpu"):
        raise ZeroDivisionError
    assert not torch.are_deterministic_algorithms_enabled()


def test_other_devices_and_runs_that_need_not_repeat_are_left_alone():
    with repeatable("cuda"):
        assert not torch.are_deterministic_algorithms_enabled()
    for reproducibility, device in [(True, "cuda:0"), (False, "cpu")]:
        init_seed(1, True, "cpu")
        assert torch.are_deterministic_algorithms_enabled()
        init_seed(1, reproducibility, device)
        assert not torch.are_deterministic_algorithms_enabled()


def test_what_a_caller_demands_of_torch_stays():
    torch.use_deterministic_algorithms(True)
    for reproducibility in (True, False):
        init_seed(1, reproducibility, "cpu")
        with repeatable("cpu"):
            pass
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()


def test_the_seed_is_recboles():
    init_seed(7, True, "cpu")
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), drawn)
    assert torch.backends.cudnn.deterministic
    init_seed(7, False, "cpu")
    assert not torch.backends.cudnn.deterministic


class Watched(RKMeans):
    """Notes whether the order is fixed while it learns."""

    def fit_content(self, content, signals, progress):
        self.fixed = torch.are_deterministic_algorithms_enabled()
        return super().fit_content(content, signals, progress)


def test_every_tokenizer_learns_in_a_fixed_order():
    tokenizer = Watched({"codebook_size": 4, "sid_levels": 2}, 8)
    tokenizer.fit(torch.randn(40, 8), progress=False)
    assert tokenizer.fixed and not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("model", ["TIGER", "SASRec"])
@pytest.mark.parametrize("reproducibility", [True, False])
def test_a_run_trains_in_a_fixed_order_where_it_is_to_repeat(
    tiny_folder, monkeypatch, alone, model, reproducibility
):
    seen, kind = [], registry.get_model(model)
    learns = kind.calculate_loss

    def watched(self, *args, **kwargs):
        seen.append(torch.are_deterministic_algorithms_enabled())
        return learns(self, *args, **kwargs)

    monkeypatch.setattr(kind, "calculate_loss", watched)
    negatives = {} if model == "TIGER" else {"train_neg_sample_args": None}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*deterministic.*")
        run_recbole_gr(
            cmd_args=arguments(
                model, tiny_folder, use_gpu=False, reproducibility=reproducibility, **negatives
            )
        )
    assert seen and set(seen) == {reproducibility}
