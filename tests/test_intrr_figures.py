"""IntRR: agreement with the Stage-1 SIDs over training, and the heat-map of an item."""

import json
import math

import pytest
import torch
from models import random_table, small_intrr

from recbole_gr.errors import ConfigError
from recbole_gr.model.intrr.redistribution import alike_items, assignment_figures
from recbole_gr.report.comparison import write_report
from recbole_gr.report.redistribution import heat_map

AGREEMENT, IN_USE = "agreement with the Stage-1 SID", "codes in use (bits)"


def test_agreement_and_codes_in_use():
    given = torch.tensor([[0, 1], [1, 1], [2, 0], [3, 0]])
    assigned = torch.tensor([[0, 1], [1, 0], [2, 1], [0, 0]])
    figures = assignment_figures(assigned, given, (4, 2))
    assert figures[AGREEMENT] == {"level a": 0.75, "level b": 0.5, "whole SID": 0.25}
    assert figures[IN_USE]["level b of 2"] == pytest.approx(1.0)
    assert figures[IN_USE]["level a of 4"] == pytest.approx(1.5)
    same = assignment_figures(torch.zeros_like(given), given, (4, 2))
    assert same[IN_USE] == {"level a of 4": 0.0, "level b of 2": 0.0}


def test_the_figures_of_an_epoch_follow_the_item_side():
    model = small_intrr()
    agreement = model.end_epoch()[AGREEMENT]
    for level, name in enumerate(("level a", "level b", "level c")):
        hits = 0
        for item in range(1, 31):
            _, logits = model.assign(torch.tensor([item]))
            hits += int(logits[level].argmax() == model.codes[item, level])
        assert agreement[name] == pytest.approx(hits / 30)


def test_aligned_training_brings_the_item_side_to_the_sids(parts):
    small = {"uid_size": 12, "ran_hidden_size": 24, "learning_rate": 0.02, "epochs": 8}
    last = []
    for weight in (0.0, 1.0):
        _, trainer, train, valid, _ = parts(model="IntRR", lambda_aln=weight, **small)
        trainer.fit(train, valid, saved=False)
        assert [entry["epoch"] for entry in trainer.epoch_figures] == list(range(8))
        figures = [entry["figures"] for entry in trainer.epoch_figures]
        assert set(figures[0]) == {AGREEMENT, IN_USE, "validation"}
        last.append(figures[-1][AGREEMENT]["level a"])
        if weight:
            assert last[-1] > figures[0][AGREEMENT]["level a"]
    assert last[1] > 0.6 > last[0]


def test_items_of_the_heat_map():
    codes = torch.tensor([[0, 0], [2, 0], [1, 0], [3, 0], [1, 1], [2, 1], [1, 2]])
    assert alike_items(codes).tolist() == [2, 4]  # of the three items under code 1
    assert alike_items(torch.tensor([[0, 0], [1, 0], [2, 0]])).tolist() == [1, 2]
    assert alike_items(torch.tensor([[0], [1], [2]])).tolist() == [1, 2]


def test_a_redistribution_is_what_the_network_gives_to_the_item(tmp_path):
    model = small_intrr(random_table(40, (4, 5, 3)), temperature=0.5)
    (first, second) = model.redistribution()
    item = int(first["item"][1:])
    assert first["sid"] == model.codes[item].tolist() and first["sid"][:2] == second["sid"][:2]
    for level, (size, probability) in enumerate(zip((4, 5, 3), first["probability"])):
        logits = model.assign(torch.tensor([item]))[1][level][0]
        assert probability == pytest.approx((logits / 0.5).softmax(0).tolist(), abs=1e-6)
        assert len(probability) == size and sum(probability) == pytest.approx(1, abs=1e-5)
    write_report([{"model": "IntRR", "redistribution": [first, second]}], tmp_path)
    assert json.loads((tmp_path / "redistribution-IntRR.json").read_text())[1] == second
    assert (tmp_path / "redistribution-IntRR.png").read_bytes()[:4] == b"\x89PNG"


def test_a_heat_map_is_the_logarithm_with_a_floor_and_gaps():
    picture = heat_map({"probability": [[0.1, 0.9, 0.0], [1.0]]})
    assert picture[0].tolist() == pytest.approx([-1.0, math.log10(0.9), -4.0])
    assert picture[1, 0] == 0 and [math.isnan(x) for x in picture[1]] == [False, True, True]


def test_items_to_show_are_given_by_token_and_checked_before_training(parts):
    _, trainer, *_ = parts(model="IntRR", redistribution_items=["i3", "i17"])
    assert [shown["item"] for shown in trainer.model.redistribution()] == ["i3", "i17"]
    with pytest.raises(ConfigError, match="redistribution_items.*nothing"):
        parts(model="IntRR", redistribution_items=["nothing"])
    with pytest.raises(ConfigError, match="redistribution_items"):
        small_intrr(redistribution_items=3)
