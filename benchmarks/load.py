"""Image files: decode JPEGs and cut two random views of 224 px; list folders with many paths."""

import argparse
import functools
import io
import os
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import Compose, PILToTensor, RandomResizedCrop

from headwise import augment, rng
from headwise.augment import ResolvedAugment
from headwise.augment.crop import sample_crop
from headwise.augment.decoding import read_crops
from headwise.data import DataConfig, ImageFiles, open_images
from measure import alternate, data, table, time_and_memory

SIZE, BATCH = 224, 64
CONFIG = ResolvedAugment(
    size=SIZE, strength=0, flip=0, jitter=0, grey=0, blur=0, mean=(0.5,) * 3, std=(0.5,) * 3
)


def photographs(n: int) -> list[bytes]:
    """JPEG files of ImageNet if they are there, otherwise smooth noise of their usual size."""
    path = data("imagenet_sample_100_orig.zip")
    if path:
        with zipfile.ZipFile(path) as file:
            files = [file.read(name) for name in file.namelist() if name.endswith(".JPEG")]
    else:
        files = [_noise(seed) for seed in range(32)]
    return [files[i % len(files)] for i in range(n)]


def _noise(seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (94, 125, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((500, 375)).save(file, "JPEG", quality=90)
    return file.getvalue()


def by_pillow(files: list[bytes]) -> None:
    for file in files:
        Image.open(io.BytesIO(file)).convert("RGB")


def by_pillow_at_half(files: list[bytes]) -> None:
    for file in files:
        image = Image.open(io.BytesIO(file))
        image.draft(None, (image.width // 2, image.height // 2))
        image.convert("RGB")


def by_torchvision(files: list[bytes]) -> None:
    for file in files:
        data = torch.frombuffer(bytearray(file), dtype=torch.uint8)
        decode_jpeg(data, ImageReadMode.RGB)


class TwoViews:
    """The usual way to make two views with torchvision: decode an image once, cut it twice."""

    def __init__(self) -> None:
        self.view = Compose([RandomResizedCrop(SIZE), PILToTensor()])

    def __call__(self, image: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
        return self.view(image), self.view(image)


def torchvision_views(images: ImageFolder) -> None:
    torch.stack([view for i in range(len(images)) for view in images[i][0]])


def our_views(images: ImageFiles) -> None:
    index = torch.arange(len(images))
    draws = sample_crop(2 * len(images), rng.generator(0), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    read_crops(images, index, draws, SIZE, (3 / 4, 4 / 3))


def torchvision_batches(images: ImageFolder, workers: int) -> Iterator[object]:
    options = {"shuffle": True, "drop_last": True, "num_workers": workers}
    return iter(DataLoader(images, BATCH, **options))  # type: ignore[arg-type]


def our_batches(images: ImageFiles, workers: int) -> Iterator[object]:
    return augment.view_batches(
        images,
        CONFIG,
        batch_size=BATCH,
        steps=range(len(images) // BATCH),
        seed=0,
        device="cpu",
        workers=workers,
    )


def first_and_sustained(make: Callable[[], Iterator[object]]) -> tuple[float, float]:
    """Seconds to the first batch, and images a second after it."""
    start = time.perf_counter()
    batches = make()
    next(batches)
    first = time.perf_counter()
    rest = sum(1 for _ in batches)
    return first - start, rest * BATCH / (time.perf_counter() - first)


def one_core(folder: Path, files: list[bytes]) -> str:
    ours, theirs = _sets(folder)
    pixels = {
        "Pillow, pixels alone": functools.partial(by_pillow, files),
        "Pillow at half the size, pixels alone": functools.partial(by_pillow_at_half, files),
        "torchvision.io, pixels alone": functools.partial(by_torchvision, files),
    }
    views = {
        "ImageFolder (Pillow) + RandomResizedCrop, two views": functools.partial(
            torchvision_views, theirs
        ),
        "ours, two views": functools.partial(our_views, ours),
    }
    rows = []
    for contenders in (pixels, views):
        seconds = alternate(contenders)
        base = next(iter(seconds.values()))
        rows += [[name, len(files) / s, base / s] for name, s in seconds.items()]
    return table(["one core", "images/s", "× Pillow's"], rows)


def loaders(folder: Path) -> str:
    ours, theirs = _sets(folder)
    rows = []
    for workers in (1, 2):
        contenders = {
            "ImageFolder + DataLoader": functools.partial(torchvision_batches, theirs, workers),
            "ours": functools.partial(our_batches, ours, workers),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
        for _ in range(3):
            for name, make in contenders.items():
                found[name].append(first_and_sustained(make))
        for name, values in found.items():
            first, sustained = (statistics.median(value) for value in zip(*values, strict=True))
            rows.append([name, workers, first, sustained])
    return table(["loader", "workers", f"first batch of {BATCH}, s", "then images/s"], rows)


def _sets(folder: Path) -> tuple[ImageFiles, ImageFolder]:
    ours = open_images(DataConfig(spec=str(folder), test_fraction=0, cache=False)).train
    assert isinstance(ours, ImageFiles), "photographs of several sizes stay files"
    return ours, ImageFolder(str(folder), transform=TwoViews())


def write_folder(folder: Path, files: list[bytes]) -> None:
    for i, file in enumerate(files):
        path = folder / "ab"[i % 2] / f"{i:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file)


def listings(folder: Path, counts: list[int]) -> str:
    rows = [[n, *listing(folder / str(n), n)] for n in counts]
    header = ["paths", "first opening, s", "again, s", "more MiB, first", "more MiB, again"]
    return table(header, rows)


def listing(folder: Path, n: int, each: int = 1000) -> list[float]:
    """Seconds of the first opening and of the next, each in its own process, and the growth of peak
    memory in MiB. The files are hard links: each folder holds one small JPEG under many names."""
    image = Image.linear_gradient("L").resize((160, 160)).convert("RGB")
    for start in range(0, n, each):
        inside = folder / f"class-{start // each:04}"
        inside.mkdir(parents=True)
        image.save(inside / "000.jpg")
        for i in range(1, min(each, n - start)):
            os.link(inside / "000.jpg", inside / f"{i:03}.jpg")
    time.sleep(2.5)  # a folder that has just changed is not kept in the cache
    prepare = functools.partial(
        functools.partial, open_images, DataConfig(spec=str(folder), resident_mib=0)
    )
    (first, first_mib), (again, again_mib) = (time_and_memory(prepare, rounds=1) for _ in range(2))
    return [first, again, first_mib, again_mib]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=640, help="JPEG files to decode")
    parser.add_argument("--paths", type=int, nargs="*", default=[100_000], help="to list")
    parser.add_argument("--million", action="store_true", help="list a million paths too")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    counts = [*flags.paths, *([1_000_000] if flags.million else [])]
    print("## Loading\n", flush=True)
    print(
        f"JPEG files are decoded and cut to random views of {SIZE} px. First table: one core. "
        "Second table: whole loaders with worker processes. Third table: a folder with many paths "
        "is opened for the first time and then again, in a new process each, measured once; MiB "
        "is the growth of peak memory.\n",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        os.environ["HEADWISE_CACHE"] = str(Path(name) / "cache")
        files = photographs(flags.images)
        write_folder(Path(name) / "photographs", files)
        print(one_core(Path(name) / "photographs", files), end="\n\n", flush=True)
        print(loaders(Path(name) / "photographs"), end="\n\n", flush=True)
        print(listings(Path(name), counts))


if __name__ == "__main__":
    main()
