"""RQ-VAE: losses and gradients by hand, codebook initialisation, restarts, selection."""

import pytest
import torch
from test_tokenizer_base import DIM, SMALL, content, fitted

from recbole_gr.errors import ConfigError
from recbole_gr.tokenizer.kmeans import kmeans
from recbole_gr.tokenizer.rqvae import RQVAE, quantize, rqvae_losses


def make(**options):
    return RQVAE({**SMALL, **options}, DIM)


def test_quantization_is_nearest_codeword_level_by_level():
    tokenizer = make()
    latent = tokenizer.encoder(content()).detach()
    codes, quantized, residuals, words = quantize(latent, list(tokenizer.codebooks))
    for row in range(0, 120, 7):
        residual = latent[row]
        for level, book in enumerate(tokenizer.codebooks):
            assert torch.allclose(residuals[level][row], residual, atol=1e-5)
            code = int((residual - book).square().sum(1).argmin())
            assert int(codes[row, level]) == code
            assert torch.equal(words[level][row], book[code])
            residual = residual - book[code]
        assert torch.allclose(quantized[row], latent[row] - residual, atol=1e-5)


def test_training_and_encoding_agree_on_the_codes():
    tokenizer = fitted("RQVAE", normalize_content=False)
    with torch.no_grad():
        codes = tokenizer(content())[0]
    assert torch.equal(codes, tokenizer.encode(content()))


@torch.no_grad()
def test_losses_are_sums_over_dimensions_and_means_over_items():
    tokenizer = make()
    _, decoded, residuals, words = tokenizer(content())
    reconstruction, codebook, commitment = rqvae_losses(content(), decoded, residuals, words)
    by_hand = [0.0, 0.0]
    for row in range(120):
        by_hand[0] += sum(float(v) ** 2 for v in (content()[row] - decoded[row])) / 120
        for r, e in zip(residuals, words):
            by_hand[1] += sum(float(v) ** 2 for v in (r[row] - e[row])) / 120
    assert float(reconstruction) == pytest.approx(by_hand[0], rel=1e-4)
    assert float(codebook) == pytest.approx(by_hand[1], rel=1e-4)
    assert float(commitment) == pytest.approx(by_hand[1], rel=1e-4)


@pytest.mark.parametrize("weight", [0.0, 0.25, 3.0])
def test_commitment_weight_weighs_the_commitment(weight):
    tokenizer = make(commitment_weight=weight)
    _, decoded, residuals, words = tokenizer(content())
    reconstruction, codebook, commitment = rqvae_losses(content(), decoded, residuals, words)
    loss = tokenizer.loss(content())[0].detach()
    assert float(loss) == pytest.approx(
        float((reconstruction + codebook + weight * commitment).detach())
    )


def gradients(tokenizer, loss):
    tokenizer.zero_grad()
    loss.backward()
    return {
        name: parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        for name, parameter in tokenizer.named_parameters()
    }


def test_each_loss_reaches_the_parameters_it_should():
    tokenizer = make()

    def losses():
        _, decoded, residuals, words = tokenizer(content())
        return rqvae_losses(content(), decoded, residuals, words)

    for index, reached in enumerate([("encoder", "decoder"), ("codebooks",), ("encoder",)]):
        for name, has_gradient in gradients(tokenizer, losses()[index]).items():
            assert has_gradient == name.startswith(reached), (index, name)


def test_reconstruction_gradient_passes_straight_through():
    tokenizer = make()
    latent = tokenizer.encoder(content())
    _, quantized, _, _ = quantize(latent, list(tokenizer.codebooks))
    point = quantized.detach().requires_grad_()
    (content() - tokenizer.decoder(point)).square().sum().backward()
    tokenizer.encoder.zero_grad()
    tokenizer.encoder(content()).backward(point.grad / 120)
    expected = [p.grad.clone() for p in tokenizer.encoder.parameters()]
    tokenizer.zero_grad()
    _, decoded, residuals, words = tokenizer(content())
    rqvae_losses(content(), decoded, residuals, words)[0].backward()
    for parameter, gradient in zip(tokenizer.encoder.parameters(), expected):
        assert torch.allclose(parameter.grad, gradient, atol=1e-6)


def test_codebooks_start_at_residual_kmeans_of_all_latents():
    tokenizer = make(tokenizer_seed=3)
    tokenizer._initialize_codebooks(content())
    residual = tokenizer.encoder(content()).detach()
    for level, book in enumerate(tokenizer.codebooks):
        assert torch.equal(book, kmeans(residual, 8, seed=3 + 1000 * level))
        owner = torch.cdist(residual, book.detach()).argmin(1)
        assert len(owner.unique()) == 8
        residual = residual - book.detach()[owner]


def test_dead_codes_restart_at_residuals_and_others_stay():
    tokenizer = make()
    before = [book.detach().clone() for book in tokenizer.codebooks]
    residuals = [torch.randn(20, 6) for _ in range(3)]
    use = [torch.tensor([5.0, 0, 3, 0, 1, 1, 1, 1])] * 3
    tokenizer._restart(use, residuals)
    for book, old, residual in zip(tokenizer.codebooks, before, residuals):
        for code, count in enumerate(use[0]):
            if count:
                assert torch.equal(book[code], old[code])
            else:
                assert any(torch.equal(book[code], row) for row in residual)


def test_restarts_bring_dead_codes_back_into_use():
    far = {"kmeans_init": False, "tokenizer_epochs": 12, "codebook_size": 16}

    def used(restart):
        tokenizer = make(**far, restart_dead_codes=restart)
        with torch.no_grad():
            for book in tokenizer.codebooks:
                book[2:] += 1000
        tokenizer.fit(content(), progress=False)
        return [len(column.unique()) for column in tokenizer.encode(content()).T]

    assert max(used(False)) <= 2
    assert min(used(True)) > 8


def test_training_lowers_the_reconstruction_error_and_reports_it():
    tokenizer = make(tokenizer_epochs=30)
    report = tokenizer.fit(content(), progress=False)
    errors = [figures["reconstruction"] for figures in report.history]
    assert [figures["epoch"] for figures in report.history] == list(range(2, 31, 2))
    assert errors[-1] < 0.5 * errors[0]
    vectors = torch.nn.functional.normalize(content(), dim=1)
    with torch.no_grad():
        decoded = tokenizer(vectors)[1]
    error = float((vectors - decoded).square().sum(1).mean())
    assert report.figures["reconstruction"] == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize(("select_by", "figure"), [
    ("loss", "reconstruction"), ("collision", "collision_rate"), ("last", None)
])  # fmt: skip
def test_the_selected_epoch_is_kept(select_by, figure):
    tokenizer = make(tokenizer_epochs=12, tokenizer_select_by=select_by)
    report = tokenizer.fit(content(), progress=False)
    expected = report.history[-1]
    if figure is not None:
        expected = min(report.history, key=lambda figures: figures[figure])
    assert report.figures == expected
    codes = [tuple(row) for row in tokenizer.encode(content()).tolist()]
    sharing = sum(codes.count(code) > 1 for code in codes) / 120
    assert report.figures["collision_rate"] == pytest.approx(sharing)


def test_signals_reach_the_loss_row_by_row():
    class WithSignals(RQVAE):
        default_config = RQVAE.default_options()

        def loss(self, content, signals=None):
            assert torch.equal(signals["first"], content[:, 0])
            return super().loss(content, signals)

    vectors = content()
    tokenizer = WithSignals({**SMALL, "normalize_content": False}, DIM)
    tokenizer.fit(vectors, signals={"first": vectors[:, 0]}, progress=False)


def test_divergence_is_reported_with_its_remedy():
    with pytest.raises(ConfigError, match="diverged in epoch .* lower tokenizer_learning_rate"):
        make(tokenizer_learning_rate=1e30).fit(content(), progress=False)


@pytest.mark.parametrize(("options", "message"), [
    ({"tokenizer_select_by": "luck"}, "tokenizer_select_by: .* is not one of"),
    ({"tokenizer_epochs": 0}, "tokenizer_epochs: .* must be an integer of at least 1"),
    ({"tokenizer_learning_rate": -1}, "tokenizer_learning_rate: .* must be a number above 0"),
    ({"rqvae_hidden": [0]}, "rqvae_hidden: .* must be a list, each an integer"),
])  # fmt: skip
def test_rqvae_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options).fit(content(), progress=False)
