"""Fixtures shared by the tests: a generated data set and configurations for it."""

import logging
import signal
import sys
from pathlib import Path

import hypothesis
import pytest
import torch

import recbole_gr  # noqa: F401  (compat before RecBole)

# Helpers of the tests, and the random catalogues that they share with the benchmarks.
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "benchmarks")]

from recbole.trainer import Trainer  # noqa: E402
from recbole.utils import init_seed  # noqa: E402
from runs import RUNS, SMALL, arguments  # noqa: E402
from tiny import read_sequences, write_tiny_dataset  # noqa: E402

from recbole_gr import Recommender, registry  # noqa: E402
from recbole_gr.config import Config  # noqa: E402
from recbole_gr.data import create_dataset, data_preparation  # noqa: E402
from recbole_gr.quick_start import run_recbole_gr  # noqa: E402
from recbole_gr.sid.table import SIDTable  # noqa: E402
from recbole_gr.terminal import log as terminal_log  # noqa: E402
from recbole_gr.trainer.generation import GenerationTrainer  # noqa: E402
from run_recbole_gr import main  # noqa: E402

# The same examples in every run: a failure is to be found where it was made.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal():
    """In the background of a shell, or under nohup, some are ignored, also in what is run; and ray
    leaves a handler of its own."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def pages_without_plotly(monkeypatch, request):
    """Every run writes a page, of which Plotly's script is 2 MB; tests of pages have it."""
    if not request.node.get_closest_marker("whole_pages"):
        monkeypatch.setattr("recbole_gr.report.page._plotly", lambda: "")


@pytest.fixture(autouse=True)
def no_anomaly_detection():
    """RecBole's SINE switches it on when a test's own use of RecBole imports it."""
    with torch.autograd.set_detect_anomaly(False):
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """`data_path` with the data set `tiny`: 60 users, 40 items, written once for all tests."""
    return write_tiny_dataset(tmp_path_factory.mktemp("data"), "tiny", 60, 40, 0)


@pytest.fixture
def quiet_argv(monkeypatch):
    """A command line without arguments: RecBole's own `Config` reads `sys.argv`."""
    monkeypatch.setattr(sys, "argv", ["test"])


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """A function after which nobody else, such as pytest, takes the log; files come into a folder
    of the test."""
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    level = root.level

    def alone():
        monkeypatch.setattr(root, "handlers", [])
        monkeypatch.setattr(terminal_log._terminal, "level", logging.NOTSET)

    yield alone
    root.setLevel(level)


@pytest.fixture
def parts(tiny_folder, tmp_path, monkeypatch):
    """A function from options to `(config, trainer, train, valid, test)` of a very small TIGER, or
    of another generative model."""
    monkeypatch.chdir(tmp_path)

    def make(shared=False, model="TIGER", **options):
        folders = {"data_path": str(tiny_folder), "checkpoint_dir": str(tmp_path / "saved")}
        config = Config(model, "tiny", config_dict={**SMALL, **folders, **options})
        init_seed(config["seed"], True)
        loaders = data_preparation(config, create_dataset(config))
        n_items = loaders[0]._dataset.item_num - 1
        number = torch.arange(n_items) // (2 if shared else 1)  # shared: two items on each SID
        table = SIDTable.from_item_codes(torch.stack([number // 7, number % 7], 1), (7, 7))
        content = [torch.randn(n_items + 1, 8)] if config.model_class.needs_content else []
        network = config.model_class(config, loaders[0]._dataset, table, *content)
        trainer = registry.get_trainer(config, config.model_class)
        return config, trainer(config, network), *loaders

    return make


@pytest.fixture(scope="session")
def trained(tiny_folder, tmp_path_factory):
    """A function from a name of `runs.RUNS` to the result of that run, which takes place once."""
    results, place = {}, tmp_path_factory.mktemp("runs")
    folders = {
        key: place / key for key in ("checkpoint_dir", "result_dir", "sid_dir", "content_cache_dir")
    }

    def run(name):
        if name not in results:
            model, settings = RUNS[name]
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(place)  # logs
                results[name] = run_recbole_gr(
                    cmd_args=arguments(model, tiny_folder, **{**settings, **folders})
                )
        return results[name]

    return run


@pytest.fixture
def recommender(trained):
    """A function from a name of RUNS to a fresh recommender of that run."""

    def load(name, **overrides):
        return Recommender.load(trained(name)["checkpoint"], show_progress=False, **overrides)

    return load


@pytest.fixture
def sequences(tiny_folder):
    """Items of each user of `tiny` in the order of time."""
    return read_sequences(tiny_folder)


@pytest.fixture
def refused(tiny_folder, monkeypatch, capsys):
    """A function that runs a command line, sees it refused before training, gives the message."""

    def refused(model="TIGER", folder=tiny_folder, **settings):
        started = []  # one of several models may fail without ending the run

        def train(trainer, *args, **kwargs):
            started.append(trainer)
            raise AssertionError("training has started")

        with monkeypatch.context() as patch:
            for trainer in (Trainer, GenerationTrainer):
                patch.setattr(trainer, "_train_epoch", train)
            capsys.readouterr()
            assert main(arguments(model, folder, **settings)) == 2
        assert not started
        _, _, message = ("\n" + capsys.readouterr().err).rpartition("\nerror: ")
        assert message and "Traceback" not in message
        return " ".join(message.split())

    return refused
