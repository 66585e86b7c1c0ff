"""RecBole's causal models without dropout, on the generated data, for tests of their training."""

import torch

from recbole_gr.config import Config
from recbole_gr.data import prepared_data
from recbole_gr.pipeline.item_sids import content_vectors
from recbole_gr.run.model import build_model, needs_content

LOADED = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "genre"]}
NO_DROPOUT = {
    "SASRec": {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0},
    "SASRecF": {
        "hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "selected_features": ["genre"],
        "pooling_mode": "mean", "load_col": LOADED,
    },
    "GRU4Rec": {"dropout_prob": 0.0},
    "GRU4RecF": {
        "dropout_prob": 0.0, "selected_features": ["genre"], "pooling_mode": "mean",
        "load_col": LOADED,
    },
}  # fmt: skip


def make(folder, model="SASRec", **settings):
    """A model and the loader of its training batches."""
    given = {"data_path": str(folder), "train_batch_size": 100, **NO_DROPOUT[model], **settings}
    config = Config(model, "tiny", config_dict=given)
    torch.manual_seed(3)
    _, (train, _, _) = prepared_data(config)
    text = needs_content(config)
    parts = (None, content_vectors(config, train._dataset)) if text else ()
    torch.manual_seed(3)
    return build_model(config, train._dataset, *parts), train
