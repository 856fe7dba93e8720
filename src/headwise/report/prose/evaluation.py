"""What an evaluation found, in plain words, no stronger than its numbers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from headwise.model.trained import seen_words
from headwise.report.prose.worth import worth
from headwise.report.reading.evaluation import Evaluation, Gap
from headwise.report.tables.numbers import interval_of, value_text
from headwise.report.words import counted, interval_text, listed, percent, points
from headwise.runs.results import Result

ONE_RUN_OF_EACH = (
    "One run of each: this describes these two networks; a comparison of heads needs "
    "`headwise compare --seeds 5`"
)
"""What a difference between two trained networks is."""

_PROBES = {"linear": "linear probe", "knn": "nearest-neighbour probe"}
_BASELINES = {
    "pixels": "raw pixels",
    "untrained": "the same encoder untrained",
    "start": "its start weights",
}
_CLASSES = 6
"""Classes whose recall a sentence has at most: those with the fewest test images."""


class _Baseline(NamedTuple):
    """Something that h is set beside."""

    words: str
    value: float
    difference: float
    """h minus it."""
    gap: Gap | None
    """The same with its interval; None if it could not be tested."""


def plain_evaluation(evaluation: Evaluation) -> list[str]:
    """Plain text that is not escaped. The first entry is what matters most: a probe on h against
    a constant answer, raw pixels, the untrained encoder and training from scratch. Then come
    whether pretraining was worth it, z, leakage, another run, and what the intervals cover. Before
    them stands whether pretraining was too short, and whether it saw test images."""
    probe = next((name for name in _PROBES if evaluation.get(name, "h")), None)
    h = evaluation.leading(probe, "h") if probe else None
    scratch = _against_scratch(evaluation)
    if h is not None:
        lead = [*_reached(evaluation, h), *_against_baselines(evaluation, h), *scratch]
        sentences = [
            " ".join(lead),
            *_recalls(evaluation, h),
            *_worth(evaluation, h),
            *_z(evaluation, h),
        ]
    else:
        sentences = [" ".join(scratch)] if scratch else _without_probe(evaluation)
    sentences += _leakage(evaluation) + _against_run(evaluation)
    return [*before_all(evaluation), *sentences, _noise(evaluation)]


def before_all(evaluation: Evaluation) -> list[str]:
    """What is said before any number: pretraining was too short, or it saw test images."""
    data = evaluation.data
    seen = f"{seen_words(data.seen_images, data.test_images or 0)}." if data.seen_images else ""
    return list(filter(None, [evaluation.too_short, seen]))


def leakage_sentence(evaluation: Evaluation) -> str:
    """Empty if it was not measured."""
    result = evaluation.get("leakage", "z")
    return f"Leakage: {result.verdict}." if result and result.verdict else ""


def _reached(evaluation: Evaluation, h: Result) -> Iterator[str]:
    low, high = interval_of(h)
    kind = "balanced accuracy" if h.metric else "accuracy"
    if evaluation.unbalanced:
        classes, counts = np.unique(evaluation.truth, return_counts=True)
        yield (
            f"The largest of {len(classes)} classes has {percent(counts.max() / counts.sum())} % "
            "of the test images, so balanced accuracy comes first."
        )
    yield (
        f"A {_PROBES[h.measure]} on h reaches {percent(h.value)} % {kind} "
        f"(95 % interval {interval_text(low, high)}) on {h.n:,} test images."
    )


def _against_baselines(evaluation: Evaluation, h: Result) -> list[str]:
    """The plain accuracies follow where balanced accuracy leads."""
    found = _baselines(evaluation, h)
    if constant := evaluation.constant(h):
        value, gap = constant
        found.insert(0, _Baseline("a constant answer", value, gap.value, gap))
    sentences = [f"This network {clause}." for clause in _clauses(found)]
    return sentences + (_accuracies(evaluation, h) if h.metric else [])


def _baselines(evaluation: Evaluation, h: Result) -> list[_Baseline]:
    known = {words: evaluation.beside(h, name) for name, words in _BASELINES.items()}
    return [_baseline(evaluation, h, base, words) for words, base in known.items() if base]


def _worth(evaluation: Evaluation, h: Result) -> list[str]:
    """Whether pretraining was worth it, against all that was measured without it."""
    found, tuned = _baselines(evaluation, h), evaluation.leading("finetune", "h")
    scratch = evaluation.beside(tuned, "scratch") if tuned else None
    if tuned and scratch:
        found.append(_baseline(evaluation, tuned, scratch, "training from scratch"))
    above = [b.words for b in found if b.gap and b.gap.shown and b.difference > 0]
    others = [base.words for base in found if base.words not in above]
    return [worth("for this network", above, others)] if found else []


def _accuracies(evaluation: Evaluation, h: Result) -> list[str]:
    """The same without balance: no comparison, since one has been made."""
    usual = {
        words: evaluation.get(h.measure, where) for where, words in {"h": "h", **_BASELINES}.items()
    }
    known = [f"{percent(result.value)} % for {words}" for words, result in usual.items() if result]
    top = usual["h"]
    if top is not None and (constant := evaluation.constant(top)):
        known.insert(1, f"{percent(constant[0])} % for a constant answer")
    return [f"The plain accuracy is {listed(known)}."]


def _recalls(evaluation: Evaluation, h: Result) -> list[str]:
    """The share of each class that is found, where classes are unbalanced."""
    right = evaluation.arrays.get(f"each/{h.measure}/h")
    truth = evaluation.arrays.get("truth/constant", np.empty(0))
    if not h.metric or right is None or right.shape != truth.shape:
        return []
    classes, counts = np.unique(truth, return_counts=True)
    rarest = np.argsort(counts, kind="stable")[:_CLASSES]
    names = evaluation.data.classes
    found = [
        f"{names[label] if label < len(names) else label} "
        f"{percent(right[truth == label].mean().item())} % of {counts[i]:,}"
        for i, label in zip(rarest, classes[rarest].tolist(), strict=True)
    ]
    which = "each class" if len(found) == len(classes) else f"each of the {len(found)} rarest"
    return [f"Recall in {which}, rarest first: {listed(found)} test images."]


def _against_scratch(evaluation: Evaluation) -> list[str]:
    """The fine-tuned network against the same network trained from scratch on the same labels."""
    arms = [("semi", "finetuned", r.variant) for r in evaluation.of("semi")]
    arms = sorted(set(arms), key=lambda arm: float(arm[2]))
    sentences = []
    for measure, where, share in [*arms, ("finetune", "h", "")]:
        ours = evaluation.leading(measure, where, share)
        scratch = evaluation.beside(ours, "scratch") if ours else None
        if ours is None or scratch is None:
            continue
        base = _baseline(evaluation, ours, scratch, "training from scratch on the same labels")
        kind = "balanced accuracy" if ours.metric else "accuracy"
        sentences += [
            f"Fine-tuned on {f'{share} % of the' if share else 'all'} labels, it reaches "
            f"{percent(ours.value)} % {kind} and {clause}."
            for clause in _clauses([base])
        ]
    return sentences


def _baseline(evaluation: Evaluation, h: Result, base: Result, words: str) -> _Baseline:
    return _Baseline(words, base.value, h.value - base.value, evaluation.gap(h, base))


def _clauses(found: Sequence[_Baseline]) -> Iterator[str]:
    """`is below raw pixels (31.5 %) by 6.5 points (4.1 to 8.9)`: those below first, then those
    above, then those of which the images show neither. What could not be tested says so."""
    decided = [base for base in found if base.gap is None or base.gap.shown]
    below = [base for base in decided if base.difference < 0]
    above = [base for base in decided if base.difference > 0]
    for side, bases in (("below", below), ("above", above)):
        if bases:
            yield f"is {side} {listed([_by(base) for base in bases])}"
    open_ = [base for base in found if base not in [*below, *above]]
    if open_:
        yield f"is not shown to be above {listed([_undecided(base) for base in open_], 'or')}"


def _by(base: _Baseline) -> str:
    said = f"{base.words} ({percent(base.value)} %) by {points(abs(base.difference))}"
    if base.gap is None:
        return f"{said} (untested)"
    low, high = sorted(abs(end) for end in base.gap[1:])
    return f"{said} ({interval_text(low, high)})"


def _undecided(base: _Baseline) -> str:
    within = "untested" if base.gap is None else _interval(base.gap)
    return (
        f"{base.words} ({percent(base.value)} %; the difference is "
        f"{points(base.difference, signed=True)}, {within})"
    )


def _interval(gap: Gap) -> str:
    return interval_text(gap.low, gap.high, signed=True)


def _z(evaluation: Evaluation, h: Result) -> list[str]:
    if evaluation.z_is_h:
        return ["The head is the identity, so z is h."]
    z = evaluation.beside(h, "z")
    gap = evaluation.gap(h, z) if z else None
    if z is None or gap is None:
        return []
    aware = ", which also depends on the images in its batch," if evaluation.batch_aware else ""
    doubt = "" if gap.shown else ": no difference between them is shown"
    return [
        f"The same probe on z{aware} reaches {percent(z.value)} %; for this network h − z is "
        f"{points(gap.value, signed=True)} ({_interval(gap)}){doubt}."
    ]


def _leakage(evaluation: Evaluation) -> list[str]:
    sentence = leakage_sentence(evaluation)
    measured = evaluation.of("leakage_knn", "leakage_knn_self")
    return [sentence] if sentence and measured else []


def _against_run(evaluation: Evaluation) -> list[str]:
    """The difference to another run, which is no verdict on their heads."""
    compared = {result.key: result for result in evaluation.differences}
    if not compared:
        return []
    other = Path(next(iter(compared.values())).against or "another run").name
    metric = "_per_class" if evaluation.unbalanced else ""
    keys = [f"difference/{probe}{end}/h" for end in (metric, "") for probe in _PROBES]
    h = next((compared[key] for key in keys if key in compared), None)
    if h is None:
        said = f"{counted(len(compared), 'value')} of this run and of {other} were compared"
        return [f"{said}. {ONE_RUN_OF_EACH}."]
    gap = Gap(h.value, *interval_of(h))
    kind = "balanced accuracy" if h.metric else "accuracy"
    return [
        f"This run minus {other}, {kind} of a {_PROBES[h.measure]} on h: "
        f"{points(gap.value, signed=True)} ({_interval(gap)}). {ONE_RUN_OF_EACH}."
    ]


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
    several = f" σ is over {seeds} seeds of the evaluation." if seeds > 1 else ""
    return (
        f"Intervals are at 95 %, over test images.{several} All of this describes one pretrained "
        "network; pretraining with another seed could change every number by more."
    )
