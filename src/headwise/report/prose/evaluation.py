"""What an evaluation found, in plain words, no stronger than its numbers."""

from pathlib import Path

from headwise.evaluation.statistics.tests import verdict
from headwise.model.trained import seen_words
from headwise.report.reading.evaluation import Evaluation, taps
from headwise.report.tables.numbers import interval_of, value_text
from headwise.report.words import counted, listed, percent
from headwise.runs.results import Result

ALPHA = 0.05
"""The level of all comparisons that a sentence makes, together."""
NOT_SHOWN = "no difference shown"
"""What a test says of a difference within noise."""

_PROBES = {"linear": "linear probe", "knn": "nearest-neighbour probe"}
_BASELINES = {"pixels": "raw pixels", "untrained": "the same encoder untrained"}
_MOST = 6
"""Sentences at most, the last of them on the noise."""


def plain_evaluation(evaluation: Evaluation) -> list[str]:
    """At most six sentences, plain text that is not escaped: the accuracy of a probe on h, against
    baselines, against z and other taps; leakage; another run; few labels; and what the intervals
    cover. Before them, if pretraining saw test images, how many."""
    probe = next((name for name in _PROBES if evaluation.get(name, "h")), None)
    h = evaluation.get(probe, "h") if probe else None
    if h is None:
        sentences = _without_probe(evaluation)
    else:
        sentences = [_accuracy(h) + _one_class(evaluation, h)]
        sentences += [*_against_baselines(evaluation, h), *_against_z(evaluation, h)]
    sentences += _leakage(evaluation) + _against_run(evaluation)
    if h is not None:
        sentences += _best_tap(evaluation, h)
    sentences += _few_labels(evaluation)
    return [*seen_sentence(evaluation), *sentences[: _MOST - 1], _noise(evaluation)]


def seen_sentence(evaluation: Evaluation) -> list[str]:
    """Where pretraining saw test images: how many."""
    data = evaluation.data
    if not data.seen_images:
        return []
    return [f"{seen_words(data.seen_images, data.test_images or 0)}."]


def leakage_sentence(evaluation: Evaluation) -> str:
    """Empty if it was not measured."""
    result = evaluation.get("leakage", "z")
    return f"Leakage: {result.verdict}." if result and result.verdict else ""


def _accuracy(h: Result) -> str:
    low, high = interval_of(h)
    chance = "" if h.chance is None else f"; chance is {percent(h.chance)} %"
    return (
        f"A {_PROBES[h.measure]} on h reaches {percent(h.value)} % accuracy "
        f"(95 % interval {percent(low)} to {percent(high)}) on {h.n:,} test images{chance}."
    )


def _one_class(evaluation: Evaluation, h: Result) -> str:
    """What to read where most test images are of one class; empty where they are not."""
    classes = len(evaluation.data.classes)
    if h.chance is None or not classes or h.chance < max(0.5, 1.5 / classes):
        return ""
    mean = evaluation.results.get(f"{h.measure}_per_class/h")
    read = f"the mean over classes is {percent(mean.value)} %" if mean else "compare with chance"
    return f" Most test images are of one class: {read}."


def _against_baselines(evaluation: Evaluation, h: Result) -> list[str]:
    found = {name: evaluation.get(h.measure, name) for name in _BASELINES}
    bases = {name: result for name, result in found.items() if result}
    apart, near = [], []
    for name, base in bases.items():
        against = f"{_BASELINES[name]} ({percent(base.value)} %)"
        test = _compared(evaluation, h, base, len(bases))
        if test == NOT_SHOWN:
            near.append(against)
        else:
            side = "above" if h.value > base.value else "below"
            untested = "" if test else " (untested)"
            apart.append(f"{percent(abs(h.value - base.value))} points{untested} {side} {against}")
    sentences = [f"That is {listed(apart)}."] if apart else []
    return sentences + ([f"No difference from {listed(near, 'or')} is shown."] if near else [])


def _against_z(evaluation: Evaluation, h: Result) -> list[str]:
    z = evaluation.get(h.measure, "z")
    test = evaluation.paired(h, z) if z else None
    if z is None or test is None:
        return []
    low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in test.interval)
    gap = f"(h − z: {100 * test.difference:+.1f} points, {low} to {high})".replace("-", "−")
    aware = ", which also depends on the images in its batch," if evaluation.batch_aware else ""
    reached = f"The same probe on z{aware} reaches {percent(z.value)} %"
    if verdict(test, ALPHA) == NOT_SHOWN:
        return [f"{reached}; no difference between h and z is shown {gap}."]
    return [f"{reached}, which is {'lower' if z.value < h.value else 'higher'} {gap}."]


def _best_tap(evaluation: Evaluation, h: Result) -> list[str]:
    measured = {result.where: result for result in evaluation.of(h.measure)}
    along = taps(measured.values())
    if not set(along) - {"h", "z"}:
        return []
    best = max(along, key=lambda tap: measured[tap].value)
    if best == "h":
        return [f"None of the {len(along)} taps measured has a higher accuracy than h."]
    # The best was chosen by looking at all of them.
    found = _compared(evaluation, measured[best], h, len(along) - 1)
    doubt = {NOT_SHOWN: ", but no difference from h is shown", "": ", untested"}
    return [
        f"Of the {len(along)} taps measured, {best} has the highest accuracy "
        f"({percent(measured[best].value)} %){doubt.get(found, '')}."
    ]


def _few_labels(evaluation: Evaluation) -> list[str]:
    shares = [result.variant for result in evaluation.of("semi")]
    if not shares:
        return []
    fewest = min(shares, key=float)
    ours, scratch = (evaluation.get("semi", arm, fewest) for arm in ("finetuned", "scratch"))
    if ours is None or scratch is None:
        return []
    doubt = {NOT_SHOWN: "; no difference is shown", "": " (untested)"}
    return [
        f"Fine-tuned on {fewest} % of the labels, the network reaches {percent(ours.value)} % "
        f"accuracy; trained from scratch, {percent(scratch.value)} %"
        f"{doubt.get(_compared(evaluation, ours, scratch, 1), '')}."
    ]


def _leakage(evaluation: Evaluation) -> list[str]:
    sentence = leakage_sentence(evaluation)
    measured = evaluation.of("leakage_knn", "leakage_knn_self")
    return [sentence] if sentence and measured else []


def _against_run(evaluation: Evaluation) -> list[str]:
    compared = evaluation.differences
    if not compared:
        return []
    other = Path(compared[0].against or "another run").name
    shown = sum(result.verdict in ("higher", "lower") for result in compared)
    verb = "differs" if shown == 1 else "differ"
    of_all = f"{shown or 'none'} of {counted(len(compared), 'compared value')} {verb} beyond noise"
    h = next((r for r in compared if r.key in (f"difference/{p}/h" for p in _PROBES)), None)
    if h is None:
        return [f"Compared with {other}, {of_all}."]
    points = f"{percent(abs(h.value))} points"
    if h.verdict == NOT_SHOWN:
        return [f"Compared with {other}, no difference of h is shown ({points}); {of_all}."]
    side = "higher" if h.value > 0 else "lower"
    return [f"Compared with {other}, the probe on h is {points} {side}; {of_all}."]


def _without_probe(evaluation: Evaluation) -> list[str]:
    ranks = [r for tap in ("h", "z") if (r := evaluation.get("rank", tap)) is not None]
    if not ranks:
        numbers = counted(len(evaluation.results), "number")
        return [f"The evaluation has {numbers}, but none from a probe on h."]
    words = " and of ".join(f"{rank.where} is {value_text(rank)}" for rank in ranks)
    return [
        f"The effective rank of {words}.",
        "No probe with labels was run on h, so no accuracy can be given; "
        "a higher rank need not mean a better h.",
    ]


def _noise(evaluation: Evaluation) -> str:
    results = [*evaluation.results.values(), *evaluation.differences]
    seeds = max((len(result.seeds) for result in results), default=0)
    several = f" and σ (over {seeds} seeds of the evaluation)" if seeds > 1 else ""
    return (
        f"The intervals{several} describe one pretrained run; "
        "pretraining with another seed could change every number by more."
    )


def _compared(evaluation: Evaluation, a: Result, b: Result, comparisons: int) -> str:
    """The verdict of a test whose level is shared among so many comparisons; empty if no test can
    be made."""
    test = evaluation.paired(a, b)
    return verdict(test, ALPHA / comparisons) if test else ""
