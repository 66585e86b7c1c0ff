"""OPQ against FAISS's own product quantiser."""

import faiss
import numpy as np
import pytest
import torch
from test_tokenizer_base import DIM, SMALL, content, fitted

from recbole_gr.errors import ConfigError
from recbole_gr.registry import get_tokenizer


def test_codes_are_those_of_faiss_with_the_same_centroids():
    tokenizer = fitted("OPQ")
    rotated = (content() @ tokenizer.rotation.T).numpy()
    quantizer = faiss.ProductQuantizer(DIM, 3, 3)
    faiss.copy_array_to_vector(tokenizer.centroids.numpy().ravel(), quantizer.centroids)
    packed = quantizer.compute_codes(np.ascontiguousarray(rotated)).astype(int)
    bits = packed[:, 0] + (packed[:, 1] << 8)  # 3 bits a level, lowest first
    unpacked = np.stack([bits & 7, bits >> 3 & 7, bits >> 6 & 7], 1)
    assert tokenizer.encode(content()).tolist() == unpacked.tolist()


def test_rotation_is_orthonormal():
    rotation = fitted("OPQ").rotation
    assert torch.allclose(rotation @ rotation.T, torch.eye(DIM), atol=1e-4)


def test_rotation_reduces_content_that_does_not_divide_by_the_levels():
    tokenizer = fitted("OPQ", sid_levels=5)
    assert tokenizer.rotation.shape == (10, DIM)
    assert torch.allclose(tokenizer.rotation @ tokenizer.rotation.T, torch.eye(10), atol=1e-4)
    assert tokenizer.encode(content()).shape == (120, 5)


def test_learned_rotation_loses_less_than_none():
    # Dimensions that belong together lie apart, so that unrotated parts are hard to quantise.
    torch.manual_seed(0)
    centres = torch.randn(8, DIM)
    vectors = torch.cat(
        [centres[torch.randint(0, 8, (400,))][:, level::3] for level in range(3)], 1
    )
    vectors = vectors @ torch.linalg.qr(torch.randn(DIM, DIM))[0]
    tokenizer = get_tokenizer("OPQ")({**SMALL, "opq_iterations": 20}, DIM)
    error = tokenizer.fit(vectors, progress=False).figures["residual"]
    plain = faiss.ProductQuantizer(DIM, 3, 3)
    plain.train(vectors.numpy())
    decoded = torch.from_numpy(plain.decode(plain.compute_codes(vectors.numpy())))
    assert error < 0.8 * float((vectors - decoded).square().sum() / vectors.square().sum())


@pytest.mark.parametrize("size", [1, 100, [8, 8, 16]])
def test_codebook_size_must_be_one_power_of_two(size):
    with pytest.raises(ConfigError, match="one power of two"):
        get_tokenizer("OPQ")({**SMALL, "codebook_size": size}, DIM)


def test_more_levels_than_dimensions_are_refused():
    with pytest.raises(ConfigError, match="sid_levels: OPQ splits .* only 12 dimensions"):
        get_tokenizer("OPQ")({**SMALL, "sid_levels": 13}, DIM)
