"""Constrained beam search against Hugging Face's, and what the constraint itself costs.

Claims checked, on a catalogue the size of Amazon Beauty and a model the size of the TIGER paper's:

* at the same weights, TIGER (encoder_decoder) here is at least 6 times (beam 20) and 10 times
  (beam 50) as fast as ``T5ForConditionalGeneration.generate`` with ``prefix_allowed_tokens_fn``;
* both return the same top-10 lists. Hugging Face normalises over one vocabulary of all levels, we
  over the codebook of a level, so lists are compared where both normalise over the allowed codes
  (``renormalize_logits=True``, ``renormalise=True``) and scores must agree;
* the trie costs at most 10 % over the same search without a mask.

Run (needs ``pip install recbole_gr[bench]``): ``python benchmarks/decode_vs_huggingface.py``
"""

import argparse
from functools import partial
from statistics import median

import torch
from catalogue import random_histories, skewed_table, untrained_tiger
from paired import in_turns, print_setting, print_table, ratio, spread

from recbole_gr.sid.exchange import read_json

TOP = 10
TOLERANCE = 1e-3  # of a log-probability: items this close may change places


def main(arguments=None):
    """Print the tables; returns the figures by beam size."""
    options = parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    table = _table(options)
    model = untrained_tiger(
        table,
        architecture="encoder_decoder",
        hidden_size=options.hidden_size,
        n_layers=options.layers,
        n_encoder_layers=options.layers,
        n_heads=options.heads,
        head_size=options.head_size,
        inner_size=options.inner_size,
        initializer_range=options.weight_std,
        MAX_ITEM_LIST_LENGTH=options.length,
    )
    batch = random_histories(options.users, options.length, len(table.codes) - 1)
    print_setting(
        items=len(table.codes) - 1,
        prefixes=model.trie.n_nodes[1:],
        users=options.users,
        history=options.length,
        parameters=sum(p.numel() for p in model.parameters()),
        repeats=options.repeats,
    )
    theirs = None if options.skip_huggingface else _HuggingFace(model, batch)
    figures = {beam: compare(model, batch, theirs, beam, options) for beam in options.beams}
    summary = ", ".join(_summary(beam, figure) for beam, figure in figures.items())
    print(f"ratio: {summary}")
    return figures


def compare(model, batch, theirs, beam, options):
    """Time ours, ours without the trie, the encoder alone and Hugging Face's in turns."""
    users = len(batch)
    search = {
        "TIGER, trie": lambda: model.generate(batch, TOP, beam),
        "TIGER, no constraint": lambda: unconstrained_search(model.start(batch), model, beam),
        "TIGER, encoder alone": lambda: model._encode(batch),
    }
    figure, rounds = {}, options.repeats * options.own_rounds
    with torch.no_grad():
        # Many short rounds for the cost of the constraint, few for the slow opponent.
        seconds = in_turns(search, rounds, warm_up=2)
        if theirs is not None:
            both = {
                "Hugging Face": lambda: theirs.search(beam),
                "TIGER, trie": search["TIGER, trie"],
            }
            paired = in_turns(both, options.repeats, warm_up=0)
            seconds["Hugging Face"] = paired["Hugging Face"]
            figure["speed-up"] = ratio(paired["Hugging Face"], paired["TIGER, trie"])
            figure.update(theirs.agreement(beam))
    figure["constraint"] = ratio(seconds["TIGER, trie"], seconds["TIGER, no constraint"]) - 1
    print(f"\nBeam {beam}")
    rows = [(n, spread(s), f"{users / median(s):.1f}") for n, s in seconds.items()]
    print_table(("search", "seconds a batch", "users per second"), rows)
    for name, value in figure.items():
        print(f"{name}: {value:.4g}")
    return figure


def unconstrained_search(step, model, beam):
    """Beam search by top-k alone, without trie and tie-break: ``(codes, scores)``, best first."""
    scores = codes = parents = last = None
    for level, size in enumerate(model.sizes):
        logp = torch.log_softmax(step(level, last, parents), 2)  # [B, W, V]
        if scores is not None:
            logp = logp + scores.unsqueeze(2)
        scores, index = logp.flatten(1).topk(min(beam, logp.shape[1] * size), dim=1)
        parents, last = index // size, index % size
        column = last.unsqueeze(2)
        if codes is None:
            codes = column
        else:
            previous = codes.gather(1, parents.unsqueeze(2).expand(-1, -1, level))
            codes = torch.cat([previous, column], dim=2)
    return codes, scores


class _HuggingFace:
    """T5 with our weights, reading the same batch."""

    def __init__(self, model, batch):
        import hf_t5

        self.model, self.batch, self.hf = model, batch, hf_t5
        self.t5 = hf_t5.copy_into_t5(model)
        self.offset = model.level_offset + hf_t5.FIRST_CODE
        self.trie = hf_t5.dict_trie((model.codes[1:] + self.offset).tolist())
        tokens = model.flat_tokens(batch["item_id_list"]) + hf_t5.FIRST_CODE
        real = torch.arange(tokens.shape[1]) < (batch["item_length"] * model.n_levels).unsqueeze(1)
        self.tokens, self.mask = tokens.masked_fill(~real, hf_t5.PADDING), real.long()

    def search(self, beam, **options):
        n_levels = self.model.n_levels
        return self.hf.generate(
            self.t5, self.trie, self.tokens, self.mask, n_levels, beam, **options
        )

    def agreement(self, beam):
        """Shares of equal top-10 SID lists and the largest difference of their scores."""
        model = self.model
        codes, scores = self.search(beam, renormalize_logits=True, output_scores=True)
        codes, scores = codes[:, :TOP] - self.offset, scores[:, :TOP]
        default, model.renormalise = model.renormalise, True
        ours = model.search(self.batch, beam)
        model.renormalise = default
        top = min(TOP, beam)
        same = (ours.codes[:, :top] == codes).all(2)  # [B, top]
        gap = (ours.scores[:, :top] - scores).abs()
        return {
            "equal lists": same.all(1).float().mean().item(),
            "equal lists, ties aside": (gap < TOLERANCE).all(1).float().mean().item(),
            "largest score difference": gap.max().item(),
            "score of place 1 over place 10": (scores[:, 0] - scores[:, -1]).median().item(),
        }


def _summary(beam, figure):
    cost = f"constraint {100 * figure['constraint']:+.1f} % at beam {beam}"
    if "speed-up" not in figure:
        return cost
    return f"{figure['speed-up']:.1f} x Hugging Face at beam {beam}, {cost}"


def _table(options):
    if options.sid_file:
        import json

        with open(options.sid_file, encoding="utf-8") as file:
            items = sorted(json.load(file), key=lambda item: (len(item), item))
        return read_json(options.sid_file, ["[PAD]", *items])
    sizes = (options.codes,) * options.levels
    return skewed_table(options.items, sizes, options.first_codes, seed=2)


def parser():
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = partial(made.add_argument, type=int)
    add("--items", default=12101)
    add("--levels", default=4)
    add("--codes", default=256, help="codes of a level")
    add("--first-codes", default=197, help="codes in use at the first level")
    add("--sid-file", type=str, help="SIDs as JSON in place of random ones")
    add("--beams", nargs="+", default=[20, 50])
    add("--users", default=64, help="users of a batch")
    add("--length", default=20, help="items of the longest histories")
    add("--layers", default=4, help="of the encoder and of the decoder")
    add("--hidden-size", default=128)
    add("--heads", default=6)
    add("--head-size", default=64)
    add("--inner-size", default=1024)
    add("--weight-std", type=float, default=0.05, help="of the random weights")
    add("--repeats", default=3, help="rounds against Hugging Face")
    add("--own-rounds", default=5, help="rounds of our searches for each of those")
    add("--threads", default=0, help="of torch; 0 leaves its default")
    made.add_argument("--skip-huggingface", action="store_true", help="the constraint alone")
    return made


if __name__ == "__main__":
    main()
