"""A head of your own, from Python and from the command line. docs/own.md explains each line.

python examples/own_head.py --out runs/own-head

headwise pretrain --recipe demo --head examples/own_head.py:build --out runs/own-head-2
headwise evaluate runs/own-head-2 --head examples/own_head.py:build
"""

import argparse
import dataclasses

import torch
from torch import Tensor, nn

import headwise
from headwise.pretraining.recipes import recipe


class BatchMean(nn.Module):
    """Adds to each row a function of the mean of all rows, which contains both views of every
    image alike: so the head sees the batch, and cannot tell which rows are twins."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean = nn.Linear(width, width)

    def forward(self, rows: Tensor) -> Tensor:
        return rows + torch.tanh(self.mean(rows.mean(0, keepdim=True)))


def build(p: int, width: int = 128, output_size: int = 64) -> list[nn.Module]:
    """The layers from h, of size p, to z. There is a tap after each: g1, g2 and z."""
    hidden = nn.Sequential(nn.Linear(p, width), nn.BatchNorm1d(width), nn.ReLU())
    return [hidden, BatchMean(width), nn.Linear(width, output_size)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/own-head")
    parser.add_argument("--epochs", type=int, default=17)
    arguments = parser.parse_args()
    config = dataclasses.replace(recipe("demo"), epochs=arguments.epochs)
    run = headwise.pretrain(config, arguments.out, head=headwise.own(build, width=64))
    # In another process: headwise.open_run("runs/own-head", head=build) in place of `run`.
    settings = headwise.EvaluateConfig(protocols=("knn",), taps=("h", "g1", "g2", "z"))
    for name, result in headwise.evaluate(run, config=settings).items():
        print(f"{name:8} {result.value:.3f}")


if __name__ == "__main__":
    main()
