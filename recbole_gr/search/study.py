"""A study from its first trial to its last, and the best of its trials."""

from collections.abc import Callable
from typing import Any

from recbole_gr.search.journal import StoredStudy
from recbole_gr.search.samplers import Sampler
from recbole_gr.search.space import Parameter, Params
from recbole_gr.search.task import Task
from recbole_gr.search.trial import FINISHED, Job, Record, discard
from recbole_gr.search.two_stage import of_a_run
from recbole_gr.terminal.log import say

ALL = 1 << 40  # proposed together where scores make no difference
Run = Callable[[list[Job], Callable[[Record], None]], None]  # workers with an objective


def run_study(
    study: StoredStudy,
    space: list[Parameter],
    sampler: Sampler,
    run: Run,
    task: Task,
    together: int = ALL,
    ended: Callable[[Record], Any] = lambda record: None,
) -> list[Record]:
    """Run the trials that are proposed and not stored yet; returns all records.

    Args:
        study: what is stored.
        space, sampler: what is searched, and what proposes of it.
        run: takes trials, and what to call with the record of each.
        together: how many are proposed before their scores are known. What is proposed follows from
            the scores in the order of the numbers, whichever trial ends first.
        ended: called with each record when it is stored.
    """
    first = 0
    while proposed := sampler([study.trials[number] for number in range(first)], together):
        numbered = dict(enumerate(proposed, start=first))

        def keep(record: Record, numbered: dict[int, Params] = numbered) -> None:
            ended(study.add(record, space, numbered[record["number"]]))

        left = {n: params for n, params in numbered.items() if n not in study.trials}
        if left:
            run([Job(n, of_a_run(params), task) for n, params in left.items()], keep)
        first += len(proposed)
    return study.records


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
        score = record.get("valid_score", 0.0)
        failed = record["status"] != FINISHED
        return (failed, -score if self.bigger else score, record["number"])

    def __call__(self, record: Record) -> None:
        """Take a trial in."""
        if record["status"] != FINISHED:
            return
        beaten: Record | None = record
        if self.record is None or self.key(record) < self.key(self.record):
            beaten, self.record = self.record, record
            shown = (record["number"], record["valid_score"], record["params"])
            say("Trial %d is the best so far: %.6g with %s", *shown)
        if self.clean and beaten is not None:
            discard(self.checkpoints, beaten["number"])
