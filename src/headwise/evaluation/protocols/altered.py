"""Features of images that were changed on the way to the encoder."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headwise import rng
from headwise.augment import normalised, unnormalised, whole_batches
from headwise.data import Images
from headwise.features.extract import Features, at_taps, collected, finite
from headwise.model.contrastive import ContrastiveModel
from headwise.model.extraction import ExtractConfig

Change = Callable[[Float[Tensor, "n 3 s s"], Int64[Tensor, " n"]], Float[Tensor, "n 3 s s"]]
"""From whole images in [0, 1], and their positions among all, to changed ones."""


@torch.no_grad()
def altered_features(
    model: ContrastiveModel,
    images: Images,
    taps: Sequence[str],
    change: Change,
    extraction: ExtractConfig,
) -> dict[str, Features]:
    """As `features.extract`, of changed images. The model is in evaluation mode. Images share
    batches with the same others whatever the change. Raises `UserError` for features that are not
    finite and where no image can be read."""
    order = torch.randperm(len(images), generator=rng.generator(extraction.seed, "altered"))
    batches = whole_batches(
        images.select(order),
        unnormalised(extraction.augment, extraction.augment.size),
        batch_size=extraction.batch_size,
        device=extraction.device,
        workers=extraction.workers,
    )

    def rows() -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        for places, pixels in batches:
            index = order[places]
            changed = normalised(change(pixels, index), extraction.augment)
            found = at_taps(model.encoder, model.head, changed, taps, extraction)
            yield index, {tap: finite(f"changed images' {tap}", x) for tap, x in found.items()}

    return collected(images, rows())


def at_most(images: Images, count: int) -> Images:
    """All images, or `count` of them, always the same, in their order."""
    if count >= len(images):
        return images
    rows = torch.randperm(len(images), generator=rng.generator(0, "at_most"))[:count]
    return images.select(rows.sort().values)
