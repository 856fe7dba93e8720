"""How often the test of heads over seeds is wrong, on planted answers: docs/statistics.md."""

import argparse
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from measure import machine, put_between

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "planted"))

from planted_seeds import differences  # noqa: E402

from headwise.evaluation.statistics.crossed import crossed_test  # noqa: E402

BEGIN, END = "<!-- error rates -->", "<!-- /error rates -->"
GAINS = (0.03, 0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "statistics.md")
    parser.add_argument("--repeats", type=int, default=1000, help="planted comparisons in a cell")
    flags = parser.parse_args()
    started = time.monotonic()
    head = (
        "| test images | seeds | σ over seeds | wrong, crossed test | wrong, seeds alone | "
        "wrong, images of one seed | coverage | power at 3 points | power at 5 points |\n"
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    rows = [
        cells(images, seeds, spread, flags.repeats)
        for images in (300, 1000)
        for seeds in (3, 5, 10)
        for spread in (0.002, 0.01, 0.02, 0.03)
    ]
    minutes = (time.monotonic() - started) / 60
    how = (
        f"`benchmarks/error_rates.py` on {date.today()}, {flags.repeats:,} planted comparisons in "
        f"a cell, {minutes:.0f} minutes, seed 0: {machine()}"
    )
    put_between(flags.out, BEGIN, END, "\n".join([head, *rows, "", how]))


def cells(images: int, seeds: int, spread: float, repeats: int) -> str:
    """A line of the table. Every cell draws its own answers, from seed 0."""
    draw = np.random.default_rng(0)

    def drawn(gain: float) -> list[Float[Tensor, "s n"]]:
        some = {"seeds": seeds, "images": images, "spread": spread, "gain": gain}
        return [differences(draw, **some) for _ in range(repeats)]  # type: ignore[arg-type]

    equal = drawn(0)
    tests = [crossed_test(d) for d in equal]
    higher = {gain: [crossed_test(d) for d in drawn(gain)] for gain in GAINS}
    covered = [low <= 0.03 <= high for low, high in (test.interval for test in higher[0.03])]
    shares = [
        share([test.p_value < 0.05 for test in tests]),
        share([stats.ttest_1samp(d.mean(1).numpy(), 0).pvalue < 0.05 for d in equal]),
        share([stats.ttest_1samp(d[0].numpy(), 0).pvalue < 0.05 for d in equal]),
        share(covered),
        *(share([test.p_value < 0.05 for test in higher[gain]]) for gain in GAINS),
    ]
    return f"| {images:,} | {seeds} | {100 * spread:g} | {' | '.join(shares)} |"


def share(found: list[bool]) -> str:
    return f"{100 * np.mean(found):.1f} %"


if __name__ == "__main__":
    main()
