"""A page anew from what is on disk, with nothing measured."""

from pathlib import Path

from headwise.errors import UserError
from headwise.fusion.seed_runs import SEEDS_FILE
from headwise.report.pages.comparison import write_report
from headwise.report.pages.fusion_seeds import write_seeds_report
from headwise.report.pages.run import write_run_report
from headwise.report.pages.study import write_study_report
from headwise.report.reading.study import FINDINGS_FILE
from headwise.runs.directory import is_comparison


def rebuild(path: str | Path) -> Path:
    """Write `report.html` and `figures/` of a run, a comparison, a claim over seeds or a study
    from the files in its directory; the path of the page. Nothing is measured, and the same content
    gives the same bytes.

    Raises `UserError` if the directory is neither, is not finished, or has no results yet.
    """
    path = Path(path)
    if (path / "summary.json").is_file():
        return write_report(path)
    if (path / SEEDS_FILE).is_file():
        return write_seeds_report(path)
    if (path / FINDINGS_FILE).is_file() or (path / "study.json").is_file():
        return write_study_report(path)
    config = path / "config.json"
    if not config.is_file():
        raise UserError(
            f"report needs the directory of a run or a comparison; {path} has no config.json; "
            "check the path"
        )
    if is_comparison(path):
        raise UserError(
            f"report: the comparison {path} is not finished, so it has no summary.json; "
            f"finish it with: headwise compare --resume {path}"
        )
    return write_run_report(path)
