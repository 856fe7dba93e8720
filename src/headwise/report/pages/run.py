"""`report.html` of one run, evaluated or with its fusion measured: a page that needs nothing
else."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from headwise.model.trained import load_config
from headwise.report.pages.fusion import fusion_sections
from headwise.report.pages.rendering import render, settings, word, write_page
from headwise.report.pages.section import Section
from headwise.report.plots import evaluation as figures
from headwise.report.plots.drawing import Drawing, style
from headwise.report.plots.grids import (
    WIDE_CLASSES,
    confusion_matrix,
    factor_grid,
    most_confused,
    parameter_grid,
)
from headwise.report.prose.evaluation import leakage_sentence, plain_evaluation
from headwise.report.reading.evaluation import Evaluation, Number, read_evaluation
from headwise.report.reading.fusion import read_fusion
from headwise.report.tables.evaluation import (
    Table,
    differences,
    measures_by_what,
    pairs_table,
    robustness_table,
    transfer_table,
)
from headwise.runs.directory import Run

OTHERS = r"(?!fusion_).*"
"""Measures that are not the fusion lab's, whose sections need its arrays."""

# By section: which measures it has, its title, and what to know when reading it.
_SECTIONS = {
    "taps": (
        r"(knn|linear|cluster)[\w.]*",
        "What can be read at every tap",
        "Percent of test images named correctly by probes of frozen features. NMI and ARI of "
        "clusters run from 0 (chance) to 1.",
    ),
    "transformations": (
        r"transformation_\w+",
        "What was done to an image",
        "An MLP says from frozen features which transformation was applied, percent correct, "
        "beside the values of SimCLR's table 3 (ResNet-50 on ImageNet). Parameters of views "
        "(crop, brightness, hue, blur): R² of a ridge regression, 0 for a constant guess.",
    ),
    "factors": (
        r"factors?(_\w+)?",
        "What else is kept",
        "How well a factor other than the class is read, 0 (a constant guess) to 1 (exactly). "
        "What h holds and z does not, the head has taken out.",
    ),
    "geometry": (
        "rank|uniformity|alignment|std|separation",
        "Geometry",
        "No end of these scales is the better one as such. Class separation alone needs labels. "
        "A steep fall of the singular values means that few directions are in use; a break to "
        "nothing is dimensional collapse.",
    ),
    "pairs": (
        "cka|cka_runs|renyi",
        "What taps share with h",
        "Linear CKA: 1 where one is a rotation and scaling of the other. Rényi information: "
        "matrix-based mutual information of order 2.",
    ),
    "labels": (
        r"(semi|finetune)[\w.]*",
        "Fine-tuned, with few labels and with all",
        "The whole network is trained on labels, from the pretrained weights and from scratch.",
    ),
    "transfer": (
        r"transfer_\w+",
        "Transfer to other images",
        "In each target's own metric.",
    ),
    "leakage": (
        r"leakage\w*",
        "Whether batch-mates leak",
        "The z of a head that looks at the whole batch depends on which images share it. The "
        "headline is the shuffled number; h never depends on batch-mates.",
    ),
    "robustness": (
        r"(robustness|invariance)_[\w.]+",
        "What augmentations do",
        "Accuracy of a linear probe that was fitted on unchanged images, in percent in the table, "
        "and cosine between the features of an image with and without the augmentation. Dotted: "
        "chance, and the cosine of different images.",
    ),
    "differences": (
        "difference",
        "Against another run",
        "This run minus the other, on the same test images, each by a paired test at 5 % on its "
        "own: of twenty equal values one is called different.",
    ),
    "others": (".*", "Other numbers", ""),
}


def write_run_report(run_path: Path) -> Path:
    """Write `report.html` and, as SVG, PNG and CSV, `figures/` into the run's directory; the path
    of the page.

    Reads what `headwise evaluate`, `headwise fusion` and pretraining wrote there; equal content
    gives equal bytes. Raises `UserError` where there is no finished run, or no result.
    """
    evaluation, fusion = read_evaluation(run_path), read_fusion(run_path)
    with style():
        sections = _sections(evaluation, evaluation.measures(OTHERS if fusion else r".*"))
        if fusion is not None:
            head = load_config(Run(run_path)).head
            sections += fusion_sections(fusion, head, evaluation)
    drawings = [drawing for section in sections for drawing in section.drawings + section.wide]
    html = render("run.html", _values(evaluation, sections))
    return write_page(run_path, html, drawings)


def _sections(evaluation: Evaluation, left: list[str]) -> list[Section]:
    """Those with numbers; every measure of `left` is in one."""
    sections = []
    for anchor, (pattern, title, note) in _SECTIONS.items():
        measures = [measure for measure in left if re.fullmatch(pattern, measure)]
        left = [measure for measure in left if measure not in measures]
        if not measures:
            continue
        drawings = _drawings(evaluation, anchor)
        wide = [d for d in drawings if d.name == "confusion" and _many_classes(evaluation)]
        sections.append(
            Section(
                anchor=anchor,
                title=title,
                table=_table(evaluation, anchor, measures),
                note=" ".join(filter(None, [note, _finding(evaluation, anchor)])),
                drawings=[drawing for drawing in drawings if drawing not in wide],
                wide=wide,
            )
        )
    return sections


def _table(evaluation: Evaluation, anchor: str, measures: list[str]) -> Table:
    match anchor:
        case "transfer":
            return transfer_table(evaluation, measures)
        case "pairs":
            return pairs_table(evaluation, measures)
        case "robustness":
            return robustness_table(evaluation, measures)
        case "differences":
            return differences(evaluation)
        case _:
            return measures_by_what(evaluation, measures)


def _drawings(evaluation: Evaluation, anchor: str) -> list[Drawing]:
    match anchor:
        case "taps":
            found = [figures.taps_curve(evaluation), confusion_matrix(evaluation)]
        case "transformations":
            found = [figures.transformation_bars(evaluation), parameter_grid(evaluation)]
        case "factors":
            found = [factor_grid(evaluation)]
        case "geometry":
            found = [figures.tap_spectra(evaluation)]
        case "labels":
            found = [figures.semi_curve(evaluation)]
        case "leakage":
            found = [figures.leakage_bars(evaluation)]
        case "robustness":
            found = [figures.robustness_panels(evaluation)]
        case _:
            found = []
    return [drawing for drawing in found if drawing is not None]


def _finding(evaluation: Evaluation, anchor: str) -> str:
    match anchor:
        case "taps":
            return most_confused(evaluation)
        case "leakage":
            return leakage_sentence(evaluation)
        case _:
            return ""


def _many_classes(evaluation: Evaluation) -> bool:
    return len(evaluation.arrays["confusion/linear/h"]) > WIDE_CLASSES


def _values(evaluation: Evaluation, sections: list[Section]) -> dict[str, Any]:
    """What the template asks for."""
    lead, *sentences = _result(evaluation, sections)
    numbers = list(evaluation.numbers.values())
    return {
        "name": evaluation.name,
        "data": _commonest(numbers, "data"),
        "facts": _facts(evaluation),
        "lead": lead,
        "sentences": sentences,
        "sections": sections,
        "fusion": any(section.anchor == "fusion" for section in sections),
        "settings": settings({name: n.result for name, n in evaluation.numbers.items()}),
        "run": _run(evaluation),
        "config": json.dumps(evaluation.config, indent=2, ensure_ascii=False),
    }


def _result(evaluation: Evaluation, sections: list[Section]) -> list[str]:
    """What was found, first in one sentence."""
    if evaluation.measures(OTHERS):
        return plain_evaluation(evaluation)
    fused = [line for section in sections for line in section.lines[:1]]
    return [*fused, "No evaluation has measured the features of this run: headwise evaluate does."]


def _facts(evaluation: Evaluation) -> list[str]:
    numbers = list(evaluation.numbers.values())
    seeds = max((len(n.result.get("seeds", ())) for n in numbers), default=0)
    device = evaluation.environment.get("device_name") or evaluation.environment.get("device")
    return [
        *([f"{len(numbers)} numbers"] if numbers else []),
        *([f"{seeds} seed{'' if seeds == 1 else 's'} of the evaluation"] if seeds else []),
        *([str(device)] if device else []),
    ]


def _run(evaluation: Evaluation) -> dict[str, str]:
    """What the numbers depend on."""
    numbers = list(evaluation.numbers.values())
    found = {key: _distinct(numbers, key) for key in ("data", "fingerprint", "protocol", "version")}
    about = {
        "images": found["data"],
        "fingerprint": found["fingerprint"],
        "protocols": found["protocol"],
        "version of the protocols": found["version"],
    }
    environment = {f"pretraining {key}": word(v) for key, v in evaluation.environment.items()}
    return {key: value for key, value in (about | environment).items() if value}


def _distinct(numbers: list[Number], key: str) -> str:
    return ", ".join(dict.fromkeys(word(n.result[key]) for n in numbers if key in n.result))


def _commonest(numbers: list[Number], key: str) -> str:
    counts = Counter(n.result[key] for n in numbers if key in n.result)
    return counts.most_common(1)[0][0] if counts else ""
