"""Fixtures shared by the tests: a generated data set and configurations for it."""

import sys
from pathlib import Path

import pytest

import recbole_gr  # noqa: F401  (compat before RecBole)

sys.path.insert(0, str(Path(__file__).parent))

from tiny import write_tiny_dataset  # noqa: E402


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """`data_path` with the data set `tiny`: 60 users, 40 items, written once for all tests."""
    return write_tiny_dataset(tmp_path_factory.mktemp("data"), "tiny", 60, 40, 0)


@pytest.fixture
def quiet_argv(monkeypatch):
    """A command line without arguments: RecBole's own `Config` reads `sys.argv`."""
    monkeypatch.setattr(sys, "argv", ["test"])
