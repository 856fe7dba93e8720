"""How well known nuisance factors can be read from features."""

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from headwise.evaluation.linear import linear_probe

_PENALTIES = np.logspace(-2, 5, 15)


def factor_scores(
    train: Float[Tensor, "n p"],
    train_factors: dict[str, Tensor],
    test: Float[Tensor, "m p"],
    test_factors: dict[str, Tensor],
    *,
    seed: int,
) -> dict[str, float]:
    """A score in [0, 1] for each factor: 0 is what a constant guess reaches, 1 is exact.

    Continuous factors: R² on the test images of a ridge regression (penalty by leave-one-out),
    negative values cut to 0; NAME_sine and NAME_cosine count as one factor, an angle. Categorical
    factors (integers): accuracy of the linear probe, rescaled so that the commonest training class
    scores 0.
    """
    scaler = StandardScaler().fit(train.numpy())
    x, x_test = scaler.transform(train.numpy()), scaler.transform(test.numpy())
    continuous = [name for name, values in train_factors.items() if values.is_floating_point()]
    scores = {}
    if continuous:
        y = torch.stack([train_factors[name] for name in continuous], 1).double().numpy()
        ridge = RidgeCV(_PENALTIES, alpha_per_target=True).fit(x, y)
        guess = ridge.predict(x_test).reshape(len(test), -1)
        truth = torch.stack([test_factors[name] for name in continuous], 1).double().numpy()
        error = ((truth - guess) ** 2).mean(0)
        constant = ((truth - y.mean(0)) ** 2).mean(0)
        for name in dict.fromkeys(map(_angle, continuous)):
            parts = [i for i, part in enumerate(continuous) if _angle(part) == name]
            spread = constant[parts].sum()
            scores[name] = float(np.clip(1 - error[parts].sum() / spread, 0, 1)) if spread else 0.0
    for name in [name for name in train_factors if name not in continuous]:
        labels, test_labels = train_factors[name], test_factors[name]
        accuracy = linear_probe(train, labels, test, test_labels, seed=seed).accuracy
        guess_accuracy = (test_labels == labels.mode().values).double().mean().item()
        scores[name] = max(0.0, (accuracy - guess_accuracy) / max(1 - guess_accuracy, 1e-9))
    return scores


def _angle(name: str) -> str:
    """The name of the angle that a factor is the sine or cosine of, else its own name."""
    return name.removesuffix("_sine").removesuffix("_cosine")
