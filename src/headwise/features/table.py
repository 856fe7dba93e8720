"""`headwise embed`: the representation `h` of every image, or any taps, as a parquet table.

Columns: `path` (the image's id), `label` (its class's name; absent where nothing is labelled),
`split` (train, validation or test, as `headwise evaluate` tells them apart), perhaps `image` (a
thumbnail), and for every tap, by its name, a fixed-size list of float32. Where the table comes from
is in its schema's metadata, as JSON under `headwise`.

The table grows in parts beside it (`OUT.parts/`), each written atomically. A call that is killed
loses the part it was at; the next one, for the same encoder, images and settings, goes on there.
"""

import dataclasses
import functools
import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from headwise.augment import whole_batches, whole_images
from headwise.data import DataConfig, ImageFiles, Images, Splits, write_skipped
from headwise.errors import UserError
from headwise.features.extract import at_taps, extract_order
from headwise.features.origin import all_splits, opened_model, origin, read_as
from headwise.features.thumbnails import as_jpegs, seen_pixels
from headwise.files import Json, plain_text, read_object, write_atomically, write_json
from headwise.heads import Head
from headwise.model.export import describe_encoder, encoder_file
from headwise.model.extraction import ExtractConfig, decide_extraction
from headwise.runs.directory import Run
from headwise.runtime.hardware import Device, Precision
from headwise.runtime.progress import progress

if TYPE_CHECKING:
    import pyarrow as pa

# A part: 32 MiB for p = 2048 and batches of 512.
PART_BATCHES = 8
ROW_GROUP = 1_000
"""Rows of a row group: 12 MiB for p = 2048 and thumbnails. The hub's viewer reads whole ones."""
_IMAGE_FEATURE = '{"info": {"features": {"image": {"_type": "Image"}}}}'
"""Metadata by which Hugging Face's datasets and viewer show the column `image` as images."""
_PLACE = "place"
"""The column of parts whose rows are shuffled."""


def embed(
    run: str | Path | Run,
    data: str | Path | DataConfig,
    out: str | Path,
    *,
    taps: Sequence[str] = ("h",),
    thumbnails: int | None = None,
    batch_size: int = 512,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: int | None = None,
    accept_changed_data: bool = False,
    quiet: bool = False,
) -> int:
    """Write the `taps` of every image, training images first, to the parquet file `out`; return its
    rows.

    Images are decoded as they are needed; those that cannot be are left out and named in
    `OUT-stem.skipped.csv`. `workers`: processes that decode; None: one a core. `thumbnails`: also
    write every image as a JPEG of at most this many pixels. A head that sees the
    batch gets shuffled batches of `batch_size` images, one view of each, as in `evaluate`; the
    table's metadata say so.

    Raises `UserError` where `out` exists, `run` has no encoder or no such tap, no image is
    readable, or more than `max_bad_fraction` of them are not, and where they are those of the run's
    pretraining and have changed since (unless `accept_changed_data`).
    """
    out = Path(out)
    _check(out, batch_size, workers, thumbnails)
    file = encoder_file(run)
    image = describe_encoder(file)["image"]
    encoder, head = opened_model(run, taps, device)
    config = read_as(file.parent, data, image)
    splits = all_splits(file.parent, config, accept=accept_changed_data)
    extraction = decide_extraction(
        whole_images(image["size_px"], tuple(image["mean"]), tuple(image["std"])),
        Splits(splits["train"], splits.get("test")),
        device=device,
        precision=precision,
        workers=workers,
        batch_size=batch_size,
    )
    about = origin(file, config, splits, extraction, head=head, taps=taps)
    folder = _parts_folder(out, {**about, "batch_size": batch_size, "thumbnails": thumbnails})
    model = _Model(encoder, head, tuple(dict.fromkeys(taps)), thumbnails)
    works = [_work(name, splits, folder, extraction, shuffled="batch" in about) for name in splits]
    for work in works:
        _write_parts(model, work, extraction, quiet)
    _write_skipped(works, out.with_name(f"{out.stem}.skipped.csv"))
    rows = _join(works, out, about)
    shutil.rmtree(folder)
    return rows


def _check(out: Path, batch_size: int, workers: int | None, thumbnails: int | None) -> None:
    """Raise `UserError` for settings that cannot work and for a file that is there already."""
    if batch_size < 1 or (workers is not None and workers < 0):
        raise UserError(
            "--batch-size must be at least 1 and --workers must not be negative; "
            f"got {batch_size} and {workers}"
        )
    if thumbnails is not None and thumbnails < 8:
        raise UserError(f"--thumbnails must be at least 8 pixels, or none; got {thumbnails}")
    if out.exists():
        raise UserError(f"--out must be a new file; {out} exists; remove it or choose another")


class _Model(NamedTuple):
    encoder: nn.Module
    head: Head | None
    """None where no tap is of the head."""
    taps: tuple[str, ...]
    thumbnails: int | None
    """Largest side of a thumbnail; None: none are written."""


class _Work(NamedTuple):
    """One split and its parts."""

    split: str
    images: Images
    labelled: bool
    """Whether any split has labels, and so the table its column."""
    part_size: int
    paths: list[Path]
    """Part `i` is for the images from `i * part_size` on; missing where none can be read."""
    order: Int64[Tensor, " n"] | None
    """The places of shuffled images in the table; None where they are in its order."""


def _work(
    split: str,
    splits: dict[str, Images],
    folder: Path,
    extraction: ExtractConfig,
    *,
    shuffled: bool,
) -> _Work:
    labelled = any(images.labels is not None for images in splits.values())
    images, size = splits[split], extraction.batch_size * PART_BATCHES
    count = -(-len(images) // size)
    paths = [folder / f"{split}-{i:06d}.parquet" for i in range(count)]
    order = extract_order(len(images), extraction.seed) if shuffled else None
    images = images if order is None else images.select(order)
    return _Work(split, images, labelled, size, paths, order)


def _parts_folder(out: Path, origin: Json) -> Path:
    """The folder of a table's parts, made. One that exists must be for the same table."""
    folder = out.with_name(f"{out.name}.parts")
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        write_json(manifest, origin)
        return folder
    found = read_object(manifest)
    unlike = [name for name in origin if found.get(name) != origin[name]]
    if unlike:
        raise UserError(
            f"{folder} must hold parts of the same table; they were begun with another "
            f"{', '.join(unlike)}; go on as they were begun, or remove that folder"
        )
    return folder


def _write_parts(model: _Model, work: _Work, extraction: ExtractConfig, quiet: bool) -> None:
    """Encode the images from the first part on that is not there yet."""
    import pyarrow.parquet as pq

    images, paths, size = work.images, work.paths, work.part_size
    done = sum(1 for _ in itertools.takewhile(Path.exists, paths))
    start = min(done * size, len(images))
    batches = whole_batches(
        images.select(torch.arange(start, len(images))) if start else images,
        extraction.augment,
        batch_size=extraction.batch_size,
        device=extraction.device,
        workers=extraction.workers,
    )
    with progress(f"embed {work.split}", len(images), done=start, quiet=quiet) as show:
        for part, group in itertools.groupby(batches, lambda b: done + int(b[0][0]) // size):
            index: list[Tensor] = []
            rows: dict[str, list[Tensor]] = {tap: [] for tap in model.taps}
            pictures: list[bytes] = []
            for place, pixels in group:
                values = at_taps(model.encoder, model.head, pixels, model.taps, extraction)
                for tap, vectors in values.items():
                    rows[tap].append(vectors.cpu())
                index.append(start + place)
                if model.thumbnails:
                    pictures += as_jpegs(seen_pixels(pixels, extraction.augment), model.thumbnails)
                show(start + int(place[-1]) + 1, "images")
            vectors = {tap: torch.cat(parts) for tap, parts in rows.items()}
            table = _table(work, torch.cat(index), vectors, pictures)
            write_atomically(paths[part], functools.partial(pq.write_table, table))
    if start and isinstance(images, ImageFiles):
        images.check(dict(_unreadable(work)))  # also those of the parts that were there


def _table(
    work: _Work,
    index: Int64[Tensor, " k"],
    vectors: dict[str, Float[Tensor, "k _"]],
    pictures: Sequence[bytes],
) -> "pa.Table":
    import pyarrow as pa

    images = work.images
    columns = {"path": pa.array([plain_text(images.ids[i]) for i in index.tolist()], pa.string())}
    if work.labelled:
        labels = [None] * len(index) if images.labels is None else images.labels[index].tolist()
        names = [None if i is None or i < 0 else images.classes[i] for i in labels]
        columns["label"] = pa.array(names, pa.string())
    columns["split"] = pa.array([work.split] * len(index), pa.string())
    if pictures:
        names = [PurePath(path).name for path in columns["path"].to_pylist()]
        columns["image"] = pa.StructArray.from_arrays(
            [pa.array(pictures, pa.binary()), pa.array(names, pa.string())], ["bytes", "path"]
        )
    for tap, rows in vectors.items():
        values = pa.array(rows.flatten().numpy())
        columns[tap] = pa.FixedSizeListArray.from_arrays(values, rows.shape[1])
    if work.order is not None:
        columns[_PLACE] = pa.array(work.order[index].numpy())
    return pa.table(columns)


def _unreadable(work: _Work) -> Iterator[tuple[str, str]]:
    """The images that no part holds, and why. Parts are in the images' order."""
    import pyarrow.parquet as pq

    tables = (pq.read_table(path, columns=["path"]) for path in work.paths if path.exists())
    written = (id for table in tables for id in table.column("path").to_pylist())
    awaited = next(written, None)
    for i, id in enumerate(work.images.ids):
        if plain_text(id) == awaited:
            awaited = next(written, None)
        else:
            yield id, _reason(work.images, i)


def _reason(images: Images, i: int) -> str:
    assert isinstance(images, ImageFiles), "only files can be unreadable"
    try:
        images.read(i)
    except OSError as error:
        return str(error.__cause__)
    return "could not be read at first"


def _write_skipped(works: list[_Work], path: Path) -> None:
    path.unlink(missing_ok=True)  # one from an earlier table
    found = [(*work.images.skipped, *_unreadable(work)) for work in works]
    write_skipped(
        [dataclasses.replace(w.images, skipped=s) for w, s in zip(works, found, strict=True)], path
    )


def _join(works: list[_Work], out: Path, about: Json) -> int:
    """The parts as one table; a split that was shuffled is in its order again. Its number of
    rows."""
    import pyarrow.parquet as pq

    parts = [[path for path in work.paths if path.exists()] for work in works]
    schema = pq.read_schema(next(path for paths in parts for path in paths))
    sizes = {tap: schema.field(tap).type.list_size for tap in dict.fromkeys(about["taps"])}
    about = {**about, "p": sizes.get("h"), "taps": sizes}
    if _PLACE in schema.names:
        schema = schema.remove(schema.get_field_index(_PLACE))
    metadata = {"headwise": json.dumps(about)}
    if "image" in schema.names:
        metadata["huggingface"] = _IMAGE_FEATURE
    schema = schema.with_metadata(metadata)

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema, write_page_index=True) as writer:
            for work, paths in zip(works, parts, strict=True):
                if work.order is None:
                    for path in paths:
                        writer.write_table(pq.read_table(path), ROW_GROUP)
                elif paths:
                    table = pq.read_table(paths).sort_by(_PLACE).drop_columns(_PLACE)
                    writer.write_table(table, ROW_GROUP)

    write_atomically(out, write)
    return pq.read_metadata(out).num_rows
