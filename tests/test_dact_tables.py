"""The tables of the study of DACT: the control, and that the study can be run with them."""

import importlib.util
import os

import pytest
import torch
from pages import ROOT

from recbole_gr.errors import ConfigError
from recbole_gr.sid.table import SIDTable
from recbole_gr.study.study_file import read_study

STUDIES = sorted((ROOT / "studies" / "dact").glob("*.yaml"))


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "studies" / "dact" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", range(5))
def test_the_control_changes_as_many_items_to_the_same_sids(tables, seed):
    generator, table, given = torch.Generator().manual_seed(seed), torch.arange(20)[:, None], []
    fresh = 100
    for period in range(4):
        if period:  # seven items take SIDs that nobody had, five are new
            table = table.clone()
            table[torch.randperm(len(table), generator=generator)[:7], 0] = torch.arange(7) + fresh
            table = torch.cat([table, torch.arange(7, 12)[:, None] + fresh])
            fresh += 100
        given.append(table)
    found = tables.permutations(given, seed)
    assert torch.equal(found[0], given[0])
    for before, own, was, now in zip(found, found[1:], given, given[1:]):
        assert sorted(own.tolist()) == sorted(now.tolist())
        n = len(was)
        assert int((own[:n] != before).any(1).sum()) == int((now[:n] != was).any(1).sum()) == 7
        assert torch.equal(own[n:], now[n:])
    # In the first of them the same items change, and hardly any gets its own SID.
    changed = (given[1][:20] != given[0]).squeeze(1)
    assert torch.equal((found[1][:20] != found[0]).squeeze(1), changed)
    assert any(not torch.equal(a, b) for a, b in zip(found, given))


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_the_files_of_the_study_can_be_read_and_name_its_tables(file, monkeypatch, tmp_path):
    plan = read_study(file)
    assert plan.name == f"dact_{file.stem}" and plan.over_periods and len(plan.seeds) == 5
    named = plan.settings["continual_sid_files"]
    assert {"kept", "finetune", "dact", "permuted"} <= set(named)
    for name, paths in named.items():
        folder = f"saved/dact/{plan.datasets[0]}"
        assert paths == [f"{folder}/{name}-{period}.npz" for period in range(len(paths))]
    if plan.datasets != ["ml-100k"]:  # the data of others are not part of the project
        return
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"continual_sid_files\[kept\]\[0\]: there is no file"):
        plan.cells()


@pytest.mark.slow
def test_tables_are_made_for_every_period_and_start_alike(tables, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    few = "--tokenizer_epochs=2 --continual_epochs=2 --cf_epochs=1 --tokenizer_warmup_epochs=1 "
    few += "--continual_last=1 --report_neighbours=0"
    folder = tables.main(["ml-100k", *few.split()])
    names = {"kept", "finetune", "dact", "permuted"}
    assert {f"{name}-{p}.npz" for name in names for p in range(2)} <= set(os.listdir(folder))
    starts = {SIDTable.load(folder / f"{name}-0.npz").digest() for name in names}
    assert len(starts) == 1
    page = (folder / "tables.md").read_text()
    assert page.count("| kept ") == 1 and "median drift" in page
