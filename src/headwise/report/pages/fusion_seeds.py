"""`report.html` of several runs of one head: what they show about fusion over their seeds."""

from pathlib import Path

from headwise.config import to_dict
from headwise.evaluation.statistics.crossed import FEWEST_SEEDS
from headwise.fusion.seed_runs import read_over_seeds
from headwise.fusion.verdict import LEAST_EXCESS
from headwise.report.pages.rendering import render, write_page
from headwise.report.plots.drawing import style
from headwise.report.plots.fusion_seeds import excess_by_depth
from headwise.report.prose.fusion_seeds import conclusion_over_seeds
from headwise.report.reading.fusion import short_runs
from headwise.report.tables.fusion import seeds_table
from headwise.report.words import counted, settings_in_words


def write_seeds_report(out: str | Path) -> Path:
    """Write `report.html` and `figures/` beside the fusion-seeds.json in `out`; the path of the
    page."""
    result = read_over_seeds(Path(out))
    with style():
        drawing = excess_by_depth(result.found)
    values = {
        "head": result.head.name,
        "spec": result.spec,
        "facts": [
            counted(len(result.seeds), "seed"),
            f"{result.batches} batches of {result.batch_size} {result.split} images",
        ],
        "short": short_runs(result),
        "lines": conclusion_over_seeds(result),
        "table": seeds_table(result.found),
        "drawings": [drawing],
        "runs": dict(zip(result.seeds, result.runs, strict=True)),
        "settings": settings_in_words(to_dict(result.head)),
        "least": LEAST_EXCESS,
        "fewest": FEWEST_SEEDS,
    }
    return write_page(Path(out), render("fusion_seeds.html", values), [drawing])
