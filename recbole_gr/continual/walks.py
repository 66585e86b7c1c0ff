"""The SIDs of all periods as a page, a tree for each way in which the tokenizer follows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recbole_gr.pages.parts import SID_PAGE
from recbole_gr.pages.sids import write_sid_page
from recbole_gr.pages.walk import MOST_ITEMS
from recbole_gr.pipeline.item_sids import walk_of

if TYPE_CHECKING:
    import torch
    from recbole.data.dataset import Dataset

    from recbole_gr.config import Config
    from recbole_gr.pipeline.item_sids import ItemSIDs


class PeriodWalks:
    """Collects the tables of the periods by the ways in which a tokenizer follows them."""

    def __init__(self) -> None:
        self._versions: dict[str, dict[str, torch.Tensor]] = {}
        self._last: dict[str, tuple[Config, Dataset, ItemSIDs]] = {}

    def add(self, how: str, period: int, config: Config, train: Dataset, sids: ItemSIDs) -> None:
        """Note the SIDs of a period; those of the last one are shown."""
        codes = sids.table.codes[1:].cpu()
        self._versions.setdefault(how, {})[f"period {period}"] = codes
        self._last[how] = config, train, sids

    def write(self, folder: Path) -> dict[str, str]:
        """Write ``walk-<how>.npz`` of each way, and ``sids.html`` of those that reach the last
        period.

        Returns:
            dict: the path of the page by "sids page"; nothing for very large catalogues.
        """
        most = max((sids.table.n_items for _, _, sids in self._last.values()), default=0)
        if not most or most > MOST_ITEMS:
            return {}
        shown = []
        for how, (config, train, sids) in self._last.items():
            walk = walk_of(config, train, sids, how, self._versions[how])
            walk.save(folder / f"walk-{how}.npz")
            shown += [walk] if sids.table.n_items == most else []
        page = write_sid_page(shown, folder / SID_PAGE, "SIDs of the periods")
        return {"sids page": str(page)}
