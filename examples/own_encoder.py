"""An encoder of your own, from Python and from the command line. docs/own.md explains each line.

python examples/own_encoder.py --out runs/own-encoder

headwise pretrain --recipe demo --encoder examples/own_encoder.py:build --out runs/2
headwise evaluate runs/2 --encoder examples/own_encoder.py:build
"""

import argparse
import dataclasses
from pathlib import Path

import torch
from torch import nn

import headwise
from headwise.pretraining.recipes import recipe


def build(width: int = 16, depth: int = 3) -> nn.Module:
    """A small convolutional network, from images `[n 3 s s]` of any size to h `[n p]`."""
    layers: list[nn.Module] = []
    channels = 3
    for _ in range(depth):
        layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        channels, width = width, 2 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/own-encoder")
    parser.add_argument("--epochs", type=int, default=17)
    arguments = parser.parse_args()
    config = dataclasses.replace(recipe("demo"), epochs=arguments.epochs)
    headwise.pretrain(config, arguments.out, encoder=headwise.own(build, width=32))
    # The run is only a path from here on, as in a process of its own.
    run = headwise.open_run(Path(arguments.out), encoder=build)
    settings = headwise.EvaluateConfig(protocols=("knn",), taps=("h", "z"))
    for name, result in headwise.evaluate(run, config=settings).items():
        print(f"{name:8} {result.value:.3f}")
    encoder = headwise.load_encoder(run)
    print("p =", encoder(torch.zeros(1, 3, 20, 20)).shape[1])


if __name__ == "__main__":
    main()
