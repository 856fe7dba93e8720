"""What `headwise fusion` found, as sections of the run's report."""

from headwise.heads import HeadConfig
from headwise.report.pages.part import PagePart
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
from headwise.report.reading.fusion import FusionArrays
from headwise.report.tables.evaluation import fusion_table

_GAIN_NOTE = (
    "The gain is the attention to other images of the image's own class, divided by what a random "
    "choice would give; 1 means no preference. Fusion exceeds its controls if the gain exceeds "
    "that of each. Attention is in percent; n counts batches."
)
_CURVES_NOTE = (
    "Bands are 95 % t-intervals over batches. For permuted labels, the band holds 95 % of the "
    "permutations."
)
_MAPS_NOTE = (
    "The images of one batch, sorted by class ({classes}). Each row of a panel attends to the "
    "columns; white frames enclose images of one class; black fields are left out. In colour, 1 is "
    "the mean over the batch; a field that gets no attention has the darkest colour of the scale."
)
_GEOMETRY_NOTE = (
    "The first views of a batch at every tap; bands are 95 % t-intervals over batches. A value "
    "that uniform attention also reaches does not come from the learned attention."
)


def fusion_parts(fusion: FusionArrays, head: HeadConfig, evaluation: Evaluation) -> list[PagePart]:
    """The conclusion with the numbers of every block, then figures; for a head without attention
    only those of geometry. Call within `style()`."""
    results = [r for r in evaluation.results.values() if r.protocol == "fusion"]
    parts = [
        PagePart(
            anchor="fusion",
            title="Fusion in the projection head",
            note=_GAIN_NOTE if fusion.block_taps else "",
            lines=conclusion(fusion.arrays, head),
            table=fusion_table(results) if results else None,
            spread="± is half of the 95 % interval over batches.",
        )
    ]
    curves = [gain_by_depth(fusion), mass_by_depth(fusion), over_training(fusion)]
    figures = _known([*curves, token_path(fusion)])
    if figures:
        title = "Fusion along depth and training"
        parts.append(
            PagePart(anchor="fusion-curves", title=title, note=_CURVES_NOTE, drawings=figures)
        )
    if fusion.get("maps") is not None:
        parts.append(_maps(fusion))
    if figures := _known([geometry_by_tap(fusion)]):
        title = "Geometry along the head"
        parts.append(
            PagePart(anchor="fusion-geometry", title=title, note=_GEOMETRY_NOTE, drawings=figures)
        )
    return parts


def _maps(fusion: FusionArrays) -> PagePart:
    maps, labels = fusion.arrays["maps"], fusion.arrays["map_labels"]
    blocks = _known([block_grid(fusion, masked=True), block_grid(fusion, masked=False)])
    heads = _known([head_grid(fusion, masked=True), head_grid(fusion, masked=False)])
    wide = maps.shape[1] > WIDE_HEADS
    names = ", ".join(dict.fromkeys(fusion.class_names(labels)))
    return PagePart(
        anchor="fusion-maps",
        title="Attention between images",
        note=_MAPS_NOTE.format(classes=names),
        drawings=blocks if wide else [*blocks, *heads],
        wide=heads if wide else [],
    )


def _known(drawings: list[Drawing | None]) -> list[Drawing]:
    return [drawing for drawing in drawings if drawing is not None]
