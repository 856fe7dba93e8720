"""What each part of the fast path gives: a step of the small ResNet with one part switched off."""

import argparse
import dataclasses
import multiprocessing
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack

from contenders import Case, measured
from headwise.model.config import PretrainConfig
from measure import in_turn, table
from step import case_of


def variants(config: PretrainConfig) -> dict[str, PretrainConfig]:
    """The config as it is, and with one part off."""
    return {
        "all on": config,
        "float32": dataclasses.replace(config, precision="float32"),
        "convolutions of the library": dataclasses.replace(config, unfolded_convolutions=False),
        "augmentation in torch": dataclasses.replace(
            config, augment=dataclasses.replace(config.augment, in_c=False)
        ),
        "freed memory given back": dataclasses.replace(config, keep_freed_memory=False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    case = case_of("resnet-small", "cpu")
    with ExitStack() as stack:
        spawn = multiprocessing.get_context("spawn")
        functions: dict[str, Callable[[], float]] = {}
        for name, config in variants(case.config).items():
            # One process each, because memory settings cannot be changed back.
            pool = stack.enter_context(ProcessPoolExecutor(1, spawn))
            changed: Case = dataclasses.replace(case, config=config)
            functions[name] = lambda pool=pool, case=changed: pool.submit(
                measured, "ours", case
            ).result()
        rates = in_turn(functions, flags.rounds)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    rows = [[name, rate, medians["all on"] / rate] for name, rate in medians.items()]
    print("## What each part gives\n")
    print(
        "Images a second in the pretraining step of the small ResNet. Each row below the first has "
        "one part switched off; the last column is the speed with all parts over that of the row. "
        "The first row measures the same step as the small ResNet in *A pretraining step*.\n"
    )
    print(table(["", "images a second", "all on / this"], rows))


if __name__ == "__main__":
    main()
