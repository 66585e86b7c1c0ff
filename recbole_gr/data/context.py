"""The data set of context-aware models, with or without the item id among the features."""

from typing import Any

from recbole.data.dataset import Dataset
from recbole.utils import FeatureSource


class ContextDataset(Dataset):
    """RecBole's data set that keeps the item id from context-aware models (``hide_item_id``).

    They ask for their features by source. Everything else (joins, splits, evaluation) still has the
    item id, so that models with SIDs in its place see the same rows.
    """

    def fields(self, ftype: Any = None, source: Any = None) -> list[str]:
        """As RecBole's, without the item id where a model asks for its features."""
        names = super().fields(ftype, source)
        if source is not None and FeatureSource.ITEM_ID in source:
            names = [name for name in names if name != self.iid_field]
        return names
