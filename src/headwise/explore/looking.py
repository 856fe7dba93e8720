"""What is compared when copies are looked for: the rows of a table, or images."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from headwise.augment import ResolvedAugment, whole_images
from headwise.data import Images, Splits
from headwise.explore.duplicates import Pairs, exact_pairs, pixel_digests
from headwise.explore.pictures import Pictures, every_image, open_pictures
from headwise.explore.table import Table, read_table
from headwise.features.extract import extract
from headwise.features.near_copies import DEFAULT_THRESHOLD, calibrate, picture, thumbnail
from headwise.features.similar import similar_pairs
from headwise.model.export import describe_encoder, encoder_file, load_encoder
from headwise.model.extraction import decide_extraction

_NONE = Pairs(np.empty((2, 0), np.int64), np.empty(0))


@dataclass(kw_only=True)
class Looked:
    """The pairs of copies among images, and what was done to find them."""

    names: Sequence[str]
    splits: Sequence[str]
    labels: Sequence[str]
    pictures: Pictures | None
    exact: Pairs = _NONE
    near: Pairs = _NONE
    said: list[str] = field(default_factory=list)
    """What was done, and what was not, a line each."""


def look(
    what: str,
    *,
    run: Path | None,
    threshold: float | None,
    images: str | None,
    pixels: bool,
    quiet: bool,
) -> Looked:
    """Look for copies in a table or among images. Raises `UserError` where neither can be read."""
    if Path(what).suffix.lower() in (".parquet", ".npz") and _is_table(Path(what)):
        found, h, opened = _of_table(read_table(Path(what)), images, run)
    else:
        found, h, opened = _of_images(what, run)
    if pixels and found.pictures is not None:
        found.exact = exact_pairs(pixel_digests(found.names, found.pictures, quiet=quiet))
        found.said.append(f"equal pixels: compared for {len(found.names):,} images")
    else:
        why = "without --pixels" if found.pictures is not None else "there are no images"
        found.said.append(f"equal pixels: not compared, {why}")
    if h is None:
        found.said.append("near copies: not looked for; name a run, which has an encoder: --run")
        return found
    value, correlation, words = _threshold(threshold, run, opened)
    rows, vectors = h
    pairs, values = similar_pairs(vectors, None, value)
    places = rows[pairs]
    if correlation is not None and found.pictures is not None:
        kept = _correlated(places, found.names, found.pictures) >= correlation
        places, values = places[:, kept], values[kept]
    found.near = Pairs(places.numpy(), values.numpy().astype(np.float64))
    found.said.append(f"near copies: cosine of h of at least {value:.4f}{words}")
    return found


def _correlated(
    places: Int64[Tensor, "2 k"], names: Sequence[str], pictures: Pictures
) -> Float[Tensor, " k"]:
    """The correlation of the pixels of each pair, at 16 px; 0 where one cannot be read."""
    found, back = places.unique(return_inverse=True)
    empty = torch.zeros_like(thumbnail(Image.new("RGB", (1, 1))))
    opened = (pictures(names[i]) for i in found.tolist())
    small = torch.stack([empty, *(empty if one is None else thumbnail(one) for one in opened)])
    parts = (back + 1).split(8192, 1)
    return torch.cat([(small[one] * small[other]).sum(1) for one, other in parts])


_Vectors = tuple[Tensor, Float[Tensor, "n p"]]
"""The places of some images, and their `h`."""


def _is_table(path: Path) -> bool:
    """Whether a file has vectors; one of images may have the same ending."""
    if path.suffix.lower() == ".npz":
        with np.load(path) as file:
            return {"h", "vectors"} & {*file.files} != set()
    import pyarrow.parquet as pq

    return {"h", "vectors"} & {*pq.read_schema(path).names} != set()


def _of_table(
    table: Table, spec: str | None, run: Path | None
) -> tuple[Looked, _Vectors, list[Images]]:
    found = Looked(
        names=table.names.tolist(),
        splits=table.split.tolist(),
        labels=[table.label(i) for i in range(len(table))],
        pictures=open_pictures(table, spec),
    )
    spec = spec or table.about.get("data")
    calibrated = run is not None and spec is not None and found.pictures is not None
    opened = every_image(spec) if calibrated else []
    return found, (torch.arange(len(table)), table.h), opened


def _of_images(spec: str, run: Path | None) -> tuple[Looked, _Vectors | None, list[Images]]:
    parts = every_image(spec)
    places = {id: (part, i) for part in parts for i, id in enumerate(part.ids)}
    found = Looked(
        names=[*places],
        splits=[
            split
            for part, split in zip(parts, ("train", "test"), strict=False)
            for _ in range(len(part))
        ],
        labels=[
            "" if part.labels is None or place < 0 else part.classes[place]
            for part in parts
            for place in (part.labels.tolist() if part.labels is not None else [-1] * len(part))
        ],
        pictures=lambda name: picture(*places[name]),
    )
    if run is None:
        return found, None, parts
    rows, vectors, first = [], [], 0
    encoder, config = load_encoder(run), _input(run)
    for part in parts:
        settings = decide_extraction(
            config, Splits(part, None), device="auto", precision="auto", workers=None
        )
        features = extract(encoder.to(settings.device), None, part, ("h",), settings)["h"]
        rows.append(features.index + first)
        vectors.append(features.vectors)
        first += len(part)
    return found, (torch.cat(rows), torch.cat(vectors)), parts


def _input(run: Path) -> ResolvedAugment:
    """How the images of an encoder are made."""
    image = describe_encoder(encoder_file(run))["image"]
    return whole_images(image["size_px"], tuple(image["mean"]), tuple(image["std"]))


def _threshold(
    given: float | None, run: Path | None, opened: list[Images]
) -> tuple[float, float | None, str]:
    """The thresholds of `h` and, if calibrated, of pixels, and where they come from."""
    if given is not None:
        return given, None, ", as given"
    if run is None or not opened:
        needs = "--run" if run is None else "images"
        return DEFAULT_THRESHOLD, None, f", the default, not calibrated, which needs {needs}"
    encoder = load_encoder(run).eval()
    found = calibrate(encoder, opened[0], _input(run))
    return found.threshold, found.correlation, f" {found.words()}"
