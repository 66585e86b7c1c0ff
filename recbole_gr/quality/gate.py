"""The quality gate: SIDs that no recommender should be trained on are refused."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from recbole_gr import registry
from recbole_gr.errors import ConfigError
from recbole_gr.sid.formats import level_name
from recbole_gr.sid.sizes import auto_size

if TYPE_CHECKING:
    from recbole_gr.config import Settings
    from recbole_gr.quality.measures import QualityReport

LEAST_SHARING = 2.0  # items to a code of the first level, on average
ONE_IN = 1000  # SIDs that a later level must make more
AS_IDS = 1.1  # items to a code, on average, below which a later level works like item ids


def collapse_reasons(
    report: QualityReport, min_distinct: float, min_utilisation: float, in_order: bool = True
) -> list[str]:
    """Why a SID table is collapsed, or has levels that carry nothing; empty where it is fit.

    Judged are the SIDs before a collision policy, which would hide the collapse. The most SIDs that
    can be wanted is the least of items, different content vectors and combinations of codes. A
    level needs no more codes than the largest group of items that it has to tell apart; see
    `idle_levels` for the rest.

    Args:
        report: :class:`~recbole_gr.quality.measures.QualityReport`.
        min_distinct: least share of the possible SIDs that must be in use.
        min_utilisation: least share of every level's codes that must be in use.
        in_order: whether codes are predicted one after the other, so that a level can be idle.
    """
    levels, possible = report.levels[: report.content_levels], report.n_items
    if report.distinct_content:
        possible = min(possible, report.distinct_content)
    combinations = 1
    for level in levels:
        combinations *= level.size
    if combinations > 1:  # codebooks of one code each are not what can be wanted
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
    # Of items that cannot be told apart, or are not, no level is to blame.
    named = {reason.partition(" uses ")[0] for reason in reasons}
    idle = idle_levels(report) if in_order and min(possible, distinct) > 1 else {}
    return reasons + [f"{level} {why}" for level, why in idle.items() if level not in named]


def idle_levels(report: QualityReport) -> dict[str, str]:
    """Levels that carry nothing, each with what is wrong.

    SIDs serve by codes that items share. Where the first level has a code for nearly every item (on
    average fewer than two items to a code), it works like item ids, and nothing is left for those
    after it; so does a later level whose codes, whatever comes before them, are as many as the
    items (fewer than 1.1 to a code). A later level carries nothing where it makes less than one in
    a thousand SIDs more: given the levels before it, its code is known. A table from outside, which
    does not say which of its levels come from content, may end in one that only makes SIDs unique,
    and need not do even that. A SID of one level is an id by design, which the report says.

    Args:
        report: :class:`~recbole_gr.quality.measures.QualityReport`.

    Returns:
        dict[str, str]: by `level a`, `level b`, ...
    """
    n_levels = report.content_levels
    if n_levels == report.n_levels and "tokenizer" not in report.meta:
        n_levels -= 1
    found, depths = {}, report.prefixes
    if report.content_levels > 1 and depths[0].mean_items < LEAST_SHARING:
        found[f"level {level_name(0)}"] = (
            f"has {depths[0].distinct} codes for {report.n_items} items, nearly one for each: it "
            "works like item ids"
        )
    for number in range(1, report.content_levels):
        before, after = depths[number - 1].distinct, depths[number].distinct
        used = report.levels[number].used
        if report.n_items < AS_IDS * used:
            found[f"level {level_name(number)}"] = (
                f"has {used} codes for {report.n_items} items, nearly one for each: it works like "
                "item ids"
            )
        elif number < n_levels and (after - before) * ONE_IN < report.n_items:
            found[f"level {level_name(number)}"] = (
                f"carries nothing: the levels before it make {before} different SIDs, with it "
                f"there are {after}"
            )
    return found


def codes_in_order(config: Settings) -> bool:
    """Whether the model of a run, if it has one, predicts codes one after the other."""
    return getattr(getattr(config, "model_class", None), "codes_in_order", True)


def apply_gate(config: Settings, report: QualityReport) -> None:
    """Stop a run on collapsed SIDs, or warn of them, as ``sid_gate`` says.

    Raises:
        ConfigError: collapsed SIDs under ``sid_gate: stop``; says what is wrong and what helps.
    """
    mode = config["sid_gate"]
    shares = config["sid_min_distinct"], config["sid_min_utilisation"]
    in_order = codes_in_order(config)
    reasons = [] if mode == "off" else collapse_reasons(report, *shares, in_order)
    if not reasons:
        return
    message = verdict(config, report, reasons)
    if mode == "stop":
        raise ConfigError(
            f"{message} Nothing was trained; --sid_gate=warn or off trains on them all the same."
        )
    logging.getLogger().warning(message)


def verdict(config: Settings, report: QualityReport, reasons: list[str]) -> str:
    """What is wrong with the SIDs of a run, and what helps, in sentences.

    Args:
        config: of the run.
        report: :class:`~recbole_gr.quality.measures.QualityReport`.
        reasons: of :func:`collapse_reasons`, at least one.
    """
    source = f"sid_file {config['sid_file']}" if config["sid_file"] else (
        f"tokenizer {report.meta.get('tokenizer', config['tokenizer'])}"
    )  # fmt: skip
    idle = idle_levels(report)
    only_idle = all(any(reason.startswith(level) for level in idle) for reason in reasons)
    what = "have levels that carry nothing" if only_idle else "are collapsed"
    remedy = _remedy_of_sizes(config, report) if idle else _remedy(config)
    return f"The SIDs {what} ({source}): {'; '.join(reasons)}. {remedy}"


def _remedy_of_sizes(config: Settings, report: QualityReport) -> str:
    if config["sid_file"]:
        return _remedy(config)
    size = auto_size(report.n_items, report.content_levels)
    return (
        f"What helps: codebook_size={size} (or auto) where it is larger, or fewer sid_levels; see "
        "that the item content tells items apart."
    )


def _remedy(config: Settings) -> str:
    if config["sid_file"]:
        return "Take another SID file, or learn SIDs with --tokenizer=RKMeans."
    known = registry.get_tokenizer(config["tokenizer"]).advice
    advice = [remedy for key, harmful, remedy in known if config[key] in harmful]
    advice += ["take --tokenizer=RKMeans", "see that the item content tells items apart"]
    return f"What helps: {'; '.join(advice)}."
