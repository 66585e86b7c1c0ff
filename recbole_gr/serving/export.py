"""A trained model as one file that a server runs with torch alone.

python -m recbole_gr.export --checkpoint=saved/TIGER-ml-100k-....pth --output=served/tiger.pt2
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from recbole_gr import registry
from recbole_gr.config.arguments import Arguments
from recbole_gr.terminal.command_line import run_command

if TYPE_CHECKING:  # it brings RecBole along, which `--help` does without
    from recbole_gr.serving.recommender import Recommender

ARGUMENTS = Arguments(
    "export",
    "--checkpoint=FILE --output=NAME.pt2 [--key=value ...]",
    "--checkpoint=saved/TIGER-ml-100k.pth --output=served/tiger.pt2 --k=10",
    """\
Writes the decoder with its trie, or a model that scores all items, as a program of torch.export,
and NAME.json beside it with the item tokens in the order of their ids. A server needs torch, these
two files and nothing else. Settings not given are those of the training; --use_gpu=False is for a
server without a GPU. With --exclude_history=True (--max_excluded=N of models without SIDs) the
program takes a third input, [B, N] items that may not be answered.""",
    settings=("run", "data", "decoding"),
)
ARGUMENTS.add("checkpoint", "FILE", "as a run printed it", needed=True)
ARGUMENTS.add("output", "NAME.pt2", "the program", needed=True)
ARGUMENTS.add("k", "N", "items for each history", "int >= 1", default=10)
ARGUMENTS.add(
    "max_excluded",
    "N",
    "width of the third input; without it MAX_ITEM_LIST_LENGTH, or none of models without SIDs",
    "int >= 1",
)
ARGUMENTS.add("model", "NAME", "your class, package.module:Class, where the checkpoint is of one")
FORMAT_VERSION = 1
NEEDED_TORCH = (2, 7)
TOLERANCE = {False: 1e-4, True: 5e-2}  # of the last check, by enable_amp


class Search(nn.Module):
    """Histories to ranked items: what is recorded. A generative model is searched; the scores of
    other sequential ones are of all items.

    Args:
        model: a sequential recommender in evaluation mode.
        k: items of an answer.
        amp: type of the mixed precision that the model is evaluated with, None for none.
    """

    def __init__(self, model: Any, k: int, amp: torch.dtype | None = None):
        super().__init__()
        self.model, self.k, self.amp = model, k, amp

    def forward(
        self, history: Tensor, length: Tensor, excluded: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The ``k`` best items of each history.

        Args:
            history: ``[B, T]`` item ids in the order of time, 0 after the end; ``T`` is
                ``MAX_ITEM_LIST_LENGTH``.
            length: ``[B]`` items of each history, at least 1.
            excluded: ``[B, N]`` item ids that may not be answered, 0 for none.

        Returns:
            ``(items, scores)``, both ``[B, k]``: ids, best first, and log-probabilities; item 0
            with -inf where the beams hold no more.
        """
        from recbole_gr.generation.beam_search import NEVER, best
        from recbole_gr.model.base import EXCLUDED

        model = self.model
        batch = {
            model.ITEM_SEQ: history,
            model.ITEM_SEQ_LEN: length,
            model.USER_ID: torch.zeros_like(length),  # an unknown user, as for any new history
        }
        if not registry.is_generative(model):
            scores = model.full_sort_predict(batch).view(history.shape[0], -1).float()
            scores = scores.index_fill(1, history.new_zeros(1), NEVER)
            if excluded is not None:
                scores = scores.scatter(1, excluded, NEVER)
            ids = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
            scores, items = best(scores, ids, self.k)
            return items.masked_fill(scores == NEVER, 0), scores
        if excluded is not None:
            batch[EXCLUDED] = excluded
        precision: contextlib.AbstractContextManager = contextlib.nullcontext()
        if self.amp is not None:
            precision = torch.autocast(history.device.type, self.amp)
        with precision:
            beams = model.search(batch, max(self.k, model.beam_size))
        items, scores = model.rank(beams, self.k, batch)
        return items, scores


def export(
    checkpoint: str | os.PathLike,
    path: str | os.PathLike,
    k: int = 10,
    max_excluded: int | None = None,
    model: str | type | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Write the trained model of a checkpoint as a program that needs torch alone.

    The program holds weights, SIDs and trie, and searches as the model does in evaluation, beam
    size and precision included. It takes histories ``[B, T]`` and their lengths ``[B]`` for any
    ``B`` (see :class:`Search`) on the device it was made on. `path` is replaced once it is complete
    and gives the same answers as the model; `NAME.json` beside it follows, and holds its hash.

    Args:
        checkpoint: a file that a run kept, of a sequential model.
        path: of the program, `NAME.pt2`.
        k: items of an answer.
        max_excluded: width of the third input, with `exclude_history`; None takes
            `MAX_ITEM_LIST_LENGTH`. Of a model that scores all items: None has no third input.
        model, **overrides: as for `recbole_gr.load_data_and_model`. `exclude_history=True` gives
            the program its third input; `use_gpu=False` makes it for a CPU.

    Returns:
        dict: what `NAME.json` holds: `items` (tokens by id, "[PAD]" first), `k`, `beam_size` (None
        where all items are scored),
        `max_history`, `max_excluded` (None without the third input), `inputs`, `device`,
        `format_version`, hashes and versions.

    Raises:
        ConfigError: something given cannot be used, or the model's search is not a graph.
    """
    from recbole_gr.errors import ConfigError
    from recbole_gr.serving.recommender import Recommender
    from recbole_gr.storage.files import atomic_write, require_writable
    from recbole_gr.storage.json_files import save_json
    from recbole_gr.storage.run_files import held

    path = Path(path)
    if path.suffix != ".pt2":
        raise ConfigError(f"--output={path}: the name must end in .pt2")
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < NEEDED_TORCH:
        needed = ".".join(map(str, NEEDED_TORCH))
        raise ConfigError(f"torch {torch.__version__}: to export needs torch {needed} or later")
    require_writable(path.parent, "give another --output")
    overrides.setdefault("show_progress", False)
    recommender = Recommender.load(checkpoint, model, with_users=False, **overrides)
    width, k = _check(recommender, k, max_excluded), int(k)
    search = _search(recommender, k)
    inputs = _examples(recommender, 3, width)
    program = _record(search, inputs, recommender.config["model"])
    with held(path, "give another --output"):  # the two files belong together
        with atomic_write(path) as temporary:
            with open(temporary, "wb") as file:  # given a path, torch hides that a disk is full
                torch.export.save(program, file)
            _compare(temporary, search, recommender, width)
            description = _description(recommender, checkpoint, temporary, k, width)
        save_json(path.with_suffix(".json"), description, indent=None)
    return description


def _check(recommender: Recommender, k: int, max_excluded: int | None) -> int:
    """Refuse what cannot be exported; returns the width of the third input, 0 for none."""
    from recbole_gr.errors import ConfigError

    config = recommender.config
    if not recommender.sequential:
        raise ConfigError(
            f"{config['model']} knows users by a vector of their own and reads no history, which a "
            "program is given; only sequential models are exported"
        )
    recommender.check_k(k)
    excludes = config["exclude_history"] if recommender.generative else max_excluded is not None
    if max_excluded is not None and not excludes:
        raise ConfigError(
            "--max_excluded: nothing is excluded; add --exclude_history=True or leave it out"
        )
    width = config["MAX_ITEM_LIST_LENGTH"] if max_excluded is None else max_excluded
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise ConfigError(f"--max_excluded={width}: it must be an integer of at least 1")
    return width if excludes else 0


def _search(recommender: Recommender, k: int) -> Search:
    from recbole_gr.trainer.generation import amp_dtype

    config, model = recommender.config, recommender.model
    amp = amp_dtype(config) if config["enable_amp"] and recommender.generative else None
    search = Search(model, k, amp).eval().requires_grad_(False)
    if hasattr(model, "prepare_export"):  # last, as a change of mode forgets what is kept
        model.prepare_export()
    return search


def _examples(recommender: Recommender, n_rows: int, width: int) -> tuple[Tensor, ...]:
    """Inputs of the program: random histories, the first of full length, the last of one item."""
    config, generator = recommender.config, torch.Generator().manual_seed(0)
    n_items, longest = len(recommender.item_tokens), config["MAX_ITEM_LIST_LENGTH"]
    history = torch.randint(1, n_items, (n_rows, longest), generator=generator)
    length = torch.linspace(longest, 1, n_rows).long()
    history[torch.arange(longest) >= length.unsqueeze(1)] = 0
    inputs = [history, length]
    if width:  # item 0 excludes nothing
        inputs.append(torch.randint(0, n_items, (n_rows, width), generator=generator))
    return tuple(tensor.to(config["device"]) for tensor in inputs)


def _record(search: Search, inputs: tuple[Tensor, ...], name: str) -> torch.export.ExportedProgram:
    """The graph of a search for any number of rows, without the tensors that it does not read."""
    from recbole_gr.errors import ConfigError

    batch = torch.export.Dim("batch", min=1)
    shapes = {what: {0: batch} for what, _ in zip(("history", "length", "excluded"), inputs)}
    try:
        with torch.no_grad():
            program = torch.export.export(search, inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # whatever a model of the user's own does
        what = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"{name}: its search is no graph for batches of any size ({type(error).__name__}: "
            f"{what}). What reads the batch (`start`, or `full_sort_predict`) may not read values "
            "of tensors (len, int, item, if), and must take the batch size from a shape."
        ) from error
    _drop_unread(program)
    return program


def _drop_unread(program: torch.export.ExportedProgram) -> None:
    """Training leaves much that a search never reads (PIT's tokenizer, IntRR's item embeddings)."""
    read = {node.name for node in program.graph.nodes if node.users}
    for spec in program.graph_signature.input_specs:
        if spec.target is None or spec.arg.name in read:
            continue
        for kept in (program.state_dict, program.constants):
            if spec.target in kept:
                old = kept[spec.target]
                new = torch.empty(0, dtype=old.dtype, device=old.device)
                parameter = isinstance(old, nn.Parameter)
                kept[spec.target] = nn.Parameter(new, old.requires_grad) if parameter else new


def _compare(path: Path, search: Search, recommender: Recommender, width: int) -> None:
    """Load what was written and answer with it; raises where it is not as the model answers."""
    program = torch.export.load(path).module()
    close = TOLERANCE[search.amp is not None]
    for n_rows in (1, 5):
        inputs = _examples(recommender, n_rows, width)
        with torch.no_grad():
            _, scores = program(*inputs)
            _, expected = search(*inputs)
        if not torch.allclose(scores, expected, atol=close, rtol=close):
            raise RuntimeError(
                f"the exported {recommender.config['model']} does not answer as the model: scores "
                f"differ by {(scores - expected).abs().nan_to_num().max():.3g}. Nothing is written."
            )


def _description(
    recommender: Recommender, checkpoint: str | os.PathLike, file: Path, k: int, width: int
) -> dict[str, Any]:
    from recbole_gr.storage.checkpoint import versions
    from recbole_gr.storage.hashes import sha256

    config, model = recommender.config, recommender.model
    inputs = ["history", "length", *(["excluded"] if width else [])]
    return {
        "format_version": FORMAT_VERSION,
        "model": config["model"],
        "dataset": config["dataset"],
        "k": k,
        "beam_size": max(k, model.beam_size) if recommender.generative else None,
        "max_history": config["MAX_ITEM_LIST_LENGTH"],
        "max_excluded": width or None,
        "inputs": inputs,
        "outputs": ["items", "scores"],
        "device": torch.device(config["device"]).type,
        "program_sha256": sha256(file),
        "checkpoint_sha256": sha256(checkpoint),
        "sid_digest": model.sid_table().digest() if recommender.generative else None,
        "versions": versions(),
        "items": recommender.item_tokens,
    }


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code, 2 where something given cannot be used."""
    return run_command(_run, ARGUMENTS, argv, logging.WARNING)


def _run(own: dict[str, Any], settings: list[str]) -> None:
    from recbole_gr.config.command_lines import program_command
    from recbole_gr.config.parsing import parse_arguments

    checkpoint, output = own.pop("checkpoint"), own.pop("output")
    written = export(checkpoint, output, **own, **parse_arguments(settings))
    size = os.path.getsize(output) / 2**20
    print(f"Written: {output}, {size:.1f} MiB, {len(written['items']) - 1} items")
    inputs = written["max_history"], written["max_excluded"]
    print(f"Ask it: {program_command(output, *inputs)}")


if __name__ == "__main__":
    sys.exit(main())
