"""The result of a comparison in plain words, no stronger than its numbers."""

from typing import Any

from headwise.evaluation.statistics.scores import Score, best_and_tied, differs, head_scores, score


def plain_result(summary: dict[str, Any]) -> list[str]:
    """Sentences: which head's h was best, against pixels and an untrained encoder, whether heads
    differ by more than noise, and what the noise is. Plain text, not escaped."""
    linear, knn = head_scores(summary, "linear/h"), head_scores(summary, "knn/h")
    if not linear and not knn:
        return _geometry_only(summary)
    key, scores = ("linear/h", linear) if linear else ("knn/h", knn)
    sentences = [_best(summary, key, scores), *_against_baselines(summary, key, scores)]
    sentences += _between_heads(scores)
    sentences += _h_and_z(summary, key, scores)
    if linear and knn:
        sentences += _by_neighbours(linear, knn)
    return [*sentences, _noise(summary)]


def percent(value: float) -> str:
    """0.6215 as "62.2"; the caller writes the sign or the word."""
    return f"{100 * value:.1f}"


def _best(summary: dict[str, Any], key: str, scores: dict[str, Score]) -> str:
    best, _ = best_and_tied(scores)
    probe = "linear probe" if key == "linear/h" else "nearest-neighbour probe"
    top, n = scores[best], summary.get("n_test")
    of = f" of {n:,} test images" if n else " of the test images"
    scored = f"{percent(top.value)} ± {percent(top.spread)} %{of} correctly{_chance(summary)}."
    if len(scores) == 1:
        return f"A {probe} on the h of the {best} head names {scored}"
    return f"The h of the {best} head scores highest: a {probe} on it names {scored}"


def _chance(summary: dict[str, Any]) -> str:
    chance = summary.get("chance")
    return f" (chance: {percent(chance)} %)" if chance else ""


def _against_baselines(summary: dict[str, Any], key: str, scores: dict[str, Score]) -> list[str]:
    best, _ = best_and_tied(scores)
    phrases = []
    for name, words in (("pixels", "raw pixels"), ("untrained", "the same encoder untrained")):
        if name not in (summary.get("baselines") or {}):
            continue
        base = score(summary, "baselines", name, key)
        if base is not None:
            phrases.append(_gap(scores[best], base, words, comparisons=2 * len(scores)))
    return [f"That is {' and '.join(phrases)}."] if phrases else []


def _gap(top: Score, base: Score, words: str, comparisons: int) -> str:
    gap = top.value - base.value
    if not differs(top, base, comparisons):
        return f"no difference shown from {words} ({percent(base.value)} %)"
    side = "above" if gap > 0 else "below"
    return f"{percent(abs(gap))} points {side} {words} ({percent(base.value)} %)"


def _between_heads(scores: dict[str, Score]) -> list[str]:
    if len(scores) < 2:
        return []
    best, tied = best_and_tied(scores)
    beaten = [name for name in scores if name != best and name not in tied]
    same = [name for name in scores if name in tied]
    if not beaten:
        return ["Between the heads no difference is shown: all gaps are within noise."]
    gaps = [f"{name} by {percent(scores[best].value - scores[name].value)}" for name in beaten]
    worse = f"It beats {_listed(gaps)} points, more than noise"
    return [f"{worse}; no difference is shown from {_listed(same)}." if same else f"{worse}."]


def _by_neighbours(linear: dict[str, Score], knn: dict[str, Score]) -> list[str]:
    best, tied = best_and_tied(knn)
    if best == best_and_tied(linear)[0]:
        return []
    doubt = ", though not beyond noise" if best_and_tied(linear)[0] in tied else ""
    return [f"By nearest neighbours {best} is highest{doubt} ({percent(knn[best].value)} %)."]


def _h_and_z(summary: dict[str, Any], key: str, scores: dict[str, Score]) -> list[str]:
    best, _ = best_and_tied(scores)
    z = score(summary, "heads", best, key.replace("/h", "/z"))
    if z is None:
        return []
    if not differs(scores[best], z, 1):
        return [f"Between its h and z no difference is shown (z: {percent(z.value)} %)."]
    side = "lower" if z.value < scores[best].value else "higher"
    gap = percent(abs(scores[best].value - z.value))
    return [f"Its projection z scores {gap} points {side} ({percent(z.value)} %)."]


def _noise(summary: dict[str, Any]) -> str:
    seeds = summary.get("seeds") or 1
    if seeds > 1:
        return f"± is the standard deviation over {seeds} seeds."
    return (
        "There is one seed: ± is the error from the finite test set alone, "
        "and another seed could move every number by more."
    )


def _geometry_only(summary: dict[str, Any]) -> list[str]:
    opening = "The images have no labels, so no accuracy can be given: only geometry is compared."
    ranks = head_scores(summary, "rank/h")
    if len(ranks) < 2:
        return [opening]
    low, high = (f(ranks, key=lambda name: ranks[name].value) for f in (min, max))
    return [
        opening,
        f"The effective rank of h runs from {ranks[low].value:.1f} ({low}) "
        f"to {ranks[high].value:.1f} ({high}); a higher rank need not mean a better h.",
    ]


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
