"""Whether moves of items that PIT accepts pay for users who had no say in them.

Claim checked: a move pays, by the rule of ``evolve_accept: halves``, on users whom neither half
knew; by that of ``all``, the best of many gains of two or three targets each is taken.

The rounds of a co-evolution run as they do in training, but nothing moves. The users that a round
leaves out are cut into parts: each rule sees all parts but one, and what its moves pay is taken
from that one, in the log-probability of the target's prefix and of the item on it. All parts take
turns, so that every target judges once. Standard errors are over items. A rule has a part of the
users less than in training.

Run: ``python benchmarks/pit_moves.py studies/pit/study.yaml --dataset=Amazon_Beauty
--data_path=../shared/data`` (the settings of a study, and any key after them).
"""

import sys
from pathlib import Path

import torch
import yaml
from paired import print_table

from recbole_gr import run_recbole_gr
from recbole_gr.model.pit.evolving import EvolvingItems
from recbole_gr.model.pit.moves import best_moves, half_of, what_pays

N_PARTS = 5
RULES = {
    f"{accept}, {margin:g}": (accept, margin)
    for accept in ("all", "halves")
    for margin in (1.0, 2.0)
}


class Watched:
    """The gains of each target in every round of a run, user by user, while it is patched."""

    def __init__(self):
        self.rounds = []
        self._judge, self._add, self._move = (
            vars(EvolvingItems)[name] for name in ("_judge", "_add", "_move")
        )

    def __enter__(self):
        watch, found = self, []

        def judge(model, interaction, left_out):
            model.watched_users = interaction[model.USER_ID][model._rows(left_out)]
            watch._judge(model, interaction, left_out)

        def add(model, rows, gains, counted):
            users = model.watched_users.repeat_interleave(len(rows) // len(model.watched_users))
            counts = counted > 0
            found.append((rows[counts] % model.n_items, users[counts], gains[counts]))
            watch._add(model, rows, gains, counted)

        def move(model):
            if len(model.round_near):
                parts = map(torch.cat, zip(*found))
                watch.rounds.append(Round(model, *parts))
                found.clear()
            return watch._move(model)

        EvolvingItems._judge, EvolvingItems._add, EvolvingItems._move = judge, add, move
        return self

    def __exit__(self, *_):
        EvolvingItems._judge = self._judge
        EvolvingItems._add, EvolvingItems._move = self._add, self._move


class Round:
    """What a round knows: ``items``, ``users [N]`` and ``gains [N, M, D]`` of all targets."""

    def __init__(self, model, items, users, gains):
        self.items, self.users, self.gains = items, users, gains
        self.near, self.n_folds = model.round_near, model.n_folds
        self.most = int(model.share * (model.n_items - 1))
        self.by_mass = model._by_mass(model.index.heaviest())

    def sums(self, chosen):
        """Sums, squares and counts of the targets chosen ``[N]``."""
        items, gains = self.items[chosen], self.gains[chosen]
        total = torch.zeros(self.by_mass.shape)
        count = torch.zeros(len(total)).index_add(0, items, torch.ones(len(items)))
        squares = total.index_add(0, items, gains.square())
        return total.index_add(0, items, gains), squares, count

    def moves(self, accept, margin, seen):
        """The moves of a rule by the targets seen: ``(items, neighbours, depths)``."""
        groups = [seen]
        if accept == "halves":
            half = half_of(self.users, self.n_folds)
            groups = [seen & (half == 0), seen & (half == 1)]
        judged = map(torch.stack, zip(*map(self.sums, groups)))
        return best_moves(what_pays(*judged, self.by_mass, margin), self.near, self.most)

    def paid(self, accept, margin):
        """Moves by part, targets of other users, and what these gained: mean, error, of all."""
        # Not of the same bits of the user's number as fold and half.
        part = ((self.users * 0x85EBCA6B) & 0xFFFFFFFF) // 512 % N_PARTS
        gained, targets, n_moves = torch.zeros(len(self.near)), torch.zeros(len(self.near)), 0
        for one in range(N_PARTS):
            items, neighbours, depths = self.moves(accept, margin, part != one)
            place = (self.near[items] == neighbours.unsqueeze(1)).int().argmax(1), depths - 1
            sums, _, count = self.sums(part == one)
            gained[items] += sums[items, *place] + count[items] * self.by_mass[items, *place]
            targets[items] += count[items]
            n_moves += len(items)
        n = targets.sum().clamp_min(1)
        mean = gained.sum() / n
        error = (gained - mean * targets).square().sum().sqrt() / n
        return n_moves / N_PARTS, int(n), float(mean), float(error), float(gained.sum()) / len(part)


def main(arguments=None):
    """Print the table; returns ``{rule: [figures of each round]}``."""
    study, *given = sys.argv[1:] if arguments is None else list(arguments)
    settings = yaml.safe_load(Path(study).read_text(encoding="utf-8"))["settings"]
    settings |= {"evolve": "items", "evolve_margin": 1e6}
    with Watched() as watched:
        run_recbole_gr("PIT", config_dict=settings, cmd_args=given)
    found = {name: [one.paid(*rule) for one in watched.rounds] for name, rule in RULES.items()}
    rows = [
        (
            number + 1, name, f"{n_moves:.0f}", n, f"{mean:+.3f} +- {error:.3f}", f"{of_all:+.4f}",
        )
        for number in range(len(watched.rounds))
        for name, (n_moves, n, mean, error, of_all) in ((k, v[number]) for k, v in found.items())
    ]  # fmt: skip
    heads = "round", "rule, margin", "moves", "targets of others", "gain of each (nats)", "of all"
    print_table(heads, rows)
    more = found["halves, 1"][0][2] - found["all, 1"][0][2]
    print(f"ratio: by halves, a moved target of others gains {more:+.3f} nats more in round 1")
    return found


if __name__ == "__main__":
    main()
