"""How often a claim about fusion over seeds is wrong, on planted attention: docs/fusion.md."""

import argparse
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from measure import machine, put_between, table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "planted"))

from planted_fusion_seeds import (  # noqa: E402
    FORMS,
    UNEVEN,
    Run,
    excess,
    mixed_sharpness,
    moved,
    planted_seeds,
    some,
)

from headwise.evaluation.statistics.crossed import holm  # noqa: E402
from headwise.fusion.over_seeds import judge_seeds  # noqa: E402
from headwise.fusion.verdict import LEAST_EXCESS  # noqa: E402

MARKS = "<!-- fusion error rates -->", "<!-- /fusion error rates -->"
SEEDS = (3, 5, 10)
SPREAD = 0.1
EQUAL: dict[str, dict[str, Any]] = {
    **{form.__name__.replace("_", " "): {"form": form} for form in FORMS},
    "mixed sharpness, classes of 12 and 4": {"form": mixed_sharpness, "labels": UNEVEN},
}
RAISED = ((0.05,) * 3, (0.1,) * 3, (0.2,) * 3, (0.0, 0.1, 0.2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "fusion.md")
    parser.add_argument("--repeats", type=int, default=100, help="draws of ten seeds in a row")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    wrong, right = [], []
    for name, how in EQUAL.items():
        drawn = draws(flags.repeats, boosts=(0.0,) * 3, **how)
        wrong += [[name, *calibration(drawn, seeds)] for seeds in SEEDS]
    for boosts in RAISED:
        drawn = draws(flags.repeats, form=mixed_sharpness, boosts=boosts)
        name = ", ".join(f"{boost:g}" for boost in boosts)
        right += [[name, *power(drawn, seeds)] for seeds in SEEDS]
    minutes = (time.monotonic() - started) / 60
    how = (
        f"`benchmarks/fusion_error_rates.py` on {date.today()}, {flags.repeats} draws of ten seeds "
        f"in a row, {minutes:.0f} minutes: {machine()}"
    )
    columns = ["attention", "excess", "seeds", "shown", "at the edge", "seeds alone", "coverage"]
    tables = [
        table([*columns, "progressive"], wrong),
        table(["raised by", "excess", "seeds", "blocks shown", "progressive"], right),
    ]
    put_between(flags.out, *MARKS, "\n\n".join([*tables, how]))


def draws(repeats: int, **how: Any) -> list[list[Run]]:
    return [planted_seeds(i, seeds=max(SEEDS), spread=SPREAD, **how) for i in range(repeats)]


def calibration(drawn: list[list[Run]], seeds: int) -> list[str]:
    """A line of the first table, after the name."""
    truth = np.mean([excess(runs).mean((0, 1)) for runs in drawn], axis=0)
    claims = [judge_seeds(group) for runs in drawn for group in some(runs, seeds)]
    edge = [g for runs in drawn for g in some(moved(runs, LEAST_EXCESS - truth), seeds)]
    at_edge = [judge_seeds(group) for group in edge]
    covered = [
        low <= true <= high
        for claim in claims
        for block, true in zip(claim.blocks, truth, strict=True)
        if block.h.interval
        for low, high in [block.h.interval]
    ]
    return [
        f"{truth.mean():+.3f}",
        str(seeds),
        share([any(b.p_value < 0.05 for b in claim.blocks) for claim in claims]),
        share([any(b.p_value < 0.05 for b in claim.blocks) for claim in at_edge]),
        share([seeds_alone(group) for group in edge]),
        share(covered),
        share([claim.slope is not None and claim.slope.p_value < 0.05 for claim in at_edge]),
    ]


def seeds_alone(runs: list[Run]) -> bool:
    """Whether the t-test of the seeds' means shows a block; it forgets that images are a draw."""
    by_seed = excess(runs).mean(1) - LEAST_EXCESS
    p_values = stats.ttest_1samp(by_seed, 0).pvalue
    above = np.where(by_seed.mean(0) > 0, p_values, 1.0)
    return min(holm(above.tolist())) < 0.05


def power(drawn: list[list[Run]], seeds: int) -> list[str]:
    """A line of the second table, after the name."""
    truth = np.mean([excess(runs).mean((0, 1)) for runs in drawn], axis=0)
    claims = [judge_seeds(group) for runs in drawn for group in some(runs, seeds)]
    blocks = [share([c.blocks[i].p_value < 0.05 for c in claims]) for i in range(len(truth))]
    return [
        ", ".join(f"{value:+.3f}" for value in truth),
        str(seeds),
        ", ".join(blocks),
        share([claim.slope is not None and claim.slope.p_value < 0.05 for claim in claims]),
    ]


def share(found: list[bool]) -> str:
    return f"{100 * np.mean(found):.1f} %"


if __name__ == "__main__":
    main()
