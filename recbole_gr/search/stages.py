"""The stages of a search: tokenizers by the quality of their SIDs, then runs by validation."""

from typing import Any

from recbole_gr import registry
from recbole_gr.config.parsing import properties_dir, read_yaml
from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.report.tokenizers import COLUMNS
from recbole_gr.search.space import Parameter, Params
from recbole_gr.search.store import FINISHED, Record, TrialStore
from recbole_gr.search.trial import Job, Task, checkpoint_of, discard
from recbole_gr.search.workers import Run, Workers
from recbole_gr.terminal.log import say

CHOSEN = "tokenizer number"  # the kept tokenizer among the parameters of the second stage
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


def tokenizer_keys(names: tuple[str, ...]) -> set[str]:
    """The keys that belong to a tokenizer: those of `properties/tokenizer/` and of `names`."""
    keys = {"tokenizer"}
    for file in (properties_dir() / "tokenizer").glob("*.yaml"):
        keys |= set(read_yaml(file))
    for name in names:
        keys |= set(registry.get_tokenizer(name).default_options())
    return keys


def search_stage(
    stage: str,
    proposals: Any,
    store: TrialStore,
    run: Run,
    workers: Workers,
    task: Task,
    parallel: int,
    ended: Any = lambda record: None,
    complete: Any = lambda params: params,
) -> list[Record]:
    """Run what is proposed and is not in the store yet; returns all records of the stage.

    Args:
        proposals: of :mod:`recbole_gr.search.algorithms`.
        parallel: how many are proposed before their scores are told. What is proposed follows from
            the scores in the order of the numbers, whichever trial ends first.
        ended: called with each record when it is stored.
        complete: makes the parameters of a run of those proposed.
    """
    records, first = store.of_stage(stage), 0
    while asked := proposals.ask(parallel):
        jobs = [Job(stage, first + i, complete(p), task) for i, p in enumerate(asked)]
        for job in jobs:
            known = records.get(job.number)
            if known and known["params"] != job.params:
                raise ConfigError(
                    f"{store.path}: trial {job.number} has other parameters than are proposed now "
                    f"({known['params']} and {job.params}): Optuna's version or --parallel has "
                    "changed, or the file. Give another --output_file to start anew."
                )

        def keep(record: Record) -> None:
            records[record["number"]] = store.add(record)
            ended(record)

        left = [job for job in jobs if job.number not in records]
        if left:
            workers(run, left, keep)
        scores = [records[job.number].get("valid_score") for job in jobs]
        proposals.tell(scores)
        first += len(asked)
    return [records[number] for number in range(first)]


def choose_tokenizers(records: list[Record], keep: int, criterion: str) -> list[Record]:
    """The best `keep` tokenizers by a figure of their SID report.

    Those that failed, that are collapsed (the gate's limits, dead codes among them) or whose SIDs
    another one has too are left out; equal ones stand in their order.

    Raises:
        ConfigError: none is left; says why.
    """
    sign, seen, left, reasons = (1 if CRITERIA[criterion] else -1), set(), [], []
    for record in records:
        why = record.get("message") or "; ".join(record.get("collapsed", ()))
        if record["status"] != FINISHED or why:
            reasons.append(f"{record['params']}: {why}")
        elif record["figures"][criterion] is None:
            reasons.append(f"{record['params']}: its report has no {criterion}")
        elif record["sid_digest"] not in seen:
            seen.add(record["sid_digest"])
            left.append(record)
    if not left:
        raise ConfigError("No tokenizer of the first stage can be used:\n  " + "\n  ".join(reasons))
    return sorted(left, key=lambda record: sign * record["figures"][criterion])[:keep]


class Best:
    """The best trial by its validation score, the earlier one among equals.

    Args:
        bigger: whether a larger score is better.
        clean: remove the checkpoints of trials that are not the best.
        checkpoints: what their names begin with; no file of another name is removed, whatever a
            record says.
    """

    def __init__(self, bigger: bool, clean: bool, checkpoints: str):
        self.bigger, self.clean, self.checkpoints = bigger, clean, checkpoints
        self.record: Record | None = None

    def key(self, record: Record) -> tuple:
        """Sorts records, the best one first and those that failed last."""
        if record["status"] != FINISHED:
            return (1, 0.0, record["number"])
        score = record["valid_score"]
        return (0, -score if self.bigger else score, record["number"])

    def __call__(self, record: Record) -> None:
        """Take a trial in."""
        if record["status"] != FINISHED:
            return
        beaten: Record | None = record
        if self.record is None or self.key(record) < self.key(self.record):
            beaten, self.record = self.record, record
            say(
                "Trial %d is the best so far: %.6g with %s",
                record["number"], record["valid_score"], record["params"],
            )  # fmt: skip
        if self.clean and beaten is not None:
            discard(checkpoint_of(self.checkpoints, beaten["number"]))


def two_stages(space: list[Parameter], keys: set[str]) -> tuple[list[Parameter], list[Parameter]]:
    """The parameters of the tokenizer and the others."""
    own = [parameter for parameter in space if parameter.name in keys]
    if not own:
        raise ConfigError(
            "--two_stage: no parameter belongs to the tokenizer; name some, such as 'tokenizer "
            "choice [RKMeans,RQVAE]' or 'codebook_size choice [64,256]', or leave --two_stage out"
        )
    return own, [parameter for parameter in space if parameter.name not in keys]


def of_tokenizers(chosen: list[Record], rest: list[Parameter]) -> tuple[list[Parameter], Any]:
    """The space of the second stage, and what makes a run's parameters of what is proposed."""
    by_number = {record["number"]: record["params"] for record in chosen}
    space = [Parameter(CHOSEN, "choice", tuple(by_number)), *rest]

    def complete(params: Params) -> Params:
        others = {name: value for name, value in params.items() if name != CHOSEN}
        return {**by_number[params[CHOSEN]], **others}

    return space, complete
