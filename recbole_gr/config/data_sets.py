"""Names of the data sets at hand, for the error of an unknown one."""

from __future__ import annotations

from pathlib import Path


def data_sets_in(folder: str | Path, bundled: bool = False) -> list[str]:
    """Names of the data sets below a folder.

    Args:
        folder (str | pathlib.Path): `data_path` as a user gives it; it need not be there.
        bundled (bool): with those that come with RecBole.

    Returns:
        list[str]: names of folders that hold interactions of their name, whole or in parts.
    """
    parents = [Path(folder)]
    if bundled:
        import recbole

        parents.append(Path(recbole.__file__).parent / "dataset_example")
    found = {
        path.parent.name
        for parent in parents
        for path in parent.glob("*/*.inter")
        if path.name.startswith(f"{path.parent.name}.")
    }
    return sorted(found)
