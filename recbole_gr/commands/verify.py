"""The command `verify`: a finished run, repeated and compared.

python -m recbole_gr.verify results/ml-100k-TIGER-DATE/manifest.json
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recbole_gr.config.arguments import Arguments
from recbole_gr.terminal.command_line import run_command

if TYPE_CHECKING:
    from recbole.config import Config

ARGUMENTS = Arguments(
    "verify",
    "MANIFEST [--key=value ...]",
    "results/ml-100k-TIGER/manifest.json --data_path=dataset",
    """\
Checks that the data are those of the run, runs it again from its configuration, and compares the
hash of the SIDs, the tested targets and every metric. On a CPU, with the same versions and number
of threads and processes, all are equal. Settings are those of this machine.

Exit code: 0 all equal, 1 something differs, 2 the manifest or its data cannot be used.""",
    settings=("run", "data"),
)
ARGUMENTS.add_file("manifest", "as a run wrote it")
ARGUMENTS.add("tolerance", "X", "largest difference that counts as none", "float >= 0", default=0.0)
ARGUMENTS.mention("model", "NAME[,NAME...]", "your classes, package.module:Class, of such a run")
ROUNDING = 1e-3  # of metrics of four decimals, where sums have another order


def verify(manifest: str | os.PathLike[str], tolerance: float = 0.0, **overrides: Any) -> list[str]:
    """Run the runs of a manifest again and compare them with it.

    Whatever the manifest says, all files go to a temporary folder, no log is kept and nobody is
    told of it (`log_wandb`). SIDs and content are made again.

    Args:
        manifest (str | os.PathLike): a `manifest.json`.
        tolerance (float): largest difference of a metric that counts as none.
        **overrides: settings of this machine, such as `data_path`, and what a manifest may not
            say: `model` (of a class of your own, or several), `tokenizer`, `backbone`...

    Returns:
        list[str]: what differs, a sentence each; empty where all is equal.

    Raises:
        ConfigError: no manifest, settings that no longer hold, or files of the data set that are
            not those of the run (says which); nothing is run then.
    """
    from recbole_gr.distributed.launch import run_processes
    from recbole_gr.errors import ConfigError
    from recbole_gr.storage.manifest import NAME, REMEDY, RUN, read_manifest
    from recbole_gr.untrusted.shapes import require

    record = read_manifest(manifest)
    if not record.get("continual", record)["results" if "continual" in record else "runs"]:
        raise ConfigError(
            f"'{manifest}' holds no run to compare with; give the {NAME} beside a run's report"
        )
    if "continual" in record:
        then = record["continual"]
        request = (manifest, then, tolerance, overrides)
        return run_processes(_verify_continual, request, _layout(then["settings"]))
    for run in record["runs"]:
        _refuse_resumed(manifest, run["model"], run["config"])
    require(record, {"saved": bool, "runs": [RUN]}, manifest, REMEDY)
    request = (manifest, record, tolerance, overrides)
    return run_processes(_verify_runs, request, _layout(record["runs"][0]["config"]))


def _layout(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As many processes as there were, all of them here."""
    return {"nproc": max(settings.get("nproc") or 1, settings.get("world_size") or 1)}


def _verify_runs(
    manifest: str, record: dict[str, Any], tolerance: float, overrides: dict[str, Any]
) -> list[str]:
    """As :func:`verify`, in each process of the run."""
    from recbole_gr.registry import get_model
    from recbole_gr.run.model import run_model
    from recbole_gr.serving.restore import restored_config
    from recbole_gr.storage.manifest import REMEDY
    from recbole_gr.terminal.log import without_logs
    from recbole_gr.untrusted.effects import confined
    from recbole_gr.untrusted.shapes import taking

    with (
        tempfile.TemporaryDirectory() as folder,
        without_logs(),
        taking("run", manifest, REMEDY),
    ):
        own, configs = confined(folder), []
        classes = {model.__name__: model for model in map(get_model, _names(overrides))}
        overrides = {key: value for key, value in overrides.items() if key != "model"}
        for run in record["runs"]:
            config = run["config"]
            start = {key: config[key] for key in ("warmup_from",) if config.get(key)}
            settings = {**own, **start, **overrides}
            own_class = classes.get(config["model"])
            configs.append(restored_config(run, str(manifest), own_class, settings, learns=True))
            _check_data(manifest, run, configs[-1])
        differences = []
        for run, config in zip(record["runs"], configs):
            result = run_model(config, saved=record["saved"])
            differences += _compare(run, result, tolerance)
    return differences


def _verify_continual(
    manifest: str | os.PathLike[str],
    then: Mapping[str, Any],
    tolerance: float,
    overrides: Mapping[str, Any],
) -> list[str]:
    """As :func:`verify` for a run over all periods."""
    from recbole_gr.config.names import check_names
    from recbole_gr.config.user_settings import UserSettings
    from recbole_gr.continual.runner import ContinualRun
    from recbole_gr.storage.manifest import REMEDY
    from recbole_gr.terminal.log import without_logs
    from recbole_gr.untrusted.effects import OUTSIDE, confined
    from recbole_gr.untrusted.shapes import taking

    models = _names(overrides) or then["models"]
    for name in models:
        check_names({"model": name, "dataset": then["dataset"]}, manifest, overrides)
    check_names(then["settings"], manifest, overrides, learns=True)
    before = {key: value for key, value in then["settings"].items() if key not in OUTSIDE}
    _refuse_resumed(manifest, "a period", before)
    with (
        tempfile.TemporaryDirectory() as folder,
        without_logs(),
        taking("run", manifest, REMEDY),
    ):
        settings = {**before, **confined(folder, continual=True), **overrides}
        run = ContinualRun(models, then["dataset"], UserSettings.read(config_dict=settings))
        _check_data(manifest, then, run.config)
        outcome = run.run()
    if outcome is None:  # not rank 0
        return []
    now, found = outcome["results"], []
    both = (then["results"], now)
    order = [[(r["period"], r["model"], r["method"]) for r in part] for part in both]
    if order[0] != order[1]:
        return [f"the results are of {order[1]}, were of {order[0]} (period, model and method)"]
    for before, after in zip(then["results"], now):
        place = f"period {before['period']}, {before['model']} {before['method']}"
        for part in ("best_valid_result", "test_result"):
            found += _differences(place, part, before[part], after[part], tolerance)
        if before["churn"] != after["churn"]:
            found.append(f"{place}: churn is {after['churn']}, was {before['churn']}")
    return found


def _refuse_resumed(
    manifest: str | os.PathLike[str], name: str, settings: Mapping[str, Any]
) -> None:
    from recbole_gr.errors import ConfigError

    if settings.get("resume"):
        raise ConfigError(
            f"'{manifest}': {name} was resumed from {settings['resume']}; only a run from the "
            "start can be run again"
        )


def _names(overrides: Mapping[str, Any]) -> list[Any]:
    """The models that the user names himself, if any."""
    given = overrides.get("model") or []
    return [n.strip() for n in given.split(",")] if isinstance(given, str) else list(given)


def _check_data(manifest: str | os.PathLike[str], run: Mapping[str, Any], config: Config) -> None:
    from recbole_gr.errors import ConfigError
    from recbole_gr.storage.manifest import data_hashes

    now, then = data_hashes(config), run["data"]
    changed = sorted(name for name in then if now.get(name) != then[name])
    if changed:
        raise ConfigError(
            f"'{manifest}': not the data of the run: {', '.join(changed)} of {run['dataset']} in "
            f"{config['data_path']} changed or are missing; give theirs by --data_path"
        )


def _compare(run: Mapping[str, Any], result: Mapping[str, Any], tolerance: float) -> list[str]:
    """Differences of one model's results from the manifest, a sentence each."""
    found = []
    for key in ("sid_digest", "test_targets"):
        if not _same(run[key], result[key]):
            found.append(f"{run['model']}: {key} is {result[key]}, was {run[key]}")
    for part in ("best_valid_result", "test_result"):
        found += _differences(run["model"], part, run[part], result[part], tolerance)
    return found


def _same(then: Any, now: Any) -> bool:
    """Whether values are equal, in a mapping those that the manifest has: older ones have less."""
    if isinstance(then, dict) and isinstance(now, dict):
        return all(key in now and now[key] == value for key, value in then.items())
    return bool(then == now)


def _differences(
    place: str,
    part: str,
    then: Mapping[str, Any] | None,
    now: Mapping[str, Any] | None,
    tolerance: float,
) -> list[str]:
    from recbole_gr.storage.json_files import finite

    then, now, found = then or {}, now or {}, []
    for name in sorted(set(then) | set(now)):
        before, after = then.get(name), finite(now.get(name))
        equal = before == after
        if not equal and None not in (before, after):
            equal = abs(before - after) <= tolerance
        if not equal:
            found.append(f"{place}: {part} {name} is {after}, was {before}")
    return found


def _other_circumstances(record: Mapping[str, Any]) -> list[str]:
    """What is not as it was, which may explain differences."""
    from recbole_gr.storage.checkpoint import versions
    from recbole_gr.storage.manifest import machine

    pairs = [(record.get("versions", {}), versions()), (record.get("machine", {}), machine())]
    return [
        f"{name} {now.get(name)}, was {value}"
        for then, now in pairs
        for name, value in then.items()
        if now.get(name) != value
    ]


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code (see the usage)."""
    return run_command(_run, ARGUMENTS, argv)


def _run(own: dict[str, Any], settings: list[str]) -> int:
    from recbole_gr.config.command_lines import command
    from recbole_gr.config.parsing import parse_arguments
    from recbole_gr.storage.manifest import read_manifest

    manifest, tolerance = own["manifest"], own["tolerance"]
    differences = verify(manifest, tolerance, **parse_arguments(settings))
    others = _other_circumstances(read_manifest(manifest))
    if not differences:
        print("Equal: SIDs, tested targets and every metric are those of the manifest.")
        asked = _next(manifest, settings)
        if asked:
            print(f"Recommend with it: {asked}")
        return 0
    print("\n".join(differences))
    if others:
        print("Not as in the run: " + "; ".join(others))
    if tolerance < ROUNDING and all("_result " in difference for difference in differences):
        again = command("-m", "recbole_gr.verify", manifest, *settings, tolerance=ROUNDING)
        print(f"Allow for another order of sums: {again}")
    return 1


def _next(manifest: str, arguments: list[str]) -> str | None:
    """The command that recommends with the first checkpoint of a manifest that is there."""
    from recbole_gr.config.command_lines import example_in_file, recommend_command
    from recbole_gr.storage.manifest import read_manifest

    record = read_manifest(manifest)
    runs = record["continual"]["results"][::-1] if "continual" in record else record["runs"]
    for run in runs:
        file, example = run.get("checkpoint"), run.get("example")
        if isinstance(file, str) and isinstance(example, dict) and os.path.isfile(file):
            return recommend_command(file, example_in_file(example, arguments))
    return None


if __name__ == "__main__":
    sys.exit(main())
