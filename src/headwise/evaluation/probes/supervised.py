"""Training with labels, for the protocols that do: one loop, one model."""

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from headwise import rng
from headwise.augment import ResolvedAugment, view_batches
from headwise.config import check_fields
from headwise.data import Images
from headwise.errors import UserError, nearest
from headwise.evaluation.probes.labels import check_classes, check_seen
from headwise.evaluation.statistics.metrics import accuracy_values, answer_arrays
from headwise.features.extract import Features, extract
from headwise.heads import Head
from headwise.model.build import build_model
from headwise.model.config import ResolvedConfig
from headwise.model.contrastive import ContrastiveModel
from headwise.model.extraction import ExtractConfig
from headwise.model.optim import (
    ResolvedOptim,
    build_optimizer,
    learning_rate,
    peak_learning_rate,
)
from headwise.runs.results import Settings, Value, key_of
from headwise.runtime import hardware


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    """SGD with Nesterov momentum under crops and flips, without warm-up."""

    epochs: int
    """As many images are seen as so many passes over them have, in batches of full size."""
    lr: float
    """Learning rate at 256 images a batch; it goes with the batch size."""
    batch_size: int = 256
    """Images a step; all of them, where there are fewer."""
    momentum: float = 0.9
    weight_decay: float = 0.0
    """Never on biases and normalisation."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """cosine: half a cosine to 0, as in SimCLR's code."""
    min_steps: int = 1
    """At least so many steps, however few the images."""

    def __post_init__(self) -> None:
        check_fields(self)
        # The optimizer checks its own settings.
        for name, least in (("epochs", 1), ("batch_size", 2), ("min_steps", 1)):
            if getattr(self, name) < least:
                raise UserError(
                    f"training with labels: {name} must be at least {least}; "
                    f"got {getattr(self, name)}"
                )
        _optim_config(self)

    def steps(self, n: int) -> int:
        """For `n` images."""
        return max(round(self.epochs * n / min(self.batch_size, n)), self.min_steps)


class TapModel(nn.Module):
    """The encoder, the head up to a tap, and a linear classifier on it: logits from pixels.

    Encoder and head are copies; the classifier starts at zero, so no seed enters it.
    """

    def __init__(self, model: ContrastiveModel, tap: str, num_classes: int, size: int) -> None:
        """`tap`: h or one of the head's. `size`: of the images, px. Raises `UserError` for a tap
        that the head does not have."""
        super().__init__()
        known = ("h", *model.head.tap_names)
        if tap not in known:
            raise UserError(
                f"a network is cut at h or at a tap of its head; got {tap!r}; {nearest(tap, known)}"
            )
        depth = known.index(tap)
        self.encoder = copy.deepcopy(model.encoder)
        self.head = Head(copy.deepcopy(list(model.head.layers[:depth])), model.head.context)
        self.eval()
        device = next(model.parameters()).device
        with torch.no_grad():
            rows = self.head(self.encoder(torch.zeros(1, 3, size, size, device=device)), views=1)
        self.classifier = nn.Linear(rows.shape[1], num_classes, device=device)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, pixels: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n c"]:
        """Logits, float32 under autocast too. A head that attends over the batch does so here."""
        rows = self.head(self.encoder(pixels), views=1)
        with torch.autocast(pixels.device.type, enabled=False):
            return self.classifier(rows.float())


def train_classifier(
    model: nn.Module,
    images: Images,
    config: SupervisedConfig,
    extraction: ExtractConfig,
    *,
    seed: int,
    frozen: nn.Module | None = None,
    sets: Bool[Tensor, "k c"] | None = None,
) -> Float[Tensor, " steps"]:
    """Train `model` (logits from pixels) in place on the labels of `images`, and leave it in
    evaluation mode; the loss of every step. That is not checked to be finite: who chooses among
    settings may meet one that diverges.

    `frozen` is the part of the model that stays as it is, BatchNorm's running statistics included,
    and that no gradient goes through. A file that cannot be read is replaced by the next one, with
    its label. `sets`: of every label the classes that it stands for, where images have several.
    """
    training_labels(images)
    images = images.to(extraction.device)
    model.to(device=extraction.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    if frozen is not None:
        frozen.requires_grad_(False).eval()
    total, optim = config.steps(len(images)), _optim_config(config)
    optimizer = build_optimizer(optim, model)
    peak = peak_learning_rate(optim, min(config.batch_size, len(images)))
    losses = []
    for step, (views, targets) in enumerate(_batches(images, config, extraction, seed)):
        with hardware.autocast(extraction.device, extraction.precision):
            logits = model(views.contiguous(memory_format=torch.channels_last))
        loss = _loss(logits.float(), targets, sets)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = _rate(config, step, peak, total)
        optimizer.step()
        losses.append(loss.detach())
    model.eval()
    return torch.stack(losses).cpu()


def predict(model: nn.Module, images: Images, extraction: ExtractConfig) -> Features:
    """The logits (`vectors`) of whole images, in their order, with their labels and places: those
    that cannot be read are missing. The model is in evaluation mode for it; a head that attends
    over the batch sees shuffled batches of `extraction.batch_size`, not of training's."""
    return extract(model, None, images, ["h"], extraction)["h"]


def right(logits: Features, top: int = 1) -> Bool[Tensor, " n"]:
    """Of every image whether its label is among the `top` highest logits; never where a logit is
    not finite."""
    assert logits.labels is not None, "labels were checked"
    among = (logits.vectors.topk(top).indices == logits.labels[:, None]).any(1)
    return among & logits.vectors.isfinite().all(1)


def accuracies(
    logits: Features,
    train: Images,
    *,
    protocol: str,
    where: str,
    settings: Settings,
    variant: str = "",
) -> Iterator[Value]:
    """`accuracy_values`: top-1, top-5 where there are more than five classes, and the mean per
    class of those among the test images. Raises `UserError` for logits that are not finite.
    """
    if not logits.vectors.isfinite().all():
        raise UserError(
            f"{key_of(protocol, variant, where=where)} must have finite logits; "
            "got NaN or infinity: "
            "training diverged; try a lower learning rate"
        )
    labels = logits.labels
    assert labels is not None, "labels were checked"
    hits = {top: right(logits, top) for top in (1, 5) if top < logits.vectors.shape[1]}
    yield from accuracy_values(
        hits,
        labels,
        training_labels(train),
        protocol=protocol,
        where=where,
        variant=variant,
        settings=settings,
        arrays=answer_arrays(logits.vectors, labels),
    )


def training_labels(images: Images) -> Int64[Tensor, " n"]:
    """On the CPU. Raises `UserError` where there are none, or of one class only."""
    if images.labels is None:
        raise UserError("training with labels needs labels; the images have none")
    labels = images.labels.cpu()
    check_classes("training with labels", labels)
    return labels


def check_splits(train: Images, test: Images | None) -> Images:
    """The test images. Raises `UserError` where they have a class that training lacks."""
    labels = training_labels(train)
    assert test is not None, "labelled test images were asked for"
    assert test.labels is not None, "labelled test images were asked for"
    check_seen("training with labels", labels, test.labels.cpu(), train.classes)
    return test


def crops_and_flips(config: ResolvedAugment) -> ResolvedAugment:
    """Crops and flips alone, with pretraining's settings, size and normalisation."""
    return dataclasses.replace(config, ops=("crop", "flip"), ops_second=None)


def new_weights(config: ResolvedConfig, seed: int) -> ContrastiveModel:
    """The same network from scratch, for the baselines; on the CPU."""
    return build_model(dataclasses.replace(config, seed=rng.seed_at(seed, "scratch")))


def _batches(
    images: Images, config: SupervisedConfig, extraction: ExtractConfig, seed: int
) -> Iterator[tuple[Float[Tensor, "b 3 s s"], Int64[Tensor, " b"]]]:
    """One view of every image of a step, and the labels."""
    n, place = len(images), rng.seed_at(seed, "supervised")
    batch = min(config.batch_size, n)
    batches = view_batches(
        images,
        crops_and_flips(extraction.augment),
        batch_size=batch,
        steps=range(config.steps(n)),
        seed=place,
        device=extraction.device,
        workers=extraction.workers,
        views=1,
    )
    assert images.labels is not None, "labels were checked"
    for views in batches:
        targets = images.labels[views.shown.to(images.labels.device)]
        yield views.pixels, targets.to(extraction.device)


def _loss(logits: Tensor, labels: Tensor, sets: Tensor | None) -> Tensor:
    """Cross-entropy; with several classes an image, the sum of every class's own."""
    if sets is None:
        return F.cross_entropy(logits, labels)
    targets = sets.to(labels.device)[labels].float()
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return losses.sum(1).mean()


def _optim_config(config: SupervisedConfig) -> ResolvedOptim:
    return ResolvedOptim(
        name="sgd",
        lr=config.lr,
        lr_scaling="linear",
        momentum=config.momentum,
        nesterov=True,
        weight_decay=config.weight_decay,
        warmup_epochs=0.0,
    )


def _rate(config: SupervisedConfig, step: int, peak: float, total: int) -> float:
    if config.schedule == "constant":
        return peak
    return learning_rate(step, peak=peak, warmup_steps=0, total_steps=total)
