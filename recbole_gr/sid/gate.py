"""Whether SIDs are fit to train a recommender on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.sid.formats import level_name

if TYPE_CHECKING:
    from recbole_gr.config import Settings
    from recbole_gr.sid.quality import QualityReport

GATES = ("stop", "warn", "off")


def check_gate(config: Settings) -> tuple[str, float, float]:
    """The gate's options: mode, least distinct rate and least utilisation.

    Raises:
        ConfigError: an unknown mode, or a share outside [0, 1].
    """
    mode = config["sid_gate"]
    mode = "off" if mode is False else mode  # YAML reads a bare off as False
    if mode not in GATES:
        raise ConfigError(
            f"sid_gate: {mode!r} is none of {', '.join(GATES)}{did_you_mean(mode, GATES)}"
        )
    shares = []
    for key in ("sid_min_distinct", "sid_min_utilisation"):
        value = config[key]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value <= 1:
            raise ConfigError(f"{key}: {value!r} must be a number from 0 to 1")
        shares.append(value)
    return mode, *shares


def collapse_reasons(
    report: QualityReport, min_distinct: float, min_utilisation: float
) -> list[str]:
    """Why a SID table is collapsed; an empty list where it is not.

    Judged are the SIDs before a collision policy, which would hide the collapse. The most SIDs that
    can be wanted is the least of items, different content vectors and combinations of codes. A
    level needs no more codes than the largest group of items that it has to tell apart.

    Args:
        report: :class:`~recbole_gr.sid.quality.QualityReport`.
        min_distinct: least share of the possible SIDs that must be in use.
        min_utilisation: least share of every level's codes that must be in use.
    """
    levels, possible = report.levels[: report.content_levels], report.n_items
    if report.distinct_content:
        possible = min(possible, report.distinct_content)
    combinations = 1
    for level in levels:
        combinations *= level.size
    possible = min(possible, combinations)
    distinct = (report.before_policy or {"distinct": report.distinct})["distinct"]
    reasons = []
    if distinct < min_distinct * possible:
        reasons.append(
            f"{distinct} distinct SIDs for {report.n_items} items, {distinct / possible:.1%} of "
            f"those possible (sid_min_distinct={min_distinct})"
        )
    groups = [report.n_items, *(prefix.largest for prefix in report.prefixes)]
    for number, (level, group) in enumerate(zip(levels, groups)):
        most = min(level.size, group)
        if level.used < min_utilisation * most:
            reasons.append(
                f"level {level_name(number)} uses {level.used} of {most} codes "
                f"(sid_min_utilisation={min_utilisation})"
            )
    return reasons


def apply_gate(config: Settings, report: QualityReport) -> None:
    """Stop a run on collapsed SIDs, or warn of them, as ``sid_gate`` says.

    Raises:
        ConfigError: collapsed SIDs under ``sid_gate: stop``; says what is wrong and what helps.
    """
    mode, *shares = check_gate(config)
    reasons = [] if mode == "off" else collapse_reasons(report, *shares)
    if not reasons:
        return
    source = f"sid_file {config['sid_file']}" if config["sid_file"] else (
        f"tokenizer {report.meta.get('tokenizer', config['tokenizer'])}"
    )  # fmt: skip
    message = f"The SIDs are collapsed ({source}): {'; '.join(reasons)}. {_remedy(config)}"
    if mode == "stop":
        raise ConfigError(
            f"{message} Nothing was trained; --sid_gate=warn or off trains on them all the same."
        )
    logging.getLogger().warning(message)


def _remedy(config: Settings) -> str:
    if config["sid_file"]:
        return "Take another SID file, or learn SIDs with --tokenizer=RKMeans."
    options = {
        "softmax": "set rating_mode=top1_projection, or rating_temperature=0.02",
        "topk": "set rating_mode=top1_projection, or rating_temperature=0.02",
        "top1_rating": "set rating_mode=top1_projection",
    }
    tokenizer, advice = config["tokenizer"], []
    if tokenizer == "R3VAE" and config["rating_mode"] in options:
        advice.append(options[config["rating_mode"]])
    if tokenizer in ("R3VAE", "RQVAE") and not config["kmeans_init"]:
        advice.append("set kmeans_init=True")
    if tokenizer == "RQVAE" and not config["restart_dead_codes"]:
        advice.append("set restart_dead_codes=True")
    advice += ["take --tokenizer=RKMeans", "see that the item content tells items apart"]
    return f"What helps: {'; '.join(advice)}."
