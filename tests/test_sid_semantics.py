"""What a report says of content, neighbours and popularity, against loops; and the gate."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from test_sid_quality import shared_table  # noqa: F401
from test_tokenizer_base import DIM, content, fitted

from recbole_gr import registry
from recbole_gr.errors import ConfigError
from recbole_gr.quality import neighbours
from recbole_gr.quality.assessment import Behaviour, assess
from recbole_gr.quality.cohesion import discrimination
from recbole_gr.quality.gate import apply_gate, collapse_reasons
from recbole_gr.quality.measures import gini, quality_report
from recbole_gr.quality.neighbours import (
    chance_overlap,
    content_neighbours,
    cooccurrence_neighbours,
    near_content,
    prefix_overlap,
)
from recbole_gr.quality.semantics import (
    distinct_rows,
    prefix_cohesion,
    residual_means,
    semantic_figures,
)
from recbole_gr.report.tokenizers import comparison_row
from recbole_gr.sid.suffix import NUMBERINGS, add_suffix, is_suffix
from recbole_gr.sid.table import SIDTable
from recbole_gr.tokenizer.rkmeans import RKMeans


def random_codes(n=60, sizes=(4, 3, 5), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(0, s, (n,), generator=generator) for s in sizes], 1)


def mean_pair_cosine(vectors, groups):
    """Mean over groups of two or more of the mean cosine over their pairs."""
    means = []
    for group in set(groups):
        rows = [i for i, g in enumerate(groups) if g == group]
        pairs = [F.cosine_similarity(vectors[i], vectors[j], dim=0) for i in rows for j in rows
                 if i < j]  # fmt: skip
        means += [float(sum(pairs) / len(pairs))] if pairs else []
    return sum(means) / len(means) if means else None


def test_cohesion_of_prefixes_is_the_mean_over_their_groups():
    codes, vectors = random_codes(), torch.randn(60, 5)
    found = prefix_cohesion(codes, lambda rows: vectors[rows])
    for depth in (1, 2, 3):
        groups = [tuple(row) for row in codes[:, :depth].tolist()]
        assert found[depth - 1] == pytest.approx(mean_pair_cosine(vectors, groups), abs=1e-5)
    unique = torch.arange(4)[:, None]
    assert prefix_cohesion(unique, lambda rows: vectors[rows]) == [None]


def test_codewords_from_content_are_means_of_what_the_levels_before_leave():
    codes, vectors = random_codes(), torch.randn(60, 5)
    rest = F.normalize(vectors, dim=1)
    for level, book in enumerate(residual_means(codes, (4, 3, 6), vectors)):
        for code in range(len(book)):
            own = rest[codes[:, level] == code]
            expected = own.mean(0) if len(own) else torch.zeros(5)
            assert torch.allclose(book[code], expected, atol=1e-5)
        rest = rest - book[codes[:, level]]


@pytest.mark.parametrize("name", ["RKMeans", "PRQKMeans", "RQVAE", "OPQ", "R3VAE"])
def test_a_tokenizers_own_codewords_and_quantised_vectors_are_judged(name):
    tokenizer = fitted(name, collision="share", normalize_residuals=False)
    table = tokenizer.tokenize(torch.cat([torch.zeros(1, DIM), content()]))
    report = assess(table, torch.cat([torch.zeros(1, DIM), content()]), tokenizer)
    codes, books = table.codes[1:], tokenizer.codewords()
    used = [book[codes[:, level].unique()] for level, book in enumerate(books)]
    pd = sum(float(discrimination(book)) for book in used) / 3
    own = report.semantics["own"]
    assert own["pd"] == pytest.approx(pd, abs=1e-5)
    words = [book[codes[:, level]] for level, book in enumerate(books)]
    q = torch.cat(words, 1) if name == "OPQ" else sum(words)
    if name == "R3VAE":
        with torch.no_grad():
            q = tokenizer(tokenizer.normalized(content())).total
    if name == "PRQKMeans":
        q = taken_out(content(), tokenizer, codes)
    sc = []
    for depth in (1, 2, 3):
        sc.append(mean_pair_cosine(q, [tuple(row) for row in codes[:, :depth].tolist()]))
    assert own["sc_levels"] == pytest.approx(sc, abs=1e-4)


def taken_out(vectors, tokenizer, codes):
    """What PRQ-KMeans' projections leave out of items of given codes, one item at a time."""
    rows = []
    for x, row in zip(vectors.double(), codes):
        rest = x = x / x.norm()
        for word in (tokenizer.mean, *(b[k] for b, k in zip(tokenizer.codebooks, row))):
            word = word.double()
            rest = rest - (rest @ word) / (word @ word) * word
        rows.append(x - rest)
    return torch.stack(rows).float()


@pytest.mark.parametrize("name", ["RKMeans", "PRQKMeans", "RQVAE", "OPQ", "R3VAE"])
def test_tokenizers_are_compared_by_content_alone(name):
    """The same codes get the same figures, whoever made them and whatever vectors it has."""
    vectors = torch.cat([torch.zeros(1, DIM), content()])
    tokenizer = fitted(name, collision="share")
    table = tokenizer.tokenize(vectors)
    report = assess(table, vectors, tokenizer)
    from_file = assess(SIDTable(table.codes, table.sizes), vectors)
    assert from_file.semantics["own"] == {}
    judged = {key: value for key, value in report.semantics.items() if key != "own"}
    assert judged == {key: value for key, value in from_file.semantics.items() if key != "own"}
    row, again = comparison_row(report), comparison_row(from_file)
    assert [row[key] for key in ("sc", "sc_content", "pd")] == [
        again[key] for key in ("sc", "sc_content", "pd")
    ]
    assert row["own_pd"] == report.semantics["own"]["pd"] and again["own_pd"] is None
    text = report.to_text()
    assert "[by content]" in text and "[by the tokenizer's own vectors]" in text
    assert "own vectors" not in from_file.to_text()


def test_means_of_content_give_residual_k_means_its_own_figures():
    tokenizer = fitted("RKMeans", content()[:, :6].repeat(1, 2), normalize_residuals=False,
                       normalize_content=True, kmeans_iterations=50, collision="share")  # fmt: skip
    vectors = content()[:, :6].repeat(1, 2)
    codes = tokenizer.encode(vectors)
    guessed = semantic_figures(codes, tokenizer.sizes, vectors, tokenizer.codewords(),
                               tokenizer.quantized)  # fmt: skip
    own = guessed["own"]
    assert guessed["pd"] == pytest.approx(own["pd"], abs=0.05)
    assert guessed["sc"] == pytest.approx(own["sc"], abs=0.02)


def test_a_suffix_is_no_level_of_the_content():
    vectors = torch.cat([torch.zeros(1, DIM), content()])
    figures = []
    for policy in ("suffix", "share"):
        tokenizer = fitted("RKMeans", collision=policy, codebook_size=4)
        report = assess(tokenizer.tokenize(vectors), vectors, tokenizer)
        assert report.content_levels == 3 and len(report.semantics["pd_levels"]) == 3
        figures.append((report.semantics, report.neighbours))
    assert figures[0] == figures[1]


def test_a_table_of_an_earlier_version_is_judged_by_its_tokenizers_levels():
    vectors = torch.cat([torch.zeros(1, DIM), content()])
    tokenizer = fitted("RKMeans", codebook_size=4)
    table = tokenizer.tokenize(vectors)
    old = SIDTable(table.codes, table.sizes, {"before_policy": table.meta["before_policy"]})
    assert assess(old, vectors, tokenizer).semantics == assess(table, vectors, tokenizer).semantics


def test_gini_follows_its_definition():
    counts = [1, 1, 2, 5, 11]
    differences = sum(abs(a - b) for a in counts for b in counts)
    expected = differences / (2 * len(counts) * sum(counts))
    assert gini(torch.tensor(counts)) == pytest.approx(expected)
    assert gini(torch.tensor([3, 3, 3])) == pytest.approx(0)


def test_uniquely_identified_items_and_items_per_sid(shared_table):  # noqa: F811
    report = quality_report(shared_table)
    counts = Counter(map(tuple, shared_table.codes[1:].tolist()))
    assert report.unique_rate == pytest.approx(sum(c == 1 for c in counts.values()) / 200)
    assert report.items_per_sid == pytest.approx(200 / len(counts))
    assert report.gini == pytest.approx(gini(torch.tensor(list(counts.values()))))


# Neighbours and popularity


@pytest.mark.parametrize("rows", [2**16, 7])
def test_content_neighbours_are_the_most_similar_other_items(rows, monkeypatch):
    monkeypatch.setattr(neighbours, "_ROWS", rows)
    vectors = torch.randn(40, 6)
    queries = torch.tensor([3, 17, 39])
    found = content_neighbours(vectors, queries, 5)
    cosine = F.normalize(vectors, dim=1) @ F.normalize(vectors, dim=1).T
    for row, query in enumerate(queries.tolist()):
        order = cosine[query].argsort(descending=True).tolist()
        order.remove(query)
        assert found[row].tolist() == order[:5]
    same = content_neighbours(torch.ones(9, 2), torch.tensor([8]), 3)
    assert same.shape == (1, 3) and 8 not in same.tolist()[0]


def test_near_content_of_many_items_is_found_in_the_clusters_next_to_each(monkeypatch):
    monkeypatch.setattr(neighbours, "EXACT", 100)
    generator = torch.Generator().manual_seed(0)
    centres = 20 * torch.randn(12, 8, generator=generator)
    vectors = centres[torch.arange(600) % 12] + torch.randn(600, 8, generator=generator)
    exact = content_neighbours(vectors, torch.arange(600), 5)
    found = near_content(vectors, 5)
    kept = [set(a.tolist()) & set(b.tolist()) for a, b in zip(found, exact)]
    assert sum(map(len, kept)) > 0.9 * 5 * 600
    assert all(row not in items.tolist() for row, items in enumerate(found))
    monkeypatch.setattr(neighbours, "_NEAR", 600)  # all clusters: nothing is missing
    assert (near_content(vectors, 5).sort().values == exact.sort().values).all()


def test_cooccurrence_neighbours_are_counted_in_both_directions():
    pairs = torch.tensor([[0, 1], [1, 0], [0, 2], [3, 0], [3, 0], [3, 0], [2, 4], [4, 2]])
    found = cooccurrence_neighbours(pairs, 6, torch.tensor([0, 2, 5]), 2)
    assert found.tolist() == [[3, 1], [4, 0], [-1, -1]]


def test_overlap_is_the_share_of_neighbours_with_the_prefix():
    codes = torch.tensor([[0, 0], [0, 1], [0, 0], [1, 0]])
    near = torch.tensor([[1, 2], [3, -1]])
    assert prefix_overlap(codes, torch.tensor([0, 2]), near) == pytest.approx([2 / 3, 1 / 3])
    assert prefix_overlap(codes, torch.tensor([0]), torch.tensor([[-1]])) == [None, None]
    assert chance_overlap(codes) == pytest.approx([6 / 12, 2 / 12])


def test_head_and_tail_are_split_by_training_interactions():
    codes = torch.tensor([[0], [0], [1], [2], [3], [4], [5], [5], [5], [6]])
    table = SIDTable.from_item_codes(codes, (7,))
    counts = torch.tensor([9, 0, 30, 1, 1, 1, 1, 1, 0, 6])
    pairs = torch.tensor([[0, 2], [2, 9]])
    report = assess(table, torch.randn(11, 4), behaviour=Behaviour(counts, pairs))
    head, tail = report.popularity["head"], report.popularity["tail"]
    assert (head["items"], tail["items"]) == (2, 8)  # items 2 and 0
    assert head["interactions"] == pytest.approx(39 / 50) and tail["unseen"] == 2
    assert head["unique_rate"] == 0.5 and head["mean_group"] == 1.5
    assert tail["unique_rate"] == 0.5 and tail["mean_group"] == pytest.approx((2 + 4 + 9) / 8)
    assert tail["distinct_rate"] == pytest.approx(6 / 8)
    text = report.to_text()
    assert "head: 2 items, 78.0%" in text and "SC of the content" in text


def test_distinct_content_is_counted():
    rows = torch.randn(5, 8)
    assert distinct_rows(torch.cat([rows, rows[:3]])) == 5


def test_overlaps_can_be_left_out():
    table = SIDTable.from_item_codes(random_codes(20), (4, 3, 5))
    assert assess(table, torch.randn(21, 4), neighbours=0).neighbours == {}


# Gate


def report_of(codes, sizes, distinct_content=0, **meta):
    report = quality_report(SIDTable.from_item_codes(codes, sizes, meta))
    report.distinct_content = distinct_content
    return report


SETTINGS = {"sid_gate": "stop", "sid_min_distinct": 0.3, "sid_min_utilisation": 0.2,
            "sid_file": None, "tokenizer": "RKMeans"}  # fmt: skip


def test_collapse_is_judged_against_what_is_possible():
    collapsed = report_of(torch.zeros(50, 2).long(), (16, 16))
    reasons = collapse_reasons(collapsed, 0.3, 0.2)
    assert len(reasons) == 3 and "1 distinct SIDs for 50 items, 2.0%" in reasons[0]
    assert "level b uses 1 of 16 codes" in reasons[2]
    assert collapse_reasons(report_of(torch.zeros(50, 2).long(), (16, 16), 1), 0.3, 0.0) == []
    full = torch.cartesian_prod(torch.arange(2), torch.arange(2)).repeat(20, 1)
    assert collapse_reasons(report_of(full, (2, 2)), 0.3, 0.2) == []  # 80 items, 4 SIDs possible


LEARNED = {"tokenizer": "RKMeans"}


def test_levels_that_carry_nothing_are_seen():
    apart = torch.stack([torch.arange(50), *torch.zeros(2, 50).long()], 1)
    reasons = collapse_reasons(report_of(apart, (50, 50, 5), **LEARNED), 0.3, 0.2)
    assert reasons[0] == (
        "level a has 50 codes for 50 items, nearly one for each: it works like item ids"
    )
    assert "level b carries nothing: the levels before it make 50 different SIDs" in reasons[1]
    assert len(reasons) == 3
    # A code that the one before it tells already, though all codes are in use.
    first = torch.arange(60) % 6
    same = torch.stack([first, 5 - first, torch.arange(60) // 6], 1)
    reasons = collapse_reasons(report_of(same, (6, 6, 10), **LEARNED), 0.3, 0.2)
    assert len(reasons) == 1 and "level b carries nothing" in reasons[0]
    fit = torch.stack([first, torch.arange(60) // 6], 1)
    assert collapse_reasons(report_of(fit, (6, 10), **LEARNED), 0.3, 0.2) == []
    # One level is an id by design, and so is the suffix of a collision policy.
    ids = report_of(torch.arange(50)[:, None], (50,), **LEARNED)
    assert collapse_reasons(ids, 0.3, 0.2) == [] and "works like item ids" in ids.to_text()
    suffix = torch.cat([fit, torch.zeros(60, 1).long()], 1)
    kept = {**LEARNED, "content_levels": 2}
    assert collapse_reasons(report_of(suffix, (6, 10, 1), **kept), 0.3, 0.2) == []
    assert collapse_reasons(report_of(suffix, (6, 10, 1)), 0.3, 0.2) == []  # from outside


def test_one_used_code_is_seen_however_few_items_it_has_to_tell_apart():
    codes = torch.stack([torch.arange(200) // 5, torch.zeros(200).long(), torch.arange(200) % 5], 1)
    reasons = collapse_reasons(report_of(codes, (200, 200, 200), **LEARNED), 0.3, 0.2)
    assert len(reasons) == 1 and "level b carries nothing" in reasons[0]


def test_levels_that_carry_nothing_stop_a_run_with_the_size_that_helps(caplog):
    apart = torch.stack([torch.arange(200), torch.zeros(200).long()], 1)
    report = report_of(apart, (200, 200), **LEARNED)
    with pytest.raises(ConfigError, match="levels that carry nothing .*codebook_size=32 .or auto"):
        apply_gate(SETTINGS, report)
    apply_gate({**SETTINGS, "sid_gate": "warn"}, report)
    assert "level b carries nothing" in caplog.text


def test_no_level_is_idle_where_codes_are_not_predicted_one_after_the_other():
    class Run(dict):
        model_class = registry.get_model("RPG")

    apart = torch.stack([torch.arange(200), torch.zeros(200).long()], 1)
    apply_gate(Run(SETTINGS), report_of(apart, (200, 1), **LEARNED))
    with pytest.raises(ConfigError, match="1 of 200 codes"):
        apply_gate(Run(SETTINGS), report_of(apart.flip(1), (200, 200), **LEARNED))


def test_a_collision_policy_does_not_hide_the_collapse():
    suffix = torch.stack([torch.zeros(50), torch.arange(50)], 1).long()
    before = {"distinct": 1, "collision_rate": 1.0, "duplicate_rate": 0.98, "largest_group": 50}
    report = report_of(suffix, (16, 50), before_policy=before, content_levels=1)
    assert len(collapse_reasons(report, 0.3, 0.2)) == 2


@pytest.mark.parametrize("numbering", NUMBERINGS)
def test_nor_does_a_suffix_of_which_the_file_does_not_tell(numbering):
    few = (torch.arange(300) ** 2 % 7)[:, None].expand(-1, 3)  # 4 SIDs
    codes, sizes = add_suffix(few, (16, 16, 16), numbering)
    shuffled = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    report = report_of(codes[shuffled], sizes)
    assert report.content_levels == 3 and report.before_policy["distinct"] == 4
    assert "4 distinct SIDs for 300 items" in collapse_reasons(report, 0.3, 0.0)[0]
    # Levels of content are not taken for one: numbers with a gap, or a full grid of codes.
    gap = torch.where(codes[:, 3] == 5, sizes[3], codes[:, 3])
    assert not is_suffix(torch.cat([few, gap[:, None]], 1), (*sizes[:3], sizes[3] + 1))
    grid = torch.cartesian_prod(*[torch.arange(5)] * 3)
    assert not is_suffix(grid, (5, 5, 5)) and not is_suffix(torch.arange(9)[:, None], (9,))


def test_a_later_level_with_a_code_for_each_item_works_like_item_ids():
    ids = torch.stack([torch.arange(60) % 6, torch.arange(60)], 1)
    for meta in (LEARNED, {}):  # of a table from outside too, whose last level says nothing else
        assert collapse_reasons(report_of(ids, (6, 60), **meta), 0.3, 0.2) == [
            "level b has 60 codes for 60 items, nearly one for each: it works like item ids"
        ]


def test_the_gate_stops_warns_or_stays_silent(caplog):
    collapsed = report_of(torch.zeros(50, 2).long(), (16, 16))
    with pytest.raises(ConfigError, match="collapsed.*1 distinct SIDs.*RKMeans.*sid_gate=warn"):
        apply_gate(SETTINGS, collapsed)
    apply_gate({**SETTINGS, "sid_gate": "warn"}, collapsed)
    assert "1 distinct SIDs" in caplog.text
    caplog.clear()
    apply_gate({**SETTINGS, "sid_gate": "off"}, collapsed)
    assert not caplog.text
    r3vae = {**SETTINGS, "tokenizer": "R3VAE", "rating_mode": "softmax", "kmeans_init": False,
             "reference_init": "mean", "pd_regulariser": True}  # fmt: skip
    with pytest.raises(ConfigError, match="top1_rating.*kmeans_init=True"):
        apply_gate(r3vae, collapsed)


class OneSID(RKMeans):
    default_config = RKMeans.default_options()

    def encode_batch(self, content):
        return super().encode_batch(content) * 0


def test_a_run_with_a_collapsed_tokenizer_stops_before_the_recommender_trains(
    tiny_folder, tmp_path, monkeypatch, capsys
):
    from recbole.trainer import Trainer
    from runs import arguments

    from run_recbole_gr import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "TOKENIZERS", {**registry.TOKENIZERS, "OneSID": OneSID})
    flat = {"tokenizer": "OneSID"}
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "fit", lambda *args, **kwargs: pytest.fail("training has started"))
        assert main(arguments("TIGER", tiny_folder, **flat)) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "SIDs are collapsed (tokenizer OneSID)" in message and "1 distinct SIDs" in message
    assert main(arguments("TIGER", tiny_folder, **flat, sid_gate="warn")) == 0


def test_a_collapsed_table_stops_a_run_in_every_format(tiny_folder, tmp_path, monkeypatch, capsys):
    """As `tokenize` writes it, with its suffix level, of which JSON and npy say nothing."""
    from runs import arguments

    from recbole_gr.commands.tokenize import main as tokenize
    from run_recbole_gr import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "TOKENIZERS", {**registry.TOKENIZERS, "OneSID": OneSID})
    common = ["--dataset=tiny", f"--data_path={tiny_folder}"]
    assert tokenize([*common, "--tokenizer=OneSID", "--codebook_size=8", "--output=sids"]) == 0
    for name in ("sid.json", "sid.npy", "sid.npz"):
        capsys.readouterr()
        assert main(arguments("TIGER", tiny_folder, sid_file=f"sids/{name}")) == 2
        assert "1 distinct SIDs" in " ".join(capsys.readouterr().err.split())


def test_codewords_need_the_function_of_their_sum():
    codes = random_codes()
    books = residual_means(codes, (4, 3, 5), torch.randn(60, DIM))
    with pytest.raises(TypeError, match="need the function quantized"):
        semantic_figures(codes, (4, 3, 5), torch.randn(60, DIM), books)
