"""What the processes of test_processes.py do; they import it by name."""

import os
import signal

import torch
from recbole.utils import init_seed
from torch import nn

from recbole_gr import registry, run_recbole_gr
from recbole_gr.config import Config
from recbole_gr.data import create_dataset, data_preparation
from recbole_gr.distributed import processes
from recbole_gr.model.pit.selection import observed_by_all
from recbole_gr.pipeline.item_sids import item_sids
from recbole_gr.run.model import build_model


def runs(folder, requests):
    """Full runs, one after the other: their results by name."""
    os.chdir(folder)
    return {name: run_recbole_gr(cmd_args=arguments) for name, arguments in requests.items()}


def resumed(folder, straight, first, rest):
    """A run without interruption, and one that goes on from the checkpoint of a shorter one."""
    os.chdir(folder)
    whole = run_recbole_gr(cmd_args=straight)
    short = run_recbole_gr(cmd_args=first)
    file = processes.broadcast_object(lambda: short["checkpoint"])
    going_on = run_recbole_gr(cmd_args=[*rest, f"--resume={file}"])
    return [whole, going_on]


def stopped(folder, arguments):
    """A run without interruption, and one that goes on after process 1 was told to stop."""
    os.chdir(folder)
    whole = run_recbole_gr(cmd_args=arguments)
    begin, made = torch.optim.Optimizer.__init__, []

    def with_hook(optimizer, *args, **kwargs):
        begin(optimizer, *args, **kwargs)
        optimizer.register_step_post_hook(lambda *_: made.append(1) or (len(made) == 2 and stop()))

    def stop():
        if processes.rank() == 1:
            signal.raise_signal(signal.SIGTERM)

    torch.optim.Optimizer.__init__ = with_hook
    try:
        run_recbole_gr(cmd_args=arguments)
    except KeyboardInterrupt as error:
        text = str(error)
    finally:
        torch.optim.Optimizer.__init__ = begin
    file = processes.broadcast_object(lambda: text.removeprefix("--resume=").split(" goes")[0])
    going_on = run_recbole_gr(cmd_args=[*arguments, f"--resume={file}"])
    return [whole, going_on, len(made), file]


def fit(arguments):
    """Losses by epoch, and what the model has become."""
    config = Config(cmd_args=arguments)
    init_seed(config["seed"], True)
    dataset = create_dataset(config)
    train, valid, _ = data_preparation(config, dataset)
    sids = item_sids(config, train._dataset) if registry.is_generative(config.model_class) else None
    init_seed(config["seed"], True)
    parts = () if sids is None else (sids.table, sids.content.vectors)
    model = build_model(config, train._dataset, *parts)
    trainer = registry.get_trainer(config, config.model_class)(config, model)
    trainer.fit(train, valid)
    figures = getattr(trainer, "epoch_figures", None)
    losses = [float(loss) for _, loss in sorted(trainer.train_loss_dict.items())]
    return {"losses": losses, "weights": dict(model.state_dict()), "figures": figures}


def fits(folder, requests):
    """Trainings without a report, one after the other."""
    os.chdir(folder)
    return {name: fit(arguments) for name, arguments in requests.items()}


def exchange(device="cpu"):
    """Everything that processes tell each other, with parts of unequal size."""
    processes.init_process_group(device)
    rank = processes.rank()
    processes.seed_per_rank(7)
    rows = torch.arange(3 * rank + 1) + 10 * rank
    used, unused, elsewhere = (nn.Parameter(torch.ones(2)) for _ in range(3))
    used.grad = torch.full((2,), rank + 1.0)
    if rank:
        elsewhere.grad = torch.full((2,), 5.0)
    processes.all_reduce_gradients([used, unused, elsewhere])
    module = nn.BatchNorm1d(2)
    module.weight.data.fill_(rank)
    module.num_batches_tracked.fill_(rank)
    processes.broadcast_weights(module)
    # Item 4 is met by both; each has selected other candidates.
    items = torch.tensor([[4, 7], [2, 4]][rank])
    codes = items.view(2, 1, 1).expand(2, 2, 3)
    seen = observed_by_all(items, codes, codes[:, :, 0].float(), torch.eye(2) + rank)
    told = processes.broadcast_object(lambda: [processes.rank(), processes.world_size()])
    with processes.single_process():
        one = processes.broadcast_object(lambda: 1)
        inside = [processes.world_size(), processes.gather_object("a"), one]
    mine = {
        "rows": processes.all_gather_rows(rows, rows.float().view(-1, 1) / 3),
        "gradients": [used.grad, unused.grad, elsewhere.grad],
        "weights": [module.weight.detach(), module.num_batches_tracked],
        "seen": seen,
        "told": told,
        "inside": inside,
        "draw": float(torch.rand(())),
        "sum": processes.all_reduce_sum(torch.tensor([rank + 1.0])),
    }
    return processes.gather_object(mine)
