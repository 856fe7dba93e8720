"""Images of several classes at once: sets of classes as class names, and a linear probe for them.

An image set has one label an image. Where an image shows several things its class is the set of
them, spelled `car+person`, and the empty set is the empty name. So splits, selections and
fingerprints know nothing of it.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from headwise.data.split import stratified_split
from headwise.errors import UserError
from headwise.evaluation.probes.logistic import fit_logistic, scores
from headwise.evaluation.protocols.linear import PENALTIES
from headwise.evaluation.statistics.metrics import score
from headwise.features.extract import check_tables

JOINT = "+"

_VALIDATION_FRACTION = 0.2

# As on the path of `linear_probe`.
_PATH_TOLERANCE = 1e-6

_Model = tuple[Tensor, Tensor]


def memberships(sets: Sequence[str]) -> tuple[tuple[str, ...], Bool[Tensor, "k c"]]:
    """The classes that occur in k sets, sorted, and which of them each set has."""
    members = [set(name.split(JOINT)) - {""} for name in sets]
    classes = tuple(sorted(set().union(*members)))
    return classes, torch.tensor([[name in one for name in classes] for one in members])


@torch.no_grad()
def multilabel_probe(
    train: Float[Tensor, "n p"],
    labels: Int64[Tensor, " n"],
    sets: Bool[Tensor, "k c"],
    test: Float[Tensor, "m p"],
    *,
    seed: int,
    penalties: Sequence[float] = PENALTIES,
) -> tuple[Float[Tensor, "m c"], float]:
    """Scores of test rows from one binary logistic regression a class, and their λ.

    As `linear_probe`: the training mean taken off, all divided by one root mean square; one λ for
    all classes, that of highest 11-point mAP on a fifth of the training rows (of equals, the
    largest); then fitted again on all of them. Raises `UserError` for features that are not finite,
    and where no class can be validated on.
    """
    check_tables("the linear probe", train, test)
    mean = train.double().mean(0).float()
    scale = (train - mean).double().square().mean().sqrt().float()
    scale = torch.where(scale > 0, scale, 1.0)
    x, targets = (train - mean) / scale, sets[labels]
    fitted, held_out = stratified_split(labels, _VALIDATION_FRACTION, seed)
    if not targets[held_out].any():
        raise UserError(
            "the linear probe of several classes an image needs 2 training images of the same "
            f"classes, one of them to validate on; got none among {len(labels)}"
        )
    best = (-1.0, 0.0, [])
    models = [(x.new_zeros(2, x.shape[1]), x.new_zeros(2))] * sets.shape[1]
    for penalty in sorted(penalties, reverse=True):
        models = [
            _fit(x[fitted], y, penalty, start, _PATH_TOLERANCE)
            for y, start in zip(targets[fitted].T, models, strict=True)
        ]
        found = score("map11", _log_odds(models, x[held_out]), targets[held_out])
        if found > best[0]:
            best = (found, penalty, models)
    _, chosen, starts = best
    models = [_fit(x, y, chosen, start) for y, start in zip(targets.T, starts, strict=True)]
    return _log_odds(models, (test - mean) / scale), chosen


def _fit(x: Tensor, y: Tensor, penalty: float, start: _Model, tolerance: float = 1e-8) -> _Model:
    # Two classes share the weight of one, w/2 and −w/2, whose squares sum to half of w's.
    return fit_logistic(
        x, y.long(), num_classes=2, penalty=2 * penalty, start=start, tolerance=tolerance
    )


def _log_odds(models: Sequence[_Model], x: Tensor) -> Tensor:
    return torch.cat([scores(model, x).diff(dim=1) for model in models], 1)
