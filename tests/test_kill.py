"""Training processes that are killed at random moments lose nothing and resume to the same end."""

import pytest
from kill_and_resume import kill_and_resume
from runs import RUNS

KILLS = {"TIGER": 8, "PIT": 5, "IntRR": 4, "SASRec": 3}  # 20


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLS)
def test_killed_runs_resume_to_the_last_bit(name, tiny_folder, tmp_path):
    model, own = RUNS[name]
    settings = {
        **own, "epochs": 3, "model": model, "dataset": "tiny", "data_path": str(tiny_folder),
        "sid_dir": str(tmp_path / "sid"), "content_cache_dir": str(tmp_path / "content"),
        "result_dir": str(tmp_path / "results"), "use_gpu": False,
    }  # fmt: skip
    figures = kill_and_resume(settings, KILLS[name], seed=1, folder=str(tmp_path))
    assert figures["kills"] == KILLS[name] and figures["moments"] > 10
    assert not figures["corrupt"] and not figures["unequal"]
