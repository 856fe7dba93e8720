"""What an evaluation found, in plain words, no stronger than its numbers."""

from pathlib import Path

from headwise.evaluation.statistics.tests import verdict
from headwise.report.prose.comparison import percent
from headwise.report.reading.evaluation import Evaluation, Number

ALPHA = 0.05
"""Of all comparisons that a sentence makes together."""

_PROBES = {"linear": "linear probe", "knn": "nearest-neighbour probe"}
_BASELINES = {"pixels": "raw pixels", "untrained": "the same encoder untrained"}


def plain_evaluation(evaluation: Evaluation) -> list[str]:
    """At most six sentences: what h reads, against baselines, against z and other taps; leakage;
    another run; few labels; and what the noise is. Plain text, not escaped."""
    probe = next((name for name in _PROBES if evaluation.get(name, "h")), None)
    if probe is None:
        sentences = _without_probe(evaluation)
    else:
        sentences = [
            _reads(evaluation, probe),
            *_against_baselines(evaluation, probe),
            *_against_z(evaluation, probe),
        ]
    sentences += _leakage(evaluation) + _against_run(evaluation)
    if probe is not None:
        sentences += _best_tap(evaluation, probe)
    sentences += _few_labels(evaluation)
    return [*sentences[:5], _noise(evaluation)]


def leakage_sentence(evaluation: Evaluation) -> str:
    """Empty where it was not measured."""
    number = evaluation.get("leakage", "z")
    words = number.result.get("verdict", "") if number else ""
    return f"Leakage: {words}." if words else ""


def _reads(evaluation: Evaluation, probe: str) -> str:
    h = evaluation.numbers[f"{probe}/h"]
    low, high = h.interval
    return (
        f"A {_PROBES[probe]} on h names {percent(h.value)} % "
        f"(95 % interval {percent(low)} to {percent(high)}) of {h.result['n']:,} test images "
        f"correctly{'' if h.chance is None else f'; chance is {percent(h.chance)} %'}."
    )


def _against_baselines(evaluation: Evaluation, probe: str) -> list[str]:
    h = evaluation.numbers[f"{probe}/h"]
    found = {name: evaluation.get(probe, name) for name in _BASELINES}
    bases = {name: number for name, number in found.items() if number}
    phrases = [_gap(evaluation, h, b, _BASELINES[name], len(bases)) for name, b in bases.items()]
    return [f"That is {' and '.join(phrases)}."] if phrases else []


def _gap(evaluation: Evaluation, h: Number, base: Number, words: str, comparisons: int) -> str:
    against = f"{words} ({percent(base.value)} %)"
    found = _compared(evaluation, h, base, comparisons)
    if found == "no difference shown":
        return f"no difference shown from {against}"
    side = "above" if h.value > base.value else "below"
    untested = "" if found else ", untested,"
    return f"{percent(abs(h.value - base.value))} points{untested} {side} {against}"


def _against_z(evaluation: Evaluation, probe: str) -> list[str]:
    h, z = evaluation.numbers[f"{probe}/h"], evaluation.get(probe, "z")
    test = evaluation.paired(h, z) if z else None
    if z is None or test is None:
        return []
    low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in test.interval)
    gap = f"(h − z: {100 * test.difference:+.1f} points, {low} to {high})".replace("-", "−")
    if verdict(test, ALPHA) == "no difference shown":
        return [f"Between h and z, which reads {percent(z.value)} %, no difference is shown {gap}."]
    side = "lower" if z.value < h.value else "higher"
    return [f"The projection z reads {side}: {percent(z.value)} % {gap}."]


def _best_tap(evaluation: Evaluation, probe: str) -> list[str]:
    h = evaluation.numbers[f"{probe}/h"]
    taps = evaluation.taps([probe])
    if not set(taps) - {"h", "z"}:
        return []
    best = max(taps, key=lambda tap: evaluation.numbers[f"{probe}/{tap}"].value)
    top = evaluation.numbers[f"{probe}/{best}"]
    if best == "h":
        return [f"Of the {len(taps)} taps measured none reads higher than h."]
    # The best was chosen by looking at all of them.
    found = _compared(evaluation, top, h, len(taps) - 1)
    doubt = {"no difference shown": ", but no difference from h is shown", "": ", untested"}
    return [
        f"Of the {len(taps)} taps measured {best} reads highest ({percent(top.value)} %)"
        f"{doubt.get(found, '')}."
    ]


def _few_labels(evaluation: Evaluation) -> list[str]:
    measures = evaluation.measures(r"semi_[\d.]+")
    if not measures:
        return []
    fewest = min(measures, key=lambda measure: float(measure.removeprefix("semi_")))
    ours, scratch = (evaluation.get(fewest, what) for what in ("finetuned", "scratch"))
    if ours is None or scratch is None:
        return []
    opening = f"Fine-tuned with {fewest.removeprefix('semi_')} % of the labels the network reaches"
    doubt = {"no difference shown": ": no difference shown", "": ", untested"}
    return [
        f"{opening} {percent(ours.value)} %, from scratch {percent(scratch.value)} %"
        f"{doubt.get(_compared(evaluation, ours, scratch, 1), '')}."
    ]


def _leakage(evaluation: Evaluation) -> list[str]:
    sentence = leakage_sentence(evaluation)
    return [sentence] if sentence and evaluation.measures("leakage_.*") else []


def _against_run(evaluation: Evaluation) -> list[str]:
    compared = [n for n in evaluation.numbers.values() if n.measure == "difference"]
    if not compared:
        return []
    other = Path(compared[0].result.get("against", "another run")).name
    shown = sum(n.result.get("verdict") in ("higher", "lower") for n in compared)
    words = f"of {len(compared)} values compared with {other} {shown or 'none'}"
    counted = f"{words} {'are' if shown > 1 else 'is'} shown to differ"
    found = next((n for name in _PROBES if (n := evaluation.get("difference", f"{name}/h"))), None)
    if found is None:
        return [f"{counted[0].upper()}{counted[1:]}."]
    points = f"{percent(abs(found.value))} points"
    if found.result.get("verdict") == "no difference shown":
        return [f"Against {other}, no difference of h is shown ({points}); {counted}."]
    side = "higher" if found.value > 0 else "lower"
    return [f"Against {other}, h reads {points} {side}; {counted}."]


def _without_probe(evaluation: Evaluation) -> list[str]:
    ranks = [n for tap in ("h", "z") if (n := evaluation.get("rank", tap)) is not None]
    if not ranks:
        count = len(evaluation.numbers)
        return [f"{count} number{'' if count == 1 else 's'} measured, none by a probe on h."]
    words = " and of ".join(f"{n.what} is {n.text}" for n in ranks)
    return [
        f"The effective rank of {words}.",
        "No probe with labels was run on h, so no accuracy can be given; "
        "a higher rank need not mean a better h.",
    ]


def _noise(evaluation: Evaluation) -> str:
    seeds = max(len(n.result.get("seeds", ())) for n in evaluation.numbers.values())
    several = f", and σ over the {seeds} seeds of the evaluation," if seeds > 1 else ""
    return (
        f"Intervals{several} are those of one pretrained run: "
        "pretraining with another seed could move every number by more."
    )


def _compared(evaluation: Evaluation, a: Number, b: Number, comparisons: int) -> str:
    """`verdict`, the level shared among so many comparisons; empty where no test can be made."""
    test = evaluation.paired(a, b)
    return verdict(test, ALPHA / comparisons) if test else ""
