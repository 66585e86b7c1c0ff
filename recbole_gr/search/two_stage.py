"""The first of two stages: tokenizers by the quality of their SIDs, before any model is trained."""

from typing import Any

from recbole_gr import registry
from recbole_gr.config.parsing import properties_dir, read_yaml
from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.report.tokenizers import COLUMNS
from recbole_gr.search.space import Parameter, Params
from recbole_gr.search.task import Task
from recbole_gr.search.trial import Record

CHOSEN = "parameters of the tokenizer"  # a parameter of the second stage
CRITERIA = {key: smaller for key, (_, _, smaller) in COLUMNS.items() if smaller is not None}


def check_criterion(name: str) -> str:
    """A figure of the SID report by which tokenizers are ranked."""
    name = "collision" if name == "collision_rate" else name
    if name not in CRITERIA:
        raise ConfigError(
            f"--tokenizer_criterion={name}: none of {', '.join(CRITERIA)}"
            f"{did_you_mean(name, CRITERIA)}"
        )
    return name


def divided(
    space: list[Parameter], task: Task, config: Any
) -> tuple[list[Parameter], list[Parameter]]:
    """The parameters of the tokenizer and the others, where a first stage makes sense.

    Those of the tokenizer are the keys of `properties/tokenizer/` and of those that are tried.
    """
    if not registry.is_generative(config.model_class):
        raise ConfigError(f"--two_stage: {task.model} has no SIDs; leave --two_stage out")
    if config["sid_file"]:
        raise ConfigError("--two_stage: sid_file gives the SIDs; leave one of both out")
    keys = {"tokenizer"}
    for file in (properties_dir() / "tokenizer").glob("*.yaml"):
        keys |= set(read_yaml(file))
    for name in task.tokenizers:
        keys |= set(registry.get_tokenizer(name).default_options())
    own = [parameter for parameter in space if parameter.name in keys]
    if not own:
        raise ConfigError(
            "--two_stage: no parameter belongs to the tokenizer; name some, such as 'tokenizer "
            "choice [RKMeans,RQVAE]' or 'codebook_size choice [64,256]', or leave --two_stage out"
        )
    return own, [parameter for parameter in space if parameter.name not in keys]


def choose_tokenizers(records: list[Record], keep: int, criterion: str) -> list[Record]:
    """The best `keep` tokenizers by a figure of their SID report.

    Those that failed, that are collapsed (the gate's limits, dead codes among them) or whose SIDs
    another one has too are left out; equal ones stand in their order.

    Raises:
        ConfigError: none is left; says why.
    """
    seen, left, reasons = set(), [], []
    for record in records:
        why = record.get("message") or "; ".join(record.get("collapsed", ()))
        if not why and record["figures"].get(criterion) is None:
            why = f"its report has no {criterion}"
        if why:
            reasons.append(f"{record['params']}: {why}")
        elif record["sid_digest"] not in seen:
            seen.add(record["sid_digest"])
            left.append(record)
    if not left:
        raise ConfigError("No tokenizer of the first stage can be used:\n  " + "\n  ".join(reasons))
    sign = 1 if CRITERIA[criterion] else -1
    return sorted(left, key=lambda record: sign * record["figures"][criterion])[:keep]


def of_tokenizers(chosen: list[Record], rest: list[Parameter]) -> list[Parameter]:
    """The space of the second stage: one of the chosen tokenizers, and the other parameters."""
    from optuna.distributions import CategoricalDistribution

    tokenizers: Any = [record["params"] for record in chosen]
    return [Parameter(CHOSEN, "choice", CategoricalDistribution(tokenizers)), *rest]


def of_a_run(params: Params) -> Params:
    """What is proposed, with the parameters of a tokenizer in the place of :data:`CHOSEN`."""
    return {**params.get(CHOSEN, {}), **{k: v for k, v in params.items() if k != CHOSEN}}
