"""Whether a head fuses: a claim over training seeds.

One network describes itself. A claim about its head must hold for other seeds, and for other images
than those of the batches. Every run is measured on the same batches, so seeds and batches are
crossed random effects (evaluation/statistics/crossed.py), with a batch in place of an image. Blocks
are adjusted together by Holm's method. Attention heads are not judged: the third of one seed has
nothing to do with the third of another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from headwise.errors import UserError
from headwise.evaluation.statistics.crossed import (
    FEWEST_FOR_INTERVAL,
    FEWEST_SEEDS,
    CrossedTest,
    crossed_test,
    holm,
    p_value_at,
    verdict,
)
from headwise.fusion.verdict import (
    CONTROLS,
    LEAST_BATCHES,
    LEAST_EXCESS,
    LEAST_OTHER_MASS,
    control_gains,
    slopes,
)

Arrays = Mapping[str, np.ndarray]
Gains = Float[np.ndarray, "S B L"]


@dataclass(frozen=True, kw_only=True)
class OverSeeds:
    """A mean over seeds and batches."""

    by_seed: tuple[float, ...]
    """Means over batches."""
    test: CrossedTest
    """That it is 0; `images` counts batches."""
    p_value: float
    """Two-sided, that the mean is the least excess (a slope: 0); 1 if it is not above. Not adjusted
    for other blocks."""

    @property
    def mean(self) -> float:
        return self.test.difference

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 %, for other seeds and other images. None for fewer than three seeds."""
        return self.test.interval if self.test.seeds >= FEWEST_FOR_INTERVAL else None


@dataclass(frozen=True, kw_only=True)
class BlockOverSeeds:
    """A block's fusion gain, and its excess over each control."""

    tap: str
    gain: float
    uniform: OverSeeds
    """Excess over uniform attention: the gain minus 1."""
    untrained: OverSeeds
    """Excess over the untrained heads, the highest of each run."""
    h: OverSeeds
    """Excess over the similarity of h at equal entropy."""
    input: OverSeeds
    """Excess over the similarity of the block's own input rows at equal entropy."""
    other_mass: float
    """The share of the attention on other images."""
    p_value: float
    """The largest of `uniform`, `untrained` and `h`, adjusted for all blocks (Holm)."""
    fusion: str
    """The verdict: whether the gain exceeds uniform attention, the untrained heads and h."""
    choice_p_value: float
    """That of `input`, adjusted for all blocks (Holm)."""
    choice: str
    """The verdict: whether the attention chooses classmates, beyond what its input rows say."""


@dataclass(frozen=True, kw_only=True)
class HeadOverSeeds:
    """What all blocks show over seeds."""

    blocks: tuple[BlockOverSeeds, ...]
    slope: OverSeeds | None
    """The slope of the excess over h, per block. None for one block."""
    progressive: str
    """The verdict: whether that slope is positive. Empty for one block."""

    @property
    def shown(self) -> tuple[BlockOverSeeds, ...]:
        """The blocks that show fusion."""
        return tuple(block for block in self.blocks if is_shown(block.fusion))

    @property
    def strongest(self) -> BlockOverSeeds:
        """The block of highest excess over h, among those that show fusion if any does."""
        return max(self.shown or self.blocks, key=lambda block: block.h.mean)


def is_shown(words: str) -> bool:
    return words.startswith("shown")


def judge_seeds(by_seed: Sequence[Arrays]) -> HeadOverSeeds:
    """Return what runs that differ in their seed alone show together, from the arrays of fusion.npz
    of each, measured on the same batches."""
    gain, controls = _gains(by_seed)
    mass = np.stack([arrays["other_mass"] for arrays in by_seed]).mean((0, 1, 3))
    blocks = range(gain.shape[2])
    over = {
        name: [_over(gain[:, :, i] - values[:, :, i], LEAST_EXCESS) for i in blocks]
        for name, values in controls.items()
    }
    p_values = [max(over[name][i].p_value for name in CONTROLS) for i in blocks]
    p_values = holm([p if mass[i] >= LEAST_OTHER_MASS else 1.0 for i, p in enumerate(p_values)])
    choice = holm([one.p_value for one in over["input"]])
    slope = _over(slopes(gain - controls["h"]), 0.0) if len(blocks) > 1 else None
    return HeadOverSeeds(
        blocks=tuple(
            BlockOverSeeds(
                tap=str(tap),
                gain=float(gain[:, :, i].mean()),
                uniform=over["uniform"][i],
                untrained=over["untrained"][i],
                h=over["h"][i],
                input=over["input"][i],
                other_mass=float(mass[i]),
                p_value=p_values[i],
                fusion=_words(over["h"][i], p_values[i], LEAST_EXCESS),
                choice_p_value=choice[i],
                choice=_words(over["input"][i], choice[i], LEAST_EXCESS),
            )
            for i, tap in enumerate(by_seed[0]["block_taps"])
        ),
        slope=slope,
        # Without a margin, no slope is equivalent to 0.
        progressive="" if slope is None else _words(slope, slope.p_value, 0.0),
    )


def _gains(by_seed: Sequence[Arrays]) -> tuple[Gains, dict[str, Gains]]:
    """The gain by seed, batch and block, and that of each control, in batches that all have one."""
    gain, untrained, h, of_input = (
        np.stack([arrays[name] for arrays in by_seed]).astype(np.float64)
        for name in ("layer_gain", "layer_gain_untrained", "layer_gain_h", "layer_gain_input")
    )
    known = np.isfinite(gain).all((0, 2))
    if known.sum() < 2:
        raise UserError(
            "fusion over seeds needs two batches in which images have classmates in view; got "
            f"{known.sum()}; raise --batch-size"
        )
    controls = {**control_gains(gain, untrained, h), "input": of_input}
    return gain[:, known], {name: values[:, known] for name, values in controls.items()}


def _over(values: Float[np.ndarray, "S B"], least: float) -> OverSeeds:
    test = crossed_test(torch.from_numpy(values))
    return OverSeeds(
        by_seed=tuple(values.mean(1).tolist()),
        test=test,
        p_value=p_value_at(test, least) if test.difference > least else 1.0,
    )


def _words(over: OverSeeds, p_value: float, margin: float) -> str:
    """The verdict, where the adjusted p-value that the mean is above the least is known."""
    test = over.test
    if test.seeds >= FEWEST_SEEDS and test.images < LEAST_BATCHES:
        return f"{test.images} of {LEAST_BATCHES} batches: no verdict"
    return verdict(test, p_value, margin=margin, within=f"{margin:g}")
