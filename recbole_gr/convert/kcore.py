"""Selection of interactions: repeated ones, and the k-core."""

import numpy as np

DUPLICATES = ("keep", "first", "last")


def k_core(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """Interactions of the largest set in which every user and every item has at least `k`.

    Users and items with fewer are taken out in turns until none is left; the order does not matter
    to the result. Repeated interactions of a user with an item count as often as they are there.
    A round costs time in the interactions left.

    Args:
        users, items (numpy.ndarray): [n] codes from 0.
        k (int): at least 1.

    Returns:
        numpy.ndarray: positions that stay, rising.
    """
    kept = np.arange(len(users))
    while len(kept):
        rich_user = np.bincount(users[kept]) >= k
        rich_item = np.bincount(items[kept]) >= k
        stays = rich_user[users[kept]] & rich_item[items[kept]]
        if stays.all():
            break
        kept = kept[stays]
    return kept


def without_duplicates(
    users: np.ndarray, items: np.ndarray, times: np.ndarray | None, which: str
) -> np.ndarray:
    """One interaction for each pair of user and item.

    Args:
        users, items (numpy.ndarray): [n] codes.
        times (numpy.ndarray | None): [n]; without them, and among equal ones, the order given
            counts.
        which (str): `keep` all, the `first` or the `last` in time.

    Returns:
        numpy.ndarray: positions that stay, rising.
    """
    position = np.arange(len(users))
    if which == "keep" or not len(users):
        return position
    order = position if times is None else np.argsort(times, kind="stable")
    if which == "last":
        order = order[::-1]
    pair = users.astype(np.int64) * (int(items.max()) + 1) + items
    _, first = np.unique(pair[order], return_index=True)
    return np.sort(order[first])
