"""The trials of a search in a file of one JSON line each, which a kill cannot spoil."""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recbole_gr.errors import ConfigError
from recbole_gr.storage.files import require_writable
from recbole_gr.storage.manifest import finite
from recbole_gr.untrusted.shapes import OrNone, Rule, at_least, require, require_version

FORMAT_VERSION = 1
# What may differ when a search goes on: it does not change what a trial gives. Files are known by
# their hashes, wherever they lie.
FREE_KEYS = frozenset(
    "show_progress gpu_id use_gpu state log_level checkpoint_dir result_dir sid_dir "
    "content_cache_dir data_path content_file cf_file sid_file".split()
)
TOKENIZER, TRIAL = "tokenizer", "trial"  # the stages
FINISHED, FAILED = "finished", "failed"
REMEDY = "Nothing needs to be done."
_METRICS = OrNone({...: OrNone(float)})
#: What the line of a trial holds.
RECORD = {
    "stage": Rule("tokenizer or trial", lambda stage: stage in (TOKENIZER, TRIAL)),
    "number": at_least(0),
    "params": dict,
    "status": Rule("finished or failed", lambda status: status in (FINISHED, FAILED)),
    "message?": str,
    "seconds": float,
}
#: What it holds beside that where the trial came to its end.
OF_STAGE = {
    TOKENIZER: {
        "figures": {...: OrNone(float)}, "collapsed?": [str], "sid_digest": str
    },
    TRIAL: {
        "valid_score": float, "valid_result?": _METRICS, "test_result?": _METRICS,
        "best_epoch?": OrNone(int), "checkpoint?": OrNone(str), "example?": OrNone(dict),
        "test_interval?": OrNone({"users": at_least(2), "metrics": {...: [float]}}),
    },
}  # fmt: skip
Record = dict[str, Any]


class TrialStore:
    """Trials that have ended, in the order in which they did.

    The first line says what is searched; each other one is a trial, written and synced as a whole
    when it ends. What a kill leaves of a line is cut off; a line that is damaged costs its trial.

    Args:
        path: of the file, made where it is missing.
        header: what is searched, as plain data.

    Raises:
        ConfigError: the file holds a search for something else (says what differs), is none of
            ours, or another process is writing it.
    """

    def __init__(self, path: str | os.PathLike, header: Record):
        self.path = Path(path)
        self.records: list[Record] = []
        self.header = json.loads(json.dumps({"format_version": FORMAT_VERSION, **finite(header)}))
        require_writable(self.path.parent, "give another --output_file")
        try:
            self._file = open(self.path, "a+b")  # noqa: SIM115 (open as long as the search runs)
        except OSError as error:
            raise ConfigError(
                f"{self.path} cannot be written: {error.strerror}. Give another --output_file."
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read()
        except BlockingIOError as error:
            self._file.close()
            raise ConfigError(
                f"{self.path} is being written by another search; wait for it, or give another "
                "--output_file"
            ) from error
        except BaseException:
            self._file.close()
            raise

    def _read(self) -> None:
        self._file.seek(0)
        whole, newline, _ = self._file.read().rpartition(b"\n")
        self._file.truncate(len(whole) + len(newline))
        if not newline:
            self._append(self.header)
            return
        try:
            first, *lines = whole.split(b"\n")
            header = json.loads(first)
            version = header["format_version"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ConfigError(
                f"{self.path} is not the trials of a search; give another --output_file"
            ) from error
        require_version(version, FORMAT_VERSION, self.path)
        if isinstance(header.get("settings"), dict):  # the first versions kept some of these
            header["settings"] = settings_that_count(header["settings"])
        wrong = differences(header, self.header)
        if wrong:
            raise ConfigError(
                f"{self.path} holds another search: {'; '.join(wrong)}. Give what it was started "
                "with to go on, or another --output_file to start anew."
            )
        for number, line in enumerate(lines, start=2):
            try:
                self.records.append(_record(line, self.path))
            except (ValueError, RecursionError) as error:
                logging.getLogger().warning(
                    "%s, line %d is damaged: its trial is run again (%s)", self.path, number, error
                )

    def of_stage(self, stage: str) -> dict[int, Record]:
        """The records of a stage by their number."""
        return {r["number"]: r for r in self.records if r["stage"] == stage}

    def add(self, record: Record) -> Record:
        """Write a record that has ended; returns it as it is read back."""
        self._append(record)
        self.records.append(json.loads(json.dumps(finite(record))))
        return self.records[-1]

    def _append(self, record: Record) -> None:
        self._file.write(json.dumps(finite(record)).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let others write the file."""
        self._file.close()


def _record(line: bytes, path: Path) -> Record:
    """The trial that a line holds.

    Raises:
        ValueError: it holds none.
    """
    record = json.loads(line)
    require(record, RECORD, path, REMEDY)
    if record["status"] == FINISHED:
        require(record, OF_STAGE[record["stage"]], path, REMEDY)
    return record


@contextlib.contextmanager
def open_store(path: str | os.PathLike, header: Record) -> Iterator[TrialStore]:
    """A :class:`TrialStore` that is closed at the end."""
    store = TrialStore(path, header)
    try:
        yield store
    finally:
        store.close()


def settings_that_count(settings: Record) -> Record:
    """Settings but for `FREE_KEYS`."""
    return {key: value for key, value in settings.items() if key not in FREE_KEYS}


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """What differs between two headers, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        wrong = []
        for key in sorted({*old, *new}):
            where = f"{name}.{key}" if name else key
            if key not in old or key not in new:
                side = "new" if key in new else "gone"
                value = new.get(key, old.get(key))
                wrong.append(f"{where} is {side} ({json.dumps(value)})")
            else:
                wrong += differences(old[key], new[key], where)
        return wrong
    return [] if old == new else [f"{name} was {json.dumps(old)} and is {json.dumps(new)}"]
