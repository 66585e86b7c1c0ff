"""SIDs as features of click-through models: a data set with SID fields, and what they are worth.

    python -m recbole_gr.sid_features --dataset=ml-100k --tokenizer=R3VAE --compare=DeepFM
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_gr.config.arguments import Arguments
from recbole_gr.config.help import context_models_help, tokenizers_help
from recbole_gr.terminal.command_line import run_command

if TYPE_CHECKING:
    from recbole_gr.config import Config

ARGUMENTS = Arguments(
    "sid-features",
    "--dataset=NAME [--tokenizer=NAME] [--output=DIR] [--compare=MODEL[,MODEL...]] "
    "[--key=value ...]",
    "--dataset=ml-100k --tokenizer=R3VAE --compare=DeepFM",
    """\
Writes a copy of a data set (DIR/<dataset>-sid) whose .item file has the fields sid_1, sid_2, ...:
the prefixes of each item's semantic ID, for any of RecBole's context-aware models. --compare=DeepFM
trains that model on item ids, on SIDs in their place, and on both, and prints AUC and LogLoss by
the number of training interactions of the item.""",
    settings=("run", "data", "tokenizer", "model", "trainer"),
    models="compare",
    tokenizes=True,
    lists=(tokenizers_help, context_models_help),
)
ARGUMENTS.mention_data()
ARGUMENTS.add("output", "DIR", "without it saved/sid_features")
ARGUMENTS.add("hash_size", "N", "hash each prefix into N values", "int >= 1")
ARGUMENTS.add("compare", "MODEL[,MODEL...]", "context-aware models of RecBole's to train")

VARIANTS = ("item id", "SID", "item id and SID")


def sid_features(
    dataset: str | None = None,
    output: str | None = None,
    hash_size: int | None = None,
    model: str = "DeepFM",
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    cmd_args: list[str] | None = None,
) -> dict[str, Any]:
    """Learn SIDs for a data set of click-through models and write them as fields.

    Content and SIDs come from the training split of ``model`` alone, so that `collaborative`
    content holds no test interaction; where none is asked for, content comes from a file or from
    text. (Inferred: the paper does not say how SIDs enter its click-through model.)

    Args:
        dataset (str | None): data set name; None takes the configuration's.
        output (str | None): parent folder of the new data set; None takes `saved/sid_features`.
        hash_size (int | None): values per field at most.
        model (str): a context-aware model, whose settings say how the data are read and split.
        config_file_list, config_dict, cmd_args: as for `run_recbole_gr`.

    Returns:
        dict: as `recbole_gr.commands.sid_fields.write_sid_dataset`, with `report` (QualityReport).

    Raises:
        ConfigError: something in the configuration or the files cannot be used, or the SIDs are
            collapsed (`sid_gate`).
    """
    given = (config_file_list, config_dict, cmd_args)
    with contextlib.ExitStack() as until_written:
        return _sid_features(until_written, dataset, output, hash_size, model, *given)


def _sid_features(
    in_use: contextlib.ExitStack,
    dataset: str | None,
    output: str | None,
    hash_size: int | None,
    model: str,
    config_file_list: list[str] | None,
    config_dict: dict[str, Any] | None,
    cmd_args: list[str] | None,
) -> dict[str, Any]:
    """As `sid_features`; no other run writes the new data set until `in_use` is left."""
    from recbole_gr.commands.sid_fields import write_sid_dataset
    from recbole_gr.data.prepare import training_split
    from recbole_gr.errors import ConfigError
    from recbole_gr.pipeline.item_sids import item_sids
    from recbole_gr.registry import get_tokenizer, tokenizers_where
    from recbole_gr.storage.files import require_writable
    from recbole_gr.storage.run_files import held

    config, sid_config = _configs(model, dataset, config_file_list, config_dict, cmd_args)
    tokenizer = get_tokenizer(sid_config["tokenizer"])
    if not sid_config["sid_file"] and tokenizer.signals:
        raise ConfigError(
            f"tokenizer {sid_config['tokenizer']} learns from sequences, which click-through data "
            f"do not have; take {' or '.join(tokenizers_where(lambda other: not other.signals))}"
        )
    folder = output or Path("saved") / "sid_features"
    target = Path(folder, f"{config['dataset']}-sid")
    require_writable(target, "give another --output")
    in_use.enter_context(held(target, "give another --output"))
    sids = item_sids(sid_config, training_split(config))
    written = write_sid_dataset(config, sids.table, sids.content.item_tokens, folder, hash_size)
    return {**written, "report": sids.report}


def compare_features(
    written: Mapping[str, Any],
    model: str,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    cmd_args: list[str] | None = None,
    variants: Sequence[str] = VARIANTS,
) -> list[dict[str, Any]]:
    """Train a click-through model on item ids, on SIDs and on both; all see the same rows.

    Args:
        written (dict): of :func:`sid_features`.
        model (str): a context-aware model of RecBole's.
        config_file_list, config_dict, cmd_args: as for `run_recbole_gr`.
        variants: some of `VARIANTS`.

    Returns:
        list[dict]: results as of `run_recbole_gr`, whose `model` names the variant too.
    """
    from recbole_gr.config import Config
    from recbole_gr.quick_start import run_model

    results = []
    for variant in variants:
        load_col = dict(written["settings"]["load_col"])
        if variant == "item id":
            load_col["item"] = [f for f in load_col["item"] if f not in written["fields"]]
        settings = {
            **(config_dict or {}),
            **written["settings"],
            "data_path": written["folder"],
            "load_col": load_col,
            "hide_item_id": variant == "SID",
        }
        arguments = [a for a in cmd_args or [] if not a.startswith(("--data_path=", "--dataset="))]
        config = Config(
            model,
            written["dataset"],
            config_file_list,
            settings,
            arguments,
            other_models=["TIGER"],
        )
        results.append({**run_model(config), "model": f"{model}, {variant}"})
    return results


def _configs(
    model: str,
    dataset: str | None,
    config_file_list: list[str] | None,
    config_dict: dict[str, Any] | None,
    cmd_args: list[str] | None,
) -> tuple[Config, Config]:
    """The configuration of the click-through model, and one with the keys of SIDs."""
    from recbole.utils import ModelType

    from recbole_gr.config import Config
    from recbole_gr.config.user_settings import UserSettings
    from recbole_gr.errors import ConfigError

    given = UserSettings.read(config_file_list, config_dict, cmd_args)
    config = Config(model, dataset, other_models=["TIGER"], given=given)
    if config["MODEL_TYPE"] != ModelType.CONTEXT:
        raise ConfigError(f"{model} is no context-aware model; take DeepFM, DCNV2 or AutoInt")
    # The data set's own choice for sequential models is made from the interactions.
    if given.source_of("item_content") is None:
        given = given.with_settings({"item_content": "auto"})
    return config, Config("TIGER", dataset, other_models=[model], given=given)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code, 2 where something given cannot be used."""
    return run_command(_run, ARGUMENTS, argv)


def _run(own: dict[str, Any], rest: list[str]) -> int:
    models = [name.strip() for name in own.get("compare", "").split(",") if name.strip()]
    with contextlib.ExitStack() as until_compared:
        written = _sid_features(
            until_compared,
            None,
            own.get("output"),
            own.get("hash_size"),
            models[0] if models else "DeepFM",
            None,
            None,
            rest,
        )
        print("Written: " + ", ".join(map(str, written["files"])))
        print(f"Train with them: {_next(written, models)}")
        results = [r for name in models for r in compare_features(written, name, cmd_args=rest)]
        if results:
            _print_comparison(results, written["dataset"])
    return 0


def _next(written: Mapping[str, Any], models: list[str]) -> str:
    """The command that trains a click-through model on the new data set."""
    from recbole_gr.config.command_lines import run_command

    settings = next(file for file in written["files"] if file.suffix == ".yaml")
    return run_command(
        model=models[0] if models else "DeepFM", dataset=written["dataset"],
        data_path=written["folder"], config_files=str(settings),
    )  # fmt: skip


def _print_comparison(results: list[dict[str, Any]], dataset: str) -> None:
    from recbole_gr.report.bucket_table import bucket_table
    from recbole_gr.report.comparison import markdown_table, write_report
    from recbole_gr.storage.run_files import new_folder

    with new_folder(Path(results[0]["config"]["result_dir"], dataset)) as folder:
        files = write_report(results, folder)
    print(f"{markdown_table(results)}\n\n{bucket_table(results)}\n\nWritten to {files['md']}.")


if __name__ == "__main__":
    sys.exit(main())
