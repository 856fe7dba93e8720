"""Evaluating a run: features once for all taps, then every probe on the table."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from headwise import hardware
from headwise.augment import unnormalised, whole_batches
from headwise.config import chosen
from headwise.data import DataConfig, Images, Splits, open_images
from headwise.encoders import build_encoder
from headwise.evaluation.probes import Result, check_labels, check_protocols, probe
from headwise.features import ExtractConfig, Features, check_taps, extract, extract_config
from headwise.pretrain_config import PretrainConfig, load_model
from headwise.runs import Run

# Raw pixels are probed at this size at most: 3,072 numbers, as many as a CIFAR image has.
_PIXELS_PX = 32


def evaluate(
    run: str | Path,
    data: DataConfig | str | None = None,
    *,
    protocols: Sequence[str] = ("knn", "linear"),
    taps: Sequence[str] = ("h", "z"),
    seed: int = 0,
    device: hardware.Device = "auto",
    baselines: bool = True,
    images: Splits | None = None,
) -> dict[str, Result]:
    """Probe a finished run at its taps, add the results to its results.json, and return them.

    Keys are `protocol/tap`; `protocol/pixels` and `protocol/untrained` are the baselines: raw
    pixels, and `h` of the same encoder with its first weights. `data` None: that of pretraining.
    Raises `UserError` for an unknown protocol or tap, an unfinished run, or images without labels.
    """
    check_protocols(protocols)
    opened = Run.open(Path(run))
    config, model = load_model(opened)
    check_taps(taps, model.head)
    spec = DataConfig(spec=data) if isinstance(data, str) else data or config.data
    images = images or open_images(spec)
    train, test = images.train, check_labels(*images, spec.spec)
    here = hardware.resolve_device(device)
    how = dataclasses.replace(extract_config(config), device=here, seed=seed)
    if here != config.device:
        how = dataclasses.replace(how, precision=hardware.resolve_precision("auto", here))
    model.to(here)
    classes = len(train.classes)
    results = {}
    features = [extract(model.encoder, model.head, part, taps, how) for part in (train, test)]
    for tap in taps:
        found = probe(protocols, *(f[tap] for f in features), num_classes=classes, seed=seed)
        results |= {f"{name}/{tap}": result for name, result in found}
    if baselines:
        results |= probe_baselines(config, (train, test), how, protocols)
    about = {"data": spec.spec, "fingerprint": test.fingerprint, "seed": seed}
    results = {name: {**result, **about} for name, result in results.items()}
    opened.add_results(results)
    return results


def probe_baselines(
    config: PretrainConfig,
    images: tuple[Images, Images],
    how: ExtractConfig,
    protocols: Sequence[str],
) -> dict[str, Result]:
    """What the probes reach without pretraining: `protocol/pixels` and `protocol/untrained`."""
    encoder = build_encoder(config.encoder, chosen(config.augment.size), config.seed).to(how.device)
    tables = {
        "pixels": [pixels(part, how) for part in images],
        "untrained": [extract(encoder, None, part, ["h"], how)["h"] for part in images],
    }
    return {
        f"{name}/{baseline}": result
        for baseline, (train, test) in tables.items()
        for name, result in probe(
            protocols, train, test, num_classes=len(images[0].classes), seed=how.seed
        )
    }


def pixels(images: Images, how: ExtractConfig) -> Features:
    """The whole images themselves as features, at 32 px at most, in [0, 1]."""
    small = unnormalised(how.augment, min(chosen(how.augment.size), _PIXELS_PX))
    batches = whole_batches(
        images, small, batch_size=how.batch_size, device="cpu", workers=how.workers
    )
    found = [(index, values.flatten(1)) for index, values in batches]
    index = torch.cat([index for index, _ in found])
    labels = None if images.labels is None else images.labels.cpu()[index]
    return Features(torch.cat([values for _, values in found]), labels, index)
