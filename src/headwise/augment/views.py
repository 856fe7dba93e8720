"""Views: their random parameters, drawn for a whole batch, and what makes views with them."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from headwise import rng
from headwise.augment import ops, study_ops
from headwise.augment.crop import apply_crop, sample_crop
from headwise.augment.ops import Blur, Jitter
from headwise.augment.own_op import OWN_PART, apply_own
from headwise.augment.policies import SIMCLR, Operator, ResolvedAugment
from headwise.augment.study_ops import Cutout, Grain
from headwise.augment.views_in_c import library, views_in_c
from headwise.runtime import hardware

# Number of floats that pass through all operators together: 1 MiB.
_CHUNK_VALUES = 2**18

# A crop of this multiple of the image's area never fits, so that it is the largest centred box.
_WHOLE = 4.0


class ViewParameters(NamedTuple):
    """All random parameters of a batch of views. Rows `i` and `i + n` belong to image `i`. A mask
    leaves out the views whose branch does not have the operator."""

    crop: Float[Tensor, "m tries 4"]
    flip: Bool[Tensor, " m"]
    jitter: Jitter
    grey: Bool[Tensor, " m"]
    blur: Blur
    cutout: Cutout
    turns: Int64[Tensor, " m"]
    noise: Grain
    sobel: Bool[Tensor, " m"]
    second: Bool[Tensor, " m"]
    """Which views are the second of their image."""
    own: Int64[Tensor, " m"]
    """The seed of each view for the user's own operator."""

    def rows(self, index: Int64[Tensor, " k"] | slice) -> "ViewParameters":
        """Return the parameters of some of the views."""
        return ViewParameters(
            crop=self.crop[index],
            flip=self.flip[index],
            jitter=Jitter(*(part[index] for part in self.jitter)),
            grey=self.grey[index],
            blur=Blur(*(part[index] for part in self.blur)),
            cutout=Cutout(*(part[index] for part in self.cutout)),
            turns=self.turns[index],
            noise=Grain(*(part[index] for part in self.noise)),
            sobel=self.sobel[index],
            second=self.second[index],
            own=self.own[index],
        )


def sample_views(config: ResolvedAugment, n: int, seed: int, step: int) -> ViewParameters:
    """Draw the parameters of two views of each of `n` images at this step. Every operator has its
    own generator, so changing one does not change the draws of the others."""
    m, second = 2 * n, torch.arange(2 * n) >= n

    def drawing(name: str) -> torch.Generator:
        return rng.generator(seed, "augment", step, name)

    def having(op: Operator) -> Bool[Tensor, " m"]:
        first, other = (op in branch for branch in config.branches)
        return torch.where(second, other, first)

    def chosen(op: Operator, probability: float) -> Bool[Tensor, " m"]:
        return ops.sample_mask(m, drawing(op), probability=probability) & having(op)

    brightness, contrast, saturation, hue = (config.strength * value for value in config.colour)
    strengths, side = (brightness, contrast, saturation, hue), config.cutout_side
    crop = sample_crop(m, drawing("crop"), scale=config.crop_scale, ratio=config.crop_ratio)
    crop[~having("crop"), :, 0] = _WHOLE
    jitter = ops.sample_jitter(m, drawing("jitter"), probability=config.jitter, strengths=strengths)
    blur = ops.sample_blur(m, drawing("blur"), probability=config.blur, sigma=config.blur_sigma)
    cutout = study_ops.sample_cutout(
        m, drawing("cutout"), probability=config.cutout, side=(side, side)
    )
    grain = study_ops.sample_grain(m, drawing("noise"), probability=config.noise)
    return ViewParameters(
        crop=crop,
        flip=chosen("flip", config.flip),
        jitter=jitter._replace(applied=jitter.applied & having("colour")),
        grey=chosen("grey", config.grey),
        blur=blur._replace(applied=blur.applied & having("blur")),
        cutout=cutout._replace(applied=cutout.applied & having("cutout")),
        turns=study_ops.sample_rotation(m, drawing("rotation")) * having("rotation"),
        noise=grain._replace(applied=grain.applied & having("noise")),
        sobel=chosen("sobel", config.sobel),
        second=second,
        own=torch.randint(2**62, (m,), generator=drawing("own")),
    )


def made_in_c(config: ResolvedAugment, device: str) -> bool:
    """Whether C makes the views: on a CPU, if it was compiled and the operators of both branches
    are among SimCLR's, in their order."""
    simclrs = all(
        branch == tuple(op for op in SIMCLR if op in branch) for branch in config.branches
    )
    return config.in_c and simclrs and device == "cpu" and library() is not None


def make_views(
    config: ResolvedAugment,
    images: UInt8[Tensor, "n 3 height width"],
    boxes: Int64[Tensor, "m 4"] | None,
    parameters: ViewParameters,
) -> Float[Tensor, "m 3 size size"]:
    """Return normalised views, in channels_last, of images of one size. Box `j` is cut from image
    `j mod n`. Without boxes the images are already crops, and `m = n`.

    On the CPU a few views at a time pass through all operators, so that intermediate results stay
    in the processor's cache.
    """
    size, m, n = config.size, len(parameters.crop), len(images)
    if boxes is None:
        boxes = torch.tensor([0, 0, size, size]).expand(m, 4)
    memory_format = torch.channels_last
    views = torch.empty(m, 3, size, size, device=images.device, memory_format=memory_format)
    in_c = made_in_c(config, images.device.type)

    def make(rows: slice) -> None:
        pixels = images[rows.start % n : (rows.stop - 1) % n + 1]
        part = parameters.rows(rows)
        if in_c:
            views_in_c(
                pixels,
                boxes[rows],
                flipped=part.flip,
                jitter=part.jitter,
                grey=part.grey,
                blur=part.blur,
                mean=config.mean,
                std=config.std,
                views=views[rows],
            )
        else:
            views[rows] = finish_views(config, apply_crop(pixels, boxes[rows], size), part)

    hardware.on_threads(make, _parts(config, n, parameters, images.device.type))
    return views


def _parts(config: ResolvedAugment, n: int, parameters: ViewParameters, device: str) -> list[slice]:
    """Return the views that pass together: of different images and, if the branches differ or an
    operator is the user's own, of one branch."""
    same = config.ops_second is None and config.own is None
    together = n if same else int((~parameters.second).sum())
    chunk = max(1, _CHUNK_VALUES // (3 * config.size**2)) if device == "cpu" else together
    chunk = chunk if config.own is None else OWN_PART
    views = range(0, len(parameters.crop), together)
    starts = [i for view in views for i in range(view, view + together, chunk)]
    return [slice(i, min(i + chunk, i - i % together + together)) for i in starts]


def finish_views(
    config: ResolvedAugment, crops: Float[Tensor, "m 3 size size"], parameters: ViewParameters
) -> Float[Tensor, "m 3 size size"]:
    """Apply all operators after the crop, in the order of the branch, and normalise. All views are
    of one branch if the branches differ."""
    views = crops
    for op in config.branches[int(parameters.second[0])]:
        views = _applied(op, views, parameters, config)
    return ops.normalise(views, config.mean, config.std)


def _applied(
    op: Operator,
    views: Float[Tensor, "m 3 size size"],
    parameters: ViewParameters,
    config: ResolvedAugment,
) -> Float[Tensor, "m 3 size size"]:
    match op:
        case "crop":  # where the images were read
            return views
        case "flip":
            return ops.apply_flip(views, parameters.flip)
        case "colour":
            return ops.apply_jitter(views, parameters.jitter)
        case "grey":
            return ops.apply_grey(views, parameters.grey)
        case "blur":
            return ops.apply_blur(views, parameters.blur)
        case "cutout":
            return study_ops.apply_cutout(views, parameters.cutout)
        case "rotation":
            return study_ops.apply_rotation(views, parameters.turns)
        case "noise":
            return study_ops.apply_grain(views, parameters.noise, config.noise_sigma)
        case "sobel":
            return study_ops.apply_sobel(views, parameters.sobel)
        case "own":
            assert config.own is not None, "it is checked with the operators"
            return apply_own(config.own, views, int(parameters.own[0]))
