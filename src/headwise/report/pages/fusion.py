"""What `headwise fusion` found, as sections of the run's report."""

from headwise.heads import HeadConfig
from headwise.report.pages.section import Section
from headwise.report.plots.attention import WIDE_HEADS, block_grid, head_grid, token_path
from headwise.report.plots.drawing import Drawing
from headwise.report.plots.fusion import (
    gain_by_depth,
    geometry_by_tap,
    mass_by_depth,
    over_training,
)
from headwise.report.prose.fusion import conclusion
from headwise.report.reading.evaluation import Evaluation
from headwise.report.reading.fusion import Fusion
from headwise.report.tables.evaluation import fusion_table

_GAIN_NOTE = (
    "Gain: attention to other images of one’s own class over what a choice at random gives; 1 is "
    "no preference. Fusion is called shown where the gain exceeds that of every control. Attention "
    "in percent; n counts batches."
)
_CURVES_NOTE = (
    "Bands are 95 % t-intervals over batches; those of permuted labels hold 95 % of the "
    "permutations."
)
_MAPS_NOTE = (
    "Images of one batch sorted by class ({classes}), attending down the side, attended to along "
    "the top; white frames hold images of one class. Left out is black. The mean over a batch is 1 "
    "in colour: what is not seen at all is as dark as the scale goes."
)
_GEOMETRY_NOTE = (
    "First views of a batch, at every tap; bands are 95 % t-intervals over batches. What uniform "
    "attention does as well owes nothing to who attends to whom."
)


def fusion_sections(fusion: Fusion, head: HeadConfig, evaluation: Evaluation) -> list[Section]:
    """The conclusion with the numbers of every block, then figures; of a head without attention
    only those of geometry. Call within `style()`."""
    measures = evaluation.measures(r"fusion_\w+")
    sections = [
        Section(
            anchor="fusion",
            title="Fusion in the projection head",
            note=_GAIN_NOTE if fusion.block_taps else "",
            lines=conclusion(fusion.arrays, head),
            table=fusion_table(evaluation, measures) if measures else None,
        )
    ]
    curves = [gain_by_depth(fusion), mass_by_depth(fusion), over_training(fusion)]
    figures = _known([*curves, token_path(fusion)])
    if figures:
        title = "Fusion along depth and training"
        sections.append(
            Section(anchor="fusion-curves", title=title, note=_CURVES_NOTE, drawings=figures)
        )
    if fusion.get("maps") is not None:
        sections.append(_maps(fusion))
    if figures := _known([geometry_by_tap(fusion)]):
        title = "Geometry along the head"
        sections.append(
            Section(anchor="fusion-geometry", title=title, note=_GEOMETRY_NOTE, drawings=figures)
        )
    return sections


def _maps(fusion: Fusion) -> Section:
    maps, labels = fusion.arrays["maps"], fusion.arrays["map_labels"]
    blocks = _known([block_grid(fusion, masked=True), block_grid(fusion, masked=False)])
    heads = _known([head_grid(fusion, masked=True), head_grid(fusion, masked=False)])
    wide = maps.shape[1] > WIDE_HEADS
    names = ", ".join(dict.fromkeys(fusion.class_names(labels)))
    return Section(
        anchor="fusion-maps",
        title="Who attends to whom",
        note=_MAPS_NOTE.format(classes=names),
        drawings=blocks if wide else [*blocks, *heads],
        wide=heads if wide else [],
    )


def _known(drawings: list[Drawing | None]) -> list[Drawing]:
    return [drawing for drawing in drawings if drawing is not None]
