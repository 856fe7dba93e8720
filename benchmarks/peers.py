"""Other libraries, used as their documentation says, with our policy, encoder and optimizer."""

import dataclasses
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from headwise.augment import ResolvedAugment
from headwise.model.build import build_model
from headwise.model.config import ResolvedConfig
from headwise.model.optim import build_optimizer
from headwise.runtime import hardware


@dataclass(frozen=True)
class Transformed(Dataset):
    """Images one at a time, each through `transform`."""

    images: Sequence[Any]
    transform: Callable[[Any], list[Tensor]]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(self.images[index])


def per_image_batches(
    images: Sequence[Any], transform: Callable[[Any], list[Tensor]], batch_size: int, batches: int
) -> DataLoader:
    """Both views of `batches` batches, made one image at a time by one worker process per core."""
    return DataLoader(
        Transformed(images, transform),
        batch_size,
        sampler=RandomSampler(images, num_samples=batches * batch_size),
        num_workers=hardware.usable_cores(),
        multiprocessing_context=multiprocessing.get_context("fork"),
    )


def lightly_transform(config: ResolvedAugment) -> Callable[[Any], list[Tensor]]:
    """lightly's SimCLR policy on PIL images."""
    from lightly.transforms import SimCLRTransform

    transform: Any = SimCLRTransform(  # lightly's type also allows images as the views
        input_size=config.size,
        cj_strength=config.strength,
        gaussian_blur=config.blur,
        normalize={"mean": list(config.mean), "std": list(config.std)},
    )
    return transform


def torchvision_transform(config: ResolvedAugment) -> Callable[[Tensor], list[Tensor]]:
    """torchvision's v2 transforms on a uint8 tensor; conversion to float comes last, as advised."""
    from torchvision.transforms import v2

    size = config.size
    brightness, contrast, saturation, hue = _colour(config)
    blur = v2.GaussianBlur(_blur_px(size), config.blur_sigma)
    view = v2.Compose(
        [
            v2.RandomResizedCrop(size, config.crop_scale, config.crop_ratio),
            v2.RandomHorizontalFlip(config.flip),
            v2.RandomApply([v2.ColorJitter(brightness, contrast, saturation, hue)], config.jitter),
            v2.RandomGrayscale(config.grey),
            *([v2.RandomApply([blur], config.blur)] if config.blur else []),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(config.mean), list(config.std)),
        ]
    )
    return lambda image: [view(image), view(image)]


def kornia_transform(config: ResolvedAugment) -> nn.Module:
    """kornia on a float batch in [0, 1]; every row has parameters of its own."""
    from kornia import augmentation as K

    size = config.size
    brightness, contrast, saturation, hue = _colour(config)
    sigma, blur_px = config.blur_sigma, _blur_px(size)
    return nn.Sequential(
        K.RandomResizedCrop((size, size), config.crop_scale, config.crop_ratio),
        K.RandomHorizontalFlip(p=config.flip),
        K.ColorJitter(brightness, contrast, saturation, hue, p=config.jitter),
        K.RandomGrayscale(p=config.grey),
        *([K.RandomGaussianBlur(blur_px, sigma, p=config.blur)] if config.blur else []),
        K.Normalize(torch.tensor(config.mean), torch.tensor(config.std)),
    )


def lightly_step(config: ResolvedConfig, *, reduced: bool) -> Callable[[list[Tensor]], None]:
    """The training step of lightly's SimCLR example. `reduced`: the forward pass under bfloat16
    autocast, which the example does not have."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead

    # torch's own convolutions, also under bfloat16: ours do not belong to the other library.
    plain = dataclasses.replace(config, unfolded_convolutions=False)
    encoder: Any = build_model(plain).encoder
    p = encoder.num_features
    model = nn.Sequential(encoder, SimCLRProjectionHead(p, p, 128)).to(config.device)
    optimizer, criterion = build_optimizer(config.optim, model), NTXentLoss()

    def step(batch: list[Tensor]) -> None:
        x0, x1 = (views.to(config.device) for views in batch)
        with hardware.autocast(config.device, "bfloat16" if reduced else "float32"):
            loss = criterion(model(x0), model(x1))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _colour(config: ResolvedAugment) -> list[float]:
    return [config.strength * value for value in config.colour]


def _blur_px(size: int) -> int:
    """A tenth of the side, made odd."""
    return size // 20 * 2 + 1
