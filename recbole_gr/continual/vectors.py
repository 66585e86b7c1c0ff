"""Collaborative vectors of the items in every period."""

import logging

import torch

from recbole_gr.continual.store import write_json
from recbole_gr.data.vector_files import collaborative_vectors
from recbole_gr.errors import ConfigError
from recbole_gr.single_run import Start, run_model
from recbole_gr.trainer.checkpoint import load_checkpoint

MODEL = "SASRec"


class CollaborativeVectors:
    """Collaborative vectors of period after period, from files or learned by RecBole's SASRec.

    Learned: SASRec of width ``rqvae_dim`` with sampled negatives (BPR), on the period's training
    targets alone and selected on its validation targets; in a later period it goes on from the one
    before (DACT, section 3.2 and the forensics of the published tables there). Rows of new items
    start as SASRec makes them, close to the zeros of the published tables. The vectors are its item
    embeddings.

    Args:
        config (Config): of the continual run.
        period_config (callable): (period, model, **overrides) -> Config.
        needed (bool): False where no tokenizer asks for vectors.
    """

    def __init__(self, config, period_config, needed):
        self.config, self.period_config, self.needed = config, period_config, needed
        self.checkpoint = None

    def advance(self, items):
        """Vectors ``[n_items - 1, e]`` of a period; None where none are needed.

        Args:
            items (PeriodItems): the period.
        """
        if not self.needed:
            return None
        if items.config["cf_file"]:
            return collaborative_vectors(items.config, items.train)
        file, done = items.folder / "cf.pth", items.folder / "cf.json"
        config = self._settings(items)
        if not done.is_file():
            logging.getLogger().info("Period %d, collaborative vectors", items.period)
            if file.is_file():
                config["resume"] = str(file)  # of a run that was interrupted
            result = run_model(config, start=Start(weights=self.checkpoint, checkpoint=str(file)))
            write_figures(done, result)
        self.checkpoint = str(file)
        vectors = load_checkpoint(file, map_location="cpu")["state_dict"]["item_embedding.weight"]
        if len(vectors) != len(items.content.item_tokens):
            raise ConfigError(
                f"{file} holds vectors of {len(vectors) - 1} items, the period has "
                f"{len(items.content.item_tokens) - 1}: remove the folder to learn them anew"
            )
        return torch.as_tensor(vectors[1:]).float()

    def _settings(self, items):
        rate = "cf_continual_learning_rate" if items.period else "cf_learning_rate"
        return self.period_config(
            items.period,
            MODEL,
            hidden_size=items.config["rqvae_dim"],
            n_layers=2,
            n_heads=2,
            inner_size=256,
            loss_type="BPR",
            train_neg_sample_args={
                "distribution": "uniform",
                "sample_num": 1,
                "alpha": 1.0,
                "dynamic": False,
                "candidate_num": 0,
            },  # fmt: skip
            train_batch_size=self.config["cf_batch_size"],
            epochs=self.config["cf_epochs"],
            stopping_step=self.config["cf_stopping_step"],
            learning_rate=self.config[rate],
            checkpoint_dir=str(items.folder),
        )


def write_figures(path, result):
    """What learning the vectors took, and how well the model itself recommends."""
    kept = ("best_valid_result", "test_result", "best_epoch", "epochs_run", "seconds_per_epoch")
    write_json(path, {key: result[key] for key in kept})
