"""An operator of the user's own."""

import torch
from jaxtyping import Float
from torch import Tensor

from headwise.errors import UserError
from headwise.own_code import OwnCode

OWN_PART = 32
"""So many consecutive views of a batch pass through an own operator together, with a generator of
their own. Ranks take whole parts, so that their number does not change the draws."""


def apply_own(
    code: OwnCode, views: Float[Tensor, "m 3 s s"], seed: int
) -> Float[Tensor, "m 3 s s"]:
    """Return what the user's function makes of some views. It draws from a generator on the CPU."""
    made = code.called("augment", views, torch.Generator().manual_seed(seed))
    if not isinstance(made, Tensor) or made.shape != views.shape or not made.is_floating_point():
        got = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise UserError(
            f"the augment {code.words} must return as many views of the same size; "
            f"got {got} for {list(views.shape)}"
        )
    return made


def try_own(code: OwnCode, size: int) -> None:
    """Call an own operator on noise. Raises `UserError` if it fails, gives anything but finite
    views, or draws from another generator than its own."""
    views = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    made, again = (apply_own(code, views.clone(), seed=0) for _ in range(2))
    if not made.isfinite().all():
        raise UserError(f"the augment {code.words} must give finite views; got NaN or infinity")
    if not made.equal(again):
        raise UserError(
            f"the augment {code.words} must draw from the generator that it is given; the same "
            "generator gave other views; pass generator=generator to torch's functions"
        )
