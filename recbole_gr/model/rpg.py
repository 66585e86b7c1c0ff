"""RPG: the codes of the next item's SID predicted in parallel (Hou et al., KDD 2025).

*Generating Long Semantic IDs in Parallel for Recommendation*. SIDs are long and unordered (OPQ, 16
to 64 codes), the history has one token per item, and the codes of the next item are independent of
each other given the history. So every item of the catalogue has its score from one pass; the
paper's decoding along a graph of items is a way to compute fewer of them, and is not here.

The probability of a SID is the product of those of its codes. Over all combinations of codes these
sum to 1; nearly none of them is an item. With ``renormalise``, the default, what is reported is
their softmax over the SIDs of the catalogue: the log-softmax of the sum of the log-probabilities of
the codes. Items that share a SID divide its probability equally, as for any model here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_gr.errors import ConfigError
from recbole_gr.model.backbone import backbone_class
from recbole_gr.model.exact import ExactRecommender
from recbole_gr.model.item_side import ItemSide
from recbole_gr.model.layers import init_weights
from recbole_gr.model.norm import unit
from recbole_gr.sid.trie import SIDTrie

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataset import Dataset
    from recbole.data.interaction import Interaction

    from recbole_gr.sid.table import SIDTable


class RPG(ItemSide, ExactRecommender):
    """Predicts all codes of the next item's SID at once and scores every item by them.

    See the module's docstring; sizes and switches are in ``properties/model/RPG.yaml``.
    """

    codes_in_order = False

    def __init__(
        self, config: Config, dataset: Dataset, sid: SIDTable, content: Tensor | None = None
    ):
        super().__init__(config, dataset, sid, content)
        width, std = config["hidden_size"], config["initializer_range"]
        self.code_embedding = nn.Embedding(sum(self.sizes), width)
        self.backbone = backbone_class(config["backbone"], "RPG")(config)
        self.heads = nn.Linear(width, self.n_levels * width)  # those of all levels side by side
        if std is not None:
            self.apply(lambda module: init_weights(module, std))
        nn.init.zeros_(self.heads.weight)  # each begins as the identity, see `code_logits`
        nn.init.zeros_(self.heads.bias)
        self.temperature = config["temperature"]
        self.label_smoothing = config["label_smoothing"]
        self.one_target = config["train_sample"] == "prefix"

    @classmethod
    def prepare_config(cls, config: dict) -> None:
        """``train_sample: auto`` becomes ``sequence``; may raise ConfigError."""
        super().prepare_config(config)
        if config["loss_normalisation"] == "trie":
            raise ConfigError(
                "loss_normalisation: trie is over the codes that may follow others, and RPG's do "
                "not follow each other; leave it out"
            )
        backbone_class(config["backbone"], "RPG")
        if config["train_sample"] == "auto":
            config["train_sample"] = "sequence"

    @staticmethod
    def tree_of(table: SIDTable) -> SIDTrie:
        """The SIDs without their prefixes, which nothing goes along here."""
        return SIDTrie.flat(table)

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Mean over the levels of the cross-entropy of the target's code, mean over the targets."""
        hidden = self.backbone(self.item_tokens(interaction[self.ITEM_SEQ]))  # [B, T, d]
        if self.one_target:  # a prefix sample: the last position of a row is enough
            hidden = self.last_of(hidden, interaction)
            items, counted = interaction[self.ITEM_ID], None  # [B]
        else:
            items = self.sequence(interaction)[:, 1:]  # [B, T]
            counted = self.counted(interaction)
        logits, target = self.code_logits(hidden), self.codes[items]
        losses = self.level_losses(logits, target, counted, self.label_smoothing)
        loss = torch.stack(losses).mean()
        return loss + self.item_loss(hidden, items, counted) if self.item_head else loss

    def item_tokens(self, items: Tensor) -> Tensor:
        """``[B, T]`` items -> ``[B, T, d]``, the mean of the embeddings of their codes, and what
        the items have beside."""
        codes = (self.codes[items] + self.level_offset).flatten(0, 1)
        tokens = F.embedding_bag(codes, self.code_embedding.weight, mode="mean")
        return self.with_items(tokens.unflatten(0, items.shape), items)

    def code_logits(self, hidden: Tensor) -> list[Tensor]:
        """Per level ``[..., V_l]``: the cosines of a level's head with the embeddings of its codes,
        over the temperature; in single precision, as what divides them by 0.03 needs it.

        Args:
            hidden: ``[..., d]`` of the backbone. A head is ``h + silu(W h + b)``.
        """
        own = F.silu(self.heads(hidden)).unflatten(-1, (self.n_levels, -1)) + hidden.unsqueeze(-2)
        with torch.autocast(hidden.device.type, enabled=False):
            own = unit(own.float())  # [..., L, d]
            books = unit(self.code_embedding.weight.float()) / self.temperature
            levels = zip(own.unbind(-2), books.split(self.sizes))
            return [head @ book.T for head, book in levels]

    def user_state(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` the backbone's state after the last item of each history."""
        hidden = self.backbone(self.item_tokens(interaction[self.ITEM_SEQ]))
        return self.last_of(hidden, interaction)

    def code_log_probs(self, interaction: Interaction) -> Tensor:
        """``[B, L]`` log-probability of each code of each row's own item, whatever the others."""
        logits = self.code_logits(self.user_state(interaction))
        codes = self.codes[interaction[self.ITEM_ID]]
        own = [log_p.log_softmax(-1).gather(1, c) for log_p, c in zip(logits, codes.split(1, 1))]
        return torch.cat(own, 1)

    def sid_scores(self, users: Tensor) -> Tensor:
        """Log-probability of every SID, ``[B, n_leaves]``: the sum of those of its codes; with
        ``renormalise`` their log-softmax over the catalogue.

        Args:
            users: ``[B, d]`` of :meth:`user_state`.
        """
        by_code = torch.cat([logits.log_softmax(-1) for logits in self.code_logits(users)], -1)
        first = self.trie.leaf_item[self.trie.leaf_start[:-1].long()].long()  # an item of each SID
        codes = self.codes[first] + self.level_offset  # [n_leaves, L]
        # A row of the table holds one code's score for all users.
        scores = F.embedding_bag(codes, by_code.T.contiguous(), mode="sum").T.contiguous()
        return scores.log_softmax(1) if self.renormalise else scores
