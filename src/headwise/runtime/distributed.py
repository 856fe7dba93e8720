"""The collectives that training needs. In a single process each returns its input.

W ranks give the same result as one process: every rank encodes its own views, `gather` collects
the `h` of all ranks, and then **every rank computes the head and the loss of the whole batch**.
`gather`'s backward sums the gradients of all ranks, and `average_gradients` takes the mean over
ranks: the encoder has W partial gradients, each W times too large, and the head W equal ones, so
both are exact. `DistributedDataParallel` would replace `average_gradients` alone.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor


@contextlib.contextmanager
def process_group(device: str) -> Iterator[None]:
    """Join the group that `torchrun` describes in the environment. Without one, do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(rows: Shaped[Tensor, "n *p"]) -> Shaped[Tensor, "m *p"]:
    """Return the rows of all ranks in rank order (`m = W·n`). Backward sums all ranks' gradients.

    Every rank must give the same number of rows.
    """
    return rows if world_size() == 1 else _Gather.apply(rows)


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over ranks, in one collective for each dtype."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    for dtype in sorted({g.dtype for g in gradients}, key=str):
        group = [g for g in gradients if g.dtype == dtype]
        flat = torch.cat([g.reshape(-1) for g in group])
        dist.all_reduce(flat)
        flat /= world_size()
        for gradient, part in zip(group, flat.split([g.numel() for g in group]), strict=True):
            gradient.copy_(part.view_as(gradient))


def any_rank(flag: bool) -> bool:
    """Return whether the flag is set on at least one rank."""
    if world_size() == 1:
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    count = torch.tensor(int(flag), device=device)
    dist.all_reduce(count)
    return bool(count.item())


def barrier() -> None:
    if world_size() > 1:
        dist.barrier()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        rows = rows.contiguous()
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        n = len(gradient) // world_size()
        return gradient[rank() * n : (rank() + 1) * n]
