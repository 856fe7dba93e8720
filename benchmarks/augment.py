"""Random views by Headwise, torchvision v2, PIL as lightly uses it, and kornia, with one policy."""

import argparse
import statistics
import time
from collections.abc import Callable, Generator
from contextlib import closing

import torch
from PIL import Image
from torch import Tensor

from headwise import augment, rng
from headwise.augment import AugmentConfig, ResolvedAugment
from headwise.data.images import ResidentImages, resident_images
from headwise.runtime import hardware
from measure import alternate, in_turn, synchronise, table
from peers import kornia_transform, lightly_transform, per_image_batches, torchvision_transform

# View side, image side, images a batch.
CASES = ((32, 32, 256), (96, 96, 128), (224, 224, 64), (224, 256, 64))

Batches = Generator[int]
"""Makes a batch of views at each step, and gives their number."""


def ours(images: ResidentImages, config: ResolvedAugment, batch: int) -> Batches:
    batches = augment.view_batches(
        images,
        config,
        batch_size=batch,
        steps=range(10**6),
        seed=0,
        device=str(images.pixels.device),
        workers=0,
    )
    for views in batches:
        yield len(views.pixels)


def kornia(images: ResidentImages, config: ResolvedAugment, batch: int) -> Batches:
    transform = kornia_transform(config).to(images.pixels.device)
    while True:
        index = torch.randint(len(images), (batch,), device=images.pixels.device)
        floats = images.pixels[index].float() / 255
        yield sum(len(transform(floats)) for _ in range(2))


def torchvision(images: ResidentImages, config: ResolvedAugment, batch: int) -> Batches:
    yield from _by_workers(list(images.pixels.cpu()), torchvision_transform(config), batch)


def pil(images: ResidentImages, config: ResolvedAugment, batch: int) -> Batches:
    pixels = images.pixels.cpu().permute(0, 2, 3, 1).numpy()
    yield from _by_workers(list(map(Image.fromarray, pixels)), lightly_transform(config), batch)


def _by_workers(images: list, transform: Callable[..., list[Tensor]], batch: int) -> Batches:
    batches = iter(per_image_batches(images, transform, batch // 4, batches=10**6))
    for _ in range(4 * hardware.usable_cores()):  # while workers start and fill their queues
        next(batches)
    for views in batches:
        yield sum(map(len, views))


CONTENDERS = {"ours": ours, "torchvision v2": torchvision, "PIL": pil, "kornia": kornia}


def views_per_second(batches: Batches, at_least_seconds: float) -> float:
    """The rate after the first batch."""
    with closing(batches):
        next(batches)
        synchronise()
        start, views = time.perf_counter(), 0
        while time.perf_counter() - start < at_least_seconds:
            views += next(batches)
            synchronise()
        return views / (time.perf_counter() - start)


def bandwidth(device: str) -> float:
    """Bytes read and written per second while a tensor larger than any cache is copied."""
    source = torch.ones(2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = alternate({"copy": lambda: target.copy_(source)})
    return 2 * source.numel() / times["copy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 96, 224])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    flags = parser.parse_args()
    hardware.keep_freed_memory()
    device = hardware.resolve_device("auto")
    copied = bandwidth(device)
    rows = []
    for size, image_px, batch in (case for case in CASES if case[0] in flags.sizes):
        shape = (4 * batch, 3, image_px, image_px)
        noise = torch.randint(256, shape, generator=rng.generator(0), dtype=torch.uint8)
        images = resident_images(noise, None, (), [str(i) for i in range(len(noise))]).to(device)
        config = augment.resolve(AugmentConfig(size=size), images)
        functions: dict[str, Callable[[], float]] = {
            name: lambda make=make, images=images, config=config, batch=batch: views_per_second(
                make(images, config, batch), flags.seconds
            )
            for name, make in CONTENDERS.items()
        }
        rates = in_turn(functions, flags.rounds)
        medians = [statistics.median(values) for values in rates.values()]
        ratios = [medians[0] / other for other in medians[1:]]
        ideal_bytes = 3 * image_px**2 + 4 * 3 * size**2
        rows.append([f"{size} of {image_px}", *medians, *ratios, medians[0] * ideal_bytes / copied])
    print("## Augmentation\n")
    print(
        "Views a second: normalised floats made from images in memory, with SimCLR's policy. At "
        "32 px the policy has colour at half strength and no blur; at larger sizes it has full "
        f"strength and blur. Ours and kornia process a batch at a time, on the {device}. "
        "torchvision v2 (on tensors) and PIL (lightly's transform) process an image at a time, in "
        "one worker process per core. The last column counts the bytes that ours would move if it "
        "read each image once (uint8) and wrote each view once (float32), and divides their rate "
        f"by the {copied / 1e9:.1f} GB/s of a plain copy.\n"
    )
    others = list(CONTENDERS)[1:]
    ratio_names = [f"ours / {name}" for name in others]
    print(table(["px", *CONTENDERS, *ratio_names, "of bandwidth"], rows))


if __name__ == "__main__":
    main()
