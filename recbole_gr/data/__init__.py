"""Data sets, training samples and item content."""

from recbole_gr.data.content import ItemContent, item_content
from recbole_gr.data.dataset import GenerativeDataset
from recbole_gr.data.loader import GenerativeTrainLoader
from recbole_gr.data.prepare import create_dataset, data_preparation, prepared_data

__all__ = [
    "GenerativeDataset",
    "GenerativeTrainLoader",
    "ItemContent",
    "create_dataset",
    "data_preparation",
    "item_content",
    "prepared_data",
]
