"""A whole pretraining step, from images in memory to new weights: ours, lightly's, and the limit.

Each contender runs in its own process, with its own memory settings. It is idle while another
contender is timed.
"""

import argparse
import multiprocessing
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack

from contenders import CONTENDERS, Case, measured
from headwise.augment import AugmentConfig
from headwise.encoders.build import EncoderConfig
from headwise.model.config import PretrainConfig
from headwise.runtime import hardware
from measure import in_turn, table

ENCODERS = {
    "resnet-small": EncoderConfig(name="resnet-small", stem="small-strided"),
    "resnet18": EncoderConfig(name="resnet18", stem="small"),
    "resnet50": EncoderConfig(name="resnet50", stem="standard"),
}
# For each encoder: the sides of views and images in pixels; then, for a CPU and for a GPU, the
# batch size, the timed steps, and the timed steps of lightly.
SIZES = {
    "resnet-small": (32, 32, (256, 30, 8), (256, 150, 30)),
    "resnet18": (32, 32, (128, 8, 3), (512, 95, 20)),
    "resnet50": (224, 256, (16, 3, 3), (256, 20, 8)),
}


def case_of(name: str, device: str) -> Case:
    size, image_px, cpu, gpu = SIZES[name]
    batch, steps, lightly_steps = gpu if device == "cuda" else cpu
    config = PretrainConfig(
        encoder=ENCODERS[name], augment=AugmentConfig(size=size), batch_size=batch
    )
    return Case(config, image_px, steps, lightly_steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    rows = []
    with ExitStack() as stack:
        spawn = multiprocessing.get_context("spawn")
        pools = {n: stack.enter_context(ProcessPoolExecutor(1, spawn)) for n in CONTENDERS}
        for encoder in flags.encoders:
            case = case_of(encoder, hardware.resolve_device("auto"))
            functions: dict[str, Callable[[], float]] = {
                name: lambda name=name, case=case: pools[name].submit(measured, name, case).result()
                for name in CONTENDERS
            }
            rates = in_turn(functions, flags.rounds)
            medians = [statistics.median(values) for values in rates.values()]
            ratios = [medians[0] / other for other in medians[1:]]
            rows.append([encoder, case.config.batch_size, *medians, *ratios])
    print("## A pretraining step\n")
    print(
        "Images a second; each image gives two views. Ours: `pretrain`, from images in memory to "
        "new weights. lightly: its SimCLR example (float32), with the same encoder, optimizer and "
        "policy, and one worker process per core. lightly, bfloat16: the same under bfloat16 "
        "autocast. Limit: the forward pass, backward pass and optimizer step of the encoder alone, "
        "on views that are in memory already.\n"
    )
    ratio_names = [f"ours / {name}" for name in list(CONTENDERS)[1:]]
    print(table(["encoder", "batch", *CONTENDERS, *ratio_names], rows))


if __name__ == "__main__":
    main()
