"""The quality report against definitions spelled out in Python."""

import json
import math
from collections import Counter

import pytest
import torch

from recbole_gr.quality.measures import quality_report
from recbole_gr.quality.plot import plot_quality
from recbole_gr.sid.table import SIDTable


@pytest.fixture
def shared_table():
    torch.manual_seed(0)
    codes = torch.stack([torch.randint(0, size, (200,)) for size in (4, 6, 5)], 1)
    return SIDTable.from_item_codes(codes, (4, 8, 5), {"tokenizer": "random"})


def test_collision_figures_follow_their_definitions(shared_table):
    report = quality_report(shared_table)
    counts = Counter(map(tuple, shared_table.codes[1:].tolist()))
    sharing = sum(1 for row in shared_table.codes[1:].tolist() if counts[tuple(row)] > 1)
    assert report.n_items == 200
    assert report.distinct == len(counts)
    assert report.collision_rate == pytest.approx(sharing / 200)
    assert report.duplicate_rate == pytest.approx(1 - len(counts) / 200)
    assert report.largest_group == max(counts.values())
    assert report.group_sizes == dict(Counter(counts.values()))


def test_level_figures_follow_their_definitions(shared_table):
    for level, quality in enumerate(quality_report(shared_table).levels):
        counts = Counter(shared_table.codes[1:, level].tolist())
        entropy = -sum(c / 200 * math.log2(c / 200) for c in counts.values())
        assert quality.size == shared_table.sizes[level]
        assert quality.used == len(counts)
        assert quality.utilisation == pytest.approx(len(counts) / quality.size)
        assert quality.entropy == pytest.approx(entropy)
        assert quality.perplexity == pytest.approx(2**entropy)
        assert quality.most_frequent == max(counts.values())


def test_prefix_figures_follow_their_definitions(shared_table):
    report, shorter = quality_report(shared_table), 1
    for depth, quality in enumerate(report.prefixes, start=1):
        counts = Counter(map(tuple, shared_table.codes[1:, :depth].tolist()))
        assert quality.depth == depth
        assert quality.distinct == len(counts)
        assert quality.largest == max(counts.values())
        assert quality.mean_items == pytest.approx(200 / len(counts))
        assert quality.mean_children == pytest.approx(len(counts) / shorter)
        shorter = len(counts)


def test_unique_evenly_used_sids_are_perfect():
    codes = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    report = quality_report(SIDTable.from_item_codes(codes, (4, 4)))
    assert (report.collision_rate, report.duplicate_rate, report.largest_group) == (0, 0, 1)
    assert [level.utilisation for level in report.levels] == [1, 1]
    assert [level.perplexity for level in report.levels] == pytest.approx([4, 4])


def test_all_items_on_one_sid_is_the_worst():
    report = quality_report(SIDTable.from_item_codes(torch.zeros(9, 2).long(), (4, 4)))
    assert report.collision_rate == 1
    assert report.duplicate_rate == pytest.approx(8 / 9)
    assert report.levels[0].entropy == 0 and report.levels[0].perplexity == 1
    assert report.prefixes[0].largest == 9


def test_report_is_plain_numbers_in_json_text_and_one_picture(shared_table, tmp_path):
    report = quality_report(shared_table)
    report.to_json(tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert read["distinct"] == report.distinct
    assert read["levels"][1]["used"] == report.levels[1].used
    assert read["meta"] == {"tokenizer": "random"}
    assert f"{report.collision_rate:.2%}" in report.to_text()
    assert len(report.to_text().splitlines()) == 6
    plot_quality(shared_table, tmp_path / "report.png", report)
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2


def test_collisions_before_the_policy_are_reported():
    before = {"distinct": 1, "collision_rate": 1.0, "duplicate_rate": 0.5, "largest_group": 2}
    codes = torch.tensor([[0, 0], [0, 1]])
    report = quality_report(SIDTable.from_item_codes(codes, (1, 2), {"before_policy": before}))
    assert report.before_policy == before
    assert "before the collision policy: 100.00%" in report.to_text()
