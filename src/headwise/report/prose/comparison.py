"""The result of a comparison in plain words, no stronger than its numbers."""

from headwise.evaluation.statistics.scores import Score, best_and_tied, differs
from headwise.report.reading.summary import Summary
from headwise.report.words import counted, listed, percent

_BASELINES = {"pixels": "raw pixels", "untrained": "the same encoder untrained"}
_NEAR = 0.03
"""Accuracies of h and z closer than this are called similar in a head's sentence."""


def plain_result(summary: Summary) -> list[str]:
    """Sentences: which head's h scored highest, how it compares with raw pixels, with an untrained
    encoder, with the other heads and with its own z, and what the error covers. Plain text, not
    escaped."""
    linear, knn = summary.head_scores("linear/h"), summary.head_scores("knn/h")
    if not linear and not knn:
        return _geometry_only(summary)
    key, scores = ("linear/h", linear) if linear else ("knn/h", knn)
    sentences = [_best(summary, key, scores), *_against_baselines(summary, key, scores)]
    sentences += _between_heads(scores)
    sentences += _h_and_z(summary, key, scores)
    if linear and knn:
        sentences += _by_neighbours(linear, knn)
    return [*sentences, _noise(summary)]


def learned(summary: Summary, head: str) -> str:
    """One sentence on what was learned under a head, from its scores."""
    h, z = (summary.score("heads", head, f"linear/{tap}") for tap in ("h", "z"))
    if h is None or z is None:
        ranks = [summary.score("heads", head, f"rank/{tap}") for tap in ("h", "z")]
        words = [f"{rank.value:.0f}" for rank in ranks if rank is not None]
        return f"The effective rank is {' for h and '.join(words)} for z." if words else ""
    gains = []
    for name, words in (("pixels", "raw pixels"), ("untrained", "the untrained encoder")):
        base = summary.score("baselines", name, "linear/h")
        if base is not None:
            gains.append(f"{100 * (h.value - base.value):+.0f} points against {words}")
    reached = f"A linear probe on h reaches {100 * h.value:.0f} % accuracy"
    reached += f" ({', '.join(gains)})" if gains else ""
    gap = h.value - z.value
    if head == "identity" and gap == 0:  # without BatchNorm
        return f"{reached}. There is no head, so the loss is computed on h itself."
    if abs(gap) <= _NEAR:
        return f"{reached}. A probe on z is within 3 points of it."
    side = "lower" if gap > 0 else "higher"
    return f"{reached}. A probe on z is {100 * abs(gap):.0f} points {side}."


def _best(summary: Summary, key: str, scores: dict[str, Score]) -> str:
    best, _ = best_and_tied(scores)
    probe = "linear probe" if key == "linear/h" else "nearest-neighbour probe"
    top = scores[best]
    images = f"{summary.n_test:,} test images" if summary.n_test else "the test images"
    chance = f" (chance: {percent(summary.chance)} %)" if summary.chance else ""
    reached = f"reaches {percent(top.value)} ± {percent(top.spread)} % accuracy on {images}{chance}"
    if len(scores) == 1:
        return f"A {probe} on the h of the {best} head {reached}."
    return f"The h of the {best} head scores highest: a {probe} on it {reached}."


def _against_baselines(summary: Summary, key: str, scores: dict[str, Score]) -> list[str]:
    best, _ = best_and_tied(scores)
    shown, near = [], []
    for name, words in _BASELINES.items():
        base = summary.score("baselines", name, key)
        if base is None:
            continue
        against, gap = f"{words} ({percent(base.value)} %)", scores[best].value - base.value
        if differs(scores[best], base, comparisons=2 * len(scores)):
            side = "above" if gap > 0 else "below"
            shown.append(f"{percent(abs(gap))} points {side} {against}")
        else:
            near.append(against)
    sentences = [f"That is {listed(shown)}."] if shown else []
    return sentences + ([f"No difference from {listed(near, 'or')} is shown."] if near else [])


def _between_heads(scores: dict[str, Score]) -> list[str]:
    if len(scores) < 2:
        return []
    best, tied = best_and_tied(scores)
    beaten = [name for name in scores if name != best and name not in tied]
    same = [name for name in scores if name in tied]
    if not beaten:
        return ["No difference between the heads is shown: all gaps are within noise."]
    gaps = [f"{name} by {percent(scores[best].value - scores[name].value)}" for name in beaten]
    sentences = [f"It beats {listed(gaps)} points, which is more than noise."]
    return sentences + ([f"No difference from {listed(same, 'or')} is shown."] if same else [])


def _by_neighbours(linear: dict[str, Score], knn: dict[str, Score]) -> list[str]:
    best, tied = best_and_tied(knn)
    if best == best_and_tied(linear)[0]:
        return []
    doubt = ", but not beyond noise" if best_and_tied(linear)[0] in tied else ""
    return [f"By kNN, the {best} head is highest ({percent(knn[best].value)} %){doubt}."]


def _h_and_z(summary: Summary, key: str, scores: dict[str, Score]) -> list[str]:
    best, _ = best_and_tied(scores)
    z = summary.score("heads", best, key.replace("/h", "/z"))
    if z is None:
        return []
    if not differs(scores[best], z, 1):
        return [f"No difference between its h and its z is shown (z: {percent(z.value)} %)."]
    side = "lower" if z.value < scores[best].value else "higher"
    gap = percent(abs(scores[best].value - z.value))
    return [f"Its projection z scores {gap} points {side} ({percent(z.value)} %)."]


def _noise(summary: Summary) -> str:
    if summary.seeds > 1:
        return f"± is the standard deviation over {counted(summary.seeds, 'seed')}."
    return (
        "There is one seed: ± covers only the error from the finite test set, "
        "and another seed could change every number by more."
    )


def _geometry_only(summary: Summary) -> list[str]:
    opening = "The images have no labels, so no accuracy can be given; only geometry is compared."
    ranks = summary.head_scores("rank/h")
    if len(ranks) < 2:
        return [opening]
    low, high = (f(ranks, key=lambda name: ranks[name].value) for f in (min, max))
    return [
        opening,
        f"The effective rank of h ranges from {ranks[low].value:.1f} ({low}) "
        f"to {ranks[high].value:.1f} ({high}); a higher rank need not mean a better h.",
    ]
