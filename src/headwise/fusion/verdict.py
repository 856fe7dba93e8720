"""Whether one network fuses: every block's gain is compared with all of its controls.

Intervals are over batches: attention couples the rows of a batch, so rows are not independent. They
hold for other images and this network alone; a claim about its head is in over_seeds.py.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

CONTROLS = {
    "uniform": "uniform attention",
    "untrained": "the untrained heads",
    "h": "the similarity of h at equal entropy",
}
"""The controls that a gain must exceed, with their names in sentences."""

ALPHA = 0.05
"""The error rate of all blocks together."""

LEAST_OTHER_MASS = 0.01
"""With a smaller share of the attention on other images, there is no noteworthy exchange."""

LEAST_EXCESS = 0.02
"""By at least so much must a gain exceed that of each control. With many batches, an interval alone
would show differences that mean nothing."""

LEAST_BATCHES = 6
"""Fewer batches have no verdict: their interval rests on a spread that is hardly known."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over batches with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def exceeds(self) -> bool:
        """Whether it is above the least excess with its whole interval."""
        return self.low > LEAST_EXCESS


def estimate(values: Float[np.ndarray, " B"], comparisons: int = 1) -> Estimate:
    """Return the mean and its t-interval over batches, simultaneous for `comparisons` intervals
    (Bonferroni). Only finite values count; the ends are NaN if fewer than two remain."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return Estimate(mean=np.nan, low=np.nan, high=np.nan)
    mean = float(finite.mean())
    if len(finite) < 2:
        return Estimate(mean=mean, low=np.nan, high=np.nan)
    quantile = stats.t.ppf(1 - ALPHA / 2 / comparisons, len(finite) - 1)
    margin = float(quantile * finite.std(ddof=1) / len(finite) ** 0.5)
    return Estimate(mean=mean, low=mean - margin, high=mean + margin)


@dataclass(frozen=True, kw_only=True)
class BlockVerdict:
    """A block's fusion gain (mean over attention heads), and the values that it must exceed."""

    tap: str
    gain: Estimate
    controls: dict[str, float]
    """The gain of each control in `CONTROLS`, mean over batches."""
    differences: dict[str, Estimate]
    """Gain minus the control's gain, paired by batch. The intervals hold for all blocks at once."""
    input_gain: float
    """The gain of attention by the similarity of the block's own input rows, at equal entropy. Not
    a condition: it says whether attention chooses, or passes on what the rows say."""
    input_difference: Estimate
    """Gain minus `input_gain`, as in `differences`."""
    batches: int
    """The number of batches with a gain."""
    outdated: bool
    """Whether an older version measured it, whose controls were others."""
    p_value: float
    """The p-value of the gain against permuted labels."""
    level: float
    """The largest allowed `p_value`: `ALPHA` over the number of blocks."""
    other_mass: float
    """The share of the attention on other images."""

    @property
    def obstacle(self) -> str:
        """The first reason why the block does not fuse, with its numbers; else empty."""
        if self.outdated:
            return "an older version measured other controls; run headwise fusion again"
        if self.batches < LEAST_BATCHES:
            return f"{self.batches} batches are too few for a verdict, which needs {LEAST_BATCHES}"
        if not self.other_mass >= LEAST_OTHER_MASS:
            return (
                f"only {100 * self.other_mass:.2g} % of the attention goes to other images, "
                f"less than {100 * LEAST_OTHER_MASS:.0f} %"
            )
        for name, difference in self.differences.items():
            if not difference.exceeds:
                return (
                    f"{self.gain.mean:.3f} is not shown to exceed {CONTROLS[name]} by "
                    f"{LEAST_EXCESS} ({self.controls[name]:.3f}; "
                    f"difference {difference.mean:+z.3f}, "
                    f"{difference.low:+z.3f} to {difference.high:+z.3f})"
                )
        if not self.p_value <= self.level:
            return (
                f"permuted labels reach the gain with p = {self.p_value:.2g}, "
                f"above {self.level:.2g}"
            )
        return ""

    @property
    def fuses(self) -> bool:
        """Whether this network's block exceeds every control."""
        return not self.obstacle


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdicts on all blocks in order. Empty for a head without attention."""

    blocks: tuple[BlockVerdict, ...]
    slope: Estimate | None
    """The slope of the excess (the gain minus that of h at equal entropy) over the block's number.
    None for fewer than two blocks."""

    @property
    def fuses(self) -> bool:
        return any(block.fuses for block in self.blocks)

    @property
    def strongest(self) -> BlockVerdict:
        """The block of highest gain, among those that fuse if any does."""
        return max(self.blocks, key=lambda block: (block.fuses, block.gain.mean))


def judge(arrays: dict[str, np.ndarray]) -> Verdict:
    """Return the verdict on the arrays of fusion.npz."""
    taps = arrays["block_taps"].tolist()
    if not taps:
        return Verdict(blocks=(), slope=None)
    gain = arrays["layer_gain"].astype(np.float64)
    controls = control_gains(gain, arrays["layer_gain_untrained"], arrays["layer_gain_h"])
    of_input = arrays.get("layer_gain_input", np.full_like(gain, np.nan))
    blocks = tuple(
        BlockVerdict(
            tap=tap,
            gain=estimate(gain[:, block]),
            controls={name: float(values[:, block].mean()) for name, values in controls.items()},
            differences={
                name: estimate(gain[:, block] - values[:, block], len(taps))
                for name, values in controls.items()
            },
            input_gain=float(of_input[:, block].mean()),
            input_difference=estimate(gain[:, block] - of_input[:, block], len(taps)),
            batches=int(np.isfinite(gain[:, block]).sum()),
            outdated="layer_gain_input" not in arrays,
            p_value=float(arrays["p_layer_gain"][block]),
            level=ALPHA / len(taps),
            other_mass=float(arrays["other_mass"][:, block].mean()),
        )
        for block, tap in enumerate(taps)
    )
    return Verdict(blocks=blocks, slope=depth_slope(gain - controls["h"]))


def control_gains(
    gain: Float[np.ndarray, "*batches L"],
    untrained: Float[np.ndarray, "*batches L"],
    h: Float[np.ndarray, "*batches L"],
) -> dict[str, Float[np.ndarray, "*batches L"]]:
    """Return the gain of each control in `CONTROLS`. That of uniform attention is 1."""
    return dict(zip(CONTROLS, (np.ones_like(gain), untrained, h), strict=True))


def depth_slope(excess: Float[np.ndarray, "*batches L"]) -> Estimate | None:
    """Return the mean over batches of `slopes`."""
    return None if excess.shape[1] < 2 else estimate(slopes(excess))


def slopes(excess: Float[np.ndarray, "*batches L"]) -> Float[np.ndarray, "*batches"]:
    """Return the least-squares slope of a batch's excess over the block's number."""
    number = np.arange(excess.shape[-1]) - (excess.shape[-1] - 1) / 2
    return excess @ number / (number @ number)


@dataclass(frozen=True, kw_only=True)
class Emergence:
    """The epochs at which attention and representation began to separate classes, or None."""

    fusion: float | None
    """The first kept checkpoint whose gain exceeds all controls except permuted labels."""
    separable: float | None
    """The first kept checkpoint at which 1-NN of `h` has made half of its total rise."""

    @property
    def order(self) -> str:
        """A sentence part that says when fusion emerged."""
        match self.fusion, self.separable:
            case None, None:
                return "neither fusion nor a separable h emerged"
            case None, _:
                return "fusion did not emerge, though h became separable"
            case _, None:
                return "fusion emerged, though h did not become separable"
            case fused, separable if fused < separable:
                return "fusion emerged before h became separable"
            case fused, separable if fused > separable:
                return "fusion emerged after h became separable"
        return "fusion emerged at the same checkpoint as a separable h"


def emergence(arrays: dict[str, np.ndarray]) -> Emergence | None:
    """Return None if the run was not measured over training or has no attention."""
    if "training_gain" not in arrays:
        return None
    epochs = arrays["training_epochs"]
    gains, h_gains = arrays["training_gain"], arrays["training_gain_h"]
    fused = [
        epoch
        for epoch, gain, h in zip(epochs, gains, h_gains, strict=True)
        if _exceeds(gain, arrays["training_gain_untrained"], h)
    ]
    nn1 = arrays["training_nn1_h"].astype(np.float64)
    risen = nn1.mean(1) >= (nn1[0].mean() + nn1[-1].mean()) / 2
    separable = epochs[risen] if estimate(nn1[-1] - nn1[0]).low > 0 else []
    return Emergence(
        fusion=float(fused[0]) if fused else None,
        separable=float(separable[0]) if len(separable) else None,
    )


def _exceeds(gain: np.ndarray, untrained: np.ndarray, h: np.ndarray) -> bool:
    """Return whether the gain of some block exceeds that of every control."""
    gain = gain.astype(np.float64)
    controls = control_gains(gain, untrained, h).values()
    return any(
        all(estimate(gain[:, b] - values[:, b], gain.shape[1]).exceeds for values in controls)
        for b in range(gain.shape[1])
    )
