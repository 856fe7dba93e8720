"""Right and wrong answers of two heads over seeds and images, with known differences."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def differences(
    draw: np.random.Generator, *, seeds: int, images: int, spread: float, gain: float = 0.0
) -> Float[Tensor, "s n"]:
    """Right (1) or wrong (0) of one head minus that of another, by seed and test image.

    `spread`: the standard deviation of a head's accuracy over seeds, in shares. `gain`: how much
    higher the first head's accuracy is, over all seeds and images. Images differ in difficulty, for
    both heads alike and for each on its own.
    """
    # An image's score is normal with deviation `scale`, so accuracy is its distribution function.
    scale, mean = (1.5**2 + 0.5**2 + 1.0) ** 0.5, 0.5
    slope = np.exp(-((mean / scale) ** 2) / 2) / (scale * (2 * np.pi) ** 0.5)
    difficulty = draw.normal(0, 1.5, images)
    right = []
    for shift in (gain / 2, -gain / 2):
        own = draw.normal(0, 0.5, images)
        seed = draw.normal(shift, spread, (seeds, 1)) / slope
        right.append(mean + difficulty + own + seed + draw.normal(0, 1, (seeds, images)) > 0)
    return torch.from_numpy(right[0].astype(np.float64) - right[1])


def answers_with(accuracy: float, seeds: int, images: int = 2000) -> Float[Tensor, "s n"]:
    """Right (1) and wrong (0) of one system: this accuracy at every seed, as nearly as the number
    of images allows. Which images are hard differs between systems, hardly between seeds."""
    draw = np.random.default_rng(int(1e6 * accuracy))
    difficulty = draw.normal(0, 1, images)
    right = np.zeros((seeds, images))
    for row in right:
        row[(difficulty + draw.normal(0, 0.3, images)).argsort()[: round(accuracy * images)]] = 1
    return torch.from_numpy(right)
