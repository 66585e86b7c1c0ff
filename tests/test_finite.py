"""A model whose training diverged does not answer."""

import math
import re

import numpy as np
import pytest
import torch

from recbole_gr.errors import ConfigError
from recbole_gr.serving import export, recommend
from recbole_gr.serving.restore import restore
from recbole_gr.storage.checkpoint import load_checkpoint
from recbole_gr.trainer.weights import require_finite


@pytest.mark.parametrize("name", ["TIGER", "PIT", "SASRec", "Pop"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused_with_the_first_tensor(name, value, trained):
    restored = restore(trained(name)["checkpoint"])
    require_finite(restored.model, "a.pth")  # masks of -inf are no weights
    parameters = [n for n, p in restored.model.named_parameters() if p.requires_grad and p.numel()]
    first = parameters[len(parameters) // 2]
    dict(restored.model.named_parameters())[first].data.view(-1)[0] = value
    what = "NaN" if math.isnan(value) else "infinity"
    said = rf"a\.pth.*tensor {re.escape(first)} holds {what} \(1 of"
    with pytest.raises(ConfigError, match=said):
        require_finite(restored.model, "a.pth")


def test_buffers_and_what_lies_beside_them_hold_no_nan():
    class Model(torch.nn.Module):
        kept = {"scores": np.zeros(2), "counts": np.zeros(2, dtype=int)}

        def __init__(self):
            super().__init__()
            self.register_buffer("mask", torch.full((2,), float("-inf")))
            self.register_buffer("ids", torch.arange(2))

        def other_parameter(self):
            return self.kept

    model = Model()
    require_finite(model, "a.pth")
    model.kept["scores"][1] = np.nan
    with pytest.raises(ConfigError, match="tensor scores holds NaN"):
        require_finite(model, "a.pth")
    model.mask[1] = np.nan
    with pytest.raises(ConfigError, match="tensor mask holds NaN"):
        require_finite(model, "a.pth")
    require_finite(object(), "a.pth")  # trees


def test_recommend_and_export_refuse_a_model_that_diverged(trained, tmp_path, capsys):
    state = load_checkpoint(trained("TIGER")["checkpoint"])
    name = next(n for n, v in state["state_dict"].items() if v.is_floating_point())
    state["state_dict"][name][0] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    for main, rest in ((recommend.main, "--user=u1"), (export.main, f"--output={tmp_path}/a.pt2")):
        assert main([f"--checkpoint={tmp_path / 'nan.pth'}", rest]) == 2
        message = capsys.readouterr().err
        assert name in message and "holds NaN" in message and "nan.pth" in message
