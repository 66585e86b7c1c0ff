"""What every tokenizer must do, whatever it learns with."""

import pytest
import torch

from recbole_gr.errors import ConfigError
from recbole_gr.quality.gate import collapse_reasons
from recbole_gr.quality.measures import quality_report
from recbole_gr.registry import get_tokenizer
from recbole_gr.sid.sizes import auto_size

DIM = 12
SMALL = {
    "codebook_size": 8,
    "sid_levels": 3,
    "seed": 7,
    "kmeans_iterations": 5,
    "opq_iterations": 2,
    "rqvae_hidden": [16],
    "rqvae_dim": 6,
    "tokenizer_epochs": 4,
    "tokenizer_batch_size": 40,
    "tokenizer_learning_rate": 0.01,
    "tokenizer_evaluate_every": 2,
    "tokenizer_steps": 12,
}
NAMES = ("RKMeans", "PRQKMeans", "OPQ", "RQVAE", "R3VAE", "RVQ")
HEAVY = {"metric_weight": 1.0}
SINKHORN = {"collision": "sinkhorn", "codebook_size": [2, 2, 64]}


def content(n_items=120, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(10, DIM, generator=generator)
    owner = torch.randint(0, 10, (n_items,), generator=generator)
    return centres[owner] + 0.5 * torch.randn(n_items, DIM, generator=generator)


def fitted(name, vectors=None, **options):
    tokenizer = get_tokenizer(name)({**SMALL, **options}, DIM)
    tokenizer.fit(content() if vectors is None else vectors, progress=False)
    return tokenizer


@pytest.fixture(scope="module", params=NAMES)
def tokenizer(request):
    return fitted(request.param)


def test_codes_have_the_promised_shape_and_range(tokenizer):
    codes = tokenizer.encode(content())
    assert codes.dtype == torch.int64 and codes.shape == (120, 3)
    assert tokenizer.sizes == (8, 8, 8)
    assert int(codes.min()) >= 0 and int(codes.max()) < 8
    assert all(len(codes[:, level].unique()) > 4 for level in range(3))


def test_an_items_codes_do_not_depend_on_its_batch(tokenizer, monkeypatch):
    whole = tokenizer.encode(content())
    assert torch.equal(torch.cat([tokenizer.encode(row[None]) for row in content()]), whole)
    monkeypatch.setattr("recbole_gr.tokenizer.base._CHUNK_VALUES", 7 * DIM)
    assert torch.equal(tokenizer.encode(content()), whole)
    assert tokenizer.encode(content()[:0]).shape == (0, 3)


def test_encoding_has_no_side_effect(tokenizer):
    before = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    random_state, vectors = torch.get_rng_state(), content()
    tokenizer.encode(vectors)
    tokenizer.tokenize(vectors)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(vectors, content())
    assert all(torch.equal(value, before[name]) for name, value in tokenizer.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_the_codes_and_nothing_else(name):
    torch.manual_seed(1)
    first = fitted(name).encode(content())
    torch.manual_seed(2)
    random_state = torch.get_rng_state()
    second = fitted(name).encode(content())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(first, second)
    assert not torch.equal(first, fitted(name, seed=8).encode(content()))
    assert torch.equal(first, fitted(name, seed=8, tokenizer_seed=7).encode(content()))


def test_saved_tokenizer_loads_and_encodes_alike(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.pth")
    loaded = type(tokenizer).load(tmp_path / "tokenizer.pth")
    assert loaded.options == tokenizer.options
    assert torch.equal(loaded.encode(content()), tokenizer.encode(content()))
    assert loaded.tokenize(content()).digest() == tokenizer.tokenize(content()).digest()


def test_loading_another_tokenizer_or_rubbish_is_refused(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.pth")
    other = get_tokenizer("OPQ" if type(tokenizer).__name__ != "OPQ" else "RKMeans")
    with pytest.raises(ConfigError, match="holds a tokenizer of type"):
        other.load(tmp_path / "tokenizer.pth")
    (tmp_path / "bad.pth").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="bad.pth is not a saved tokenizer"):
        other.load(tmp_path / "bad.pth")


def test_the_nearest_last_level_code_is_the_encoded_one(tokenizer):
    codes = tokenizer.encode(content())
    distances = tokenizer.last_level_distances(content(), codes)
    assert distances.shape == (120, 8)
    assert torch.equal(distances.argmin(1), codes[:, -1])


def test_padding_row_is_not_read(tokenizer):
    vectors = content()
    table = tokenizer.tokenize(vectors)
    vectors[0] = float("nan")
    assert tokenizer.tokenize(vectors).digest() == table.digest()
    assert table.codes[0].tolist() == [-1] * table.n_levels
    assert table.n_items == 120


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("policy", "levels"), [
    ("suffix", 4), ("sinkhorn", 3), ("share", 3), (["sinkhorn", "suffix"], 4)
])  # fmt: skip
def test_collision_policies_apply(name, policy, levels):
    # 119 items collide under four prefixes; 64 last codes each leave room for all of them, while
    # OPQ's 4 x 4 x 4 codes do not.
    small = {"codebook_size": 4} if name == "OPQ" else {"codebook_size": [2, 2, 64]}
    table = fitted(name, collision=policy, **small).tokenize(content())
    assert table.n_levels == levels
    before = table.meta["before_policy"]
    assert before["collision_rate"] > 0
    distinct = len(table.groups()[1])
    assert before["distinct"] < 119
    if policy == "share":
        assert distinct == before["distinct"]
    elif policy == "sinkhorn" and name == "OPQ":
        assert before["distinct"] < distinct <= 64
    else:
        assert distinct == 119
    assert table.meta["tokenizer"] == name


def test_nan_and_misshapen_content_are_refused(tokenizer):
    bad = content()
    bad[5, 3] = float("nan")
    bad[9, 0] = float("inf")
    for call in (tokenizer.encode, tokenizer.fit, tokenizer.tokenize):
        with pytest.raises(ConfigError, match="NaN or infinite values in 2 rows, first row"):
            call(bad)
        with pytest.raises(ConfigError, match=r"shape \[items, 12\], got \[\d+, 5\]"):
            call(content()[:, :5])


@pytest.mark.parametrize("name", NAMES)
def test_more_codes_than_items_are_reduced_with_a_warning(name, caplog, tmp_path):
    few = content(21)
    tokenizer = fitted(name, few, codebook_size=64)
    expected = (16, 16, 16) if name == "OPQ" else (21, 21, 21)
    assert tokenizer.sizes == expected
    assert "64 codes for 21 items" in caplog.text.replace("(64, 64, 64)", "64")
    table = tokenizer.tokenize(torch.cat([torch.zeros(1, DIM), few]))
    assert table.sizes[:3] == expected
    tokenizer.save(tmp_path / "tokenizer.pth")
    loaded = type(tokenizer).load(tmp_path / "tokenizer.pth")
    assert torch.equal(loaded.encode(few), tokenizer.encode(few))


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("n_items", [1, 2, 5, 20, 60, 200, 900, 1023])
def test_a_small_catalogue_gets_codes_that_items_share_and_sids_enough(n_items, levels):
    size = auto_size(n_items, levels)
    assert size & (size - 1) == 0 and 2 <= size <= 256
    enough = size**levels >= 2 * n_items or size == 256
    assert enough and (size <= max(2, n_items / 4) or (size // 2) ** levels < 2 * n_items)


@pytest.mark.parametrize("n_items", [1024, 1682, 12101, 10**7])
def test_a_usual_catalogue_gets_256_codes(n_items):
    assert auto_size(n_items, 3) == auto_size(n_items, 4) == 256


@pytest.mark.parametrize(("n_items", "size"), [(200, 32), (60, 8), (20, 4)])
@pytest.mark.parametrize("name", NAMES)
def test_without_a_codebook_size_a_small_catalogue_gets_sids_of_use(name, n_items, size, caplog):
    vectors = content(n_items)
    with caplog.at_level("INFO"):
        tokenizer = fitted(name, vectors, codebook_size="auto", sid_levels=3)
    assert tokenizer.sizes == (size,) * 3
    assert f"auto takes {size} codes a level for {n_items} items, in place of 256" in caplog.text
    report = quality_report(tokenizer.tokenize(torch.cat([torch.zeros(1, DIM), vectors])))
    assert collapse_reasons(report, 0.3, 0.2) == []
    too_large = fitted(name, vectors, codebook_size=256, sid_levels=3)
    report = quality_report(too_large.tokenize(torch.cat([torch.zeros(1, DIM), vectors])))
    assert "level a has" in " ".join(collapse_reasons(report, 0.3, 0.2))


@pytest.mark.parametrize("name", NAMES)
def test_items_with_equal_content_get_equal_codes(name):
    vectors = content(40)[torch.arange(120) % 40]
    tokenizer = fitted(name, vectors)
    codes = tokenizer.encode(vectors)
    assert torch.equal(codes[:40], codes[40:80]) and torch.equal(codes[:40], codes[80:])


@pytest.mark.parametrize("name", NAMES)
def test_a_catalogue_without_content_can_still_be_tokenized(name):
    table = fitted(name, torch.zeros(30, DIM)).tokenize(torch.zeros(31, DIM))
    assert len(table.groups()[1]) == 30
    assert table.sizes[-1] == 30


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("options", "message"), [
    ({"codebook_size": 0}, "codebook_size"),
    ({"codebook_size": [8, 8]}, "codebook_size"),
    ({"sid_levels": 0}, "sid_levels: .* must be an integer of at least 1"),
    ({"sid_levels": 2.5}, "sid_levels: .* must be an integer of at least 1"),
])  # fmt: skip
def test_options_that_make_no_sense_are_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        get_tokenizer(name)({**SMALL, **options}, DIM)


@pytest.mark.parametrize("name", NAMES)
def test_options_default_to_the_property_file(name):
    tokenizer = get_tokenizer(name)({}, 64)
    assert tokenizer.options["codebook_size"] == "auto"
    assert tokenizer.options["collision"] == "suffix"
    assert tokenizer.sizes == (256, 256, 256)
    assert get_tokenizer(name)({"codebook_size": None}, 64).sizes == (256, 256, 256)


def changes(name, **options):
    """Whether the codes differ once these options do; the rest of the run is the same."""
    options = dict(options)
    base = options.pop("base", {})
    tables = [fitted(name, **base, **more).tokenize(content()) for more in ({}, options)]
    return tables[0].digest() != tables[1].digest()


@pytest.mark.parametrize(("name", "options"), [
    ("RKMeans", {"codebook_size": 9}),
    ("RKMeans", {"sid_levels": 2}),
    ("RKMeans", {"collision": "share"}),
    ("RKMeans", {"tokenizer_seed": 1}),
    ("RKMeans", {"normalize_residuals": False}),
    ("RKMeans", {"normalize_content": True, "base": {"normalize_residuals": False}}),
    ("RKMeans", {"kmeans_iterations": 1}),
    ("RKMeans", {"kmeans_redo": 4}),
    ("RKMeans", {"kmeans_points_per_code": 3}),
    ("RKMeans", {"sinkhorn_epsilon": 1.0, "base": SINKHORN}),
    ("RKMeans", {"sinkhorn_iterations": 1, "base": SINKHORN}),
    ("PRQKMeans", {"codebook_size": 9}),
    ("PRQKMeans", {"sid_levels": 2}),
    ("PRQKMeans", {"tokenizer_seed": 1}),
    ("PRQKMeans", {"normalize_content": False}),
    ("PRQKMeans", {"remove_mean": False}),
    ("PRQKMeans", {"normalize_residuals": False}),
    ("PRQKMeans", {"update_topk": 1}),
    ("PRQKMeans", {"update_concentration": 2.0}),
    ("PRQKMeans", {"kmeans_iterations": 1}),
    ("PRQKMeans", {"kmeans_points_per_code": 3}),
    ("RVQ", {"codebook_size": 9}),
    ("RVQ", {"sid_levels": 2}),
    ("RVQ", {"tokenizer_seed": 1}),
    ("RVQ", {"normalize_residuals": False}),
    ("RVQ", {"normalize_content": True, "base": {"normalize_residuals": False}}),
    ("RVQ", {"rvq_init_items": 20}),
    ("RVQ", {"tokenizer_steps": 60}),
    ("RVQ", {"tokenizer_batch_size": 10}),
    ("RVQ", {"tokenizer_learning_rate": 0.2}),
    ("OPQ", {"codebook_size": 16}),
    ("OPQ", {"sid_levels": 4}),
    ("OPQ", {"tokenizer_seed": 1}),
    ("OPQ", {"normalize_content": True}),
    ("OPQ", {"opq_iterations": 6}),
    ("OPQ", {"kmeans_iterations": 1}),
    ("OPQ", {"kmeans_redo": 4}),
    ("OPQ", {"kmeans_points_per_code": 3}),
    ("RQVAE", {"codebook_size": 9}),
    ("RQVAE", {"sid_levels": 2}),
    ("RQVAE", {"tokenizer_seed": 1}),
    ("RQVAE", {"normalize_content": False}),
    ("RQVAE", {"rqvae_hidden": [20]}),
    ("RQVAE", {"rqvae_dim": 5}),
    ("RQVAE", {"commitment_weight": 2.0}),
    ("RQVAE", {"tokenizer_epochs": 9}),
    ("RQVAE", {"tokenizer_batch_size": 60}),
    ("RQVAE", {"tokenizer_learning_rate": 0.02}),
    ("RQVAE", {"tokenizer_weight_decay": 2.0}),
    ("RQVAE", {"kmeans_init": False}),
    ("RQVAE", {"random_init": "uniform", "base": {"kmeans_init": False}}),
    ("RQVAE", {"restart_dead_codes": False, "base": {"kmeans_init": False}}),
    ("RQVAE", {"tokenizer_evaluate_every": 3, "base": {
        "tokenizer_select_by": "collision", "tokenizer_epochs": 10}}),
    ("RQVAE", {"tokenizer_select_by": "collision", "base": {"tokenizer_epochs": 10}}),
    ("R3VAE", {"codebook_size": 9}),
    ("R3VAE", {"sid_levels": 2}),
    ("R3VAE", {"tokenizer_seed": 1}),
    ("R3VAE", {"normalize_content": False, "base": {"rating_mode": "ste"}}),
    ("R3VAE", {"rating_mode": "top1_projection"}),
    ("R3VAE", {"rating_temperature": 0.1, "base": {"rating_mode": "softmax"}}),
    ("R3VAE", {"rating_topk": 5, "base": {"rating_mode": "topk"}}),
    ("R3VAE", {"reference_init": "none"}),
    ("R3VAE", {"decoder": "identity"}),
    ("R3VAE", {"reconstruction_loss": "cosine"}),
    ("R3VAE", {"metric_weight": 1.0}),
    ("R3VAE", {"sc_regulariser": False, "base": HEAVY}),
    ("R3VAE", {"pd_regulariser": False, "base": HEAVY}),
    ("R3VAE", {"sc_vectors": "surrogate", "base": HEAVY}),
    ("R3VAE", {"pd_temperature": 9.0, "base": HEAVY}),
    ("R3VAE", {"pd_max_codewords": 2, "base": HEAVY}),
    ("R3VAE", {"commitment_weight": 9.0, "base": {"rating_mode": "ste"}}),
    ("R3VAE", {"kmeans_init": False}),
    ("R3VAE", {"random_init": "uniform", "base": {"kmeans_init": False}}),
    ("R3VAE", {"kmeans_iterations": 1}),
    ("R3VAE", {"kmeans_points_per_code": 3}),
    ("R3VAE", {"tokenizer_steps": 40, "base": {"tokenizer_select_by": "last"}}),
    ("R3VAE", {"tokenizer_batch_size": 60}),
    ("R3VAE", {"tokenizer_learning_rate": 0.05}),
    ("R3VAE", {"tokenizer_weight_decay": 20.0}),
    ("R3VAE", {"clip_gradient": 0.01, "base": {"tokenizer_weight_decay": 1.0}}),
    ("R3VAE", {"tokenizer_evaluate_every": 7, "base": {
        "tokenizer_steps": 40, "rating_mode": "top1_projection"}}),
    ("R3VAE", {"tokenizer_evaluate_items": 30, "base": {"tokenizer_steps": 40}}),
    ("R3VAE", {"tokenizer_patience": 1, "base": {
        "tokenizer_steps": 60, "tokenizer_select_by": "last"}}),
    ("R3VAE", {"tokenizer_select_by": "last", "base": {"tokenizer_steps": 40}}),
])  # fmt: skip
def test_each_option_has_an_effect(name, options):
    assert changes(name, **options)


def test_the_list_of_options_with_an_effect_is_complete():
    marks = test_each_option_has_an_effect.pytestmark[0].args[1]
    shared = {"collision", "sinkhorn_epsilon", "sinkhorn_iterations"}  # the base class reads them
    shared |= {"suffix_numbering", "suffix_size"}
    for name in NAMES:
        tested = {key for tokenizer, options in marks if tokenizer == name for key in options}
        assert set(get_tokenizer(name).default_options()) - tested - shared == set()
