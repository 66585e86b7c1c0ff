"""RecBole-GR: generative recommendation with RecBole.

The public names, imported when they are first used: `import recbole_gr` loads neither torch nor
RecBole. `R3VAE` and `DACT` are the tokenizers here; the models of these names, for `--model=`, are
TIGER on their SIDs.
"""

import importlib
from typing import TYPE_CHECKING, Any

from recbole_gr import compat
from recbole_gr.compat.memory import keep_memory

if TYPE_CHECKING:
    from recbole_gr.config import Config as Config
    from recbole_gr.errors import ConfigError as ConfigError
    from recbole_gr.fusion.model import Fusion as Fusion
    from recbole_gr.model.backbone import Backbone as Backbone
    from recbole_gr.model.base import GenerativeRecommender as GenerativeRecommender
    from recbole_gr.model.intrr.model import IntRR as IntRR
    from recbole_gr.model.pit.model import PIT as PIT
    from recbole_gr.model.rpg import RPG as RPG
    from recbole_gr.model.tiger import TIGER as TIGER
    from recbole_gr.quick_start import run_recbole_gr as run_recbole_gr
    from recbole_gr.registry import register_backbone as register_backbone
    from recbole_gr.registry import register_model as register_model
    from recbole_gr.registry import register_tokenizer as register_tokenizer
    from recbole_gr.serving.recommender import Recommender as Recommender
    from recbole_gr.serving.restore import load_data_and_model as load_data_and_model
    from recbole_gr.sid.table import SIDTable as SIDTable
    from recbole_gr.sid.trie import SIDTrie as SIDTrie
    from recbole_gr.tokenizer.base import Tokenizer as Tokenizer
    from recbole_gr.tokenizer.collaborative.dact import DACT as DACT
    from recbole_gr.tokenizer.collaborative.letter import LETTER as LETTER
    from recbole_gr.tokenizer.i2i_rkmeans import I2IRKMeans as I2IRKMeans
    from recbole_gr.tokenizer.opq import OPQ as OPQ
    from recbole_gr.tokenizer.prqkmeans import PRQKMeans as PRQKMeans
    from recbole_gr.tokenizer.r3vae.model import R3VAE as R3VAE
    from recbole_gr.tokenizer.rkmeans import RKMeans as RKMeans
    from recbole_gr.tokenizer.rqvae import RQVAE as RQVAE
    from recbole_gr.tokenizer.rvq import RVQ as RVQ

# RecBole reads names that newer numpy, scipy and pandas dropped; they must exist before it is
# imported.
compat.apply()
keep_memory()  # before torch has any

__version__ = "0.1.0"

_MODULES = {  # public name -> the module that it is in, as above for type checkers
    "Backbone": "model.backbone",
    "Config": "config",
    "ConfigError": "errors",
    "DACT": "tokenizer.collaborative.dact",
    "Fusion": "fusion.model",
    "GenerativeRecommender": "model.base",
    "I2IRKMeans": "tokenizer.i2i_rkmeans",
    "IntRR": "model.intrr.model",
    "LETTER": "tokenizer.collaborative.letter",
    "OPQ": "tokenizer.opq",
    "PIT": "model.pit.model",
    "PRQKMeans": "tokenizer.prqkmeans",
    "R3VAE": "tokenizer.r3vae.model",
    "RKMeans": "tokenizer.rkmeans",
    "RPG": "model.rpg",
    "RQVAE": "tokenizer.rqvae",
    "RVQ": "tokenizer.rvq",
    "Recommender": "serving.recommender",
    "SIDTable": "sid.table",
    "SIDTrie": "sid.trie",
    "TIGER": "model.tiger",
    "Tokenizer": "tokenizer.base",
    "load_data_and_model": "serving.restore",
    "register_backbone": "registry",
    "register_model": "registry",
    "register_tokenizer": "registry",
    "run_recbole_gr": "quick_start",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'recbole_gr' has no attribute '{name}'")
    return getattr(importlib.import_module(f"recbole_gr.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*_MODULES, *(name for name in globals() if name.startswith("__"))])
