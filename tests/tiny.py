"""A small generated RecBole data set for tests: sequences that a model can learn something from."""

from pathlib import Path

import numpy as np

GENRES = ("drama", "comedy", "horror", "western", "romance", "crime")
WORDS = (
    "night",
    "river",
    "stone",
    "garden",
    "winter",
    "letter",
    "shadow",
    "train",
    "island",
    "voice",
)


def write_tiny_dataset(folder, name="tiny", n_users=60, n_items=40, seed=0):
    """Write `<folder>/<name>/<name>.{inter,item}` and return `folder`, the `data_path` to give.

    Each user walks through the catalogue, mostly from item i to an item near i, so the next item
    depends on the last one. Every user has at least 5 interactions, every item appears, no user has
    the same item twice, and a user's timestamps are distinct. Items have a title of words and one
    or two genres; items near each other share their first genre.

    Args:
        folder (str | pathlib.Path): parent folder, made if missing.
        name (str): name of the data set.
        n_users (int): number of users.
        n_items (int): number of items, at least 10.
        seed (int): the same seed writes the same files.

    Returns:
        pathlib.Path: `folder`.
    """
    rng = np.random.default_rng(seed)
    path = Path(folder, name)
    path.mkdir(parents=True, exist_ok=True)

    rows = []
    for user in range(n_users):
        length = int(rng.integers(5, min(20, n_items)))
        item = user % n_items  # every item starts some user's walk when there are enough users
        seen, time = [], int(rng.integers(1_000, 2_000))
        while len(seen) < length:
            seen.append(item)
            rows.append((f"u{user}", f"i{item}", int(rng.integers(1, 6)), time))
            time += int(rng.integers(1, 100))
            free = np.setdiff1d(np.arange(n_items), seen)
            distance = (free - item) % n_items
            step = np.exp(-distance / 3.0)
            item = int(rng.choice(free, p=step / step.sum()))
    unseen = set(range(n_items)) - {int(item[1:]) for _, item, _, _ in rows}
    for item in sorted(unseen):  # few users: give the last user whatever is left
        rows.append((f"u{n_users - 1}", f"i{item}", 3, time))
        time += 1
    rng.shuffle(rows)  # RecBole must do the sorting
    with open(path / f"{name}.inter", "w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\trating:float\ttimestamp:float\n")
        file.writelines("\t".join(map(str, row)) + "\n" for row in rows)

    with open(path / f"{name}.item", "w", encoding="utf-8") as file:
        file.write("item_id:token\ttitle:token_seq\tgenre:token_seq\n")
        for item in rng.permutation(n_items):  # the order of the file is not the order of the ids
            title = " ".join(rng.choice(WORDS, size=3, replace=False))
            genres = [GENRES[item * len(GENRES) // n_items]]
            if rng.random() < 0.5:
                genres.append(GENRES[int(rng.integers(len(GENRES)))])
            file.write(f"i{item}\t{title}\t{' '.join(dict.fromkeys(genres))}\n")
    return Path(folder)


def read_sequences(folder, name="tiny"):
    """Items of each user in the order of time, read without RecBole; tokens as in the file."""
    with open(Path(folder, name, f"{name}.inter"), encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    sequences = {}
    for user, item, _, _ in sorted(rows, key=lambda row: (row[0], float(row[3]))):
        sequences.setdefault(user, []).append(item)
    return sequences
