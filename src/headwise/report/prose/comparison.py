"""The result of a comparison in plain words, no stronger than its numbers."""

from collections.abc import Iterable, Sequence
from typing import Literal

from headwise.evaluation.statistics.crossed import FEWEST_SEEDS
from headwise.evaluation.statistics.over_seeds import Difference
from headwise.report.prose.worth import worth
from headwise.report.reading.summary import Summary
from headwise.report.words import counted, interval_text, listed, percent, points

BASELINES = {
    "constant": "a constant answer",
    "pixels": "raw pixels",
    "untrained": "the untrained encoder",
    "start": "the start weights",
    "scratch": "the encoder trained from scratch on the same labels",
}
PROBES = {
    "linear": "a linear probe",
    "knn": "a nearest-neighbour probe",
    "linear_per_class": "a linear probe (mean over classes)",
    "knn_per_class": "a nearest-neighbour probe (mean over classes)",
}
Side = Literal["above", "below", "alike", "open"]


def plain_result(summary: Summary) -> list[str]:
    """Sentences: how h stands to a constant answer, raw pixels, the untrained encoder, the start
    weights and training from scratch, the worst first; whether pretraining was worth it; what heads
    differ by; h and z; and how sure that is. Plain text, not escaped."""
    measure = summary.leading
    if not measure:
        return _geometry_only(summary)
    sentences = _against_baselines(summary, measure) or [_reached(summary, measure)]
    sentences += [summary.short] if summary.short else []
    sentences += _between_heads(summary, measure) + _h_and_z(summary, measure)
    return sentences + _noise(summary, measure) + _arms(summary)


def _arms(summary: Summary) -> list[str]:
    """What arms differ in beside their heads, and which of them the baselines belong to."""
    found = [path for path in summary.differ if path != "head.name"]
    said = [f"The arms differ in {listed(list(summary.differ))}."] if found else []
    own = any(path.partition(".")[0] in ("encoder", "augment", "epochs") for path in found)
    if own and summary.baselines:
        first = next(iter(summary.heads))
        said.append(f"The baselines have the encoder, augmentation and epochs of {first}.")
    return said


def side(difference: Difference) -> Side:
    """Where a stands to b: by the verdict over seeds, or with too few of them in all networks
    alike, by their intervals over test images."""
    if difference.seeds >= FEWEST_SEEDS:
        apart = difference.shown
        if difference.verdict.startswith("equivalent"):
            return "alike"
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
    for where in ("below", "alike", "open", "above"):
        groups: dict[tuple[str, ...], list[list[Difference]]] = {}
        for found in by_base.values():
            there = [one for one in found if side(one) == where]
            if there:
                groups.setdefault(tuple(one.a for one in there), []).append(there)
        for heads, bases in groups.items():
            sentences.append(_standing(summary, measure, where, heads, bases))
    return sentences + _worth(summary, [one for some in by_base.values() for one in some])


def _worth(summary: Summary, found: Sequence[Difference]) -> list[str]:
    """Whether pretraining was worth it: a sentence for heads to which the same answer belongs."""
    answers: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for head in dict.fromkeys(one.a for one in found):
        sides = {BASELINES[one.b]: side(one) for one in found if one.a == head}
        above = tuple(base for base, where in sides.items() if where == "above")
        others = tuple(base for base in sides if base not in above)
        answers.setdefault((above, others), []).append(head)
    return [worth(_under(summary, heads).lower(), *answer) for answer, heads in answers.items()]


def _standing(
    summary: Summary,
    measure: str,
    where: Side,
    heads: Sequence[str],
    bases: Sequence[Sequence[Difference]],
) -> str:
    """Of these heads against baselines to which they stand alike."""
    under, probe = _under(summary, heads), _probe(measure)
    words = []
    for found in bases:
        value = summary.heads[found[0].a][measure] - found[0].value
        base = f"{BASELINES[found[0].b]} ({percent(value)} %)"
        gap = _gap(found, where)
        words.append(f"{base} by {gap}" if where in ("below", "above") else f"{base}, {gap}")
    if where == "alike":
        verdict = bases[0][0].verdict
        return f"{under}, {probe} on h is {verdict} to {'; '.join(words)}."
    if where == "open":
        return f"{under}, no difference is shown between {probe} on h and {'; '.join(words)}."
    return f"{under}, {probe} on h is {where} {listed(words)}: {_by(summary, len(heads))}."


def _gap(found: Sequence[Difference], where: Side) -> str:
    """Of several heads the range; of one its interval too."""
    signed = where in ("alike", "open")
    if len(found) == 1:
        return _with_interval(found[0], signed=signed)
    values = [one.value if signed else abs(one.value) for one in found]
    ends = (percent(f(values), signed=signed) for f in (min, max))
    return f"{_range(*ends)} points"


def _between_heads(summary: Summary, measure: str) -> list[str]:
    found = summary.between("heads", measure)
    if not found:
        return []
    if summary.seeds == 1:
        return [f"There is one run of each {summary.noun}; a comparison needs --seeds 5."]
    if not summary.judged:
        return _few_seeds(summary, found)
    shown = [one for one in found if one.shown]
    alike = [one for one in found if one.verdict.startswith("equivalent")]
    said = f": {_ordered(shown)}." if shown else "."
    sentences = [
        f"Between {summary.noun}s, {_of(len(shown), len(found))} shown over "
        f"{summary.seeds} seeds{said}"
    ]
    if alike:
        pairs = [f"{one.a} and {one.b}" for one in alike]
        sentences.append(f"{alike[0].verdict.capitalize()}: {'; '.join(pairs)}.")
    return sentences


def _few_seeds(summary: Summary, found: Sequence[Difference]) -> list[str]:
    if summary.seeds > 2:
        return [f"{summary.seeds} of {FEWEST_SEEDS} seeds: no verdict on the {summary.noun}s."]
    apart = [one for one in found if side(one) != "open"]
    said = _ordered(apart) if apart else "no pair"
    return [
        f"Two seeds cannot show a difference between {summary.noun}s. In the networks of both "
        f"seeds alike, the test images tell apart {said}."
    ]


def _h_and_z(summary: Summary, measure: str) -> list[str]:
    found = summary.between("taps", measure.partition("/")[0])
    sentences = []
    for where in ("above", "below", "alike", "open"):
        there = [one for one in found if side(one) == where]
        said = listed([f"{one.a} ({_with_interval(one)})" for one in there])
        if there and where == "alike":
            sentences.append(f"Under {said}, h and z are {there[0].verdict}.")
        elif there and where == "open":
            sentences.append(f"Between h and z no difference is shown under {said}.")
        elif there:
            gaps = [f"under {one.a} by {_with_interval(one, signed=False)}" for one in there]
            by = _by(summary, len(there))
            sentences.append(f"By the same probe, h is {where} z {listed(gaps)}: {by}.")
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
        f"From seed to seed a difference between two {summary.noun}s varies by "
        f"{_spread(deviations)} points (standard deviation), and the choice of test images brings "
        f"an error of {_spread(errors)} points. To show a difference of 3 points in "
        f"four cases of five {words}."
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
        return f"Under all {len(heads)} {summary.noun}s"
    return f"Under {listed(heads)}"


def _by(summary: Summary, heads: int) -> str:
    """What a difference rests on."""
    if summary.judged:
        return f"shown over {summary.seeds} seeds"
    if summary.seeds == 1:
        return f"that is about {'this network' if heads == 1 else 'these networks'}"
    return f"that is so in the networks of each of the {summary.seeds} seeds"


def _ordered(apart: Sequence[Difference]) -> str:
    """`mlp above identity and linear by 8.0 to 10.2 points`, by the upper head."""
    below: dict[str, list[tuple[str, float]]] = {}
    for one in apart:
        upper, lower = (one.a, one.b) if one.value > 0 else (one.b, one.a)
        below.setdefault(upper, []).append((lower, abs(one.value)))
    words = []
    for upper, lower in below.items():
        values = [percent(value) for _, value in sorted(lower, key=lambda pair: pair[1])]
        gap = f"{_range(values[0], values[-1])} points"
        words.append(f"{upper} above {listed([name for name, _ in lower])} by {gap}")
    return "; ".join(words)


def _with_interval(one: Difference, *, signed: bool = True) -> str:
    """`+1.2 points, +0.3 to +2.1`, or unsigned `1.2 points (0.3 to 2.1)`; within the one seed where
    there is one."""
    interval = one.within[0] if one.seeds == 1 else one.interval
    turn = -1 if one.value < 0 and not signed else 1
    ends = sorted(turn * end for end in interval or ())
    gap = points(turn * one.value, signed=signed)
    if not ends:
        return gap
    text = interval_text(*ends, signed=signed)
    return f"{gap}, {text}" if signed else f"{gap} ({text})"


def _of(shown: int, pairs: int) -> str:
    if pairs == 1:
        return "a difference is" if shown else "no difference is"
    return f"{shown or 'none'} of {counted(pairs, 'difference')} {'is' if shown < 2 else 'are'}"


def _spread(values: Iterable[float]) -> str:
    found = list(values)
    return _range(percent(min(found)), percent(max(found)))


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
