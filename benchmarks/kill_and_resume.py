"""Kill training processes (SIGKILL) at random moments and see whether they resume to the same end.

A moment is an optimiser step or a point of writing a checkpoint: before the first byte, when the
temporary file is complete, and just after it took the old one's place. A killed run goes on with
``--resume`` from its checkpoint, or starts again where there is none yet. Its best checkpoint and
its results must then equal those of a run that was never killed, to the last bit.

    python benchmarks/kill_and_resume.py --model TIGER --kills 200 --dataset ml-100k \\
        --set epochs=4 train_batch_size=256
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import tempfile
from pathlib import Path

import torch
from tqdm import tqdm

from recbole_gr import run_recbole_gr
from recbole_gr.storage import files
from recbole_gr.storage.checkpoint import load_checkpoint

# The parts of a checkpoint that decide how training goes on.
COMPARED = ("state_dict", "optimizer", "epoch", "best_epoch", "best_valid_score", "n_steps")


class Moments:
    """Counts the moments of a process and kills it at one of them.

    Args:
        fatal (int | None): number of the moment, from 1; None lets the process live.
    """

    def __init__(self, fatal):
        self.count, self.fatal = 0, fatal

    def __call__(self):
        self.count += 1
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self):
        """Let optimiser steps and the writing of checkpoints report their moments."""
        step, save, replace = torch.optim.Optimizer.__init__, torch.save, os.replace
        moments = self

        def with_hook(optimizer, *args, **kwargs):
            step(optimizer, *args, **kwargs)
            optimizer.register_step_post_hook(lambda *_: moments())

        def saving(*args, **kwargs):
            moments()
            save(*args, **kwargs)

        def replacing(*args, **kwargs):
            moments()
            replace(*args, **kwargs)
            moments()

        torch.optim.Optimizer.__init__ = with_hook
        torch.save, files.os.replace = saving, replacing


def train(settings, folder, fatal, resume):
    """One process: train, write what came out to `<folder>/result.json`."""
    torch.set_num_threads(1)
    moments = Moments(fatal)
    moments.watch()
    given = {**settings, "checkpoint_dir": str(Path(folder, "saved")), "show_progress": False}
    if resume:
        given["resume"] = str(resume)
    outcome = run_recbole_gr(config_dict=given)
    report = {
        "moments": moments.count,
        "checkpoint": outcome["checkpoint"],
        "test": outcome["test_result"],
        "valid": outcome["best_valid_result"],
    }
    Path(folder, "result.json").write_text(json.dumps(report), encoding="utf-8")


def run_process(settings, folder, fatal=None, resume=None):
    """Train in a process of its own; returns its report, or None if it was killed.

    Raises:
        RuntimeError: it ended in another way.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["recbole_gr.quick_start", "recbole_gr.run.model"])
    process = context.Process(target=train, args=(settings, str(folder), fatal, resume))
    process.start()
    process.join()
    if process.exitcode == -signal.SIGKILL:
        return None
    if process.exitcode:
        raise RuntimeError(f"a training process ended with exit code {process.exitcode}")
    return json.loads(Path(folder, "result.json").read_text(encoding="utf-8"))


def kill_and_resume(settings, kills, seed=0, folder=None, show_progress=False):
    """Kill `kills` runs and compare what they resume to.

    Args:
        settings (dict): of one run, with `model`, `dataset`, and `sid_dir` etc. as needed.
        kills (int): how many runs are killed, each at a moment of its own.
        seed (int): of the moments.
        folder (str | None): for checkpoints; a temporary one by default.
        show_progress (bool): show a bar with what went wrong so far.

    Returns:
        dict: `moments` of an undisturbed run, `kills`, `corrupt` (checkpoints that did not load)
        and `unequal` (runs that ended elsewhere), lists of moments.
    """
    with tempfile.TemporaryDirectory(dir=folder) as parent:
        for name in ("caches", "whole"):  # SIDs are made in the first run and found in the others
            whole = Path(parent, name)
            whole.mkdir()
            expected = run_process(settings, whole)
        reference = load_checkpoint(expected["checkpoint"])
        draw = random.Random(seed)
        fatal = [draw.randint(1, expected["moments"]) for _ in range(kills)]
        corrupt, unequal = [], []
        bar = tqdm(fatal, desc="kills", disable=not show_progress)
        for number, moment in enumerate(bar):
            bar.set_postfix(corrupt=len(corrupt), unequal=len(unequal), refresh=False)
            own = Path(parent, str(number))
            own.mkdir()
            if run_process(settings, own, moment) is not None:
                raise RuntimeError(f"the process lived through moment {moment}")
            kept = sorted(Path(own, "saved").glob("[!.]*.pth"))
            kept = [path for path in kept if not path.stem.endswith("-warmup")]
            try:
                for path in kept:
                    load_checkpoint(path)
            except Exception:  # whatever it is, the file is no good
                corrupt.append(moment)
                continue
            report = run_process(settings, own, resume=kept[-1] if kept else None)
            same = report["test"] == expected["test"] and report["valid"] == expected["valid"]
            if not same or not equal(load_checkpoint(report["checkpoint"]), reference):
                unequal.append(moment)
    return {
        "moments": expected["moments"], "kills": len(fatal), "corrupt": corrupt, "unequal": unequal
    }  # fmt: skip


def equal(checkpoint, reference):
    """Whether two checkpoints are equal to the last bit where it counts."""
    return all(_same(checkpoint.get(key), reference.get(key)) for key in COMPARED)


def _same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b


def main(arguments=None):
    """Print how many kills left a corrupt checkpoint or another end; returns the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="TIGER")
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], help="key=value settings of the run")
    parser.add_argument("--show_progress", action="store_true")
    given = parser.parse_args(arguments)
    settings = dict(pair.split("=", 1) for pair in given.set)
    settings.update(model=given.model, dataset=given.dataset)
    figures = kill_and_resume(settings, given.kills, given.seed, show_progress=given.show_progress)
    print(
        f"{given.model} on {given.dataset}: {figures['kills']} kills in {figures['moments']} "
        f"moments, {len(figures['corrupt'])} corrupt checkpoints, {len(figures['unequal'])} "
        "resumed to another end"
    )
    return figures


if __name__ == "__main__":
    main()
