"""Whether a run trained long enough for its numbers to say something about its head."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

LEAST_STEPS = 500
"""A run of fewer steps has hardly moved its weights."""
_LEFT = 0.02
"""A loss that is this share below where it began has left its start."""


def too_short(metrics: Sequence[Mapping[str, Any]]) -> str:
    """A sentence where these records (`Run.metrics()`) say that the run did not train long enough
    to judge its head, otherwise empty.

    Its start is its first record. The loss of equal projections, log(2n − 1) for NT-Xent of n
    images, counts as a start too: from a low temperature the loss can fall to it and stay there.
    A loss of semi-hard negatives hardly falls, so a run in which most anchors find their twin has
    left its start whatever its loss.
    """
    records = [record for record in metrics if math.isfinite(record.get("loss", math.nan))]
    if not records:
        return ""
    steps = records[-1]["step"]
    if steps < LEAST_STEPS:
        return f"{steps:,} steps: too short to judge a head."
    last = records[-math.ceil(len(records) / 10) :]
    start, end = records[0]["loss"], statistics.fmean(record["loss"] for record in last)
    found = statistics.fmean(record.get("contrastive_accuracy", 0.0) for record in last)
    flat = math.log(2 * records[-1]["images_seen"] / steps - 1)
    if len(records) > 1 and end >= start - _LEFT * abs(start) and found <= 0.5:
        left = f"its start ({end:.2f} after {start:.2f})"
    elif abs(end - flat) <= _LEFT * flat:
        left = f"that of equal projections ({end:.2f}, log(2n − 1) is {flat:.2f})"
    else:
        return ""
    return f"After {steps:,} steps the loss has not left {left}: too short to judge a head."
