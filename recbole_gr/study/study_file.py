"""The file of a study, read and checked."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_gr import registry
from recbole_gr.config.parsing import file_list, parse_value, read_yaml
from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.search.space import parameter
from recbole_gr.study.plan import Study

KEYS = ("name", "models", "datasets", "seeds", "settings", "baseline", "tune", "tune_on")
_STUDY_KEYS = {
    "dataset": "write it under datasets",
    "seed": "write it under seeds",
    "resume": "the same command goes on",
    "nproc": "--jobs runs several side by side",
    "world_size": "--jobs runs several side by side",
}
#: Settings by which a row may differ from the one whose weights it tests: they decide how items are
#: ranked and what is noted of it, and change nothing that is learned.
TEST_KEYS = (
    *("beam_size", "decoding", "renormalise", "exclude_history", "item_head_score", "merge"),
    *("eval_exact", "eval_likelihood", "eval_buckets", "eval_batch_size", "enable_amp"),
)
#: What trials are judged by, which has to be the same for all that are compared.
_JUDGING_KEYS = (
    *("model", "dataset", "config_files", "valid_metric", "metrics", "topk", "eval_args"),
    *("repeatable", "valid_users", "tie_order"),
)


def read_study(file: str | os.PathLike[str], settings: Mapping[str, Any] | None = None) -> Study:
    """The study of a YAML file.

    Args:
        file: with `models` (settings by name of the row, or names of models; a row's `datasets` are
            those of the study that it runs on, by default all), `datasets`, `seeds` and, where
            wanted, `name` (that of the file), `settings`, `baseline`, `tune` and `tune_on` (all
            data sets).
        settings: given beside the file; they win over its `settings`, not over a row's own.

    Raises:
        ConfigError: it cannot be read, or holds something else; names the key.
    """
    if not os.path.isfile(file):
        raise ConfigError(f"There is no study '{file}': give the path of its YAML file.")
    found = read_yaml(file)
    if unknown := [key for key in found if key not in KEYS]:
        raise ConfigError(f"{file}: Unknown key '{unknown[0]}'{did_you_mean(unknown[0], KEYS)}")
    try:
        datasets = _names("datasets", found.get("datasets"))
        rows = _rows(found.get("models"), datasets)
        spans = [_spans_periods(name, row["model"]) for name, row in rows["rows"].items()]
        if any(spans) and not all(spans):
            raise ConfigError("models: rows over periods cannot stand beside others in one study")
        if any(spans) and rows["weights_of"]:
            raise ConfigError(
                "models: weights_of tests the weights of one training, not of periods"
            )
        if any(spans) and found.get("tune"):
            raise ConfigError("tune: rows over periods have no validation score to choose by")
        study = Study(
            name=str(found.get("name") or Path(file).stem),
            **rows,
            over_periods=any(spans),
            datasets=datasets,
            seeds=_some("seeds", found.get("seeds"), (int,)),
            settings=_settings("settings", {**(found.get("settings") or {}), **(settings or {})}),
            baseline=found.get("baseline"),
            tune=_tune(found.get("tune") or {}, rows["rows"]),
            tune_on=_names("tune_on", found.get("tune_on") or datasets),
        )
        alike = [name for name, (one, other) in study.fused.items() if one == other]
        if alike and len(study.seeds) < 3:
            raise ConfigError(
                f"models, row '{alike[0]}': fuse: a row that is named twice is fused with its run "
                "of the next seed, and with two seeds both fusions would be of the same runs; give "
                "three seeds or more"
            )
        if absent := [name for name in study.tune_on if name not in datasets]:
            near = did_you_mean(absent[0], datasets)
            raise ConfigError(f"tune_on: {absent[0]} is not among the datasets{near}")
        if not re.fullmatch(r"\w[\w.-]*", study.name):
            raise ConfigError(f"name: '{study.name}' must be letters, digits, '.', '-' and '_'")
        known = study.baseline is None or study.baseline in study.rows
        if not known and not study.over_periods:  # whose methods the configurations name
            near = did_you_mean(str(study.baseline), study.rows)
            raise ConfigError(f"baseline: no row is called '{study.baseline}'{near}")
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    return study


def _spans_periods(row: str, model: str) -> bool:
    try:
        return registry.spans_periods(registry.get_model(model))
    except ConfigError as error:
        raise ConfigError(f"models, row '{row}': {error}") from error


def _rows(models: Any, datasets: list[str]) -> dict[str, dict[str, Any]]:
    """`rows`, `fused`, `weights_of` and `only_on` of a study."""
    if isinstance(models, list):
        models = {str(name): {} for name in models}
    if not isinstance(models, dict) or not models:
        raise ConfigError("models: write rows, such as 'models: {TIGER: {}, SASRec: {}}'")
    rows: dict[str, dict[str, Any]] = {}
    fused, only_on, weights_of = {}, {}, {}
    for name, own in models.items():
        where, own = f"models, row '{name}'", dict(own) if isinstance(own, dict) else own
        if isinstance(own, dict) and "datasets" in own:
            only_on[str(name)] = some = _names(f"{where}: datasets", own.pop("datasets"))
            if absent := [each for each in some if each not in datasets]:
                near = did_you_mean(absent[0], datasets)
                raise ConfigError(f"{where}: {absent[0]} is not among the study's datasets{near}")
        own = _settings(where, own)
        if "fuse" in own:
            fused[str(name)] = own.pop("fuse")
            own.setdefault("model", "Fusion")
        if "weights_of" in own:
            if "model" in own or "fuse" in own:
                raise ConfigError(f"{where}: weights_of: the model is that of the row it names")
            weights_of[str(name)] = str(own.pop("weights_of"))
        rows[str(name)] = {**own, "model": str(own.get("model", name))}
    for name, members in fused.items():
        where = f"models, row '{name}': fuse"
        if not isinstance(members, list) or len(members) != 2:
            raise ConfigError(f"{where}: {members!r} must name two rows, such as [SASRec, IntRR]")
        fused[name] = members = [str(member) for member in members]
        for member in members:
            if member not in rows or member in weights_of:
                near = did_you_mean(member, rows.keys() - weights_of.keys())
                raise ConfigError(f"{where}: '{member}' is no row that is trained or fused{near}")
    waves(fused)
    for name, source in weights_of.items():
        _take_weights(name, source, rows, only_on, {*fused, *weights_of})
    return {"rows": rows, "fused": fused, "weights_of": weights_of, "only_on": only_on}


def waves(fused: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Rows that fuse others, those first that fuse trained ones alone, then those that fuse these.

    Raises:
        ConfigError: rows fuse each other; names one.
    """
    left, found = dict(fused), []
    while left:
        ready = [row for row, members in left.items() if not left.keys() & {*members}]
        if not ready:
            row = next(iter(left))
            raise ConfigError(f"models, row '{row}': fuse: it fuses a row that is made of itself")
        found.append(ready)
        left = {row: members for row, members in left.items() if row not in ready}
    return found


def _take_weights(
    name: str,
    source: str,
    rows: dict[str, dict[str, Any]],
    only_on: dict[str, list[str]],
    made: Collection[str],
) -> None:
    """Complete the row `name` by the settings and data sets of the one whose weights it tests."""
    where, trained = f"models, row '{name}'", [row for row in rows if row not in made]
    if source not in trained:
        near = did_you_mean(source, trained)
        raise ConfigError(f"{where}: weights_of: '{source}' is no row that is trained{near}")
    own = {key: value for key, value in rows[name].items() if key != "model"}
    ranks_by = {*TEST_KEYS, *(["ablate"] if own.get("ablate") in ("index", ["index"]) else [])}
    if wrong := [key for key in own if key not in ranks_by]:
        raise ConfigError(
            f"{where}: {wrong[0]} cannot be changed for weights that are trained already; "
            f"weights_of goes with {', '.join(TEST_KEYS)} and 'ablate: index'"
        )
    rows[name] = {**rows[source], **own}
    if source in only_on:
        only_on.setdefault(name, only_on[source])


def _settings(where: str, given: Any) -> dict[str, Any]:
    """Settings in the form in which a run takes them, those of `config_files` among them."""
    if not isinstance(given or {}, dict):
        raise ConfigError(f"{where}: {given!r} is no mapping of keys to values")
    own = dict(given or {})
    if wrong := [key for key in _STUDY_KEYS if key in own]:
        raise ConfigError(f"{where}: {wrong[0]} is not set there; {_STUDY_KEYS[wrong[0]]}")
    if where == "settings" and "model" in own:
        raise ConfigError("settings: model is of a row; write it under models")
    read: dict[str, Any] = {}
    for path in file_list(own.pop("config_files", None)):
        read |= {key: v for key, v in read_yaml(path).items() if key not in ("model", "dataset")}
    return {key: parse_value(value, key) for key, value in {**read, **own}.items()}


def _names(key: str, values: Any) -> list[str]:
    return [str(name) for name in _some(key, values, (str, int))]


def _some(key: str, values: Any, kinds: tuple[type, ...]) -> list[Any]:
    values = values if isinstance(values, list) else [values]
    wrong = [v for v in values if not isinstance(v, kinds) or isinstance(v, bool)]
    if wrong or not values or len(set(values)) < len(values):
        example = "[2020, 2021, 2022]" if key == "seeds" else "[ml-100k]"
        raise ConfigError(f"{key}: {values} must be a list of different ones, such as {example}")
    return values


def _tune(tune: Any, rows: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    if not isinstance(tune, dict) or not all(isinstance(space, dict) for space in tune.values()):
        raise ConfigError("tune: write {row: {key: 'loguniform -8,-5'}}, for example")
    for row, space in tune.items():
        if row not in rows:
            raise ConfigError(f"tune: no row is called '{row}'{did_you_mean(str(row), rows)}")
        for key, text in space.items():
            try:
                parameter(str(key), str(text))
            except ConfigError as error:
                raise ConfigError(f"tune, row '{row}', {key}: {error}") from error
            if key in _STUDY_KEYS or key in _JUDGING_KEYS:
                raise ConfigError(f"tune, row '{row}': {key} is the same for all trials")
            if key in rows[row]:
                raise ConfigError(f"tune, row '{row}': {key} is fixed in the row; leave one out")
    return {str(row): {str(k): str(v) for k, v in space.items()} for row, space in tune.items()}
