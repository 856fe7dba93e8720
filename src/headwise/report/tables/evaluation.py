"""The tables of an evaluation: every number of results.json once, by section of the page."""

import re
from dataclasses import dataclass

from headwise.report.reading.evaluation import Evaluation, Number, is_share, number_text
from headwise.report.tables.comparison import Cell

_LABELS = {
    "knn": "kNN",
    "knn_weighted": "weighted kNN",
    "knn_self": "1-NN among test images",
    "linear": "linear probe",
    "linear_sgd": "linear layer by SGD",
    "cluster": "k-means",
    "cluster_spectral": "spectral clustering",
    "factors": "mean of the factors",
    "rank": "effective rank",
    "std": "standard deviation",
    "separation": "class separation",
    "cka": "CKA",
    "cka_runs": "CKA with the other run",
    "renyi": "Rényi information",
    "finetune": "all labels",
    "transfer_linear": "linear probe",
    "transfer_untrained": "linear probe, untrained encoder",
    "transfer_finetune": "fine-tuned",
    "leakage": "sorted − shuffled",
    "leakage_knn": "kNN",
    "leakage_knn_self": "1-NN among test images",
    "fusion_gain": "fusion gain",
    "fusion_gain_untrained": "gain, untrained head",
    "fusion_gain_h": "gain, h at equal entropy",
    "fusion_twin_mass": "attention to the twin",
    "fusion_self_mass": "attention to itself",
    "fusion_other_mass": "attention to other images",
    "fusion_auroc": "same class, AUROC",
    "fusion_nmi": "clusters of attention, NMI",
    "fusion_nn1": "1-NN within the batch",
}
_TARGET_METRICS = {"per_class": "mean per class", "map11": "11-point mAP"}
_METRICS = {"_top5": "top 5", "_per_class": "mean per class", "_nmi": "NMI", "_ari": "ARI"}


@dataclass(frozen=True, kw_only=True)
class Row:
    label: str
    cells: list[Cell]


@dataclass(frozen=True, kw_only=True)
class Table:
    columns: list[str]
    rows: list[Row]


def measures_by_what(evaluation: Evaluation, measures: list[str]) -> Table:
    """A row a measure, a column a tap (or what else was measured); then chance, n and seeds."""
    whats = evaluation.whats(measures)
    lines = [
        (label(measure), [evaluation.get(measure, what) for what in whats]) for measure in measures
    ]
    return _table(lines, whats)


def transfer_table(evaluation: Evaluation, measures: list[str]) -> Table:
    """A row a target with its metric, a column a measure."""
    lines = []
    for target in evaluation.whats(measures):
        numbers = [evaluation.get(measure, target) for measure in measures]
        metrics = [n.result.get("metric", "") for n in numbers if n is not None]
        words = _TARGET_METRICS.get(metrics[0], "")
        lines.append((f"{target}, {words}" if words else target, numbers))
    return _table(lines, [label(measure) for measure in measures])


def pairs_table(evaluation: Evaluation, measures: list[str]) -> Table:
    """A row a pair of taps, a column a measure."""
    lines = [
        (what, [evaluation.get(measure, what) for measure in measures])
        for what in evaluation.whats(measures)
    ]
    return _table(lines, [label(measure) for measure in measures])


def robustness_table(evaluation: Evaluation, measures: list[str]) -> Table:
    """A row an augmentation, columns of accuracy and cosine by tap."""
    kinds = {"robustness": "accuracy", "invariance": "cosine"}
    taps = evaluation.whats(measures)
    lines = [
        (
            augmentation.replace("_", " "),
            [evaluation.get(f"{kind}_{augmentation}", tap) for kind in kinds for tap in taps],
        )
        for augmentation in dict.fromkeys(measure.partition("_")[2] for measure in measures)
    ]
    return _table(lines, [f"{words}, {tap}" for words in kinds.values() for tap in taps])


def differences(evaluation: Evaluation) -> Table:
    """A row for every value that was compared with another run's."""
    rows = []
    for number in evaluation.numbers.values():
        if number.measure == "difference":
            measure, _, what = number.what.partition("/")
            half = (number.interval[1] - number.interval[0]) / 2
            value = Cell(
                text=signed(measure, number.value),
                spread=number_text(measure, half) if "interval" in number.result else "",
            )
            words = [
                _p(number.result.get("p_value")),
                number.result.get("verdict", ""),
                _count(number.result.get("n")),
            ]
            rows.append(
                Row(
                    label=f"{label(measure)}, {what}", cells=[value, *(Cell(text=w) for w in words)]
                )
            )
    return Table(columns=["difference", "p", "verdict", "n"], rows=rows)


def fusion_table(evaluation: Evaluation, measures: list[str]) -> Table:
    """A row a measure, a column a tap; last whether fusion is shown there. The slope along the
    blocks is in the conclusion."""
    by_tap = [measure for measure in measures if measure != "fusion_slope"]
    table = measures_by_what(evaluation, by_tap)
    gains = [evaluation.get("fusion_gain", what) for what in table.columns]
    if not any(gains):
        return table
    p_values = [_p(n.result.get("p_value")) if n else "" for n in gains]
    verdicts = [("shown" if n.result.get("shown") else "not shown") if n else "" for n in gains]
    rows = {"p, permuted labels": p_values, "fusion": verdicts}
    last = [
        Row(label=label, cells=[Cell(text=text) for text in row]) for label, row in rows.items()
    ]
    return Table(columns=table.columns, rows=[*table.rows, *last])


def signed(measure: str, value: float) -> str:
    return ("+" if value > 0 else "") + number_text(measure, value)


def label(measure: str) -> str:
    """A measure in words."""
    if measure in _LABELS:
        return _LABELS[measure]
    for suffix, words in _METRICS.items():
        if measure.endswith(suffix):
            return f"{label(measure.removesuffix(suffix))}, {words}"
    if match := re.fullmatch(r"linear_([\d.]+)", measure):
        return f"linear probe, {match[1]} % of labels"
    if match := re.fullmatch(r"semi_([\d.]+)", measure):
        return f"{match[1]} % of labels"
    return re.sub(r"^(factor|transformation|transfer|leakage)_", "", measure).replace("_", " ")


def _table(lines: list[tuple[str, list[Number | None]]], columns: list[str]) -> Table:
    facts = [_facts([n for n in numbers if n is not None]) for _, numbers in lines]
    names = [name for name in ("chance", "n", "seeds") if any(fact[name] for fact in facts)]
    rows = []
    for (words, numbers), fact in zip(lines, facts, strict=True):
        cells = [Cell(text=n.text, spread=n.spread) if n else Cell(text="") for n in numbers]
        rows.append(Row(label=words, cells=[*cells, *(Cell(text=fact[name]) for name in names)]))
    return Table(columns=[*columns, *names], rows=rows)


def _facts(numbers: list[Number]) -> dict[str, str]:
    """What the numbers of a row have in common, or from where to where it runs."""
    chances = sorted((n.chance, n.measure) for n in numbers if n.chance is not None)
    if len({is_share(measure) for _, measure in chances}) > 1:
        chances = []  # of different scales
    counts = sorted(n for number in numbers if (n := number.result.get("n")) is not None)
    seeds = sorted(len(number.result.get("seeds", ())) for number in numbers)
    return {
        "chance": _range([number_text(measure, chance) for chance, measure in chances]),
        "n": _range([_count(n) for n in counts]),
        "seeds": _range([str(count) for count in seeds if count]),
    }


def _range(texts: list[str]) -> str:
    """Of ascending numbers."""
    ends = [*texts[:1], *texts[-1:]]
    return "–".join(dict.fromkeys(ends))


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _count(n: int | None) -> str:
    return "" if n is None else f"{n:,}"
