"""A loss of your own, from Python and from the command line. docs/own.md explains each line.

python examples/own_loss.py --out runs/own-loss

headwise pretrain --recipe demo --objective examples/own_loss.py:align_uniform --out runs/2
headwise evaluate runs/2
"""

import argparse
import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

import headwise
from headwise.pretraining.recipes import recipe


def align_uniform(z0: Tensor, z1: Tensor, t: float = 2.0, weight: float = 1.0) -> Tensor:
    """Return the loss of Wang and Isola (arXiv 2005.10242) for the z of both views, `[n d]` each,
    of the images of all ranks: row i of z0 and row i of z1 are twins."""
    z0, z1 = F.normalize(z0.float(), dim=1), F.normalize(z1.float(), dim=1)
    alignment = (z0 - z1).square().sum(1).mean()
    uniformity = [(-t * torch.pdist(z).square()).exp().mean().log() for z in (z0, z1)]
    return alignment + weight * torch.stack(uniformity).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/own-loss")
    parser.add_argument("--epochs", type=int, default=17)
    arguments = parser.parse_args()
    config = dataclasses.replace(recipe("demo"), epochs=arguments.epochs)
    loss = headwise.own(align_uniform, t=3.0)
    run = headwise.pretrain(config, arguments.out, loss=loss)
    # The loss is not needed to evaluate a run, only to resume it.
    settings = headwise.EvaluateConfig(protocols=("knn",), taps=("h", "z"))
    for name, result in headwise.evaluate(run, config=settings).items():
        print(f"{name:8} {result.value:.3f}")


if __name__ == "__main__":
    main()
