"""What a table of features is made from: images, encoder and head, and what it says of them."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from headwise.data import DataConfig, Images, as_config, open_images
from headwise.data.images import fingerprint
from headwise.errors import UserError
from headwise.features.extract import all_taps, check_taps
from headwise.files import Json
from headwise.heads import Head
from headwise.model.export import describe_encoder, encoder_file, load_encoder
from headwise.model.extraction import ExtractConfig
from headwise.model.trained import data_of, load_model, open_unchanged
from headwise.runs.directory import Run
from headwise.runtime import hardware
from headwise.runtime.hardware import Device


def read_as(folder: Path, data: str | Path | DataConfig, image: Json) -> DataConfig:
    """The settings that open these images as squares like the encoder's, none in memory for longer
    than it takes. A spec of the images of pretraining is split as there."""
    config = as_config(data)
    if config is not data and (folder / "config.json").is_file():
        config = data_of(Run(folder), data)
    own = DataConfig(fit=image.get("fit"), resize=image.get("resize_px"))
    return dataclasses.replace(config, resident_mib=0).like(own)


def all_splits(folder: Path, config: DataConfig, *, accept: bool) -> dict[str, Images]:
    """Every image by its split. Those of the run's pretraining must not have changed, unless
    `accept`."""
    config = dataclasses.replace(config, test_on="test")
    splits = open_unchanged(folder, config, accept=accept)._asdict()
    if config.validation_fraction:
        held_out = open_images(dataclasses.replace(config, test_on="validation")).test
        splits = {"train": splits["train"], "validation": held_out, "test": splits["test"]}
    return {name: part for name, part in splits.items() if part is not None}


def opened_model(
    run: str | Path | Run, taps: Sequence[str], device: Device
) -> tuple[nn.Module, Head | None]:
    """The encoder, and the head where a tap is of it, on the device. Raises `UserError` for an
    unknown tap."""
    here = hardware.resolve_device(device)
    encoder, file = load_encoder(run).to(here), encoder_file(run)
    if {*taps} <= {*all_taps(encoder, None)}:
        return encoder, None
    if not file.with_name("config.json").is_file():
        raise UserError(
            f"--taps can be {', '.join(all_taps(encoder, None))} with an encoder alone; "
            f"got {' '.join(taps)}; name a run, which has a head"
        )
    head = load_model(run if isinstance(run, Run) else file.parent).head.to(here)
    check_taps(taps, encoder, head)
    return encoder, head


def _batches(head: Head | None, extraction: ExtractConfig) -> Json:
    """What the rows of a head that sees the batch depend on; {} for others."""
    if head is None or not head.batch_aware:
        return {}
    size, seed = extraction.batch_size, extraction.seed
    return {"batch": {"images": size, "views": 1, "order": "shuffled in a split", "seed": seed}}


def origin(
    file: Path,
    config: DataConfig,
    splits: dict[str, Images],
    extraction: ExtractConfig,
    *,
    head: Head | None,
    taps: Sequence[str],
) -> Json:
    """What the table is made from."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    prints = [images.fingerprint.encode() for images in splits.values()]
    # The digest of the whole file stands for the one inside it.
    return {
        **{key: value for key, value in describe_encoder(file).items() if key != "sha256"},
        "run": file.resolve().parent.name,
        "encoder_sha256": digest,
        "data": config.spec,
        "fingerprint": fingerprint(*prints),
        "classes": [*splits["train"].classes],
        "split": splits["train"].split_rule,
        "device": extraction.device,
        "precision": extraction.precision,
        "taps": [*taps],
        **_batches(head, extraction),
    }
