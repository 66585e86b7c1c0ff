"""The trials of a search: Optuna studies in a journal, a file of JSON lines.

Optuna's `JournalFileBackend` reads and writes plain JSON (it is no `BaseJournalSnapshot`, the part
of that storage that has pickles). A trial is one line, written and synced when it ends. Two things
are not left to Optuna, as measured with 5.0.0:

* The end of a line that a kill left is cut off. Optuna writes the next line behind it, and the file
  cannot be read any more (JSONDecodeError).
* The file is locked by `flock` for as long as a search runs. Optuna locks single writes: two
  searches would run the same trials, and what a kill left of its lock holds the next one up for 30
  seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from recbole_gr.errors import ConfigError
from recbole_gr.search.space import Parameter, Params
from recbole_gr.search.trial import FINISHED, OF_STUDY, RECORD, Record
from recbole_gr.storage.files import require_writable
from recbole_gr.storage.json_files import finite
from recbole_gr.untrusted.shapes import require, require_version, taking

if TYPE_CHECKING:
    from optuna.storages import JournalStorage
    from optuna.trial import FrozenTrial

FORMAT_VERSION = 2
HEADER = "search"  # the user attribute of a study that says what is searched
BEGIN = b'{"op_code":'  # of every line


class StoredStudy:
    """The trials of a study that have ended.

    Args:
        storage: of the journal; a study that it lacks is made.
        path: of the journal.
        name: of the study.
        header: what is searched, as plain data.
        score: the key of a record, or of its `figures`, that is the value of a trial.
        bigger: whether a larger one is better.

    Attributes:
        trials: Optuna's, by the number of their record; they stand in the order of their ends.

    Raises:
        ConfigError: the study is of another search (says what differs), or a trial does not hold
            what its readers rely on.
    """

    def __init__(
        self, storage: JournalStorage, path: Path, name: str, header: Record,
        score: str = "valid_score", bigger: bool = True,
    ):  # fmt: skip
        import optuna

        if name in optuna.get_all_study_names(storage):  # making it again would write a line
            self.study = optuna.load_study(study_name=name, storage=storage)
        else:
            direction: Any = "maximize" if bigger else "minimize"
            self.study = optuna.create_study(storage=storage, study_name=name, direction=direction)
        self.score = score
        self.trials: dict[int, FrozenTrial] = {}
        stored = self.study.get_trials(deepcopy=False)
        if HEADER not in self.study.user_attrs and not stored:
            self.study.set_user_attr(HEADER, {"format_version": FORMAT_VERSION, **finite(header)})
        _require_same(self.study.user_attrs.get(HEADER), header, path)
        remedy = "Take the line of this trial out of the file, and it is run again."
        with taking(f"trials of {name}", path, remedy):
            optuna.create_study().add_trials(stored)  # which sees that they are some
        for trial in stored:
            record: Any = trial.user_attrs.get("record")
            where = f"trial {trial.number} of {name}"
            require(record, RECORD, path, remedy, where)
            if record["status"] == FINISHED:
                require(record, OF_STUDY[name], path, remedy, where)
            self.trials[record["number"]] = trial

    @property
    def records(self) -> list[Record]:
        """What the trials gave, in the order of their numbers."""
        return [self.trials[number].user_attrs["record"] for number in sorted(self.trials)]

    def add(self, record: Record, space: list[Parameter], params: Params) -> Record:
        """Write the record of a trial that has ended, with what was proposed for it (the sampler
        learns from that); returns it as it is read back."""
        from optuna.trial import TrialState, create_trial

        record = finite(record)
        value = {**record.get("figures", {}), **record}.get(self.score)
        trial = create_trial(
            state=TrialState.FAIL if value is None else TrialState.COMPLETE,
            value=value,
            params=params,
            distributions={p.name: p.distribution for p in space},
            user_attrs={"record": record},
        )
        self.study.add_trial(trial)
        self.trials[record["number"]] = self.study.get_trials(deepcopy=False)[-1]
        return self.trials[record["number"]].user_attrs["record"]


@contextlib.contextmanager
def open_journal(path: Path) -> Iterator[JournalStorage]:
    """The storage in a file, made where it is missing, which no other search writes until the end
    of the block.

    Raises:
        ConfigError: it is no journal, is damaged, or another process is writing it. It stays as it
            was.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    require_writable(path.parent, "give another --output_file")
    try:
        file = open(path, "a+b")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}. Give another --output_file."
        ) from error
    with file, warnings.catch_warnings():
        # Of lists among the values of parameters, which JSON gives back as they are.
        warnings.filterwarnings("ignore", "Choices for a categorical")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"{path} is being written by another search; wait for it, or give another "
                "--output_file"
            ) from error
        Path(f"{path}.lock").unlink(missing_ok=True)  # Optuna's, of a search that was killed
        _cut(file, path)
        with taking("journal", path, "Give another --output_file."):
            storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
        yield storage


def _cut(file: IO[bytes], path: Path) -> None:
    """Cut off what a kill left of the last line, once the others are known to be whole."""
    file.seek(0)
    whole, newline, rest = file.read().rpartition(b"\n")
    for number, line in enumerate(whole.split(b"\n") if newline else (), start=1):
        try:
            json.loads(line)["op_code"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            if number == 1:
                raise _foreign(path) from error
            raise ConfigError(
                f"{path}, line {number} is damaged ({type(error).__name__}: {error}). Take it out, "
                f"and its trial alone is lost: sed -i.bak {number}d {shlex.quote(str(path))}"
            ) from error
    if not (rest.startswith(BEGIN) or BEGIN.startswith(rest)):
        raise _foreign(path)
    file.truncate(len(whole) + len(newline))


def _require_same(found: Any, header: Record, path: Path) -> None:
    if not isinstance(found, dict):
        raise _foreign(path)
    require_version(found.pop("format_version", None), FORMAT_VERSION, path)
    if wrong := differences(found, json.loads(json.dumps(finite(header)))):
        raise ConfigError(
            f"{path} holds another search: {'; '.join(wrong)}. Give what it was started with to go "
            "on, or another --output_file to start over."
        )


def _foreign(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} is not the journal of a search, or one of an earlier version; give another "
        "--output_file"
    )


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """What differs between two headers, in words."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [f"{name} was {json.dumps(old)} and is {json.dumps(new)}"]
    wrong = []
    for key in sorted({*old, *new}):
        where = f"{name}.{key}" if name else key
        if key in old and key in new:
            wrong += differences(old[key], new[key], where)
        else:
            side = "new" if key in new else "gone"
            wrong.append(f"{where} is {side} ({json.dumps(new.get(key, old.get(key)))})")
    return wrong
