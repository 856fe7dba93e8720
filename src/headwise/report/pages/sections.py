"""The sections of a run's page: which results, tables and figures stand under which title."""

from collections.abc import Sequence

from headwise.evaluation.protocols.description import PageSection
from headwise.report.pages.part import PagePart
from headwise.report.plots import evaluation as figures
from headwise.report.plots.drawing import Drawing
from headwise.report.plots.grids import (
    WIDE_CLASSES,
    confusion_matrix,
    factor_grid,
    most_confused,
    parameter_grid,
)
from headwise.report.prose.evaluation import ONE_RUN_OF_EACH, leakage_sentence
from headwise.report.reading.evaluation import Evaluation
from headwise.report.tables.evaluation import (
    apart_table,
    differences_table,
    robustness_table,
    table_by_measure,
    table_by_place,
)
from headwise.report.tables.numbers import description_of
from headwise.report.tables.table import Table
from headwise.runs.results import Result

# In the order of the page: titles, and what to know when reading a section.
_SECTIONS: dict[PageSection, tuple[str, str]] = {
    "taps": (
        "Accuracy at every tap",
        "Probes are trained on frozen features; the table shows the percentage of test images that "
        "they classify correctly. NMI and ARI of clusters range from 0 (chance) to 1.",
    ),
    "transformations": (
        "Transformations of an image",
        "An MLP on frozen features predicts which transformation was applied; the table shows its "
        "accuracy in percent, and the figure also shows the values of SimCLR's table 3 (ResNet-50 "
        "on ImageNet). There, every transformation was among the operators of pretraining; the "
        'column "in pretraining" says whether it was here. For parameters of views (crop, '
        "brightness, hue, blur) the table shows R² of a ridge regression, which is 0 for a "
        "constant guess.",
    ),
    "factors": (
        "Factors other than the class",
        "How well each factor is predicted, from 0 (a constant guess) to 1 (exactly). A factor "
        "that is in h but not in z was removed by the head.",
    ),
    "geometry": (
        "Geometry",
        "Neither end of these scales is better in itself. Only class separation needs labels. A "
        "steep fall of the singular values means that few directions are in use; a sudden drop to "
        "zero is dimensional collapse.",
    ),
    "pairs": (
        "What taps share with h",
        "Linear CKA is 1 if one tap is a rotation and scaling of the other. Rényi information is "
        "matrix-based mutual information of order 2: compare it with that of h and itself, and "
        "with that of shuffled images, which share nothing.",
    ),
    "labels": (
        "Fine-tuned with few labels and with all",
        "The whole network is trained on labels, from the pretrained weights and from scratch.",
    ),
    "transfer": ("Transfer to other images", "Each target is scored by its own metric."),
    "leakage": (
        "Leakage between batch-mates",
        "The z of a head that attends over the batch depends on which images share the batch. The "
        "main number is the one of shuffled batches. h never depends on batch-mates.",
    ),
    "robustness": (
        "Robustness to augmentations",
        "Accuracy of a linear probe that was trained on unchanged images (percent in the table), "
        "and the cosine between the features of an image with and without the augmentation. The "
        "dotted lines are chance and the cosine of different images.",
    ),
    "others": ("Other numbers", ""),
}
_DIFFERENCES = (
    "Compared with another run",
    f"This run minus the other, on the same test images. {ONE_RUN_OF_EACH}.",
)


_APART = (
    "Measured with other settings",
    "These values have other settings or evaluation seeds than the same measures above, so they "
    "are not compared with them. Measure both again with one command to compare them.",
)


def evaluation_parts(evaluation: Evaluation) -> list[PagePart]:
    """The sections that have results, apart from those of the fusion lab. Call within `style()`."""
    by_section: dict[PageSection, list[Result]] = {}
    for result in _in_order(evaluation):
        section = description_of(result).section_of(result)
        if section == "fusion" and evaluation.fusion is None:
            section = "others"  # without its arrays the lab has no section of its own
        by_section.setdefault(section, []).append(result)
    parts = [_part(evaluation, name, by_section[name]) for name in _SECTIONS if name in by_section]
    if evaluation.differences:
        title, note = _DIFFERENCES
        table = differences_table(evaluation.differences)
        parts.append(PagePart(anchor="differences", title=title, note=note, table=table))
    if evaluation.apart:
        title, note = _APART
        table = apart_table(evaluation.apart)
        parts.append(PagePart(anchor="apart", title=title, note=note, table=table))
    return parts


def _in_order(evaluation: Evaluation) -> list[Result]:
    """As in results.json; where classes are unbalanced, balanced accuracy before accuracy."""
    results = list(evaluation.results.values())
    if not evaluation.unbalanced:
        return results
    families = [(r.protocol, r.measure, r.variant) for r in results]
    first = {family: place for place, family in reversed([*enumerate(families)])}
    in_order = sorted(
        zip(families, results, strict=True),
        key=lambda pair: (first[pair[0]], pair[1].metric != "per_class"),
    )
    return [result for _, result in in_order]


def _part(evaluation: Evaluation, name: PageSection, results: Sequence[Result]) -> PagePart:
    title, note = _SECTIONS[name]
    drawings = _drawings(evaluation, name)
    many = len(evaluation.arrays.get("confusion/linear/h", ())) > WIDE_CLASSES
    wide = [drawing for drawing in drawings if drawing.name == "confusion" and many]
    return PagePart(
        anchor=name,
        title=title,
        note=" ".join(filter(None, [note, _finding(evaluation, name)])),
        drawings=[drawing for drawing in drawings if drawing not in wide],
        wide=wide,
        table=_table(name, results),
    )


def _table(section: PageSection, results: Sequence[Result]) -> Table:
    match section:
        case "transfer":
            return table_by_measure(results, "target")
        case "pairs":
            return table_by_measure(results, "taps")
        case "robustness":
            return robustness_table(results)
        case _:
            return table_by_place(results)


def _drawings(evaluation: Evaluation, section: PageSection) -> list[Drawing]:
    match section:
        case "taps":
            drawings = [figures.taps_curve(evaluation), confusion_matrix(evaluation)]
        case "transformations":
            drawings = [figures.transformation_bars(evaluation), parameter_grid(evaluation)]
        case "factors":
            drawings = [factor_grid(evaluation)]
        case "geometry":
            drawings = [figures.tap_spectra(evaluation)]
        case "labels":
            drawings = [figures.semi_curve(evaluation)]
        case "leakage":
            drawings = [figures.leakage_bars(evaluation)]
        case "robustness":
            drawings = [figures.robustness_panels(evaluation)]
        case _:
            drawings = []
    return [drawing for drawing in drawings if drawing is not None]


def _finding(evaluation: Evaluation, section: PageSection) -> str:
    match section:
        case "taps":
            return most_confused(evaluation)
        case "leakage":
            return leakage_sentence(evaluation)
        case _:
            return ""
