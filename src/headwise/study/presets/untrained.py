"""The studies that train nothing: their findings are computed at once."""

from collections.abc import Sequence
from typing import NamedTuple

from headwise.data import DataConfig, open_images
from headwise.errors import UserError, nearest
from headwise.report.plots.drawing import Drawing, style
from headwise.report.reading.study import ClaimFound, StudyFindings, Tested
from headwise.study.design import Claim
from headwise.study.presets.budgets import SHAPES, only
from headwise.study.presets.histograms import MOST, pixel_histograms
from headwise.theory import checks
from headwise.theory.figures import map_figure

UNTRAINED = ("pixel-histograms", "theory-rates")

RATES = Claim(
    name="theory-rates",
    says="Attention over a batch brings the images of a class together at the rate that a theory "
    "predicts.",
    source="Deep Fusion (arXiv 2403.18681); its formulas were not at hand, so the theory is that "
    "of this project (docs/theory.md)",
    contrasts=(),
)
_WITHIN = 0.02


class Found(NamedTuple):
    findings: StudyFindings
    drawings: tuple[Drawing, ...]


def untrained(name: str, data: Sequence[str] = (), seed: int = 0) -> Found:
    """The findings of this study. `data`: images for pixel-histograms, by default the built-in
    shapes. Raises `UserError` for another name, and for data that are not used."""
    spec = only(name, data)
    with style():
        match name:
            case "pixel-histograms":
                config = DataConfig(spec=spec or SHAPES, limit=MOST)
                findings, drawing = pixel_histograms(
                    open_images(config).train, config.spec, seed=seed
                )
                return Found(findings, (drawing,))
            case "theory-rates":
                if spec is not None:
                    raise UserError(f"theory-rates takes no --data; got {spec}; leave it out")
                return _theory_rates(seed)
    raise UserError(f"the study must be known; got {name!r}; {nearest(name, UNTRAINED)}")


def _theory_rates(seed: int) -> Found:
    """One layer of attention on random batches, in the range that the theory is stated for."""
    inside, outside = list(checks.map_points(seed)), list(checks.points_outside(seed))
    most = max(point.error for point in inside)
    off = sum(point.error > _WITHIN for point in inside)
    tested = Tested(
        name="largest error of the mean cosines after one layer",
        measure="error",
        expects="below",
        unit="share of the cosine",
        value=most,
        answer="contradicted" if off else "supported",
        verdict=f"{len(inside) - off} of {len(inside)} random batches within 2 %",
        seeds=1,
    )
    claim = ClaimFound(
        name=RATES.name,
        says=RATES.says,
        source=RATES.source,
        paper=RATES.paper,
        answer=tested.answer,
        words=f"In simulation, with untrained attention by cosine: {tested.verdict}, the largest "
        f"error {100 * most:.1f} %; trained heads: headwise theory --runs.",
        tested=(tested,),
    )
    findings = StudyFindings(
        name="theory-rates",
        asks="How fast does attention over a batch bring the images of a class together?",
        scale=f"{len(inside)} random batches, one layer; nothing is trained",
        axes={},
        seeds=1,
        arms=(),
        claims=(claim,),
        figures=(),
    )
    return Found(findings, (map_figure(inside, outside),))
