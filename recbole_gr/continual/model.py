"""The model name `DACT`: a recommender and its tokenizer over all periods of a data set."""

from recbole_gr.continual.methods import prepare
from recbole_gr.model.tiger import TIGER


class DACT(TIGER):
    """Stands for a run over all periods of the data (:mod:`recbole_gr.continual`).

    DACT (arXiv 2603.29705) is a tokenizer that follows the drift of items, and a way to go on with
    a recommender from period to period; it works with every generative model
    (``--continual.model``). Where a single period is asked for (``continual_period``), the name
    means TIGER on DACT's SIDs of that period.
    """

    continual = True

    @classmethod
    def prepare_config(cls, config: dict) -> None:
        prepare(config)
        super().prepare_config(config)
