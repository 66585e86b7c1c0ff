"""What beam search loses against scoring every item: regret and metrics beside the oracle.

Claim checked: a trained TIGER's beam finds the model's own best items. ``beam_regret@k`` is the
share of the exact top ``k`` (every item scored, no search) that is missing from the beam's top
``k``, mean over validation users. Recall and NDCG stand beside those of the exact ranking, which
no beam can be expected to beat by more than chance.

Run: ``python benchmarks/evaluate_oracle.py`` trains a few epochs on RecBole's bundled ml-100k
first; ``--checkpoint saved/TIGER-....pth`` takes a trained model with its settings, whose data and
SIDs come with it (``--data_path`` says where the data set is, if not where it was).
"""

import argparse
from functools import partial
from time import perf_counter

import torch
from paired import print_setting, print_table
from recbole.utils import init_seed

from recbole_gr import load_data_and_model
from recbole_gr.config import Config
from recbole_gr.data import create_dataset, data_preparation
from recbole_gr.generation.beam_search import best
from recbole_gr.generation.exact import beam_regret
from recbole_gr.pipeline.item_sids import item_sids
from recbole_gr.registry import get_trainer
from recbole_gr.run.model import build_model
from recbole_gr.trainer.evaluation import sample_users

TOPK = (5, 10)


def main(arguments=None):
    """Print the table; returns the figures of the exact ranking (None) and of each beam size."""
    options = parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    config, model, valid = trained_model(options)
    model.eval()
    model.exclude_history = False  # the exact scores know no history
    users = sample_users(valid, options.users, config["seed"])
    print_setting(
        model=options.checkpoint or f"{options.epochs} epochs",
        dataset=config["dataset"],
        users=len(users._dataset),
        items=model.trie.n_items,
        prefixes=model.trie.n_nodes[1:],
    )
    figures = compare(model, users, options)
    rows = [
        ("exact" if beam is None else beam, *(f"{value:.4f}" for value in figure.values()))
        for beam, figure in figures.items()
    ]
    print_table(("beam", *figures[None]), rows)
    k, exact = max(TOPK), figures[None]
    text = ", ".join(
        f"{figure[f'ndcg@{k}'] / max(exact[f'ndcg@{k}'], 1e-12):.4f} at beam {beam}"
        for beam, figure in figures.items()
        if beam is not None
    )
    print(f"ratio: NDCG@{k} of the beam to that of the exact ranking: {text}")
    return figures


@torch.no_grad()
def compare(model, users, options):
    """Figures by beam size (None: exact): means over the users, and seconds per 100 users."""
    sums = {beam: {} for beam in (None, *options.beams)}
    n_users, device = 0, next(model.parameters()).device
    for interaction, _, row, target in users:
        for part in torch.arange(len(interaction)).split(options.batch_size):
            batch = interaction[part].to(device)
            wanted = target[torch.isin(row, part)].to(device)  # leave-one-out: one for each user
            start = perf_counter()
            exact = model.exact(batch)
            item = torch.arange(exact.shape[1], device=device).expand(len(part), -1)
            ranking = best(exact, item, max(TOPK))[1]
            _add(sums[None], ranking, wanted, None, perf_counter() - start)
            for beam in options.beams:
                start = perf_counter()
                found = model.generate(batch, max(TOPK), beam)
                seconds = perf_counter() - start
                regret = {k: beam_regret(found, exact, k).sum().item() for k in TOPK}
                _add(sums[beam], found.items, wanted, regret, seconds)
            n_users += len(part)
    return {
        beam: {name: value / n_users for name, value in figure.items()}
        for beam, figure in sums.items()
    }


def _add(figure, ranking, target, regret, seconds):
    """Add the sums over a batch of users to ``figure``; the exact ranking has no regret."""
    hit = (ranking == target.unsqueeze(1)).double()
    gain = 1 / torch.arange(2, ranking.shape[1] + 2, device=hit.device).double().log2()
    new = {f"recall@{k}": hit[:, :k].sum().item() for k in TOPK}
    new.update({f"ndcg@{k}": (hit * gain)[:, :k].sum().item() for k in TOPK})
    new.update({f"beam_regret@{k}": 0.0 if regret is None else regret[k] for k in TOPK})
    new["seconds per 100 users"] = 100 * seconds
    for name, value in new.items():
        figure[name] = figure.get(name, 0.0) + value


def trained_model(options):
    """``(config, model, validation loader)``, from the checkpoint or trained now."""
    settings = {"show_progress": False}
    if options.data_path:
        settings["data_path"] = options.data_path
    if options.checkpoint:
        config, model, _, _, valid, _ = load_data_and_model(options.checkpoint, **settings)
        return config, model, valid
    settings.update(epochs=options.epochs, eval_step=0)
    if options.sid_file:
        settings["sid_file"] = options.sid_file
    config = Config("TIGER", options.dataset, options.config_files, settings)
    init_seed(config["seed"], True)
    train, valid, _ = data_preparation(config, create_dataset(config))
    table = item_sids(config, train._dataset).table
    init_seed(config["seed"], True)
    model = build_model(config, train._dataset, table)
    trainer = get_trainer(config, config.model_class)(config, model)
    trainer.fit(train, valid, saved=False, show_progress=False)
    return config, model, valid


def parser():
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    number = partial(made.add_argument, type=int)
    made.add_argument("--checkpoint", help="a trained TIGER; trains one without")
    made.add_argument("--dataset", default="ml-100k", help="to train on without a checkpoint")
    made.add_argument("--data_path", help="parent folder of the data set")
    made.add_argument("--sid_file", help="SIDs to train on without a checkpoint")
    made.add_argument("--config_files", nargs="*", help="YAML files of settings")
    number("--epochs", default=8, help="of training without a checkpoint")
    number("--users", default=300, help="validation users, drawn by the seed; 0: all")
    number("--batch_size", default=16, help="users scored together; exact scores take memory")
    number("--beams", nargs="+", default=[10, 20, 50])
    number("--threads", default=0, help="of torch; 0 leaves its default")
    return made


if __name__ == "__main__":
    main()
