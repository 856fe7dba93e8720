"""What the fusion lab found, in five lines of plain words, no stronger than its numbers."""

import numpy as np

from headwise.evaluation.statistics.crossed import FEWEST_SEEDS
from headwise.fusion.verdict import (
    CONTROLS,
    LEAST_BATCHES,
    BlockVerdict,
    Emergence,
    Estimate,
    Verdict,
    emergence,
    estimate,
    judge,
)
from headwise.heads import HeadConfig, leaks
from headwise.report.words import percent


def conclusion(arrays: dict[str, np.ndarray], head: HeadConfig) -> tuple[str, ...]:
    """Five lines on the arrays of fusion.npz: whether this network fuses; where; how much attention
    goes to twin and self; what the head does to the rows; and when fusion emerged, or what limits
    the result."""
    verdict = judge(arrays)
    if not verdict.blocks:
        none = f"the {head.name} head has no attention over the batch to measure"
        first = (
            f"No fusion: {none}.",
            "Where: nowhere; the head treats every row on its own.",
            "Twin and self: there is no attention that could go to them.",
        )
    else:
        first = (_whether(verdict, arrays), _where(verdict, arrays), _naive(verdict, arrays))
    return (*first, _rows(arrays), _when(verdict, arrays, head))


def _whether(verdict: Verdict, arrays: dict[str, np.ndarray]) -> str:
    block, count = verdict.strongest, len(verdict.blocks)
    size, batches = int(arrays["batch_size"]), len(arrays["layer_gain"])
    if not verdict.fuses:
        return (
            f"In this network, fusion does not exceed its controls: at {block.tap}, where the gain "
            f"is highest, {block.obstacle}."
        )
    fusing = sum(block.fuses for block in verdict.blocks)
    controls = ", ".join(f"{CONTROLS[name]} {gain:.2f}" for name, gain in block.controls.items())
    return (
        f"In this network, fusion exceeds its controls at {fusing} of {count} blocks: at "
        f"{block.tap}, images attend {_times(block.gain)} as much to their own class as at random "
        f"({batches} batches of {size}; {controls}; permuted labels p = {block.p_value:.2g})."
    )


def _where(verdict: Verdict, arrays: dict[str, np.ndarray]) -> str:
    block = verdict.strongest
    by_head = arrays["gain"][:, _place(verdict, block)].mean(0)
    best = int(np.nanargmax(by_head))
    where = (
        f"Where: the gain is highest at {block.tap}, {block.gain.mean:.2f} "
        f"({block.gain.low:.2f} to {block.gain.high:.2f}), "
        f"and there in attention head {best + 1} of {len(by_head)} ({by_head[best]:.2f}); "
        f"{_choice(block)}"
    )
    slope = verdict.slope
    if slope is None:
        return f"{where}; with one block there is no trend over depth."
    side = "rises" if slope.low > 0 else "falls" if slope.high < 0 else "shows no trend"
    return (
        f"{where}; over depth the excess over h {side}: {slope.mean:+z.3f} per block "
        f"({slope.low:+z.3f} to {slope.high:+z.3f})."
    )


def _choice(block: BlockVerdict) -> str:
    """Whether the attention prefers classmates more than the similarity of the rows it gets."""
    if block.outdated:
        return "an older version did not measure whether it chooses"
    difference = block.input_difference
    chooses = "it chooses" if difference.exceeds else "it is not shown to choose"
    return (
        f"{chooses}: the similarity of the block's own input rows at equal entropy would have "
        f"{block.input_gain:.2f} (difference {difference.mean:+z.2f}, {difference.low:+z.2f} to "
        f"{difference.high:+z.2f})"
    )


def _naive(verdict: Verdict, arrays: dict[str, np.ndarray]) -> str:
    block = verdict.strongest
    place, rows = _place(verdict, block), int(arrays["batch_size"]) * int(arrays["views"])
    twin, itself, number = (
        float(arrays[name][:, place].mean())
        for name in ("twin_mass", "self_mass", "effective_number")
    )
    return (
        f"Twin and self: at {block.tap}, {percent(twin)} % of a row's attention goes to its twin, "
        f"{percent(itself)} % to itself and {percent(block.other_mass)} % to other images, "
        f"effectively to {number:.1f} of {rows} rows; only the last share can be fusion."
    )


def _rows(arrays: dict[str, np.ndarray]) -> str:
    nn1 = arrays["nn1"].astype(np.float64)
    change = estimate(nn1[:, -1] - nn1[:, 0])
    if change.low > 0 or change.high < 0:
        effect = f"the head {'raises' if change.low > 0 else 'lowers'} the 1-NN accuracy"
    else:
        effect = "no effect of the head on the 1-NN accuracy is shown"
    h, z = float(nn1[:, 0].mean()), float(nn1[:, -1].mean())
    others = {
        "with uniform attention": arrays["nn1_uniform"][:, -1].mean(),
        "after the untrained head": arrays["nn1_untrained"][:, -1].mean(),
        "at random": arrays["nn1_permuted"][-1].mean(),
    }
    known = {words: float(value) for words, value in others.items() if not np.isnan(value)}
    beside = ", ".join(f"{percent(value)} % {words}" for words, value in known.items())
    return (
        f"Rows: {effect}; it is {percent(h)} % at h and {percent(z)} % at z "
        f"({_points(change)} points); at z it would be {beside}."
    )


def _when(verdict: Verdict, arrays: dict[str, np.ndarray], head: HeadConfig) -> str:
    found = emergence(arrays)
    beware = f"Beware: {'; '.join(_caveats(verdict, arrays, head))}."
    if found is None:
        return beware
    return f"Over training: {found.order} ({_epochs(found, arrays['training_epochs'])}). {beware}"


def _caveats(verdict: Verdict, arrays: dict[str, np.ndarray], head: HeadConfig) -> list[str]:
    found = ["this describes one network"]
    if verdict.blocks:
        calls = " ".join(["RUN"] * FEWEST_SEEDS)
        found = [f"{found[0]}; a claim about the head needs five seeds: headwise fusion {calls}"]
    if leaks(head):
        found.append(
            f"context {head.context} leaks: what a row cannot see shows which row is its twin, so "
            "the head can solve the loss without the images"
        )
    if verdict.blocks and head.context == "self":
        found.append("context self lets no row see another image, so there is nothing to fuse")
    if str(arrays["split"]) == "train":
        found.append("measured on training images")
    if len(arrays["nn1"]) < LEAST_BATCHES:
        found.append(f"the intervals come from only {len(arrays['nn1'])} batches")
    return found


def _epochs(found: Emergence, epochs: np.ndarray) -> str:
    return (
        f"the gain exceeds its controls {_since(found.fusion)}, the 1-NN accuracy of h has made "
        f"half its rise {_since(found.separable)}; {len(epochs)} checkpoints, epochs {epochs[0]:g} "
        f"to {epochs[-1]:g}"
    )


def _place(verdict: Verdict, block: BlockVerdict) -> int:
    return verdict.blocks.index(block)


def _times(gain: Estimate) -> str:
    return f"{gain.mean:.2f} times ({gain.low:.2f} to {gain.high:.2f})"


def _points(change: Estimate) -> str:
    return f"{100 * change.mean:+z.1f}, {100 * change.low:+z.1f} to {100 * change.high:+z.1f}"


def _since(epoch: float | None) -> str:
    return "never" if epoch is None else f"from epoch {epoch:g} on"
