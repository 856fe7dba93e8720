"""What a search makes large, measured of a run after any epoch: two criteria without labels, and
k-NN where there are some."""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from headwise import augment
from headwise.augment import view_batches
from headwise.data import Images, Splits
from headwise.data.split import labelled_splits
from headwise.evaluation.protocols.knn import knn_accuracy, nearest_rows
from headwise.evaluation.statistics.geometry import effective_rank
from headwise.features.extract import at_taps, extract, finite
from headwise.model.config import PretrainConfig
from headwise.model.contrastive import ContrastiveModel
from headwise.model.extraction import ExtractConfig, decide_extraction
from headwise.model.trained import read_model
from headwise.runs.directory import Run

_MOST_IMAGES = 2048
"""Of the training images: RankMe grows with their number, so it is one for all trials."""


def measure_run(
    run: Run, base: PretrainConfig, images: Splits, *, with_labels: bool
) -> dict[str, float]:
    """`rank`, `twins` and, with labels, `knn` of the run's last checkpoint. The views of twins are
    those of `base` for all trials, or weaker augmentation would be the better one."""
    config, model = read_model(run)
    settings = decide_extraction(
        config.augment,
        images,
        device=config.device,
        precision=config.precision,
        workers=config.workers,
        seed=config.seed,
    )
    model.to(settings.device).eval()
    chosen = _evenly(images.train)
    h = extract(model.encoder, None, chosen, ["h"], settings)["h"].vectors
    views = augment.resolve(replace(base.augment, size=config.augment.size), images.train)
    found = {
        "rank": effective_rank(finite("a trial's", h)).item(),
        "twins": _twins_found(model, chosen, replace(settings, augment=views)),
    }
    return found | ({"knn": _knn(model, images, settings)} if with_labels else {})


def has_labels(images: Splits) -> bool:
    """Whether k-NN can be measured on them."""
    train, test = images
    return train.labels is not None and test is not None and test.labels is not None


def found_share(ones: Float[Tensor, "n p"], twins: Float[Tensor, "n p"]) -> float:
    """How often the nearest of all second views, by cosine, is the twin: 1/n by chance, to 1."""
    nearest = torch.cat([index for _, index in nearest_rows(twins, ones, 1)])[:, 0]
    return (nearest == torch.arange(len(ones))).double().mean().item()


def _evenly(images: Images) -> Images:
    """So many images, evenly apart: folders list one class after the other."""
    n = min(_MOST_IMAGES, len(images))
    return images.select(torch.linspace(0, len(images) - 1, n).long())


def _twins_found(model: ContrastiveModel, images: Images, settings: ExtractConfig) -> float:
    steps = math.ceil(len(images) / settings.batch_size)
    batches = view_batches(
        images,
        settings.augment,
        batch_size=len(images) // steps,
        steps=range(steps),
        seed=settings.seed,
        device=settings.device,
        workers=settings.workers,
    )
    pairs: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for views in batches:
            h = at_taps(model.encoder, None, views.pixels, ["h"], settings)["h"].cpu()
            ones, twins = (half[~views.replaced] for half in h.chunk(2))
            pairs.append((ones, twins))
    ones, twins = map(torch.cat, zip(*pairs, strict=True))
    return found_share(ones, twins)


def _knn(model: ContrastiveModel, images: Splits, settings: ExtractConfig) -> float:
    """As the protocol `knn`."""
    train, test = labelled_splits(images)
    assert test is not None, "has_labels"
    known, asked = (
        extract(model.encoder, None, part, ["h"], settings)["h"] for part in (train, test)
    )
    assert known.labels is not None, "has_labels"
    assert asked.labels is not None, "has_labels"
    return knn_accuracy(
        known.vectors,
        known.labels,
        asked.vectors,
        asked.labels,
        k=min(10, len(known.vectors)),
        temperature=None,
        num_classes=len(train.classes),
    )
