"""Configurations, generated interactions and slow references for the tests of the data part."""

from pathlib import Path

import numpy as np
from recbole.config import Config
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType

LEAVE_ONE_OUT = {
    "split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"
}
RATIO = {"split": {"RS": [0.6, 0.2, 0.2]}, "order": "TO", "group_by": "user", "mode": "full"}


class Generative(SequentialRecommender):
    """Stands for a generative model where only the data are looked at."""

    generative = True
    history_fields = ()
    input_type = InputType.POINTWISE


class GenerativeWithAllFields(Generative):
    history_fields = None


class GenerativeWithTimes(Generative):
    history_fields = ("timestamp",)


def make_config(folder, model=Generative, name="tiny", **values):
    """RecBole's Config of `model` on `<folder>/<name>`; needs the fixture `quiet_argv`."""
    settings = {
        "data_path": str(folder),
        "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
        "eval_args": LEAVE_ONE_OUT,
        "train_neg_sample_args": None,
        "train_batch_size": 16,
        "MAX_ITEM_LIST_LENGTH": 5,
        "use_gpu": False,
        "show_progress": False,
        "checkpoint_dir": str(Path(folder, "saved")),
        "content_cache_dir": str(Path(folder, "content")),
    }
    settings.update(values)
    return Config(model=model, dataset=name, config_dict=settings)


def write_random_inter(folder, name, seed, n_users=25, n_items=12, longest=17):
    """Interactions with repeated items, equal times and sequences from 1 to `longest` items."""
    rng = np.random.default_rng(seed)
    path = Path(folder, name)
    path.mkdir(parents=True, exist_ok=True)
    rows = []
    for user in range(n_users):
        length = 1 if user % 7 == 3 else longest if user == 0 else int(rng.integers(1, longest + 1))
        for time in rng.integers(0, max(2, length // 2 * 3), size=length):
            item, rating = rng.integers(n_items), rng.integers(1, 6) / 2
            rows.append(f"u{user}\ti{item}\t{rating}\t{1_000_000 + time * 60}\n")
    rng.shuffle(rows)
    with open(path / f"{name}.inter", "w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\trating:float\ttimestamp:float\n")
        file.writelines(rows)
    return Path(folder)


def count_targets(dataset, rows, n_targets):
    """Slow reference: every counted prediction of the given rows, spelled out.

    Returns:
        dict: (user, history seen by the prediction, target) -> how often it is counted.
    """
    counted = {}
    table = dataset.inter_feat
    for row, n in zip(rows.tolist(), n_targets.tolist()):
        length = int(table["item_length"][row])
        history = table["item_id_list"][row, :length].tolist()
        sequence = history + [int(table["item_id"][row])]
        for position in range(length - n, length):
            key = (
                int(table["user_id"][row]), tuple(sequence[: position + 1]), sequence[position + 1]
            )
            counted[key] = counted.get(key, 0) + 1
    return counted


def rows_by_user(loader):
    """The rows behind a loader in the order of user and item, in which ranks are told."""
    rows = loader._dataset.inter_feat
    return rows[np.lexsort((rows["item_id"], rows["user_id"]))]
