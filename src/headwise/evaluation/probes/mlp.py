"""The MLP probe: classes from frozen features by one hidden layer."""

import torch
from jaxtyping import Float, Int64
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from headwise import rng
from headwise.runtime import hardware

# Rows a step, and steps without a better validation before it ends. In steps, not in epochs: a few
# hundred rows are few steps an epoch.
_BATCH, _PATIENCE = 200, 400


def mlp_predict(
    x: Float[Tensor, "n p"],
    y: Int64[Tensor, " n"],
    x_test: Float[Tensor, "m p"],
    width: int,
    seed: int,
) -> Int64[Tensor, " m"]:
    """The answers of an MLP with one hidden layer: Adam until a fifth of the training rows has
    seen no better epoch for 400 steps, then the best epoch's weights."""
    fitted = round(0.8 * len(x))
    mlp = MLPClassifier(
        (width,),
        batch_size=min(_BATCH, fitted),
        early_stopping=True,
        validation_fraction=0.2,
        n_iter_no_change=_PATIENCE * _BATCH // max(fitted, _BATCH),
        max_iter=100 * _PATIENCE,  # never reached
        random_state=rng.seed_at(seed, "mlp") % 2**32,
    )
    with hardware.threads_for(_BATCH * x.shape[1] * width):
        mlp.fit(x.numpy(), y.numpy())
        return torch.from_numpy(mlp.predict(x_test.numpy()))
