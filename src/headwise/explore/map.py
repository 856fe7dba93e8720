"""A map of `h`: two numbers an image, so that images with similar `h` lie close together."""

import importlib.util
import logging

import numpy as np
import torch
from jaxtyping import Float, Float32
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from headwise import rng
from headwise.explore.neighbours import neighbours
from headwise.explore.table import Table

log = logging.getLogger("headwise")

LANDMARKS = 5_000
"""t-SNE places at most this many images. It takes half a minute on two cores."""
_NEAREST = 5
"""An image that t-SNE did not place is placed by this many that it did."""
_SHARPNESS = 30.0
"""A placed neighbour counts e times as much as one whose cosine similarity is 1/30 less."""
_COMPONENTS = 50
_PERPLEXITY = 30.0


def map_columns(table: Table, seed: int = 0) -> tuple[dict[str, Float32[np.ndarray, " n"]], str]:
    """The map of a table as its columns `x` and `y`, and how it is made, which is said first: it
    takes a while."""
    how = how_mapped(len(table))
    log.info("map: %s", how)
    points = two_dimensions(table.h, seed)
    return {"x": points[:, 0], "y": points[:, 1]}, how


def how_mapped(n: int) -> str:
    """Say how `two_dimensions` places `n` images on this machine."""
    if importlib.util.find_spec("umap"):
        return "UMAP of h by cosine similarity"
    if n <= LANDMARKS:
        return "t-SNE of h, of unit length, from its 50 first principal components"
    return (
        f"t-SNE of {LANDMARKS:,} of the {n:,} images, drawn at random, by h of unit length and "
        f"its 50 first principal components; every other image lies at the mean of the "
        f"{_NEAREST} of them that are most similar to it, weighted by similarity"
    )


def two_dimensions(h: Float[Tensor, "n p"], seed: int = 0) -> Float32[np.ndarray, "n 2"]:
    """Place every row in the plane: by UMAP if `umap-learn` is installed, otherwise by t-SNE
    (`how_mapped`). The same rows, seed and machine give the same map."""
    unit = torch.nn.functional.normalize(h.float())
    n, state = len(unit), rng.seed_at(seed, "map") % 2**32
    if n < 4:
        return np.stack([np.arange(n), np.zeros(n)], 1).astype(np.float32)
    if importlib.util.find_spec("umap"):
        import umap  # type: ignore[import-not-found]  # an extra of the user's own

        near = min(15, n - 1)
        reducer = umap.UMAP(metric="cosine", n_neighbors=near, random_state=state, n_jobs=1)
        return np.asarray(reducer.fit_transform(unit.numpy()), np.float32)
    order = torch.randperm(n, generator=rng.generator(seed, "landmarks"))
    placed, rest = order[:LANDMARKS].sort().values, order[LANDMARKS:]
    points = torch.empty(n, 2)
    points[placed] = torch.from_numpy(_by_tsne(unit[placed].numpy(), state))
    if len(rest):
        rows, similar = neighbours(unit[rest], unit[placed], _NEAREST)
        weights = (similar * _SHARPNESS).softmax(1)[..., None]
        points[rest] = (points[placed][rows] * weights).sum(1)
    return points.numpy()


def _by_tsne(unit: Float32[np.ndarray, "n p"], state: int) -> Float32[np.ndarray, "n 2"]:
    """The Barnes-Hut form, which starts from the two first principal components."""
    n, p = unit.shape
    reduced = PCA(min(_COMPONENTS, n, p), random_state=state).fit_transform(unit)
    perplexity = min(_PERPLEXITY, (n - 1) / 3)
    return TSNE(init="pca", perplexity=perplexity, random_state=state).fit_transform(reduced)
