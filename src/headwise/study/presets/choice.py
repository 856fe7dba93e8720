"""The study of a preset's name."""

from collections.abc import Sequence

from headwise.errors import UserError, nearest
from headwise.study.design import Study
from headwise.study.presets import PRESETS
from headwise.study.presets.augmentations import augmentations, strength
from headwise.study.presets.budgets import Budget
from headwise.study.presets.collapse import collapse
from headwise.study.presets.deep_fusion import deep_fusion
from headwise.study.presets.heads import heads
from headwise.study.presets.histograms import pixel_histograms
from headwise.study.presets.kept import transfer, transformations
from headwise.study.presets.labels import fine_tune, fine_tune_from_tap, semi_supervised
from headwise.study.presets.losses import losses
from headwise.study.presets.optimisation import batch_size, temperature
from headwise.study.presets.transformers import ABLATIONS, ablation


def study_of(name: str, budget: Budget, data: Sequence[str] = ()) -> Study:
    """As `presets.preset`."""
    match name:
        case "heads":
            return heads(budget, data)
        case "augmentations":
            return augmentations(budget, data)
        case "semi-supervised":
            return semi_supervised(budget, data)
        case "fine-tune":
            return fine_tune(budget, data)
        case "fine-tune-from-tap":
            return fine_tune_from_tap(budget, data)
        case "transformations":
            return transformations(budget, data)
        case "collapse":
            return collapse(budget, data)
        case "pixel-histograms":
            return pixel_histograms(budget, data)
        case "strength":
            return strength(budget, data)
        case "batch-size":
            return batch_size(budget, data)
        case "temperature":
            return temperature(budget, data)
        case "losses":
            return losses(budget, data)
        case "transfer":
            return transfer(budget, data)
        case "deep-fusion":
            return deep_fusion(budget, data)
        case _ if name in ABLATIONS:
            return ablation(name, budget, data)
    raise UserError(f"the preset must be known; got {name!r}; {nearest(name, PRESETS)}")
