"""Whether fusion is shown: every block's gain against all of its controls.

The unit of confidence is the batch: attention couples the rows of one, so rows are no repetitions.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

CONTROLS = {
    "uniform": "uniform attention",
    "untrained": "the untrained head",
    "h": "the similarity of h at equal entropy",
}
"""What a gain must exceed, and in words."""

ALPHA = 0.05
"""Of all blocks together."""

LEAST_OTHER_MASS = 0.01
"""Below this share of the attention there is no exchange between images to speak of."""

# Differences of this size are rounding: a head whose attention is uniform has a gain of 1 ± 1e-7.
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over batches with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        return self.low > _ROUNDING


def estimate(values: Float[np.ndarray, " B"], comparisons: int = 1) -> Estimate:
    """The t-interval over batches, simultaneous for so many comparisons (Bonferroni). NaN ends
    where fewer than two batches are known."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return Estimate(mean=np.nan, low=np.nan, high=np.nan)
    mean = float(known.mean())
    if len(known) < 2:
        return Estimate(mean=mean, low=np.nan, high=np.nan)
    reach = stats.t.ppf(1 - ALPHA / 2 / comparisons, len(known) - 1)
    margin = float(reach * known.std(ddof=1) / len(known) ** 0.5)
    return Estimate(mean=mean, low=mean - margin, high=mean + margin)


@dataclass(frozen=True, kw_only=True)
class BlockVerdict:
    """One block: its fusion gain (mean over attention heads), and what it must exceed."""

    tap: str
    gain: Estimate
    controls: dict[str, float]
    """The controls' gains, mean over batches, by their names in `CONTROLS`."""
    differences: dict[str, Estimate]
    """Gain less that of the control, paired by batch; simultaneous over all blocks."""
    p_value: float
    """Against permuted labels."""
    level: float
    """What `p_value` must not exceed: `ALPHA` over the number of blocks."""
    other_mass: float
    """Share of the attention that goes to other images."""

    @property
    def obstacle(self) -> str:
        """The first reason why fusion is not shown here, with its numbers; empty where it is."""
        if not self.other_mass >= LEAST_OTHER_MASS:
            return (
                f"only {100 * self.other_mass:.2g} % of the attention goes to other images, "
                f"less than {100 * LEAST_OTHER_MASS:.0f} %"
            )
        for name, difference in self.differences.items():
            if not difference.above_zero:
                return (
                    f"{self.gain.mean:.3f} is not shown to exceed {CONTROLS[name]} "
                    f"({self.controls[name]:.3f}; difference {difference.mean:+.3f}, "
                    f"{difference.low:+.3f} to {difference.high:+.3f})"
                )
        if not self.p_value <= self.level:
            return (
                f"permuted labels reach the gain with p = {self.p_value:.2g}, "
                f"above {self.level:.2g}"
            )
        return ""

    @property
    def shown(self) -> bool:
        return not self.obstacle


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """All blocks in order; none for a head that does not attend."""

    blocks: tuple[BlockVerdict, ...]
    slope: Estimate | None
    """Of the gain on the block's number; None for fewer than two blocks."""

    @property
    def shown(self) -> bool:
        return any(block.shown for block in self.blocks)

    @property
    def strongest(self) -> BlockVerdict:
        """The block of highest gain; where fusion is shown, of those that show it."""
        return max(self.blocks, key=lambda block: (block.shown, block.gain.mean))


def judge(arrays: dict[str, np.ndarray]) -> Verdict:
    """The verdict on the arrays of fusion.npz."""
    taps = arrays["block_taps"].tolist()
    if not taps:
        return Verdict(blocks=(), slope=None)
    gain = arrays["layer_gain"].astype(np.float64)
    controls = control_gains(gain, arrays["layer_gain_untrained"], arrays["layer_gain_h"])
    blocks = tuple(
        BlockVerdict(
            tap=tap,
            gain=estimate(gain[:, block]),
            controls={name: float(one[:, block].mean()) for name, one in controls.items()},
            differences={
                name: estimate(gain[:, block] - one[:, block], len(taps))
                for name, one in controls.items()
            },
            p_value=float(arrays["p_layer_gain"][block]),
            level=ALPHA / len(taps),
            other_mass=float(arrays["other_mass"][:, block].mean()),
        )
        for block, tap in enumerate(taps)
    )
    return Verdict(blocks=blocks, slope=depth_slope(gain))


def control_gains(
    gain: Float[np.ndarray, "B L"],
    untrained: Float[np.ndarray, "B L"],
    h: Float[np.ndarray, "B L"],
) -> dict[str, Float[np.ndarray, "B L"]]:
    """By the names in `CONTROLS`. Uniform attention has no preference, so its gain is 1."""
    return dict(zip(CONTROLS, (np.ones_like(gain), untrained, h), strict=True))


def depth_slope(gain: Float[np.ndarray, "B L"]) -> Estimate | None:
    """The least-squares slope of each batch's gain on the number of the block."""
    if gain.shape[1] < 2:
        return None
    number = np.arange(gain.shape[1]) - (gain.shape[1] - 1) / 2
    return estimate(gain @ number / (number @ number))


@dataclass(frozen=True, kw_only=True)
class Emergence:
    """When attention and representation came to tell classes apart, in epochs; None: never."""

    fusion: float | None
    """The first kept checkpoint whose gain exceeds its controls, but for permuted labels."""
    separable: float | None
    """The first kept checkpoint at which 1-NN of `h` had half of its rise behind it."""

    @property
    def order(self) -> str:
        """In words: when fusion emerged."""
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
    """None where the run was not measured over training, or has no attention."""
    if "training_gain" not in arrays:
        return None
    epochs = arrays["training_epochs"]
    gains, of_h = arrays["training_gain"], arrays["training_gain_h"]
    fused = [
        epoch
        for epoch, gain, h in zip(epochs, gains, of_h, strict=True)
        if _exceeds(gain, arrays["training_gain_untrained"], h)
    ]
    nn1 = arrays["training_nn1_h"].astype(np.float64)
    risen = nn1.mean(1) >= (nn1[0].mean() + nn1[-1].mean()) / 2
    separable = epochs[risen] if estimate(nn1[-1] - nn1[0]).above_zero else []
    return Emergence(
        fusion=float(fused[0]) if fused else None,
        separable=float(separable[0]) if len(separable) else None,
    )


def _exceeds(gain: np.ndarray, untrained: np.ndarray, h: np.ndarray) -> bool:
    """Whether at some block the gain exceeds that of every control."""
    gain = gain.astype(np.float64)
    controls = control_gains(gain, untrained, h).values()
    return any(
        all(estimate(gain[:, b] - one[:, b], gain.shape[1]).above_zero for one in controls)
        for b in range(gain.shape[1])
    )
