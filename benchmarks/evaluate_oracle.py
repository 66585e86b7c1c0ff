"""What beam search loses against scoring every item: regret and metrics beside the oracle.

Claim checked: a trained TIGER's beam finds the model's own best items. ``beam_regret@k`` is the
share of the exact top ``k`` (every item scored, no search) that is missing from the beam's top
``k``, mean over validation users. Recall and NDCG stand beside those of the exact ranking, which
no beam can be expected to beat by more than chance.

Run: ``python benchmarks/evaluate_oracle.py`` trains a few epochs on RecBole's bundled ml-100k
first; ``--checkpoint saved/TIGER-....pth`` takes a trained model with its settings, whose data and
SIDs are found as in its training (``--data_path``, ``--sid_file`` say where, if not there).
"""

import argparse
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from paired import print_setting, print_table
from recbole.utils import init_seed

from recbole_gr.config import Config
from recbole_gr.data import create_dataset, data_preparation
from recbole_gr.data.content import item_content
from recbole_gr.data.signals import tokenizer_signals
from recbole_gr.defaults import default_settings
from recbole_gr.generation import best
from recbole_gr.oracle import beam_regret
from recbole_gr.registry import get_model, get_trainer
from recbole_gr.tokenizer.pipeline import prepare_sid
from recbole_gr.trainer.checkpoint import load_checkpoint
from recbole_gr.trainer.evaluation import sample_users

TOPK = (5, 10)
# Settings that a checkpoint's run had for itself, or that RecBole has turned into something else.
OF_ITS_RUN = {"nproc", "world_size", "ip", "port", "group_offset", "device", "gpu_id", "resume"}
OF_ITS_RUN |= {"train_neg_sample_args", "valid_neg_sample_args", "test_neg_sample_args"}


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
    dataset, state = options.dataset, None
    if options.checkpoint:
        state = load_checkpoint(options.checkpoint, map_location="cpu")
        dataset = state["config"]["dataset"]
        past = state["config"]
        defaults, known = default_settings(get_model("TIGER"), dataset, past["tokenizer"])
        wanted = (set(defaults) & known & set(past)) - OF_ITS_RUN
        saved = {name: past[name] for name in wanted}
        # A run keeps the folder of the data set itself, the key `data_path` is its parent.
        saved["data_path"] = str(Path(past["data_path"]).parent)
        settings = {**saved, **settings}
    else:
        settings.update(epochs=options.epochs, eval_step=0)
    if options.data_path:
        settings["data_path"] = options.data_path
    if options.sid_file:
        settings["sid_file"] = options.sid_file
    config = Config("TIGER", dataset, options.config_files, settings)
    init_seed(config["seed"], True)
    train, valid, _ = data_preparation(config, create_dataset(config))
    signals = tokenizer_signals(config, train._dataset)
    table, _ = prepare_sid(config, item_content(config, train._dataset), signals)
    init_seed(config["seed"], True)
    model = get_model("TIGER")(config, train._dataset, table).to(config["device"])
    if state is not None:
        model.load_state_dict(state["state_dict"])
    else:
        trainer = get_trainer(config, get_model("TIGER"))(config, model)
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
    made.add_argument("--sid_file", help="the SIDs of the training, if they were given so")
    made.add_argument("--config_files", nargs="*", help="YAML files of settings")
    number("--epochs", default=8, help="of training without a checkpoint")
    number("--users", default=300, help="validation users, drawn by the seed; 0: all")
    number("--batch_size", default=16, help="users scored together; exact scores take memory")
    number("--beams", nargs="+", default=[10, 20, 50])
    number("--threads", default=0, help="of torch; 0 leaves its default")
    return made


if __name__ == "__main__":
    main()
