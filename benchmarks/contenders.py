"""The contenders of `step.py`: each is a function that prepares a case, and returns a function that
measures images a second."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from PIL import Image

from headwise import rng
from headwise.data import DataConfig, ResidentImages, Splits, open_images
from headwise.data.images import resident_images
from headwise.model.build import build_model
from headwise.model.config import PretrainConfig, resolve
from headwise.model.optim import build_optimizer
from headwise.pretraining import loop as pretraining
from headwise.runtime import hardware
from measure import data, seconds
from peers import lightly_step, lightly_transform, per_image_batches


@dataclass(frozen=True)
class Case:
    """What is trained, the side of the images, and the number of timed steps."""

    config: PretrainConfig
    image_px: int
    steps: int
    lightly_steps: int


def images_of(case: Case) -> ResidentImages:
    """As many images as the timed steps take: of CIFAR-10 if it is there and fits, else noise."""
    n, px = case.steps * case.config.batch_size, case.image_px
    path = data("cifar10")
    if path and px == 32:
        return cast(ResidentImages, open_images(DataConfig(spec=str(path), limit=n)).train)
    noise = torch.randint(256, (n, 3, px, px), generator=rng.generator(0), dtype=torch.uint8)
    return resident_images(noise, None, (), [str(i) for i in range(n)])


def ours(case: Case) -> Callable[[], float]:
    """Two epochs of `pretrain` itself, timed by the records at the end of each epoch."""
    images = Splits(images_of(case), None)
    config = dataclasses.replace(
        case.config, epochs=2, knn_every=0, checkpoint_every=2, log_every=10**9
    )

    def measured() -> float:
        with tempfile.TemporaryDirectory() as folder:
            run = pretraining.pretrain(config, Path(folder) / "run", images, quiet=True)
            first, last = run.metrics()
        return (last["images_seen"] - first["images_seen"]) / (last["seconds"] - first["seconds"])

    return measured


def lightly(case: Case, *, reduced: bool = False) -> Callable[[], float]:
    """lightly's SimCLR example with our encoder, optimizer and policy."""
    images = images_of(case)
    config = resolve(case.config, images)
    step, transform = lightly_step(config, reduced=reduced), lightly_transform(config.augment)
    pictures = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in images.pixels]

    def measured() -> float:
        # More batches than are timed, so that the workers are busy until the end.
        count = case.lightly_steps + 1 + 4 * hardware.usable_cores()
        batches = iter(per_image_batches(pictures, transform, config.batch_size, count))
        step(next(batches))
        return rate(lambda: step(next(batches)), case.lightly_steps, config.batch_size)

    return measured


def limit(case: Case) -> Callable[[], float]:
    """Forward pass, backward pass and optimizer step of the encoder, on views that are in memory
    already, with the precision, layout and memory settings of ours."""
    hardware.keep_freed_memory()
    config = resolve(case.config, images_of(case))
    model = build_model(config)
    model.to(device=config.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    encoder, optimizer = model.encoder, build_optimizer(config.optim, model.encoder)
    size = config.augment.size
    views = torch.randn(2 * config.batch_size, 3, size, size, device=config.device)
    views = views.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with hardware.autocast(config.device, config.precision):
            h = encoder(views)
        optimizer.zero_grad()
        h.float().square().mean().backward()
        optimizer.step()

    def measured() -> float:
        rate(step, case.steps, config.batch_size)  # a warm-up, like the first epoch of ours
        return rate(step, case.steps, config.batch_size)

    return measured


def rate(step: Callable[[], None], steps: int, batch_size: int) -> float:
    return steps * batch_size / seconds(lambda: [step() for _ in range(steps)])


CONTENDERS = {
    "ours": ours,
    "lightly": lightly,
    "lightly, bfloat16": functools.partial(lightly, reduced=True),
    "limit": limit,
}


@functools.lru_cache(maxsize=1)
def _prepared(name: str, case: Case) -> Callable[[], float]:
    return CONTENDERS[name](case)


def measured(name: str, case: Case) -> float:
    return _prepared(name, case)()
