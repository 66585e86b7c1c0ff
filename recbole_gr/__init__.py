"""RecBole-GR: generative recommendation with RecBole."""

from typing import Any

from recbole_gr import compat

# RecBole reads names that newer numpy, scipy and pandas dropped; they must exist before it is
# imported.
compat.apply()

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Imported on demand: `recbole_gr.sid` and `recbole_gr.generation` need torch alone.
    if name == "run_recbole_gr":
        from recbole_gr.quick_start import run_recbole_gr

        return run_recbole_gr
    if name == "Config":
        from recbole_gr.config import Config

        return Config
    if name == "load_data_and_model":
        from recbole_gr.restore import load_data_and_model

        return load_data_and_model
    if name == "Recommender":
        from recbole_gr.inference import Recommender

        return Recommender
    raise AttributeError(f"module 'recbole_gr' has no attribute '{name}'")
