"""Heads of the user's own: their layers, and what one forward pass of noise shows of them."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headwise import rng
from headwise.errors import UserError
from headwise.heads.config import OwnHead
from headwise.heads.head import Head
from headwise.own_code import OwnCode

# Images of the trial, each with two views.
_IMAGES = 4

# A change of other rows that moves a row by less than this part of the largest entry is rounding.
_ROUNDING = 1e-4


def own_layers(code: OwnCode, p: int) -> list[nn.Module]:
    """Return the layers that the function makes for `h` of size `p`, or those of the module."""
    made = code.built("head", p)
    layers = [*made] if isinstance(made, list | tuple | nn.Sequential | nn.ModuleList) else [made]
    wrong = [layer for layer in layers if not isinstance(layer, nn.Module)]
    if wrong:
        raise UserError(
            f"the head {code.words} must return a list of layers (nn.Module); "
            f"got {type(wrong[0]).__name__}"
        )
    return layers


def resolve_own(code: OwnCode, p: int) -> OwnHead:
    """Return the resolved form of an own head, which is built and given noise.

    Raises `UserError` if it fails, changes the number of rows, or gives anything but finite rows
    of floats.
    """
    with rng.seeded(0, "own head"):
        head = Head(own_layers(code, p), "joint")
        rows = torch.randn(2 * _IMAGES, p)
        for training in (True, False):
            z = _tried(code, head.train(training), rows)
    context = "joint" if sees_others(head, p, training=False) else "self"
    return OwnHead(own=code, output_size=z.shape[1], context=context)


def _tried(code: OwnCode, head: Head, rows: Float[Tensor, "m p"]) -> Float[Tensor, "m d"]:
    """Return `z`, having checked every tap."""
    try:
        taps = head.taps(rows, views=2)
    except Exception as error:  # a layer of the user's raises what it likes
        raise code.failed("head", error) from error
    for tap, found in taps.items():
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(rows):
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(
                f"the head {code.words} must give a vector for each row at every tap; "
                f"got {shape} at {tap} for {list(rows.shape)}"
            )
        if not found.isfinite().all():
            raise UserError(
                f"the head {code.words} must give finite numbers; got NaN or infinity at {tap}"
            )
    return taps["z"]


def sees_others(head: Head, p: int, *, training: bool) -> bool:
    """Return whether a row's `z` changes with the other rows, apart from BatchNorm's statistics.
    The weights are moved a little first, because some parts begin at zero."""
    head = moved_weights(head).train(training)
    for module in head.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    with rng.seeded(0, "own head", "others"):
        rows = torch.randn(2 * _IMAGES, p)
        others = torch.cat([rows[:1], torch.randn(2 * _IMAGES - 1, p)])
    found = []
    with torch.no_grad():
        for given in (rows, others):
            with rng.seeded(0, "own head", "dropout"):
                found.append(head(given, views=2)[0])
    return bool((found[0] - found[1]).abs().max() > _ROUNDING * found[0].abs().max())


@torch.no_grad()
def moved_weights(head: Head) -> Head:
    """Return a copy of a head, on the CPU, whose parameters have moved a little from where they
    begin."""
    head = copy.deepcopy(head).cpu()
    generator = rng.generator(0, "moved weights")
    for parameter in head.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator).to(parameter)
    return head
