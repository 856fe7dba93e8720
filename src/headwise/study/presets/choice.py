"""The study of a preset's name."""

from collections.abc import Sequence

from headwise.errors import UserError, nearest
from headwise.study.design import Study
from headwise.study.presets import PRESETS
from headwise.study.presets.augmentations import augmentations
from headwise.study.presets.budgets import Budget
from headwise.study.presets.deep_fusion import deep_fusion
from headwise.study.presets.heads import heads
from headwise.study.presets.transformers import ABLATIONS, ablation


def study_of(name: str, budget: Budget, data: Sequence[str] = ()) -> Study:
    """As `presets.preset`."""
    match name:
        case "heads":
            return heads(budget, data)
        case "augmentations":
            return augmentations(budget, data)
        case "deep-fusion":
            return deep_fusion(budget, data)
        case _ if name in ABLATIONS:
            return ablation(name, budget, data)
    raise UserError(f"the preset must be known; got {name!r}; {nearest(name, PRESETS)}")
