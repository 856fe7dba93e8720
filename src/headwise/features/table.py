"""`headwise embed`: the representation `h` of every image, as a parquet table.

Columns: `path` (the image's id), `label` (its class's name; absent where nothing is labelled),
`split` (`test` for a test split of the source's own, else `train`; none is drawn here), and `h`, a
fixed-size list of p float32. Where the table comes from is in its schema's metadata, as JSON under
`headwise`.

The table grows in parts beside it (`OUT.parts/`), each written atomically. A call that is killed
loses the part it was at; the next one, for the same encoder, images and settings, goes on there.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from headwise.augment import whole_batches, whole_images
from headwise.data import (
    DataConfig,
    ImageFiles,
    Images,
    Splits,
    as_config,
    open_images,
    write_skipped,
)
from headwise.data.images import fingerprint
from headwise.data.record import changes, read_record, same_reading
from headwise.errors import UserError
from headwise.files import Json, plain_text, read_object, write_atomically, write_json
from headwise.model.export import describe_encoder, encoder_file, load_encoder
from headwise.model.extraction import ExtractConfig, decide_extraction
from headwise.model.trained import refuse_changes
from headwise.runs.directory import Run
from headwise.runtime import hardware
from headwise.runtime.hardware import Device, Precision
from headwise.runtime.progress import progress

if TYPE_CHECKING:
    import pyarrow as pa

# A part becomes a row group of the table: 32 MiB for p = 2048 and batches of 256.
PART_BATCHES = 16


def embed(
    run: str | Path | Run,
    data: str | Path | DataConfig,
    out: str | Path,
    *,
    batch_size: int = 256,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: int | None = None,
    accept_changed_data: bool = False,
    quiet: bool = False,
) -> int:
    """Write `h` of every image, in the images' order, to the parquet file `out`; return its rows.

    Images are decoded as they are needed; those that cannot be are left out and named in
    `OUT-stem.skipped.csv`. `workers`: processes that decode; None: one a core.

    Raises `UserError` where `out` exists, `run` has no encoder, no image is readable, or more than
    `max_bad_fraction` of them are not, and where they are those of the run's pretraining and have
    changed since (unless `accept_changed_data`).
    """
    out = Path(out)
    _check(out, batch_size, workers)
    file = encoder_file(run)
    about = describe_encoder(file)
    image = about["image"]
    pretraining = DataConfig(fit=image.get("fit"), resize=image.get("resize_px"))
    config, opened = _open(file.parent, data, pretraining, accept=accept_changed_data)
    splits = {name: part for name, part in opened._asdict().items() if part is not None}
    extraction = decide_extraction(
        whole_images(image["size_px"], tuple(image["mean"]), tuple(image["std"])),
        opened,
        device=device,
        precision=precision,
        workers=workers,
        batch_size=batch_size,
    )
    about = _origin(file, about, config, splits, extraction)
    folder = _parts_folder(out, {**about, "batch_size": batch_size})
    encoder = load_encoder(run).to(extraction.device)
    works = [_work(name, splits, folder, batch_size) for name in splits]
    for work in works:
        _write_parts(encoder, work, extraction, quiet)
    _write_skipped(works, out.with_name(f"{out.stem}.skipped.csv"))
    rows = _join([path for work in works for path in work.paths if path.exists()], out, about)
    shutil.rmtree(folder)
    return rows


def _check(out: Path, batch_size: int, workers: int | None) -> None:
    """Raise `UserError` for settings that cannot work and for a file that is there already."""
    if batch_size < 1 or (workers is not None and workers < 0):
        raise UserError(
            "--batch-size must be at least 1 and --workers must not be negative; "
            f"got {batch_size} and {workers}"
        )
    if out.exists():
        raise UserError(f"--out must be a new file; {out} exists; remove it or choose another")


def _open(
    run: Path, data: str | Path | DataConfig, pretraining: DataConfig, *, accept: bool
) -> tuple[DataConfig, Splits]:
    """The images, as squares like those of pretraining, and the settings they are opened with.
    Those of the run's pretraining must not have changed since, unless `accept`."""
    # Every image is wanted, none kept for testing, and none in memory for longer than it takes.
    config = dataclasses.replace(as_config(data), test_fraction=0.0, resident_mib=0)
    config = config.like(pretraining)
    images, record = open_images(config), read_record(run)
    if record is not None:
        drawn = ("test_fraction", "split_seed", "validation_fraction")
        own = {name: value for name, value in vars(record.data).items() if name in drawn}
        if same_reading(record, dataclasses.replace(config, **own)):
            refuse_changes(run, changes(run, images, some=True), accept=accept)
    return config, images


class _Work(NamedTuple):
    """One split and its parts."""

    split: str
    images: Images
    labelled: bool
    """Whether any split has labels, and so the table its column."""
    part_size: int
    paths: list[Path]
    """Part `i` is for the images from `i * part_size` on; missing where none can be read."""


def _work(split: str, splits: dict[str, Images], folder: Path, batch_size: int) -> _Work:
    labelled = any(images.labels is not None for images in splits.values())
    size = batch_size * PART_BATCHES
    count = -(-len(splits[split]) // size)
    paths = [folder / f"{split}-{i:06d}.parquet" for i in range(count)]
    return _Work(split, splits[split], labelled, size, paths)


def _origin(
    file: Path,
    about: Json,
    config: DataConfig,
    splits: dict[str, Images],
    extraction: ExtractConfig,
) -> Json:
    """What the table is made from. `about`: what the encoder's file says of itself."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    prints = [images.fingerprint.encode() for images in splits.values()]
    # The digest of the whole file stands for the one inside it.
    return {
        **{key: value for key, value in about.items() if key != "sha256"},
        "run": file.resolve().parent.name,
        "encoder_sha256": digest,
        "data": config.spec,
        "fingerprint": fingerprint(*prints),
        "device": extraction.device,
        "precision": extraction.precision,
    }


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


def _write_parts(encoder: nn.Module, work: _Work, extraction: ExtractConfig, quiet: bool) -> None:
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
            rows: list[tuple[Tensor, Tensor]] = []
            for index, pixels in group:
                with torch.no_grad(), hardware.autocast(extraction.device, extraction.precision):
                    h = encoder(pixels.contiguous(memory_format=torch.channels_last))
                rows.append((start + index, h.float().cpu()))
                show(start + int(index[-1]) + 1, "images")
            table = _table(work, *(torch.cat(column) for column in zip(*rows, strict=True)))
            write_atomically(paths[part], functools.partial(pq.write_table, table))
    if start and isinstance(images, ImageFiles):
        images.check(dict(_unreadable(work)))  # also those of the parts that were there


def _table(work: _Work, index: Int64[Tensor, " k"], h: Float[Tensor, "k p"]) -> "pa.Table":
    import pyarrow as pa

    images = work.images
    columns = {"path": pa.array([plain_text(images.ids[i]) for i in index.tolist()], pa.string())}
    if work.labelled:
        labels = [None] * len(index) if images.labels is None else images.labels[index].tolist()
        names = [None if i is None or i < 0 else images.classes[i] for i in labels]
        columns["label"] = pa.array(names, pa.string())
    columns["split"] = pa.array([work.split] * len(index), pa.string())
    columns["h"] = pa.FixedSizeListArray.from_arrays(pa.array(h.flatten().numpy()), h.shape[1])
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


def _join(parts: list[Path], out: Path, about: Json) -> int:
    """The parts as one table, a row group each; its number of rows."""
    import pyarrow.parquet as pq

    schema = pq.read_schema(parts[0])
    about = {**about, "p": schema.field("h").type.list_size}
    schema = schema.with_metadata({"headwise": json.dumps(about)})

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema) as writer:
            for part in parts:
                writer.write_table(pq.read_table(part))

    write_atomically(out, write)
    return pq.read_metadata(out).num_rows
