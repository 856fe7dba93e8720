"""What is watched while a run trains: metrics, and the checks that stop or warn."""

import contextlib
import dataclasses
import logging
import resource
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from headwise import heads, rng
from headwise.augment.own_op import OWN_PART
from headwise.augment.views import made_in_c
from headwise.data import Images, ResidentImages, write_skipped
from headwise.data.images import SKIPPED_FILE
from headwise.data.split import only_labelled
from headwise.encoders.build import representation_size
from headwise.errors import UserError
from headwise.evaluation.protocols.knn import knn_accuracy
from headwise.evaluation.statistics import geometry
from headwise.features.extract import extract
from headwise.files import Json
from headwise.losses import chosen_method, contrastive_entropy
from headwise.model import export
from headwise.model.checkpoint import TrainState
from headwise.model.config import ResolvedConfig
from headwise.model.contrastive import ContrastiveModel, Outputs
from headwise.model.extraction import extract_config
from headwise.model.noise_audit import refuse_leaks
from headwise.model.objective import over_parts, settings_of
from headwise.model.optim import schedule
from headwise.model.own_parts import own_parts
from headwise.runs.directory import Run
from headwise.runtime import distributed

log = logging.getLogger("headwise")

# The k-NN check looks at this many training images, a fifth of them as queries.
_KNN_IMAGES, _KNN_K, _LEAST_KNN_IMAGES = 5000, 10, 5
# Metrics that compare all pairs of rows or factor a matrix look at this many rows at most.
_METRIC_ROWS = 1024


def check_ahead(config: ResolvedConfig, model: ContrastiveModel, images: Images) -> None:
    """Do without training what training does later, so that it fails now if it must: the schedule
    and the export. Say what is unusual about the run.

    Raises `UserError` if warm-up has as many steps as the run, or more, and for an own head that
    tells which rows are twins.
    """
    steps, world = len(images) // config.batch_size, distributed.world_size()
    schedule(config.optim, epochs=config.epochs, epoch_steps=steps, batch_size=config.batch_size)
    refuse_leaks(
        config.head, representation_size(model.encoder, config.encoder, config.augment.size)
    )
    export.encoder_bytes(model.encoder, config.encoder, config.augment, config.data)
    if heads.leaks(config.head):
        log.warning(
            "head.context %s is a negative control: what a sample does not see names its twin, so "
            "the loss can be solved without the images (docs/heads.md)",
            config.head.context,
        )
    if config.augment.own is not None and world > 1 and config.batch_size % (world * OWN_PART):
        raise UserError(
            f"--batch-size must be a multiple of {world * OWN_PART} for an own operator on {world} "
            f"ranks, each of which takes whole parts of {OWN_PART}; got {config.batch_size}"
        )
    if config.knn_every and images.labels is not None and not has_knn(images):
        log.warning(
            "the k-NN check of every %d epochs needs %d images with labels; it is left out",
            config.knn_every,
            _LEAST_KNN_IMAGES,
        )
    norms = [m for m in model.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    if norms and config.device == "cpu" and world > 1:
        log.warning(
            "BatchNorm in the encoder is not synchronised on CPUs: each of the %d ranks has its "
            "own statistics, and the result differs from that of one process",
            world,
        )


def has_knn(images: Images) -> bool:
    """Whether enough images have a label for `check_knn`."""
    return images.labels is not None and len(only_labelled(images)) >= _LEAST_KNN_IMAGES


def batch_metrics(outputs: Outputs) -> dict[str, float]:
    """What can be seen without labels, on a part of the batch's views."""
    z0, z1 = (z[: _METRIC_ROWS // 2] for z in outputs.z.chunk(2))
    return {
        "alignment": geometry.alignment(z0, z1).item(),
        "uniformity": geometry.uniformity(torch.cat([z0, z1])).item(),
        "rank_h": geometry.effective_rank(outputs.h[:_METRIC_ROWS]).item(),
        "rank_z": geometry.effective_rank(torch.cat([z0, z1])).item(),
    }


def softmax_entropy(outputs: Outputs, config: ResolvedConfig) -> dict[str, float]:
    """The entropy of the contrastive softmax; nothing if the objective has no temperature."""
    if "temperature" not in settings_of(config.objective):
        return {}

    def measured(z0: Tensor, z1: Tensor) -> tuple[Tensor]:
        return (contrastive_entropy(z0, z1, config.temperature, normalised=config.normalised),)

    groups, forms = heads.loss_groups(config.head), heads.loss_forms(config.head)
    z0, z1 = outputs.z.chunk(2)
    (mean,) = over_parts(measured, z0, z1, groups=groups, forms=forms)
    return {"contrastive_entropy": mean.item()}


def reset_peak_memory(device: str) -> None:
    """Let `memory_mib` count from now on: an earlier run in this process may have used more. On
    CPUs only Linux can."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def memory_mib(device: str) -> float:
    """Peak memory since `reset_peak_memory`: of the GPU's allocator, or the process's resident
    memory."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def check_finite(losses: list[Tensor], step: int, rate: float, temperature: float) -> None:
    """Raise `UserError` if one of the losses up to `step` is not finite."""
    bad = (~torch.stack(losses).isfinite()).nonzero()
    if len(bad):
        raise UserError(
            f"the loss must be finite; at step {step - len(losses) + 1 + int(bad[0])} it was "
            f"{losses[int(bad[0])].item()}, with learning rate {rate:.3g} and temperature "
            f"{temperature:g}; the last checkpoint is kept; try a lower --lr or a longer warm-up"
        )


def record_skipped(skipped: dict[str, str], images: Images, run: Run) -> None:
    """Write skipped.csv: what was unreadable when the images were opened, and since."""
    every = dataclasses.replace(images, skipped=tuple(skipped.items()))
    write_skipped([every], run.path / SKIPPED_FILE)


def check_knn(config: ResolvedConfig, state: TrainState, images: Images) -> float:
    """k-NN accuracy of `h` among training images, a fifth of them as queries: a sign of progress
    that leaves the test split alone."""
    images = only_labelled(images)
    chosen = torch.randperm(len(images), generator=rng.generator(config.seed, "knn"))[:_KNN_IMAGES]
    model: Any = state.model
    sample = extract(model.encoder, None, images.select(chosen), ["h"], extract_config(config))["h"]
    queries = len(sample.vectors) // 5
    assert sample.labels is not None, "only called for labelled images"
    return knn_accuracy(
        sample.vectors[queries:],
        sample.labels[queries:],
        sample.vectors[:queries],
        sample.labels[:queries],
        k=min(_KNN_K, len(sample.vectors) - queries),
        temperature=None,
        num_classes=len(images.classes),
    )


def warn_of_collapse(record: Json, accuracy: float, rows: int) -> bool:
    """Say so when the last epoch looks like collapse; whether it does."""
    chance = 1 / (rows - 1)
    flat = [tap for tap in ("h", "z") if record[f"rank_{tap}"] < 1.5]
    if accuracy <= 2 * chance:
        sign = f"contrastive accuracy {accuracy:.4f} is at chance ({chance:.4f})"
    elif flat:
        sign = f"the effective rank of {' and '.join(flat)} is near 1"
    else:
        return False
    log.warning(
        "epoch %d looks like collapse: %s; try a lower --lr, a longer warm-up "
        "(--optim.warmup-epochs), another --temperature, or a head with BatchNorm",
        round(record["epoch"]),
        sign,
    )
    return True


def summary(record: Json) -> str:
    """A record in a few words, for the progress bar."""
    knn = f" knn/h {record['knn/h']:.1%}" if "knn/h" in record else ""
    return (
        f"epoch {record['epoch']:.1f} loss {record['loss']:.3f} "
        f"accuracy {record['contrastive_accuracy']:.1%}{knn} "
        f"{record['views_per_second']:.0f} views/s"
    )


def describe(config: ResolvedConfig, state: TrainState, images: Images) -> str:
    """The run in one line: what the automatic choices came to."""
    model: Any = state.model
    encoder, head = model.encoder, model.head
    p = representation_size(encoder, config.encoder, config.augment.size)
    in_c = made_in_c(config.augment, config.device)
    return (
        f"{len(images)} images at {config.augment.size} px; encoder {_name(config, 'encoder')} "
        f"({config.encoder.stem} stem, p = {p}, {_count(encoder)} parameters); "
        f"head {_name(config, 'head')} ({_count(head)} parameters); "
        f"{config.device}, {config.precision}, {torch.get_num_threads()} threads; "
        f"augmentation in {'C' if in_c else 'torch'}; "
        f"fast: {', '.join(_fast_parts(config, images)) or 'nothing'}"
    )


def _name(config: ResolvedConfig, part: Literal["encoder", "head"]) -> str:
    code = own_parts(config).get(part)
    return str(vars(config)[part].name) if code is None else code.name


def _fast_parts(config: ResolvedConfig, images: Images) -> list[str]:
    """What makes this run fast; docs/performance.md has the off switch of each."""
    on_cpu = config.device == "cpu"
    method = chosen_method(config.loss, config.batch_size, config.device)
    parts = {
        "images in memory": isinstance(images, ResidentImages),
        "unfolded convolutions": on_cpu
        and config.precision == "bfloat16"
        and config.unfolded_convolutions,
        "compiled encoder": config.compiled,
        "NT-Xent without the matrix": config.objective == "nt-xent" and method != "dense",
        "freed memory kept": on_cpu and config.keep_freed_memory,
    }
    return [name for name, used in parts.items() if used]


def _count(module: torch.nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M"
