"""The papers' ablations, ready to run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwise.study.design import Study
    from headwise.study.presets.budgets import Budget

PRESETS = (
    "heads",
    "augmentations",
    "pixel-histograms",
    "strength",
    "batch-size",
    "temperature",
    "losses",
    "deep-fusion",
    "weight-decay",
    "projection-size",
    "transformer-depth",
    "transformer-heads",
    "transformer-batch-size",
    "transformer-temperature",
    "semi-supervised",
    "fine-tune",
    "fine-tune-from-tap",
    "transfer",
    "transformations",
    "collapse",
)
"""By name, in the order of the pages."""
UNTRAINED = "pixel-histograms"
"""It trains nothing: `histograms.run_histograms` answers it."""


def preset(name: str, budget: "Budget", data: Sequence[str] = ()) -> "Study":
    """The study of this name. `data`: the images, as for --data; by default those of the budget.

    Raises `UserError` for an unknown name, and for images that are not the right number of sets.
    """
    from headwise.study.presets.choice import study_of

    return study_of(name, budget, data)
