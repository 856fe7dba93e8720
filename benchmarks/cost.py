"""The cost model of docs/performance.md against measurements: one size sets the rate, and the other
sizes are predicted from it."""

import argparse
import dataclasses
from collections.abc import Callable
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from contenders import images_of, limit
from headwise.augment import AugmentConfig
from headwise.losses import nt_xent
from headwise.model.build import build_model
from headwise.model.config import PretrainConfig, resolve
from measure import table, time_and_memory
from step import case_of

# Image side in pixels and batch size; the first pair sets the rate.
ENCODER = ((32, 256), (32, 64), (32, 512), (48, 128), (64, 64))
IMAGES, D = (2048, 512, 4096, 8192), 128


def encoder_rows() -> list[list[object]]:
    """Images a second of the encoder's step: 3 × the operations of the forward pass, two views."""
    rows: list[list[object]] = []
    rate = 0.0
    for px, batch in ENCODER:
        case = case_of("resnet-small", "cpu")
        config: PretrainConfig = dataclasses.replace(
            case.config, augment=AugmentConfig(size=px), batch_size=batch
        )
        case = dataclasses.replace(case, config=config, image_px=px, steps=6)
        model = build_model(resolve(config, images_of(case)))
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            model.encoder.eval()(torch.zeros(1, 3, px, px))
        operations = 2 * 3 * counted.get_total_flops()
        measured = limit(case)()
        rate = rate or measured * operations
        predicted = rate / operations
        name = f"encoder, {px} px, batch {batch}, images/s"
        rows.append([name, predicted, measured, measured / predicted])
    return rows


def loss(n: int) -> Callable[[], None]:
    leaves = [torch.randn(n, D, requires_grad=True) for _ in range(2)]
    nt_xent(leaves[0][:8], leaves[1][:8], method="tiled").backward()
    return lambda: nt_xent(leaves[0], leaves[1], 0.5, "tiled").backward()


def loss_rows() -> list[list[object]]:
    """Three matrix products of 2·(2n)²·d operations; memory of one tile and four tables [2n d]."""
    rows: list[list[object]] = []
    rate = 0.0
    for n in IMAGES:
        operations = 3 * 2 * (2 * n) ** 2 * D
        mib = (512 * 2 * n + 4 * 2 * n * D) * 4 / 2**20
        taken, extra = time_and_memory(partial(loss, n), 3)
        rate = rate or operations / taken
        predicted = operations / rate
        rows.append([f"NT-Xent, n = {n:,}, ms", 1e3 * predicted, 1e3 * taken, taken / predicted])
        rows.append([f"NT-Xent, n = {n:,}, MiB", mib, extra, extra / mib])
    return rows


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = loss_rows() + encoder_rows()
    print("## The cost model\n")
    print(
        "Predictions of the cost model in [performance.md](performance.md#what-training-costs), "
        "and measurements. The first size of each kind sets the rate of the predictions. The rows "
        "of NT-Xent measure the tiled loss of the section *NT-Xent* once more, in processes of "
        "their own and without turns.\n"
    )
    print(table(["", "predicted", "measured", "measured / predicted"], rows))


if __name__ == "__main__":
    main()
