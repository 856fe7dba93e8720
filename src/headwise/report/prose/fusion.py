"""What the lab found, in five lines of plain words and a table, no stronger than its numbers."""

import numpy as np

from headwise.fusion.verdict import (
    CONTROLS,
    BlockVerdict,
    Emergence,
    Estimate,
    Verdict,
    emergence,
    estimate,
    judge,
)
from headwise.heads import HeadConfig, leaks

_FEW_BATCHES = 5


def conclusion(arrays: dict[str, np.ndarray], head: HeadConfig) -> tuple[str, ...]:
    """Five lines on the arrays of fusion.npz: whether fusion is shown; where; what twin and self
    take; what the head does to the rows; and when fusion emerged, or what to beware of."""
    verdict = judge(arrays)
    if not verdict.blocks:
        none = f"the {head.name} head has no attention over the batch to measure"
        first = (
            f"Fusion is not shown: {none}.",
            "Where: nowhere; every row goes through the head on its own.",
            "Twin and self: no attention is there for them to take.",
        )
    else:
        first = (_whether(verdict, arrays), _where(verdict, arrays), _naive(verdict, arrays))
    return (*first, _rows(arrays), _when(verdict, arrays, head))


def _whether(verdict: Verdict, arrays: dict[str, np.ndarray]) -> str:
    block, count = verdict.strongest, len(verdict.blocks)
    size, batches = int(arrays["batch_size"]), len(arrays["layer_gain"])
    if not verdict.shown:
        return f"Fusion is not shown: at {block.tap}, where the gain is highest, {block.obstacle}."
    shown = sum(block.shown for block in verdict.blocks)
    controls = ", ".join(f"{CONTROLS[name]} {gain:.2f}" for name, gain in block.controls.items())
    return (
        f"Fusion is shown at {shown} of {count} blocks: at {block.tap} images take "
        f"{_times(block.gain)} as much from their own class as at random "
        f"({batches} batches of {size}; {controls}; permuted labels p = {block.p_value:.2g})."
    )


def _where(verdict: Verdict, arrays: dict[str, np.ndarray]) -> str:
    block = verdict.strongest
    by_head = arrays["gain"][:, _place(verdict, block)].mean(0)
    best = int(np.nanargmax(by_head))
    where = (
        f"Where: the gain is highest at {block.tap} ({_times(block.gain)}), "
        f"there in attention head {best + 1} of {len(by_head)} ({by_head[best]:.2f})"
    )
    slope = verdict.slope
    if slope is None:
        return f"{where}; one block has no depth to follow."
    side = "rises" if slope.low > 0 else "falls" if slope.high < 0 else "shows no trend"
    return (
        f"{where}; over depth it {side}: {slope.mean:+.3f} a block "
        f"({slope.low:+.3f} to {slope.high:+.3f})."
    )


def _naive(verdict: Verdict, arrays: dict[str, np.ndarray]) -> str:
    block = verdict.strongest
    place, rows = _place(verdict, block), int(arrays["batch_size"]) * int(arrays["views"])
    twin, itself, number = (
        float(arrays[name][:, place].mean())
        for name in ("twin_mass", "self_mass", "effective_number")
    )
    return (
        f"Twin and self: at {block.tap} a row takes {_percent(twin)} % from its twin, "
        f"{_percent(itself)} % from itself and {_percent(block.other_mass)} % from other images, "
        f"effectively from {number:.1f} of {rows} rows; only the last share can be fusion."
    )


def _rows(arrays: dict[str, np.ndarray]) -> str:
    nn1 = arrays["nn1"].astype(np.float64)
    change = estimate(nn1[:, -1] - nn1[:, 0])
    side = "helps" if change.low > 0 else "costs" if change.high < 0 else "shows no effect on"
    h, z = nn1[:, 0].mean(), nn1[:, -1].mean()
    others = {
        "with uniform attention": arrays["nn1_uniform"][:, -1].mean(),
        "after the untrained head": arrays["nn1_untrained"][:, -1].mean(),
        "at random": arrays["nn1_permuted"][-1].mean(),
    }
    beside = ", ".join(f"{_percent(v)} % {words}" for words, v in others.items() if not np.isnan(v))
    return (
        f"Rows: the head {side} the nearest neighbour, right for {_percent(h)} % at h and "
        f"{_percent(z)} % at z ({_points(change)} points); z has {beside}."
    )


def _when(verdict: Verdict, arrays: dict[str, np.ndarray], head: HeadConfig) -> str:
    found = emergence(arrays)
    beware = _caveats(verdict, arrays, head)
    if found is None:
        said = beware or [
            "one run with one seed; other seeds say how far this carries, --over-training says when"
        ]
        return f"Beware: {'; '.join(said)}."
    said = f"Over training: {found.order} ({_epochs(found, arrays['training_epochs'])})"
    return f"{said}. Beware: {'; '.join(beware)}." if beware else f"{said}."


def _caveats(verdict: Verdict, arrays: dict[str, np.ndarray], head: HeadConfig) -> list[str]:
    found = []
    if leaks(head):
        found.append(
            f"context {head.context} leaks: what a row does not see names its twin, so the head "
            "can solve the loss without the images"
        )
    if verdict.blocks and head.context == "self":
        found.append("context self lets no row see another image, so there is nothing to fuse")
    if str(arrays["split"]) == "train":
        found.append("measured on training images, for want of labelled test images")
    if len(arrays["nn1"]) < _FEW_BATCHES:
        found.append(f"intervals rest on {len(arrays['nn1'])} batches only")
    return found


def _epochs(found: Emergence, epochs: np.ndarray) -> str:
    fusion = "never" if found.fusion is None else f"at epoch {found.fusion:g}"
    separable = "never" if found.separable is None else f"at epoch {found.separable:g}"
    return (
        f"gain above its controls {fusion}, 1-NN of h half risen {separable}; "
        f"seen at {len(epochs)} checkpoints, epochs {epochs[0]:g} to {epochs[-1]:g}"
    )


def text_table(arrays: dict[str, np.ndarray]) -> str:
    """A line a tap: gain with half its interval, its controls and p; shares of the attention in
    percent; AUROC and NMI; and the share of right nearest neighbours."""
    verdict = judge(arrays)
    blocks = {block.tap: block for block in verdict.blocks}
    titles = ["tap", "gain", "±", "untrained", "h", "p", "twin %", "self %", "other %"]
    lines = [[*titles, "AUROC", "NMI", "1-NN %", ""]]
    for place, tap in enumerate(arrays["taps"].tolist()):
        cells = [""] * 10
        if tap in blocks:
            cells = _cells(blocks[tap], arrays, _place(verdict, blocks[tap]))
        nn1 = _percent(float(arrays["nn1"][:, place].mean()))
        mark = "fusion" if tap in blocks and blocks[tap].shown else ""
        lines.append([tap, *cells, nn1, mark])
    if not blocks:
        lines = [[line[0], line[-2]] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ([cell.rjust(w) for cell, w in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _cells(block: BlockVerdict, arrays: dict[str, np.ndarray], place: int) -> list[str]:
    twin, itself = (arrays[name][:, place].mean() for name in ("twin_mass", "self_mass"))
    return [
        f"{block.gain.mean:.3f}",
        f"{block.gain.high - block.gain.mean:.3f}",
        f"{block.controls['untrained']:.3f}",
        f"{block.controls['h']:.3f}",
        f"{block.p_value:.3f}",
        *map(_percent, (twin, itself, block.other_mass)),
        f"{arrays['layer_auroc'][:, place].mean():.3f}",
        f"{arrays['layer_nmi'][:, place].mean():.3f}",
    ]


def _place(verdict: Verdict, block: BlockVerdict) -> int:
    return verdict.blocks.index(block)


def _times(gain: Estimate) -> str:
    return f"{gain.mean:.2f} times ({gain.low:.2f} to {gain.high:.2f})"


def _points(change: Estimate) -> str:
    return f"{100 * change.mean:+.1f}, {100 * change.low:+.1f} to {100 * change.high:+.1f}"


def _percent(share: float | np.floating) -> str:
    return f"{100 * share:.1f}"
