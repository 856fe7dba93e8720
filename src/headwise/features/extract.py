"""Features: the vectors of one tap for a set of images, extracted once, evaluated many times."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from headwise import rng
from headwise.augment import whole_batches
from headwise.data import Images, ResidentImages
from headwise.data.images import fingerprint
from headwise.encoders.stages import stage_names, watched_stages
from headwise.errors import UserError
from headwise.heads import Head
from headwise.model.extraction import ExtractConfig
from headwise.runtime import hardware


class Features(NamedTuple):
    """One tap's vectors for the images at `index`, in the images' order."""

    vectors: Float[Tensor, "n p"]
    labels: Int64[Tensor, " n"] | None
    index: Int64[Tensor, " n"]
    """Positions among the images; all of them, unless some could not be read."""


def all_taps(encoder: nn.Module, head: Head | None) -> tuple[str, ...]:
    """Every cut point in order: `f1`, `f2`, … of the encoder, `h`, `g1`, `g2`, … and `z`."""
    return (*stage_names(encoder), "h", *(() if head is None else head.tap_names))


def check_taps(taps: Sequence[str], encoder: nn.Module, head: Head | None) -> None:
    """Raise `UserError` for a tap that encoder and head do not have."""
    known = all_taps(encoder, head)
    for tap in taps:
        if tap not in known:
            raise UserError(
                f"--taps must be cut points of this encoder and head: {', '.join(known)}; "
                f"got {tap!r}"
            )


@torch.no_grad()
def extract(
    encoder: nn.Module,
    head: Head | None,
    images: Images,
    taps: Sequence[str],
    config: ExtractConfig,
) -> dict[str, Features]:
    """The features of all `taps` in one pass over the images, float32, on the CPU.

    Neither encoder nor head changes. A head that attends over samples sees shuffled batches.
    """
    check_taps(taps, encoder, head)
    taps = tuple(dict.fromkeys(taps))
    modes = [(module, module.training) for module in (encoder, head) if module is not None]
    order = extract_order(len(images), config.seed)
    try:
        for module, _ in modes:
            module.eval()
        batches = _shuffled(images, order, config)
        return collected(images, ((i, at_taps(encoder, head, x, taps, config)) for i, x in batches))
    finally:
        for module, training in modes:
            module.train(training)


def extract_order(n: int, seed: int) -> Int64[Tensor, " n"]:
    """The order in which images share batches."""
    return torch.randperm(n, generator=rng.generator(seed, "extract"))


def collected(
    images: Images,
    batches: Iterable[tuple[Int64[Tensor, " b"], dict[str, Float[Tensor, "b _"]]]],
) -> dict[str, Features]:
    """Rows at several taps that came batch by batch, with the numbers of the images, in the images'
    order and on the CPU. Raises `UserError` where there are none."""
    read, rows = [], {}
    for index, values in batches:
        read.append(index)
        for tap, vectors in values.items():
            rows.setdefault(tap, []).append(vectors.cpu())
    if not read:
        raise UserError("features need at least one readable image; got none")
    index = torch.cat(read)
    back = index.argsort()
    labels = None if images.labels is None else images.labels.cpu()[index[back]]
    return {tap: Features(torch.cat(rows.pop(tap))[back], labels, index[back]) for tap in [*rows]}


def finite(whose: str, vectors: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
    """The features themselves. Raises `UserError`, which begins with `whose`, for NaN and
    infinity."""
    # NaN passes through; isfinite() of a table would be two more of its size.
    if not torch.stack(vectors.aminmax()).isfinite().all():
        raise UserError(
            f"{whose} features must be finite; got NaN or infinity; did pretraining diverge?"
        )
    return vectors


def check_tables(who: str, train: Float[Tensor, "n p"], test: Float[Tensor, "m p"]) -> None:
    """Raise `UserError` where a probe has no test rows, or features that are not finite."""
    if len(test) == 0:
        raise UserError(f"{who} needs at least one test row; got none")
    finite(f"{who}'s training", train)
    finite(f"{who}'s test", test)


@torch.no_grad()
def at_taps(
    encoder: nn.Module,
    head: Head | None,
    pixels: Float[Tensor, "n 3 s s"],
    taps: Sequence[str],
    config: ExtractConfig,
) -> dict[str, Float[Tensor, "n _"]]:
    """One batch at all `taps`, float32, from one forward pass of a model in evaluation mode."""
    precision = hardware.autocast(config.device, config.precision)
    with precision, watched_stages(encoder, taps) as values:
        values["h"] = encoder(pixels.contiguous(memory_format=torch.channels_last))
        if head is not None and set(taps) & set(head.tap_names):
            values |= head.taps(values["h"], views=1)
    return {tap: values[tap].float() for tap in taps}


def _shuffled(
    images: Images, order: Int64[Tensor, " n"], config: ExtractConfig
) -> Iterator[tuple[Int64[Tensor, " k"], Float[Tensor, "k 3 s s"]]]:
    """Batches of whole images in this order, with the numbers of the images."""
    # Pixels in memory are gathered batch by batch: all at once would be all the memory again.
    resident = isinstance(images, ResidentImages)
    for part in order.split(config.batch_size) if resident else [order]:
        batches = whole_batches(
            images.select(part),
            config.augment,
            batch_size=config.batch_size,
            device=config.device,
            workers=config.workers,
        )
        for index, pixels in batches:
            yield part[index], pixels


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of every parameter and buffer, BatchNorm's statistics included: another as
    soon as one bit is. Processors have instructions for it: it takes less than one batch."""
    named = itertools.chain(module.named_parameters(), module.named_buffers())
    return fingerprint(
        *itertools.chain.from_iterable(
            (name.encode(), tensor.detach().reshape(-1).view(torch.uint8).cpu().numpy())
            for name, tensor in named
        )
    )
