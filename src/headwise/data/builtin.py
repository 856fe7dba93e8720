"""Data sets that need no files."""

from typing import Any

import numpy as np

from headwise.data.arrays import from_arrays
from headwise.data.images import ResidentImages, Splits, resident_images
from headwise.errors import UserError, nearest

NAMES = ("shapes", "digits")
SHAPES_TRAIN, SHAPES_TEST = 5000, 2000


def open_builtin(name: str, limit: int | None) -> Splits:
    """Return `shapes`, 5000 + 2000 drawn silhouettes with known nuisance factors, or `digits`,
    scikit-learn's 1797 handwritten digits of 8 × 8 pixels without a test split.

    `limit` only saves the drawing of shapes: the first ones hold all classes equally often.
    """
    match name:
        case "shapes":
            sizes = [n if limit is None else min(n, limit) for n in (SHAPES_TRAIN, SHAPES_TEST)]
            return Splits(_shapes(sizes[0], seed=0), _shapes(sizes[1], seed=1))
        case "digits":
            return Splits(_digits(), None)
    raise UserError(f"builtin:{name} is not known: {nearest(name, NAMES)}")


def _shapes(n: int, seed: int) -> ResidentImages:
    from headwise.data.shapes import SHAPES, make_shapes

    pixels, labels, factors = make_shapes(n, seed)
    ids = [f"shapes-{seed}:{i}" for i in range(n)]
    return resident_images(pixels, labels, SHAPES, ids, factors=factors)


def _digits() -> ResidentImages:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # the stored values are 0 to 16
    return from_arrays(grey, digits.target, "digits")
