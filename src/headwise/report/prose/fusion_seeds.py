"""What runs of several seeds show about a head's fusion, in words no stronger than its numbers."""

from headwise.evaluation.statistics.crossed import FEWEST_SEEDS
from headwise.fusion.over_seeds import BlockOverSeeds, HeadOverSeeds, OverSeeds, is_shown
from headwise.fusion.seed_runs import FusionOverSeeds
from headwise.fusion.verdict import LEAST_EXCESS, LEAST_OTHER_MASS
from headwise.heads import leaks
from headwise.report.words import counted, listed


def conclusion_over_seeds(result: FusionOverSeeds) -> tuple[str, ...]:
    """Four lines: whether the head fuses; whether its attention chooses; whether fusion grows with
    depth; and what the claim rests on."""
    return _fusion(result.found), _choice(result.found), _progress(result.found), _ground(result)


def _fusion(found: HeadOverSeeds) -> str:
    block = found.strongest
    over_h = f"the excess over h at equal entropy is {_number(block.h)}"
    if found.shown:
        return (
            f"Fusion: {block.fusion} at {_of(found.shown, found)}. At {block.tap}, images attend "
            f"{block.gain:.2f} times as much to their own class as at random; {over_h}, that "
            f"over the untrained heads {_number(block.untrained)}."
        )
    thin = (
        f"; only {100 * block.other_mass:.2g} % of the attention goes to other images"
        if block.other_mass < LEAST_OTHER_MASS
        else ""
    )
    return (
        f"Fusion: {block.fusion}. At {block.tap}, where it is highest, {over_h} (at least "
        f"{LEAST_EXCESS} counts) for a gain of {block.gain:.3f}{thin}."
    )


def _choice(found: HeadOverSeeds) -> str:
    chosen = tuple(block for block in found.blocks if is_shown(block.choice))
    block = max(chosen or found.blocks, key=lambda block: block.input.mean)
    where = f" at {_of(chosen, found)}" if chosen else ""
    return (
        f"Choice of classmates: {block.choice}{where}. At {block.tap}, the excess over the "
        f"block's own input rows at equal entropy is {_number(block.input)}."
    )


def _progress(found: HeadOverSeeds) -> str:
    if found.slope is None:
        return "Progressive fusion: with one block there is no trend over depth."
    words = found.progressive
    if is_shown(words) and not found.shown:
        words = "not shown, because no block shows fusion"
    return (
        f"Progressive fusion: {words}. The excess over h changes per block by "
        f"{_number(found.slope)}."
    )


def _ground(result: FusionOverSeeds) -> str:
    count = len(result.seeds)
    lines = [
        f"Measured on {counted(count, 'seed')} ({', '.join(map(str, result.seeds))}), "
        f"{result.batches} batches of {result.batch_size} {result.split} images of {result.spec}"
    ]
    if count < FEWEST_SEEDS:
        lines.append(f"a claim about the head needs {FEWEST_SEEDS} seeds")
    if leaks(result.head):
        lines.append(
            f"context {result.head.context} leaks: what a row cannot see shows which row is its "
            "twin"
        )
    return "; ".join(lines) + "."


def _of(blocks: tuple[BlockOverSeeds, ...], found: HeadOverSeeds) -> str:
    taps = listed([block.tap for block in blocks])
    return f"{len(blocks)} of {counted(len(found.blocks), 'block')} ({taps})"


def _number(over: OverSeeds) -> str:
    if over.interval is None:
        return f"{over.mean:+.3f}"
    low, high = over.interval
    return f"{over.mean:+.3f} ({low:+.3f} to {high:+.3f})"
