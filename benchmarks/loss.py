"""NT-Xent, forward and backward pass: time and memory against n, ours and those of others."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from headwise import rng
from headwise.losses import nt_xent
from headwise.runtime import hardware
from measure import MIB, alternate, table, time_and_memory

# The largest n at which a contender is measured: its memory grows with n³ (17 GiB at 512).
LARGEST = {"pytorch-metric-learning": 128}
D = 128
TEMPERATURE = 0.5


def autocast_dense(z0: Tensor, z1: Tensor) -> Tensor:
    """The usual lines of PyTorch under bfloat16 autocast."""
    n = len(z0)
    with torch.autocast(z0.device.type, torch.bfloat16):
        z = torch.nn.functional.normalize(torch.cat([z0, z1]), dim=1)
        logits = (z @ z.T / TEMPERATURE).fill_diagonal_(-torch.inf)
        positives = torch.arange(2 * n, device=z.device).roll(n)
        return torch.nn.functional.cross_entropy(logits, positives)


def names(device: str) -> list[str]:
    """The contenders; the first is the method that `auto` takes for large n."""
    fused = ["fused", "fused, bfloat16 z"] if device == "cuda" else []
    dense = ["dense, autocast"] if device == "cuda" else []
    return [*fused, "tiled", "dense", *dense, "lightly", "pytorch-metric-learning"]


def contender(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    match name:
        case "lightly":
            from lightly.loss import NTXentLoss

            return NTXentLoss(TEMPERATURE)
        case "pytorch-metric-learning":
            from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

            return SelfSupervisedLoss(NTXentLoss(TEMPERATURE))
        case "dense, autocast":
            return autocast_dense
        case "fused, bfloat16 z":
            return lambda z0, z1: nt_xent(z0.bfloat16(), z1.bfloat16(), TEMPERATURE, "fused")
        case "fused" | "tiled" | "dense":
            return partial(nt_xent, temperature=TEMPERATURE, method=name)
        case _:
            raise ValueError(f"no contender {name!r}")


def prepare(name: str, n: int, device: str) -> Callable[[], None]:
    views = [torch.randn(n, D, generator=rng.generator(0, view)).to(device) for view in (0, 1)]
    leaves = [view.requires_grad_() for view in views]
    loss = contender(name)

    def work(size: int = n) -> None:
        for leaf in leaves:
            leaf.grad = None
        loss(leaves[0][:size], leaves[1][:size]).backward()

    work(16)  # libraries initialise at the first call
    return work


def available_mib(device: str) -> float:
    if device == "cuda":
        return torch.cuda.mem_get_info()[0] / MIB
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable"))


def main() -> None:
    device = hardware.resolve_device("auto")
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = [128, 512, 2048, 4096, 8192, 32768, 131072]
    parser.add_argument("--sizes", type=int, nargs="+", default=sizes)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30, help="leave out what takes longer")
    flags = parser.parse_args()
    fits = names(device)
    ours = fits[0]
    times, memory = dict.fromkeys(fits, 0.0), dict.fromkeys(fits, 0.0)
    rows, before = [], 1
    for n in sorted(flags.sizes):
        growth = (n / before) ** 2  # an upper bound
        limit = 0.8 * available_mib(device)
        fits = [
            name
            for name in fits
            if n <= LARGEST.get(name, n)
            and growth * times[name] < flags.seconds
            and growth * memory[name] < limit
        ]
        if not fits:
            break
        for name in fits:
            _, memory[name] = time_and_memory(partial(prepare, name, n, device), rounds=1)
        times |= alternate({name: prepare(name, n, device) for name in fits}, flags.rounds)
        for name in fits:
            ratio = times[name] / times[ours]
            rows.append([f"{n:,}", name, 1e3 * times[name], ratio, memory[name]])
        before = n
    print("## NT-Xent\n")
    print(
        f"Forward and backward pass on the {device}, in float32, with d = {D}, τ = {TEMPERATURE} "
        "and n images (2n projections). MiB: peak memory beyond the projections, measured once. "
        f"Rows that would take more than {flags.seconds:.0f} s, or more memory than there is, are "
        "left out. pytorch-metric-learning is measured at n = 128 only, because its memory grows "
        "with n³.\n"
    )
    print(table(["n", "", "ms", f"/ {ours}", "MiB"], rows))


if __name__ == "__main__":
    main()
