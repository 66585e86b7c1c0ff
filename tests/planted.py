"""Data with planted groups: users take items of one group, and content knows nothing of them."""

import copy

import torch
from models import random_table, rows_of
from pit_models import small_pit
from recbole.data.interaction import Interaction

N_GROUPS, PER_GROUP, N_USERS, LENGTH = 12, 16, 800, 10
N_ITEMS = N_GROUPS * PER_GROUP
SIZES = (12, 12, 12)
SETTINGS = {
    "hidden_size": 32, "head_size": 16, "inner_size": 64, "n_layers": 1, "n_context_layers": 1,
    "n_i2t_layers": 1, "dropout": 0.1, "initializer_range": 0.02, "csa_negatives": 1,
    "index_item_prior": "popularity", "loss_normalisation": "trie", "MAX_ITEM_LIST_LENGTH": LENGTH,
}  # fmt: skip


def planted_rows(seed=0, n_users=N_USERS):
    """``(rows, groups [N_ITEMS + 1])``; three of four items of a user are of the user's group, the
    others of any. Users from ``N_USERS`` on are others than those before."""
    generator = torch.Generator().manual_seed(seed)
    group = torch.cat([torch.tensor([-1]), torch.randperm(N_ITEMS, generator=generator) % N_GROUPS])
    members = group[1:].argsort(stable=True).view(N_GROUPS, PER_GROUP) + 1
    of_user = torch.randint(N_GROUPS, (n_users, 1), generator=generator)
    shape = (n_users, LENGTH + 1)
    stray = torch.rand(shape, generator=generator) < 0.25
    taken = torch.where(stray, torch.randint(N_GROUPS, shape, generator=generator), of_user)
    items = members[taken, torch.randint(PER_GROUP, shape, generator=generator)]
    rows = Interaction(
        {
            "user_id": torch.arange(1, n_users + 1),
            "item_id_list": items[:, :LENGTH],
            "item_length": torch.full((n_users,), LENGTH),
            "item_id": items[:, LENGTH],
            "n_targets": torch.full((n_users,), LENGTH),
        }
    )
    return rows, group


def planted_pit(rows, seed=0, **options):
    """An untrained PIT on the planted rows, its SIDs drawn at random."""
    items = torch.cat([rows["item_id_list"], rows["item_id"].unsqueeze(1)], 1)
    users = rows["user_id"].unsqueeze(1).expand_as(items)
    content = torch.randn(N_ITEMS + 1, 16, generator=torch.Generator().manual_seed(seed + 1))
    return small_pit(
        table=random_table(N_ITEMS, SIZES, seed), seed=seed, content=content,
        popularity=torch.bincount(items.flatten(), minlength=N_ITEMS + 1),
        taken={"user_id": users.flatten(), "item_id": items.flatten()},
        **{**SETTINGS, "evolve": "items", **options},
    )  # fmt: skip


def train(model, rows, n_epochs, seed=0, lr=3e-3, batch=100):
    """Train for some epochs of the present phase; returns the figures of each."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.05)
    figures = []
    for epoch in range(n_epochs):
        model.train()
        if model.phase == 2:
            model.begin_epoch(epoch, n_epochs)
        for chosen in torch.randperm(N_USERS, generator=generator).split(batch):
            optimizer.zero_grad()
            model.calculate_loss(rows_of(rows, chosen)).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        figures.append(model.end_epoch())
        model.eval()
    return figures


@torch.no_grad()
def log_prob_of_targets(model, rows):
    """``[n]`` exact log-probability of the target of each row."""
    scores = torch.cat(
        [model.exact(rows_of(rows, part)) for part in torch.arange(len(rows)).split(500)]
    )
    return scores.gather(1, rows["item_id"].unsqueeze(1)).squeeze(1)


def arms_of_one_warm_up(rows, arms, warm_up, epochs, seed=0):
    """Variants of the co-evolution from the same warm-up: ``{name: (model, figures)}``.

    Args:
        arms: ``{name: settings}``.
    """
    first = planted_pit(rows, seed)
    train(first, rows, warm_up, seed)
    weights, done = copy.deepcopy(first.state_dict()), {}
    for name, options in arms.items():
        model = planted_pit(rows, seed, **options)
        own = {k: v for k, v in model.state_dict().items() if k.startswith(model.of_sids)}
        model.load_state_dict({**weights, **own})
        model.start_co_evolution()
        done[name] = model, train(model, rows, epochs, seed)
    return done
