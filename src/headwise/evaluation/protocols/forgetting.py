"""What fine-tuning forgets: the same questions to h before and after the labels were learned."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from headwise.augment import view_batches
from headwise.config import check_fields
from headwise.data import Splits
from headwise.errors import UserError
from headwise.evaluation.extracted import ExtractedRun, SplitFeatures, encoder_tables
from headwise.evaluation.protocols.description import Description
from headwise.evaluation.protocols.factors import factors
from headwise.evaluation.protocols.finetune import FinetuneConfig, fine_tuned
from headwise.evaluation.protocols.knn import knn
from headwise.evaluation.protocols.targets import Target, open_targets
from headwise.features.extract import at_taps
from headwise.losses import contrastive_logits
from headwise.runs.results import Value, mean_value

FORGETTING = Description(
    title="What fine-tuning forgets",
    definition=(
        "The same questions to h before and after the whole network is fine-tuned on all labels: "
        "the known factors of the images, the classes of other images, and whether the head still "
        "finds the twin of a view."
    ),
    labels={"forgetting": "{variant}"},
    section="labels",
)

_TWINS, _BATCH = 1024, 256
"""Images whose twins are looked for at most, and how many of them at a time."""


@dataclass(frozen=True, kw_only=True)
class ForgettingConfig:
    """Fine-tuning itself is that of the protocol finetune, with the classifier on h."""

    targets: tuple[str, ...] = ("digits=builtin:digits",)
    """Other labelled images, as for --transfer.targets, judged by k-NN."""
    limit: int | None = 2000
    """Largest number of images of each split of a target. None: all images."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.targets:
            raise UserError("--forgetting.targets must name at least one target; got none")


def forgetting(
    trained: ExtractedRun, config: ForgettingConfig, training: FinetuneConfig, *, seed: int
) -> Iterator[Value]:
    """`forgetting_factors/WHEN` where factors are known, `forgetting_knn_TARGET/WHEN` and
    `forgetting_contrastive/WHEN`, with WHEN before and after. Raises `UserError` for targets that
    cannot be read."""
    targets = open_targets(config.targets, limit=config.limit)
    tuned = fine_tuned(trained, training, "h", seed=seed).encoder
    for when, encoder in (("before", trained.model.encoder), ("after", tuned)):
        if trained.images.train.factors:
            table = _table(trained, encoder, trained.images)
            *_, mean = factors("h", trained.images, *table, seed=seed)
            yield _named(mean, "factors", when)
        for target in targets:
            yield _other_images(trained, encoder, target, when)
        found = _finds_twins(trained, encoder, seed)
        yield mean_value(
            "forgetting",
            "forgetting",
            when,
            found,
            variant="contrastive",
            chance=1 / (2 * min(_BATCH, len(found)) - 1),
        )


def _table(trained: ExtractedRun, encoder: nn.Module, images: Splits) -> SplitFeatures:
    return encoder_tables(encoder, None, images, ["h"], trained.extraction)["h"]


def _other_images(trained: ExtractedRun, encoder: nn.Module, target: Target, when: str) -> Value:
    table = _table(trained, encoder, target.images)
    value, *_ = knn("h", *table, num_classes=len(target.images.train.classes))
    value = replace(value, settings={**value.settings, "target": target.spec})
    return _named(value, f"knn_{target.name}", when)


def _named(value: Value, variant: str, when: str) -> Value:
    return replace(
        value, protocol="forgetting", measure="forgetting", variant=variant, where=when, arrays={}
    )


@torch.no_grad()
def _finds_twins(trained: ExtractedRun, encoder: nn.Module, seed: int) -> Float[Tensor, " n"]:
    """For each test image, for how many of its two views the twin is the most similar of all views
    of a batch at z: 0, a half or 1. The head is that of pretraining."""
    images, extraction = trained.test_images, trained.extraction
    n = min(_TWINS, len(images))
    steps = math.ceil(n / _BATCH)
    # The same images for every seed and run, other views.
    images = images.select(torch.linspace(0, len(images) - 1, n // steps * steps).long())
    batches = view_batches(
        images,
        extraction.augment,
        batch_size=len(images) // steps,
        steps=range(steps),
        seed=seed,
        device=extraction.device,
        workers=extraction.workers,
    )
    head, shown, found = trained.model.head, [], []
    for views in batches:
        z0, z1 = (
            at_taps(encoder, head, pixels, ["z"], extraction)["z"]
            for pixels in views.pixels.chunk(2)
        )
        right = _most_similar(z0, z1).cpu().float().unflatten(0, (2, -1)).mean(0)
        found.append(right[~views.replaced])
        shown.append(views.shown[~views.replaced])
    return torch.cat(found)[torch.cat(shown).argsort()]


def _most_similar(z0: Float[Tensor, "n d"], z1: Float[Tensor, "n d"]) -> Bool[Tensor, " m"]:
    """Of every view whether its twin is more similar than all others."""
    logits, positives = contrastive_logits(z0, z1, 1.0)
    return (logits >= logits.gather(1, positives[:, None])).sum(1) == 1
