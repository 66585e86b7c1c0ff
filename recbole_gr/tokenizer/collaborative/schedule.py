"""The learning rate of LETTER's and DACT's training, and how much training that is."""

from __future__ import annotations

LINEAR, CAPPED = "linear", "capped"


def share_of_rate(step: int, warm: int, total: int, schedule: str = LINEAR) -> float:
    """The share of the peak learning rate at a step.

    ``linear``: from 0 up to 1 in the steps of the warm-up, then down to 0 at the last step, as
    DACT's published code has it. ``capped``: the warm-up, but never above the line from 1 at the
    first step to 0 at the last, so that the peak is lower the shorter a training is.

    Args:
        step: from 0.
        warm: steps of the warm-up, at least 1.
        total: steps of the training.
        schedule: ``linear`` or ``capped``.
    """
    if schedule == CAPPED:
        return min((step + 1) / warm, (total - step) / total)
    if step < warm:
        return step / warm
    return (total - step) / max(1, total - warm)


def training_amount(
    rate: float, epochs: int, warm_epochs: int, steps: int, schedule: str = LINEAR
) -> float:
    """Epochs times learning rate, summed along the schedule: 0.25 for 5,000 epochs with a peak of
    1e-4, whatever the warm-up.

    Args:
        rate: the peak.
        epochs, warm_epochs: of the training and its warm-up.
        steps: of an epoch.
        schedule: see :func:`share_of_rate`.
    """
    warm, total = warm_epochs * steps, epochs * steps
    return rate * sum(share_of_rate(s, warm, total, schedule) for s in range(total)) / steps
