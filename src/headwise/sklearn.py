"""The encoder of a run as a transformer of scikit-learn: images in, representations out."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin
from torch import nn

from headwise.encoders.stages import watched_stages
from headwise.errors import UserError
from headwise.features.extract import check_taps
from headwise.heads import Head
from headwise.model.export import load_encoder
from headwise.model.preparation import Picture, prepare
from headwise.model.trained import load_model
from headwise.runtime.hardware import Device, resolve_device


class Encoder(TransformerMixin, BaseEstimator):
    """The representation `h` of images, for scikit-learn's pipelines and cross-validation.

    Nothing is fitted: the encoder stays as pretraining left it, so no fold of a cross-validation
    sees another one's labels.

    `run`: a finished run; or its encoder.safetensors, which has no head. `tap`: h, z, g1, f2 and so
    on, as `headwise embed` names them. `batch_size`: images that are encoded at a time; a head that
    attends over the batch sees these. `device`: auto, cpu or cuda.
    """

    def __init__(
        self, run: str | Path, *, tap: str = "h", batch_size: int = 64, device: Device = "auto"
    ) -> None:
        self.run = run
        self.tap = tap
        self.batch_size = batch_size
        self.device = device

    def fit(self, X: object, y: object = None) -> "Encoder":
        """Return self."""
        return self

    @torch.no_grad()
    def transform(self, X: Iterable[Picture] | np.ndarray) -> Float[np.ndarray, "n p"]:
        """Return a row of float32 for each image: a path, an image that Pillow has opened, or uint8
        `[n h w 3]` or `[n h w]`. Raises `UserError` for anything else."""
        if self.batch_size < 1:
            raise UserError(f"batch_size must be at least 1; got {self.batch_size}")
        device = resolve_device(self.device)
        encoder, head = _opened(str(self.run), self.tap == "h", device)
        check_taps([self.tap], encoder, head)
        images = _pictures(X)
        if not images:
            raise UserError("Encoder needs at least one image; got none")
        rows = []
        for first in range(0, len(images), self.batch_size):
            pixels = prepare(images[first : first + self.batch_size], encoder).to(device)
            rows.append(_at(self.tap, encoder, head, pixels).float().cpu())
        return torch.cat(rows).numpy()

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[missing-attribute]
        tags.requires_fit = False
        tags.no_validation = True
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags


@functools.lru_cache(maxsize=2)
def _opened(run: str, alone: bool, device: str) -> tuple[nn.Module, Head | None]:
    """The encoder, and its head if that is needed. Folds and clones open a run once."""
    if alone:
        return load_encoder(run).to(device), None
    model = load_model(run).to(device)
    return model.encoder, model.head


def _at(tap: str, encoder: nn.Module, head: Head | None, pixels: torch.Tensor) -> torch.Tensor:
    with watched_stages(encoder, [tap]) as values:
        values["h"] = encoder(pixels)
    if head is not None and tap in head.tap_names:
        values |= head.taps(values["h"], views=1)
    return values[tap]


def _pictures(X: Iterable[Picture] | np.ndarray) -> list[Picture]:
    if isinstance(X, np.ndarray) and X.dtype == np.uint8 and X.ndim in (3, 4):
        return [Image.fromarray(one) for one in X]
    if isinstance(X, str | Path | Image.Image) or not isinstance(X, Iterable):
        raise UserError(f"Encoder takes a list of images; got {X!r:.80}")
    listed = [str(one) if isinstance(one, np.str_) else one for one in X]
    for one in listed:
        if not isinstance(one, Picture):
            raise UserError(
                "Encoder takes paths, Pillow's images, or a uint8 array [n h w 3]; "
                f"got {type(one).__name__}"
            )
    return listed
