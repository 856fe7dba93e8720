"""The head of BatchFormer (Hou et al., CVPR 2022, arXiv 2203.01522, zhihou7/BatchFormer) with
NT-Xent, as a head and a loss of one's own: docs/own.md has the command that uses both, and
docs/decisions/0016-batchformer.md the reasons.

    python examples/own_batchformer.py --out runs/own-batchformer
"""

import argparse
import dataclasses

import torch
from torch import Tensor, nn

import headwise
from headwise.pretraining.recipes import recipe


class BatchFormer(nn.Module):
    """In training, beside each row, the row after an encoder layer over the batch: `[m 2w]`."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(width, num_heads, width, dropout)

    def forward(self, rows: Tensor) -> Tensor:
        if not self.training:
            return rows
        return torch.cat([rows, self.layer(rows[:, None])[:, 0]], 1)


class Shared(nn.Module):
    """A layer that plain and attended rows share, as one batch."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, rows: Tensor) -> Tensor:
        if not self.training:
            return self.layers(rows)
        return torch.cat(self.layers(torch.cat(rows.chunk(2, 1))).chunk(2), 1)


def build(p: int, num_heads: int = 4, dropout: float = 0.5, output_size: int = 128) -> list:
    hidden = Shared(nn.Linear(p, p, bias=False), nn.BatchNorm1d(p), nn.ReLU())
    last = Shared(nn.Linear(p, output_size, bias=False), nn.BatchNorm1d(output_size))
    return [BatchFormer(p, num_heads, dropout), hidden, last]


def loss(z0: Tensor, z1: Tensor, temperature: float = 0.2) -> Tensor:
    """Return the mean of NT-Xent among plain rows and NT-Xent among attended rows."""
    sets = zip(z0.chunk(2, 1), z1.chunk(2, 1), strict=True)
    return torch.stack([headwise.nt_xent(*views, temperature) for views in sets]).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/own-batchformer")
    parser.add_argument("--epochs", type=int, default=17)
    arguments = parser.parse_args()
    config = dataclasses.replace(recipe("demo"), epochs=arguments.epochs)
    run = headwise.pretrain(config, arguments.out, head=build, loss=loss)
    settings = headwise.EvaluateConfig(protocols=("knn",), taps=("h", "z"))
    for name, result in headwise.evaluate(run, config=settings).items():
        print(f"{name:8} {result.value:.3f}")


if __name__ == "__main__":
    main()
