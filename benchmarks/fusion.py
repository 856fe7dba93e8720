"""The Deep Fusion lab on one batch of a deep Transformer head: time and memory."""

import argparse
from collections.abc import Callable
from functools import partial

import torch

from headwise import rng
from headwise.fusion.attention import measure_attention
from headwise.fusion.batches import EncodedBatch
from headwise.fusion.controls import with_controls
from headwise.fusion.measuring import measure_batches
from headwise.heads import HeadConfig, build_head
from headwise.runtime import hardware
from measure import table, time_and_memory

P, CLASSES, PERMUTATIONS = 512, 10, 200
CONFIG = HeadConfig(name="transformer", depth=10, norm="post")


def prepare(images: int, *, whole: bool) -> Callable[[], None]:
    hardware.keep_freed_memory()
    device = hardware.resolve_device("auto")
    head = build_head(CONFIG, P).to(device).eval()
    draws = rng.generator(0)
    labels = torch.randint(CLASSES, (images,), generator=draws)
    centres = torch.randn(CLASSES, P, generator=draws)
    h = (centres[labels].repeat(2, 1) + torch.randn(2 * images, P, generator=draws)).to(device)

    def work(batch: EncodedBatch) -> None:
        if whole:
            heads = with_controls(head, CONFIG, [batch], seed=1)
            measure_batches(heads, [batch], permutations=PERMUTATIONS, seed=0)
        else:
            for _ in measure_attention(head, *batch, permutations=PERMUTATIONS, seed=0):
                pass

    few = torch.cat([h[:32], h[images : images + 32]])
    work(EncodedBatch(few, labels[:32]))  # libraries initialise at the first call
    return partial(work, EncodedBatch(h, labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--rounds", type=int, default=1)
    flags = parser.parse_args()
    rows = [
        [
            "whole analysis" if whole else "measures of attention",
            images,
            *time_and_memory(partial(prepare, images, whole=whole), flags.rounds),
        ]
        for images in flags.images
        for whole in (False, True)
    ]
    print("## Fusion\n")
    print(
        f"One batch on the {hardware.resolve_device('auto')}, with two views of every image: 10 "
        f"blocks of 16 attention heads, width 256, context joint, float32, {CLASSES} classes, "
        f"{PERMUTATIONS} permutations of the labels. The whole analysis also includes the controls "
        "(untrained, uniform, h), the geometry at every tap and the data of the pictures. MiB: "
        f"peak memory beyond the head and h. Rounds: {flags.rounds}.\n"
    )
    print(table(["", "images", "seconds", "MiB"], rows))


if __name__ == "__main__":
    main()
