"""The result of a comparison in plain words, no stronger than its numbers."""

from collections.abc import Iterable, Sequence
from typing import Literal

from headwise.evaluation.statistics.crossed import FEWEST_SEEDS
from headwise.evaluation.statistics.over_seeds import Difference
from headwise.report.reading.summary import Summary
from headwise.report.words import counted, interval_text, listed, percent, points

BASELINES = {
    "constant": "a constant answer",
    "pixels": "raw pixels",
    "untrained": "the untrained encoder",
    "scratch": "the encoder trained from scratch on the same labels",
}
PROBES = {
    "linear": "a linear probe",
    "knn": "a nearest-neighbour probe",
    "linear_per_class": "a linear probe (mean over classes)",
    "knn_per_class": "a nearest-neighbour probe (mean over classes)",
}
Side = Literal["above", "below", "open"]


def plain_result(summary: Summary) -> list[str]:
    """Sentences: how h stands to a constant answer, raw pixels, the untrained encoder and training
    from scratch, the worst first; what heads differ by; h and z; and how sure that is. Plain text,
    not escaped."""
    measure = summary.leading
    if not measure:
        return _geometry_only(summary)
    short = [summary.short] if summary.short else []
    sentences = _against_baselines(summary, measure) or [_reached(summary, measure)]
    sentences += _between_heads(summary, measure) + _h_and_z(summary, measure)
    return [*sentences, *short, *_noise(summary, measure)]


def side(difference: Difference) -> Side:
    """Where a stands to b: by the test over seeds, or with too few of them in all networks alike,
    by their intervals over test images."""
    if difference.seeds >= FEWEST_SEEDS:
        apart = difference.shown
    else:
        ends = difference.within
        apart = all(low > 0 for low, _ in ends) or all(high < 0 for _, high in ends)
    return "open" if not apart else "above" if difference.value > 0 else "below"


def _reached(summary: Summary, measure: str) -> str:
    scores = summary.head_scores(measure)
    values = [f"{percent(score.value)} % under {name}" for name, score in scores.items()]
    return f"{_probe(measure).capitalize()} on h reaches {listed(values)}."


def _against_baselines(summary: Summary, measure: str) -> list[str]:
    """A sentence for each side and set of heads; below first."""
    by_base = {
        base: [one for one in summary.between("baselines", measure) if one.b == base]
        for base in BASELINES
    }
    sentences = []
    for where in ("below", "open", "above"):
        groups: dict[tuple[str, ...], list[list[Difference]]] = {}
        for found in by_base.values():
            there = [one for one in found if side(one) == where]
            if there:
                groups.setdefault(tuple(one.a for one in there), []).append(there)
        for heads, bases in groups.items():
            sentences.append(_standing(summary, measure, where, heads, bases))
    return sentences


def _standing(
    summary: Summary,
    measure: str,
    where: str,
    heads: Sequence[str],
    bases: Sequence[Sequence[Difference]],
) -> str:
    """Of these heads against baselines to which they stand alike."""
    under = _under(summary, heads)
    words = [_baseline(summary, measure, found) for found in bases]
    if where == "open":
        return f"{under}, no difference is shown between {_probe(measure)} on h and {listed(words)}."
    return f"{under}, {_probe(measure)} on h is {where} {listed(words)}: {_by(summary)}."


def _baseline(summary: Summary, measure: str, found: Sequence[Difference]) -> str:
    """`raw pixels (39.1 %), by 5.6 to 9.8 points`."""
    base = found[0].b
    value = summary.heads[found[0].a][measure] - found[0].value
    words = f"{BASELINES[base]} ({percent(value)} %)"
    if len(found) == 1:
        return f"{words}: {_with_interval(found[0])}"
    low, high = (f(abs(one.value) for one in found) for f in (min, max))
    same = percent(low) == percent(high)
    return f"{words}, by {percent(low)}{'' if same else f' to {percent(high)}'} points"


def _between_heads(summary: Summary, measure: str) -> list[str]:
    found = summary.between("heads", measure)
    if not found:
        return []
    if summary.seeds == 1:
        return ["There is one run of each head; a comparison needs --seeds 5."]
    if not summary.judged:
        return _few_seeds(summary, found)
    shown = [one for one in found if one.shown]
    alike = [one for one in found if one.verdict.startswith("equivalent")]
    said = [f"{_pair(one)} by {points(abs(one.value))} ({_ends(one)})" for one in shown]
    sentences = [
        f"Between heads, {_of(len(shown), len(found))} shown over {summary.seeds} seeds"
        + (f": {listed(said)}." if said else ".")
    ]
    if alike:
        pairs = [f"{one.a} and {one.b}" for one in alike]
        sentences.append(f"{alike[0].verdict.capitalize()} are {listed(pairs)}.")
    return sentences


def _few_seeds(summary: Summary, found: Sequence[Difference]) -> list[str]:
    if summary.seeds > 2:
        return [f"{summary.seeds} of {FEWEST_SEEDS} seeds: no verdict on the heads."]
    apart = [one for one in found if side(one) != "open"]
    said = [f"{_pair(one)} by {points(abs(one.value))}" for one in apart]
    within = f"in both, the test images show {listed(said)}" if said else "in both, no pair is shown"
    return [
        "Two seeds cannot show a difference between heads. Within the networks of each seed, "
        f"{within}."
    ]


def _h_and_z(summary: Summary, measure: str) -> list[str]:
    found = summary.between("taps", measure.partition("/")[0])
    sentences = []
    for where in ("above", "below", "open"):
        there = [one for one in found if side(one) == where]
        said = listed([f"{one.a} ({_with_interval(one)})" for one in there])
        if there and where == "open":
            sentences.append(f"Between h and z no difference is shown under {said}.")
        elif there:
            sentences.append(f"By the same probe h is {where} z under {said}: {_by(summary)}.")
    no_head = [name for name in summary.heads if found and name not in {one.a for one in found}]
    return sentences + ([f"Under {listed(no_head)}, z is h."] if no_head else [])


def _noise(summary: Summary, measure: str) -> list[str]:
    found = summary.between("heads", measure)
    if not summary.judged or not found:
        return []
    deviations = [one.seed_deviation for one in found if one.seed_deviation is not None]
    needed = [one.seeds_for_three_points for one in found]
    known = [count for count in needed if count is not None]
    words = f"takes {_range(str(min(known)), str(max(known)))} seeds" if known else ""
    if len(known) < len(needed):
        words += f"{', for some pairs ' if known else 'takes '}more test images"
    errors = [one.image_error for one in found]
    return [
        f"From seed to seed a difference between two heads varies by {_spread(deviations)} points "
        f"(standard deviation), and the choice of test images brings an error of {_spread(errors)} "
        f"points. To show a difference of 3 points in four cases of five {words}."
    ]


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


def _probe(measure: str) -> str:
    return PROBES[measure.partition("/")[0]]


def _under(summary: Summary, heads: Sequence[str]) -> str:
    if len(heads) == len(summary.heads) > 1:
        return f"Under all {len(heads)} heads"
    return f"Under {listed(heads)}"


def _by(summary: Summary) -> str:
    """What a difference rests on."""
    if summary.judged:
        return f"shown over {summary.seeds} seeds"
    if summary.seeds == 1:
        return "that is about these networks"
    return f"that is so in the networks of each of the {summary.seeds} seeds"


def _pair(one: Difference) -> str:
    return f"{one.a} above {one.b}" if one.value > 0 else f"{one.b} above {one.a}"


def _ends(one: Difference) -> str:
    assert one.interval is not None, "five seeds have an interval"
    low, high = sorted(end if one.value > 0 else -end for end in one.interval)
    return interval_text(low, high)


def _with_interval(one: Difference) -> str:
    """`+1.2 points, +0.3 to +2.1`; within one seed where there is one."""
    interval = one.within[0] if one.seeds == 1 else one.interval
    ends = "" if interval is None else f", {interval_text(*interval, signed=True)}"
    return f"{points(one.value, signed=True)}{ends}"


def _of(shown: int, pairs: int) -> str:
    if pairs == 1:
        return "a difference is" if shown else "no difference is"
    return f"{shown or 'none'} of {counted(pairs, 'difference')} {'is' if shown < 2 else 'are'}"


def _spread(values: Iterable[float]) -> str:
    found = list(values)
    return _range(percent(min(found)), percent(max(found)))


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
